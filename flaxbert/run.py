"""Fine-tune, evaluate or predict with BERT.

usage: python -m flaxbert.run --config=configs/NAME.py[:ARG] --workdir=DIR
                              [--mode=train|eval|predict] [--config.KEY=VALUE ...]

  train     fine-tune config.model.init on config.data.train, evaluate on config.data.eval, export
  eval      score a finished workdir (or, without one, config.model.init) on config.data.eval
  predict   write predictions.jsonl for config.data.predict

eval and predict take lengths, options and thresholds from the run in the workdir.
A rerun on the same --workdir continues where the last one stopped. SIGTERM, SIGHUP and Ctrl-C save
first. Several hosts (--distributed) end together, with one exit code.
Exit codes: 0 done; 2 bad usage, configuration or data, or an unreachable hub; 3 diverged (a loss or
gradient that is not finite); 75 told to stop, run the same command again; else a fault.
"""

import contextlib
import logging
import sys
import traceback
from collections.abc import Sequence

from flaxbert.commands import args
from flaxbert.errors import Preempted, UserError, clip, describe, exit_code
from flaxbert.runtime import multihost
from flaxbert.runtime.preemption import Preemption
from flaxbert.runtime.progress import resilient_stream

log = logging.getLogger("flaxbert")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    preemption = Preemption()
    preemption.listen()  # before all that takes time
    _log_to_stderr()
    argv = sys.argv if argv is None else argv
    try:
        _dispatch(args.parse(argv, __doc__ or ""), preemption)
    except args.HelpRequested as text:
        print(text)
    except Exception as error:
        if not isinstance(error, Preempted):
            preemption.stop_watching()
        _report(error)
        _connect(argv)  # the other hosts wait, though this one could not read its command line
        return preemption.finish(exit_code(error), describe(error))
    return preemption.finish(0, "")


def _report(error: Exception) -> None:
    """Print one message for what a user can fix, else a traceback."""
    if isinstance(error, Preempted):
        print(error, file=sys.stderr)
    elif isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr)
    elif isinstance(error, OSError) and error.strerror is not None:
        # A full disk is reported where a file is written, and then without its name.
        where = error.filename or "writing to --workdir"
        print(f"error: {where}: {error.strerror}", file=sys.stderr)
    else:
        traceback.print_exception(error)


def _connect(argv: Sequence[str]) -> None:
    import jax

    if not jax.distributed.is_initialized() and (spec := args.distributed(argv)):
        with contextlib.suppress(Exception):  # it would be another message about the same command
            multihost.start(spec, seconds=30)


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


def _dispatch(arguments: args.Arguments, preemption: Preemption) -> None:
    if arguments.distributed:  # before anything asks JAX for devices
        multihost.start(arguments.distributed)
        preemption.share()
    from flaxbert.commands import modes

    if not multihost.is_lead_host():
        log.setLevel(logging.WARNING)
    config, workdir = arguments.config, arguments.workdir
    if arguments.mode == "train":
        modes.train(config, workdir, preemption=preemption, force=arguments.force)
    else:
        modes.MODES[arguments.mode](config, workdir, given=arguments.given)


if __name__ == "__main__":
    for number, name in ((1, "stdout"), (2, "stderr")):
        setattr(sys, name, resilient_stream(number))
    sys.exit(main())
