"""The model card of an export: architecture, data, recipe and metrics."""

import itertools
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flaxbert.config import evaluation_data
from flaxbert.models.model import Model


def model_card(
    model: Model,
    settings: Mapping[str, Any],
    results: Mapping[str, float],
    commits: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return the text of README.md, with the metadata of the Hugging Face Hub in front.

    Args:
      model: encoder and output layer.
      settings: the run's configuration, by sections and keys.
      results: metrics of the run; those that depend on the clock are left out.
      commits: {config key: commit} of the model and data sets from the hub.
    """
    task, init = settings["task"], settings["model"]["init"]
    optim, train, data = settings["optim"], settings["train"], settings["data"]
    metadata = {"library_name": "transformers", "tags": ["flaxbert", task]}
    if model.head.pipeline_tag:
        metadata["pipeline_tag"] = model.head.pipeline_tag
    if _is_hub_id(init):
        metadata["base_model"] = init
    metrics = {
        name: f"{value:.4g}" for name, value in results.items() if not name.startswith("perf/")
    }
    evaluated = evaluation_data(data["train"], data["eval"], data.get("eval_split", 0.0))
    recipe = {
        "base model": _with_commit(init, commits.get("model.init")),
        "trained on": _with_commit(data["train"], commits.get("data.train")),
        "evaluated on": _with_commit(evaluated or "nothing", commits.get("data.eval")),
        "epochs": train["epochs"],
        "batch size": train["batch_size"],
        "peak learning rate": optim["learning_rate"],
        "warm-up": optim["warmup"],
        "weight decay": optim["weight_decay"],
        "maximum sequence length": data["max_length"],
        "seed": train["seed"],
        "dtype": settings["model"]["dtype"],
    }
    return "\n".join(
        [
            "---",
            *(f"{key}: {json.dumps(value)}" for key, value in metadata.items()),  # JSON is YAML
            "---",
            "",
            f"# {model.architecture}: {task.replace('_', ' ')}",
            "",
            "Fine-tuned with flaxbert. To load it with transformers:",
            "",
            "```python",
            f"from transformers import AutoTokenizer, {model.architecture}",
            "",
            f'model = {model.architecture}.from_pretrained("DIR")',
            'tokenizer = AutoTokenizer.from_pretrained("DIR")',
            "```",
            "",
            "## Recipe",
            "",
            *_table(("setting", "value"), recipe),
            "",
            *_command(),
            "## Evaluation",
            "",
            *_table(("metric", "value"), metrics),
            "",
            "## Full configuration",
            "",
            "```json",
            json.dumps(settings, indent=2, ensure_ascii=False),
            "```",
            "",
        ]
    )


def _with_commit(source: str, commit: str | None) -> str:
    return f"{source} (commit {commit})" if commit else source


def _table(head: tuple[str, str], rows: Mapping[str, object]) -> list[str]:
    cells = [head, ("---", "---"), *rows.items()]
    return [f"| {a} | {str(b).replace('|', '&#124;')} |" for a, b in cells]


def _command() -> list[str]:
    """Return the command line of the run as a code block; nothing for a run from Python."""
    command = command_line()
    return ["```", command, "```", ""] if command else []


def command_line() -> str:
    """Return the command line of this process's run; "" for a run from Python."""
    words = sys.orig_argv
    for place, (word, following) in enumerate(itertools.pairwise(words)):
        rest = shlex.join(words[place + 1 :])
        if word == "flaxbert.run":
            return f"python -m flaxbert.run {rest}"
        if Path(word).name == "flaxbert" and following in ("train", "eval"):
            return f"flaxbert {rest}"  # the script, or `-m flaxbert`
    return ""


def _is_hub_id(init: str) -> bool:
    is_local = init.startswith((".", "/", "~")) or Path(init).exists()
    return "://" not in init and init.count("/") <= 1 and not is_local
