"""Draw the pictures of the guide, in each language, as SVG.

    python docs/pictures/draw.py            # writes docs/en/pictures/ and docs/es/pictures/
    python docs/pictures/draw.py --check    # fails if a written picture is not up to date

A picture is a module with TEXTS, {language: {key: text}}, and draw(). Each has the texts "title"
and "about", which are read aloud instead of the picture. What was measured or computed with a model
is in facts.json (record_facts.py) and runs.json (record_runs.py).
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import answer_span
import confusion
import curves
import data_parts
import entity_pieces
import heads
import learning_rate
import masking
import packing
import training_step
import two_steps
import wordpieces
from canvas import Texts

PICTURES: dict[str, ModuleType] = {
    module.__name__: module
    for module in (
        two_steps,
        masking,
        heads,
        wordpieces,
        training_step,
        learning_rate,
        data_parts,
        curves,
        confusion,
        answer_span,
        entity_pieces,
        packing,
    )
}
LANGUAGES = ("en", "es")
DOCS = Path(__file__).parents[1]


def picture(name: str, language: str) -> str:
    """Return a picture as SVG.

    Raises:
      ValueError: for a text that does not fit its box, or that the picture does not show.
    """
    module = PICTURES[name]
    texts = Texts(module.TEXTS[language])
    canvas = module.draw(texts, language)
    drawing = canvas.svg(language, texts["title"], texts["about"])
    if unused := sorted(set(texts) - texts.used):
        raise ValueError(f"{name}.py: TEXTS[{language!r}] has {unused}, which are not drawn.")
    return drawing


def files() -> Iterator[tuple[Path, str]]:
    """Yield each file with its content."""
    for language in LANGUAGES:
        for name in PICTURES:
            yield DOCS / language / "pictures" / f"{name}.svg", picture(name, language)


def outdated() -> list[Path]:
    """Return the files that are missing or have other content."""
    return [
        path
        for path, content in files()
        if not path.is_file() or path.read_text(encoding="utf-8") != content
    ]


def write() -> None:
    """Write all pictures."""
    for path, content in files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="\n")


def main(argv: list[str]) -> int:
    """Write the pictures, or with --check compare them, and return the exit status."""
    if argv not in ([], ["--check"]):
        print(__doc__)
        return 2
    if not argv:
        write()
        return 0
    paths = outdated()
    for path in paths:
        print(f"{path}: is not up to date. Run python docs/pictures/draw.py", file=sys.stderr)
    return 1 if paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
