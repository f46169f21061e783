"""The learning rate by step, from the code that computes it in training."""

from canvas import EDGE, SMALL, WIDTH, Canvas, Texts
from records import number

from flaxbert.config import OptimConfig
from flaxbert.report.charts import Axis
from flaxbert.training.optim import make_schedule, warmup_steps

TEXTS = {
    "en": {
        "title": "Warm-up and decay of the learning rate",
        "about": "The learning rate rises from 0 to its peak in the first tenth of the steps, "
        "the warm-up. Then it falls in a straight line to 0, or along a cosine, or stays.",
        "rate": "learning rate",
        "step": "step",
        "warmup": "warm-up",
        "decay": "decay",
        "why_warmup": "First small steps:",
        "why_warmup_2": "the new layer is random.",
        "linear": "linear (default)",
        "cosine": "cosine",
        "constant": "constant",
        "peak": "peak: optim.learning_rate",
    },
    "es": {
        "title": "Calentamiento y decaimiento de la tasa de aprendizaje",
        "about": "La tasa de aprendizaje sube de 0 a su máximo en la primera décima parte de los "
        "pasos, el calentamiento. Después baja en línea recta hasta 0, o como un coseno, o no "
        "baja.",
        "rate": "tasa de aprendizaje",
        "step": "paso",
        "warmup": "calentamiento",
        "decay": "decaimiento",
        "why_warmup": "Primero, pasos pequeños:",
        "why_warmup_2": "la capa nueva es aleatoria.",
        "linear": "lineal (por defecto)",
        "cosine": "coseno",
        "constant": "constante",
        "peak": "máximo: optim.learning_rate",
    },
}

STEPS, PEAK = 90, 1e-4
"""Those of the quick start."""

LOOKS = {"constant": "c2 curve dotted", "cosine": "c1 curve dashed", "linear": "c0 curve"}
X, Y = Axis(0, STEPS, 84, WIDTH - EDGE - 12), Axis(0, PEAK, 304, 66)


def draw(t: Texts, language: str) -> Canvas:
    """Draw the three schedules over the steps of the quick start."""
    canvas = Canvas(372)
    warmup = warmup_steps(OptimConfig(), STEPS)
    top = Y.last - 26
    canvas.bar(X.first, top, X.place(warmup) - X.first, Y.first - top, "track", radius=0)
    for share in (0, 0.5, 1):
        y, label = Y.place(share * PEAK), number(share * PEAK, language, 5 if share == 0.5 else 4)
        canvas.path(f"M{X.first} {y:g}H{X.last}", "grid")
        text = label if share else "0"
        canvas.text(X.first - 8, y + 5, text, size=SMALL, look="quiet", anchor="end")
    for step in (0, warmup, 30, 60, STEPS):
        x = X.place(step)
        canvas.path(f"M{x:g} {Y.first}v5")
        canvas.text(x, Y.first + 21, str(step), size=SMALL, look="quiet")
    canvas.path(f"M{X.first} {Y.first}H{X.last}")
    canvas.text(X.last, Y.first + 44, t["step"], size=SMALL, look="quiet", anchor="end")
    canvas.text(EDGE, 28, t["rate"], size=SMALL, look="quiet", anchor="start")
    for schedule, look in LOOKS.items():
        rate = make_schedule(OptimConfig(learning_rate=PEAK, schedule=schedule), STEPS)
        points = [(X.place(step), Y.place(float(rate(step)))) for step in range(STEPS + 1)]
        canvas.path("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), look)
    _notes(canvas, t, X.place(warmup))
    return canvas


def _notes(canvas: Canvas, t: Texts, edge: float) -> None:
    """Write the names of the phases and of the curves next to them."""
    canvas.text(edge + 8, Y.last - 10, t["peak"], size=SMALL, look="bold", anchor="start")
    canvas.text(X.place(74), Y.last - 10, t["constant"], size=SMALL, look="c2 bold")
    canvas.text(X.place(38), Y.place(0.78 * PEAK), t["cosine"], size=SMALL, look="c1 bold",
                anchor="start")  # fmt: skip
    canvas.text(X.place(34), Y.place(0.585 * PEAK), t["linear"], size=SMALL, look="c0 bold",
                anchor="end")  # fmt: skip
    lines = [t["why_warmup"], t["why_warmup_2"]]
    canvas.lines(edge + 10, Y.first - 42, lines, size=SMALL, look="quiet", anchor="start")
    canvas.text((X.first + edge) / 2, Y.first + 44, t["warmup"], size=SMALL, look="bold")
    canvas.text((X.last + edge) / 2, Y.first + 44, t["decay"], size=SMALL, look="bold")
