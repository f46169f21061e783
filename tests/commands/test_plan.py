"""`flaxbert plan`: plans for the devices of this machine, its table, its JSON and its errors."""

import fnmatch
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from fake_gcs import FakeGCS

from flaxbert.__main__ import main
from flaxbert.commands import plan as command
from flaxbert.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from flaxbert.errors import ConfigError
from flaxbert.planning import report, step, topology, workload
from flaxbert.planning.step import Analysis
from flaxbert.runtime import hardware
from flaxbert.tasks import TASKS


def arguments(checkpoint: Path, *more: str) -> list[str]:
    flags = [f"--config.model.init={checkpoint}", "--config.data.max_length=32"]
    return ["plan", "--config=quickstart", *flags, *more]


def test_a_plan_has_the_batches_of_the_run(
    one_layer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "train.tsv"
    source = (ROOT / "examples/data/sentiment_train.tsv").read_text(encoding="utf-8").splitlines()
    data.write_text("\n".join(source[:101]) + "\n", encoding="utf-8")
    flags = f"--config.data.train={data}", "--config.train.epochs=2", "--price=2"
    assert main(arguments(one_layer, *flags, "--json", "--config.train.batch_size=40")) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["note"] == ""
    (one,) = output["targets"]
    assert (one["devices"], one["dtype"], one["fits"]) == (8, "float32", True)
    assert one["steps"] == 6 == sum(one["buckets"].values())  # 100 examples, twice
    assert max(map(int, one["buckets"])) == one["rows"]
    assert 0 < one["padding"] < 1
    assert one["memory"]["peak"] >= one["memory"]["parameters"] + one["memory"]["optimizer"]
    assert one["collectives"]["all-reduce"]["bytes"] >= one["memory"]["gradients"]
    assert one["cost"] == pytest.approx(2 * 8 * one["seconds"] / 3600)


def recorded(arrays: Any, size: int) -> Analysis:
    """Return an analysis of `size` bytes; the compiler is not needed for what is not about it."""
    rows, length = arrays["input_ids"].shape
    parts = dict.fromkeys(("parameters", "optimizer", "gradients", "activations"), size // 4)
    counts = {"model_flops": 1e9, "compiled_flops": 1e9, "accessed": 1e9, "traffic": 1e9}
    collectives = {"all-reduce": (1, size // 4)}
    return Analysis(rows, length, **parts, peak=size, **counts, collectives=collectives, seconds=1)


def test_data_in_a_bucket_is_planned_as_a_local_file_is(
    one_layer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("gcsfs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(step, "analyze", lambda *args, **options: recorded(args[3], 4000))
    file = ROOT / "examples/data/sentiment_train.tsv"
    plans = []
    with FakeGCS() as gcs:
        gcs.connect(monkeypatch)
        gcs.put("bucket/data/train.tsv", file.read_bytes())
        for path in (str(file), "gs://bucket/data/train.tsv"):
            assert main(arguments(one_layer, f"--config.data.train={path}", "--json")) == 0
            plans.append(json.loads(capsys.readouterr().out))
    local, remote = plans
    assert remote == local
    assert local["note"] == ""
    assert local["targets"][0]["steps"] > 0


def test_a_run_without_data_is_planned_in_full_rows(
    one_layer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(step, "analyze", lambda *args, **options: recorded(args[3], 4000))
    flags = "--config.data.train=absent.tsv", "--config.train.batch_size=9", "--config.train.fsdp=2"
    assert main(arguments(one_layer, *flags)) == 0
    printed = capsys.readouterr().out
    assert "16 rows x 32 tokens" in printed
    assert "without data, in full rows: absent.tsv: no such file" in printed
    assert "devices that share parameters" in printed
    assert "training takes" not in printed


def test_no_target_that_fits_is_exit_code_2(
    one_layer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step, "analyze", lambda *args, **options: recorded(args[3], 2**50))
    assert main(arguments(one_layer, "--data=none")) == 2
    printed = capsys.readouterr().out
    assert "DOES NOT FIT" in printed
    assert "more chips" in printed


@pytest.mark.parametrize(("batch_size", "parts", "code"), [(64, 4, 0), (16, 2, 0), (8, 1, 2)])
def test_auto_is_the_first_number_of_micro_batches_that_fits(
    batch_size: int,
    parts: int,
    code: int,
    one_layer: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compiled: list[int] = []

    def analyze(*args: Any, train: TrainConfig, **_: Any) -> Analysis:
        compiled.append(train.microbatches)
        return recorded(args[3], 2000 // train.microbatches)

    monkeypatch.setattr(step, "analyze", analyze)
    monkeypatch.setattr(hardware, "memory", lambda: 8 * 1000)  # of which a program may use 750
    flags = "--config.train.accumulation_steps=auto", f"--config.train.batch_size={batch_size}"
    assert main(arguments(one_layer, *flags, "--data=none", "--json")) == code
    (one,) = json.loads(capsys.readouterr().out)["targets"]
    assert (one["accumulation_steps"], one["auto"], one["fits"]) == (parts, True, code == 0)
    assert (one["rows"], one["batch_size"]) == (batch_size, batch_size)
    assert compiled == [1, 2, 4][: len(compiled)]
    assert compiled[-1] == parts
    assert ("train.accumulation_steps", [f"{parts} (auto)"]) in list(report.lines([one]))


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_has_arrays_without_data(task: str, one_layer: Path) -> None:
    work = without_data(task, one_layer)
    assert (work.rows, work.steps, work.arrays["input_ids"].shape) == (32, 7, (32, 16))


def test_a_plan_downloads_no_weights(one_layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patterns: list[str] = []

    def download(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        patterns.extend(allow_patterns)
        return str(one_layer)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    config = Config(task="regression", model=ModelConfig(init="owner/name"))
    config.data = DataConfig(max_length=16)
    workload.Job.read(config, use_data=False)
    files = ("config.json", "vocab.txt", "model.safetensors", "pytorch_model.bin", "model.ckpt")
    fetched = [name for name in files if any(fnmatch.fnmatch(name, p) for p in patterns)]
    assert fetched == ["config.json", "vocab.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(TASKS))
def test_these_arrays_are_those_of_the_step(task: str, one_layer: Path) -> None:
    work = without_data(task, one_layer)
    pipeline, options = work.pipeline, {"train": TrainConfig(), "optim": OptimConfig(), "steps": 7}
    step.lower_step(pipeline.model, pipeline.task, pipeline.mesh, work.arrays, **options)


def without_data(task: str, checkpoint: Path) -> workload.Work:
    config = Config(task=task, model=ModelConfig(init=str(checkpoint)))
    config.data = DataConfig(max_length=16, overlap=4)
    config.train = TrainConfig(max_steps=7)
    return workload.Job.read(config, use_data=False).on(topology.local())


@pytest.mark.slow
def test_a_plan_divides_parameters_as_the_run_does(
    one_layer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = []
    for shared in (1, 8):
        flags = "--data=none", "--json", f"--config.train.fsdp={shared}"
        assert main(arguments(one_layer, *flags)) == 0
        plans += json.loads(capsys.readouterr().out)["targets"]
    whole, divided = plans
    assert divided["memory"]["optimizer"] < whole["memory"]["optimizer"] / 4
    assert divided["memory"]["peak"] < whole["memory"]["peak"]
    assert "all-gather" in divided["collectives"]
    assert set(whole["collectives"]) == {"all-reduce"}


def test_errors_of_flags_name_what_is_expected(
    one_layer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag, expected in (
        ("--topology=v9:1x1", "no such TPU"),
        ("--price=v5e:cheap", "--price=v5e:cheap: expected a number above 0, or CHIP:NUMBER"),
        ("--efficiency=2", "expected a number above 0 up to 1"),
        ("--data=some", "--data=some: expected auto|none"),
    ):
        assert main(arguments(one_layer, flag)) == 2
        assert expected in capsys.readouterr().err


def test_numbers_are_those_of_each_chip() -> None:
    assert command.numbers("price", "v5e:1.2,h100:2.5") == {"v5e": 1.2, "h100": 2.5}
    assert command.numbers("efficiency", "0.4") == {"": 0.4}
    with pytest.raises(ConfigError):
        command.numbers("price", "-1")


def record(name: str, seconds: float, cost: float, *, fits: bool = True) -> dict[str, Any]:
    return {"target": name, "fits": fits, "seconds": seconds, "cost": cost, "step_seconds": 1.0}


def test_targets_that_fit_are_ranked_by_time_and_by_cost() -> None:
    records = [record("a", 600, 3.0), record("b", 8000, 1.5), record("c", 1, 0.1, fits=False)]
    by_time, by_cost = report.ranking(records)
    assert by_time == "by time: a (10 min), b (2.2 h)"
    assert by_cost == "by cost: b (1.50), a (3.00)"


def test_a_plan_takes_the_kernel_for_attention_where_the_run_would_try_it() -> None:
    local = topology.local()
    assert workload.attention_way("auto", local) == "auto"
    assert workload.attention_way("plain", local) == "plain"
