"""Models: BERT, its output layers, and its weights. Independent of tasks, data and optimizers."""
