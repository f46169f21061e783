"""Two processes, as two hosts of a slice, train one model with the results of one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, write_checkpoint
from safetensors.numpy import load_file
from toy import make_config

pytestmark = pytest.mark.slow  # several processes, each of which starts JAX and compiles

TIMEOUT = 240  # seconds; a process that waits for a dead one must not block the suite


def start(arguments: list[str], log: Path, *, devices: int) -> subprocess.Popen:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    command = [sys.executable, *arguments]
    with log.open("w") as out:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT
        )


def finish(processes: dict[Path, subprocess.Popen]) -> None:
    try:
        codes = {log: process.wait(TIMEOUT) for log, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    failed = "\n".join(log.read_text()[-3000:] for log, code in codes.items() if code)
    assert not failed, failed


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path, list[str]]:
    """The workdirs of the same run by one process and by two, and the logs of the two."""
    directory = tmp_path_factory.mktemp("multihost")
    checkpoint = write_checkpoint(directory / "checkpoint", num_hidden_layers=1)
    data = make_config("classification", checkpoint, directory, count=64).data
    file = directory / "config.py"
    file.write_text(
        "from flaxbert import Config\n"
        "from flaxbert.tasks.classification import ClassificationOptions\n\n"
        "def get_config():\n"
        "    return Config(task='classification', options=ClassificationOptions())\n"
    )
    flags = [
        *("-m", "flaxbert.run"),
        f"--config={file}",
        f"--config.model.init={checkpoint}",
        f"--config.data.train={data.train}",
        f"--config.data.eval={data.eval}",
        "--config.data.max_length=32",
        "--config.train.batch_size=16",
        "--config.train.max_steps=4",
        "--config.train.save_every=2",
        "--config.train.log_every=1",
        "--config.train.keep_best=accuracy",
        "--config.optim.learning_rate=1e-3",
    ]
    one, two = directory / "one", directory / "two"
    # One run after the other, because there are two cores. Each has two devices.
    alone = directory / "one.log"
    finish({alone: start([*flags, f"--workdir={one}"], alone, devices=2)})
    spec = f"127.0.0.1:{free_port()},2"
    logs = [directory / f"two-{index}.log" for index in range(2)]
    both = [*flags, f"--workdir={two}"]
    finish(
        {
            log: start([*both, f"--distributed={spec},{index}"], log, devices=1)
            for index, log in enumerate(logs)
        }
    )
    # Two hosts of two devices each share one copy of the parameters, and evaluate it.
    shared = [*flags, f"--workdir={directory / 'shared'}", "--config.train.fsdp=-1"]
    for mode in ("train", "eval"):
        spec = f"127.0.0.1:{free_port()},2"
        finish(
            {
                directory / f"shared-{mode}-{index}.log": start(
                    [*shared, f"--mode={mode}", f"--distributed={spec},{index}"],
                    directory / f"shared-{mode}-{index}.log",
                    devices=2,
                )
                for index in range(2)
            }
        )
    # Another run starts on two hosts and continues on one, with two devices and then with one.
    spec = f"127.0.0.1:{free_port()},2"
    # It is evaluated at the end of each part, so its best weights would differ.
    alone = [*flags, f"--workdir={directory / 'fewer'}", "--config.train.keep_best=none"]
    finish(
        {
            directory / f"fewer-{index}.log": start(
                [*alone, "--config.train.max_steps=2", f"--distributed={spec},{index}"],
                directory / f"fewer-{index}.log",
                devices=1,
            )
            for index in range(2)
        }
    )
    for steps, devices in ((3, 2), (4, 1)):
        log = directory / f"fewer-{steps}.log"
        finish({log: start([*alone, f"--config.train.max_steps={steps}"], log, devices=devices)})
        assert (
            f"resuming {directory / 'fewer'} after step {steps - 1} of {steps}" in log.read_text()
        )
    return one, two, [log.read_text() for log in logs]


def reproducible(metrics: dict) -> dict:
    return {name: value for name, value in metrics.items() if not name.startswith("perf/")}


def test_two_processes_have_the_results_of_one(runs):
    one, two, (first, _) = runs
    assert "compiled for 2 cpu device(s)" in first  # they trained one model
    results = [json.loads((workdir / "results.json").read_text()) for workdir in (one, two)]
    expected, actual = map(reproducible, results)
    assert actual == pytest.approx(expected, rel=1e-5)
    assert actual["step"] == 4


def test_two_processes_that_share_parameters_have_the_results_of_one(runs):
    one, two, _ = runs
    shared = two.parent / "shared"
    expected, actual = (
        reproducible(json.loads((workdir / "results.json").read_text()))
        for workdir in (one, shared)
    )
    assert actual["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert actual["accuracy"] == expected["accuracy"]
    theirs = load_file(one / "export" / "model.safetensors")
    ours = load_file(shared / "export" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, atol=1e-5)
    assert "4 share each copy" in (two.parent / "shared-train-0.log").read_text()
    assert (shared / "eval_results.json").exists()


def test_run_of_two_processes_resumes_in_one(runs):
    one, two, _ = runs
    fewer = two.parent / "fewer"
    expected, actual = (
        reproducible(json.loads((workdir / "results.json").read_text())) for workdir in (one, fewer)
    )
    assert actual["step"] == expected["step"] == 4
    assert actual["loss"] == pytest.approx(expected["loss"], rel=1e-4)


def test_only_the_lead_host_writes_and_logs(runs):
    one, two, (first, second) = runs
    names = [sorted(path.name for path in d.iterdir()) for d in (one, two)]
    assert names[0] == names[1]
    # A second writer would duplicate the lines.
    metrics = [(d / "metrics.jsonl").read_text().splitlines() for d in (one, two)]
    steps = [[json.loads(line)["step"] for line in lines] for lines in metrics]
    assert steps[0] == steps[1] == [1, 2, 3, 4, 4]
    assert len(list((two / "tensorboard").iterdir())) == 1
    assert "results.json" in first
    assert "results.json" not in second


# A slice's mesh follows the wiring of its chips, so a host's devices need not be adjacent.
INTERLEAVED = """
import sys
import jax, numpy as np
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from flaxbert.runtime import sharding
a, b, c, d = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
mesh = sharding.make_mesh([a, c, d, b])
local = {"x": np.array(sharding.local_rows(8, mesh), np.int32)[:, None]}
x = sharding.make_global_batch(local, 8, mesh)["x"]
for shard in x.addressable_shards:
    first = shard.index[0].start
    assert np.asarray(shard.data)[:, 0].tolist() == [first, first + 1], shard
print("right rows on", sorted(shard.index[0].start for shard in x.addressable_shards))
"""


def test_devices_get_their_rows_in_any_order_of_hosts(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    logs = [tmp_path / f"{index}.log" for index in range(2)]
    finish(
        {
            log: start(["-c", INTERLEAVED, address, str(index)], log, devices=2)
            for index, log in enumerate(logs)
        }
    )
    assert "right rows on [0, 6]" in logs[0].read_text()
    assert "right rows on [2, 4]" in logs[1].read_text()
