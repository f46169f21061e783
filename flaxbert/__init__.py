"""flaxbert: fine-tune BERT in JAX, on TPUs and GPUs.

model, params = flaxbert.from_pretrained("DIR or hub id")
results = flaxbert.training.trainer(config, "workdir")
"""

from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.errors import UserError
from flaxbert.pretrained.load import from_pretrained
from flaxbert.training.trainer import train

__version__ = "0.1.0"

__all__ = [
    "Config",
    "DataConfig",
    "ModelConfig",
    "OptimConfig",
    "TrainConfig",
    "UserError",
    "from_pretrained",
    "train",
]
