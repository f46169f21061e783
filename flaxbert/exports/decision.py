"""What lies between a text and an answer and is not in the graph: the content of decision.json."""

from typing import Any

from flaxbert.data.tokenization import expect_words
from flaxbert.errors import ConfigError
from flaxbert.exports.onnx_graph import input_names
from flaxbert.exports.runtime import VERSION
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.tasks.classification import Classification
from flaxbert.tasks.multi_label import MultiLabel
from flaxbert.tasks.multiple_choice import MultipleChoice
from flaxbert.tasks.question_answering import QuestionAnswering
from flaxbert.tasks.regression import Regression
from flaxbert.tasks.sentences import WORD
from flaxbert.tasks.text_task import TextTask
from flaxbert.tasks.token_classification import TokenClassification


def decision_of(pipeline: Pipeline) -> dict[str, Any]:
    """Return the content of decision.json, of JSON's types; docs/export.md describes the keys.

    Raises:
      ConfigError: for a task without a form in this file.
    """
    task, tokenizer, model = pipeline.task, pipeline.tokenizer, pipeline.model
    if isinstance(task, TokenClassification):
        expect_words(tokenizer)
    per_token = list(model.head.hf_token_outputs)
    names = per_token or list(model.head.hf_sequence_outputs)
    return {
        "version": VERSION,
        "task": pipeline.task_name,
        "architecture": model.architecture,
        "tokenizer": {
            "file": "tokenizer.json",
            "split_special_tokens": bool(tokenizer.split_special_tokens),
            "cls_token_id": tokenizer.cls_token_id,
            "sep_token_id": tokenizer.sep_token_id,
            "pad_token_id": tokenizer.pad_token_id or 0,
        },
        "inputs": input_names(model.config),
        "outputs": dict.fromkeys(names, "token" if per_token else "sequence"),
        "max_length": pipeline.data.max_length,
        "overlap": pipeline.data.overlap,
        **_of_task(pipeline),
    }


def _of_task(pipeline: Pipeline) -> dict[str, Any]:
    """Return the keys that depend on the task."""
    task = pipeline.task
    match task:
        case Classification():
            return _of_texts(task) | {"activation": "softmax", "labels": list(task.labels)}
        case MultiLabel():
            keys = {"activation": "sigmoid", "labels": list(task.labels)}
            return _of_texts(task) | keys | {"thresholds": list(task.thresholds)}
        case Regression():  # exported in the units of the labels
            return _of_texts(task) | {"activation": "none", "labels": []}
        case TokenClassification():
            labels = list(task.labels)
            return {
                "activation": "argmax",
                "labels": labels,
                "scheme": "IOB2" if task.marks_entities else "plain",
                "outside": task.outside,
                "word_pattern": WORD.pattern,
            }
        case QuestionAnswering():
            return {
                "activation": "none",
                "n_best": task.options.n_best,
                "max_answer_length": task.options.max_answer_length,
                "unanswerable": task.options.unanswerable,
                "null_threshold": task.null_threshold,
            }
        case MultipleChoice():
            return {"activation": "softmax over choices"}
    raise ConfigError(
        f"--config.task={pipeline.task_name}: such models cannot be exported for serving, because "
        "decision.json has no form for the task. Use the Hugging Face export of the run."
    )


def _of_texts(task: TextTask) -> dict[str, Any]:
    options = task.options
    return {"pair": options.pair is not None, "long_texts": options.long_texts}
