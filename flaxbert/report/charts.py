"""Charts as inline SVG, which need no script and take their colors from the page's style."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from flaxbert.messages.language import percent, tr
from flaxbert.metrics.calibration import Bin
from flaxbert.report.html import Html, join, number, tag

WIDTH, HEIGHT = 380, 230
"""Units of a chart, about pixels: a page has as many charts in a row as fit."""

LEFT, RIGHT, TOP, BOTTOM = 58, 20, 10, 34

POINTS = 300
"""Most points of a line or a scatter plot; of more, some are chosen at equal distances."""


@dataclasses.dataclass(frozen=True)
class Series:
    """A line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]
    marks: bool = False
    """Whether each point has a mark: for a few values, such as those of evaluations."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis of a chart."""

    low: float
    high: float
    first: float
    """The place of `low` in the drawing."""
    last: float
    """The place of `high` in the drawing."""

    def place(self, value: float) -> float:
        """Return the place of a value in the drawing."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.first + share * (self.last - self.first)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers from `low` to `high`."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [float(f"{(first + n) * step:.10g}") for n in range(count)]


def sampled(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most POINTS finite points, at equal distances, with the first and the last."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(finite) <= POINTS:
        return finite
    chosen = np.linspace(0, len(finite) - 1, POINTS).round().astype(int)
    return [finite[place] for place in chosen]


def line_chart(title: str, series: Sequence[Series]) -> Html:
    """Return a line chart by step, with a legend; empty without points.

    Args:
      title: what the values are.
      series: the lines; one without points keeps its color for other charts.
    """
    lines = [dataclasses.replace(one, points=sampled(one.points)) for one in series]
    drawn = [(color, one) for color, one in enumerate(lines) if one.points]
    if not drawn:
        return Html()
    xs, ys = zip(*itertools.chain.from_iterable(one.points for _, one in drawn), strict=True)
    x, y = _horizontal(min(xs), max(xs)), _vertical(*_padded(min(ys), max(ys)))
    shapes = [_line(one, color, x, y) for color, one in drawn]
    ends = [(one.name, number(one.points[0][1]), number(one.points[-1][1])) for _, one in drawn]
    about = "; ".join(
        tr("{name} from {first} to {last}", name=name, first=first, last=last)
        for name, first, last in ends
    )
    drawing = _drawing(title, f"{about}.", x, y, tr("step"), shapes)
    keys = [
        tag("li", tag("span", class_=f"key s{color % COLORS}"), one.name) for color, one in drawn
    ]
    legend = tag("ul", *keys, class_="legend") if len(lines) > 1 else None
    return _figure(title, drawing, legend)


COLORS = 6
"""Colors and dashes of lines that the style defines."""


def _line(series: Series, color: int, x: Axis, y: Axis) -> Html:
    places = [(x.place(a), y.place(b)) for a, b in series.points]
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    kind = f"s{color % COLORS}"
    marks = [
        tag("circle", tag("title", f"{series.name}, {tr('step')} {number(a)}: {number(b)}"),
            cx=f"{px:.1f}", cy=f"{py:.1f}", r=3, class_=f"dot {kind}")
        for (a, b), (px, py) in zip(series.points, places, strict=True)
    ]  # fmt: skip
    alone = series.marks or len(places) == 1
    return join(tag("path", d=path, class_=f"line {kind}"), *(marks if alone else ()))


def reliability_chart(bins: Sequence[Bin], outcome: str) -> Html:
    """Return a reliability diagram: the share of an outcome in each bin, and the diagonal."""
    x, y = _horizontal(0.0, 1.0), _vertical(0.0, 1.0)
    most = max((part.size for part in bins), default=1) or 1
    shapes = []
    for part in bins:
        if not part.size:
            continue
        left, right, top = x.place(part.low) + 1, x.place(part.high) - 1, y.place(part.accuracy)
        about = tr(
            "probability {low:.1f} to {high:.1f}: {count} predictions, {outcome}: {share}",
            low=part.low,
            high=part.high,
            count=part.size,
            outcome=outcome,
            share=percent(part.accuracy),
        )
        shade = f"{0.3 + 0.7 * part.size / most:.2f}"
        bar = tag(
            "rect", tag("title", about), x=f"{left:.1f}", y=f"{top:.1f}",
            width=f"{right - left:.1f}", height=f"{y.first - top:.1f}",
            class_="bar", fill_opacity=shade,
        )  # fmt: skip
        mean = f"M{left:.1f} {y.place(part.confidence):.1f}H{right:.1f}"
        shapes += [bar, tag("path", d=mean, class_="mean")]
    shapes.append(tag("path", d=f"M{x.first} {y.first}L{x.last} {y.last}", class_="diagonal"))
    about = "; ".join(
        tr(
            "{low:.1f} to {high:.1f}: {share} of {count}",
            low=part.low,
            high=part.high,
            share=percent(part.accuracy),
            count=part.size,
        )
        for part in bins
        if part.size
    )
    title = tr("Share of {outcome} by probability", outcome=outcome)
    return _figure(title, _drawing(title, about, x, y, tr("probability"), shapes))


def scatter(title: str, points: Sequence[tuple[float, float]], x_name: str, y_name: str) -> Html:
    """Return a scatter plot with the diagonal, on which both numbers are equal."""
    shown = sampled(points)
    if not shown:
        return Html()
    values = [value for point in shown for value in point]
    low, high = _padded(min(values), max(values))
    x, y = _horizontal(low, high), _vertical(low, high)
    shapes = [tag("path", d=f"M{x.first} {y.first}L{x.last} {y.last}", class_="diagonal")]
    for a, b in shown:
        place = {"cx": f"{x.place(a):.1f}", "cy": f"{y.place(b):.1f}", "r": 2.5}
        about = tag("title", f"{x_name} {number(a)}, {y_name} {number(b)}")
        shapes.append(tag("circle", about, **place, class_="dot s0 faint"))
    drawn = tr(
        "{y} against {x}, {shown} of {n} examples.",
        y=y_name,
        x=x_name,
        shown=len(shown),
        n=len(points),
    )
    return _figure(title, _drawing(title, drawn, x, y, x_name, shapes, y_name))


def interval_bar(
    value: float, low: float, high: float, baseline: float | None, most: float
) -> Html:
    """Return a small bar: an interval, the value in it, and a tick at the baseline.

    Args:
      value: the metric.
      low: the lower end of its interval.
      high: the upper end.
      baseline: the metric of the baseline, if it has one.
      most: the right end of the scale; the left end is 0, or -1 if a number is negative.
    """
    least = 0.0 if min(low, value, baseline or 0.0) >= 0 else -most
    axis = Axis(least, most, 4.0, 116.0)
    shapes = [tag("path", d="M4 9H116", class_="track")]
    shapes.append(tag("path", d=f"M{axis.place(low):.1f} 9H{axis.place(high):.1f}", class_="range"))
    if baseline is not None:
        shapes.append(tag("path", d=f"M{axis.place(baseline):.1f} 2V16", class_="baseline"))
    shapes.append(tag("circle", cx=f"{axis.place(value):.1f}", cy=9, r=4, class_="dot s0"))
    about = tr(
        "{value}, interval {low} to {high}", value=number(value), low=number(low), high=number(high)
    )
    about += "" if baseline is None else tr(", baseline {value}", value=number(baseline))
    return tag("svg", *shapes, viewBox="0 0 120 18", class_="small", role="img", aria_label=about)


def _padded(low: float, high: float) -> tuple[float, float]:
    space = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return (0.0 if 0 <= low < 0.3 * high else low - space), high + space


def _horizontal(low: float, high: float) -> Axis:
    return Axis(low, high, LEFT, WIDTH - RIGHT)


def _vertical(low: float, high: float) -> Axis:
    return Axis(low, high, HEIGHT - BOTTOM, TOP)


def _drawing(
    title: str,
    about: str,
    x: Axis,
    y: Axis,
    x_name: str,
    shapes: Sequence[Html],
    y_name: str = "",
) -> Html:
    """Return a drawing with both axes."""
    parts = [*_grid(x, y), *shapes]
    middle = (x.first + x.last) / 2
    parts.append(tag("text", x_name, x=f"{middle:.0f}", y=HEIGHT - 3, class_="middle"))
    if y_name:
        parts.append(tag("text", y_name, x=LEFT + 6, y=TOP + 11))
    box = f"0 0 {WIDTH} {HEIGHT}"
    return tag("svg", *parts, viewBox=box, role="img", aria_label=f"{title}. {about}")


def _grid(x: Axis, y: Axis) -> list[Html]:
    label: Callable[[float], str] = "{:g}".format
    parts = []
    for value in ticks(y.low, y.high):
        place = f"{y.place(value):.1f}"
        parts.append(tag("path", d=f"M{x.first} {place}H{x.last}", class_="grid"))
        parts.append(tag("text", label(value), x=LEFT - 6, y=place, dy="0.35em", class_="end"))
    for value in ticks(x.low, x.high):
        place = f"{x.place(value):.1f}"
        parts.append(tag("path", d=f"M{place} {y.first}v4", class_="axis"))
        parts.append(tag("text", label(value), x=place, y=HEIGHT - BOTTOM + 16, class_="middle"))
    return [*parts, tag("path", d=f"M{x.first} {y.first}H{x.last}", class_="axis")]


def _figure(title: str, drawing: Html, legend: Html | None = None) -> Html:
    return tag("figure", tag("figcaption", title), drawing, legend)
