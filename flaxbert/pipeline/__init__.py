"""The parts that training, evaluation and prediction share: pipeline, data sets, predictor."""
