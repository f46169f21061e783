"""Fine-tune, evaluate or predict with BERT.

usage: python -m flaxbert.run --config=NAME[:ARG] [--workdir=DIR]
                              [--mode=train|eval|predict] [--config.KEY=VALUE ...]

for example:
  python -m flaxbert.run --config=quickstart --workdir=runs/quickstart

modes:
  train     fine-tune model.init on data.train, evaluate on data.eval, and export
  eval      evaluate the finished run in DIR (without one, model.init) on data.eval
  predict   write predictions for data.predict to predictions.jsonl

eval and predict use the lengths, options and thresholds of the run in DIR. If DIR holds an
unfinished run, training resumes. On SIGTERM, SIGHUP or Ctrl-C the run saves a checkpoint and exits.
With --distributed all hosts exit together, with the same code.

exit codes:
  0   done
  2   bad usage, configuration or data, or the hub cannot be reached
  3   diverged: a loss or gradient is not finite
  75  stopped by a signal, or a host was lost; run the same command again to resume
  1   internal error
"""

import contextlib
import logging
import shlex
import sys
from collections.abc import Sequence

from flaxbert.commands import args, failures, help_text
from flaxbert.errors import Preempted, describe
from flaxbert.runtime import cpu_memory, devices, multihost, terminal
from flaxbert.runtime.preemption import Preemption

log = logging.getLogger("flaxbert")


def main(argv: Sequence[str] | None = None, *, mode: str | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
      argv: the program's name and its arguments; by default those of the process.
      mode: the mode, if the command's name says it; then there is no flag --mode.
    """
    preemption = Preemption()
    preemption.listen()  # before anything that takes time
    _log_to_stderr()
    argv = sys.argv if argv is None else argv
    try:
        description = help_text.DESCRIPTIONS[mode] if mode else __doc__ or ""
        flags = [flag for flag in args.RUN_FLAGS if mode is None or flag is not args.MODE]
        arguments = args.parse(argv, description, flags=flags)
        _dispatch(mode or arguments.mode, arguments, preemption)
    except args.HelpRequested as text:
        print(text)
    except Exception as error:
        if not isinstance(error, Preempted):
            preemption.await_hosts(error)
            preemption.stop_watching()
        code = failures.report(error)
        _connect(argv)  # the other hosts wait, even if this one could not parse its command line
        return preemption.finish(code, describe(error))
    return preemption.finish(0, "")


def _connect(argv: Sequence[str]) -> None:
    import jax

    if not jax.distributed.is_initialized() and (spec := args.value_of("distributed", argv)):
        with contextlib.suppress(Exception):  # a second message about the same command
            multihost.start(spec, seconds=30)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(terminal.Clipped("%(message)s"))
    log.handlers, log.propagate = [handler], False  # not through absl's, which adds file and line
    log.setLevel(logging.INFO)
    # Orbax logs each error with a traceback in every thread that meets it, and raises it as well.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    sys.unraisablehook = _in_callback


def _in_callback(unraisable: "sys.UnraisableHookArgs") -> None:
    """Print an unraisable error, unless TensorStore repeats the failure of an earlier save."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _dispatch(mode: str, arguments: args.Arguments, preemption: Preemption) -> None:
    trial = mode == "train" and arguments.smoke  # refuses several hosts
    if arguments.distributed:  # before anything asks JAX for devices
        multihost.start(arguments.distributed)
        preemption.share()
    cpu_memory.reuse()
    if arguments.require:
        devices.require(arguments.require)
    from flaxbert.commands import modes

    if not multihost.is_lead_host():
        log.setLevel(logging.WARNING)
    config, workdir = arguments.config, arguments.workdir
    if trial:
        from flaxbert.commands.smoke import smoke

        smoke(config, workdir if arguments.flags["workdir"] else None, preemption)
        return
    if not arguments.flags["workdir"]:
        log.info(f"workdir: {workdir} (another: --workdir=DIR)")
    if mode == "train":
        modes.train(
            config,
            workdir,
            preemption=preemption,
            force=arguments.force,
            profile=arguments.profile,
            explain=arguments.explain,
            config_flag=shlex.quote(arguments.config_flags[0]),
        )
    elif mode == "eval":
        modes.evaluate(config, workdir, given=arguments.given)
    else:
        modes.predict(config, workdir, given=arguments.given)


if __name__ == "__main__":
    terminal.outlive()
    sys.exit(main())
