"""The model card of an export: what the model is for, how good it is, and how it was made.

The metadata in front is that of the Hugging Face Hub, where https://hf.co/docs/hub/model-cards
describes it.
"""

import dataclasses
import html
import itertools
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flaxbert.config import evaluation_data
from flaxbert.models.model import Model

LICENSES = {
    "albert": "apache-2.0",
    "answerdotai": "apache-2.0",
    "distilbert": "apache-2.0",
    "facebookai": "mit",
    "google": "apache-2.0",
    "google-bert": "apache-2.0",
}
"""Licenses of the pre-trained encoders that an organization of the hub publishes."""

METRICS = {
    "accuracy": "accuracy",
    "f1": "f1",
    "f1_macro": "f1",
    "f1_micro": "f1",
    "exact_match": "exact_match",
    "precision": "precision",
    "recall": "recall",
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
}
"""Metrics that the hub lists: {our name: the hub's}."""

WIDGETS: Mapping[str, Mapping[str, str]] = {
    "text-classification": {"text": "I liked it very much."},
    "token-classification": {"text": "Marie Curie was born in Warsaw."},
    "question-answering": {
        "text": "Where does Anna work?",
        "context": "Anna lives in Lisbon and works in Porto.",
    },
}
"""Inputs to try a model with on its page. They are never the user's texts, which may be private."""

LIMITS = {
    "classification": "It gives every text one of its labels, also a text that fits none.",
    "multi_label": "Labels that are rare in the training data are found less often than others.",
    "regression": "Numbers outside the range of the training data are rarely predicted well.",
    "token_classification": "It finds entities of its types only, and none that overlap.",
    "question_answering": "An answer is always a part of the given text, word by word; it is not "
    "checked against any other source.",
    "multiple_choice": "It always chooses one of the given answers, also if all are wrong.",
}
"""What models of a task cannot do."""

SMALL = 1000
"""With fewer examples, 95 % intervals of an accuracy of 0.9 are wider than 0.04."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a card says of the data of a run."""

    labels: Sequence[str] = ()
    eval_examples: int = 0
    """Number of examples of data.eval; 0 without it."""
    eval_cut: int = 0
    """How many of them lost text to `data.max_length`."""


def model_card(
    model: Model,
    settings: Mapping[str, Any],
    results: Mapping[str, float],
    commits: Mapping[str, str] = MappingProxyType({}),
    facts: Facts = Facts(),
) -> str:
    """Return the text of README.md, with the metadata of the Hugging Face Hub in front.

    Args:
      model: encoder and output layer.
      settings: the run's configuration, by sections and keys.
      results: metrics of the run; those that depend on the clock are left out.
      commits: {config key: commit} of the model and data sets from the hub.
      facts: labels, and sizes of the evaluation set.
    """
    task, init = settings["task"], settings["model"]["init"]
    metadata = _metadata(model, settings, results, commits)
    about = [f"# {model.architecture}: {task.replace('_', ' ')}", ""]
    about += [f"{_with_commit(init, commits.get('model.init'))}, fine-tuned with flaxbert.", ""]
    if facts.labels:
        numbered = {name: number for number, name in enumerate(facts.labels)}
        about += ["## Labels", "", *_table(("label", "index"), numbered), ""]
    return "\n".join(
        [
            "---",
            # JSON is YAML, except for escaped characters beyond U+FFFF.
            *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in metadata.items()),
            "---",
            "",
            *about,
            *_loading(model),
            "## Evaluation",
            "",
            *_evaluation(settings, results, commits, facts),
            "## Limits",
            "",
            *_limits(settings, facts),
            "## Recipe",
            "",
            *_recipe(settings, commits),
            *_command(),
            "## Full configuration",
            "",
            "```json",
            json.dumps(settings, indent=2, ensure_ascii=False),
            "```",
            "",
        ]
    )


def _metadata(
    model: Model,
    settings: Mapping[str, Any],
    results: Mapping[str, float],
    commits: Mapping[str, str],
) -> dict[str, Any]:
    """Return the metadata of the hub; what is not known is absent."""
    task, init, tag = settings["task"], settings["model"]["init"], model.head.pipeline_tag
    metadata: dict[str, Any] = {"library_name": "transformers", "tags": ["flaxbert", task]}
    if tag:
        metadata["pipeline_tag"] = tag
    if _is_hub_id(init):
        metadata["base_model"] = init
        if known := LICENSES.get(init.partition("/")[0].lower()):
            metadata["license"] = known
    if languages := _languages(settings, results):
        metadata["language"] = languages
    if "data.train" in commits:
        metadata["datasets"] = [_dataset_id(settings["data"]["train"])]
    metrics = [
        {"type": METRICS[name], "name": name, "value": round(float(results[name]), 4)}
        for name in METRICS
        if name in results
    ]
    if tag and metrics and _evaluated(settings):
        metadata["metrics"] = list(dict.fromkeys(metric["type"] for metric in metrics))
        result = {"task": {"type": tag}, "dataset": _dataset(settings, commits), "metrics": metrics}
        metadata["model-index"] = [{"name": model.architecture, "results": [result]}]
    if tag and tag in WIDGETS and not (settings["options"] or {}).get("pair"):
        metadata["widget"] = [dict(WIDGETS[tag])]
    return metadata


def _languages(settings: Mapping[str, Any], results: Mapping[str, float]) -> list[str]:
    """Return the languages of the evaluation set, if it is sliced by their codes."""
    if settings["data"]["slices"] not in ("lang", "language"):
        return []
    parts = {name.partition("/")[2] for name in results if name[:5] not in ("perf/", "data/")}
    return sorted(part for part in parts if re.fullmatch("[a-z]{2,3}", part))


def _dataset_id(source: str) -> str:
    """Return the id in ID[:CONFIG][@SPLIT][#REVISION]."""
    return re.split("[:@#]", source, maxsplit=1)[0]


def _evaluated(settings: Mapping[str, Any]) -> str | None:
    """Return the evaluation data in words."""
    data = settings["data"]
    return evaluation_data(data["train"], data["eval"], data.get("eval_split", 0.0))


def _dataset(settings: Mapping[str, Any], commits: Mapping[str, str]) -> dict[str, str]:
    """Return the evaluation set; a part of the training data if that is what it is."""
    key = "data.eval" if settings["data"]["eval"] else "data.train"
    source = settings["data"][key.removeprefix("data.")]
    if key not in commits:
        return {"type": "file", "name": Path(source).name}
    name = _dataset_id(source)
    return {"type": name, "name": name, "revision": commits[key]}


def _loading(model: Model) -> list[str]:
    """Return how to load the model in both libraries."""
    return [
        "## Use",
        "",
        "`MODEL` is the id of this repository, or a directory with its files. With transformers:",
        "",
        "```python",
        f"from transformers import AutoTokenizer, {model.architecture}",
        "",
        f'model = {model.architecture}.from_pretrained("MODEL")',
        'tokenizer = AutoTokenizer.from_pretrained("MODEL")',
        "```",
        "",
        "With flaxbert, which also applies the thresholds that were fitted in training, if any:",
        "",
        "```python",
        "import flaxbert",
        "",
        'predictor = flaxbert.load("MODEL")',
        "```",
        "",
    ]


def _evaluation(
    settings: Mapping[str, Any],
    results: Mapping[str, float],
    commits: Mapping[str, str],
    facts: Facts,
) -> list[str]:
    """Return the metrics, with their 95 % intervals where there are any."""
    data = _evaluated(settings)
    if not data:
        return ["The run had no evaluation set.", ""]
    count = f"{facts.eval_examples:,} examples of " if facts.eval_examples else ""
    metrics = {}
    for name, value in results.items():
        base, slash, part = name.partition("/")
        if base in ("perf", "data") or base.endswith(("_low95", "_high95")):
            continue
        low, high = (results.get(f"{base}_{end}95{slash}{part}") for end in ("low", "high"))
        interval = "" if low is None or high is None else f" ({low:.4g} to {high:.4g})"
        metrics[name] = f"{value:.4g}{interval}"
    source = _with_commit(data, commits.get("data.eval"))
    return [
        f"On {count}{source}. In parentheses: 95 % intervals.",
        "",
        *_table(("metric", "value"), metrics),
        "",
    ]


def _limits(settings: Mapping[str, Any], facts: Facts) -> list[str]:
    """Return what the model cannot do, as a list."""
    length, limits = settings["data"]["max_length"], []
    if known := LIMITS.get(settings["task"]):
        limits.append(known)
    whole = settings["task"] in ("question_answering", "token_classification")
    if whole or (settings["options"] or {}).get("long_texts") == "windows":
        limits.append(
            f"flaxbert splits texts of more than {length} tokens into overlapping windows; other "
            "libraries may cut them."
        )
    else:
        cut = f" In the evaluation set these were {facts.eval_cut}." if facts.eval_cut else ""
        limits.append(f"Of texts with more than {length} tokens, only a part is read.{cut}")
    if 0 < facts.eval_examples < SMALL:
        limits.append(
            f"The evaluation set is small ({facts.eval_examples} examples), so the metrics are "
            "uncertain."
        )
    limits.append(
        "It was evaluated on data like its training data; other texts, topics or languages may "
        "have worse results."
    )
    return [*(f"* {limit}" for limit in limits), ""]


def _recipe(settings: Mapping[str, Any], commits: Mapping[str, str]) -> list[str]:
    optim, train, data = settings["optim"], settings["train"], settings["data"]
    recipe = {
        "base model": _with_commit(settings["model"]["init"], commits.get("model.init")),
        "trained on": _with_commit(data["train"], commits.get("data.train")),
        "epochs": train["epochs"],
        "batch size": train["batch_size"],
        "peak learning rate": optim["learning_rate"],
        "warm-up": optim["warmup"],
        "weight decay": optim["weight_decay"],
        "maximum sequence length": data["max_length"],
        "seed": train["seed"],
        "dtype": settings["model"]["dtype"],
    }
    return [*_table(("setting", "value"), recipe), ""]


def _with_commit(source: str, commit: str | None) -> str:
    return f"{source} (commit {commit})" if commit else source


def _table(head: tuple[str, str], rows: Mapping[str, object]) -> list[str]:
    cells = [head, ("---", "---"), *rows.items()]
    return [f"| {_cell(a)} | {_cell(b)} |" for a, b in cells]


def _cell(value: object) -> str:
    """Return a value as one line of a table; the name of a label may hold anything."""
    return html.escape(" ".join(str(value).split()), quote=False).replace("|", "&#124;")


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
