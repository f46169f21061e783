"""The model card of an export: what it is, from which data, by which recipe, and how good."""

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from flaxbert.config import Config
from flaxbert.models.model import Model

PIPELINES = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "ForMaskedLM": "fill-mask",
}
"""Hugging Face's names of tasks, by which its hub files models."""


def model_card(
    config: Config,
    model: Model,
    results: Mapping[str, float],
    commits: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The text of README.md, with the hub's metadata in front.

    Args:
      config: the run's.
      model: encoder and output layer.
      results: of the run; what depends on the clock is left out.
      commits: {config key: commit} of what is from the hub.
    """
    metadata = {"library_name": "transformers", "tags": ["flaxbert", config.task]}
    if model.kind in PIPELINES:
        metadata["pipeline_tag"] = PIPELINES[model.kind]
    if _is_hub_id(config.model.init):
        metadata["base_model"] = config.model.init
    # JSON is YAML; strings need no further escaping.
    lines = [f"{key}: {json.dumps(value)}" for key, value in metadata.items()]
    metrics = {name: value for name, value in results.items() if not name.startswith("perf/")}
    recipe = config.to_dict()
    optim, train, data = recipe["optim"], recipe["train"], recipe["data"]
    rows = {
        "from": _at(config.model.init, commits.get("model.init")),
        "trained on": _at(data["train"], commits.get("data.train")),
        "evaluated on": _at(data["eval"] or "nothing", commits.get("data.eval")),
        "epochs": train["epochs"],
        "batch size": train["batch_size"],
        "peak learning rate": optim["learning_rate"],
        "warm-up": optim["warmup"],
        "weight decay": optim["weight_decay"],
        "longest sequence": data["max_length"],
        "seed": train["seed"],
        "arithmetic": config.model.dtype,
    }
    return "\n".join(
        [
            "---",
            *lines,
            "---",
            "",
            f"# {model.architecture}: {config.task.replace('_', ' ')}",
            "",
            "Fine-tuned with flaxbert. transformers loads it:",
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
            *_table(("what", "value"), rows),
            "",
            *_command(),
            "## Evaluation",
            "",
            *_table(("metric", "value"), {name: f"{value:.4g}" for name, value in metrics.items()}),
            "",
            "## Whole configuration",
            "",
            "```json",
            json.dumps(recipe, indent=2, ensure_ascii=False),
            "```",
            "",
        ]
    )


def _at(source: str, commit: str | None) -> str:
    return f"{source} (commit {commit})" if commit else source


def _table(head: tuple[str, str], rows: Mapping[str, object]) -> list[str]:
    cells = [head, ("---", "---"), *rows.items()]
    return [f"| {a} | {str(b).replace('|', '&#124;')} |" for a, b in cells]


def _command() -> list[str]:
    """The command line, where the run was started by one."""
    if "flaxbert.run" not in sys.orig_argv:
        return []
    words = sys.orig_argv[sys.orig_argv.index("flaxbert.run") + 1 :]
    return ["```", f"python -m flaxbert.run {shlex.join(words)}", "```", ""]


def _is_hub_id(init: str) -> bool:
    here = init.startswith((".", "/", "~")) or Path(init).exists()
    return "://" not in init and init.count("/") <= 1 and not here
