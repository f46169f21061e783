"""flaxbert: fine-tune BERT in JAX, on TPUs, GPUs and CPUs.

config = flaxbert.load_config("quickstart")
results = flaxbert.train(config, "workdir")
predictor = flaxbert.load("workdir")
predictions = predictor.predict(["A text."])
model, params = flaxbert.from_pretrained("directory or hub id")
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flaxbert.commands.config_file import load_config as load_config
    from flaxbert.config import Config as Config
    from flaxbert.config import DataConfig as DataConfig
    from flaxbert.config import ModelConfig as ModelConfig
    from flaxbert.config import OptimConfig as OptimConfig
    from flaxbert.config import TrainConfig as TrainConfig
    from flaxbert.errors import UserError as UserError
    from flaxbert.pipeline.predictor import Predictor as Predictor
    from flaxbert.pipeline.predictor import load as load
    from flaxbert.pretrained.load import from_pretrained as from_pretrained
    from flaxbert.report.result import Trained as Trained
    from flaxbert.training.trainer import train as train

__version__ = "0.1.0"

MODULES = {
    "Config": "flaxbert.config",
    "DataConfig": "flaxbert.config",
    "ModelConfig": "flaxbert.config",
    "OptimConfig": "flaxbert.config",
    "Predictor": "flaxbert.pipeline.predictor",
    "TrainConfig": "flaxbert.config",
    "Trained": "flaxbert.report.result",
    "UserError": "flaxbert.errors",
    "from_pretrained": "flaxbert.pretrained.load",
    "load": "flaxbert.pipeline.predictor",
    "load_config": "flaxbert.commands.config_file",
    "train": "flaxbert.training.trainer",
}
"""The public names, and where they are defined: each is imported when it is first used, so that
`flaxbert --help` need not wait for JAX."""

__all__ = list(MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name not in MODULES:
        raise AttributeError(f"module 'flaxbert' has no attribute {name!r}")
    return getattr(importlib.import_module(MODULES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return [*globals(), *MODULES]
