"""The task that a table is made for, and the columns and lengths of its configuration.

Names of columns count first, then what the columns hold. `flaxbert init` writes the guess with its
reasons, and its flags replace any part of it.
"""

import collections
import dataclasses
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flaxbert.data.answers import read_answers
from flaxbert.data.checks import MANY_NUMBERS, is_number
from flaxbert.data.table import Record, Table, unprinted
from flaxbert.errors import DataError, shortened
from flaxbert.messages.language import plural, tr

TEXTS = (
    "text", "sentence", "review", "content", "comment", "tweet", "message", "body", "document",
    "utterance", "description", "question", "query", "abstract", "headline", "title", "texto",
)  # fmt: skip
PAIRS = (
    ("text", "pair"), ("sentence1", "sentence2"), ("premise", "hypothesis"),
    ("question1", "question2"), ("question", "sentence"), ("text_a", "text_b"),
    ("query", "passage"), ("question", "passage"), ("question", "answer"), ("claim", "evidence"),
    ("#1 string", "#2 string"), ("text1", "text2"), ("sentence_a", "sentence_b"),
)  # fmt: skip
LABELS = (
    "label", "labels", "gold_label", "class", "category", "categories", "target", "sentiment",
    "polarity", "emotion", "emotions", "intent", "topic", "topics", "tags", "stars", "rating",
    "score", "similarity", "quality", "is_duplicate", "toxic", "spam", "genre", "y", "etiqueta",
    "type", "answer",
)  # fmt: skip
TOKENS, TAGS = (
    ("tokens", "words"),
    ("tags", "ner_tags", "ner", "labels", "pos_tags", "tag", "label"),
)
QUESTIONS, ANSWERS = (
    ("question", "sent1", "premise", "ctx", "text"),
    ("label", "answer", "gold", "correct"),
)
CHOICES = ("choices", "options", "answers", "endings", "alternatives")
IDS = ("id", "idx", "index", "guid", "uid", "uuid", "key", "number", "#1 id", "#2 id")
PAIRED = tuple(name for pair in PAIRS for name in pair)
OTHERS = ("context", "answers", "answer_start", "source", "language", "lang", "split")
NAMES = frozenset([*TEXTS, *PAIRED, *LABELS, *TOKENS, *TAGS, *CHOICES, *IDS, *OTHERS])
"""Usual names of columns, in lower case."""

SEPARATORS = (",", "|", ";", "#")
"""Separators of several labels in one cell."""

LENGTHS = (32, 64, 128, 256, 384, 512)
"""Values of data.max_length; the models of all families have at least 512 positions."""

COVERED = 0.98
"""Share of the texts that data.max_length does not cut, if it may be as long."""


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What the flags say; None for what is to be guessed."""

    task: str | None = None
    text: str | None = None
    pair: str | None = None
    label: str | None = None


@dataclasses.dataclass(frozen=True)
class Guess:
    """A task and the options of its configuration."""

    task: str
    options: dict[str, Any]
    why: str
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)
    """{option: why it has its value}"""


@dataclasses.dataclass(frozen=True)
class Column:
    """What a column holds."""

    name: str
    values: list[Any]
    """Its values in their order, without those that are empty; printed lists as lists."""

    @property
    def texts(self) -> list[str]:
        """The values as texts."""
        return [str(value).strip() for value in self.values]

    @property
    def is_list(self) -> bool:
        """Whether it holds lists of texts or integers."""
        return bool(self.values) and all(isinstance(value, list) for value in self.values)

    @property
    def is_numeric(self) -> bool:
        """Whether it holds numbers."""
        return bool(self.values) and all(map(is_number, self.texts))

    @property
    def distinct(self) -> int:
        """The number of different values."""
        return len(set(self.texts))

    @property
    def words(self) -> float:
        """The mean number of words of a value."""
        return statistics.fmean(len(text.split()) for text in self.texts) if self.values else 0.0

    @property
    def characters(self) -> float:
        """The mean length of a value."""
        return statistics.fmean(map(len, self.texts)) if self.values else 0.0

    @property
    def is_id(self) -> bool:
        """Whether it numbers the rows."""
        name = self.name.strip().lower()
        counted = self.is_numeric and self.distinct == len(self.values) > MANY_NUMBERS
        whole = counted and all(re.fullmatch(r"\d+", text) for text in self.texts)
        return name in IDS or name.endswith("_id") or whole

    @property
    def is_text(self) -> bool:
        """Whether it holds sentences or phrases."""
        if self.is_list or self.is_numeric or self.is_id or not self.values:
            return False
        if not all(isinstance(value, str) for value in self.values):
            return False
        return self.words >= 2 or (2 * self.distinct > len(self.values) and self.characters > 8)

    @property
    def is_category(self) -> bool:
        """Whether few short values recur, as names of classes do."""
        if self.is_list or self.is_id or self.words > 5 or self.characters > 50:
            return False
        count = len(self.values)
        return 2 <= self.distinct <= max(2, count // 2 if count < 100 else count // 5)

    @property
    def is_flag(self) -> bool:
        """Whether it holds only 0 and 1, as a column of a label does."""
        return bool(self.values) and not self.is_id and set(self.texts) <= {"0", "1"}

    @property
    def has_fractions(self) -> bool:
        """Whether it holds numbers, some of which are not whole."""
        return self.is_numeric and any(float(text) % 1 for text in self.texts)

    def describe(self) -> str:
        """Return what the column holds, for messages."""
        kinds = {
            tr("lists"): self.is_list,
            tr("numbers the rows"): self.is_id,
            tr("{n} different numbers", n=self.distinct): self.is_numeric,
            tr("{n} recurring values", n=self.distinct): self.is_category,
            tr("texts of about {n} words", n=round(self.words)): self.is_text,
        }
        return next((kind for kind, holds in kinds.items() if holds), tr("other values"))


def columns_of(table: Table) -> dict[str, Column]:
    """Return the columns of a table by name."""
    values: dict[str, list[Any]] = {name: [] for name in table.columns}
    for row in table.rows:
        for name, value in row.values.items():
            if value is not None and value != "":
                values[name].append(unprinted(value))
    return {name: Column(name, column) for name, column in values.items()}


def guess(table: Table, wishes: Wishes) -> Guess:
    """Return the task that a table is made for.

    Args:
      table: the training data.
      wishes: the task and the columns that are known.

    Raises:
      DataError: if no task fits; it lists the columns, and what was looked for.
    """
    columns = columns_of(table)
    for flag in ("text", "pair", "label"):
        name = getattr(wishes, flag)
        if name is not None and name not in columns:
            known = ", ".join(shortened(list(columns)))
            raise DataError(f"--{flag}={name}: {table.source} has no such column; it has {known}.")
    for task, finder in FINDERS.items():
        if wishes.task in (None, task) and (found := finder(table, columns, wishes)):
            return found
    listed = "; ".join(f"{column.name}: {column.describe()}" for column in columns.values())
    wanted = f"the columns of {wishes.task}" if wishes.task else "a task that fits"
    raise DataError(
        f"{table.source}: {wanted} could not be found. Its columns: {listed}. Looked for: "
        f"{LOOKED_FOR[wishes.task or '']}. Name the columns and the task: --text=COLUMN "
        "--label=COLUMN --task=TASK."
    )


def _named(columns: Mapping[str, Column], names: Sequence[str]) -> Column | None:
    """Return the column with the first of some usual names that is there."""
    lower = {name.strip().lower(): column for name, column in columns.items()}
    return next((lower[name] for name in names if name in lower), None)


Columns = Mapping[str, Column]


def _questions(table: Table, columns: Columns, wishes: Wishes) -> Guess | None:
    if not {"question", "context", "answers"} <= columns.keys():
        return None
    empty = sum(map(_is_unanswered, table.rows))
    why = tr("the columns question, context and answers, as in SQuAD")
    counted = plural(empty, "1 question has no answer", "{n} questions have no answer")
    reasons = {"unanswerable": counted} if empty else {}
    return Guess("question_answering", {"unanswerable": bool(empty)}, why, reasons)


def _is_unanswered(row: Record) -> bool:
    try:
        return not read_answers(row, unanswerable=True, on_bad_row="skip")[0]
    except DataError:  # a malformed row, which the task's reader reports
        return False


def _tagged_words(table: Table, columns: Columns, wishes: Wishes) -> Guess | None:
    lists = {name: column for name, column in columns.items() if column.is_list}
    tokens = lists.get(wishes.text or "") or _named(lists, TOKENS)
    others = {name: column for name, column in lists.items() if column is not tokens}
    tags = lists.get(wishes.label or "") or _named(others, TAGS)
    if tokens is None or tags is None:
        return None
    malformed = sum(_differ(row, tokens.name, tags.name) for row in table.rows)
    if malformed > MALFORMED * len(table.rows):
        return None
    why = tr(
        "{words} and {tags} hold a list each, a tag for every word",
        words=tokens.name,
        tags=tags.name,
    )
    return Guess("token_classification", {"tokens": tokens.name, "tags": tags.name}, why)


MALFORMED = 0.05
"""The largest share of rows with another number of tags than words; more are no tags."""


def _differ(row: Record, one: str, other: str) -> bool:
    """Return whether two lists of a record have different lengths."""
    values = [unprinted(row.values.get(name)) for name in (one, other)]
    return len({len(value) for value in values if isinstance(value, list)}) > 1


def _choices(table: Table, columns: Columns, wishes: Wishes) -> Guess | None:
    label = columns.get(wishes.label or "") or _named(columns, ANSWERS)
    if label is None or label.is_list:
        return None
    lists = {name: column for name, column in columns.items() if column.is_list}
    listed = _named(lists, CHOICES)
    chosen = [listed] if listed else _numbered(columns)
    others = [column for column in columns.values() if column not in (*chosen, label)]
    named = _named({column.name: column for column in others}, QUESTIONS)
    texts = (column for column in others if column.is_text)
    question = columns.get(wishes.text or "") or named or next(texts, None)
    if not chosen or question is None:
        return None
    names = tuple(column.name for column in chosen)
    options = {"question": question.name, "choices": names, "label": label.name}
    why = tr("{columns}: the choices of a question", columns=", ".join(names))
    return Guess("multiple_choice", options, why)


NUMBERED = re.compile(r"(choice|option|ending|answer|opt|ans)[ _-]?(\d|[a-e])", re.IGNORECASE)
"""Matches the names of columns with a choice each."""


def _numbered(columns: Columns) -> list[Column]:
    """Return the columns that hold a choice each; [] if there are fewer than two."""
    groups: dict[str, list[Column]] = collections.defaultdict(list)
    for name, column in columns.items():
        if match := NUMBERED.fullmatch(name.strip()):
            groups[match[1].lower()].append(column)
    several = max(groups.values(), key=len, default=[])
    return several if len(several) > 1 else []


def _label_sets(table: Table, columns: Columns, wishes: Wishes) -> Guess | None:
    texts = _texts(columns, wishes, None)
    if texts is None:
        return None
    given = columns.get(wishes.label or "")
    lists = {name: c for name, c in columns.items() if c.is_list and c.name != texts["text"]}
    label = given or _named(lists, LABELS) or next(iter(lists.values()), None)
    if label is not None and label.is_list:
        options = {**texts, "label": label.name}
        why = tr("{column} holds a list of labels for each text", column=label.name)
        return Guess("multi_label", options, why)
    flags = [c.name for c in columns.values() if c.is_flag]
    if given is None and len(flags) > 2:
        given_by = {"label_columns": tuple(flags)}
        why = tr("{n} columns hold only 0 and 1", n=len(flags))
        return Guess("multi_label", {**texts, **given_by}, why)
    label = given or _named(columns, LABELS)
    if label is None or label.name in texts.values():
        return None
    separator = _separator(label)
    if separator is None and wishes.task != "multi_label":
        return None
    options = {**texts, "label": label.name, "separator": separator or ","}
    why = tr(
        "cells of {column} hold several labels, separated by {separator!r}",
        column=label.name,
        separator=separator or ",",
    )
    return Guess("multi_label", options, why)


def _separator(label: Column) -> str | None:
    """Return what separates several labels in a cell; None if cells hold one label."""
    for separator in SEPARATORS:
        cells = [text.split(separator) for text in label.texts]
        several = sum(len(cell) > 1 for cell in cells)
        parts = collections.Counter(part.strip() for cell in cells for part in cell)
        recurring = sum(count > 1 for count in parts.values()) * 2 > len(parts)
        if several * 20 > len(cells) and recurring and len(parts) < label.distinct:
            return separator
    return None


def _numbers(table: Table, columns: Columns, wishes: Wishes) -> Guess | None:
    label = _label(columns, wishes)
    texts = _texts(columns, wishes, label)
    if label is None or texts is None or not label.is_numeric:
        return None
    many = label.distinct > MANY_NUMBERS and 10 * label.distinct > len(label.values)
    if wishes.task != "regression" and not label.has_fractions and not many:
        return None
    why = tr("{column} holds {n} different numbers", column=label.name, n=label.distinct)
    if label.has_fractions:
        why = tr("{column} holds fractions", column=label.name)
    options = {**texts, "label": label.name}
    return Guess("regression", options, why, _reasons(columns, options))


def _classes(table: Table, columns: Columns, wishes: Wishes) -> Guess | None:
    label = _label(columns, wishes)
    texts = _texts(columns, wishes, label)
    if label is None or texts is None or label.is_list:
        return None
    why = tr("{column} holds {n} recurring values", column=label.name, n=label.distinct)
    options = {**texts, "label": label.name}
    return Guess("classification", options, why, _reasons(columns, options))


def _prose(table: Table, columns: Columns, wishes: Wishes) -> Guess | None:
    text = columns.get(wishes.text or "") or columns.get("text")
    plain = list(columns) == ["text", "file"]
    if text is None or not (plain or wishes.task):
        return None
    why = tr("plain text without labels: the model learns its language by pre-training")
    return Guess("pretraining", {"text": text.name}, why)


def _label(columns: Columns, wishes: Wishes) -> Column | None:
    """Return the column of labels: the named one, one with a usual name, or one of classes."""
    if wishes.label is not None:
        return columns[wishes.label]
    free = {name: c for name, c in columns.items() if name not in (wishes.text, wishes.pair)}
    usable = {n: c for n, c in free.items() if c.is_category or (c.is_numeric and not c.is_id)}
    if named := _named(usable, LABELS):
        return named
    categories = [column for column in usable.values() if column.is_category]
    numbers = [column for column in usable.values() if column.has_fractions]
    return min(categories, key=lambda column: column.distinct, default=next(iter(numbers), None))


def _texts(columns: Columns, wishes: Wishes, label: Column | None) -> dict[str, str] | None:
    """Return the columns of the text and, for pairs, of the second text; None without a text."""
    usable = {
        name: column
        for name, column in columns.items()
        if column.is_text and column is not label and name not in (wishes.label, wishes.pair)
    }
    if wishes.text is None and wishes.pair is None:
        lower = {name.strip().lower(): name for name in usable}
        for pair in PAIRS:
            if set(pair) <= lower.keys():
                return {"text": lower[pair[0]], "pair": lower[pair[1]]}
        nameless = all(re.fullmatch(r"column\d+", name) for name in columns)
        if nameless and len(usable) == 2:
            return dict(zip(("text", "pair"), usable, strict=True))
    longest = max(usable.values(), key=lambda column: column.characters, default=None)
    text = wishes.text or getattr(_named(usable, TEXTS[:1]) or longest, "name", None)
    if text is None:
        return None
    return {"text": text, **({"pair": wishes.pair} if wishes.pair else {})}


def _reasons(columns: Columns, options: Mapping[str, str]) -> dict[str, str]:
    """Return why columns were chosen, with those that may be meant in their place."""
    used = set(options.values())
    reasons = {name: columns[column].describe() for name, column in options.items()}
    for flag, kind in (("label", "is_category"), ("text", "is_text")):
        others = [c.name for c in columns.values() if getattr(c, kind) and c.name not in used]
        if others and flag in reasons:
            other = f"--{flag}={others[0]}"
            reasons[flag] += tr("; another may be meant: {other}", other=other)
    return reasons


FINDERS: dict[str, Callable[[Table, Columns, Wishes], Guess | None]] = {
    "question_answering": _questions,
    "token_classification": _tagged_words,
    "multiple_choice": _choices,
    "pretraining": _prose,
    "multi_label": _label_sets,
    "regression": _numbers,
    "classification": _classes,
}
"""What recognizes each task, in the order of trial: the most particular form first."""

LOOKED_FOR = {
    "question_answering": "question, context and answers",
    "token_classification": "two lists in each row, words and their tags",
    "multiple_choice": "a question, a list of choices or a column for each, and a label",
    "pretraining": "plain text",
    "multi_label": "a text, and a list of labels, a cell of several, or columns of 0 and 1",
    "regression": "a text and a number",
    "classification": "a text, and a column of few recurring values",
}
LOOKED_FOR[""] = "; or ".join(LOOKED_FOR.values())


def lengths(texts: Sequence[Sequence[str]]) -> tuple[int, str]:
    """Return data.max_length for texts or groups of texts, and why.

    The number of tokens is estimated: one for each word, one more for every six letters, and one
    for each Chinese or Japanese character.
    """
    counts = sorted(sum(map(_tokens, group)) + len(group) + 1 for group in texts)
    needed = counts[min(len(counts) - 1, math.floor(COVERED * len(counts)))]
    length = next((length for length in LENGTHS if length >= needed), LENGTHS[-1])
    cut = sum(count > length for count in counts)
    why = tr(
        "texts have about {median} tokens, the longest {longest}",
        median=round(statistics.median(counts)),
        longest=counts[-1],
    )
    longer = tr("; about {share} are longer", share=f"{cut / len(counts):.1%}")
    return length, why + longer if cut else why


def _tokens(text: str) -> int:
    wide = sum("\u3040" <= char <= "\u9fff" for char in text)
    return wide + sum(1 + len(word) // 6 for word in re.findall(r"\w+|[^\w\s]", text))


STOPWORDS = {
    "English": frozenset(
        ["the", "of", "and", "to", "is", "was", "that", "it", "this", "in", "for", "you", "with"]
    ),
    "Spanish": frozenset(
        [
            "el",
            "la",
            "los",
            "las",
            "de",
            "que",
            "y",
            "en",
            "un",
            "una",
            "es",
            "por",
            "con",
            "para",
            "no",
            "se",
        ]
    ),
}
MODELS = {
    "English": "google-bert/bert-base-uncased",
    "English, cased": "google-bert/bert-base-cased",
    "Spanish": "dccuchile/bert-base-spanish-wwm-uncased",
    "other": "google-bert/bert-base-multilingual-cased",
}


def model(texts: Sequence[str], *, cased: bool) -> tuple[str, str]:
    """Return a model for the language of some texts, and why; names of entities need capitals."""
    words = collections.Counter(word.lower() for text in texts for word in text.split())
    total = words.total() or 1
    shares = {name: sum(words[w] for w in few) / total for name, few in STOPWORDS.items()}
    language = max(shares, key=lambda name: shares[name])
    if shares[language] < 0.05:
        return MODELS["other"], tr("the language was not recognized")
    capitals = any(char.isupper() for text in texts for char in text)
    key = "English, cased" if cased and capitals and language == "English" else language
    names = {"English": tr("English"), "Spanish": tr("Spanish")}
    return MODELS[key], tr("the texts are {language}", language=names[language])
