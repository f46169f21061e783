"""One training step, with the numbers of the first step of the quick start."""

from collections.abc import Sequence

from canvas import EDGE, NORMAL, SMALL, WIDTH, Canvas, Texts, measure
from records import facts, number

TEXTS = {
    "en": {
        "title": "One training step",
        "about": "A circle of six boxes: the model predicts probabilities for a sentence, the "
        "loss measures how wrong they are, the gradient says how each parameter must change, "
        "and after the step the right label has a higher probability. Then the next batch "
        "follows.",
        "batch": "1. A batch",
        "batch_of": "32 sentences, such as",
        "label": "label: negative",
        "predict": "2. Prediction",
        "loss": "3. Loss",
        "loss_is": "how wrong it is",
        "loss_batch": "mean of the batch",
        "gradient": "4. Gradient",
        "gradient_is": "for each parameter:",
        "gradient_says": "up or down",
        "gradient_aim": "to lower the loss?",
        "update": "5. Small step",
        "update_all": "all layers change,",
        "update_by": "each number by at most",
        "update_rate": "(the learning rate)",
        "after": "6. Afterwards",
        "after_loss": "loss: {loss}",
        "next": "next batch",
        "negative": "negative",
        "neutral": "neutral",
        "positive": "positive",
    },
    "es": {
        "title": "Un paso de entrenamiento",
        "about": "Un círculo de seis cajas: el modelo predice probabilidades para una frase, la "
        "pérdida mide cuánto falla, el gradiente dice cómo debe cambiar cada parámetro, y "
        "después del paso la etiqueta correcta tiene más probabilidad. Luego sigue el siguiente "
        "lote.",
        "batch": "1. Un lote",
        "batch_of": "32 frases, por ejemplo",
        "label": "etiqueta: negativo",
        "predict": "2. Predicción",
        "loss": "3. Pérdida",
        "loss_is": "cuánto se equivoca",
        "loss_batch": "media del lote",
        "gradient": "4. Gradiente",
        "gradient_is": "cada parámetro:",
        "gradient_says": "¿sube o baja",
        "gradient_aim": "para fallar menos?",
        "update": "5. Paso pequeño",
        "update_all": "cambian todas las capas,",
        "update_by": "cada número, a lo sumo",
        "update_rate": "(tasa de aprendizaje)",
        "after": "6. Después",
        "after_loss": "pérdida: {loss}",
        "next": "siguiente lote",
        "negative": "negativo",
        "neutral": "neutro",
        "positive": "positivo",
    },
}

COLUMN, GAP = 168, 28
XS = [EDGE + n * (COLUMN + GAP) for n in range(3)]
TOP, BOTTOM, HEIGHT = 20, 216, 150


def wrapped(sentence: str, width: float) -> list[str]:
    """Return a sentence in small lines of at most a width."""
    lines = [""]
    for word in sentence.split():
        longer = f"{lines[-1]} {word}".strip()
        if measure(longer, SMALL) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def bars(canvas: Canvas, x: float, y: float, shares: Sequence[float], t: Texts, lang: str) -> None:
    """Draw the probability of each label; that of the first one is the right one."""
    for row, (label, share) in enumerate(zip(facts()["step"]["labels"], shares, strict=True)):
        top, look = y + 24 * row, "c2" if row == 0 else "quiet"
        canvas.text(x + 10, top + 5, t[label], size=SMALL, anchor="start", within=62)
        canvas.bar(x + 74, top - 6, 44, 13, "track")
        canvas.bar(x + 74, top - 6, 44 * share, 13, look)
        value = number(share, lang, 3)
        canvas.text(x + COLUMN - 8, top + 5, value, size=SMALL, anchor="end", within=40)


def draw(t: Texts, language: str) -> Canvas:
    """Draw six boxes in a circle."""
    canvas, step = Canvas(386), facts()["step"]
    example, (loss, loss_after) = step["examples"][language], step["loss"]
    places = {
        "batch": (XS[0], TOP, "box"),
        "predict": (XS[1], TOP, "c0"),
        "loss": (XS[2], TOP, "c1"),
        "gradient": (XS[2], BOTTOM, "c1"),
        "update": (XS[1], BOTTOM, "c0"),
        "after": (XS[0], BOTTOM, "c2"),
    }
    for name, (x, y, look) in places.items():
        canvas.box(x, y, COLUMN, HEIGHT, look.removeprefix("box"))
        canvas.text(x + 10, y + 25, t[name], look="bold", anchor="start", within=COLUMN - 14)
    first, second, third = (x + COLUMN / 2 for x in XS)
    canvas.text(first, TOP + 46, t["batch_of"], size=SMALL, look="quiet", within=COLUMN - 8)
    quoted = wrapped(example["text"], COLUMN - 16)
    middle = TOP + 92 - 8.5 * (len(quoted) - 1)
    canvas.lines(first, middle, quoted, step=17, size=SMALL, within=COLUMN - 8)
    canvas.text(first, TOP + 140, t["label"], size=SMALL, look="c2 bold", within=COLUMN - 8)
    bars(canvas, XS[1], TOP + 60, example["before"], t, language)
    bars(canvas, XS[0], BOTTOM + 56, example["after"], t, language)
    after = t["after_loss"].format(loss=number(loss_after, language, 3))
    canvas.text(first, BOTTOM + 134, after, size=NORMAL, look="c2 bold", within=COLUMN - 8)
    canvas.text(third, TOP + 56, t["loss_is"], size=NORMAL, within=COLUMN - 8)
    canvas.text(third, TOP + 98, number(loss, language, 3), size=26, look="c1 bold")
    canvas.text(third, TOP + 124, t["loss_batch"], size=SMALL, look="quiet", within=COLUMN - 8)
    lines = [t["gradient_is"], t["gradient_says"], t["gradient_aim"]]
    canvas.lines(third, BOTTOM + 64, lines, step=24, within=COLUMN - 8)
    lines = [t["update_all"], t["update_by"]]
    canvas.lines(second, BOTTOM + 56, lines, step=21, size=SMALL, within=COLUMN - 8)
    rate = number(step["learning_rate"], language, 4)
    canvas.text(second, BOTTOM + 108, rate, size=20, look="c0 bold")
    canvas.text(second, BOTTOM + 132, t["update_rate"], size=SMALL, look="quiet", within=COLUMN - 8)
    for x in XS[:2]:
        canvas.arrow((x + COLUMN + 4, TOP + 75), (x + COLUMN + GAP - 4, TOP + 75))
        canvas.arrow((x + COLUMN + GAP - 4, BOTTOM + 75), (x + COLUMN + 4, BOTTOM + 75))
    canvas.arrow((third, TOP + HEIGHT + 4), (third, BOTTOM - 4))
    canvas.arrow((first, BOTTOM - 4), (first, TOP + HEIGHT + 4))
    canvas.text(first + 10, BOTTOM - 18, t["next"], size=SMALL, look="quiet", anchor="start")
    assert XS[2] + COLUMN <= WIDTH - EDGE
    return canvas
