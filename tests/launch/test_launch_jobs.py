"""The launchers for GKE, SLURM, Docker and SkyPilot, through the life of a preempted run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from fake_clouds import Clouds
from jax._src import clusters  # what --distributed=auto finds has no public name
from jax._src.clusters import cloud_tpu_cluster

from flaxbert.runtime import multihost

TRAIN = ["--", "--config=squad", "--workdir=gs://b/x"]


@pytest.fixture
def clouds(tmp_path: Path) -> Clouds:
    return Clouds(tmp_path)


def detect(local_devices: list[int] | None = None) -> tuple[object, ...]:
    """(address, processes, this one, its devices) that JAX finds in the environment."""
    return clusters.ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, local_devices, None, 1
    )


# --- GKE -----------------------------------------------------------------------------------------

GKE = ["launch/gke.sh", "run", "--name=bert", "--image=img"]


def manifest(clouds: Clouds, *flags: str) -> dict:
    shown = clouds.run(*GKE, *flags, "--dry-run", *TRAIN)
    assert shown.returncode == 0, shown.stderr
    return yaml.safe_load(shown.stdout.partition("<<'END'\n")[2].partition("\nEND\n")[0])


def pod(jobset: dict) -> dict:
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_the_life_of_a_preempted_jobset(clouds: Clouds) -> None:
    clouds.write(
        "timeline",
        "|",
        "|bert-0-a Pending  0/4 nodes are available: 4 Insufficient google.com/tpu.",
        "|bert-0-a Pending  0/4 nodes are available: 4 Insufficient google.com/tpu.",
        "|bert-0-a Running",
        "|bert-0-a Failed",
        "|bert-0-b Pending ContainerCreating",
        "|bert-0-b Running",
        "|bert-0-b Running",
        "Completed|bert-0-b Succeeded",
    )
    done = clouds.run(*GKE, "--type=v6e:4x4", "--spot", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["log of bert-0-a", *["log of bert-0-b"] * 2]
    assert done.stderr.splitlines() == [
        "waiting: no pod yet: insufficient quota for google.com/tpu",
        "waiting: bert-0-a is Pending: 0/4 nodes are available: 4 Insufficient google.com/tpu.",
        "waiting: bert-0-b is Pending: ContainerCreating",
    ]
    calls = clouds.calls()
    assert [call[1] for call in calls] == ["delete", "apply", "logs", "logs", "logs"]
    tails = [word for call in calls for word in call if word.startswith("--tail")]
    assert tails == ["--tail=-1", "--tail=-1", "--tail=0"]
    assert yaml.safe_load(clouds.read("jobset"))["metadata"]["name"] == "bert"
    assert clouds.run("launch/gke.sh", "delete", "--name=bert", "--context=c").returncode == 0
    assert not (clouds.state / "jobset").exists()
    assert clouds.calls()[0][2:4] == ["--namespace=default", "--context=c"]


def test_a_failed_jobset_and_an_absent_one_are_reported(clouds: Clouds) -> None:
    clouds.write("timeline", "Failed|")
    done = clouds.run(*GKE, *TRAIN)
    assert done.returncode == 1
    assert "the JobSet bert failed: no luck" in done.stderr
    clouds.run("launch/gke.sh", "delete", "--name=bert")
    done = clouds.run("launch/gke.sh", "logs", "--name=bert")
    assert done.returncode == 2
    assert "error: there is no JobSet bert in the namespace default" in done.stderr


def test_a_slice_of_tpus_is_a_jobset_of_its_hosts(
    clouds: Clouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobset = manifest(clouds, "--type=v6e-16", "--spot", "--queue=q", "--account=a", "--claim=c")
    assert jobset["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "q"}
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])  # JobSet's rule
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (4, 4, 0)
    assert pod(jobset)["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    }
    (container,) = pod(jobset)["containers"]
    assert container["resources"] == {"limits": {"google.com/tpu": 4}}
    assert container["args"][0] == "--require=tpu"
    assert container["args"][-1] == "--distributed=auto"
    # What GKE sets in such pods is what JAX looks for.
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost,bert-slice-0-1.bert")
    monkeypatch.setenv("TPU_WORKER_ID", "1")
    for name in ("MEGASCALE_COORDINATOR_ADDRESS", "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"):
        monkeypatch.setenv(name, "")
    assert detect()[:3] == ("localhost:8482", 2, 1)


def test_one_host_needs_no_other(clouds: Clouds) -> None:
    for slice_, accelerator in (("v5e:2x4", "tpu"), ("h100:8", "gpu")):
        jobset = manifest(clouds, f"--type={slice_}")
        assert pod(jobset)["containers"][0]["args"] == [f"--require={accelerator}", *TRAIN[1:]]
        assert "annotations" not in jobset["metadata"]


def test_gpu_nodes_find_the_first_one(clouds: Clouds) -> None:
    jobset = manifest(clouds, "--type=h100:8", "--nodes=2")
    assert pod(jobset)["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
    (container,) = pod(jobset)["containers"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    address, count, index = container["args"][-1].removeprefix("--distributed=").split(",")
    # JobSet calls pods JOBSET-REPLICATEDJOB-NUMBER-INDEX.JOBSET.
    assert address == "bert-slice-0-0.bert:1234"
    assert (count, index) == ("2", "$(JOB_COMPLETION_INDEX)")


def test_arguments_reach_the_container_as_they_are(clouds: Clouds) -> None:
    value = """--config.x=a "b" \\ 'c' $(D) e$$f é: #"""
    shown = clouds.run(*GKE, "--dry-run", *TRAIN, value)
    text = shown.stdout.partition("<<'END'\n")[2].partition("\nEND\n")[0]
    assert pod(yaml.safe_load(text))["containers"][0]["args"][-1] == value.replace("$", "$$")


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--", "--workdir=runs/x"], "--workdir=runs/x is lost with the pod"),
        (["--", "--workdir=/claim/x"], "--workdir=/claim/x: give --claim=CLAIM"),
        (["--nodes=2", *TRAIN], "--nodes=2: v5e:2x4 has 1. Choose a larger slice"),
    ],
)
def test_wrong_flags_of_gke_are_reported(clouds: Clouds, flags: list[str], error: str) -> None:
    done = clouds.run(*GKE, *flags)
    assert done.returncode == 2
    assert f"error: {error}" in done.stderr
    assert clouds.calls() == []


# --- SLURM ---------------------------------------------------------------------------------------

SLURM = ["launch/slurm.sh", "run", "--name=bert", "--nodes=2", "--gpus=4"]


def test_the_life_of_a_preempted_job(clouds: Clouds) -> None:
    clouds.write(
        "timeline",
        "JobId=42 JobState=PENDING Reason=Resources ExitCode=0:0",
        "JobId=42 JobState=RUNNING Reason=None NodeList=gpu[1-2] ExitCode=0:0",
        "JobId=42 JobState=PENDING Reason=BeginTime ExitCode=0:0",
        "JobId=42 JobState=RUNNING Reason=None NodeList=gpu[3-4] ExitCode=0:0",
        "JobId=42 JobState=COMPLETED Reason=None ExitCode=0:0",
    )
    done = clouds.run(*SLURM, "--partition=gpu", "--options=--mem=0 --qos=x", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "submitted the job 42",
        "the job 42 is PENDING: Resources",
        "the job 42 is RUNNING on gpu[1-2]",
        "the job 42 is PENDING: BeginTime",
        "the job 42 is RUNNING on gpu[3-4]",
    ]
    calls = clouds.calls()
    assert [call[0] for call in calls] == ["make", "scancel", "sbatch"]
    # The script of the job: stopped by a signal, it queues itself again; then it finishes.
    clouds.write("codes", "75", "0")
    script = clouds.read("job")
    assert "#SBATCH --mem=0 --qos=x\n" in script
    for code, queued in ((75, [["scontrol", "requeue", "42"]]), (0, [])):
        assert clouds.run("bash", "-c", script, SLURM_JOB_ID="42").returncode == code
        srun, *others = clouds.calls()
        assert others == queued
    assert srun[0] == "srun"
    assert srun[-5:] == ["flaxbert.run", "--require=gpu", *TRAIN[1:], "--distributed=auto"]
    assert clouds.run("launch/slurm.sh", "delete", "--name=bert").returncode == 0
    assert clouds.verbs() == ["scancel"]
    assert clouds.run("launch/slurm.sh", "logs", "--name=bert").returncode == 2


@pytest.mark.parametrize(
    ("line", "code"), [("FAILED ExitCode=3:0", 3), ("TIMEOUT ExitCode=0:15", 1)]
)
def test_a_failed_job_ends_with_its_code(clouds: Clouds, line: str, code: int) -> None:
    clouds.write("timeline", f"JobState={line}")
    done = clouds.run(*SLURM, *TRAIN)
    assert done.returncode == code
    assert "the job 42 is" in done.stderr


@pytest.mark.parametrize(("unit", "tasks"), [("host", 1), ("gpu", 4)])
def test_jax_finds_the_processes_of_a_job_and_their_gpus(
    clouds: Clouds, unit: str, tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clouds.write("timeline", "JobState=COMPLETED ExitCode=0:0")
    assert clouds.run(*SLURM, f"--process-per={unit}", *TRAIN).returncode == 0
    script = clouds.read("job")
    assert f"#SBATCH --ntasks-per-node={tasks}\n" in script
    clouds.run("bash", "-c", script)
    devices = [int(number) for number in clouds.read("devices").split(",") if number.strip()]
    last = {"SLURM_PROCID": 2 * tasks - 1, "SLURM_NTASKS": 2 * tasks, "SLURM_LOCALID": tasks - 1}
    for name, value in (last | {"SLURM_JOB_ID": 42, "SLURM_STEP_NODELIST": "gpu[1-2]"}).items():
        monkeypatch.setenv(name, str(value))
    address, count, index, used = detect(devices or None)
    assert str(address).startswith("gpu1:")
    assert (count, index) == (2 * tasks, 2 * tasks - 1)
    assert used == ([0, 1, 2, 3] if unit == "host" else [3])


PROCESS = f"""#!{sys.executable}
import sys
import jax
from flaxbert.runtime import multihost

multihost.start(sys.argv[-1].partition("=")[2])
print(multihost.this_host().split()[1], *multihost.all_gather(sys.argv[-2]), flush=True)
jax.distributed.shutdown()
"""

SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_NODELIST=localhost SLURM_NTASKS=3
for number in 0 1 2; do SLURM_PROCID=$number SLURM_LOCALID=$number "$@" & done
wait
"""


@pytest.mark.slow  # starts three processes of JAX
@pytest.mark.parametrize("unit", ["host", "gpu"])
def test_the_processes_of_a_job_start_together(clouds: Clouds, unit: str, tmp_path: Path) -> None:
    clouds.write("timeline", "JobState=COMPLETED")
    assert clouds.run(*SLURM, f"--process-per={unit}", *TRAIN).returncode == 0
    python = clouds.checkout / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    for file, text in ((python, PROCESS), (tmp_path / "bin/srun", SRUN)):
        file.write_text(text)
        file.chmod(0o755)
    number = str(os.getpid())  # JAX derives the port from it
    variables = {"SLURM_JOB_ID": number, "PYTHONPATH": str(ROOT)}
    done = clouds.run("bash", "-c", clouds.read("job"), **variables)
    assert done.returncode == 0, done.stderr
    workdirs = [TRAIN[-1]] * 3
    assert sorted(done.stdout.splitlines()) == [" ".join([host, *workdirs]) for host in "012"]


# --- Docker --------------------------------------------------------------------------------------


def test_the_life_of_a_stopped_container(clouds: Clouds) -> None:
    run = ["launch/docker.sh", "run", "--name=bert", "--", "--config=squad", "--workdir=runs/x"]
    clouds.write("codes", "75", "0")
    done = clouds.run(*run)
    assert (done.returncode, done.stdout) == (75, "step 1\n")
    assert clouds.verbs() == ["compose", "logs", "wait"]
    done = clouds.run(*run)  # resumes
    assert done.returncode == 0, done.stderr
    compose = next(call for call in clouds.calls() if call[1] == "compose")
    assert compose[-4:] == ["train", "--require=gpu", "--config=squad", "--workdir=runs/x"]
    assert clouds.run("launch/docker.sh", "delete", "--name=bert").returncode == 0
    assert clouds.verbs() == ["stop", "rm"]
    done = clouds.run(*run[:-1], "--workdir=/mnt/x")
    assert "error: --workdir=/mnt/x is not in the container" in done.stderr


# --- SkyPilot ------------------------------------------------------------------------------------

SKY = ["launch/sky.sh", "run", "--name=bert"]


def task(clouds: Clouds) -> dict:
    return yaml.safe_load((clouds.checkout / "runs/bert.sky.yaml").read_text())


def test_the_life_of_a_managed_job(clouds: Clouds) -> None:
    done = clouds.run(*SKY, "--type=v5litepod-8", "--spot", "--infra=gcp/us-west4", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert clouds.verbs() == ["cancel", "launch", "logs"]
    resources = task(clouds)["resources"]
    assert resources == {
        "accelerators": "tpu-v5litepod-8",
        "accelerator_args": {"tpu_vm": True, "runtime_version": "v2-alpha-tpuv5-lite"},
        "infra": "gcp/us-west4",
        "use_spot": True,
        "job_recovery": {"recover_on_exit_codes": [75]},  # SkyPilot restarts it if preempted
    }
    clouds.write("codes", "100")
    assert clouds.run(*SKY, *TRAIN).returncode == 100  # cancels the old job first
    assert clouds.verbs() == ["cancel", "launch", "logs"]
    assert clouds.run("launch/sky.sh", "delete", "--name=bert").returncode == 0
    assert not (clouds.state / "job").exists()
    done = clouds.run(*SKY, "--", "--workdir=runs/x")
    assert "error: --workdir=runs/x is on the disk of one machine" in done.stderr


@pytest.mark.parametrize(
    ("flags", "distributed"),
    [
        (["--type=h100:8", "--nodes=2"], ["--distributed=10.0.0.1:1234,2,1"]),
        (["--type=h100:8"], []),
        (["--type=v6e:4x4"], ["--distributed=auto"]),
    ],
)
def test_the_nodes_of_a_task_find_each_other(
    clouds: Clouds, flags: list[str], distributed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    value = """--config.x=a 'b' "c" $d"""
    assert clouds.run(*SKY, *flags, *TRAIN, value).returncode == 0
    python = clouds.checkout / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/bash\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    node = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2",
            "SKYPILOT_NODE_RANK": "1"}  # fmt: skip
    words = clouds.run("bash", "-c", task(clouds)["run"], **node).stdout.splitlines()
    assert words[3:] == [*TRAIN[1:], value, *distributed]
    if distributed and "auto" not in distributed[0]:
        started = []
        monkeypatch.setattr("jax.distributed.initialize", lambda *call: started.append(call))
        multihost.start(distributed[0].partition("=")[2])
        assert started == [("10.0.0.1:1234", 2, 1)]


# --- the words of json ---------------------------------------------------------------------------


def test_words_become_json(clouds: Clouds) -> None:
    words = ["a b", 'c"d', "e\\f", 'g\\"h', "é"]
    script = 'source launch/common.sh; json "$@"'
    shown = clouds.run("bash", "-c", script, "launch/x.sh", *words)
    assert json.loads(shown.stdout) == words
    script = 'source launch/common.sh; quoted "$@"'
    shown = clouds.run(
        "bash", "-c", script, "launch/x.sh", "printf", "%s|", *words, "it's", "$x", ""
    )
    again = subprocess.run(["bash", "-c", shown.stdout], capture_output=True, text=True)
    assert again.stdout.split("|")[:-1] == [*words, "it's", "$x", ""]
