"""Kill and resume a short run of your own configuration, and compare it with one left alone.

usage: flaxbert verify-resume --config=configs/NAME.py[:ARG] --workdir=DIR
                                        [--kills=N] [--config.KEY=VALUE ...]

DIR/whole is a run that nobody disturbs, DIR/killed one of the same configuration that is killed N
times (SIGKILL; 3 if not given) and started again each time: first while it starts, then whenever it
has a checkpoint more than before. Both take train.max_steps steps, 20 if that is not set, and save
often enough for that. Prints PASS, or the first difference; everything but what depends on the
clock (`perf/...`) must be bit for bit the same. Exit codes: 0 PASS; 1 a difference, or a run that
never went on from a checkpoint; else that of the run that failed.
"""

import dataclasses
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from flaxbert.commands import args
from flaxbert.errors import UserError, check_local

STEPS, KILLS = 20, 3

POLL_SECONDS = 0.02


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    seconds: float
    phase: str
    """What it was at when the signal came; "" without a signal."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or {"-h", "--help", "--helpfull"} & set(arguments):
        print(__doc__)
        return 0
    workdir, arguments = _take("workdir", arguments)
    kills, arguments = _take("kills", arguments)
    if workdir is None:
        print("error: no --workdir=DIR: where should the two runs go?", file=sys.stderr)
        return 2
    try:
        check_local("--workdir", workdir)
        config = args.parse(["verify_resume", *arguments], __doc__ or "", workdir=False).config
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    count = KILLS if kills is None else int(kills) if kills.isdecimal() else 0
    if count < 1:
        print(f"error: --kills={kills}: a number from 1 on", file=sys.stderr)
        return 2
    steps = config.train.max_steps or STEPS
    often = min(config.train.save_every, max(1, steps // (count + 1)))
    arguments += [f"--config.train.max_steps={steps}", f"--config.train.save_every={often}"]
    whole, killed = Path(workdir) / "whole", Path(workdir) / "killed"
    for directory in (whole, killed):
        shutil.rmtree(directory, ignore_errors=True)
    print("a run that nobody disturbs:")
    ended = start(arguments, whole)
    if ended.code:
        return ended.code
    print(f"  {ended.seconds:.0f} s")
    for number in range(1, count + 1):
        if number == 1 < count:  # start-up and compiling are phases as good as any other
            struck = start(arguments, killed, after=ended.seconds / 4)
        else:
            struck = start(arguments, killed, when=_further(killed))
        what = f"while {struck.phase}" if struck.phase else "too late, the run had ended"
        saved = f"; checkpoint of step {_saved(killed)}" if _saved(killed) else ""
        print(f"kill {number} of {count}: after {struck.seconds:.1f} s, {what}{saved}")
    ended = start(arguments, killed)
    if ended.code:
        return ended.code
    if b"resuming" not in (killed / ".log").read_bytes():
        print("FAIL: no run went on from a checkpoint; give it more steps (train.max_steps)")
        return 1
    difference = next(differences(whole, killed), None)
    print(f"FAIL: {difference}" if difference else "PASS: the two runs are bit for bit the same")
    return 1 if difference else 0


def _saved(workdir: Path) -> int:
    """Step of the newest checkpoint; 0 if there is none."""
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _further(workdir: Path) -> Callable[[str], bool]:
    """Whether there is a newer checkpoint than there is now."""
    before = _saved(workdir)
    return lambda phase: _saved(workdir) > before


def _take(name: str, arguments: list[str]) -> tuple[str | None, list[str]]:
    pattern = re.compile(rf"--?{name}=(.*)")
    found = [match.group(1) for each in arguments if (match := pattern.fullmatch(each))]
    return (found[-1] if found else None), [a for a in arguments if not pattern.fullmatch(a)]


def start(
    arguments: Sequence[str],
    workdir: Path,
    *,
    after: float | None = None,
    when: Callable[[str], bool] | None = None,
    number: int = signal.SIGKILL,
) -> Ended:
    """Run `flaxbert.run` in a process of its own, and send it a signal.

    Args:
      arguments: of the command line, without --workdir.
      workdir: of the run; what it prints goes to a file .log in it.
      after: seconds after which the signal is sent; None: see `when`.
      when: given the phase, whether to send it now; without both none is sent.
      number: of the signal.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "flaxbert.run", *arguments, f"--workdir={workdir}"]
    first, struck = time.monotonic(), ""
    with (workdir / ".log").open("ab") as out:
        begun = out.tell()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        while process.poll() is None:
            seconds = time.monotonic() - first
            now = phase(workdir, begun)
            if not struck and (
                seconds >= after if after is not None else when is not None and when(now)
            ):
                process.send_signal(number)
                struck = now
            time.sleep(POLL_SECONDS)
    seconds = time.monotonic() - first
    if process.returncode and not struck:
        print((workdir / ".log").read_text(errors="replace")[-2000:], file=sys.stderr)
    return Ended(process.returncode, seconds, struck)


def phase(workdir: Path, begun: int = 0) -> str:
    """What a run is at, by what it has printed (from place `begun` on) and written."""
    text = (workdir / ".log").read_bytes()[begun:]
    if b"results.json" in text:
        return "printing"
    if any(workdir.glob(".export.partial*")):
        return "exporting"
    if any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*")):
        return "saving"
    if b"compiled for" in text:
        return "training"
    if b" features" in text:
        return "compiling"
    return "reading data" if text else "starting"


def differences(one: Path, other: Path) -> Iterator[str]:
    """What two finished workdirs differ in, but for what depends on the clock."""
    yield from _lines(one, other, "metrics.jsonl")
    found = [_reproducible(json.loads((d / "results.json").read_text())) for d in (one, other)]
    for name in found[0] | found[1]:
        a, b = (values.get(name) for values in found)
        if a != b:
            yield f"results.json: {name} is {a} and {b}"
    for name in ("eval_predictions.jsonl", "export/model.safetensors", "export/config.json"):
        digests = [_digest(directory / name) for directory in (one, other)]
        if digests[0] != digests[1]:
            yield f"{name}: SHA-256 {digests[0]} and {digests[1]}"
    yield from _states(one, other)


def _lines(one: Path, other: Path, name: str) -> Iterator[str]:
    texts = [(directory / name).read_text().splitlines() for directory in (one, other)]
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
    """Parameters and optimizer state of the last checkpoints."""
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
