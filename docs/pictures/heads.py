"""One encoder, and an output layer for each task: what it reads, how large it is, what it gives."""

from canvas import EDGE, NORMAL, SMALL, WIDTH, Canvas, Texts
from records import facts, number

TEXTS = {
    "en": {
        "title": "One encoder, seven output layers",
        "about": "The same encoder stands in front of seven output layers. Each is small, and "
        "reads either the vector of [CLS] or that of every token.",
        "encoder": "Encoder",
        "size": "parameters",
        "same": "the same for all;",
        "start": "each task trains",
        "copy": "its own copy",
        "cls": "reads [CLS]",
        "tokens": "reads all tokens",
        "classification": "Text classification",
        "classification_gives": "one of three labels: positive",
        "multi_label": "Several labels",
        "multi_label_gives": "any of five: sports yes, politics no, …",
        "regression": "Regression",
        "regression_gives": "a number: 4.2 stars",
        "multiple_choice": "Multiple choice",
        "multiple_choice_gives": "a score for each answer: B is best",
        "question_answering": "Question answering",
        "question_answering_gives": "start and end of the answer in the text",
        "token_classification": "Named entities",
        "token_classification_gives": "one of seven tags for each word: a place",
        "pretraining": "Pre-training",
        "pretraining_gives": "hidden words; does text 2 follow text 1?",
    },
    "es": {
        "title": "Un codificador, siete capas de salida",
        "about": "El mismo codificador está delante de siete capas de salida. Cada una es "
        "pequeña y lee el vector de [CLS] o el de cada token.",
        "encoder": "Codificador",
        "size": "parámetros",
        "same": "igual para todas;",
        "start": "cada tarea ajusta",
        "copy": "su copia",
        "cls": "lee [CLS]",
        "tokens": "lee cada token",
        "classification": "Clasificación de textos",
        "classification_gives": "una de tres etiquetas: positivo",
        "multi_label": "Varias etiquetas",
        "multi_label_gives": "de cinco, las que sean: deportes sí, …",
        "regression": "Regresión",
        "regression_gives": "un número: 4.2 estrellas",
        "multiple_choice": "Opción múltiple",
        "multiple_choice_gives": "una puntuación por opción: gana la B",
        "question_answering": "Preguntas y respuestas",
        "question_answering_gives": "dónde empieza y acaba la respuesta",
        "token_classification": "Entidades con nombre",
        "token_classification_gives": "una de siete etiquetas por palabra",
        "pretraining": "Preentrenamiento",
        "pretraining_gives": "palabras ocultas; ¿sigue el texto 2 al 1?",
    },
}

READS = {
    "classification": "cls",
    "multi_label": "cls",
    "regression": "cls",
    "multiple_choice": "cls",
    "question_answering": "tokens",
    "token_classification": "tokens",
    "pretraining": "tokens",
}
"""The tasks, and what their output layers read."""

ENCODER, BOX, GAP = 122, 128, 30
ROW, HEIGHT, TOP = 54, 46, 38


def draw(t: Texts, language: str) -> Canvas:
    """Draw the encoder at the left, and a row for each task."""
    canvas = Canvas(TOP + ROW * len(READS) + 12)
    last = TOP + ROW * (len(READS) - 1) + HEIGHT
    canvas.box(EDGE, TOP, ENCODER, last - TOP, "c0")
    middle, center = EDGE + ENCODER / 2, (TOP + last) / 2
    canvas.text(middle, center - 20, t["encoder"], look="bold", size=NORMAL, within=ENCODER - 6)
    rest = [t["same"], t["start"], t["copy"]]
    canvas.lines(middle, center + 2, rest, size=SMALL, look="quiet", within=ENCODER - 4)
    left = EDGE + ENCODER + GAP
    canvas.text(left + BOX / 2, TOP - 12, t["size"], size=SMALL, look="quiet", within=BOX)
    for row, (task, reads) in enumerate(READS.items()):
        y = TOP + ROW * row
        canvas.arrow((EDGE + ENCODER + 3, y + HEIGHT / 2), (left - 3, y + HEIGHT / 2))
        size = number(facts()["heads"][task], language)
        look = "empty" if task == "pretraining" else "c1"
        canvas.labeled_box(left, y, BOX, HEIGHT, [size, t[reads]], look=look)
        x, room = left + BOX + 14, WIDTH - left - BOX - 24
        canvas.text(x, y + 19, t[task], look="bold", anchor="start", within=room)
        about = t[f"{task}_gives"]
        canvas.text(x, y + 38, about, size=SMALL, look="quiet", anchor="start", within=room)
    return canvas
