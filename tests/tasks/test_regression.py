"""Regression: numbers as labels, least squares, correlations."""

import copy
import json
import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tolerance import assert_close
from toy import edit_metadata, make_batch, make_config, parts_of, write_lines

import flaxbert
from flaxbert.commands import convert
from flaxbert.config import Config, DataConfig
from flaxbert.data.features import Features
from flaxbert.data.table import Record, Table
from flaxbert.errors import ConfigError, DataError
from flaxbert.metrics import regression as metrics
from flaxbert.models.bert import BertConfig
from flaxbert.models.model import Model
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.runtime import checkpoint
from flaxbert.tasks.base import score_with_slices
from flaxbert.tasks.regression import Regression, RegressionOptions
from flaxbert.types import TaskOutputs


def table(labels: Sequence[Any], **columns: Any) -> Table:
    """One row a label; `columns` are lists of equal length."""
    columns = {"text": ["film"] * len(labels), "label": labels} | columns
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    return Table("train.tsv", [Record(row, f"train.tsv:{n}") for n, row in enumerate(rows, 2)])


def create(options: RegressionOptions | None = None, **data: Any) -> Regression:
    return Regression.create(DataConfig(**data), options or RegressionOptions(), None, {})


# --- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3.0), (2.5, 2.5), ("2.5", 2.5), ("-1e-3", -0.001), (" 4 ", 4.0), (0, 0.0)],
)
def test_numbers_and_texts_of_numbers_are_labels(value: Any, number: float) -> None:
    (example,) = create().examples(table([value]), labeled=True)
    assert example.label == number
    assert isinstance(example.label, float)


@pytest.mark.parametrize(
    "value",
    ["high", "", "1,5", None, True, False, math.nan, math.inf, "nan", "-inf", [1.0], {}, 10**400],
)
def test_an_invalid_number_is_reported_with_its_line(value: Any) -> None:
    with pytest.raises(DataError) as caught:
        create().examples(table([1.0, value]), labeled=True)
    for part in ("train.tsv:3: label is", repr(value)[:100], "expected a number"):
        assert part in str(caught.value)


@pytest.mark.parametrize("value", ["1,500", "1,5", "-3,25", "1,500,000", "1,500.5"])
def test_a_number_with_a_comma_gets_advice_for_both_meanings(value: str) -> None:
    with pytest.raises(DataError) as caught:
        create().examples(table([value]), labeled=True)
    assert str(caught.value) == (
        f"train.tsv:2: label is '{value}'; expected a number. Write it without a comma between "
        "thousands, and with a point before decimals."
    )


def test_a_row_without_the_number_is_named_with_its_line() -> None:
    rows = table([1.0, 2.0], score=[1.0, 2.0])
    del rows.rows[1].values["score"]  # as in a .jsonl
    with pytest.raises(DataError, match=r"train\.tsv:3: score is None; expected a number"):
        create(RegressionOptions(label="score")).examples(rows, labeled=True)


def test_prediction_needs_no_number() -> None:
    rows = Table("x.tsv", [Record({"text": "film"}, "x.tsv:2")])
    (example,) = create().examples(rows, labeled=False)
    assert example.label is None


def test_invalid_options_for_long_texts_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"options\.long_texts='middle'"):
        create(RegressionOptions(long_texts="middle"))


def test_features_of_a_pair_carry_the_number_as_a_fraction(tokenizer: Any) -> None:
    task = create(RegressionOptions(pair="other"), max_length=16)
    examples = task.examples(table([1, 2.5], other=["book", "old book"]), labeled=True)
    features = task.featurize(examples, tokenizer, labeled=True)
    assert features.per_sequence["label"].tolist() == [1.0, 2.5]
    assert features.per_sequence["label"].dtype == np.float32  # even where all are whole
    assert (
        task.featurize(examples[:1], tokenizer, labeled=True).per_sequence["label"].dtype
        == np.float32
    )
    assert features.lengths.tolist() == [5, 6]
    assert task.featurize(examples, tokenizer, labeled=False).per_sequence == {}


# --- loss and predictions ----------------------------------------------------------------------


def test_the_head_gives_one_number() -> None:
    model = Model.create(BertConfig(num_hidden_layers=1), create().make_head)
    assert model.shapes["head"]["classifier"]["kernel"].shape == (768, 1)
    assert create().hf_config()["problem_type"] == "regression"
    assert len(create().hf_config()["id2label"]) == 1  # whence transformers knows the width


def test_the_loss_is_the_squared_error_of_filled_slots() -> None:
    outputs = {"logits": np.array([[[1.0], [4.0], [100.0]], [[-1.0], [5.0], [5.0]]], np.float32)}
    batch = make_batch(
        label=np.array([[3.0, 4.5, 0.0], [-2.0, 0.0, 0.0]], np.float32),
        weight=np.array([[1, 1, 0], [1, 0, 0]], np.float32),
    )
    value, weight = parts_of(jax.jit(create().loss)(outputs, batch)["loss"])
    assert value == 4 + 0.25 + 1
    assert weight == 3


def test_windows_are_averaged_before_the_error_is_squared() -> None:
    # Two windows of one text: (1 + 4) / 2 against 3 is 0.25; one by one it would be 4 and 1.
    outputs = {"logits": np.array([[[1.0]], [[4.0]]], np.float32)}
    batch = make_batch(
        label=np.full((2, 1), 3.0, np.float32),
        weight=np.full((2, 1), 0.5, np.float32),
        group=np.zeros((2, 1), np.int32),
    )
    value, weight = parts_of(jax.jit(create().loss)(outputs, batch)["loss"])
    assert (value, weight) == (0.25, 1)
    predicted = jax.jit(create().predict)(outputs, batch).per_sequence["value"]
    assert_close(predicted, np.full((2, 1), 2.5))


def test_records_hold_the_number_of_each_text() -> None:
    task = create(RegressionOptions(pair="other"))
    rows = table([1, 2], text=["film", "food"], other=["book", "car"])
    examples = task.examples(rows, labeled=True)
    # The first text has two windows.
    features = Features.build(
        {"input_ids": [[0]] * 3}, example_index=[0, 0, 1], feature_index=[0, 0, 1]
    )
    values = np.array([0.5, 0.5, -1.25], np.float32)
    records = task.decode(examples, features, TaskOutputs({"value": values}, {}))
    assert records == [
        {"text": "film", "pair": "book", "value": 0.5},
        {"text": "food", "pair": "car", "value": -1.25},
    ]
    shown = task.table_row(examples[1], records[1])
    assert (shown["label"], shown["predicted"]) == ("2", "-1.25")
    (unlabeled, _) = task.examples(rows, labeled=False)
    assert task.table_row(unlabeled, records[0])["label"] == ""


def test_each_slice_has_its_metrics() -> None:
    rows = table([1, 2, 3, 4], language=["en", "en", "de", "de"])
    task = create(slices="language")
    records = [{"value": value} for value in (1.0, 2.0, 4.0, 3.0)]
    found = score_with_slices(task, task.examples(rows, labeled=True), records)
    assert found["pearson/en"] == pytest.approx(1)
    assert found["pearson/de"] == pytest.approx(-1)
    errors = [found[f"squared_error{part}"] for part in ("", "/en", "/de")]
    assert errors == [0.5, 0, 1]


# --- numbers far from 0 ------------------------------------------------------------------------

YEARS = [1900.0, 1950.0, 2000.0, 1950.0]


def on(numbers: Sequence[Any], hf: dict[str, Any] | None = None, **data: Any) -> Regression:
    train = Regression.read(table(numbers), DataConfig(**data), RegressionOptions(), labeled=True)
    return Regression.create(DataConfig(**data), RegressionOptions(), train, hf or {})


@pytest.mark.parametrize(
    "numbers", [[0.0, 2.5, 5.0], [0.0, 0.2, 1.0], [-1, 1], [3.0, 3.0], [1.0, 5.0, 20.0]]
)
def test_numbers_about_0_are_learned_as_they_are(numbers: list[float], caplog: Any) -> None:
    with caplog.at_level("INFO", "flaxbert"):
        task = on(numbers)
    assert (task.mean, task.scale) == (0.0, 1.0)
    assert "flaxbert" not in task.hf_config()
    assert not caplog.messages


@pytest.mark.parametrize("numbers", [YEARS, [1e-4, 2e-4], [-1e6, 1e6, 3e6], [99.0, 100.0]])
def test_other_numbers_are_standardized_and_that_is_logged(
    numbers: list[float], caplog: Any
) -> None:
    with caplog.at_level("INFO", "flaxbert"):
        task = on(numbers)
    assert (task.mean, task.scale) == (np.mean(numbers), np.std(numbers))
    assert f"numbers from {min(numbers):g} to {max(numbers):g} are standardized" in caplog.text
    again = Regression.create(DataConfig(), RegressionOptions(), None, task.hf_config())
    assert (again.mean, again.scale) == (task.mean, task.scale)


def test_malformed_rows_do_not_count_in_the_mean() -> None:
    task = on([*YEARS, "?"], on_bad_row="skip")
    assert task.mean == 1950


def test_the_loss_is_standardized_and_the_prediction_is_not() -> None:
    task = on(YEARS)
    outputs = {"logits": np.array([[[0.0], [1.0]]], np.float32)}
    batch = make_batch(label=np.array([[1950.0, 1950.0]], np.float32), weight=np.ones((1, 2)))
    value, weight = parts_of(jax.jit(task.loss)(outputs, batch)["loss"])
    assert (value, weight) == (pytest.approx(1), 2)
    predicted = jax.jit(task.predict)(outputs, batch).per_sequence["value"]
    assert_close(predicted, np.array([[1950, 1950 + task.scale]], np.float32))


def test_weights_go_to_units_and_back() -> None:
    task, generator = on(YEARS), np.random.default_rng(0)
    layer = {"kernel": generator.normal(size=(3, 1)), "bias": generator.normal(size=(1,))}
    layer = {name: array.astype(np.float32) for name, array in layer.items()}
    params = {"encoder": {}, "head": {"pooler": {}, "classifier": layer}}
    hidden = generator.normal(size=(5, 3))
    made = task.to_units(params)["head"]["classifier"]
    expected = (hidden @ layer["kernel"] + layer["bias"]) * task.scale + task.mean
    assert_close(hidden @ made["kernel"] + made["bias"], expected)
    back = task.from_units(task.to_units(params))["head"]["classifier"]
    assert np.abs(back["kernel"] - layer["kernel"]).max() < 1e-6
    assert np.abs(back["bias"] - layer["bias"]).max() < 1e-4
    assert create().to_units(params) is params


@pytest.fixture(scope="module")
def years(one_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A configuration of a regression on years, and the workdir of its finished run."""
    directory = tmp_path_factory.mktemp("years")
    config = make_config("regression", one_layer, directory, count=16)
    for path in (config.data.train, config.data.eval):
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        write_lines(Path(path), [row | {"label": 1900 + 100 * row["label"]} for row in rows])
    flaxbert.train(config, directory / "run")
    return config, directory / "run"


def exported(config: Config, workdir: Path) -> Pipeline:
    init = str(workdir / "export")
    return Pipeline.build(config.task, config.model, config.data, config.options, init=init)


def test_years_are_predicted_and_the_export_gives_years(
    years: tuple[Config, Path], tokenizer: Any
) -> None:
    config, workdir = years
    results = json.loads((workdir / "results.json").read_text())
    assert results["squared_error"] < 50**2  # a prediction of 0 is wrong by 1,900
    # What transformers reads gives years without knowing of mean and scale.
    model, params = flaxbert.from_pretrained(str(workdir))
    record = json.loads((workdir / "eval_predictions.jsonl").read_text().splitlines()[0])
    encoded = dict(tokenizer(record["text"], record["pair"], return_token_type_ids=True))
    inputs = {name: [encoded[name]] for name in ("input_ids", "token_type_ids")}
    assert float(model(params, inputs)["logits"].ravel()[0]) == pytest.approx(
        record["value"], abs=0.05
    )
    # So does evaluation, with the loss of the run.
    loaded = exported(config, workdir).load_params(trained=True)
    before = checkpoint.read_newest(workdir / "checkpoints")[2]
    stored = before["params/head/classifier/kernel"]
    assert np.abs(loaded["head"]["classifier"]["kernel"] - stored).max() < 1e-5


def test_a_run_of_a_version_that_did_not_standardize_is_not_continued_in_other_units(
    years: tuple[Config, Path], tmp_path: Path
) -> None:
    config, workdir = copy.deepcopy(years[0]), tmp_path / "run"
    shutil.copytree(years[1], workdir)
    edit_metadata(workdir, lambda metadata: metadata["data"].pop("units"))
    with pytest.raises(ConfigError, match=r"data:\n  units: None there, '\(label - 19.* now\n"):
        flaxbert.train(config, workdir)


def test_years_are_not_rounded_where_parameters_are_bfloat16(years: tuple[Config, Path]) -> None:
    config, workdir = copy.deepcopy(years[0]), years[1]
    config.model.param_dtype = "bfloat16"
    pipeline = exported(config, workdir)
    params = pipeline.load_params(trained=True)
    dtypes = jax.tree.map(lambda shape: shape.dtype, pipeline.model.shapes)
    assert jax.tree.map(lambda array: array.dtype, params) == dtypes
    stored = checkpoint.read_newest(workdir / "checkpoints")[2]["params/head/classifier/bias"]
    bias = params["head"]["classifier"]["bias"].astype(np.float32)
    assert np.abs(bias - stored).max() < 2**-8  # 1950 itself is rounded by up to 4 years


def test_a_converted_checkpoint_of_an_unfinished_run_gives_years(
    years: tuple[Config, Path], tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(years[1], workdir)
    shutil.rmtree(workdir / "export")
    convert.convert(str(workdir), tmp_path / "model")
    exported, converted = (
        load_file(directory / "model.safetensors")
        for directory in (years[1] / "export", tmp_path / "model")
    )
    assert abs(float(exported["classifier.bias"][0]) - 1950) < 50
    for name, array in exported.items():
        np.testing.assert_array_equal(converted[name], array, err_msg=name)


# --- metrics -----------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    # Deviations of the labels: -1.5 -0.5 0.5 1.5, of the predictions: -1.5 0.5 -0.5 1.5; so
    # Pearson is (2.25 - 0.25 - 0.25 + 2.25) / 5. Both are ranks already: Spearman is the same.
    found = metrics.score([1, 3, 2, 4], [1, 2, 3, 4])
    assert found == {
        "pearson": pytest.approx(4 / 5),
        "spearman": pytest.approx(4 / 5),
        "squared_error": pytest.approx(2 / 4),
    }


def test_ties_share_their_mean_rank() -> None:
    # Ranks of the predictions: 1, 2.5, 2.5, 4; deviations -1.5, 0, 0, 1.5 against those of 1 to 4.
    found = metrics.score([1, 2, 2, 10], [1, 2, 3, 4])
    assert found["spearman"] == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    # Deviations of the predictions themselves: -2.75, -1.75, -1.75, 6.25.
    assert found["pearson"] == pytest.approx(13.5 / math.sqrt(52.75 * 5))
    assert found["squared_error"] == pytest.approx((0 + 0 + 1 + 36) / 4)


def test_reversed_order_correlates_by_minus_one() -> None:
    found = metrics.score([3, 2, 1], [1, 2, 30])
    assert found["spearman"] == pytest.approx(-1)
    assert -1 < found["pearson"] < 0


def brute_pearson(x: list[float], y: list[float]) -> float:
    mx, my = (sum(values) / len(values) for values in (x, y))
    products = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return products / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))


def ranks(values: list[float]) -> list[float]:
    """1 + those below + half of the others that are equal."""
    return [1 + sum(b < a for b in values) + (values.count(a) - 1) / 2 for a in values]


@pytest.mark.parametrize("seed", range(30))
def test_scores_equal_their_definitions_counted_out(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(3, 12)
    # Few values, so that there are ties, and two that differ on either side.
    predicted, gold = ([0.0, 1.5, *chance.choices([0, 0.5, 1.5, 4], k=count)] for _ in range(2))
    chance.shuffle(predicted)
    found = metrics.score(predicted, gold)
    assert found["pearson"] == pytest.approx(brute_pearson(predicted, gold), abs=1e-12)
    assert found["spearman"] == pytest.approx(
        brute_pearson(ranks(predicted), ranks(gold)), abs=1e-12
    )
    errors = [(p - g) ** 2 for p, g in zip(predicted, gold, strict=True)]
    assert found["squared_error"] == pytest.approx(sum(errors) / len(errors))


@pytest.mark.parametrize(
    ("predicted", "gold", "squared_error"),
    [
        ([], [], 0),
        ([1], [3], 4),
        ([2, 2, 2], [1, 2, 3], 2 / 3),  # the predictions of a model that has not learnt
        ([1, 2, 3], [2, 2, 2], 2 / 3),
    ],
)
def test_correlations_that_are_undefined_are_zero(
    predicted: list[float], gold: list[float], squared_error: float
) -> None:
    assert metrics.score(predicted, gold) == {
        "pearson": 0,
        "spearman": 0,
        "squared_error": pytest.approx(squared_error),
    }


def test_predictions_that_barely_differ_give_numbers_and_no_warning() -> None:
    found = metrics.score([1.0, 1.0 + 2**-52, 1.0], [1, 3, 2])  # warnings are errors in tests
    assert all(math.isfinite(value) for value in found.values())
    assert found["spearman"] == pytest.approx(1.5 / math.sqrt(1.5 * 2))
