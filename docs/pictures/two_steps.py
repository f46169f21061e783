"""The two steps: pre-training once, fine-tuning for each task, with the numbers of parameters."""

from canvas import EDGE, NORMAL, SMALL, TITLE, WIDTH, Canvas, Texts
from records import facts, number

TEXTS = {
    "en": {
        "title": "Pre-training and fine-tuning",
        "about": "On the left, an encoder is pre-trained on text without labels. On the right, "
        "the same encoder gets a new, random output layer, and both are trained with labeled "
        "sentences.",
        "pre": "1. Pre-training",
        "pre_who": "once, by others, for days",
        "fine": "2. Fine-tuning",
        "fine_who": "by you, in minutes",
        "raw": "Wikipedia and books",
        "raw_labels": "no labels",
        "labeled": "552 sentences",
        "labeled_labels": "with labels, written by people",
        "encoder": "Encoder",
        "encoder_learns": "learns how language works",
        "copy": "copy",
        "old": "{old} parameters",
        "old_from": "from pre-training",
        "old_head": "Output layers: MLM and NSP",
        "old_head_after": "are left behind",
        "new_head": "Output layer",
        "new": "{new} parameters, new and random",
        "guesses": "Guesses hidden words",
        "answers": "positive, neutral or negative",
        "all": "Fine-tuning then changes all of these parameters a little.",
        "sizes": "MiniLM-L6, three labels. In BERT-base: {old} old and {new} new parameters.",
    },
    "es": {
        "title": "Preentrenamiento y ajuste fino",
        "about": "A la izquierda, un codificador se preentrena con texto sin etiquetas. A la "
        "derecha, el mismo codificador recibe una capa de salida nueva y aleatoria, y los dos "
        "se entrenan con frases etiquetadas.",
        "pre": "1. Preentrenamiento",
        "pre_who": "lo hacen otros, una vez, en días",
        "fine": "2. Ajuste fino",
        "fine_who": "lo haces tú, en minutos",
        "raw": "Wikipedia y libros",
        "raw_labels": "sin etiquetas",
        "labeled": "1823 frases",
        "labeled_labels": "con etiquetas puestas a mano",
        "encoder": "Codificador",
        "encoder_learns": "aprende cómo funciona la lengua",
        "copy": "copia",
        "old": "{old} parámetros",
        "old_from": "del preentrenamiento",
        "old_head": "Capas de salida: MLM y NSP",
        "old_head_after": "se descartan",
        "new_head": "Capa de salida",
        "new": "{new} parámetros nuevos, al azar",
        "guesses": "Adivina palabras ocultas",
        "answers": "positivo, neutro o negativo",
        "all": "Después, el ajuste fino cambia un poco todos estos parámetros.",
        "sizes": "MiniLM-L6, tres etiquetas. En BERT-base: {old} antiguos y {new} nuevos.",
    },
}

COLUMN = 252
LEFT, RIGHT = EDGE, WIDTH - EDGE - COLUMN


def counts(model: str, language: str) -> dict[str, str]:
    """Return the numbers of pre-trained and of new parameters of a model."""
    parts = facts()["parameters"][model]
    old = sum(parts.values()) - parts["classifier"]
    return {"old": number(old, language), "new": number(parts["classifier"], language)}


def draw(t: Texts, language: str) -> Canvas:
    """Draw two columns of boxes, from the text at the top to what the model gives."""
    canvas, small = Canvas(406), counts("MiniLM-L6", language)
    for x, step in ((LEFT, "pre"), (RIGHT, "fine")):
        canvas.text(x, 36, t[step], size=TITLE, look="bold", anchor="start", within=COLUMN)
        canvas.text(x, 56, t[f"{step}_who"], size=SMALL, look="quiet", anchor="start")
        for start in (116, 200, 270):
            canvas.arrow((x + COLUMN / 2, start), (x + COLUMN / 2, start + 18))
    rows = [
        (70, 46, ("raw", "raw_labels"), "", ("labeled", "labeled_labels"), ""),
        (134, 66, ("encoder", "encoder_learns"), "c0", ("encoder", "old", "old_from"), "c0"),
        (218, 52, ("old_head", "old_head_after"), "empty", ("new_head", "new"), "c1"),
        (288, 34, ("guesses",), "", ("answers",), ""),
    ]
    for y, height, old, old_look, new, new_look in rows:
        canvas.labeled_box(LEFT, y, COLUMN, height, [t[key] for key in old], look=old_look)
        texts = [t[key].format(**small) for key in new]
        canvas.labeled_box(RIGHT, y, COLUMN, height, texts, look=new_look)
    canvas.arrow((LEFT + COLUMN + 3, 167), (RIGHT - 3, 167), look="c0")
    canvas.text(WIDTH / 2, 157, t["copy"], size=SMALL, look="c0", within=52)
    canvas.text(WIDTH / 2, 356, t["all"], size=NORMAL)
    sizes = t["sizes"].format(**counts("BERT-base", language))
    canvas.text(WIDTH / 2, 384, sizes, size=SMALL, look="quiet")
    return canvas
