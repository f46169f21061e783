"""Token classification, the data side: tags, first pieces, windows merged back, scores."""

import dataclasses
import json
import logging
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import logged, parts_of

from flaxbert.config import DataConfig
from flaxbert.data import readers
from flaxbert.data.batching import Batches
from flaxbert.data.checks import check_examples
from flaxbert.data.features import Features
from flaxbert.data.table import Record, Table
from flaxbert.errors import ConfigError, DataError
from flaxbert.tasks.base import score_with_slices
from flaxbert.tasks.token_classification import (
    SentenceExample,
    TokenClassification,
    TokenClassificationOptions,
)
from flaxbert.types import TaskOutputs

HEIGHT = 40  # rows of every batch: JAX compiles once
LABELS = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")


def table(*sentences: str, **columns: Sequence[Any]) -> Table:
    """A row a sentence, written as "paris/B-LOC is/O"; `columns` hold one value a sentence."""
    rows = []
    for n, sentence in enumerate(sentences):
        pairs = [word.rsplit("/", 1) for word in sentence.split()]
        values = {"tokens": [pair[0] for pair in pairs], "tags": [pair[1] for pair in pairs]}
        values |= {name: column[n] for name, column in columns.items()}
        rows.append(Record(values, f"ner.jsonl:{n + 1}"))
    return Table("ner.jsonl", rows)


def integers(*tags: list[Any], names: list[str]) -> Table:
    """Rows of a data set that knows the names behind its integers."""
    rows = [
        Record({"tokens": ["old"] * len(each), "tags": each}, f"hub: row {n}")
        for n, each in enumerate(tags, 1)
    ]
    return Table("hub", rows, {"tags": names})


def create(
    train: Table | None = None,
    options: TokenClassificationOptions | None = None,
    hf: dict[str, Any] | None = None,
    *,
    max_length: int = 16,
    overlap: int = 4,
    slices: str | None = None,
) -> TokenClassification:
    data = DataConfig(max_length=max_length, overlap=overlap, slices=slices)
    if train is None and hf is None and options is None:
        options = TokenClassificationOptions(labels=LABELS)
    options = options or TokenClassificationOptions()
    raw = None if train is None else TokenClassification.read(train, data, options, labeled=True)
    return TokenClassification.create(data, options, raw, hf or {})


def featurize(
    task: TokenClassification, examples: list[SentenceExample], tokenizer: Any
) -> Features:
    return task.featurize(examples, tokenizer, labeled=True)


def arrays(features: Features, sequence: int = 0) -> dict[str, list[int]]:
    return {name: array.tolist() for name, array in features.tokens_of(sequence).items()}


def run(
    task: TokenClassification, features: Features, logits: np.ndarray
) -> tuple[tuple[float, float], TaskOutputs]:
    """(sum, weight) of the loss, and what decoding receives, over packed rows.

    `logits` [sum(lengths), C] has all sequences end to end; padding gets some of its own.
    """
    batches = Batches(
        features, len(features), row_length=40, segments=4, data_parallelism=1, steps=1
    )
    rows = batches.padded_rows(0)
    assert len(rows) <= HEIGHT
    rows += [[]] * (HEIGHT - len(rows))
    batch = batches.build(rows)
    noise = np.random.default_rng(1).normal(size=(*batch.input_ids.shape, logits.shape[1]))
    here = {
        sequence: (
            r,
            slice(begin := int(batch.cls_position[r, k]), begin + features.lengths[sequence]),
        )
        for r, row in enumerate(rows)
        for k, sequence in enumerate(row)
    }
    parts = [slice(*features.sequence_start[n : n + 2]) for n in range(len(features.lengths))]
    for sequence, part in enumerate(parts):
        noise[here[sequence]] = logits[part]
    outputs = {"logits": jnp.asarray(noise, jnp.float32)}
    placed = jax.tree.map(jnp.asarray, batch)
    total, weight = parts_of(task.loss(outputs, placed)["loss"])
    per_token = {
        name: np.concatenate([np.asarray(values)[here[sequence]] for sequence in range(len(parts))])
        for name, values in task.predict(outputs, placed).per_token.items()
    }
    return (float(total), float(weight)), TaskOutputs({}, per_token)


@pytest.mark.parametrize("form", [repr, json.dumps])
def test_cells_of_a_table_may_hold_printed_lists(form: Any) -> None:
    values = {"tokens": form(["old", "paris"]), "tags": form(["O", "B-LOC"])}
    task = create(Table("ner.csv", [Record(values, "ner.csv:2")]))
    (example,) = task.examples(Table("ner.csv", [Record(values, "ner.csv:2")]), labeled=True)
    assert (example.tokens, example.tags) == (("old", "paris"), ("O", "B-LOC"))


def test_integer_tags_that_are_counted_from_1_are_refused() -> None:
    names = ["O", "B-LOC", "I-LOC"]
    with pytest.raises(DataError, match=r"hub: labels are counted from 1 \(1 to 3\)"):
        create(integers([1, 1, 2], [3, 1], names=names))


# --- tags --------------------------------------------------------------------------------------


def test_every_type_of_the_training_rows_has_both_of_its_tags() -> None:
    train = table("paris/B-LOC is/O old/O", "old/B-PER king/I-PER")
    assert create(train).labels == LABELS  # no I-LOC in the rows, but evaluation may have one


def test_parts_of_speech_are_taken_as_they_are() -> None:
    assert create(table("the/DET old/ADJ king/NOUN")).labels == ("ADJ", "DET", "NOUN")


def test_the_options_give_the_order_of_tags() -> None:
    labels = ("O", "B-LOC", "I-LOC")
    task = create(table("paris/B-LOC is/O"), TokenClassificationOptions(labels=labels))
    assert task.labels == labels


def test_without_training_data_tags_are_the_checkpoints() -> None:
    task = create(None, TokenClassificationOptions(labels=("O", "B-LOC", "I-LOC")))
    again = create(None, hf=task.hf_config())
    assert again.labels == ("O", "B-LOC", "I-LOC")
    with pytest.raises(ConfigError, match="two labels or more"):
        create(None, hf={})


def test_the_checkpoints_order_wins_where_it_covers_the_rows() -> None:
    own = {"id2label": {"0": "O", "1": "I-LOC", "2": "B-LOC"}}
    assert create(table("paris/B-LOC is/O"), hf=own).labels == ("O", "I-LOC", "B-LOC")
    with pytest.raises(ConfigError, match=r"'B-PER'.* but the checkpoint's .*'I-LOC'"):
        create(table("king/B-PER is/O"), hf=own)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("B-LOC I-LOC I-PER O", "'I-PER'"),
        ("LOC PER O", "'LOC'"),
        ("B-LOC I-LOC E-LOC S-LOC O", "'E-LOC'"),
        ("B-LOC I-LOC B-DATE O", None),  # dates are of one word
    ],
)
def test_a_model_of_another_scheme_is_not_scored_but_predicts(names: str, told: str | None) -> None:
    task = create(None, hf={"id2label": dict(enumerate(names.split()))})
    rows = table("old/O paris/B-LOC")
    assert len(task.examples(rows, labeled=False)) == 1
    if told is None:
        assert task.examples(rows, labeled=True)[0].tags == ("O", "B-LOC")
    else:
        with pytest.raises(DataError, match=f"tags, such as {told}, are not in IOB2"):
            task.examples(rows, labeled=True)


SCHEMES = {
    # Two entities side by side in the first, one of two words in the second.
    "IOB1": ("paris/I-LOC london/B-LOC is/O", "old/O city/I-LOC river/I-LOC"),
    "BIOES": ("paris/S-LOC london/S-LOC is/O", "old/O city/B-LOC river/E-LOC"),
    "BILOU": ("paris/U-LOC london/U-LOC is/O", "old/O city/B-LOC river/L-LOC"),
    "BIO": ("paris/B-LOC london/B-LOC is/O", "old/O city/B-LOC river/I-LOC"),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_other_schemes_are_converted_to_iob2_and_that_is_logged(scheme: str, caplog: Any) -> None:
    rows = table(*SCHEMES[scheme])
    task = create(rows)
    assert task.labels == ("B-LOC", "I-LOC", "O")
    with caplog.at_level(logging.INFO, "flaxbert"):
        examples = logged(task.examples(rows, labeled=True))
    assert [e.tags for e in examples] == [("B-LOC", "B-LOC", "O"), ("O", "B-LOC", "I-LOC")]
    told = {"BIO": [], "BILOU": ["ner.jsonl: tags in BIOES, converted to IOB2"]}
    expected = told.get(scheme, [f"ner.jsonl: tags in {scheme}, converted to IOB2"])
    assert caplog.messages == expected


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        (TokenClassificationOptions(), ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")),
        (
            TokenClassificationOptions(labels=("O", "PER", "LOC")),
            ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
        ),
    ],
)
def test_types_without_prefixes_become_entities_and_that_is_logged(
    options: TokenClassificationOptions, labels: tuple[str, ...], caplog: Any
) -> None:
    rows = table("old/PER king/PER of/O paris/LOC")
    task = create(rows, options)
    assert task.labels == labels
    with caplog.at_level(logging.INFO, "flaxbert"):
        (example,) = logged(task.examples(rows, labeled=True))
    assert example.tags == ("B-PER", "I-PER", "O", "B-LOC")
    assert caplog.messages == ["ner.jsonl: tags in IO, converted to IOB2"]
    assert task.score([example], [{"tags": example.tags}])["f1"] == 1


def test_options_may_name_labels_other_than_entity_tags() -> None:
    labels = ("O", "B-PER", "I-PER", "X")  # X, of older code: all but the first piece of a word
    assert create(None, TokenClassificationOptions(labels=labels)).labels == labels


def test_a_stray_inside_tag_becomes_a_start_and_that_is_logged(caplog: Any) -> None:
    rows = table("paris/B-LOC london/B-LOC is/O king/I-PER", "old/B-PER king/I-LOC")
    with caplog.at_level(logging.INFO, "flaxbert"):
        examples = logged(create().examples(rows, labeled=True))
    assert [e.tags[-1] for e in examples if e.tags] == ["B-PER", "B-LOC"]
    assert caplog.messages == [
        "ner.jsonl: 2 tags that BIO does not allow where they stand, the first: ner.jsonl:1: "
        "I-PER after O (word 4, 'king'); it is read as the start of an entity"
    ]


def test_names_of_the_data_set_explain_its_integers() -> None:
    rows = integers([0, 1, 2], [1, 1, 0], names=["O", "B-LOC", "I-LOC"])
    task = create(rows)
    assert task.labels == ("B-LOC", "I-LOC", "O")  # another order than the data set's
    tags = [example.tags for example in task.examples(rows, labeled=True)]
    assert tags == [("O", "B-LOC", "I-LOC"), ("B-LOC", "B-LOC", "O")]


def test_integers_beyond_the_names_of_the_data_set_are_refused() -> None:
    for wrong in (3, -1):
        rows = integers([0, 1], [1, wrong], names=["O", "B-LOC", "I-LOC"])
        with pytest.raises(DataError, match=r"hub: row 2: tags is \['B-LOC', .*expected a list"):
            create().examples(rows, labeled=True)


def test_the_options_give_names_for_integers() -> None:
    rows = Table("ner.jsonl", integers([0, 1, 2], names=[]).rows)
    with pytest.raises(DataError, match=r"hub: row 1: .* --config\.options\.labels"):
        create(rows)
    task = create(rows, TokenClassificationOptions(labels=("O", "B-LOC", "I-LOC")))
    assert task.examples(rows, labeled=True)[0].tags == ("O", "B-LOC", "I-LOC")


def test_an_unknown_tag_is_named_with_its_line() -> None:
    with pytest.raises(DataError) as caught:
        create().examples(table("paris/B-LOC is/O", "red/B-COLOUR car/O"), labeled=True)
    for part in ("ner.jsonl:2: label 'B-COLOUR'", str(list(LABELS)), "--config.options.labels"):
        assert part in str(caught.value)


def test_a_tag_of_digits_is_the_number_of_a_label(tokenizer: Any) -> None:
    task = create(None, TokenClassificationOptions(labels=("ADJ", "NOUN")))
    examples = task.examples(table("old/ADJ king/1"), labeled=True)
    assert arrays(featurize(task, examples, tokenizer))["label"] == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"tags": ["O"]}, ["2 words, but 1 tags"]),
        ({"tags": "O O"}, ["tags is 'O O'; expected a list of tags"]),
        ({"tags": None}, ["tags is None; expected a list of tags"]),
        ({"tags": ["O", None]}, ["tags is ['O', None]; expected a list of tags"]),
        ({"tags": ["O", ""]}, ["tags is ['O', '']; expected a list of tags"]),
        ({"tags": ["O", True]}, ["tags is ['O', True]; expected a list of tags"]),
        ({"tokens": "old king"}, ["tokens is 'old king'; expected a list of texts"]),
        ({"tokens": ["old", 3]}, ["tokens is ['old', 3]; expected a list of texts"]),
        ({"tokens": [], "tags": []}, ["tokens is empty; remove the row"]),
    ],
)
def test_a_bad_row_is_named_with_its_line(values: dict[str, Any], parts: list[str]) -> None:
    rows = table("paris/B-LOC is/O", "old/O king/O")
    rows.rows[1].values.update(values)
    with pytest.raises(DataError) as caught:
        create().examples(rows, labeled=True)
    assert all(part in str(caught.value) for part in ("ner.jsonl:2: ", *parts))
    with pytest.raises(DataError, match=r"ner\.jsonl:2: "):
        create(rows, TokenClassificationOptions())


def test_bad_rows_are_left_out_and_counted_when_asked(caplog: Any) -> None:
    rows = table("paris/B-LOC is/O", "old/O king/O", "old/O", "old/I-PER king/I-PER")
    rows.rows[1].values["tags"] = ["O"]
    rows.rows[2].values["tokens"] = "old"
    data = DataConfig(max_length=16, overlap=4, on_bad_row="skip")
    with caplog.at_level(logging.INFO, "flaxbert"):
        raw = TokenClassification.read(rows, data, TokenClassificationOptions(), labeled=True)
        task = TokenClassification.create(data, TokenClassificationOptions(), raw, {})
        assert task.labels == LABELS
        examples = logged(task.resolve(raw))
        tags = [example.tags for example in examples]
        unlabeled = task.examples(rows, labeled=False)
    assert tags == [("B-LOC", "O"), ("B-PER", "I-PER")]
    assert [example.origin for example in unlabeled] == [f"ner.jsonl:{n}" for n in (1, 2, 4)]
    assert [message for message in caplog.messages if "malformed rows" in message] == [
        "ner.jsonl: 2 malformed rows skipped, the first: ner.jsonl:2: 2 words, but 1 tags."
    ]
    assert examples.malformed == 2


def test_a_sentence_with_a_tag_that_is_no_label_is_left_out_and_counted_too() -> None:
    rows = table("paris/B-LOC is/O", "old/B-AGE king/O", "is/O paris/B-LOC")
    data = DataConfig(max_length=16, overlap=4, on_bad_row="skip")
    task = TokenClassification.create(data, TokenClassificationOptions(labels=LABELS), None, {})
    examples = task.examples(rows, labeled=True)
    assert [example.origin for example in examples] == ["ner.jsonl:1", "ner.jsonl:3"]
    assert examples.malformed == 1


@pytest.mark.parametrize(
    ("options", "slices", "key"),
    [
        (TokenClassificationOptions(tokens="words", labels=LABELS), None, "options.tokens"),
        (TokenClassificationOptions(tags="ner_tags", labels=LABELS), None, "options.tags"),
        (TokenClassificationOptions(labels=LABELS), "column2", "data.slices"),
    ],
)
def test_an_absent_column_names_the_key_to_set(
    options: TokenClassificationOptions, slices: Any, key: str
) -> None:
    task = create(None, options, slices=slices)
    with pytest.raises(DataError, match=f"no column .* --config.{key}=COLUMN"):
        task.examples(table("paris/B-LOC"), labeled=True)


@pytest.mark.parametrize("labeled", [True, False])
def test_a_txt_file_with_columns_is_refused_with_the_option_to_set(
    tmp_path: Path, labeled: bool
) -> None:
    file = tmp_path / "train.txt"
    file.write_text("paris B-LOC\nis O\n\nold O\n")
    prose = readers.read(str(file), DataConfig(), split="train")
    with pytest.raises(DataError, match=r"train\.txt: .*--config\.data\.format=conll"):
        create(prose)
    task = create(table("paris/B-LOC is/O"))
    with pytest.raises(DataError, match=r"data\.format=conll"):
        task.examples(prose, labeled=labeled)
    columns = readers.read(str(file), DataConfig(format="conll"), split="train")
    assert len(task.examples(columns, labeled=labeled)) == 2


SPANS = [
    {"text": "Anna saw", "label": [[0, 4, "PER"]]},  # doccano
    {"text": "Anna saw", "entities": [{"start": 0, "end": 4, "label": "PER"}]},
    {"text": "Anna saw", "entities": [{"start_offset": 0, "end_offset": 4, "label": "PER"}]},
]


@pytest.mark.parametrize("values", SPANS)
@pytest.mark.parametrize("labeled", [True, False])
def test_spans_of_characters_are_named_with_the_form_that_is_read(
    values: dict[str, Any], labeled: bool
) -> None:
    rows = Table(
        "a.jsonl", [Record({"text": "x", "label": []}, "a.jsonl:1"), Record(values, "a.jsonl:2")]
    )
    with pytest.raises(DataError, match=r"a\.jsonl:2: .* holds spans of characters.*`tokens` and"):
        create().examples(rows, labeled=labeled)


# --- columns as people have them ---------------------------------------------------------------


def columns(tmp_path: Path, content: str, *, on_bad_row: str = "error") -> Table:
    file = tmp_path / "ner.conll"
    file.write_text(content)
    return readers.read(str(file), DataConfig(on_bad_row=on_bad_row), split="train")


def test_types_alone_with_zero_for_outside_are_entities(tmp_path: Path, caplog: Any) -> None:
    rows = columns(tmp_path, "king PER\nin 0\nold 0\nparis LOC\ncity LOC\nis 0\n")
    with caplog.at_level(logging.INFO, "flaxbert"):
        task = create(rows)
        (example,) = logged(task.examples(rows, labeled=True))
    assert task.labels == ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
    assert example.tags == ("B-PER", "O", "O", "B-LOC", "I-LOC", "O")
    assert "'0' (3 times) as O" in caplog.text


def test_a_zero_that_is_read_as_a_class_is_reported(tmp_path: Path, caplog: Any) -> None:
    rows = columns(tmp_path, "king PER\nqueen PER\nin 0\nparis LOC\n")
    with caplog.at_level(logging.INFO, "flaxbert"):
        task = create(rows)
        logged(task.examples(rows, labeled=True))
    assert task.labels == ("0", "LOC", "PER")
    assert "'0' is read as a tag like the others, each word on its own; write O" in caplog.text


def test_outside_written_as_zero_leaves_no_entity_out_of_the_score(
    tmp_path: Path, caplog: Any
) -> None:
    content = "old 0\nking S-PER\nin 0\nparis B-LOC\ncity E-LOC\n\nfood 0\n"
    with caplog.at_level(logging.INFO, "flaxbert"):
        rows = columns(tmp_path, content)
        task = create(rows)
        examples = logged(task.examples(rows, labeled=True))
    assert task.labels == ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
    assert examples[0].tags == ("O", "B-PER", "O", "B-LOC", "I-LOC")
    assert "ner.conll: tags are read in the usual spelling: '0' (3 times) as O" in caplog.text
    missed = [{"tags": ["O", "O", "O", "B-LOC", "I-LOC"]}, {"tags": ["O"]}]
    assert task.score(examples, missed)["f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("spelling", ["{1}-{0}", "{1}_{0}", "{0}-{1}", "{0}_{1}"])
@pytest.mark.parametrize("letters", [str.lower, str.upper])
def test_prefixes_however_spelled_are_entities(spelling: str, letters: Any, tmp_path: Path) -> None:
    tags = [spelling.format("LOC", letters(letter)) for letter in "BI"]
    rows = columns(tmp_path, f"paris {tags[0]}\ncity {tags[1]}\nis O\n")
    task = create(rows)
    assert task.labels == ("B-LOC", "I-LOC", "O")
    assert task.examples(rows, labeled=True)[0].tags == ("B-LOC", "I-LOC", "O")


def test_one_odd_tag_is_named_with_its_line_and_its_sentence_alone_left_out(tmp_path: Path) -> None:
    content = "old O\nking B-PER\n\nin O\n# no O\nparis PLACE\n\nfood O\nking B-PER\n"
    content = content.replace("# no O\n", "")
    with pytest.raises(
        DataError, match=r"ner\.conll:5: the tag of word 2, 'paris', is 'PLACE', but"
    ):
        create(columns(tmp_path, content))
    rows = columns(tmp_path, content, on_bad_row="skip")
    data = DataConfig(max_length=16, overlap=4, on_bad_row="skip")
    raw = TokenClassification.read(rows, data, TokenClassificationOptions(), labeled=True)
    examples = TokenClassification.create(data, TokenClassificationOptions(), raw, {}).resolve(raw)
    assert [e.tokens for e in examples] == [("old", "king"), ("food", "king")]
    assert examples.malformed == 1


def test_a_misplaced_tag_is_reported_with_its_line(tmp_path: Path, caplog: Any) -> None:
    rows = columns(tmp_path, "# id 1 x\nold O\nking O\nking I-PER\n\nparis B-PER\n")
    with caplog.at_level(logging.INFO, "flaxbert"):
        logged(create(rows).examples(rows, labeled=True))
    assert "ner.conll:4: I-PER after O (word 3, 'king')" in caplog.text


def test_a_last_column_with_one_value_is_no_tag(tmp_path: Path) -> None:
    content = "1 king B-PER ann\n2 is O ann\n\n" * 5
    with pytest.raises(DataError, match=r"1 different tags for 10 words, such as 'ann'.*columns="):
        create(columns(tmp_path, content))


def test_a_word_a_row_is_named_with_the_form_that_is_read(tmp_path: Path) -> None:
    file = tmp_path / "ner.csv"
    file.write_text("Sentence #,Word,POS,Tag\nSentence: 1,king,NN,B-PER\n,is,VB,O\n")
    rows = readers.read(str(file), DataConfig(), split="train")
    with pytest.raises(
        DataError, match=r"ner\.csv: Word holds one word per row; expected one sentence"
    ):
        create(rows)


WORDS_AND_POS = "king\tNN\nis\tVB\nold\tJJ\n\nit\tPRP\nis\tVB\n\n"


@pytest.mark.parametrize("name", ["words.tsv", "words.csv", "words.dat"])
@pytest.mark.parametrize("names", [(), ("tokens", "tags"), ("tokens", "column2")])
@pytest.mark.parametrize(
    "content", [WORDS_AND_POS, "king\tNN\tB-PER\nis\tVB\tPER\n\nit\tPRP\tO\nis\tVB\tO\n"]
)
def test_a_column_file_that_is_read_as_a_table_is_named(
    name: str, names: tuple[str, ...], content: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_text(content)
    if names and content != WORDS_AND_POS:
        names = (*names, "more")
    rows = readers.read(str(file), DataConfig(columns=names), split="train")
    with pytest.raises(
        DataError, match=rf"{name}: one word per line.*--config\.data\.format=conll"
    ):
        create(rows)
    if not names:
        create(readers.read(str(file), DataConfig(format="conll"), split="train"))


def test_columns_of_one_space_that_are_read_as_a_table_are_named(tmp_path: Path) -> None:
    file = tmp_path / "words.tsv"
    file.write_text(WORDS_AND_POS.replace("\t", " "))
    with pytest.raises(DataError, match=r"--config\.data\.format=conll"):
        create(readers.read(str(file), DataConfig(), split="train"))


def test_a_table_of_printed_lists_with_blank_lines_is_read(tmp_path: Path) -> None:
    file = tmp_path / "words.tsv"
    file.write_text("tokens\ttags\n['king']\t['B-PER']\n\n['is']\t['O']\n")
    rows = readers.read(str(file), DataConfig(), split="train")
    assert [e.tokens for e in create(rows).examples(rows, labeled=True)] == [("king",), ("is",)]


def test_a_last_column_of_all_kinds_of_values_is_no_tag(tmp_path: Path) -> None:
    content = "".join(f"word NN lemma{n}\n\n" for n in range(200))
    with pytest.raises(DataError, match=r"200 different tags for 200 words.*data\.columns=word"):
        create(columns(tmp_path, content))


def test_a_file_without_blank_lines_is_one_long_sentence_and_said_to_be(tmp_path: Path) -> None:
    rows = columns(tmp_path, "king B-PER\nold O\n" * 10_001)
    examples = create(rows).examples(rows, labeled=True)
    found = [str(finding) for finding in check_examples(examples)]
    file = tmp_path / "ner.conll"
    assert found == [f"{file}:1: a sentence of 20,002 words: are blank lines missing?"]


def test_prediction_needs_no_tags(tokenizer: Any) -> None:
    rows = Table("x.conll", [Record({"tokens": ["paris", "is"]}, "x.conll:1")])
    task = create(slices="column2")
    examples = task.examples(rows, labeled=False)
    assert list(examples) == [SentenceExample(("paris", "is"), None, None, "x.conll:1")]
    assert "label" not in task.featurize(examples, tokenizer, labeled=False).per_token


# --- first pieces ------------------------------------------------------------------------------

PIECES = "xyz/B-PER of/O paris/B-LOC ab/I-LOC"
# [CLS] x ##y ##z of paris a ##b [SEP]: words the vocabulary lacks fall into letters.


def test_a_word_is_labelled_at_its_first_piece(tokenizer: Any) -> None:
    task = create()
    features = featurize(task, task.examples(table(PIECES), labeled=True), tokenizer)
    found = arrays(features)
    names = ["[CLS]", "x", "##y", "##z", "of", "paris", "a", "##b", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(found["input_ids"]) == names
    assert found["word"] == [-1, 0, 0, 0, 1, 2, 3, 3, -1]
    assert found["first"] == [0, 1, 0, 0, 1, 1, 1, 0, 0]
    expected = [LABELS.index(tag) for tag in ("B-PER", "O", "B-LOC", "I-LOC")]
    assert [found["label"][place] for place in (1, 4, 5, 6)] == expected


def test_later_pieces_of_a_word_are_ignored(tokenizer: Any) -> None:
    task = create()
    examples = task.examples(table(PIECES), labeled=True)
    features = featurize(task, examples, tokenizer)
    chance = np.random.default_rng(0)
    logits = chance.normal(size=(9, 5))
    (total, weight), predictions = run(task, features, logits)
    assert weight == 4
    for place in (0, 2, 3, 7, 8):  # the special tokens and the later pieces
        logits[place] = 100 * chance.normal(size=5)
        features.per_token["label"][place] = chance.integers(5)
    (same, _), changed = run(task, features, logits)
    assert same == pytest.approx(total, rel=1e-6)
    assert not np.array_equal(changed.per_token["tag"], predictions.per_token["tag"])
    decoded = [task.decode(examples, features, each) for each in (predictions, changed)]
    assert decoded[0] == decoded[1]


def test_a_tag_has_its_probability_and_an_entity_the_lowest_of_its_words(tokenizer: Any) -> None:
    task = create()
    rows = Table("ner.csv", [Record({"tokens": ["paris", "\u200b", "king", "old"]}, "ner.csv:2")])
    examples = task.examples(rows, labeled=False)
    features = task.featurize(examples, tokenizer, labeled=False)
    logits = np.zeros((5, 5))
    for place, tag, logit in ((1, "B-LOC", 3.0), (2, "I-LOC", 1.0), (3, "O", 2.0)):
        logits[place, LABELS.index(tag)] = logit
    outputs = task.predict({"logits": jnp.asarray(logits)[None]}, None)
    flat = TaskOutputs({}, {name: np.asarray(v)[0] for name, v in outputs.per_token.items()})
    (found,) = task.answers(
        examples, features, flat, task.decode(examples, features, flat), top_k=1
    )
    chances = [math.exp(logit) / (math.exp(logit) + 4) for logit in (3.0, 1.0, 2.0)]
    assert found["probability"] == [
        pytest.approx(chances[0]), None, pytest.approx(chances[1]), pytest.approx(chances[2])
    ]  # fmt: skip
    (entity,) = found["entities"]
    assert entity["probability"] == pytest.approx(chances[1])


def test_the_loss_by_hand(tokenizer: Any) -> None:
    task = create()
    features = featurize(task, task.examples(table("paris/B-LOC is/O"), labeled=True), tokenizer)
    logits = np.zeros((4, 5))
    logits[1, LABELS.index("B-LOC")] = 2.0
    logits[2, LABELS.index("B-PER")] = 1.0
    (total, weight), _ = run(task, features, logits)
    # -log(e^2 / (e^2 + 4)) and -log(1 / (e + 4))
    assert total == pytest.approx(0.432653 + 1.904833, rel=1e-5)
    assert weight == 2


INVISIBLE = ("\u200b", "", "\x07")  # a zero-width space, nothing, a control character


def invisible_rows() -> Table:
    rows = table("paris/B-LOC is/O", "old/O")
    rows.rows[0].values["tokens"] = ["paris", *INVISIBLE, "is"]
    rows.rows[0].values["tags"] = ["B-LOC", "I-LOC", "O", "O", "O"]
    rows.rows[1].values["tokens"] = ["\u200b"]
    return rows


def test_words_without_any_piece_are_tagged_o_and_counted(tokenizer: Any) -> None:
    task = create()
    examples = task.examples(invisible_rows(), labeled=True)
    features = featurize(task, examples, tokenizer)
    text = "4 words without any visible character are tagged O, or inside the entity around them"
    assert features.notes == [(logging.INFO, text)]
    assert features.lengths.tolist() == [4, 2]
    assert arrays(features)["word"] == [-1, 0, 4, -1]
    logits = np.zeros((6, 5))
    logits[:, LABELS.index("B-PER")] = 1.0
    (_, weight), predictions = run(task, features, logits)
    assert weight == 2
    records = task.decode(examples, features, predictions)
    assert [record["tags"] for record in records] == [["B-PER", "O", "O", "O", "B-PER"], ["O"]]


def test_a_gold_tag_on_a_word_without_any_piece_still_counts(tokenizer: Any) -> None:
    task = create()
    examples = task.examples(invisible_rows(), labeled=True)
    features = featurize(task, examples, tokenizer)
    _, predictions = run(task, features, np.eye(5)[features.per_token["label"]])
    found = task.score(examples, task.decode(examples, features, predictions))
    assert found["recall"] == 0  # the gold entity is two words long, the found one has the first
    assert found["token_accuracy"] == 5 / 6


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("B-PER", "I-PER", "I-PER"),
        ("I-PER", "I-PER", "I-PER"),
        ("B-PER", "I-LOC", "O"),
        ("B-PER", "B-PER", "O"),
        ("B-PER", "O", "O"),
        ("O", "I-PER", "O"),
    ],
)
def test_an_entity_goes_on_over_words_without_any_piece(
    before: str, after: str, expected: str, tokenizer: Any
) -> None:
    task = create()
    examples = [SentenceExample(("\u200b", "old", "\u200b", "\u200b", "king", ""), None, None, "x")]
    features = task.featurize(examples, tokenizer, labeled=False)
    found = np.array([0, LABELS.index(before), LABELS.index(after), 0])
    outputs = TaskOutputs({}, {"tag": found, "probability": np.array([0, 0.5, 0.75, 0])})
    (record,) = task.decode(examples, features, outputs)
    assert record["tags"] == ["O", before, expected, expected, after, "O"]
    assert record["probability"] == [None, 0.5, None, None, 0.75, None]


def test_without_o_such_words_get_the_first_label(tokenizer: Any) -> None:
    task = create(None, TokenClassificationOptions(labels=("ADJ", "NOUN")))
    examples = [SentenceExample(("king", ""), None, None, "x")]
    features = task.featurize(examples, tokenizer, labeled=False)
    text = "1 words without any visible character are tagged ADJ"
    assert features.notes == [(logging.INFO, text)]
    (record,) = task.decode(
        examples, features, TaskOutputs({}, {"tag": np.ones(3, int), "probability": np.ones(3)})
    )
    assert record["tags"] == ["NOUN", "ADJ"]


# --- windows -----------------------------------------------------------------------------------

WORDS = ("paris", "king", "of", "a", "xy", "river", "qrst", "the", "ab")  # one to four pieces


def random_rows(seed: int, count: int = 8) -> Table:
    """Sentences of 1 to 40 words with tags in IOB2; among the words some without any piece."""
    chance = random.Random(seed)
    rows = []
    for n in range(count):
        before, tags = "O", []
        words = chance.choices(
            [*WORDS, "\u200b"], weights=[4] * len(WORDS) + [1], k=1 + 39 * n // 7
        )
        for _ in words:
            options = ["O", "B-LOC", "B-PER"] + ([f"I-{before[2:]}"] * 2 if before != "O" else [])
            tags.append(before := chance.choice(options))
        rows.append(Record({"tokens": words, "tags": tags}, f"ner.jsonl:{n + 1}"))
    return Table("ner.jsonl", rows)


LAYOUTS = pytest.mark.parametrize(
    ("max_length", "overlap"), [(8, 0), (8, 4), (9, 1), (12, 8), (20, 5), (40, 20)]
)


def brute_places(
    task: TokenClassification, examples: list[SentenceExample], tokenizer: Any, features: Features
) -> dict[tuple[int, int], int]:
    """{(example, word): the flat place where it counts}, from the pieces alone.

    Windows are laid out here by arithmetic; a word counts where its first piece has the most
    context, as google-research/bert chooses among windows, the first of equals.
    """
    places: dict[tuple[int, int], int] = {}
    begin = 0  # of a window in the flat arrays
    room, step = task.data.max_length - 2, task.data.max_length - 2 - task.data.overlap
    for e, example in enumerate(examples):
        pieces = [tokenizer.tokenize(word) for word in example.tokens]
        words = [number for number, word in enumerate(pieces) for _ in word]
        edges = [(0, min(room, len(words)))]
        while edges[-1][1] < len(words):
            start = edges[-1][0] + step
            edges.append((start, min(start + room, len(words))))
        scores: dict[int, list[tuple[float, int, int]]] = {}
        for n, (start, end) in enumerate(edges):
            for piece in range(start, end):
                if piece == words.index(words[piece]):
                    context = min(piece - start, end - 1 - piece) + 0.01 * (end - start)
                    place = begin + 1 + piece - start
                    scores.setdefault(words[piece], []).append((context, -n, place))
            begin += end - start + 2
        places |= {(e, word): max(found)[2] for word, found in scores.items()}
    assert begin == features.lengths.sum()
    return places


@LAYOUTS
def test_each_word_counts_once_in_the_window_with_most_context(
    max_length: int, overlap: int, tokenizer: Any
) -> None:
    task = create(max_length=max_length, overlap=overlap)
    examples = task.examples(random_rows(0), labeled=True)
    features = featurize(task, examples, tokenizer)
    assert features.lengths.max() == max_length
    assert len(features) > len(examples)
    places = brute_places(task, examples, tokenizer, features)
    owner = np.repeat(features.example_index, features.lengths)
    marked = np.flatnonzero(features.per_token["first"])
    found = [(int(owner[p]), int(features.per_token["word"][p]), int(p)) for p in marked]
    assert sorted(found) == sorted((*key, place) for key, place in places.items())
    visible = sum(bool(tokenizer.tokenize(word)) for e in examples for word in e.tokens)
    assert len(found) == visible


@LAYOUTS
def test_the_loss_adds_up_every_gold_word_once_over_all_windows(
    max_length: int, overlap: int, tokenizer: Any
) -> None:
    task = create(max_length=max_length, overlap=overlap)
    examples = task.examples(random_rows(1), labeled=True)
    features = featurize(task, examples, tokenizer)
    logits = np.random.default_rng(0).normal(size=(features.lengths.sum(), 5))
    places = brute_places(task, examples, tokenizer, features)
    expected = 0.0
    for (e, word), place in places.items():
        scores = np.exp(logits[place])
        gold = LABELS.index((examples[e].tags or ())[word])
        expected -= np.log(scores[gold] / scores.sum())
    (total, weight), _ = run(task, features, logits)
    assert total == pytest.approx(expected, rel=1e-5)
    assert weight == len(places)


@LAYOUTS
def test_windows_are_merged_back_to_one_tag_a_word(
    max_length: int, overlap: int, tokenizer: Any
) -> None:
    task = create(max_length=max_length, overlap=overlap)
    examples = task.examples(random_rows(2), labeled=True)
    features = featurize(task, examples, tokenizer)
    logits = np.random.default_rng(0).normal(size=(features.lengths.sum(), 5))
    expected = [[""] * len(example.tokens) for example in examples]
    for (e, word), place in brute_places(task, examples, tokenizer, features).items():
        expected[e][word] = LABELS[int(np.argmax(logits[place]))]
    _, predictions = run(task, features, logits)
    records = task.decode(examples, features, predictions)
    for record, tags in zip(records, expected, strict=True):
        # Words without any piece, "" here, have tests of their own.
        assert [f for f, e in zip(record["tags"], tags, strict=True) if e] == [e for e in tags if e]
    assert [record["tokens"] for record in records] == [list(e.tokens) for e in examples]


@LAYOUTS
def test_decoded_gold_scores_1(max_length: int, overlap: int, tokenizer: Any) -> None:
    task = create(max_length=max_length, overlap=overlap)
    rows = random_rows(3)
    for row in rows.rows:
        row.values["tokens"] = [word.strip("\u200b") or "old" for word in row.values["tokens"]]
    examples = task.examples(rows, labeled=True)
    features = featurize(task, examples, tokenizer)
    _, predictions = run(task, features, np.eye(5)[features.per_token["label"]])
    records = task.decode(examples, features, predictions)
    assert [tuple(record["tags"]) for record in records] == [e.tags for e in examples]
    found = task.score(examples, records)
    names = ("precision", "recall", "f1", "strict_f1", "f1_macro", "f1_LOC", "f1_PER")
    assert [found[name] for name in (*names, "token_accuracy")] == [1.0] * 8
    records[-1]["tags"][-1] = "B-PER" if records[-1]["tags"][-1] != "B-PER" else "O"
    assert task.score(examples, records)["f1"] < 1


def test_an_overlap_that_stops_windows_from_advancing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.overlap=16 leaves no room"):
        create(max_length=16, overlap=16)


# --- scores, slices, table ---------------------------------------------------------------------


def tagged(
    task: TokenClassification, *sentences: str
) -> tuple[list[SentenceExample], list[dict[str, Any]]]:
    """Examples and records; "word/GOLD/PREDICTED"."""
    split = [[word.split("/") for word in sentence.split()] for sentence in sentences]
    gold = [" ".join(f"{word}/{tag}" for word, tag, _ in sentence) for sentence in split]
    records = [
        {"tokens": [w for w, _, _ in each], "tags": [p for _, _, p in each]} for each in split
    ]
    return task.examples(table(*gold), labeled=True), records


def test_scores_by_hand() -> None:
    task = create()
    examples, records = tagged(
        task,
        "paris/B-LOC/B-LOC is/O/O old/O/B-PER",  # found, and one too many
        "old/B-PER/B-PER king/I-PER/O",  # cut short: wrong
    )
    found = task.score(examples, records)
    assert found["precision"] == pytest.approx(1 / 3)
    assert found["recall"] == pytest.approx(1 / 2)
    assert found["f1"] == pytest.approx(2 / 5)
    assert found["f1_LOC"] == 1
    assert found["f1_PER"] == 0
    assert found["token_accuracy"] == pytest.approx(3 / 5)
    assert task.score([], []).keys() == found.keys()  # for train.keep_best, before any run
    assert set(task.score([], []).values()) == {0.0}


def test_parts_of_speech_give_accuracy_alone() -> None:
    task = create(table("the/DET old/ADJ king/NOUN"))
    examples, records = tagged(task, "the/DET/DET old/ADJ/NOUN", "king/NOUN/NOUN")
    assert task.score(examples, records) == {"accuracy": pytest.approx(2 / 3)}
    assert task.score([], []) == {"accuracy": 0}


def read(tmp_path: Path, content: str) -> Table:
    path = tmp_path / "ner.conll"
    path.write_text(content)
    return readers.read(str(path), DataConfig(), split="train")


def test_a_column_of_the_file_gives_slices(tmp_path: Path) -> None:
    rows = read(tmp_path, "paris en B-LOC\nis en O\n\nla es O\nking es B-PER\n\nit en O\n")
    task = create(rows, slices="column2")
    examples = task.examples(rows, labeled=True)
    assert [example.slice for example in examples] == ["en", "es", "en"]
    records = [{"tags": tags} for tags in (["B-LOC", "O"], ["O", "B-LOC"], ["O"])]
    found = score_with_slices(task, examples, records)
    assert found["f1/en"] == 1
    assert found["f1/es"] == 0
    assert found["f1"] == pytest.approx(1 / 2)
    assert found["token_accuracy/es"] == 1 / 2


def test_a_sentence_of_two_slices_is_refused_with_its_line(tmp_path: Path) -> None:
    rows = read(tmp_path, "paris en B-LOC\n\nla es O\nis en O\n")
    with pytest.raises(DataError, match=r"ner\.conll:3: column2 has several .*\['en', 'es'\]"):
        create(rows, slices="column2")


def test_the_table_names_entities() -> None:
    task = create()
    (example,), (record,) = tagged(
        task, "old/B-PER/B-PER king/I-PER/I-PER of/O/O paris/B-LOC/O river/O/B-LOC"
    )
    assert task.table_row(example, record) == {
        "text": "old king of paris river",
        "tags": "old king (PER); paris (LOC)",
        "predicted": "old king (PER); river (LOC)",
    }
    unlabeled = dataclasses.replace(example, tags=None)
    assert task.table_row(unlabeled, record)["tags"] == ""


def test_the_table_has_parts_of_speech_as_they_are() -> None:
    task = create(table("the/DET old/ADJ king/NOUN"))
    (example,), (record,) = tagged(task, "the/DET/DET old/ADJ/NOUN")
    shown = task.table_row(example, record)
    assert shown == {"text": "the old", "tags": "DET ADJ", "predicted": "DET NOUN"}
