"""The HTTP server: requests are batched, answered by one predictor, and measured."""
