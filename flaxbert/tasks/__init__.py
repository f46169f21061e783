"""Downstream tasks, one file each. To add one: a file here, a line in TASKS, a config."""

from flaxbert.tasks.base import Task
from flaxbert.tasks.classification import Classification
from flaxbert.tasks.question_answering import QuestionAnswering

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "question_answering": QuestionAnswering,
}
