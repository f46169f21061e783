"""The parts of labeled data: what each is for, and how often it is used."""

from canvas import EDGE, NORMAL, SMALL, WIDTH, Canvas, Texts

TEXTS = {
    "en": {
        "title": "The parts of the data",
        "about": "A bar stands for 1,000 labeled examples. 700 train the model, 100 set the "
        "threshold, 100 measure the model while it is developed, and 100 test it at the end.",
        "whole": "1,000 labeled examples, for instance",
        "train": "Training",
        "train_is": "the model learns",
        "train_for": "from these",
        "train_when": "in every epoch",
        "calibration": "Calibration",
        "calibration_is": "sets thresholds:",
        "calibration_for": "spam from 0.62 on",
        "calibration_when": "at each evaluation",
        "dev": "Development",
        "dev_is": "compares settings",
        "dev_for": "and epochs",
        "dev_when": "as often as you like",
        "test": "Test",
        "test_is": "says how good the",
        "test_for": "final model is",
        "test_when": "once, at the end",
        "rule": "No example is in two parts: a model knows by heart what it was trained on.",
    },
    "es": {
        "title": "Las partes de los datos",
        "about": "Una barra representa 1000 ejemplos etiquetados. Con 700 se entrena el modelo, "
        "con 100 se fija el umbral, con 100 se mide el modelo mientras se desarrolla y con 100 "
        "se prueba al final.",
        "whole": "1000 ejemplos etiquetados, por ejemplo",
        "train": "Entrenamiento",
        "train_is": "de estos aprende",
        "train_for": "el modelo",
        "train_when": "en cada época",
        "calibration": "Calibración",
        "calibration_is": "fija umbrales:",
        "calibration_for": "spam desde 0.62",
        "calibration_when": "en cada evaluación",
        "dev": "Desarrollo",
        "dev_is": "compara ajustes",
        "dev_for": "y épocas",
        "dev_when": "cuando quieras",
        "test": "Prueba",
        "test_is": "dice cómo es el",
        "test_for": "modelo final",
        "test_when": "una vez, al final",
        "rule": "Ningún ejemplo está en dos partes: el modelo se sabe lo que ya ha visto.",
    },
}

PARTS = {"train": (700, "c0"), "calibration": (100, "c3"), "dev": (100, "c2"), "test": (100, "c1")}
"""Examples and colors of the parts."""

GAP = 10
CARD = (WIDTH - 2 * EDGE - 3 * GAP) / 4
BAR, CARDS, HEIGHT = 48, 146, 118


def draw(t: Texts, language: str) -> Canvas:
    """Draw a bar that is divided, and a card for each part below it."""
    del language
    canvas, left = Canvas(318), float(EDGE)
    canvas.text(WIDTH / 2, 32, t["whole"])
    total = sum(size for size, _ in PARTS.values())
    for n, (part, (size, look)) in enumerate(PARTS.items()):
        width, x = (WIDTH - 2 * EDGE) * size / total, EDGE + n * (CARD + GAP)
        middle, center = left + width / 2, x + CARD / 2
        canvas.box(left + 1.5, BAR, width - 3, 42, look, radius=4)
        canvas.text(middle, BAR + 27, str(size), look="bold", within=width)
        bend = f"V{BAR + 56}L{center:g} {CARDS - 16}V{CARDS - 2}"
        canvas.path(f"M{middle:g} {BAR + 44}{bend}", look)
        canvas.box(x, CARDS, CARD, HEIGHT, look)
        canvas.text(center, CARDS + 27, t[part], look="bold", within=CARD - 8)
        lines = [t[f"{part}_is"], t[f"{part}_for"]]
        canvas.lines(center, CARDS + 56, lines, size=SMALL, within=CARD - 6)
        when = t[f"{part}_when"]
        canvas.text(center, CARDS + 102, when, size=SMALL, look="quiet", within=CARD - 6)
        left += width
    canvas.text(WIDTH / 2, 296, t["rule"], size=NORMAL)
    return canvas
