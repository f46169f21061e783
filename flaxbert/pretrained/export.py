"""Writing a model as a Hugging Face directory, which transformers and flaxbert both load."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaxbert.data import tokenization
from flaxbert.data.tokenization import Tokenizer
from flaxbert.errors import WorkdirError
from flaxbert.models.model import Model
from flaxbert.pretrained import mapping
from flaxbert.runtime.files import atomic_directory
from flaxbert.types import Params

DROPPED = (
    *("_name_or_path", "transformers_version", "torch_dtype"),
    *("id2label", "label2id", "problem_type", "flaxbert"),
)
"""Keys of the base model's config.json that do not describe the exported model."""


def export(
    directory: Path,
    *,
    model: Model,
    params: Params | None,
    tokenizer: Tokenizer,
    hf_config: Mapping[str, Any],
    task_config: Mapping[str, Any],
    card: str = "",
) -> None:
    """Write config, weights, tokenizer and model card, all of them or nothing.

    Args:
      directory: replaced if it exists.
      model: encoder and output layer.
      params: parameters on the host; None leaves the weights out.
      tokenizer: its maximum length is set to the model's.
      hf_config: config.json of the base model.
      task_config: the task's fields of config.json, such as label names.
      card: text of the README.md; "" writes none.

    Raises:
      WorkdirError: if the directory cannot be written.
    """
    kept = {key: value for key, value in hf_config.items() if key not in DROPPED}
    config = kept | {
        "architectures": [model.architecture],
        "model_type": model.config.model_type,
        "vocab_size": model.config.vocab_size,
        "max_position_embeddings": model.config.max_position_embeddings,
        "dtype": model.config.param_dtype,
        **task_config,
    }
    # Pipelines of transformers truncate to this length; the position table may have been resized.
    tokenizer.model_max_length = model.config.max_positions
    try:
        with atomic_directory(directory) as partial:
            if params is not None:
                mapping.save(model, params, partial)
            tokenization.save(tokenizer, partial)
            write_config(partial, config)
            if card:
                (partial / "README.md").write_text(card, encoding="utf-8")
    except Exception as error:  # safetensors and tokenizers raise types of their own
        raise WorkdirError(
            f"{directory}: could not be written ({error}). The checkpoints are intact: free disk "
            "space or choose another directory, and run the same command again."
        ) from error


def write_config(directory: Path, hf_config: Mapping[str, Any]) -> None:
    """Write a config.json."""
    text = json.dumps(hf_config, indent=2, ensure_ascii=False) + "\n"
    (directory / "config.json").write_text(text, encoding="utf-8")
