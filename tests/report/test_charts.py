"""Charts: round ticks, few points, and nothing drawn outside."""

import re

import pytest

from flaxbert.report.charts import HEIGHT, POINTS, WIDTH, Series, line_chart, scatter, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (10, 90, [20, 40, 60, 80]),
        (0.0, 1e-4, [0, 2e-5, 4e-5, 6e-5, 8e-5, 1e-4]),
        (-1.0, 1.0, [-1, -0.5, 0, 0.5, 1]),
        (5.0, 5.0, [5.0]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_lines_have_few_points_inside_the_chart() -> None:
    values = [(float(n), (-1.0) ** n * n) for n in range(10_000)]
    values[5] = (5.0, float("nan"))
    chart = line_chart("loss", [Series("<b>", values)])
    path = re.search(r'd="M([^"]*)" class="line', chart)
    assert path is not None
    places = [tuple(map(float, place.split())) for place in path[1].split("L")]
    assert len(places) == POINTS
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)
    assert "<b>" not in chart


@pytest.mark.parametrize("points", [[], [(1.0, float("nan"))]])
def test_without_points_there_is_no_chart(points: list[tuple[float, float]]) -> None:
    assert line_chart("loss", [Series("a", points)]) == ""
    assert scatter("numbers", points, "label", "predicted") == ""


def test_a_constant_has_a_chart() -> None:
    assert "<circle" in line_chart("loss", [Series("a", [(1.0, 0.0)])])
    assert "nan" not in line_chart("loss", [Series("a", [(1.0, 2.0), (2.0, 2.0)])])
