"""What the launchers share: help, flags, names of accelerators, dry runs."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT
from fake_clouds import Clouds

LAUNCHERS = {
    "tpu_vm": ["--project=p", "--zone=z", "--type=v5e:4x4"],
    "gke": ["--image=i", "--type=v5e:4x4", "--build"],
    "slurm": ["--nodes=2", "--setup=true"],
    "docker": [],
    "sky": ["--type=v5e:4x4"],
}
"""Flags of each launcher that do most."""

TRAIN = ["--", "--config=squad", '--config.data.train=a b\'s $(x) "y".tsv']


@pytest.fixture
def clouds(tmp_path: Path) -> Clouds:
    return Clouds(tmp_path)


def test_every_launcher_is_tested() -> None:
    files = {file.stem for file in (ROOT / "launch").glob("*.sh")}
    assert files == {*LAUNCHERS, "common"}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_dry_run_calls_nothing_and_prints_what_a_run_does(name: str, clouds: Clouds) -> None:
    clouds.write("timeline", "JobState=COMPLETED" if name == "slurm" else "Completed|")
    workdir = "--workdir=runs/x" if name == "docker" else "--workdir=gs://b/x"
    script = [f"launch/{name}.sh", "run", "--name=bert", *LAUNCHERS[name]]
    shown = clouds.run(*script, "--dry-run", *TRAIN, workdir)
    assert shown.returncode == 0, shown.stderr
    assert [call for call in clouds.calls() if call[0] != "git"] == []
    done = clouds.run(*script, *TRAIN, workdir)
    assert done.returncode == 0, done.stderr
    real = clouds.calls()
    for state in ("request", "jobset", "job", "container"):
        (clouds.state / state).unlink(missing_ok=True)
    if name == "docker":
        (clouds.state / "container").touch()  # the dry run shows what is done if there is one
    again = clouds.run("bash", "-c", shown.stdout)
    assert "command not found" not in again.stderr
    different = ("logs", "stop", "rm")  # they depend on what there is
    assert [call for call in clouds.calls() if call[1] not in different] == [
        call for call in real if call[1] not in different
    ]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_help_lists_the_flags_and_needs_nothing(name: str, clouds: Clouds) -> None:
    done = clouds.run(f"launch/{name}.sh", "run", "--name=x", "--help")
    assert done.returncode == 0, done.stderr
    for text in (f"launch/{name}.sh run", "actions:", "  logs ", "  status ", "  delete ",
                 "  --name=NAME", "  --dry-run", "resumes", "--config=squad"):  # fmt: skip
        assert text in done.stdout, text
    assert "#" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert done.stdout == clouds.run(f"launch/{name}.sh").stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["fly"], "fly: unknown action; expected run, logs, status or delete"),
        (["run", "--nmae=x"], "--nmae=x: unknown flag; see slurm.sh --help"),
        (["run", "--name=x", "--config=squad"], "Flags of flaxbert follow after --"),
        (["run", "--name", "x"], "--name needs a value: --name=VALUE"),
        (["run", "--nodes=2", *TRAIN], "--name is missing"),
        (["run", "--name=Bert_1", *TRAIN], "--name=Bert_1: use at most 40 lowercase letters"),
        (["run", "--name=x"], "the flags of flaxbert are missing. Give them after --"),
        (["run", "--name=x", *TRAIN, "--dry-run"], "--dry-run is a flag of the launcher"),
        (["run", "--name=x", "--process-per=node", *TRAIN], "--process-per=node: expected host or"),
    ],
)
def test_wrong_arguments_are_reported(arguments: list[str], error: str, clouds: Clouds) -> None:
    done = clouds.run("launch/slurm.sh", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert error in done.stderr
    assert clouds.calls() == []


# --- names of accelerators -----------------------------------------------------------------------

ROWS = [
    dict(zip("slice chips hosts type runtime gke machine sky".split(), line.split(), strict=True))
    for line in (ROOT / "launch/accelerators.txt").read_text().splitlines()
    if not line.startswith("#")
]
TPUS = [row for row in ROWS if "x" in row["slice"]]


def test_the_names_of_a_slice_fit_its_topology() -> None:
    for row in TPUS:
        chip, _, topology = row["slice"].partition(":")
        sides = [int(side) for side in topology.split("x")]
        chips, hosts = int(row["chips"]), int(row["hosts"])
        assert chips == eval("*".join(map(str, sides))), row
        cores = 1 if chip in ("v5e", "v6e") else 2
        assert row["type"].endswith(f"-{chips * cores}"), row
        assert row["sky"] in ("-", f"tpu-{row['type']}"), row
        per_host, rest = divmod(chips, hosts)
        assert rest == 0, row
        assert per_host in (1, 4, 8), row
        assert row["machine"] == "-" or row["machine"].endswith(f"-{per_host}t"), row
    for row in ROWS[len(TPUS) :]:
        assert row["slice"].endswith(f":{row['chips']}"), row
        assert row["sky"].lower() == row["slice"], row
    names = [row[key] for row in ROWS for key in ("slice", "type", "sky") if row[key] != "-"]
    assert len(names) == len(set(names))


def test_every_name_of_a_slice_is_found(clouds: Clouds) -> None:
    script = """
        source launch/common.sh
        for name in "$@"; do look_up "$name"; echo "$slice"; done
    """
    names = {
        "v6e-1": "v6e:1x1", "v6e:1x1": "v6e:1x1", "tpu-v6e-8": "v6e:2x4", "v5e-8": "v5e:2x4",
        "v5litepod-16": "v5e:4x4", "v5lite-16": "v5e:4x4", "V5P-8": "v5p:2x2x1",
        "v4-32": "v4:2x2x4", "tpu7x:2x2x1": "tpu7x:2x2x1", "H100:8": "h100:8",
        "A100-80GB:8": "a100-80gb:8", "a100:8": "a100:8",
    }  # fmt: skip
    done = clouds.run("bash", "-c", script, "launch/x.sh", *names)
    assert done.stdout.split() == list(names.values()), done.stderr


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("v6e-3", "v6e:1x1 (v6e-1), v6e:2x2 (v6e-4), v6e:2x4 (v6e-8)"),
        ("v5e-3", "v5e:1x1 (v5litepod-1)"),
        ("h100:3", "expected one of h100:8 (H100:8)."),
        ("tpu", "expected one of v2, v3, v4, v5e, v5p, v6e, tpu7x, l4, a100, a100-80gb, h100"),
    ],
)
def test_an_unknown_name_lists_those_of_the_chip(name: str, known: str, clouds: Clouds) -> None:
    done = clouds.run("launch/sky.sh", "run", "--name=x", f"--type={name}", *TRAIN)
    assert done.returncode == 2
    assert f"error: --type={name}: unknown; expected one of" in done.stderr
    assert known in done.stderr
    assert "launch/accelerators.txt" in done.stderr


@pytest.mark.parametrize(
    ("script", "slice_"),
    [("tpu_vm", "tpu7x:2x2x1"), ("tpu_vm", "h100:8"), ("gke", "v2-8"), ("sky", "tpu7x:2x2x1")],
)
def test_a_service_refuses_what_it_does_not_have(script: str, slice_: str, clouds: Clouds) -> None:
    flags = [*LAUNCHERS[script], f"--type={slice_}", "--dry-run"]
    done = clouds.run(f"launch/{script}.sh", "run", "--name=x", *flags, *TRAIN)
    assert done.returncode == 2
    assert f"error: --type={slice_}:" in done.stderr
    assert "does not have" in done.stderr


# --- the image -----------------------------------------------------------------------------------


def test_the_image_gets_all_that_the_package_is_built_from() -> None:
    """The build context leaves out every path that is not listed."""
    ignored = (ROOT / "launch/Dockerfile.dockerignore").read_text().splitlines()
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = setup["tool"]["setuptools"]["package-dir"].values()
    project = setup["project"]
    needed = {"flaxbert", "pyproject.toml", project["readme"], *project["license-files"]}
    needed |= {folder.partition("/")[0] for folder in folders}
    assert {line[1:] for line in ignored if line.startswith("!")} == needed


def test_make_installs_the_extras_that_launchers_name() -> None:
    if not shutil.which("make"):
        pytest.skip("needs make")
    (buckets,) = re.findall(r"^buckets=(\S+)", (ROOT / "launch/common.sh").read_text(), re.M)
    assert f"[${{ACCELERATOR}},{buckets}]" in (ROOT / "launch/Dockerfile").read_text()
    for file in ("tpu_vm.sh", "slurm.sh", "sky.sh"):
        text = (ROOT / "launch" / file).read_text().replace("$buckets", buckets)
        names = re.findall(r'\b(?:extras|ACCELERATOR)="?([a-z][\w,]*)', text)
        assert names
        for name in names:
            assert name.endswith(f",{buckets}")
            command = ["make", "-n", f".venv/base-{name}", f"ACCELERATOR={name}"]
            shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            assert f"--editable '.[{name}]'" in shown.stdout


# --- style ---------------------------------------------------------------------------------------


def test_the_scripts_pass_shellcheck() -> None:
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if not (program := shutil.which("shellcheck", path=places)):
        pytest.skip('needs pip install -e ".[dev]"')
    scripts = sorted(str(file) for file in (ROOT / "launch").glob("*.sh"))
    done = subprocess.run([program, "-x", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == ""
