"""Models: BERT, its output layers, and its weights. Knows no task, no data and no optimizer."""
