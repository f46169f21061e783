"""The script that trains on a TPU VM, run with a gcloud that only records its calls."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

# `describe` prints one state after another; when none is left, there is no VM.
GCLOUD = """#!/usr/bin/env bash
printf '%s\\x1f' "$@" >> "$FAKE/calls"
printf '\\x1e' >> "$FAKE/calls"
case $4 in
  describe)
    state=$(head -n 1 "$FAKE/states")
    sed -i 1d "$FAKE/states"
    [[ $state && $state != absent ]] || exit 1
    echo "$state" ;;
  create) [[ ! -e $FAKE/no-capacity ]] || { echo "no capacity" >&2; exit 3; } ;;
  ssh) exit "$(cat "$FAKE/code")" ;;
esac
"""


class Launch:
    def __init__(self, directory: Path):
        self.directory = directory
        for name, text in (("gcloud", GCLOUD), ("git", "#!/usr/bin/env bash\n")):
            (directory / name).write_text(text)
            (directory / name).chmod(0o755)
        (directory / "code").write_text("0")

    def __call__(
        self, states: list[str], *arguments: str, **settings: str
    ) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
        """Run the script, and return how it ended and the calls of gcloud."""
        (self.directory / "states").write_text("".join(f"{state}\n" for state in states))
        environment = os.environ | {
            "PATH": f"{self.directory}:{os.environ['PATH']}",
            "FAKE": str(self.directory),
            **{"PROJECT": "p", "ZONE": "z", "NAME": "bert", "POLL_SECONDS": "0"},
            **settings,
        }
        ended = subprocess.run(
            [str(ROOT / "launch" / "tpu_vm.sh"), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        calls = self.directory / "calls"
        text = calls.read_text() if calls.exists() else ""
        return ended, [call.split("\x1f")[3:-1] for call in text.split("\x1e")[:-1]]


@pytest.fixture
def launch(tmp_path) -> Launch:
    return Launch(tmp_path)


@pytest.mark.parametrize(
    ("states", "verbs"),
    [
        (["READY"], []),
        (["absent", "READY"], ["create"]),
        (["PREEMPTED", "READY"], ["delete", "create"]),
        (["TERMINATED", "READY"], ["delete", "create"]),
        (["CREATING", "CREATING", "READY"], []),
        (["STOPPING", "STOPPED", "READY"], ["start"]),
        (["DELETING", "absent", "READY"], ["create"]),
    ],
)
def test_the_vm_becomes_ready_from_every_state(launch, states, verbs):
    ended, calls = launch(states, "--config=c.py", "--workdir=runs/x")
    assert ended.returncode == 0, ended.stderr
    done = [call[0] for call in calls]
    assert [verb for verb in done if verb != "describe"] == [*verbs, "scp", "ssh"]
    assert done.count("describe") == len(states)
    for call in calls:
        if call[0] in ("create", "delete", "start", "describe"):
            assert call[1:4] == ["bert", "--project=p", "--zone=z"]


def test_a_vm_in_an_unknown_state_is_not_changed(launch):
    ended, calls = launch(["HIDDEN"], "--workdir=runs/x")
    assert ended.returncode == 2
    assert "error: bert is in state HIDDEN" in ended.stderr
    assert [call[0] for call in calls] == ["describe"]


def test_the_script_fails_if_the_vm_cannot_be_created(launch, tmp_path):
    (tmp_path / "no-capacity").touch()
    ended, calls = launch(["PREEMPTED", "absent", "absent"], "--workdir=runs/x")
    assert ended.returncode == 3
    assert "no capacity" in ended.stderr
    assert [call[0] for call in calls] == ["describe", "delete", "create"]


@pytest.mark.parametrize("flags", [["--workdir=runs/x"], ["--workdir", "runs/x"]])
def test_the_workdir_of_a_spot_vm_must_not_be_on_its_disk(launch, flags):
    ended, calls = launch(["READY"], *flags, SPOT="1")
    assert ended.returncode == 2
    assert "error: --workdir=runs/x is on the disk of a spot VM" in ended.stderr
    assert "mounted bucket" in ended.stderr
    assert not calls
    ended, calls = launch(["READY"], "--config=squad", SPOT="1")
    assert "error: --workdir=runs/NAME is on the disk of a spot VM" in ended.stderr
    for workdir in ("~/bucket/x", "/mnt/bucket/x"):
        ended, calls = launch(["absent", "READY"], f"--workdir={workdir}", SPOT="1")
        assert ended.returncode == 0, ended.stderr
        assert "--spot" in next(call for call in calls if call[0] == "create")


@pytest.mark.parametrize("value", ["", "0", "no", "false"])
def test_spot_can_be_switched_off(launch, value):
    ended, calls = launch(["absent", "READY"], "--workdir=runs/x", SPOT=value)
    assert ended.returncode == 0, ended.stderr
    assert "--spot" not in next(call for call in calls if call[0] == "create")


def test_arguments_and_exit_code_are_passed_through(launch, tmp_path):
    (tmp_path / "code").write_text("75")
    ended, calls = launch(
        ["READY"], "--config.data.train=a b's.tsv", "--workdir=~/x", SETUP="mount the bucket"
    )
    assert ended.returncode == 75
    command = next(argument for argument in calls[-1] if argument.startswith("--command="))
    lines = [line.strip() for line in command.splitlines()]
    words = shlex.split(next(line for line in lines if "-m flaxbert.run" in line))
    assert words[words.index("flaxbert.run") + 1 :] == [
        "--require=tpu",
        "--config.data.train=a b's.tsv",
        "--workdir=~/x",
        "--distributed=auto",
    ]
    assert lines.index("(mount the bucket)") < lines.index("tar xzf flaxbert.tar.gz && cd flaxbert")
    assert not any(call[0] == "create" for call in calls)
