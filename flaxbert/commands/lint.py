"""Look through the data of a configuration: all that is wrong or doubtful, with file:line.

usage: flaxbert lint --config=configs/NAME.py[:ARG] [--config.KEY=VALUE ...] [--all]

Reads data.train, data.eval and data.predict, as far as they are set. Errors are what a run stops
at: unusable files, and malformed lines, rows and answers; the latter are warnings with
--config.data.on_bad_row=skip, which leaves them out and counts them. All else is a warning too.
--all lists every place, else the first five of each kind. Exit codes: 0 no errors; 2 errors.
"""

import collections
import contextlib
import dataclasses
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flaxbert.commands import args
from flaxbert.config import Config, DataConfig, validate
from flaxbert.data import checks, coverage, readers
from flaxbert.data.checks import MALFORMED, READ_AS, UNUSABLE, Issue
from flaxbert.data.readers.encodings import codec
from flaxbert.data.table import NoValidRowsError, Reading, Table
from flaxbert.errors import ConfigError, DataError, HubError, UserError, WeightsError, clip
from flaxbert.pipeline.datasets import SPLITS
from flaxbert.pipeline.pipeline import Pipeline, prepare, read_examples
from flaxbert.tasks import TASKS

log = logging.getLogger("flaxbert")

PLACES = 5
"""Places shown of each kind, without --all."""

LONGEST = 1000
"""Characters of a finding that are shown."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = ["lint", *(sys.argv[1:] if argv is None else argv)]
    everything = "--all" in arguments
    arguments = [argument for argument in arguments if argument != "--all"]
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    try:
        config = args.parse(arguments, __doc__ or "", workdir=False).config
        validate(config, TASKS)
        found = lint(config)
    except args.HelpRequested as text:
        print(text)
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    stops = (UNUSABLE,) if config.data.on_bad_row == "skip" else (UNUSABLE, MALFORMED)
    return 2 if report(found, stops, everything=everything) else 0


def report(found: Sequence[Issue], stops: Sequence[str], *, everything: bool) -> int:
    """Print findings by kind; those of the kinds in `stops` are errors. Returns how many are."""
    kinds: dict[str, list[Issue]] = collections.defaultdict(list)
    for finding in found:
        kinds[finding.kind].append(finding)
    for kind in sorted(kinds, key=[*reversed(stops), UNUSABLE].count, reverse=True):
        places = kinds[kind]
        weight = "error" if kind in stops else "note" if kind == READ_AS else "warning"
        print(f"{weight}: {kind}, {len(places)}")
        shown = places if everything else places[:PLACES]
        for finding in shown:
            print(f"  {clip(str(finding), LONGEST)}")
        if len(shown) < len(places):
            print(f"  ... and {len(places) - len(shown)} more (--all)")
    errors = sum(finding.kind in stops for finding in found)
    notes = len(kinds[READ_AS])
    print(f"{errors} errors, {len(found) - errors - notes} warnings")
    return errors


def lint(config: Config) -> list[Issue]:
    """All findings in the data of a configuration.

    Raises:
      ConfigError: for a configuration whose mistake is not in the data.
    """
    # Readers and tasks stop at the first mistake, or tell all that they leave out: the latter.
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, on_bad_row="skip"))
    specs = {key: spec for key in SPLITS if (spec := getattr(config.data, key))}
    if not specs:
        raise ConfigError("no data: neither data.train, data.eval nor data.predict is set")
    found = [finding for spec in specs.values() for finding in _in_files(spec, config.data)]
    tables = {}
    for key, spec in specs.items():
        try:
            tables[key] = readers.read(spec, config.data, split=SPLITS[key])
        except (DataError, HubError) as error:
            found.append(Issue(UNUSABLE, "", str(error)))
    for table in tables.values():
        found += checks.check_columns([(row.origin, row.values) for row in table.rows])
    if "train" in tables or "train" not in specs:  # else it is not known what the labels are
        found += _in_rows(config, tables)
    for table in tables.values():
        found += table.issues
    return found


def _in_files(spec: str, data: DataConfig) -> Iterator[Issue]:
    for path in readers.files(spec):
        if path.is_file():
            with contextlib.suppress(OSError, DataError):  # its reader reports it
                form, _ = readers.form_of(path, data)
                if form != "parquet":
                    yield from checks.check_file(path, codec(data.encoding), quoted=form == "csv")


def _in_rows(config: Config, tables: Mapping[str, Table]) -> Iterator[Issue]:
    """Report what shows where the task reads the tables."""
    kind = TASKS[config.task]
    raw: dict[str, Reading[Any]] = {}
    unreadable: list[Issue] = []
    for key, table in tables.items():
        try:
            raw[key] = read_examples(config, table, labeled=key != "predict")
        except DataError as error:
            unreadable += [Issue(UNUSABLE, "", str(error)), *_issues_of(error)]
            if key == "train":
                yield from unreadable
                return
    setup: Pipeline | None = None
    try:
        setup = prepare(config, config.model.init, raw.get("train"))
        task = setup.task
    except (HubError, WeightsError) as error:
        yield Issue("without tokenizer", "", f"lengths are not checked: {error}")
        try:
            options = config.options or kind.options_type()
            task = kind.create(config.data, options, raw.get("train"), {})
        except UserError as again:
            yield Issue(UNUSABLE, "", str(again))
            yield from _issues(raw)
            return
    except UserError as error:
        yield Issue(UNUSABLE, "", str(error))
        yield from _issues(raw)
        return
    yield from unreadable
    examples: dict[str, Reading[Any]] = {}
    for key, reading in raw.items():
        try:
            examples[key] = reading if key == "predict" else task.resolve(reading)
        except DataError as error:
            yield Issue(UNUSABLE, "", str(error))
            yield from _issues_of(error) or reading.issues
            continue
        yield from checks.check_examples(examples[key])
        if setup is not None:
            yield from _lost(setup, tables[key], list(examples[key]), key)
    train: Sequence[Any] = examples.get("train", ())
    evaluated: Sequence[Any] = examples.get("eval", ())
    yield from checks.compare_splits(train, evaluated, task.labels)
    yield from _issues(examples)


def _issues_of(error: UserError) -> Sequence[Issue]:
    return error.issues if isinstance(error, NoValidRowsError) else ()


def _issues(readings: Mapping[str, Reading[Any]]) -> Iterator[Issue]:
    for reading in readings.values():
        yield from reading.issues


def _lost(setup: Pipeline, table: Table, examples: list[Any], key: str) -> Iterator[Issue]:
    """Report what the tokenizer drops, and what is over `data.max_length`."""
    try:
        examples, features = setup.featurize(examples, table, labeled=key != "predict")
    except UserError as error:
        yield Issue(UNUSABLE, "", str(error))
        yield from _issues_of(error)
        return
    yield from checks.too_long_issues(table.source, features.dropped)
    unknown = coverage.unknown(features, setup.tokenizer)
    if unknown.serious or unknown.lost:
        yield Issue("unknown words", table.source, unknown.describe(examples))
    texts = [text for example in examples for text in example.texts]
    if dropped := coverage.vanishing(texts, setup.tokenizer):
        what = f"the tokenizer drops {coverage.named(dropped)}"
        yield Issue("characters that vanish", table.source, what)
    if merged := coverage.merged(texts, setup.tokenizer):
        what = f"the tokenizer reads {coverage.pairs(merged)}"
        yield Issue("words that become one", table.source, what)
    length = setup.config.data.max_length
    share = f"{features.truncated} of {len(examples)} ({features.truncated / len(examples):.1%})"
    for index in features.cut:
        what = f"is cut to {length} tokens, as are {share}; raise data.max_length"
        yield Issue("cut text", examples[index].origin, what)
    for kind, places in features.lost.items():
        for index, what in places.items():
            yield Issue(kind, examples[index].origin, what)
    if key == "train" and (reason := setup.task.nothing_to_learn(features)):
        yield Issue(UNUSABLE, "", f"{table.source}: nothing to learn from: {reason}.")
