"""Kill and resume a short run of your configuration, and compare it with an uninterrupted one.

usage: flaxbert verify-resume --config=NAME[:ARG] [--workdir=DIR]
                              [--kills=N] [--config.KEY=VALUE ...]

for example:
  flaxbert verify-resume --config=quickstart

DIR/whole is an uninterrupted run. DIR/killed is a run of the same configuration that is killed N
times without warning and restarted each time: first while it starts, then whenever it has written a
new checkpoint. Both take train.max_steps steps (20 if unset) and save often enough to be killed N
times. The command prints PASS if both are bit-identical, except for timings (`perf/...`), else the
first difference.

exit codes:
  0   PASS
  1   a difference, or no run resumed from a checkpoint
  2   bad usage or configuration
  else the exit code of the run that failed
"""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from flaxbert.commands import args, failures
from flaxbert.commands.help_text import Flag
from flaxbert.errors import ConfigError
from flaxbert.runtime import storage

STEPS = 20
POLL_SECONDS = 0.02

WORKDIR = "runs/verify_{}"
FLAGS = (
    Flag("workdir", "", "directory for the two runs; runs/verify_NAME if it is not given"),
    Flag("kills", 3, "how many times to kill a run"),
)


@dataclasses.dataclass(frozen=True)
class Ended:
    """The end of a process."""

    code: int
    seconds: float
    struck: bool
    """Whether the signal was sent before the process ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    argv = ["flaxbert verify-resume", *(sys.argv[1:] if argv is None else argv)]
    try:
        arguments = args.parse(argv, __doc__ or "", flags=FLAGS, workdir=WORKDIR)
        if arguments.flags["kills"] < 1:
            raise ConfigError(f"--kills={arguments.flags['kills']}: expected at least 1.")
    except args.HelpRequested as text:
        print(text)
        return 0
    except Exception as error:
        return failures.report(error)
    try:
        return verify(arguments, arguments.flags["kills"])
    except Exception as error:
        return failures.report(error, str(arguments.workdir))


def verify(arguments: args.Arguments, kills: int) -> int:
    """Run twice, once with kills, compare, and return the exit code."""
    train = arguments.config.train
    steps = train.max_steps or STEPS
    save_every = min(train.save_every, max(1, steps // (kills + 1)))
    flags = [
        *arguments.config_flags,
        f"--config.train.max_steps={steps}",
        f"--config.train.save_every={save_every}",
    ]
    whole, killed = arguments.workdir / "whole", arguments.workdir / "killed"
    for directory in (whole, killed):
        _remove(directory)
    print(f"a run without interruption, in {whole}:")
    ended = start(flags, whole)
    if ended.code:
        return ended.code
    print(f"  {ended.seconds:.0f} s")
    for number in range(1, kills + 1):
        if number == 1 < kills:  # a run must also survive a kill while it starts or compiles
            struck = start(flags, killed, after=ended.seconds / 4)
        else:
            struck = start(flags, killed, when=_has_newer_checkpoint(killed))
        late = "" if struck.struck else ", too late: the run had ended"
        saved = f"; checkpoint of step {_saved(killed)}" if _saved(killed) else ""
        print(f"kill {number} of {kills}: after {struck.seconds:.1f} s{late}{saved}")
    ended = start(flags, killed)
    if ended.code:
        return ended.code
    if b"resuming" not in log_of(killed).read_bytes():
        print("FAIL: no run resumed from a checkpoint; give it more steps (train.max_steps)")
        return 1
    difference = next(differences(whole, killed), None)
    print(f"FAIL: {difference}" if difference else "PASS: the two runs are bit-identical")
    return 1 if difference else 0


def _remove(workdir: Path) -> None:
    log_of(workdir).unlink(missing_ok=True)
    if storage.is_remote(workdir):
        storage.delete_all(workdir)
    else:
        shutil.rmtree(workdir, ignore_errors=True)


def log_of(workdir: Path) -> Path:
    """Return the file that receives the output of runs: .log in the workdir, if it is local."""
    if not storage.is_remote(workdir):
        return workdir / ".log"
    name = hashlib.sha256(str(workdir).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"flaxbert-{name}.log"


def _saved(workdir: Path) -> int:
    """Return the step of the newest checkpoint; 0 if there is none."""
    if storage.is_remote(workdir):
        from flaxbert.runtime.checkpoint import MARKERS  # imports JAX, which --help does not need

        paths = [Path(name) for name in storage.files(workdir / "checkpoints")]
        names = [path.parent.name for path in paths if path.name in MARKERS]
    else:
        names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _has_newer_checkpoint(workdir: Path) -> Callable[[], bool]:
    """Return a function that says whether there is a newer checkpoint than now."""
    before = _saved(workdir)
    return lambda: _saved(workdir) > before


def start(
    arguments: Sequence[str],
    workdir: Path,
    *,
    after: float | None = None,
    when: Callable[[], bool] | None = None,
    number: int | None = None,
) -> Ended:
    """Run `flaxbert.run` in a process, and kill it or send it a signal.

    Args:
      arguments: the command line, without --workdir.
      workdir: the workdir of the run; output is appended to `log_of` it.
      after: seconds after which the signal is sent.
      when: called often; the signal is sent as soon as it returns True. Without `after` and `when`
        no signal is sent.
      number: the number of the signal; None to kill the process.
    """
    log_of(workdir).parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "flaxbert.run", *arguments, f"--workdir={workdir}"]
    begun, struck = time.monotonic(), False
    with log_of(workdir).open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        while process.poll() is None:
            elapsed = time.monotonic() - begun
            due = elapsed >= after if after is not None else when is not None and when()
            if due and not struck:
                process.kill() if number is None else process.send_signal(number)
                struck = True
            time.sleep(POLL_SECONDS)
    seconds = time.monotonic() - begun
    if process.returncode and not struck:
        log = log_of(workdir).read_text(encoding="utf-8", errors="replace")
        print(log[-2000:], file=sys.stderr)
    return Ended(process.returncode, seconds, struck)


def differences(one: Path, other: Path) -> Iterator[str]:
    """Yield the differences of two finished workdirs, timings aside."""
    from flaxbert.runtime import mirror  # imports JAX, which --help does not need

    with mirror.opened(one) as first, mirror.opened(other) as second:
        yield from _files(first.local, second.local)
    yield from _states(one, other)


def _files(one: Path, other: Path) -> Iterator[str]:
    yield from _lines(one, other, "metrics.jsonl")
    texts = [(d / "results.json").read_text(encoding="utf-8") for d in (one, other)]
    results = [_reproducible(json.loads(text)) for text in texts]
    for name in results[0] | results[1]:
        a, b = (metrics.get(name) for metrics in results)
        if a != b:
            yield f"results.json: {name} is {a} and {b}"
    for name in ("eval_predictions.jsonl", "export/model.safetensors", "export/config.json"):
        digests = [_digest(directory / name) for directory in (one, other)]
        if digests[0] != digests[1]:
            yield f"{name}: SHA-256 {digests[0]} and {digests[1]}"


def _lines(one: Path, other: Path, name: str) -> Iterator[str]:
    texts = [
        (directory / name).read_text(encoding="utf-8").splitlines() for directory in (one, other)
    ]
    for number, pair in enumerate(zip(*texts, strict=False), start=1):
        a, b = (_reproducible(json.loads(line)) for line in pair)
        if a != b:
            key = next(key for key in a | b if a.get(key) != b.get(key))
            yield f"{name}:{number}: {key} is {a.get(key)} and {b.get(key)}"
    if len(texts[0]) != len(texts[1]):
        yield f"{name}: {len(texts[0])} and {len(texts[1])} lines"


def _reproducible(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not name.startswith("perf/")}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "of no file"


def _states(one: Path, other: Path) -> Iterator[str]:
    """Yield the differences of parameters and optimizer state in the last checkpoints."""
    from flaxbert.runtime.checkpoint import read_newest

    (step, _, first), (other_step, _, second) = (
        read_newest(d / "checkpoints") for d in (one, other)
    )
    if step != other_step:
        yield f"checkpoints: the last is of step {step} and {other_step}"
    for name in first | second:
        a, b = first.get(name), second.get(name)
        if a is None or b is None or a.tobytes() != b.tobytes():
            yield f"checkpoints/{step}: {name}"
