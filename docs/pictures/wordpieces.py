"""A sentence as word pieces with their numbers, in both languages, and two texts in one input."""

from collections.abc import Sequence
from typing import Any

from canvas import EDGE, NORMAL, SMALL, WIDTH, Canvas, Texts, measure
from records import facts

TEXTS = {
    "en": {
        "title": "Word pieces",
        "about": "An English and a Spanish sentence of four words each, cut into word pieces "
        "with their numbers. The English vocabulary cuts the Spanish words into more pieces. "
        "Below, two texts share one input: [SEP] stands between them, and each has its own "
        "segment number.",
        "first": "English",
        "second": "Spanish, cut by an English vocabulary",
        "counts": "{words} words, {pieces} pieces",
        "ids": "ids",
        "pair": "Two texts in one input",
        "segments": "segments 0 and 1",
        "legend": "[CLS] begins each input, [SEP] ends each text, ## continues a word.",
    },
    "es": {
        "title": "Piezas de palabras (word pieces)",
        "about": "Una frase en inglés y otra en español, de cuatro palabras cada una, cortadas "
        "en piezas con sus números. El vocabulario inglés corta las palabras españolas en más "
        "piezas. Abajo, dos textos comparten una entrada: [SEP] está entre ellos y cada uno "
        "tiene su número de segmento.",
        "first": "Inglés",
        "second": "Español, cortado con un vocabulario inglés",
        "counts": "{words} palabras, {pieces} piezas",
        "ids": "ids",
        "pair": "Dos textos en una entrada",
        "segments": "segmentos 0 y 1",
        "legend": "[CLS] abre la entrada, [SEP] cierra cada texto, ## continúa una palabra.",
    },
}

SPACE = 3
"""Between two tokens."""


def cells(
    tokens: Sequence[str], room: float, values: Sequence[str] = (), most: float = 14
) -> list[tuple[float, float]]:
    """Return the start and the width of each token's box.

    Args:
      tokens: what is in the boxes.
      room: the width that the row may have.
      values: what is below the boxes, as wide as them at most.
      most: units that a box may be wider than its text needs.

    Raises:
      ValueError: if the tokens do not fit.
    """
    lines = zip(tokens, values or tokens, strict=True)
    least = [max(measure(token, SMALL) + 4, measure(value, SMALL), 20) for token, value in lines]
    extra = (room - sum(least) - SPACE * (len(tokens) - 1)) / len(tokens)
    if extra < 0:
        raise ValueError(f"{tokens}: are {-extra * len(tokens):.0f} units too wide.")
    places, left = [], 0.0
    for width in least:
        places.append((left, width + min(extra, most)))
        left += width + min(extra, most) + SPACE
    return places


def row(canvas: Canvas, y: float, left: float, encoded: dict[str, Any], kind: str) -> None:
    """Draw the tokens of an input, and below each one its id or its segment."""
    tokens, values = encoded["tokens"], [str(value) for value in encoded[kind]]
    places = cells(tokens, WIDTH - EDGE - left, values)
    for token, value, (x, width) in zip(tokens, values, places, strict=True):
        look = "c1" if token[0] == "[" else "c0" if token.startswith("##") else ""
        if kind == "segments" and token[0] != "[":
            look = ("c2", "c3")[int(value)]
        canvas.box(left + x, y, width, 27, look, radius=4)
        middle = left + x + width / 2
        canvas.text(middle, y + 18, token, size=SMALL, within=width)
        canvas.text(middle, y + 46, value, size=SMALL, look="quiet", within=width + SPACE)


def draw(t: Texts, language: str) -> Canvas:
    """Draw three rows of tokens."""
    canvas, pieces = Canvas(360), facts()["pieces"]
    for y, name, key in ((22, "first", "en"), (128, "second", "es")):
        encoded = pieces[key]
        words, count = len(encoded["text"].split()), len(encoded["tokens"]) - 2
        counts = t["counts"].format(words=words, pieces=count)
        heading(canvas, y + 14, t[name], counts)
        canvas.text(EDGE, y + 72, t["ids"], size=SMALL, look="quiet", anchor="start")
        row(canvas, y + 26, EDGE + 28, encoded, "ids")
    heading(canvas, 248, t["pair"], t["segments"])
    row(canvas, 260, EDGE, facts()["pairs"][language], "segments")
    canvas.text(WIDTH / 2, 340, t["legend"], size=SMALL)
    return canvas


def heading(canvas: Canvas, y: float, name: str, about: str) -> None:
    """Write the name of a row at the left, and a remark at the right."""
    canvas.text(EDGE, y, name, look="bold", anchor="start", size=NORMAL)
    canvas.text(WIDTH - EDGE, y, about, size=SMALL, look="quiet", anchor="end")
