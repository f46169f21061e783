"""The tags of words become tags of their first pieces."""

from canvas import EDGE, SMALL, WIDTH, Canvas, Texts
from records import facts
from wordpieces import cells

TEXTS = {
    "en": {
        "title": "Tags of words and of pieces",
        "about": "The words of a sentence with their tags, and below them their pieces. Only the "
        "first piece of each word has the tag; the others do not count. Tags that begin with B "
        "and I together are an entity.",
        "words": "words",
        "pieces": "pieces",
        "tags": "tags",
        "found": "entities",
        "PER": "person",
        "LOC": "place",
        "first": "Only the first piece of a word has a tag; the others do not count.",
        "scheme": "B: an entity begins. I: it goes on. O: no entity.",
    },
    "es": {
        "title": "Etiquetas de palabras y de piezas",
        "about": "Las palabras de una oración con sus etiquetas, y debajo sus piezas. Solo la "
        "primera pieza de cada palabra lleva la etiqueta; las demás no cuentan. Las etiquetas "
        "que empiezan por B y por I forman juntas una entidad.",
        "words": "palabras",
        "pieces": "piezas",
        "tags": "etiquetas",
        "found": "entidades",
        "PER": "persona",
        "LOC": "lugar",
        "first": "Solo la primera pieza de cada palabra lleva etiqueta; las demás no cuentan.",
        "scheme": "B: empieza una entidad. I: continúa. O: no hay entidad.",
    },
}

LOOKS = {"PER": "c3", "LOC": "c2", "": ""}
LABEL, NO_TAG = 68, "\u2013"
WORDS, PIECES, TAGS, FOUND = 24, 84, 144, 204


def spans(tags: list[str]) -> list[tuple[int, int, str]]:
    """Return the first word, the end and the type of each entity."""
    entities = []
    for start, tag in enumerate(tags):
        if tag[0] == "B":
            end = start + 1
            while end < len(tags) and tags[end][0] == "I":
                end += 1
            entities.append((start, end, tag[2:]))
    return entities


def draw(t: Texts, language: str) -> Canvas:
    """Draw words, pieces, tags and entities below each other."""
    canvas, sentence = Canvas(316), facts()["tagged"][language]
    words, tags = sentence["words"], sentence["tags"]
    pieces = list(zip(sentence["tokens"], sentence["word"], sentence["first"], strict=True))[1:-1]
    left, room = EDGE + LABEL, WIDTH - 2 * EDGE - LABEL
    shown = [tags[word] if first else NO_TAG for _, word, first in pieces]
    widths = cells([token for token, *_ in pieces], room, [f"{tag}  " for tag in shown], 24)
    places = [(left + x, width) for x, width in widths]
    for y, key in ((WORDS, "words"), (PIECES, "pieces"), (TAGS, "tags"), (FOUND, "found")):
        canvas.text(EDGE, y + 19, t[key], size=SMALL, look="quiet", anchor="start", within=LABEL)
    edges = {}
    for n, word in enumerate(words):
        parts = [place for place, (_, number, _) in zip(places, pieces, strict=True) if number == n]
        x, end = parts[0][0], parts[-1][0] + parts[-1][1]
        edges[n] = x, end
        look = LOOKS[tags[n][2:]]
        canvas.labeled_box(x, WORDS, end - x, 29, [word], look=look, size=SMALL, radius=5)
    for (token, number, first), tag, (x, width) in zip(pieces, shown, places, strict=True):
        look, middle = LOOKS[tags[number][2:]], x + width / 2
        canvas.box(x, PIECES, width, 29, look if first else "empty", radius=4)
        canvas.text(middle, PIECES + 19, token, size=SMALL, within=width)
        if first:
            canvas.arrow((middle, PIECES + 32), (middle, TAGS - 1), look=look)
            canvas.path(f"M{middle:g} {WORDS + 31}V{PIECES - 2}", look)
        weight = f"{look} bold" if first else "quiet"
        canvas.text(middle, TAGS + 18, tag, size=SMALL, look=weight, within=width)
    for start, end, kind in spans(tags):
        x, last = edges[start][0], edges[end - 1][1]
        canvas.path(f"M{x + 2:g} {TAGS + 30}v7H{last - 2:g}v-7", LOOKS[kind])
        canvas.text((x + last) / 2, FOUND + 19, t[kind], size=SMALL, look=f"{LOOKS[kind]} bold",
                    within=last - x + 30)  # fmt: skip
    canvas.text(WIDTH / 2, 264, t["first"], size=SMALL)
    canvas.text(WIDTH / 2, 288, t["scheme"], size=SMALL, look="quiet")
    return canvas
