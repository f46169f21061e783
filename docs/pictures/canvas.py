"""The canvas of a picture: shapes and text in SVG, in the colors of the run report.

A picture is 600 units wide, about pixels. Its text is text, so that it can be selected, searched
and read aloud. Which font draws it depends on the reader's computer, so `Canvas.text` measures with
the widths of Helvetica and a margin, and fails where a text does not fit its box.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from flaxbert.report.html import Html, join, tag
from flaxbert.report.style import DARK, LIGHT

WIDTH = 600
EDGE = 20
"""Free space at the left and right edges."""

SMALL, NORMAL, TITLE = 13, 15, 17
"""Sizes of text. At 720 pixels of width the smallest is 15.6, on a phone about 8."""

MARGIN = 1.06
"""Room for fonts that are wider than Helvetica."""

WIDTHS = {
    222: "ijl|'’",
    278: "It.,:;!/[]f \u00a0·",
    333: "¡r()-`“”",
    355: '"',
    500: "csxyzvkJ",
    556: "0123456789abdeghnopqu#?¿_$L«»\u2013",
    584: "+=<>",
    611: "FTZ",
    667: "ABEKPSVXY&",
    722: "CDHNRUw",
    778: "GOQ",
    833: "mM",
    889: "%",
    944: "W",
    1000: "…",
}
"""Widths of Helvetica's characters, in thousandths of the size."""

WIDTH_OF = {char: width for width, chars in WIDTHS.items() for char in chars}
BOLD = 1.07
"""Bold text is wider by this factor."""

COLORS = 6
"""Colors of the report that pictures use, by the classes c0 to c5."""


def _color(number: int) -> str:
    """Return the rules of a color."""
    name = f"c{number}"
    paint = f"var(--{name})"
    return (
        f"text.{name}, .bar.{name}, .head.{name} {{ fill:{paint} }} "
        f".box.{name} {{ fill:{paint}; fill-opacity:.13; stroke:{paint} }} "
        f".line.{name}, .frame.{name} {{ stroke:{paint} }}\n"
    )


STYLE = f"""
svg {{ {LIGHT} }}
@media (prefers-color-scheme: dark) {{ svg {{ {DARK} }} }}
.card {{ fill:var(--ground); stroke:var(--grid) }}
text {{ fill:var(--ink);
  font-family:Helvetica,Arial,"Liberation Sans",Roboto,"Noto Sans",sans-serif }}
text.quiet {{ fill:var(--quiet) }} text.bold {{ font-weight:700 }}
.box {{ fill:var(--panel); stroke:var(--rule) }}
.box.empty {{ fill:none; stroke:var(--rule); stroke-dasharray:3 3 }}
.bar.quiet {{ fill:var(--quiet) }} .bar.track {{ fill:var(--grid) }}
.heat {{ fill:rgb(var(--heat)) }} .frame {{ fill:none; stroke-width:2.5 }}
.line {{ fill:none; stroke:var(--quiet); stroke-width:1.5; stroke-linejoin:round }}
.line.grid {{ stroke:var(--grid); stroke-width:1 }}
.head {{ fill:var(--quiet) }}
{"".join(map(_color, range(COLORS)))}
.line.curve {{ stroke-width:2.5; stroke-linecap:round }} .line.dashed {{ stroke-dasharray:7 4 }}
.line.dotted {{ stroke-dasharray:1.5 4.5 }}
"""


def measure(text: str, size: float, *, bold: bool = False) -> float:
    """Return the largest width that a text is likely to have, in units.

    Raises:
      ValueError: for a character of unknown width.
    """
    bare = [c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c)]
    if unknown := sorted(set(bare) - set(WIDTH_OF)):
        raise ValueError(f"{text!r}: no width is known of {unknown}. Add them to canvas.WIDTHS.")
    width = sum(WIDTH_OF[char] for char in bare) / 1000 * size * MARGIN
    return width * BOLD if bold else width


class Texts(Mapping[str, str]):
    """The texts of a picture in one language. It records which were used."""

    def __init__(self, texts: Mapping[str, str]):
        self._texts, self.used = texts, set[str]()

    def __getitem__(self, key: str) -> str:
        self.used.add(key)
        return self._texts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


class Canvas:
    """A picture in the making."""

    def __init__(self, height: float):
        self.height = height
        self._shapes: list[Html] = []

    def add(self, name: str, *children: object, **attributes: object) -> None:
        """Add an element; numbers are rounded to two digits."""
        rounded = {
            key: f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
            for key, value in attributes.items()
        }
        self._shapes.append(tag(name, *children, **rounded))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = NORMAL,
        look: str = "",
        anchor: str = "middle",
        within: float | None = None,
    ) -> None:
        """Add a line of text.

        Args:
          x: its start, middle or end, as `anchor` says.
          y: its baseline.
          text: what it says.
          size: of the font.
          look: classes, such as "bold quiet".
          anchor: start, middle or end.
          within: the width that it must fit; by default up to the picture's edges.

        Raises:
          ValueError: if the text is wider, or if the size is too small to read.
        """
        if size < SMALL:
            raise ValueError(f"{text!r}: size {size} is too small to read; use {SMALL} or more.")
        share = {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
        width = measure(text, size, bold="bold" in look.split())
        left = x - share * width
        if within is None and (left < 8 or left + width > WIDTH - 8):
            raise ValueError(f"{text!r}: from {left:.0f} to {left + width:.0f} is off the edge.")
        if within is not None and width > within:
            raise ValueError(f"{text!r}: needs {width:.0f} units, but its box has {within:.0f}.")
        place = {"x": float(x), "y": float(y), "font_size": size, "class_": look or None}
        self.add("text", text, **place, text_anchor=None if anchor == "start" else anchor)

    def lines(
        self, x: float, y: float, texts: Sequence[str], *, step: float = 19, **options: object
    ) -> None:
        """Add lines of text below each other."""
        for number, line in enumerate(texts):
            self.text(x, y + step * number, line, **options)  # type: ignore[arg-type]

    def box(
        self, x: float, y: float, width: float, height: float, look: str = "", radius: float = 7
    ) -> None:
        """Add a rounded rectangle."""
        self.add(
            "rect",
            x=float(x),
            y=float(y),
            width=float(width),
            height=float(height),
            rx=float(radius),
            class_=f"box {look}".strip(),
        )

    def labeled_box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        texts: Sequence[str],
        *,
        look: str = "",
        size: float = NORMAL,
        text_look: str = "",
        radius: float = 7,
    ) -> None:
        """Add a rectangle with centered lines; from the second on they are small and quiet."""
        self.box(x, y, width, height, look, radius)
        sizes = [size, *[SMALL] * (len(texts) - 1)]
        top = y + height / 2 - (len(texts) - 1) * 9 + 0.35 * size - 0.5
        for number, line in enumerate(texts):
            kind = text_look if number == 0 else "quiet"
            place = x + width / 2, top + 18 * number
            self.text(*place, line, size=sizes[number], look=kind, within=width - 6)

    def bar(
        self, x: float, y: float, width: float, height: float, look: str, radius: float = 2
    ) -> None:
        """Add a bar without a border."""
        size = {"width": float(width), "height": float(height)}
        self.add("rect", x=float(x), y=float(y), **size, rx=radius, class_=f"bar {look}")

    def path(self, d: str, look: str = "") -> None:
        """Add a line."""
        self.add("path", d=d, class_=f"line {look}".strip())

    def arrow(self, *points: tuple[float, float], look: str = "") -> None:
        """Add a line of straight pieces, with a head at its end that points along the last."""
        (x0, y0), (x1, y1) = points[-2:]
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        end = x1 - 7 * dx, y1 - 7 * dy
        self.path("M" + "L".join(f"{x:g} {y:g}" for x, y in [*points[:-1], end]), look)
        corners = [(x1, y1)] + [
            (x1 - 9 * dx + side * 4.5 * dy, y1 - 9 * dy - side * 4.5 * dx) for side in (1, -1)
        ]
        d = "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in corners) + "Z"
        self.add("path", d=d, class_=f"head {look}".strip())

    def svg(self, language: str, title: str, about: str) -> str:
        """Return the picture.

        Args:
          language: its code, such as "es".
          title: its name.
          about: what is to be seen, for those who do not see it.
        """
        size = {"width": WIDTH, "height": self.height}
        card = tag("rect", x=0.5, y=0.5, width=WIDTH - 1, height=self.height - 1, rx=10,
                   class_="card")  # fmt: skip
        parts = [
            tag("title", title, id="title"),
            tag("desc", about, id="about"),
            tag("style", Html(STYLE)),
            card,
            *self._shapes,
        ]
        content = join(*(Html(f"\n{part}") for part in parts), "\n")
        box = f"0 0 {WIDTH} {self.height}"
        attributes = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": box, "lang": language}
        named = {"role": "img", "aria_labelledby": "title about"}
        return tag("svg", content, **attributes, **size, **named) + "\n"
