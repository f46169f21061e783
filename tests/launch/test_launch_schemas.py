"""The manifests against the schemas of JobSet, Kubernetes, Compose and SkyPilot.

The schemas are in packages, which a slow test installs into an environment of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from fake_clouds import Clouds

PACKAGES = ["kubeflow-trainer-api==2.3.0", "skypilot==0.14.1", "jsonschema>=4"]
COMPOSE = "docker-compose==1.29.2"  # its own dependencies cannot be built any more

GKE = [
    ["--type=v5e:2x4"],
    ["--type=v6e:4x4", "--spot", "--queue=q", "--account=a", "--claim=c"],
    ["--type=h100:8", "--nodes=4", "--spot", "--claim=c"],
]
SKY = [
    ["--type=v6e:4x4", "--spot", "--infra=gcp/us-east5"],
    ["--type=h100:8", "--nodes=2"],
]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment with the packages; that of LAUNCH_SCHEMAS if it is set."""
    if ready := os.environ.get("LAUNCH_SCHEMAS"):
        return ready
    folder = tmp_path_factory.mktemp("schemas") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *PACKAGES], check=True)
    subprocess.run([*pip, "--no-deps", COMPOSE], check=True)
    return str(folder / "bin/python")


def check(
    python: str, kind: str, manifest: object, folder: Path
) -> subprocess.CompletedProcess[str]:
    file = folder / "manifest.json"
    file.write_text(json.dumps(manifest))
    script = Path(__file__).with_name("check_schemas.py")
    command = [python, str(script), kind, str(file)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def manifests(launcher: str, flags: list[str], folder: Path) -> dict:
    command = [f"launch/{launcher}.sh", "run", "--name=bert", "--dry-run", *flags]
    shown = Clouds(folder).run(*command, "--", "--workdir=gs://b/x")
    assert shown.returncode == 0, shown.stderr
    return yaml.safe_load(shown.stdout.partition("<<'END'\n")[2].partition("\nEND\n")[0])


@pytest.mark.slow  # installs SkyPilot, with the network
@pytest.mark.parametrize("flags", GKE)
def test_jobsets_fit_the_schema(python: str, flags: list[str], tmp_path: Path) -> None:
    jobset = manifests("gke", ["--image=i", *flags], tmp_path)
    done = check(python, "jobset", jobset, tmp_path)
    assert done.returncode == 0, done.stderr
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    job["template"]["spec"]["containers"][0]["argz"] = ["x"]
    assert check(python, "jobset", jobset, tmp_path).returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("flags", SKY)
def test_tasks_of_skypilot_fit_the_schema(python: str, flags: list[str], tmp_path: Path) -> None:
    task = manifests("sky", flags, tmp_path)
    done = check(python, "sky", task, tmp_path)
    assert done.returncode == 0, done.stderr
    task["accelerators"] = "H100:8"
    assert check(python, "sky", task, tmp_path).returncode != 0


@pytest.mark.slow
def test_the_compose_file_fits_the_schema(python: str, tmp_path: Path) -> None:
    compose = yaml.safe_load((ROOT / "launch/compose.yaml").read_text())
    del compose["name"]  # newer than this schema
    done = check(python, "compose", compose, tmp_path)
    assert done.returncode == 0, done.stderr
    compose["services"]["train"]["gpu"] = "all"
    assert check(python, "compose", compose, tmp_path).returncode != 0
