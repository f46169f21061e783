"""Downstream tasks, one file each, and BERT's two pre-training tasks.

A new task is a file here, a line in TASKS and a config: see docs/adding_a_task.md.
"""

from flaxbert.tasks.base import Task
from flaxbert.tasks.classification import Classification
from flaxbert.tasks.multi_label import MultiLabel
from flaxbert.tasks.multiple_choice import MultipleChoice
from flaxbert.tasks.pretraining import PreTraining
from flaxbert.tasks.question_answering import QuestionAnswering
from flaxbert.tasks.regression import Regression
from flaxbert.tasks.token_classification import TokenClassification

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "multi_label": MultiLabel,
    "multiple_choice": MultipleChoice,
    "pretraining": PreTraining,
    "question_answering": QuestionAnswering,
    "regression": Regression,
    "token_classification": TokenClassification,
}
