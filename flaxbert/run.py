"""Fine-tune, evaluate or predict with BERT.

usage: python -m flaxbert.run --config=configs/NAME.py[:ARG] --workdir=DIR
                              [--mode=train|eval|predict] [--config.KEY=VALUE ...]

  train     fine-tune config.model.init on config.data.train, evaluate on config.data.eval, export
  eval      score a finished workdir (or, without one, config.model.init) on config.data.eval
  predict   write predictions.jsonl for config.data.predict

eval and predict take lengths, options and thresholds from the run in the workdir.
A rerun on the same --workdir continues where the last one stopped. SIGTERM and Ctrl-C save first.
Exit codes: 0 done; 2 bad usage, configuration or data, or an unreachable hub; 3 diverged (a loss or
gradient that is not finite); 75 told to stop, run the same command again; else a fault.
"""

import logging
import os
import sys
import time
import traceback
from collections.abc import Sequence
from typing import NoReturn

from flaxbert import cli
from flaxbert.errors import ConfigError, Preempted, UserError, clip
from flaxbert.preemption import Preemption

log = logging.getLogger("flaxbert")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    preemption = Preemption()
    preemption.listen()  # before all that takes time
    _log_to_stderr()
    try:
        arguments = cli.parse(sys.argv if argv is None else argv, __doc__ or "")
        _dispatch(arguments, preemption)
    except cli.HelpRequested as text:
        print(text)
    except Preempted as told:
        print(told, file=sys.stderr)
        return told.exit_code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.strerror is None:
            raise
        # A full disk is told where a file is written, and then without its name.
        print(
            f"error: {error.filename or 'writing to --workdir'}: {error.strerror}", file=sys.stderr
        )
        return UserError.exit_code
    return 0


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Clipped("%(message)s"))
    log.handlers, log.propagate = [handler], False  # not through absl's, which adds file and line
    log.setLevel(logging.INFO)
    # Orbax logs each error with a traceback in every thread that meets it, and raises it besides.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    sys.unraisablehook = _in_callback


class _Clipped(logging.Formatter):
    """Lines that quote a user's file are no longer than a screen."""

    def format(self, record: logging.LogRecord) -> str:
        return clip(super().format(record))


def _in_callback(fault: "sys.UnraisableHookArgs") -> None:
    """Print what nobody catches, but for TensorStore's reports to a save that has failed before."""
    if str(fault.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(fault)


def _dispatch(arguments: cli.Arguments, preemption: Preemption) -> None:
    if arguments.distributed:  # before anything asks JAX for devices
        _start_distributed(arguments.distributed)
        preemption.share()
    import jax

    from flaxbert import modes

    if jax.process_index() != 0:
        log.setLevel(logging.WARNING)
    config, workdir = arguments.config, arguments.workdir
    if arguments.mode == "train":
        modes.train(config, workdir, preemption=preemption, force=arguments.force)
    else:
        modes.MODES[arguments.mode](config, workdir, given=arguments.given)


def _start_distributed(spec: str) -> None:
    import jax

    if spec == "auto":
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ConfigError(
                f"--distributed=auto: JAX finds no cluster here ({error}). On one host leave the "
                "flag out; on others give HOST:PORT,COUNT,INDEX."
            ) from None
        return
    parts = spec.split(",")
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise ConfigError(
            f"--distributed={spec!r}: 'auto', or HOST:PORT,COUNT,INDEX such as 10.0.0.2:1234,4,0"
        )
    jax.distributed.initialize(parts[0], int(parts[1]), int(parts[2]))


def _leave(code: int) -> NoReturn:
    """Exit; an error of one host of several without JAX's wait of minutes for the others."""
    import jax

    if code not in (0, Preempted.exit_code) and jax.distributed.is_initialized():
        if jax.process_index() == 0:
            time.sleep(2)  # it serves the others, which would be aborted without it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    try:
        code = main()
    except Exception:  # a fault, and told as one
        traceback.print_exc()
        code = 1
    _leave(code)
