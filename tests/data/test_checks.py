"""Labels that may be none: what a look at their names and counts shows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from toy import load_data, make_config

from flaxbert import Config
from flaxbert.data.checks import check_file, compare_splits, label_counts
from flaxbert.tasks.texts import TextExample


def examples(labels: Sequence[Any]) -> list[TextExample]:
    return [TextExample(f"t{n}", None, label, None, f"a:{n}") for n, label in enumerate(labels, 2)]


def kinds(labels: Sequence[Any], names: Sequence[str]) -> list[tuple[str, str]]:
    return [(f.kind, f.place) for f in compare_splits(examples(labels), [], names)]


@pytest.mark.parametrize(
    "name", ["nan", "NaN", "null", "None", "N/A", "-1", "?", " unknown ", "missing", "<NA>"]
)
def test_a_missing_value_among_the_labels_is_found(name: str) -> None:
    assert kinds([0, 1, 0, 2], ["yes", "no", name]) == [("missing label", "a:5")]


def test_usual_names_are_left_alone() -> None:
    for names in (["yes", "no", "maybe"], ["0", "1", "2"], ["O", "B-PER", "I-PER"], ["1", "-2"]):
        assert kinds([n for n in range(len(names)) for _ in range(30)], names) == []


def test_a_label_that_hardly_occurs_is_found() -> None:
    assert kinds([0] * 50 + [1] * 50 + [2] * 2, ["a", "b", "c"]) == [("rare label", "a:102")]
    assert kinds([0] * 5 + [1], ["a", "b"]) == []  # a file of a few rows has few of each


@pytest.mark.parametrize("names", [["0", "0.5", "1"], ["1e-3", "1", "2"], ["nan", "1.5", "2.5"]])
def test_fractions_hint_at_regression(names: list[str]) -> None:
    found = list(compare_splits(examples([0, 1, 2]), [], names))
    (numbers,) = [finding for finding in found if finding.kind == "numbers as labels"]
    assert "--config.task=regression" in numbers.text


def test_many_numbers_hint_at_regression_but_classes_by_number_do_not() -> None:
    names = [str(n) for n in range(40)]
    assert ("numbers as labels", "a:41") in kinds(range(40), names)
    assert kinds([n % 40 for n in range(4000)], names) == []
    assert kinds([n % 10 for n in range(40)], names[:10]) == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_line_ends_are_those_of_the_decoded_text(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('text\r\n"two\nlines"\r\nfine\r\n'.encode(encoding))
    found = {finding.kind for finding in check_file(path, encoding, quoted=True)}
    assert found <= {"byte-order mark"}
    path.write_bytes('text\r\n"two\nlines"\r\nfine\n'.encode(encoding))
    (mixed,) = [f for f in check_file(path, encoding, quoted=True) if f.kind == "mixed line ends"]
    assert str(mixed) == f"{path}:4: 2 \\r\\n, 1 \\n; write them all alike"


def test_sets_of_labels_and_texts_without_any_are_counted() -> None:
    sets = examples([(1, 0), (1, 1), (0, 0)])
    assert label_counts(sets, ["a", "b"]) == {"a": 2, "b": 1}
    assert label_counts(examples([0.5, 1.5]), []) == {}


def test_a_run_shows_names_and_counts_at_its_start(one_layer, tmp_path, caplog) -> None:
    config: Config = make_config("classification", one_layer, tmp_path, count=10)
    with caplog.at_level("INFO", "flaxbert"):
        load_data(config)
    assert "labels of 10 training examples: negative 5, positive 5" in caplog.messages
