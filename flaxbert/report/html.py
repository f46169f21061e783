"""HTML as text: elements, tables and user text, which is always escaped."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flaxbert.messages.language import amount, language, tr

LONGEST = 320
"""Characters of a user's text in a cell; longer ones are shortened, with a note."""

INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
"""Control characters and lone surrogates, which neither HTML nor UTF-8 can hold."""


class Html(str):
    """Text that is HTML. All other text is escaped where it becomes part of an element."""

    __slots__ = ()


def join(*parts: object) -> Html:
    """Return parts one after another as HTML; None is left out, and plain text is escaped."""
    return Html("".join(_escape(part) for part in parts if part is not None))


def _escape(part: object) -> str:
    if isinstance(part, Html):
        return part
    return html.escape(INVISIBLE.sub("\ufffd", str(part)), quote=True)


def tag(name: str, *children: object, **attributes: object) -> Html:
    """Return an element.

    Args:
      name: its name, such as "td".
      children: HTML, or text to escape.
      attributes: their values; `class_` stands for class, `stroke_width` for stroke-width.
        Attributes whose value is None are left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{join(*children)}</{name}>")


def section(title: str, *children: object) -> Html:
    """Return a part of the page with its heading; empty without content."""
    content = join(*children)
    if not content:
        return content
    heading = tag("h2", title, id=key_of(title))
    return tag("section", heading, content, aria_labelledby=key_of(title))


def key_of(title: str) -> str:
    """Return the id of a heading, for links to it."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def contents(titles: Iterable[str]) -> Html:
    """Return links to the parts of a page."""
    links = [tag("li", tag("a", title, href=f"#{key_of(title)}")) for title in titles]
    return tag("nav", tag("ul", *links), aria_label=tr("Contents"))


def note(*parts: object) -> Html:
    """Return a paragraph in small type."""
    return tag("p", *parts, class_="note")


def shortened(text: str, most: int = LONGEST) -> tuple[str, str]:
    """Return a text's first characters, and a note about the others; "" if there are none."""
    if len(text) <= most:
        return text, ""
    return f"{text[:most]}…", " " + tr("({n} characters, shortened)", n=len(text))


def user_text(text: object, most: int = LONGEST) -> Html:
    """Return a user's text, isolated in its own direction and shortened."""
    shown, about = shortened(str(text), most)
    return join(tag("bdi", shown), tag("span", about, class_="note") if about else None)


def number(value: float | None) -> str:
    """Return a number with three digits or more; a dash for None and for what is not finite."""
    if value is None or not math.isfinite(value):
        return "-"
    if abs(value) >= 1000 or value == int(value):
        return amount(value)
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}" if abs(value) >= 0.001 else f"{value:.2g}"


def share(part: float, whole: float) -> str:
    """Return a share in percent; a dash without a whole."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numeric: Sequence[str] = (),
    classes: str = "",
) -> Html:
    """Return a table that scrolls sideways on a narrow screen; empty without rows.

    Args:
      caption: what it shows.
      columns: the headers; the first column holds the headers of the rows.
      rows: one cell for each column.
      numeric: columns that are aligned to the right.
      classes: CSS classes.
    """
    kinds = ["number" if column in numeric else None for column in columns]
    lines = [_line(cells, kinds) for cells in rows]
    if not lines:
        return Html()
    head = [
        tag("th", column, scope="col", class_=kind)
        for column, kind in zip(columns, kinds, strict=True)
    ]
    content = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *head)),
        tag("tbody", *lines),
        class_=classes or None,
    )
    return tag("div", content, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _line(cells: Sequence[object], kinds: Sequence[str | None]) -> Html:
    first, *others = zip(cells, kinds, strict=True)
    header = tag("th", first[0], scope="row", class_=first[1])
    return tag("tr", header, *(_cell(cell, kind) for cell, kind in others))


def _cell(cell: object, kind: str | None) -> Html:
    if isinstance(cell, Html) and cell.startswith("<td"):
        return cell
    return tag("td", cell, class_=kind)


def facts(values: Mapping[str, Any]) -> Html:
    """Return a list of names and values; empty without any."""
    pairs = [
        tag("div", tag("dt", name), tag("dd", value))
        for name, value in values.items()
        if value not in (None, "")
    ]
    return tag("dl", *pairs) if pairs else Html()


def page(title: str, style: str, *children: object) -> str:
    """Return a complete page."""
    head = join(
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        tag("title", title),
        tag("style", Html(style)),
    )
    body = tag("body", tag("main", *children))
    return f'<!DOCTYPE html>\n<html lang="{language()}"><head>{head}</head>{body}</html>\n'
