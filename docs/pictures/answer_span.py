"""An answer as the words with the most probable start and end."""

from canvas import EDGE, NORMAL, SMALL, WIDTH, Canvas, Texts
from wordpieces import cells

TEXTS = {
    "en": {
        "title": "The answer is a span of the text",
        "about": "The words of a text, with two bars above each: the probability that the answer "
        "starts there, and that it ends there. The highest start is Rosa, the highest end is "
        "Vidal, so the answer is Rosa Vidal. The bars of [CLS] stand for no answer.",
        "question": "Who built the library?",
        "context": "Rosa Vidal built the old library in 1912 .",
        "start": "starts here",
        "end": "ends here",
        "answer": "answer",
        "none": "no answer",
        "note": "Illustration: the probabilities are made up. Each of the two adds up to 1.",
    },
    "es": {
        "title": "La respuesta es un tramo del texto",
        "about": "Las palabras de un texto, con dos barras sobre cada una: la probabilidad de "
        "que la respuesta empiece ahí y la de que termine ahí. El inicio más alto es Rosa y el "
        "final más alto es Vidal, así que la respuesta es Rosa Vidal. Las barras de [CLS] "
        "significan que no hay respuesta.",
        "question": "¿Quién fundó la biblioteca?",
        "context": "Rosa Vidal fundó la vieja biblioteca en 1912 .",
        "start": "empieza aquí",
        "end": "termina aquí",
        "answer": "respuesta",
        "none": "no la hay",
        "note": "Ilustración: las probabilidades son inventadas. Cada serie suma 1.",
    },
}

START = (0.06, 0.74, 0.08, 0.02, 0.02, 0.03, 0.02, 0.01, 0.02, 0.0)
END = (0.06, 0.05, 0.78, 0.02, 0.01, 0.01, 0.04, 0.01, 0.02, 0.0)
"""Of [CLS] and of each word of the context."""

ANSWER = (1, 2)
"""The first and the last word of the answer."""

BASE, HIGH = 246, 170
"""Where bars stand, and the height of a probability of 1."""


def legend(canvas: Canvas, t: Texts) -> None:
    """Write the names of both kinds of bars."""
    for y, key, look in ((88, "start", "c0"), (110, "end", "c1")):
        canvas.bar(WIDTH - EDGE - 140, y - 11, 13, 13, look)
        canvas.text(WIDTH - EDGE - 120, y, t[key], size=SMALL, anchor="start", within=120)


def draw(t: Texts, language: str) -> Canvas:
    """Draw the question, and below it the text with bars."""
    del language
    canvas = Canvas(366)
    words = ["[CLS]", *t["context"].split()]
    canvas.labeled_box(EDGE, 20, WIDTH - 2 * EDGE, 34, [t["question"]], text_look="bold")
    legend(canvas, t)
    canvas.path(f"M{EDGE} {BASE}H{WIDTH - EDGE}")
    places = [(EDGE + x, width) for x, width in cells(words, WIDTH - 2 * EDGE, most=30)]
    for n, (word, start, end, (x, width)) in enumerate(zip(words, START, END, places, strict=True)):
        middle = x + width / 2
        for side, share, look in ((-15, start, "c0"), (1, end, "c1")):
            canvas.bar(middle + side, BASE - HIGH * share, 14, HIGH * share, look)
        look = "c2" if ANSWER[0] <= n <= ANSWER[1] else "empty" if n == 0 else ""
        canvas.labeled_box(x, BASE + 10, width, 32, [word], look=look, size=SMALL, radius=4)
    first, last = places[ANSWER[0]][0], sum(places[ANSWER[1]])
    canvas.path(f"M{first + 2:g} {BASE + 48}v8H{last - 2:g}v-8", "c2")
    canvas.text((first + last) / 2, BASE + 76, t["answer"], size=NORMAL, look="c2 bold")
    canvas.text(EDGE, BASE - 18, t["none"], size=SMALL, look="quiet", anchor="start", within=66)
    canvas.text(WIDTH / 2, canvas.height - 16, t["note"], size=SMALL, look="quiet")
    return canvas
