"""Fine-tune BERT in JAX, on TPUs and GPUs.

usage: flaxbert COMMAND [ARGUMENTS]

  train           fine-tune a model on labeled data, evaluate it and export it
  eval            evaluate a trained model on data.eval
  predict         write predictions for data.predict
  lint            check data files before training, with file and line of each problem
  convert         convert a checkpoint of another form, or inspect it
  verify-resume   interrupt a run and check that it resumes bit-identically

`flaxbert COMMAND --help` lists the arguments of a command. `python -m flaxbert` does the same as
`flaxbert`, and `python -m flaxbert.run` the same as `flaxbert train`.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

from flaxbert import run
from flaxbert.commands.args import MODES
from flaxbert.runtime.progress import resilient_stream

MODULES = {
    "lint": "flaxbert.commands.lint",
    "convert": "flaxbert.commands.convert",
    "verify-resume": "flaxbert.commands.verify_resume",
}
"""Commands, and the modules whose `main` runs them; `run.main` runs the others."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
      argv: the command and its arguments; by default those of the process.
    """
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in MODES:
        return run.main([f"flaxbert {command}", f"--mode={command}", *rest])
    if command in MODULES:
        code: int = importlib.import_module(MODULES[command]).main(rest)
        return code
    if command in ("-h", "-help", "--help", "help"):
        print((__doc__ or "").strip())
        return 0
    known = [*MODES, *MODULES]
    similar = difflib.get_close_matches(command, known, 1)
    advice = f"did you mean {similar[0]}?" if similar else f"expected one of {', '.join(known)}"
    print(f"error: unknown command {command!r}; {advice} See flaxbert --help.", file=sys.stderr)
    return 2


def console() -> None:
    """Run the console script `flaxbert`."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        setattr(sys, name, resilient_stream(number))
    sys.exit(main())


if __name__ == "__main__":
    console()
