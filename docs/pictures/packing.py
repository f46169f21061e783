"""The same sentences padded to one length, and packed by flaxbert's own code."""

from collections.abc import Sequence

from canvas import EDGE, NORMAL, SMALL, WIDTH, Canvas, Texts
from records import facts, number, percent

TEXTS = {
    "en": {
        "title": "Padding and packing",
        "about": "The sentences of a batch as rows of cells, one cell for each token. Padded, "
        "each has its own row, and many cells are empty. Packed, several sentences share a row, "
        "and few cells are empty.",
        "padded": "{count} sentences, padded",
        "packed": "{count} sentences, packed",
        "rows": "{rows} rows, {places} places",
        "empty": "{share} of them are empty",
        "note": "A colored run is a sentence of a real batch, a cell a token, a dark cell [CLS].",
    },
    "es": {
        "title": "Relleno y empaquetado",
        "about": "Las frases de un lote como filas de celdas, una celda por token. Con relleno, "
        "cada frase tiene su fila y muchas celdas quedan vacías. Empaquetadas, varias frases "
        "comparten fila y quedan pocas celdas vacías.",
        "padded": "{count} frases con relleno (padding)",
        "packed": "{count} frases empaquetadas",
        "rows": "{rows} filas, {places} lugares",
        "empty": "vacíos: {share}",
        "note": "Cada tramo es una frase de un lote real; cada celda, un token; la oscura, [CLS].",
    },
}

COLORS = ("c0", "c1", "c2", "c3", "c4", "c5")
SIDE = 268
TOP, ROW = 90, 8


def grid(canvas: Canvas, x: float, rows: Sequence[Sequence[int]], places: int) -> None:
    """Draw rows of sentences; a sentence is a colored run of cells."""
    lengths = facts()["packing"]["lengths"]
    cell = SIDE / max(facts()["packing"]["row_length"], max(lengths))
    for line, sentences in enumerate(rows):
        y, left = TOP + ROW * line, x
        canvas.bar(x, y, cell * places, ROW - 1, "track")
        for sentence in sentences:
            width, look = cell * lengths[sentence], COLORS[sentence % len(COLORS)]
            canvas.box(left + 0.5, y + 0.5, width - 1, ROW - 2, look, radius=2)
            inner = [left + cell * n for n in range(2, lengths[sentence])]
            cuts = "".join(f"M{place:.1f} {y + 1}v{ROW - 3}" for place in inner)
            canvas.add("path", d=cuts, class_=f"line {look}", stroke_opacity=".4")
            canvas.bar(left + 0.5, y + 0.5, cell, ROW - 2, look)
            left += width


def summary(t: Texts, language: str, rows: int, places: int) -> list[str]:
    """Return how many places there are, and how many are empty."""
    used = sum(facts()["packing"]["lengths"])
    return [
        t["rows"].format(rows=rows, places=number(rows * places, language)),
        t["empty"].format(share=percent(1 - used / (rows * places), language)),
    ]


def draw(t: Texts, language: str) -> Canvas:
    """Draw both grids next to each other."""
    record = facts()["packing"]
    longest, count = max(record["lengths"]), len(record["lengths"])
    canvas = Canvas(TOP + ROW * count + 54)
    sides = (
        (EDGE, "padded", [[n] for n in range(count)], longest),
        (WIDTH - EDGE - SIDE, "packed", record["rows"], record["row_length"]),
    )
    for x, name, rows, places in sides:
        heading = t[name].format(count=count)
        canvas.text(x, 34, heading, look="bold", anchor="start", size=NORMAL, within=SIDE)
        lines = summary(t, language, len(rows), places)
        canvas.lines(x, 56, lines, size=SMALL, look="quiet", anchor="start", within=SIDE)
        grid(canvas, x, rows, places)
    canvas.text(WIDTH / 2, canvas.height - 20, t["note"], size=SMALL)
    return canvas
