"""The text of --help: a command's description, its flags, and every key of the configuration."""

import argparse
import dataclasses
import textwrap
from collections.abc import Sequence

from flaxbert import packaged
from flaxbert.config import Config, fields

WIDTH = 98

CONFIG = (
    "your config file, or the name of one that comes with flaxbert, and the argument of its "
    "get_config() (FILE.py[:ARG] or NAME[:ARG]). The names"
)
"""What --help says about --config, before the names."""


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of a command; its value has the type of its default."""

    name: str
    default: str | bool | int | None
    """None for a switch that is set neither to true nor to false."""
    help: str
    choices: tuple[str, ...] = ()


EXIT_CODES = """exit codes:
  0   done
  2   bad usage, configuration or data, or the hub cannot be reached
  3   diverged: a loss or gradient is not finite
  75  stopped by a signal, or a host was lost; run the same command again to resume
  1   internal error"""

DESCRIPTIONS = {
    "train": f"""Fine-tune a model on labeled data, evaluate it, and export it.

usage: flaxbert train --config=NAME[:ARG] [--workdir=DIR] [--config.KEY=VALUE ...]

for example:
  flaxbert train --config=quickstart --workdir=runs/quickstart --config.train.epochs=3

Training starts from the weights in model.init and reads data.train. The model is evaluated on
data.eval, or on the part of data.train that data.eval_split holds out, during training and at the
end. --smoke tries the configuration first. If DIR holds an unfinished run, training resumes from
its newest checkpoint. On SIGTERM, SIGHUP or Ctrl-C the run saves a checkpoint and exits. With
--distributed all hosts exit together, with the same code.

{EXIT_CODES}""",
    "eval": f"""Evaluate a trained model on data.eval, and write eval_results.json.

usage: flaxbert eval --config=NAME[:ARG] [--workdir=DIR] [--config.KEY=VALUE ...]

for example:
  flaxbert eval --config=squad --workdir=runs/squad --config.data.eval=test.json

This uses the model of the finished run in DIR, with its lengths, options and thresholds. If DIR
holds no run, it uses model.init, which must have an output layer for the task.

{EXIT_CODES}""",
    "predict": f"""Write a prediction for every example of data.predict to predictions.jsonl.

usage: flaxbert predict --config=NAME[:ARG] [--workdir=DIR] [--config.KEY=VALUE ...]

for example:
  flaxbert predict --config=quickstart --workdir=runs/quickstart \\
      --config.data.predict=mine.tsv

The data needs no labels. This uses the model of the finished run in DIR, with its lengths, options
and thresholds. If DIR holds no run, it uses model.init, which must have an output layer for the
task.

{EXIT_CODES}""",
}
"""The first part of the text of --help, by mode."""


def parser(command: str, document: str | None) -> argparse.ArgumentParser:
    """Return a parser for a command without a configuration.

    Args:
      command: its name.
      document: its module's docstring: a summary, a paragraph "usage: ...", and the rest.
    """
    about, _, rest = (document or "").partition("\n\n")
    usage, _, epilog = rest.partition("\n\n")
    return argparse.ArgumentParser(
        prog=f"flaxbert {command}",
        usage=usage.removeprefix("usage: "),
        description=about,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def render(description: str, flags: Sequence[Flag], config: Config | None = None) -> str:
    """Return the text of --help; with a configuration, it lists every key and its value."""
    lines = [description.strip(), "", "flags:"]
    lines += _entry("--config", f"{CONFIG}: {', '.join(packaged.configs())}")
    for flag in flags:
        shown = "auto" if flag.default is None else repr(flag.default)
        about = f"{flag.help}: {', '.join(flag.choices)}" if flag.choices else flag.help
        lines += _entry(f"--{flag.name}", f"{about} (default: {shown})")
    lines += ["", "configuration keys, --config.KEY=VALUE:"]
    if config is None:
        lines.append("  Use --config=NAME --help to list every key of that configuration.")
    else:
        for name, field, value in fields(config):
            lines += _entry(name, f"{field.metadata.get('help', '')} [{value!r}]")
    return "\n".join(lines)


def _entry(name: str, about: str) -> list[str]:
    return textwrap.wrap(f"{name}: {about}", WIDTH, initial_indent="  ", subsequent_indent="      ")
