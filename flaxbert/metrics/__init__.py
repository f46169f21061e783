"""Metrics: pure functions of labels and predictions, defined as in their official scripts."""
