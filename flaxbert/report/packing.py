"""The rows of the first training batch: which sequences share a row, and what is padding."""

from collections.abc import Mapping
from typing import Any

from flaxbert.data.batching import Batches
from flaxbert.messages.language import tr
from flaxbert.report.html import Html, join, note, share, tag

MOST = 40
"""Rows that are drawn."""

WIDTH, ROW = 380, 9
"""Units of the drawing, about pixels, and of a row with the space below it."""

COLORS = 6


def first_batch(batches: Batches) -> dict[str, Any]:
    """Return the rows of the first step of training.

    Returns:
      JSON types: `row_length` in tokens, `count` of all rows of the step, and the first `rows`,
      each a list of the lengths of its sequences in tokens.
    """
    rows = batches.rows(0)
    lengths = [batches.features.lengths[row].tolist() for row in rows]
    return {"row_length": batches.row_length, "count": len(rows), "rows": lengths[:MOST]}


def packing_chart(batch: Mapping[str, Any]) -> Html:
    """Return the rows of `first_batch` as a drawing; empty without rows."""
    rows, length = batch.get("rows"), batch.get("row_length")
    if not rows or not length:
        return Html()
    unit, number, shapes = WIDTH / length, 0, []
    for line, row in enumerate(rows):
        place, y = 0, line * ROW
        shapes.append(_piece(0, length * unit, y, "bar", 0.1))
        for tokens in row:
            shapes.append(_piece(place * unit, tokens * unit, y, f"dot s{number % COLORS}", 0.75))
            place, number = place + tokens, number + 1
    used = sum(map(sum, rows))
    about = tr(
        "{sequences} sequences in {rows} rows of {length} tokens; {share} is padding.",
        sequences=number,
        rows=len(rows),
        length=length,
        share=share(len(rows) * length - used, len(rows) * length),
    )
    if batch.get("count", 0) > len(rows):
        about += " " + tr("These are the first of {n} rows.", n=batch["count"])
    title = tr("Rows of the first training batch")
    box = f"0 0 {WIDTH} {len(rows) * ROW}"
    drawing = tag("svg", *shapes, viewBox=box, role="img", aria_label=f"{title}. {about}")
    figure = tag("figure", tag("figcaption", title), drawing)
    return join(tag("div", figure, class_="charts"), note(about))


def _piece(x: float, width: float, y: float, look: str, opacity: float) -> Html:
    size = {"width": f"{max(width - 1, 0.5):.1f}", "height": ROW - 2, "fill_opacity": opacity}
    return tag("rect", x=f"{x:.1f}", y=y, **size, class_=look)
