"""Reports: they are well formed, harmless, small, accessible, and say what the files hold."""

import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
from made_runs import RESULTS, ROWS, write_run

from flaxbert.errors import WorkdirError
from flaxbert.metrics import classification, entities, multi_label, regression, squad
from flaxbert.report import page as pages
from flaxbert.report.compare import make_comparison
from flaxbert.report.entities import assess as assess_tags
from flaxbert.report.html import Html, join, number, tag, user_text
from flaxbert.report.rundir import read_run

EMPTY = {"meta"}


class Checker(html.parser.HTMLParser):
    """Collects the elements of a page, and fails where they are not nested."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        if name not in EMPTY:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        for name in self.open[-1:]:
            self.text.setdefault(name, []).append(data)

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for element, attributes in self.elements if element == name]


def parsed(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


@pytest.fixture(scope="module", params=RESULTS)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    workdir = write_run(tmp_path_factory.mktemp("run"), request.param)
    return pages.make_page(read_run(workdir))


def test_text_is_escaped_and_nothing_is_loaded(page: str) -> None:
    checker = parsed(page)
    names = {name for name, _ in checker.elements}
    assert not names & {"script", "link", "img", "iframe", "object", "i", "x", "f"}
    attributes = [key for _, given in checker.elements for key in given]
    assert not [key for key in attributes if key.startswith("on")]
    targets = [given["href"] for given in checker.named("a")]
    assert all(target is not None and target.startswith("#") for target in targets)
    assert not re.search(r"url\(|@import|https?://|\x00", page)
    page.encode()


def test_pages_are_small_whatever_the_texts(page: str) -> None:
    assert len(page.encode()) < 200_000
    assert "x" * 400 not in page


def test_pages_are_accessible(page: str) -> None:
    checker = parsed(page)
    assert len(checker.named("h1")) == 1
    ids = [given["id"] for given in checker.named("h2")]
    assert len(set(ids)) == len(ids) >= 3
    assert {f"#{key}" for key in ids} == {given["href"] for given in checker.named("a")}
    assert all(given.get("scope") in ("col", "row") for given in checker.named("th"))
    assert len(checker.named("caption")) == len(checker.named("table")) > 0
    drawings = checker.named("svg")
    assert drawings
    assert all(given["role"] == "img" and given["aria-label"] for given in drawings)
    assert '<html lang="en">' in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_page_has_curves_command_configuration_and_fingerprints(page: str) -> None:
    for part in ("Learning rate", "--config=&lt;x&gt;.py", "data.max_length", "0123abcd", "4 x 64",
                 "20 of 100 texts of data.train lost text", "lowest at step 10"):  # fmt: skip
        assert part in page


@pytest.mark.parametrize("task", ROWS)
def test_lists_show_wrong_examples_with_their_place(task: str, tmp_path: Path) -> None:
    page = pages.make_page(read_run(write_run(tmp_path, task, count=12)))
    assert "Most wrong predictions" in page
    unranked = task == "regression"
    assert ("have no probabilities" in page) == unranked
    assert ("Most doubtful" in page) == (not unranked)
    assert ("Expected calibration error" in page) == (not unranked and task != "question_answering")
    assert "dev.tsv:" in page
    assert "(100,000 characters, shortened)" in page or task == "regression"


def test_spans_are_highlighted_by_kind(tmp_path: Path) -> None:
    sentences = pages.make_page(read_run(write_run(tmp_path / "a", "token_classification")))
    for kind in ("missed", "wrong"):
        assert f", {kind}</small></mark>" in sentences
    answers = pages.make_page(read_run(write_run(tmp_path / "b", "question_answering")))
    for kind in ("both", "answer", "predicted"):
        assert f"<small>{kind}</small></mark>" in answers


def assessed(tmp_path: Path, task: str) -> tuple[pages.Quality, pages.Evaluated]:
    evaluated = pages.evaluated_of(read_run(write_run(tmp_path, task)))
    quality = pages.assess(evaluated)
    assert quality is not None
    return quality, evaluated


def test_estimates_are_the_metrics_of_the_library(tmp_path: Path) -> None:
    def values(task: str) -> tuple[dict[str, float], list, list]:
        quality, known = assessed(tmp_path / task, task)
        for estimate in quality.estimates.values():
            assert estimate.low <= estimate.value <= estimate.high
        numbers = {name: estimate.value for name, estimate in quality.estimates.items()}
        return numbers, list(known.labels), list(known.predictions)

    got, labels, predictions = values("classification")
    index = {"ham": 0}
    pairs = [[index.get(x["label"], 1) for x in side] for side in (labels, predictions)]
    matrix = classification.confusion(np.array(pairs[0]), np.array(pairs[1]), 2)
    assert got["f1_macro"] == pytest.approx(classification.f1_macro(matrix))
    assert got["matthews"] == pytest.approx(classification.matthews(matrix))
    assert got["f1"] == pytest.approx(classification.f1(matrix, 1))
    got, labels, predictions = values("multi_label")
    flags = [
        np.array([["a" in x["labels"], len(x["labels"]) > 1] for x in side])
        for side in (predictions, labels)
    ]
    assert got == pytest.approx(multi_label.score(*flags))
    got, labels, predictions = values("regression")
    numbers = [[x["value"] for x in side] for side in (predictions, labels)]
    assert got == pytest.approx(regression.score(*numbers))
    got, labels, predictions = values("token_classification")
    expected = entities.score(*([x["tags"] for x in side] for side in (predictions, labels)))
    assert got == pytest.approx({name: expected[name] for name in got})
    got, labels, predictions = values("question_answering")
    references = [[text for text, _ in label["answers"]] for label in labels]
    expected = squad.score_v2([p["answer"] for p in predictions], references)
    assert got == pytest.approx({name: expected[name] for name in got})


def test_baseline_is_the_most_frequent_label(tmp_path: Path) -> None:
    quality, _ = assessed(tmp_path, "classification")
    assert quality.estimates["accuracy"].baseline == 0.5
    assert quality.baseline == "always the most frequent label, 'ham'"
    assert quality.suspects
    assert quality.correct is not None
    assert not quality.correct[[suspect.example for suspect in quality.suspects]].any()


def test_page_without_labels_has_metrics_and_curves(tmp_path: Path) -> None:
    workdir = write_run(tmp_path, "classification")
    (workdir / "eval_labels.jsonl").unlink()  # a run of an earlier version
    page = pages.make_page(read_run(workdir))
    assert "Final evaluation" in page
    assert "Most wrong" not in page


def test_many_labels_give_a_small_page(tmp_path: Path) -> None:
    workdir = write_run(tmp_path, "classification")
    names = [f"label {n}" for n in range(200)]
    probability = dict.fromkeys(names, 1 / 200)
    for file, key in (("eval_labels.jsonl", 1), ("eval_predictions.jsonl", 7)):
        rows = [
            {"label": names[n * key % 200], "text": "a", "probability": probability}
            for n in range(1000)
        ]
        (workdir / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = pages.make_page(read_run(workdir))
    assert len(page) < 250_000
    assert "The 16 of 200 labels with most errors." in page


def test_unfinished_and_corrupt_runs_are_errors(tmp_path: Path) -> None:
    with pytest.raises(WorkdirError, match=r"has no results\.json"):
        read_run(tmp_path)
    workdir = write_run(tmp_path / "run", "classification")
    (workdir / "metrics.jsonl").write_text("{")
    with pytest.raises(WorkdirError, match=r"metrics\.jsonl: is not JSON"):
        read_run(workdir)


def test_comparison_marks_the_best_and_tests_the_difference(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"<b>{n}", "classification", seed=n) for n in range(3)]
    results = json.loads((runs[1] / "results.json").read_text())
    (runs[1] / "results.json").write_text(json.dumps(results | {"accuracy": 0.85, "loss": 0.6}))
    predictions = read_run(runs[2]).predictions
    labels = read_run(runs[2]).labels
    for prediction, label in zip(predictions, labels, strict=True):
        prediction["label"] = label["label"]
    lines = "".join(json.dumps(p) + "\n" for p in predictions)
    (runs[2] / "eval_predictions.jsonl").write_text(lines)
    page = make_comparison([read_run(run) for run in runs])
    checker = parsed(page)
    assert {"b", "script"}.isdisjoint(name for name, _ in checker.elements)
    best = re.findall(r'<td class="number best">([\d.]+)', page)
    assert best[0] == "0.500"  # the lowest loss; ties are marked too
    assert "0.850" in best
    assert "train.seed" in page
    assert page.count("a clear difference") == 2  # of the third run: 8 of 40 more are right
    assert page.count("may be chance") == 1


def test_only_html_is_not_escaped() -> None:
    assert tag("p", "<", Html("<b></b>"), title='"') == '<p title="&quot;">&lt;<b></b></p>'
    assert not isinstance(Html("<b>") + "x", Html)  # so it is escaped later
    assert join(None, "a\x00\ud800") == "a\ufffd\ufffd"
    assert user_text("ab", 1) == '<bdi>a…</bdi><span class="note"> (2 characters, shortened)</span>'


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (float("nan"), "-"), (float("inf"), "-"), (3.0, "3"), (0.7, "0.700"),
     (12345.6, "12,346"), (48.49, "48.5"), (0.00002, "2e-05"), (-0.5, "-0.500")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_slice_without_entities_is_measured_like_the_others():
    labels = [{"tags": ["O", "O"]}]
    predictions = [{"tokens": ["a", "b"], "tags": ["O", "O"], "probability": [0.9, 0.9]}]
    names = ["O", "B-PER", "I-PER"]
    assert assess_tags(pages.Evaluated(labels, predictions, names, {})).main == "f1"
