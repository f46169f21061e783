"""Run the main function of a benchmark, with help and errors as in flaxbert's own commands."""

import sys
from collections.abc import Callable

from flaxbert.commands import args, failures


def run(main: Callable[[], None]) -> None:
    """Call `main`; print the text of --help, and a message for an error that the user can fix."""
    try:
        main()
    except args.HelpRequested as text:
        print(text)
    except Exception as error:
        sys.exit(failures.report(error, "running the benchmark"))
