"""The data, the speed, and all that a run needs to be repeated."""

import json
from collections.abc import Mapping
from typing import Any

from flaxbert.messages.language import amount, tr
from flaxbert.report.html import Html, facts, join, note, number, table, tag, user_text
from flaxbert.report.packing import packing_chart
from flaxbert.report.rundir import RunFiles

PROGRAMS = 12
"""Programs in the table of compilations: those that took longest."""


def data_and_speed(files: RunFiles) -> Html:
    """Return counts of the data, padding, throughput and compiled programs."""
    rows = packing_chart(files.about.get("data", {}).get("train", {}).get("first_batch", {}))
    return join(_data(files), rows, facts(_speed(files.results, files.about)), _compiles(files))


def _data(files: RunFiles) -> Html:
    """Return the sizes of the data sets, and what was cut or left out."""
    rows = []
    for name, data in files.about.get("data", {}).items():
        left_out = files.results.get(f"data/{name}/malformed", 0)
        unreachable = {
            key.rpartition("/")[2].replace("_", " "): value
            for key, value in files.results.items()
            if key.startswith(f"data/{name}/") and not key.endswith("/malformed")
        }
        others = ", ".join(
            f"{kind}: {amount(value)}" for kind, value in unreachable.items() if value
        )
        source = user_text(files.config.get(f"data.{name}") or name, 120)
        counts = [data.get("examples", 0), data.get("sequences", 0), data.get("cut", 0), left_out]
        rows.append([name, source, *(amount(count) for count in counts), others or "-"])
    columns = [
        *(tr("data"), tr("source"), tr("examples"), tr("sequences")),
        *(tr("cut"), tr("malformed"), tr("out of reach")),
    ]
    return table(tr("Data sets"), columns, rows, numeric=columns[2:6])


def _speed(results: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, str]:
    def measured(name: str, unit: str) -> str:
        value = results.get(name)
        return "" if value is None else f"{number(value)} {unit}".strip()

    padding = results.get("padding_share")
    return {
        tr("devices"): str(about.get("devices", "")),
        tr("padding in training batches"): "" if padding is None else f"{100 * padding:.1f} %",
        tr("training"): measured("perf/train_seconds", "s"),
        tr("examples per second"): measured("perf/examples_per_s", ""),
        tr("tokens per second"): measured("perf/tokens_per_s", ""),
        tr("time of a step"): measured("perf/step_seconds", "s"),
        tr("last evaluation"): measured("perf/eval_seconds", "s"),
        tr("compiling"): measured("perf/compile_seconds", "s"),
        tr("steps"): measured("step", ""),
        tr("skipped steps"): measured("skipped_steps", ""),
    }


def _compiles(files: RunFiles) -> Html:
    """Return the programs that took longest to compile."""
    longest = sorted(files.compiles, key=lambda entry: -entry.get("seconds", 0))
    rows = [
        [tag("code", entry.get("function", "")), user_text(entry.get("shape", ""), 60),
         number(entry.get("seconds")), tr("cache") if entry.get("cached") else tr("compiled")]
        for entry in longest[:PROGRAMS]
    ]  # fmt: skip
    columns = [tr("function"), tr("shape"), tr("seconds"), tr("from")]
    count = len(files.compiles)
    more = tr("The {shown} longest of {n}; compiles.jsonl has all.", shown=PROGRAMS, n=count)
    programs = table(tr("Compiled programs"), columns, rows, numeric=[tr("seconds")])
    return join(programs, note(more) if count > PROGRAMS else None)


def details(files: RunFiles) -> Html:
    """Return the command, the configuration, fingerprints and versions."""
    return join(_command(files), settings_table(files), _fingerprints(files), _versions(files))


def _command(files: RunFiles) -> Html:
    command = files.about.get("command")
    if not command:
        return Html()
    return join(tag("h3", tr("Command")), tag("pre", tag("code", command)))


def settings_table(files: RunFiles) -> Html:
    """Return the configuration where it differs from the defaults of the task."""
    rows = [
        [tag("code", key), tag("code", shown(value)),
         tag("code", shown(files.defaults[key])) if key in files.defaults else "-"]
        for key, value in files.config.items()
        if files.defaults.get(key, _ABSENT) != value and not key.startswith("commits.")
    ]  # fmt: skip
    columns = [tr("key"), tr("value"), tr("default")]
    about = note(tr("All other values are the defaults; {file} has all.", file=files.names.config))
    return join(
        table(tr("Configuration, as the difference from the defaults"), columns, rows), about
    )


_ABSENT = object()


def shown(value: Any) -> str:
    """Return a value of the configuration, as JSON."""
    return json.dumps(value, ensure_ascii=False)


def _fingerprints(files: RunFiles) -> Html:
    """Return hashes of the data, and commits of what came from the hub."""
    commits = {
        key.removeprefix("commits."): value
        for key, value in files.config.items()
        if key.startswith("commits.")
    }
    rows = [
        [tr("examples, {name}", name=name), tag("code", value)]
        for name, value in files.fingerprints.items()
    ]
    rows += [
        [tr("hub commit, {name}", name=name), tag("code", value)] for name, value in commits.items()
    ]
    return table(tr("Fingerprints of the data"), [tr("data"), tr("fingerprint")], rows)


def _versions(files: RunFiles) -> Html:
    versions = files.about.get("versions", {})
    return facts(dict(versions) | {tr("finished"): files.about.get("finished")})
