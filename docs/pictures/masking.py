"""The two tasks of pre-training: masked words (MLM) and next sentence (NSP)."""

from canvas import EDGE, NORMAL, SMALL, WIDTH, Canvas, Texts

TEXTS = {
    "en": {
        "title": "Masked words and next sentences",
        "about": "Above, a word of a sentence is hidden behind [MASK], and the model guesses it "
        "from the words around it. Below, the model decides whether one sentence follows "
        "another.",
        "mlm": "Masked words (MLM)",
        "before": "The cat drank its",
        "after": "and fell asleep.",
        "guess": "which word is it?",
        "word": "milk",
        "chosen": "15 % of the pieces are chosen. Of these:",
        "masked": "80 %: [MASK]",
        "random": "10 %: a random word",
        "kept": "10 %: unchanged",
        "nsp": "Next sentence (NSP)",
        "first": "The train was late.",
        "second": "We missed the film.",
        "other": "Lemons grow on trees.",
        "yes": "follows",
        "no": "does not follow",
        "free": "Neither needs labels: the text itself has the answers.",
    },
    "es": {
        "title": "Palabras ocultas y oración siguiente",
        "about": "Arriba, una palabra de una oración se oculta tras [MASK] y el modelo la adivina "
        "por las palabras de alrededor. Abajo, el modelo decide si una oración sigue a otra.",
        "mlm": "Palabras ocultas (MLM)",
        "before": "El gato bebió su",
        "after": "y se durmió.",
        "guess": "¿qué palabra es?",
        "word": "leche",
        "chosen": "Se elige el 15 % de los tokens. De ellos:",
        "masked": "80 %: [MASK]",
        "random": "10 %: otro al azar",
        "kept": "10 %: sin cambiar",
        "nsp": "Oración siguiente (NSP)",
        "first": "El tren llegó tarde.",
        "second": "Nos perdimos la película.",
        "other": "El limón crece en un árbol.",
        "yes": "la sigue",
        "no": "no la sigue",
        "free": "No hacen falta etiquetas: las respuestas están en el propio texto.",
    },
}

SENTENCE, RULE, PAIRS = 52, 176, 262
SHARES = (("masked", "c1", 0.8), ("random", "c3", 0.1), ("kept", "quiet", 0.1))
"""Texts, colors and shares of what happens to chosen pieces."""


def masked_words(canvas: Canvas, t: Texts) -> None:
    """Draw a sentence with a hidden word, and what happens to the pieces that are chosen."""
    canvas.text(EDGE, 36, t["mlm"], look="bold", anchor="start")
    x, width = 230, 100
    canvas.labeled_box(EDGE, SENTENCE, 200, 34, [t["before"]])
    canvas.labeled_box(x, SENTENCE, width, 34, ["[MASK]"], look="c1", text_look="bold")
    canvas.labeled_box(340, SENTENCE, WIDTH - EDGE - 340, 34, [t["after"]])
    center = x + width / 2
    canvas.arrow((center, SENTENCE + 38), (center, SENTENCE + 60), look="c1")
    word = [t["word"]]
    canvas.labeled_box(x, SENTENCE + 62, width, 30, word, look="c2", text_look="c2 bold")
    canvas.text(x - 12, SENTENCE + 82, t["guess"], size=SMALL, look="quiet", anchor="end")
    canvas.text(EDGE, RULE, t["chosen"], size=SMALL, look="quiet", anchor="start")
    start = float(EDGE)
    for n, (key, look, share) in enumerate(SHARES):
        width, left = share * (WIDTH - 2 * EDGE), EDGE + 204 * n
        canvas.bar(start, RULE + 9, width - 2, 12, look)
        canvas.bar(left, RULE + 31, 12, 12, look)
        canvas.text(left + 19, RULE + 42, t[key], size=SMALL, anchor="start", within=180)
        start += width


def next_sentences(canvas: Canvas, t: Texts) -> None:
    """Draw two pairs of sentences, one of which belongs together."""
    canvas.text(EDGE, PAIRS, t["nsp"], look="bold", anchor="start")
    for row, (other, verdict, look) in enumerate((("second", "yes", "c2"), ("other", "no", "c1"))):
        y = PAIRS + 14 + 42 * row
        canvas.labeled_box(EDGE, y, 190, 34, [t["first"]])
        canvas.text(EDGE + 201, y + 22, "+", size=NORMAL, look="quiet")
        canvas.labeled_box(EDGE + 212, y, 206, 34, [t[other]])
        canvas.arrow((EDGE + 422, y + 17), (EDGE + 442, y + 17), look=look)
        canvas.labeled_box(EDGE + 444, y, 116, 34, [t[verdict]], look=look, size=SMALL)


def draw(t: Texts, language: str) -> Canvas:
    """Draw masked words above next sentences."""
    del language
    canvas = Canvas(396)
    masked_words(canvas, t)
    next_sentences(canvas, t)
    canvas.text(WIDTH / 2, 378, t["free"], size=SMALL)
    return canvas
