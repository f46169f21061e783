"""What training, evaluation and prediction share: task, tokenizer, model, data sets, predictor."""
