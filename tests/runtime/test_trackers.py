"""Trackers: metrics.jsonl and TensorBoard, cut back when a run resumes."""

import errno
import json
import math
import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from flaxbert.runtime.trackers import Trackers, open_trackers


@pytest.mark.parametrize("damage", [b"null", b"[]", b'{"loss": 1}', b'{"step": 1, "l', b"\xff\xfe"])
def test_corrupt_line_is_removed_and_reported_with_its_number(tmp_path, caplog, damage):
    lines = [b'{"step": 1, "loss": 2.0}', damage, b'{"step": 2, "loss": 1.5}', b'{"step": 3, "lo']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    metrics = open_trackers(tmp_path, step=2)
    metrics.close()
    assert (metrics.first_loss, metrics.last_logged_step) == (2.0, 2)
    assert (tmp_path / "metrics.jsonl").read_bytes().splitlines() == [lines[0], lines[2]]
    assert len(caplog.records) == 1
    assert "metrics.jsonl:2: corrupt line removed" in caplog.text


def events(directory: Path) -> list[Event]:
    """Read TensorBoard files: each record is (length, checksum, event, checksum)."""
    result = []
    for file in sorted(directory.iterdir()):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            result.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return result


def test_tensorboard_has_every_metric_and_hides_repeated_steps(tmp_path):
    metrics = open_trackers(tmp_path, step=4)
    metrics.log(5, {"loss": 0.5, "epoch": 2.0})
    metrics.sync()
    version, start, line = events(tmp_path / "tensorboard")
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (5, SessionLog.START)
    assert line.step == 5
    assert {v.tag: v.simple_value for v in line.summary.value} == {"loss": 0.5, "epoch": 2.0}
    metrics.close()


STRICT = {"parse_constant": pytest.fail}
"""Arguments of json.loads, which otherwise accepts NaN and Infinity."""


def test_nonfinite_metrics_are_null_in_json_and_absent_from_tensorboard(tmp_path):
    metrics = open_trackers(tmp_path, step=0)
    metrics.log(1, {"loss": 0.5, "eval/f1": math.nan, "eval/perplexity": math.inf})
    metrics.close()
    (text,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(text, **STRICT) == {
        "step": 1,
        "loss": 0.5,
        "eval/f1": None,
        "eval/perplexity": None,
    }
    (line,) = [event for event in events(tmp_path / "tensorboard") if event.summary.value]
    assert [value.tag for value in line.summary.value] == ["loss"]


def test_first_loss_of_null_is_none(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": null}\n{"step": 2, "loss": 1}\n')
    metrics = open_trackers(tmp_path, step=2)
    metrics.close()
    assert (metrics.first_loss, metrics.last_logged_step) == (None, 2)


def test_tensorboard_raises_on_a_full_disk(tmp_path, monkeypatch):
    metrics = open_trackers(tmp_path, step=0)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RecordWriter, "write", full)
    with pytest.raises(OSError, match="No space left"):
        metrics.log(1, {"loss": 1.0})
    metrics.close()


class Recorder:
    """A tracker that records its calls, and can fail."""

    def __init__(self, *, failing: bool = False) -> None:
        self.calls, self._failing = [], failing

    def log(self, step, metrics):
        self.calls.append((step, dict(metrics)))

    def sync(self):
        self.calls.append("sync")

    def close(self):
        self.calls.append("close")
        if self._failing:
            raise OSError("cannot close")


def test_every_tracker_gets_every_call():
    recorders = [Recorder(), Recorder()]
    trackers = Trackers(recorders)
    trackers.log(3, {"loss": 0.5})
    trackers.sync()
    trackers.close()
    assert [recorder.calls for recorder in recorders] == [[(3, {"loss": 0.5}), "sync", "close"]] * 2


def test_every_tracker_is_closed_if_one_fails():
    recorders = [Recorder(failing=True), Recorder()]
    with pytest.raises(OSError, match="cannot close"):
        Trackers(recorders).close()
    assert recorders[1].calls == ["close"]


def test_inactive_host_writes_nothing(tmp_path):
    trackers = open_trackers(tmp_path, step=0, active=False)
    trackers.log(1, {"loss": 0.5})
    trackers.sync()
    trackers.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("evaluated", [True, False])
def test_unfinished_evaluation_is_cut_from_the_file(tmp_path, evaluated):
    lines = ['{"step": 2, "loss": 1.0}', '{"step": 2, "eval/f1": 0.5}', '{"step": 3, "loss": 0.9}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    open_trackers(tmp_path, step=2, evaluated=evaluated).close()
    kept = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert kept == lines[: 2 if evaluated else 1]
