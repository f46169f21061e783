"""Four shapes of learning curves, from real runs, each with a remedy."""

from canvas import EDGE, NORMAL, SMALL, WIDTH, Canvas, Texts
from records import number, runs

from flaxbert.report.charts import Axis

TEXTS = {
    "en": {
        "title": "Four shapes of learning curves",
        "about": "Four charts of the loss of training data and of evaluation data by step. "
        "Healthy: both fall and level off. Overfitting: training falls to zero, evaluation "
        "rises again. Underfitting: both hardly fall. Erratic: both jump up and down.",
        "train": "loss on training data",
        "eval": "loss on evaluation data",
        "step": "step",
        "healthy": "Healthy",
        "healthy_do": "Both fall, then level off. Keep it.",
        "overfitting": "Overfitting",
        "overfitting_do": "Fewer epochs, or more data.",
        "underfitting": "Underfitting",
        "underfitting_do": "A higher learning rate, more epochs.",
        "erratic": "Erratic",
        "erratic_do": "A lower rate, a larger batch.",
    },
    "es": {
        "title": "Cuatro formas de curvas de aprendizaje",
        "about": "Cuatro gráficas de la pérdida en los datos de entrenamiento y de evaluación "
        "por paso. Sana: las dos bajan y se estabilizan. Sobreajuste: la de entrenamiento baja "
        "a cero y la de evaluación vuelve a subir. Subajuste: apenas bajan. Errática: suben y "
        "bajan a saltos.",
        "train": "pérdida en entrenamiento",
        "eval": "pérdida en evaluación",
        "step": "paso",
        "healthy": "Sana",
        "healthy_do": "Bajan y se estabilizan. Déjala.",
        "overfitting": "Sobreajuste",
        "overfitting_do": "Menos épocas o más datos.",
        "underfitting": "Subajuste",
        "underfitting_do": "Sube la tasa, o más épocas.",
        "erratic": "Errática",
        "erratic_do": "Baja la tasa, o agranda el lote.",
    },
}

PANELS = ("healthy", "overfitting", "underfitting", "erratic")
WIDE, HIGH = 270, 200
TOP = 48
LOOKS = {"train": "c0 curve", "eval": "c1 curve dashed"}


def panel(canvas: Canvas, left: float, top: float, name: str, t: Texts, language: str) -> None:
    """Draw the curves of a run, with its name and what to do."""
    run = runs()["runs"][name]
    points = run["train"] + run["eval"]
    most = max(1.5, *(value for _, value in points))
    x = Axis(0, max(step for step, _ in points), left + 34, left + WIDE - 6)
    y = Axis(0, most, top + HIGH - 30, top + 54)
    canvas.text(left, top + 14, t[name], look="bold", anchor="start", size=NORMAL, within=WIDE)
    about = t[f"{name}_do"]
    canvas.text(left, top + 34, about, size=SMALL, look="quiet", anchor="start", within=WIDE)
    for value in (0.0, 0.5, 1.0, 1.5):
        place = y.place(value)
        canvas.path(f"M{x.first:g} {place:.1f}H{x.last:g}", "grid")
        label = number(value, language, 1) if value else "0"
        canvas.text(x.first - 6, place + 4.5, label, size=SMALL, look="quiet", anchor="end")
    canvas.path(f"M{x.first:g} {y.first:g}H{x.last:g}")
    canvas.text(x.last, y.first + 18, f"{t['step']} {x.high:.0f}", size=SMALL, look="quiet",
                anchor="end")  # fmt: skip
    for kind, look in LOOKS.items():
        places = [(x.place(step), y.place(value)) for step, value in run[kind]]
        canvas.path("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places), look)


def draw(t: Texts, language: str) -> Canvas:
    """Draw two rows of two charts under a common legend."""
    canvas = Canvas(TOP + 2 * HIGH + 8)
    for x, kind in ((EDGE, "train"), (WIDTH - EDGE - WIDE, "eval")):
        canvas.path(f"M{x} 26h30", LOOKS[kind])
        canvas.text(x + 40, 31, t[kind], size=NORMAL, anchor="start", within=WIDE - 40)
    for n, name in enumerate(PANELS):
        left = EDGE if n % 2 == 0 else WIDTH - EDGE - WIDE
        panel(canvas, left, TOP + HIGH * (n // 2), name, t, language)
    return canvas
