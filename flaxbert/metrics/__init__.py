"""Metrics: pure functions of labels and predictions, as their official scripts define them."""
