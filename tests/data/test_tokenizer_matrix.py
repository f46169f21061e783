"""Every kind of tokenizer x every task x texts that nobody wrote for a tokenizer, by property."""

import functools
import itertools
import random
import unicodedata
from pathlib import Path
from typing import Any

import kinds
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from tokenizers import Tokenizer
from toy import arrays_of

from flaxbert.config import DataConfig
from flaxbert.data import documents
from flaxbert.data.batching import Batches
from flaxbert.data.features import Features
from flaxbert.data.tokenization import load_tokenizer
from flaxbert.tasks import classification, multiple_choice, pretraining, token_classification
from flaxbert.tasks.question_answering import QuestionAnswering, QuestionAnsweringOptions
from flaxbert.tasks.question_answering import QuestionExample as Question
from flaxbert.tasks.texts import TextExample

FLAG = "🏴\U000e0067\U000e0062\U000e007f"  # spelt out in tags
WORDS = (
    *("king", "The", "Queen's", "1999", "(old)", "bridge,", "e.g.", "```", "''", "--", "u.s."),
    *("schön", "scho\u0308n", "Ｆｕｌｌ", "１２", "ﬁne", "Å", "İstanbul", "ẞ", "café"),
    *("cafe\u0301", "👩\u200d👩\u200d👧", "👍🏽", "🇩🇪", "❤\ufe0f", "1\ufe0f\u20e3", FLAG),
    *("พระราชา", "กำ", "الملكِ", "مُحَمَّد", "می\u200cخواهم", "שָׁלוֹם", "राजा", "क्\u200dष", "മലയാളം"),
    *("国王", "東京で", "㍿", "한국", "\u1112\u1161\u11ab", "ｶﾞ", "が", "か\u3099", "𠮷"),
    *("co\u00adop", "a\u00a0b", "z\u200bw", "\u200eltr\u200f", "\ufeffbom", "a\u2060b", "x\u0007y"),
    *("paris\uf0b7", "\uf0b7", "\U000f0000", "\ufffd", "\u0378", "\u00ad", "\u200b", "\u0301"),
    *("ꙮ", "ᚠᚢ", "𝔎𝔦𝔫𝔤", "½", "①", "…", "“quoted”", "don’t", "a\tb", "l\u2028m", "\u3000"),
)
"""Punctuation, case, marks, full-width forms, emoji with joiners, scripts of all directions, soft
hyphens, blanks without width, control characters, private-use and unknown letters."""

ALPHABET = sorted({*"".join(WORDS), *" aTé\u0302\u0e33"})
SIDES = ("right", "left")


@functools.cache
def tokenizer_of(name: str, side: str) -> tuple[Any, Any]:
    """Flaxbert's tokenizer and that of the file."""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        kinds.write_tokenizer(name, Path(directory), truncation_side=side, padding_side=side)
        stored = Tokenizer.from_file(f"{directory}/tokenizer.json")
        stored.encode_special_tokens = True
        return load_tokenizer(Path(directory)), stored


def data(max_length: int = 40, overlap: int = 12) -> DataConfig:
    return DataConfig(max_length=max_length, overlap=overlap)


def sequences(features: Features, name: str = "input_ids") -> list[list[int]]:
    values = features.per_token[name].tolist()
    edges = features.sequence_start.tolist()
    return [values[a:b] for a, b in itertools.pairwise(edges)]


def check_packed(features: Features) -> None:
    """The sequences that share a row are those that have one each."""
    batches = Batches(
        features, len(features), row_length=96, segments=6, data_parallelism=1, steps=1
    )
    seen = set()
    for row in batches.rows(0):
        batch = {name: array[0] for name, array in arrays_of(batches.build([row])).items()}
        for k, sequence in enumerate(row):
            here = np.flatnonzero(batch["segment_ids"] == k + 1)
            for name, values in features.per_token.items():
                edges = features.sequence_start[sequence : sequence + 2]
                assert (batch[name][here] == values[slice(*edges)]).all()
            for name, values in features.token_indices.items():
                assert batch[name][k] - here[0] == values[sequence]
            assert (batch["position_ids"][here] == np.arange(len(here))).all()
            seen.add(sequence)
    assert len(seen) == len(features.lengths)


# --- properties --------------------------------------------------------------------------------


def check_answers(name: str, side: str, context: str, places: list[tuple[int, int]]) -> None:
    """Every gold answer that has a token comes back, with its marks and without blanks."""
    tokenizer, stored = tokenizer_of(name, side)
    task = QuestionAnswering.create(data(), QuestionAnsweringOptions(), None, {})
    spans = [(a, b) for a, b in places if context[a:b].strip()]
    examples = [
        Question(str(n), "who?", context, ((context[a:b], a),), None, f"x.json:{n}")
        for n, (a, b) in enumerate(spans)
    ]
    if not examples:
        return
    features = task.featurize(examples, tokenizer, labeled=True)
    check_packed(features)
    offsets = stored.encode(context, add_special_tokens=False).offsets
    covered = {place for a, b in offsets for place in range(a, b)}
    whole = [token for token in offsets if token[0] < token[1]]
    starts, ends = (features.per_token[f"char_{side}"] for side in ("start", "end"))
    for n, (a, b) in enumerate(spans):
        seen = [place for place in range(a, b) if visible(context[place])]
        wanted = covered.intersection(seen)
        windows = np.flatnonzero(features.example_index == n)
        chosen = [w for w in windows if features.token_indices["start"][w] > 0]
        if seen:
            a = seen[0]
            while a and belongs(context[a]):  # one that begins inside a letter may have all of it
                a -= 1
        tokens = [(x, y) for x, y in whole if seen and x <= seen[-1] and y > a]
        if not tokens:
            assert not chosen
            continue
        if wanted and len(tokens) <= 12:  # the overlap: some window holds it whole
            assert chosen, (context, context[a:b])
        for window in chosen:
            first = features.sequence_start[window]
            start, end = (features.token_indices[side][window] for side in ("start", "end"))
            found = (0.0, int(starts[first + start]), int(ends[first + end]))
            record = task._record(examples[n], found, 0.0)
            held = set(range(record["start"], record["end"]))
            assert wanted <= held
            # No more than the tokens that hold some of the answer, and marks behind the last.
            allowed = {place for token in tokens for place in range(*token)} | set(range(a, b))
            for place in sorted(held - allowed):
                assert place - 1 in held | allowed, (context, context[a:b], record["answer"])
                assert not place_of_token(place, whole), (context, context[a:b], record["answer"])
                assert belongs(context[place]), (context, context[a:b], record["answer"])
            if record["answer"]:
                assert visible(record["answer"][0])
                assert visible(record["answer"][-1])


def place_of_token(place: int, tokens: list[tuple[int, int]]) -> bool:
    return any(a <= place < b for a, b in tokens)


def visible(char: str) -> bool:
    hidden = unicodedata.category(char) in ("Cc", "Cf") and char not in "\u200c\u200d"
    return not char.isspace() and not hidden


def belongs(char: str) -> bool:
    """Whether a character is part of the one before it: marks, joiners, skin tones, tags."""
    code = ord(char)
    return (
        unicodedata.category(char).startswith("M")
        or char in "\u200c\u200d"
        or 0x1F3FB <= code <= 0x1F3FF
        or 0xE0020 <= code <= 0xE007F
    )


def check_words(name: str, side: str, sentences: list[list[str]]) -> None:
    """Every word has exactly one tag, at its first piece; tokens are those behind a word."""
    tokenizer, stored = fresh(name, side)
    options = token_classification.TokenClassificationOptions(labels=("O", "B-X", "I-X"))
    task = token_classification.TokenClassification.create(data(), options, None, {})
    examples = [
        token_classification.SentenceExample(
            tuple(words), ("O",) * len(words), None, f"x.conll:{n}"
        )
        for n, words in enumerate(sentences)
    ]
    features = task.featurize(examples, tokenizer, labeled=True)
    check_packed(features)
    for words in sentences:
        if not any(word[0].isspace() for word in words):
            ids = tokenizer([words], is_split_into_words=True, add_special_tokens=False)
            before, text = (
                stored.encode(text, add_special_tokens=False).ids
                for text in ("a", f"a {' '.join(words)}")
            )
            assert before + ids["input_ids"][0] == text
    owner = np.repeat(features.example_index, features.lengths)
    places = np.flatnonzero(features.per_token["first"])
    tagged = [(int(owner[p]), int(features.per_token["word"][p])) for p in places]
    assert len(tagged) == len(set(tagged))
    for n, words in enumerate(sentences):
        for number, word in enumerate(words):
            alone = tokenizer([[word]], is_split_into_words=True, add_special_tokens=False)
            assert ((n, number) in tagged) == bool(alone["input_ids"][0]), (words, word)
    predicted = {"tag": np.ones(len(owner), int), "probability": np.ones(len(owner))}
    records = task.decode(examples, features, _predictions(per_token=predicted))
    assert [len(record["tags"]) for record in records] == [len(words) for words in sentences]
    for n, record in enumerate(records):
        assert all(record["tags"][w] == "B-X" for w in range(len(sentences[n])) if (n, w) in tagged)


def _predictions(**parts: Any) -> Any:
    from flaxbert.types import TaskOutputs

    return TaskOutputs(**parts)


@functools.cache
def fresh(name: str, side: str) -> tuple[Any, Any]:
    """A tokenizer of its own: token classification changes it."""
    return tokenizer_of.__wrapped__(name, side)


def check_texts(name: str, side: str, texts: list[str]) -> None:
    """Classification, choices and pre-training read the tokens of the file's own tokenizer."""
    tokenizer, stored = tokenizer_of(name, side)
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    plain = [stored.encode(text, add_special_tokens=False).ids for text in texts]
    examples = [TextExample(text, None, 0, None, f"x.tsv:{n}") for n, text in enumerate(texts)]
    for long_texts in ("head", "windows", "head_tail"):
        options = classification.ClassificationOptions(labels=("a", "b"), long_texts=long_texts)
        task = classification.Classification.create(data(), options, None, {})
        features = task.featurize(examples, tokenizer, labeled=True)
        check_packed(features)
        rows = sequences(features)
        assert all(row[0] == cls and row[-1] == sep and len(row) <= 40 for row in rows)
        for n, ids in enumerate(plain):
            mine = [
                row[1:-1] for row, e in zip(rows, features.example_index, strict=True) if e == n
            ]
            if long_texts == "head":
                assert mine == [ids[:38]]
            elif long_texts == "windows":
                assert mine[0] + [i for row in mine[1:] for i in row[12:]] == ids
            else:
                assert mine == [ids if len(ids) <= 38 else ids[:9] + ids[-29:]]
    choice = multiple_choice.ChoiceExample("who?", tuple(texts), 0, None, "x.jsonl:1")
    options = multiple_choice.MultipleChoiceOptions(choices=("choices",))
    features = multiple_choice.MultipleChoice.create(data(), options, None, {}).featurize(
        [choice], tokenizer, labeled=True
    )
    check_packed(features)
    for text, row in zip(texts, sequences(features), strict=True):
        expected = stored.encode("who?", text).ids
        assert row[:-1] == expected[: len(row) - 1]
        assert len(row) == min(40, len(expected))
    (joined,) = documents.tokenize([[" ".join(texts)]], tokenizer, lines=False, longest=9)
    sentences = documents.split_sentences(" ".join(texts))
    assert joined.ids.tolist() == stored.encode(" ".join(sentences), add_special_tokens=False).ids
    options = pretraining.PreTrainingOptions(next_sentence=False)
    task = pretraining.PreTraining.create(data(), options, None, {})
    if len(joined.ids):
        book = pretraining.DocumentExample("book", tuple(texts), None, "x.txt:1")
        features = task.featurize([book], tokenizer, labeled=True)
        labels = [i for row in sequences(features, "label") for i in row[1:-1]]
        (document,) = documents.tokenize([texts], tokenizer, lines=False, longest=19)
        expected = document.ids.tolist()
        assert labels == expected


# --- what they are tried on --------------------------------------------------------------------


def nasty(seed: int, count: int, blank: str = " ") -> tuple[str, list[tuple[int, int]], list[str]]:
    """A text of words, the places of some answers in it, and the words."""
    chance = random.Random(seed)
    words = [chance.choice(WORDS) for _ in range(count)]
    starts, place = [], 0
    for word in words:
        starts.append(place)
        place += len(word) + len(blank)
    answers = []
    for _ in range(8):
        first = chance.randrange(count)
        last = min(count - 1, first + chance.randrange(3))
        answers.append((starts[first], starts[last] + len(words[last])))
    return blank.join(words), answers, words


CASES = [(name, side) for name in kinds.KINDS for side in SIDES]


@pytest.mark.parametrize(("name", "side"), CASES)
def test_nasty_texts(name: str, side: str) -> None:
    for seed in range(6):
        blank = (" ", "  ", "\u00a0", "\n", " \u200b", "")[seed]
        context, places, words = nasty(seed, 30, blank)
        check_answers(name, side, context, places)
        check_words(name, side, [words[:20], words[20:]])
        check_texts(name, side, [context, *words[:5], " ".join(words[5:9])])


def for_all(count: int, test: Any) -> None:
    """Run a property for texts of hypothesis."""
    chosen = settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    text = some.text(some.sampled_from(ALPHABET), min_size=1, max_size=40)
    chosen(given(text=text, a=some.integers(0, 39), b=some.integers(1, 40))(test))()


def check_any(name: str, side: str, text: str, a: int, b: int) -> None:
    check_answers(name, side, text, [(min(a, len(text)), min(a + b, len(text)))])
    words = text.split()
    if words:
        check_words(name, side, [words])
    if text.strip():
        check_texts(name, side, [text])


@pytest.mark.parametrize("name", kinds.KINDS)
def test_any_text(name: str) -> None:
    for_all(8, lambda text, a, b: check_any(name, "right", text, a, b))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), CASES)
def test_any_text_at_length(name: str, side: str) -> None:
    for_all(400, lambda text, a, b: check_any(name, side, text, a, b))
