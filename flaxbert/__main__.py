"""Fine-tune BERT in JAX, on TPUs, GPUs and CPUs.

usage: flaxbert COMMAND [ARGUMENTS]

commands:
  train           fine-tune a model on labeled data, evaluate it, and export it
  eval            evaluate a trained model on data.eval
  predict         write predictions for data.predict
  plan            compile for chips that are not here: memory, time and cost of a run
  lint            check data files before training, and report problems with file and line
  report          make the report of a run, or compare several runs
  serve           serve a model over HTTP: a JSON API, and a page to try it
  convert         convert a checkpoint to a Hugging Face directory, or inspect it
  export          export a trained model for servers, as ONNX or StableHLO
  push            upload a trained model to the Hugging Face Hub
  verify-resume   kill a short run several times, and check that it resumes bit-identically
  init            write a configuration for a data file
  doctor          check the installation, and print what a bug report needs
  completion      print a script for the completion of bash, zsh or fish

for example:
  flaxbert train --config=quickstart

`flaxbert COMMAND --help` describes a command. `python -m flaxbert COMMAND` is the same as
`flaxbert COMMAND`. For train, eval and predict, `python -m flaxbert.run --mode=MODE` is the same as
`flaxbert MODE`.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

from flaxbert.commands.args import HELP, MODES
from flaxbert.runtime import terminal

MODULES = {
    "plan": "flaxbert.commands.plan",
    "lint": "flaxbert.commands.lint",
    "report": "flaxbert.commands.report",
    "serve": "flaxbert.commands.serve",
    "convert": "flaxbert.commands.convert",
    "export": "flaxbert.commands.export",
    "push": "flaxbert.commands.push",
    "verify-resume": "flaxbert.commands.verify_resume",
    "init": "flaxbert.commands.init",
    "doctor": "flaxbert.commands.doctor",
    "completion": "flaxbert.commands.completion",
}
"""Commands and the modules whose `main` runs them; the other commands are the modes of a run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
      argv: the command and its arguments; by default those of the process.
    """
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in MODES:
        from flaxbert import run  # imports JAX, which `flaxbert --help` does not need

        return run.main([f"flaxbert {command}", *rest], mode=command)
    if command in MODULES:
        code: int = importlib.import_module(MODULES[command]).main(rest)
        return code
    if command in (*HELP, "help"):
        print((__doc__ or "").strip())
        return 0
    commands = [*MODES, *MODULES]
    similar = difflib.get_close_matches(command, commands, n=1)
    hint = f"Did you mean {similar[0]!r}?" if similar else f"Expected one of {', '.join(commands)}."
    print(f"error: unknown command {command!r}. {hint} See flaxbert --help.", file=sys.stderr)
    return 2


def console() -> None:
    """Run the console script `flaxbert`."""
    terminal.outlive()
    sys.exit(main())


if __name__ == "__main__":
    console()
