"""Look through the data of a configuration: all that is wrong or doubtful, with file:line.

usage: python -m flaxbert.lint --config=configs/NAME.py[:ARG] [--config.KEY=VALUE ...] [--all]

Reads data.train, data.eval and data.predict, as far as they are set. Errors are what a run would
stop at, or leave out and count with --config.data.malformed=skip; all else is a warning. --all
lists every place, else the first five of each kind. Exit codes: 0 no errors; 2 errors.
"""

import collections
import dataclasses
import glob
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaxbert import cli
from flaxbert.config import Config, validate
from flaxbert.data import findings, sources
from flaxbert.data.findings import MALFORMED, Finding
from flaxbert.data.table import Table
from flaxbert.errors import ConfigError, DataError, HubError, UserError, WeightsError
from flaxbert.setup import SPLITS, Setup, prepare
from flaxbert.tasks import TASKS
from flaxbert.tasks.base import Task

log = logging.getLogger("flaxbert")

PLACES = 5
"""Places shown of each kind, without --all."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv if argv is None else argv)
    everything = "--all" in arguments
    arguments = [argument for argument in arguments if argument != "--all"]
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    try:
        config = cli.parse(arguments, __doc__ or "", workdir=False).config
        validate(config, TASKS)
        found = lint(config)
    except cli.HelpRequested as text:
        print(text)
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    errors = report(found, everything=everything)
    return 2 if errors and config.data.malformed != "skip" else 0


def report(found: Sequence[Finding], *, everything: bool) -> int:
    """Print findings by kind, errors first; returns how many are errors."""
    kinds: dict[str, list[Finding]] = collections.defaultdict(list)
    for finding in found:
        kinds[finding.kind].append(finding)
    for kind in sorted(kinds, key=lambda kind: kind != MALFORMED):
        places = kinds[kind]
        print(f"{'error' if kind == MALFORMED else 'warning'}: {kind}, {len(places)}")
        shown = places if everything else places[:PLACES]
        for finding in shown:
            print(f"  {finding}")
        if len(shown) < len(places):
            print(f"  ... and {len(places) - len(shown)} more (--all)")
    errors = len(kinds[MALFORMED])
    print(f"{errors} errors, {len(found) - errors} warnings")
    return errors


def lint(config: Config) -> list[Finding]:
    """All findings in the data of a configuration.

    Raises:
      ConfigError: for a configuration whose mistake is not in the data.
    """
    # Readers and tasks stop at the first mistake, or tell all that they leave out: the latter.
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, malformed="skip"))
    specs = {key: spec for key in SPLITS if (spec := getattr(config.data, key))}
    if not specs:
        raise ConfigError("no data: neither data.train, data.eval nor data.predict is set")
    found = [finding for spec in specs.values() for finding in _in_files(spec)]
    tables = {key: _table(spec, SPLITS[key], found) for key, spec in specs.items()}
    if "train" in tables and tables["train"] is None:
        return found  # without it, what the labels are is not known
    setup: Setup | None = None
    task: Task | None = None
    try:
        setup = prepare(config, config.model.init, tables.get("train"))
        task = setup.task
    except (HubError, WeightsError) as error:
        found.append(Finding("without tokenizer", "", f"lengths are not checked: {error}"))
        task = _task(config, tables.get("train"), found)
    except DataError as error:
        found.append(Finding(MALFORMED, "", str(error)))
    except ConfigError:
        if not any(finding.kind == MALFORMED for finding in found):
            raise  # not for want of rows
    if task is None:
        return found
    examples = {
        key: _examples(task, table, found, labelled=key != "predict")
        for key, table in tables.items()
        if table is not None
    }
    for each in examples.values():
        found += findings.in_examples(each)
    names = getattr(task, "labels", ())
    found += findings.between(examples.get("train", []), examples.get("eval", []), names)
    for key, each in examples.items():
        if setup is not None and each:
            found += _lost(setup, specs[key], each, labelled=key != "predict")
    return found


def _in_files(spec: str) -> Iterator[Finding]:
    files = [spec] if Path(spec).exists() else sorted(glob.glob(spec, recursive=True))
    for file in files:
        if Path(file).is_file() and not file.endswith(".parquet"):
            yield from findings.in_file(Path(file))


def _table(spec: str, split: str, found: list[Finding]) -> Table | None:
    try:
        table = sources.read(spec, split=split, malformed="skip")
    except DataError as error:
        found.append(Finding(MALFORMED, "", str(error)))
        return None
    found += findings.in_columns([(row.origin, row.values) for row in table.rows])
    found += table.findings.elements()
    table.findings.clear()  # those of the task come next
    return table


def _task(config: Config, train: Table | None, found: list[Finding]) -> Task | None:
    kind = TASKS[config.task]
    try:
        made: Task = kind.create(config.data, config.options or kind.options_type(), train, {})
    except DataError as error:
        found.append(Finding(MALFORMED, "", str(error)))
        return None
    return made


def _examples(task: Task, table: Table, found: list[Finding], *, labelled: bool) -> list[Any]:
    examples: list[Any] = []
    try:
        examples = task.examples(table, labelled=labelled)
    except DataError as error:
        found.append(Finding(MALFORMED, "", str(error)))
    found += table.findings.elements()
    return examples


def _lost(setup: Setup, spec: str, examples: list[Any], *, labelled: bool) -> Iterator[Finding]:
    """What `data.max_length` cuts off."""
    try:
        features = setup.task.featurize(examples, setup.tokenizer, labelled=labelled)
    except UserError as error:
        yield Finding(MALFORMED, "", str(error))
        return
    total, length = len(examples), setup.config.data.max_length
    if features.truncated:
        share = features.truncated / total
        what = f"{features.truncated} of {total} examples ({share:.1%}) are cut to {length} tokens"
        yield Finding("cut texts", spec, f"{what}; raise data.max_length, or see options.long")
    if "start" in features.positions:
        starts = features.positions["start"]
        nowhere = np.ones(total, bool)
        nowhere[features.example[starts >= 0]] = False
        for index in np.flatnonzero(nowhere):
            what = f"no window of {length} tokens holds the whole answer, so it is not trained on"
            yield Finding("answer in no window", examples[index].origin, what)


if __name__ == "__main__":
    sys.exit(main())
