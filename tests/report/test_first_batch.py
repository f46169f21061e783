"""The drawing of the first training batch: its rows, and what is padding."""

import json
import re
from pathlib import Path

from made_runs import write_run

from flaxbert.data.batching import Batches
from flaxbert.data.features import Features
from flaxbert.report import page
from flaxbert.report.packing import MOST, first_batch, packing_chart
from flaxbert.report.rundir import read_run


def batches(lengths: list[int]) -> Batches:
    features = Features.build(
        {"input_ids": [[1] * length for length in lengths]},
        token_indices={"cls_position": [0] * len(lengths)},
        per_sequence={"label": [0] * len(lengths)},
    )
    return Batches(features, len(lengths), row_length=10, segments=3, data_parallelism=1, steps=1)


def test_rows_of_the_first_batch_are_drawn() -> None:
    record = json.loads(json.dumps(first_batch(batches([6, 4, 7, 2, 1]))))
    assert record == {"row_length": 10, "count": 2, "rows": [[7, 2, 1], [6, 4]]}
    chart = packing_chart(record | {"rows": [[7, 2], [6, 4]]})
    assert "4 sequences in 2 rows of 10 tokens; 5.0 % is padding." in chart
    places = [(float(x), int(y)) for x, y in re.findall(r'<rect x="([\d.]+)" y="(\d+)"', chart)]
    assert places == [(0, 0), (0, 0), (266, 0), (0, 9), (0, 9), (228, 9)]


def test_of_many_rows_the_first_are_drawn() -> None:
    record = first_batch(batches([10] * (MOST + 5)))
    assert len(record["rows"]) == MOST
    assert f"the first of {MOST + 5} rows" in packing_chart(record)


def test_the_report_has_the_drawing_if_the_run_wrote_its_rows(tmp_path: Path) -> None:
    workdir = write_run(tmp_path, "classification", count=4)
    title = "Rows of the first training batch"
    assert title not in page.make_page(read_run(workdir))
    about = json.loads((workdir / "run.json").read_text())
    about["data"]["train"]["first_batch"] = {"row_length": 10, "count": 1, "rows": [[5, 3]]}
    (workdir / "run.json").write_text(json.dumps(about))
    assert title in page.make_page(read_run(workdir))
