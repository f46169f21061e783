"""Questions on a context, with their reference answers (SQuAD)."""

import dataclasses

from flaxbert.config import DataConfig
from flaxbert.data.answers import Answer, check_questions, read_answers, unspaced
from flaxbert.data.checks import MALFORMED, Example, Issue
from flaxbert.data.table import Reading, Record, Table


@dataclasses.dataclass(frozen=True)
class QuestionExample(Example):
    """One question on one context; `answers` are (text, first character), empty if unlabeled."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    slice: str | None
    origin: str

    @property
    def texts(self) -> tuple[str, ...]:
        """Question and context."""
        return (self.question, self.context)

    @property
    def target(self) -> tuple[Answer, ...]:
        """All answers."""
        return self.answers

    @property
    def shared_context(self) -> str:
        """The context, which other questions may be about too."""
        return self.context

    def agrees_with(self, other: "QuestionExample") -> bool:
        """Return whether both questions accept some text, or neither has an answer."""
        accepted = {text for text, _ in self.answers}
        if accepted:
            return any(text in accepted for text, _ in other.answers)
        return self.answers == other.answers


def read_questions(
    table: Table, data: DataConfig, *, unanswerable: bool, labeled: bool
) -> Reading[QuestionExample]:
    """Read questions in the hub's SQuAD form.

    Args:
      table: with `question`, `context` and, if `labeled`, `answers`.
      data: the column of slices, and whether misplaced answers are skipped (`on_bad_row`).
      unanswerable: whether questions may have no answer.
      labeled: whether answers are read.

    Raises:
      DataError: with the place of the question, and how to fix it.
    """
    columns = dict.fromkeys(("question", "context", *(["answers"] if labeled else [])), "")
    table.require(columns, slices=data.slices if labeled else None)

    def question(row: Record) -> tuple[QuestionExample, list[str]]:
        text, context = row.text("question").strip(), row.text("context")
        part = row.slice(data.slices if labeled else None)
        answers: tuple[Answer, ...] = ()
        skipped: list[str] = []
        if labeled:
            answers, skipped = read_answers(
                row, unanswerable=unanswerable, on_bad_row=data.on_bad_row
            )
        name = str(row.values.get("id", row.origin))
        return QuestionExample(name, text, context, answers, part, row.origin), skipped

    reading = table.read(question, data.on_bad_row)
    examples = [example for example, _ in reading]
    group = table.source, "malformed answers skipped"
    issues = [Issue(MALFORMED, "", text, group) for _, texts in reading for text in texts]
    for issue in check_questions(table.rows, unanswerable=unanswerable):
        issues.append(dataclasses.replace(issue, group=(table.source, "odd questions")))
    issues += unspaced([e.answers for e in examples], [e.origin for e in examples])
    return reading.with_items(examples).with_issues(issues)
