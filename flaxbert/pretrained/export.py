"""Export: a directory that Hugging Face libraries read."""

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

REPLACED = (
    *("_name_or_path", "transformers_version", "torch_dtype"),
    *("id2label", "label2id", "problem_type", "flaxbert"),
)
"""Keys of a config.json that say something about the checkpoint's own past or task."""


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
    """Write config, weights, tokenizer and model card, all or nothing.

    Args:
      directory: replaced if it exists.
      model: encoder and output layer.
      params: on the host; None leaves the weights out.
      tokenizer: of the model.
      hf_config: config.json of the checkpoint that the model was made from.
      task_config: the task's fields, such as label names.
      card: the text of README.md; "" for none.

    Raises:
      WorkdirError: if it cannot be written.
    """
    try:
        with atomic_directory(directory.resolve()) as partial:
            if params is not None:
                mapping.save(model, params, partial)
            # Pipelines of transformers cut texts by it; the table of positions may have changed.
            tokenizer.model_max_length = model.config.max_positions
            tokenization.save(tokenizer, partial)
            kept = {key: value for key, value in hf_config.items() if key not in REPLACED}
            config = kept | {
                "architectures": [model.architecture],
                "model_type": model.config.model_type,
                "vocab_size": model.config.vocab_size,
                "max_position_embeddings": model.config.max_position_embeddings,
                "dtype": model.config.param_dtype,
                **task_config,
            }
            text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
            (partial / "config.json").write_text(text, encoding="utf-8")
            if card:
                (partial / "README.md").write_text(card, encoding="utf-8")
    except Exception as error:  # safetensors and tokenizers raise types of their own
        raise WorkdirError(
            f"{directory}: could not be written ({error}). The checkpoints are intact: free disk "
            "space or choose another directory, and run the same command again."
        ) from error
