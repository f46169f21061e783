"""The launcher for Cloud TPU VMs and slices, through the life of a run that is preempted."""

import os
import shlex
import tarfile
from pathlib import Path

import pytest
from fake_clouds import Clouds

AT = ["--name=bert", "--project=p", "--zone=z"]
RUN = ["launch/tpu_vm.sh", "run", *AT]
TRAIN = ["--", "--config=squad", "--workdir=gs://b/x"]


@pytest.fixture
def clouds(tmp_path: Path) -> Clouds:
    return Clouds(tmp_path)


def test_the_life_of_a_preempted_run(clouds: Clouds) -> None:
    clouds.write("codes", "preempted", "preempted", "0")
    done = clouds.run(*RUN, "--type=v6e-16", "--spot", *TRAIN)
    assert done.returncode == 0, done.stderr
    calls = clouds.calls()
    verbs = [call[4] for call in calls if call[0] == "gcloud"]
    train = ["scp", "ssh", "ssh"]
    assert verbs == ["create", *train, *(["delete", "create", *train] * 2)]
    create = next(call for call in calls if call[4] == "create")
    assert create[1:] == [
        *["compute", "tpus", "queued-resources", "create", "bert", "--project=p", "--zone=z"],
        *["--node-id=bert", "--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e"],
        "--spot",
    ]
    assert done.stderr.splitlines() == [
        "waiting: the request bert is WAITING_FOR_RESOURCES, the VM is absent",
        "waiting: the request bert is PROVISIONING, the VM is READY",
        "bert was preempted: resuming on a new VM",
        "bert is SUSPENDED, which means preempted, and counts toward the quota: deleting it and "
        "creating it again",
        *done.stderr.splitlines()[4:],
    ]
    assert done.stderr.splitlines()[-1].startswith("done. The VM costs money until it is deleted")
    deleted = clouds.run("launch/tpu_vm.sh", "delete", *AT)
    assert deleted.returncode == 0, deleted.stderr
    (call,) = clouds.calls()
    assert call[3:] == [
        *["queued-resources", "delete", "bert", "--project=p", "--zone=z", "--force", "--quiet"]
    ]
    assert not (clouds.state / "request").exists()


@pytest.mark.parametrize(
    ("request_states", "vm_states", "verbs"),
    [
        (["ACTIVE"], [], []),
        ([], ["READY"], []),
        (["ACCEPTED", "PROVISIONING", "ACTIVE"], [], []),
        (["FAILED"], [], ["delete", "create"]),
        (["SUSPENDING", "SUSPENDED"], [], ["delete", "create"]),
        (["ACTIVE"], ["PREEMPTED"], ["delete", "create"]),
        ([], ["TERMINATED"], ["delete", "create"]),
        ([], ["STOPPING", "STOPPED"], ["start"]),
    ],
)
def test_the_vm_becomes_ready_from_every_state(
    clouds: Clouds, request_states: list[str], vm_states: list[str], verbs: list[str]
) -> None:
    clouds.write("request", *request_states)
    clouds.write("vm", *vm_states)
    done = clouds.run(*RUN, *TRAIN)
    assert done.returncode == 0, done.stderr
    assert clouds.verbs() == [*verbs, "scp", "ssh", "ssh"]
    assert ("counts toward the quota" in done.stderr) == (
        request_states[-1:] in (["FAILED"], ["SUSPENDED"])
    )


def test_a_request_that_fails_is_deleted_and_not_repeated(clouds: Clouds) -> None:
    clouds.write("created", "FAILED")
    done = clouds.run(*RUN, *TRAIN)
    assert done.returncode == 2
    assert "error: the request bert FAILED, and was deleted. Check --type" in done.stderr
    assert clouds.verbs() == ["create", "delete"]


def test_a_state_that_is_not_known_is_left_alone(clouds: Clouds) -> None:
    clouds.write("request", "ACTIVE")
    clouds.write("vm", "HIDDEN")
    done = clouds.run(*RUN, *TRAIN)
    assert done.returncode == 2
    assert "error: the request bert is ACTIVE, and the VM is HIDDEN" in done.stderr
    assert clouds.verbs() == []


def test_a_refused_request_ends_the_launcher(clouds: Clouds) -> None:
    clouds.write("no-quota")
    done = clouds.run(*RUN, *TRAIN)
    assert done.returncode == 1
    assert "no quota" in done.stderr
    assert clouds.verbs() == ["create"]


def test_an_existing_vm_is_neither_created_nor_deleted(clouds: Clouds) -> None:
    clouds.write("vm", "READY")
    clouds.write("codes", "75", "143")
    done = clouds.run(*RUN, "--existing", *TRAIN)
    assert done.returncode == 143  # another run has replaced it
    assert "a signal stopped the training, and it has saved: resuming" in done.stderr
    assert clouds.verbs() == ["scp", "ssh", "ssh"] * 2
    for action in ("run", "delete"):
        clouds.write("vm", "STOPPED")
        done = clouds.run("launch/tpu_vm.sh", action, *AT, "--existing", *TRAIN)
        assert done.returncode == 2
        assert "error: --existing" in done.stderr
        assert clouds.verbs() == []


@pytest.mark.parametrize("code", ["1", "3", "255"])
def test_the_code_of_a_run_is_passed_on_if_the_vm_stays(clouds: Clouds, code: str) -> None:
    clouds.write("codes", code)
    done = clouds.run(*RUN, *TRAIN)
    assert done.returncode == int(code)
    assert clouds.verbs() == ["create", "scp", "ssh", "ssh"]
    assert ("and the VM is READY" in done.stderr) == (code != "3")


def test_stale_requests_are_listed_and_deleted(clouds: Clouds) -> None:
    clouds.write("stale", "old1", "old2")
    clouds.write("request", "FAILED")
    done = clouds.run("launch/tpu_vm.sh", "status", *AT)
    assert done.stdout.split() == ["FAILED", "old1", "old2"]
    (clouds.state / "stale").write_text("bert\n")
    clouds.calls()
    done = clouds.run("launch/tpu_vm.sh", "delete", "--stale", *AT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "deleting the request bert\n"
    assert clouds.verbs() == ["delete"]


@pytest.mark.parametrize("flags", [["--spot"], ["--type=v4-16"]])
def test_the_workdir_must_outlive_the_disks(clouds: Clouds, flags: list[str]) -> None:
    for train in (
        ["--workdir=runs/x"],
        ["--workdir", "runs/x"],
        ["--workdir=gs://b", "--config=c", "--workdir=runs/x"],
    ):
        done = clouds.run(*RUN, *flags, "--dry-run", "--", *train)
        assert done.returncode == 2
        assert "error: --workdir=runs/x is on the disk of one machine" in done.stderr
        assert "--workdir=gs://BUCKET/runs/bert" in done.stderr
    for workdir in ("~/bucket/x", "/mnt/share/x", "gs://b/x"):
        assert clouds.run(*RUN, *flags, "--dry-run", "--", f"--workdir={workdir}").returncode == 0


def test_the_hosts_install_train_and_return_log_and_code(clouds: Clouds, tmp_path: Path) -> None:
    """Run the two scripts of a host, with fakes of what they install and stop."""
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$LIBTPU_INIT_ARGS" "$@"\nexit 75\n')
    python.chmod(0o755)
    host = tmp_path / "host"
    host.mkdir()
    with tarfile.open(host / "flaxbert.tar.gz", "w:gz") as archive:
        archive.add(python, "flaxbert/.venv/bin/python")
    for name in ("pgrep", "pkill", "python3.11"):
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n[[ {name} != pgrep ]]\n")
        (tmp_path / "bin" / name).chmod(0o755)
    words = ["--config.data.train=a b's $x.tsv", "--workdir=~/x"]
    variables = {"LIBTPU_INIT_ARGS": "--one=1 --two", "JAX_PLATFORMS": "cpu"}
    done = clouds.run(*RUN, "--setup=touch mounted", "--", *words, **variables)
    assert done.returncode == 0, done.stderr
    start, follow = (call[-1] for call in clouds.calls() if call[4:5] == ["ssh"])
    lines = start.splitlines()
    assert lines.index("(touch mounted)") < lines.index("tar xzf flaxbert.tar.gz && cd flaxbert")
    clouds.checkout = host
    environment = dict.fromkeys(variables, "") | {"HOME": str(host)}
    started = clouds.run("bash", "-c", start.removeprefix("--command="), **environment)
    assert started.returncode == 0, started.stderr
    (make,) = clouds.calls()
    assert make[2:] == [
        ".venv/base-tpu,gcs,s3",
        "ACCELERATOR=tpu,gcs,s3",
        "PYTHON=python3.11",
    ]
    followed = clouds.run("bash", "-c", follow.removeprefix("--command="), **environment)
    assert followed.returncode == 75
    assert (host / "mounted").exists()
    assert followed.stdout.splitlines() == [
        *["--one=1 --two", "-m", "flaxbert.run", "--require=tpu", *words, "--distributed=auto"]
    ]
    assert "PLATFORMS" not in start
    assert os.environ["PATH"] not in start
    assert shlex.split(lines[lines.index("code=0") + 1])[0] == "env"
