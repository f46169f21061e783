"""Run the main function of a benchmark, with help and errors as in flaxbert's own commands."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from flaxbert.commands import args, failures


def run(main: Callable[[], None]) -> None:
    """Call `main`; print the text of --help, and a message for an error that the user can fix."""
    try:
        main()
    except args.HelpRequested as text:
        print(text)
    except Exception as error:
        sys.exit(failures.report(error, "running the benchmark"))


def run_elsewhere(python: str, program: str, job: Any) -> Any:
    """Run the text of a program in another environment, and exit if it fails.

    Args:
      python: the interpreter of the environment.
      program: reads `job` from stdin, and prints its results, both as JSON.
      job: of JSON's types.
    """
    done = subprocess.run(
        [python, "-c", program], input=json.dumps(job), stdout=subprocess.PIPE, encoding="utf-8"
    )
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)
