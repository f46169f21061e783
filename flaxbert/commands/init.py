"""Write a configuration for a data file, with what was found in it as comments.

usage: flaxbert init DATA [--eval=FILE] [--output=FILE.py] [--task=TASK] [--text=COLUMN]
                     [--pair=COLUMN] [--label=COLUMN] [--model=MODEL] [--force]

for example:
  flaxbert init reviews.csv --output=reviews.py

DATA is a file of any format that flaxbert reads, or its URL, or FILE+FILE, texts and labels side by
side. The command looks at its content and chooses task, columns, format, encoding and lengths; each
flag replaces a choice. Without --eval, a tenth of the data is held out for evaluation. The rows are
read as training reads them, so the file that is written runs unedited.

exit codes:
  0   done
  2   bad usage, or a file that cannot be understood
  1   internal error
"""

import dataclasses
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flaxbert.commands import failures, guess
from flaxbert.commands.config_text import render
from flaxbert.commands.help_text import parser
from flaxbert.config import FORMATS, Config, DataConfig, ModelConfig, TrainConfig, validate
from flaxbert.data import readers
from flaxbert.data.readers import detect, parallel
from flaxbert.data.table import Reading, Table
from flaxbert.errors import ConfigError, DataError
from flaxbert.messages.language import percent, plural, tr
from flaxbert.pipeline.datasets import SPLITS, read_examples, split_for_evaluation
from flaxbert.pretrained.source import PACKAGE
from flaxbert.runtime import files
from flaxbert.tasks import TASKS

HELD_OUT, MOST_HELD_OUT, ENOUGH = 0.1, 0.3, 30
"""`data.eval_split` without a file for evaluation: more of few examples, until it is enough."""

SMALL, BATCH, LEAST_STEPS = 1000, 16, 100
"""Of fewer examples than `SMALL`, batches are smaller, and there are more epochs: at least 10, and
until there are enough steps for a new output layer to learn."""

SMALL_MODEL_RATE = 1e-4
"""Learning rate of a small model, as the quick start has it; BERT-base takes the default."""

FORM = ("format", "separator", "quoting", "encoding", "columns")
"""Flags with the names of keys of the data section."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = _parser().parse_args(argv)
    logging.getLogger("flaxbert").setLevel(logging.ERROR)
    output = Path(arguments.output or f"{Path(arguments.data.split('+')[0]).stem}.py")
    try:
        if output.exists() and not arguments.force:
            raise ConfigError(f"{output}: exists already. Give another --output, or --force.")
        if output.suffix != ".py":
            raise ConfigError(f"--output={output}: expected the name of a Python file, FILE.py.")
        draft = make(arguments)
        text = render(draft.config, draft.comments, _about(arguments, draft, output))
        files.write_text(output, text)
    except Exception as error:
        return failures.report(_with_flags(error), f"writing {output}")
    print(f"{arguments.data}: {draft.found}")
    for key, why in draft.comments.items():
        print(f"  {key}: {why}")
    config, run = _for_shell(output)
    print("\n" + tr("wrote {file}", file=output))
    print(
        tr(
            "Next:\n"
            "  check       flaxbert lint --config={config}\n"
            "  try         flaxbert train --config={config} --smoke\n"
            "  train       flaxbert train --config={config} --workdir={run}",
            config=config,
            run=run,
        )
    )
    return 0


def _for_shell(output: Path) -> tuple[str, str]:
    """Return the config file and the workdir of its run as words of a command."""
    return shlex.quote(str(output)), shlex.quote(f"runs/{output.stem}")


def _parser() -> Any:
    flags = parser("init", __doc__)
    flags.add_argument("data", metavar="DATA", help="the training data")
    flags.add_argument("--eval", metavar="FILE", help="the evaluation data (default: held out)")
    flags.add_argument("--output", metavar="FILE.py", help="file to write (default: DATA's name)")
    tasks = f"the task (default: by the columns): {', '.join(sorted(TASKS))}"
    flags.add_argument("--task", choices=TASKS, metavar="TASK", help=tasks)
    flags.add_argument("--text", metavar="COLUMN", help="column of the text, question or words")
    flags.add_argument("--pair", metavar="COLUMN", help="column of the second text")
    flags.add_argument("--label", metavar="COLUMN", help="column of the label, labels or tags")
    flags.add_argument("--model", help="the pre-trained model (default: by the language)")
    for key in FORM:
        values = f": {', '.join(FORMATS)}" if key == "format" else ""
        flags.add_argument(f"--{key}", metavar="VALUE", help=f"data.{key}, if known{values}")
    flags.add_argument("--force", action="store_true", help="overwrite the file")
    return flags


def _with_flags(error: Exception) -> Exception:
    """Return an error of a reader with this command's flags in place of a configuration's."""
    if not isinstance(error, DataError | ConfigError):
        return error
    text = str(error)
    for key in (*FORM, "eval"):
        text = text.replace(f"--config.data.{key}=", f"--{key}=")
    return type(error)(text)


@dataclasses.dataclass(frozen=True)
class Draft:
    """A configuration, and what was found."""

    config: Config
    comments: dict[str, str]
    """{key of the configuration: why it has its value}"""
    found: str


def make(arguments: Any) -> Draft:
    """Return the configuration of a data file.

    Args:
      arguments: the values of the flags.

    Raises:
      DataError: if the file cannot be understood, or its rows cannot be read.
    """
    spec, evaluated = (_joined(given) for given in (arguments.data, arguments.eval))
    given = {key: value for key in FORM if (value := getattr(arguments, key)) is not None}
    if "columns" in given:
        given["columns"] = tuple(given["columns"].split(","))
    known = DataConfig(**given)
    validate(Config(task="classification", data=known), TASKS)
    names = {name for flag in ("text", "pair", "label") if (name := getattr(arguments, flag))}
    detected = detect.detect(spec, known, guess.NAMES | {n.lower() for n in names})
    data = dataclasses.replace(detected.data, train=spec, eval=evaluated, on_bad_row="skip")
    table = readers.read(spec, data, split=SPLITS["train"])
    wishes = guess.Wishes(arguments.task, arguments.text, arguments.pair, arguments.label)
    found = guess.guess(table, wishes)
    if "columns" in detected.reasons:
        data, found = _with_names(data, found)
        table = readers.read(spec, data, split=SPLITS["train"])
    options = TASKS[found.task].options_type(**found.options)
    config = Config(task=found.task, data=data, options=options)
    comments = {"task": found.why}
    comments |= {f"data.{key}": why for key, why in detected.reasons.items()}
    comments |= {f"options.{key}": why for key, why in found.reasons.items()}
    examples = _read(config, table, comments)
    _choose(config, examples, comments, arguments.model)
    validate(config, TASKS)
    task = found.task.replace("_", " ")
    if found.task == "pretraining":
        what = plural(len(examples), "1 document for {task}", "{n} documents for {task}", task=task)
    else:
        what = plural(len(examples), "1 example for {task}", "{n} examples for {task}", task=task)
    return Draft(config, comments, what)


def _joined(spec: Any) -> Any:
    """Return a file of texts with the file of labels next to it, if there is one."""
    if spec is None or parallel.parts(spec):
        return spec
    return parallel.sibling(spec) or spec


def _with_names(data: DataConfig, found: guess.Guess) -> tuple[DataConfig, guess.Guess]:
    """Name the columns of a file without a header as the options of the task do by default."""
    defaults = TASKS_DEFAULTS.get(found.task, {})
    names = {
        column: defaults.get(option, option)
        for option, column in found.options.items()
        if isinstance(column, str) and column in data.columns
    }
    columns = tuple(names.get(column, column) for column in data.columns)
    options = {
        option: names.get(column, column) if isinstance(column, str) else column
        for option, column in found.options.items()
    }
    why = " ".join(names.get(word, word) for word in found.why.split(" "))
    renamed = dataclasses.replace(found, options=options, why=why)
    return dataclasses.replace(data, columns=columns), renamed


TASKS_DEFAULTS = {"multi_label": {"label": "labels"}}
"""Names of columns that differ from the names of their options."""


def _read(config: Config, table: Table, comments: dict[str, str]) -> Reading[Any]:
    """Read the examples as training does; decide about malformed rows and the evaluation data."""
    data = config.data
    examples = read_examples(config.task, table, data, config.options, labeled=True)
    task = TASKS[config.task].create(data, config.options, examples, {})
    examples = task.resolve(examples)
    malformed = table.malformed + examples.malformed
    if data.eval:
        evaluated = readers.read(data.eval, data, split=SPLITS["eval"])
        others = read_examples(config.task, evaluated, data, config.options, labeled=True)
        malformed += evaluated.malformed + task.resolve(others).malformed
    elif config.task != "pretraining" or len(examples) > 1:
        data.eval_split = HELD_OUT
        if config.task != "pretraining":  # there, a few documents may be a lot of text
            enough = ENOUGH / max(1, len(examples))
            data.eval_split = round(min(MOST_HELD_OUT, max(HELD_OUT, enough)), 2)
        split_for_evaluation(examples, data.eval_split)
        comments["data.eval_split"] = tr(
            "there is no --eval: {share} are held out; equal texts stay together",
            share=percent(data.eval_split),
        )
    if malformed:
        issues = [*table.issues, *examples.issues]
        first = next((str(i) for i in issues if i.kind == "malformed"), data.eval or "")
        comments["data.on_bad_row"] = plural(
            malformed,
            "1 malformed row is left out: {first}",
            "{n} malformed rows are left out: {first}",
            first=first,
        )
    else:
        data.on_bad_row = "error"
    return examples


def _choose(
    config: Config, examples: Reading[Any], comments: dict[str, str], model: str | None
) -> None:
    """Choose lengths, model, epochs and batch size for the examples."""
    data, count = config.data, len(examples)
    sample = [examples[n] for n in range(0, count, max(1, count // 2000))]
    texts = [list(example.texts)[:200] for example in sample]
    if config.task == "question_answering":
        data.max_length, data.overlap = 384, 128
        comments["data.max_length"] = tr("as usual for questions; longer contexts have windows")
    elif config.task != "pretraining":
        data.max_length, comments["data.max_length"] = guess.lengths(texts)
        data.overlap = data.max_length // 4
    flat = [text for group in texts for text in group]
    cased = config.task == "token_classification"
    init, why = guess.model(flat, cased=cased)
    config.model = ModelConfig(init=model or init)
    comments["model.init"] = (
        tr("given by --model") if model else tr("{why}; another: --model=MODEL", why=why)
    )
    if config.model.init.startswith(PACKAGE):
        config.optim.learning_rate = SMALL_MODEL_RATE
        comments["optim.learning_rate"] = tr("small models take larger ones")
    if count < SMALL and config.task != "pretraining":
        steps = -(-count // BATCH)
        epochs = float(max(10, -(-LEAST_STEPS // steps)))
        config.train = TrainConfig(epochs=epochs, batch_size=BATCH)
        comments["train.epochs"] = plural(
            count,
            "1 example is little, so there are more passes over it",
            "{n} examples are few, so there are more passes over them",
        )


def _about(arguments: Any, draft: Draft, output: Path) -> str:
    """Return the docstring of the config file."""
    task = draft.config.task.replace("_", " ")
    config, run = _for_shell(output)
    return (
        f"{task.capitalize()} on {arguments.data}.\n\n"
        f"    flaxbert lint --config={config}\n"
        f"    flaxbert train --config={config} --workdir={run}\n\n"
        f"Written by flaxbert init, which found {draft.found}. Change what is wrong.\n"
        "`flaxbert train --config=FILE --help` lists all keys."
    )


if __name__ == "__main__":
    sys.exit(main())
