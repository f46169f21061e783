"""Check the data of a configuration, and report problems with file and line.

usage: flaxbert lint --config=NAME[:ARG] [--all] [--config.KEY=VALUE ...]

for example:
  flaxbert lint --config=ner:conll --config.data.train=train.conll

The linter reads data.train, data.eval and data.predict, if they are set. Problems that stop a run
are errors: an unusable file, or a malformed line, row or answer. With
--config.data.on_bad_row=skip, malformed lines, rows and answers are warnings, since a run skips and
counts them. All other problems are warnings. The flags of `flaxbert train` are accepted and
ignored, so the arguments of a training command can be used as they are.

exit codes:
  0   no errors
  2   errors in the data, or bad usage or configuration
  1   internal error
"""

import collections
import contextlib
import dataclasses
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxbert.commands import args, failures
from flaxbert.commands.help_text import Flag
from flaxbert.config import Config, DataConfig, validate
from flaxbert.data import checks, coverage, readers
from flaxbert.data.checks import MALFORMED, READ_AS, UNUSABLE, Issue
from flaxbert.data.readers import parallel
from flaxbert.data.readers.encodings import codec
from flaxbert.data.table import NoValidRowsError, Reading, Table
from flaxbert.errors import ConfigError, DataError, HubError, UserError, WeightsError, clip
from flaxbert.pipeline.datasets import SPLITS, read_examples
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.tasks import TASKS

log = logging.getLogger("flaxbert")

ALL = Flag("all", False, "list all occurrences of a problem, not only the first five")

PLACES = 5
"""Places that are listed for each kind of problem, without --all."""

LONGEST = 1000
"""Number of characters of an issue that are printed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    argv = ["flaxbert lint", *(sys.argv[1:] if argv is None else argv)]
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    try:
        flags = (ALL, *args.RUN_FLAGS)
        arguments = args.parse(argv, __doc__ or "", flags=flags)
        config = arguments.config
        validate(config, TASKS)
        issues = lint(config)
    except args.HelpRequested as text:
        print(text)
        return 0
    except Exception as error:
        return failures.report(error, "reading the data")
    stops = (UNUSABLE,) if config.data.on_bad_row == "skip" else (UNUSABLE, MALFORMED)
    return 2 if report(issues, stops, everything=arguments.flags["all"]) else 0


def report(issues: Sequence[Issue], stops: Sequence[str], *, everything: bool) -> int:
    """Print issues by kind, and return the number of errors: issues of the kinds in `stops`."""
    kinds: dict[str, list[Issue]] = collections.defaultdict(list)
    for issue in issues:
        kinds[issue.kind].append(issue)
    for kind in sorted(kinds, key=[*reversed(stops), UNUSABLE].count, reverse=True):
        places = kinds[kind]
        weight = "error" if kind in stops else "note" if kind == READ_AS else "warning"
        print(f"{weight}: {kind}, {len(places)}")
        shown = places if everything else places[:PLACES]
        for issue in shown:
            print(f"  {clip(str(issue), LONGEST)}")
        if len(shown) < len(places):
            print(f"  ... and {len(places) - len(shown)} more (--all)")
    errors = sum(issue.kind in stops for issue in issues)
    notes = len(kinds[READ_AS])
    print(f"{errors} errors, {len(issues) - errors - notes} warnings")
    return errors


def lint(config: Config) -> list[Issue]:
    """Return all issues in the data of a configuration.

    Raises:
      ConfigError: if the configuration itself is wrong.
    """
    # By default, readers and tasks raise at the first mistake. With "skip" they report all.
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, on_bad_row="skip"))
    specs = {key: spec for key in SPLITS if (spec := getattr(config.data, key))}
    if not specs:
        raise ConfigError("no data: neither data.train, data.eval nor data.predict is set")
    issues = [issue for spec in specs.values() for issue in _in_files(spec, config.data)]
    tables = {}
    for key, spec in specs.items():
        try:
            tables[key] = readers.read(spec, config.data, split=SPLITS[key])
        except (DataError, HubError) as error:
            issues.append(Issue(UNUSABLE, "", str(error)))
    for table in tables.values():
        issues += checks.check_columns([(row.origin, row.values) for row in table.rows])
    if "train" in tables or "train" not in specs:  # labels may come from it
        issues += _in_rows(config, tables)
    for table in tables.values():
        issues += table.issues
    return issues


def _in_files(spec: str, data: DataConfig) -> Iterator[Issue]:
    if parallel.parts(spec):
        return
    paths: list[Path] = []
    with contextlib.suppress(DataError, HubError):  # its reader reports it
        paths = readers.files(spec)
    for path in paths:
        if path.is_file():
            with contextlib.suppress(OSError, DataError):  # its reader reports it
                form, _ = readers.form_of(path, data)
                if form != "parquet":
                    yield from checks.check_file(path, codec(data.encoding), quoted=form == "csv")


def _in_rows(config: Config, tables: Mapping[str, Table]) -> Iterator[Issue]:
    """Yield the issues that appear when the task reads the tables."""
    kind = TASKS[config.task]
    raw: dict[str, Reading[Any]] = {}
    unreadable: list[Issue] = []
    for key, table in tables.items():
        try:
            labeled = key != "predict"
            raw[key] = read_examples(
                config.task, table, config.data, config.options, labeled=labeled
            )
        except DataError as error:
            unreadable += [Issue(UNUSABLE, "", str(error)), *_issues_of(error)]
            if key == "train":
                yield from unreadable
                return
    pipeline: Pipeline | None = None
    sections = config.task, config.model, config.data, config.options
    try:
        pipeline = Pipeline.build(*sections, train=raw.get("train"))
        task = pipeline.task
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
        if pipeline is not None:
            yield from _lost(pipeline, tables[key], examples[key], key)
    train: Sequence[Any] = examples.get("train", ())
    evaluated: Sequence[Any] = examples.get("eval", ())
    yield from checks.compare_splits(train, evaluated, task.labels)
    yield from _issues(examples)


def _issues_of(error: UserError) -> Sequence[Issue]:
    return error.issues if isinstance(error, NoValidRowsError) else ()


def _issues(readings: Mapping[str, Reading[Any]]) -> Iterator[Issue]:
    for reading in readings.values():
        yield from reading.issues


def _lost(pipeline: Pipeline, table: Table, examples: Sequence[Any], key: str) -> Iterator[Issue]:
    """Yield the issues of tokenization: dropped characters, and texts over `data.max_length`."""
    try:
        examples, features = pipeline.featurize(examples, table.source, labeled=key != "predict")
    except UserError as error:
        yield Issue(UNUSABLE, "", str(error))
        yield from _issues_of(error)
        return
    yield from checks.too_long_issues(table.source, features.dropped)
    unknown = coverage.unknown(features, pipeline.tokenizer)
    if unknown.serious or unknown.lost:
        yield Issue("unknown words", table.source, unknown.describe(examples))
    texts = [text for example in examples for text in example.texts]
    if dropped := coverage.vanishing(texts, pipeline.tokenizer):
        what = f"the tokenizer drops {coverage.named(dropped)}"
        yield Issue("characters that vanish", table.source, what)
    if merged := coverage.merged(texts, pipeline.tokenizer):
        what = f"the tokenizer reads {coverage.pairs(merged)}"
        yield Issue("words that become one", table.source, what)
    length, count = pipeline.data.max_length, features.truncated_count
    share = f"{count} of {len(examples)} ({count / len(examples):.1%})"
    for index in features.truncated:
        what = f"is cut to {length} tokens, as are {share}; raise data.max_length"
        yield Issue("cut text", examples[index].origin, what)
    for kind, places in features.unreachable.items():
        for index, what in places.items():
            yield Issue(kind, examples[index].origin, what)
    resample = pipeline.task.resampler(pipeline.tokenizer)
    if key == "train" and (reason := pipeline.task.nothing_to_learn(features, resample)):
        yield Issue(UNUSABLE, "", f"{table.source}: nothing to learn from: {reason}.")
