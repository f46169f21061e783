"""Fakes of the programs that launchers call: they keep a state, and record their calls.

A fake refuses what the real program would, such as creating what exists. Its state is in files of
one directory: a queue of states is a file of lines, of which each look takes one, but not the last.
"""

import os
import shutil
import subprocess
from pathlib import Path

from conftest import ROOT

HEAD = r"""#!/usr/bin/env bash
cd "$FAKE" || exit
printf '%s\x1f' "${0##*/}" "$@" >>calls
printf '\x1e' >>calls
refuse() { echo "$*" >&2; exit 1; }
look() { # QUEUE: print its first line, and take it unless it is the last
  [[ -s $1 ]] || return 1
  head -n 1 "$1"
  [[ $(wc -l <"$1") == 1 ]] || sed -i 1d "$1"
}
"""

GCLOUD = r"""
case "$3 $4" in
  "queued-resources describe") look request || refuse NOT_FOUND ;;
  "queued-resources create")
    [[ ! -s request ]] || refuse ALREADY_EXISTS
    [[ ! -e no-quota ]] || refuse "no quota"
    cp created request ;;
  "queued-resources delete") [[ -s request ]] || refuse NOT_FOUND; rm -f request vm ;;
  "queued-resources list") cat stale ;;
  "tpu-vm describe")
    look vm && exit
    [[ $(head -n 1 request) == ACTIVE ]] || refuse NOT_FOUND
    echo READY ;;
  "tpu-vm delete") [[ -s vm ]] || refuse NOT_FOUND; rm vm ;;
  "tpu-vm start") echo READY >vm ;;
  "tpu-vm ssh")
    [[ $* == *"tail -n"* ]] || exit 0
    code=$(look codes)
    [[ $code != preempted ]] || { echo SUSPENDED >request; exit 255; }
    exit "$code" ;;
esac
"""

KUBECTL = r"""
case "$*" in
  apply*) [[ ! -e jobset ]] || refuse "field is immutable"; cat >jobset ;;
  "delete "*"jobset "*) rm -f jobset ;;
  "get "*"jobset bert "*)
    [[ -e jobset ]] || refuse 'jobsets "bert" not found'
    if [[ $* == *conditions* ]]; then echo "no luck"; else head -n 1 timeline | cut -d'|' -f1; fi ;;
  "get "*"pods "*) look timeline | cut -d'|' -f2 ;;
  "get "*"workloads.kueue.x-k8s.io "*) echo "insufficient quota for google.com/tpu" ;;
  logs*) echo "log of ${*: -1}" ;;
esac
"""

SBATCH = r"""
[[ ! -e job ]] || refuse "exists"
cat >job
echo "42;cluster"
"""
SQUEUE = "[[ ! -e job ]] || echo 42"
SCANCEL = "rm -f job"
SCONTROL = r"""
case $1 in
  show) look timeline ;;
  requeue) [[ $2 == 42 ]] ;;
esac
"""
SRUN = r"""
echo "$JAX_LOCAL_DEVICE_IDS" >devices
exit "$(look codes)"
"""

DOCKER = r"""
case $1 in
  compose) [[ ! -e container ]] || refuse "name is in use"; touch container ;;
  container) [[ $2 == ls || -e container ]] || refuse "no such container" ;;
  stop) [[ -e container ]] || refuse "no such container" ;;
  rm) rm container ;;
  logs) echo "step 1" ;;
  wait) look codes ;;
esac
"""

SKY = r"""
case $2 in
  launch) [[ ! -e job ]] || refuse "exists"; touch job ;;
  cancel) [[ -e job ]] || refuse "no job"; rm job ;;
  logs) exit "$(look codes)" ;;
esac
"""

PROGRAMS = {
    "docker": DOCKER, "gcloud": GCLOUD, "kubectl": KUBECTL, "sbatch": SBATCH, "scancel": SCANCEL,
    "scontrol": SCONTROL, "sky": SKY, "squeue": SQUEUE, "srun": SRUN, "git": "", "make": "",
}  # fmt: skip

LOOKS = ("describe", "get", "show", "list", "status", "inspect")
"""Words of calls that change nothing."""


class Clouds:
    """A directory with the fakes and their states, and a copy of launch/ in a checkout."""

    def __init__(self, directory: Path):
        self.state = directory / "state"
        self.checkout = directory / "checkout"
        self.state.mkdir()
        shutil.copytree(ROOT / "launch", self.checkout / "launch")
        programs = directory / "bin"
        programs.mkdir()
        for name, text in PROGRAMS.items():
            (programs / name).write_text(HEAD + text)
            (programs / name).chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "FAKE": str(self.state),
            "POLL_SECONDS": "0",
        }
        self.write("created", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
        self.write("codes", "0")

    def write(self, name: str, *lines: str) -> None:
        """Set a queue of states."""
        (self.state / name).write_text("".join(f"{line}\n" for line in lines))

    def read(self, name: str) -> str:
        return (self.state / name).read_text()

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the checkout with the fakes."""
        return subprocess.run(
            command,
            cwd=self.checkout,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self, *, looks: bool = False) -> list[list[str]]:
        """Return the calls so far, and forget them; without those that only look at a state."""
        file = self.state / "calls"
        text = file.read_text() if file.exists() else ""
        file.unlink(missing_ok=True)
        calls = [call.split("\x1f")[:-1] for call in text.split("\x1e")[:-1]]
        return [call for call in calls if looks or not set(call[1:5]) & set(LOOKS)]

    def verbs(self) -> list[str]:
        """Return the verbs of the calls of gcloud, kubectl and so on that change something."""
        place = {"gcloud": 4, "kubectl": 1, "docker": 1, "sky": 2, "scontrol": 1}
        calls = [call for call in self.calls() if call[0] not in ("git", "make")]
        return [call[place[call[0]]] if call[0] in place else call[0] for call in calls]
