"""Make the report of a run, or compare several runs on one page.

usage: flaxbert report RUN [RUN ...] [--output=FILE]

for example:
  flaxbert report runs/quickstart
  flaxbert report runs/seed0 runs/seed1 --output=seeds.html

RUN is the workdir of a finished run. For one run, report.html is written to its workdir; if the run
was also evaluated with --mode=eval, so is eval_results_report.html. For several runs the comparison
is written to comparison.html in the current directory. A page is one file without scripts, and
needs no network: open it in a browser, print it, or send it. It quotes some of the evaluated texts.

exit codes:
  0   done
  1   internal error
  2   bad usage, or a directory without a finished run
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flaxbert.commands import failures, help_text
from flaxbert.errors import WorkdirError, check_local
from flaxbert.runtime import storage

if TYPE_CHECKING:
    from flaxbert.runtime.mirror import Workdir


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = help_text.parser("report", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="workdir of a run")
    parser.add_argument("--output", type=Path, help="the HTML file to write")
    given = parser.parse_args(argv)
    try:
        if given.output:
            check_local("--output", given.output)
        written = report([storage.as_path(run, "RUN") for run in given.runs], given.output)
    except Exception as error:
        return failures.report(error, str(given.output or given.runs[0]))
    for path in written:
        print(f"written: {path}")
    return 0


def report(runs: Sequence[Path], output: Path | None = None) -> list[Path]:
    """Write the report of one run or the comparison of several, and return the pages.

    Raises:
      WorkdirError: for a directory without a finished run, or with a corrupt file.
    """
    from flaxbert.report.compare import make_comparison
    from flaxbert.report.rundir import read_run
    from flaxbert.runtime import mirror
    from flaxbert.runtime.files import write_text

    with contextlib.ExitStack() as stack:
        places = [stack.enter_context(mirror.opened(run)) for run in runs]
        if len(runs) == 1:
            return _report(places[0], output)
        path = output or Path("comparison.html")
        write_text(path, make_comparison([read_run(place.local) for place in places]))
        return [path]


def _report(place: "Workdir", output: Path | None) -> list[Path]:
    from flaxbert.report.rundir import EVALUATED, TRAINED
    from flaxbert.report.write import remake

    workdir = place.local
    if not workdir.is_dir():
        raise WorkdirError(f"{workdir}: is not a directory. Give the workdir of a finished run.")
    present = [names for names in (TRAINED, EVALUATED) if (workdir / names.results).is_file()]
    if output is not None:
        return [remake(workdir, (present or [TRAINED])[0], output)]
    written = [remake(workdir, names) for names in present or [TRAINED]]
    return [place.home / path.name for path in written]
