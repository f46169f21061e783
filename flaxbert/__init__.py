"""flaxbert: fine-tune BERT in JAX, on TPUs, GPUs and CPUs.

results = flaxbert.train(config, "workdir")
predictor = flaxbert.load("workdir")
predictions = predictor.predict(["A text."])
model, params = flaxbert.from_pretrained("directory or hub id")
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.errors import UserError
from flaxbert.pipeline.predictor import Predictor, load
from flaxbert.pretrained.load import from_pretrained
from flaxbert.training.trainer import Trained, train

__version__ = "0.1.0"

__all__ = [
    "Config",
    "DataConfig",
    "ModelConfig",
    "OptimConfig",
    "Predictor",
    "TrainConfig",
    "Trained",
    "UserError",
    "from_pretrained",
    "load",
    "train",
]
