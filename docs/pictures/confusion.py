"""How to read a confusion matrix: that of the quick start."""

from canvas import EDGE, SMALL, WIDTH, Canvas, Texts
from records import percent, runs

TEXTS = {
    "en": {
        "title": "Reading a confusion matrix",
        "about": "A table of three rows, the true labels, and three columns, the predictions. "
        "The diagonal counts right predictions, every other cell an error of one kind.",
        "true": "label",
        "predicted": "prediction",
        "negative": "negative",
        "neutral": "neutral",
        "positive": "positive",
        "diagonal": "Diagonal: right",
        "diagonal_is": "{right} of {all} sentences: {share}",
        "row": "Row: recall",
        "row_is": "of {all} {label}, {right} are found: {share}",
        "column": "Column: precision",
        "column_is": "of {all} called {label}, {right} are: {share}",
        "worst": "Most frequent error",
        "worst_is": "{label} called {other}: {count} times",
        "note": "The evaluation of the quick start. The report of each run has one of its own.",
    },
    "es": {
        "title": "Cómo leer una matriz de confusión",
        "about": "Una tabla de tres filas, las etiquetas verdaderas, y tres columnas, las "
        "predicciones. La diagonal cuenta los aciertos; cada una de las demás celdas, un "
        "tipo de error.",
        "true": "etiqueta",
        "predicted": "predicción",
        "negative": "negativo",
        "neutral": "neutro",
        "positive": "positivo",
        "diagonal": "Diagonal: aciertos",
        "diagonal_is": "{right} de {all} frases: {share}",
        "row": "Fila: exhaustividad (recall)",
        "row_is": "de {all} con {label}, halla {right}: {share}",
        "column": "Columna: precisión (precision)",
        "column_is": "de {all} dadas como {label}, {right}: {share}",
        "worst": "El error más frecuente",
        "worst_is": "{label} como {other}: {count} veces",
        "note": "La evaluación de quickstart. El informe de cada entrenamiento trae la suya.",
    },
}

LEFT, TOP, CELL, ROW = 102, 76, 66, 62
GAP = 6
NOTES = LEFT + 3 * CELL + 26
"""Where the explanations begin."""


def draw(t: Texts, language: str) -> Canvas:
    """Draw the matrix, and what its parts mean next to it."""
    canvas, matrix, labels = Canvas(322), runs()["confusion"], runs()["labels"]
    most = max(map(max, matrix))
    canvas.text(LEFT + 1.5 * CELL, 34, t["predicted"], size=SMALL, look="quiet")
    canvas.text(LEFT - 10, 60, t["true"], size=SMALL, look="quiet", anchor="end")
    for n, label in enumerate(labels):
        canvas.text(LEFT + CELL * (n + 0.5) - GAP / 2, 60, t[label], size=SMALL, within=CELL)
        y = TOP + ROW * (n + 0.5) + 2
        canvas.text(LEFT - 10, y, t[label], size=SMALL, anchor="end", within=LEFT - EDGE)
        for m, count in enumerate(matrix[n]):
            x, y = LEFT + CELL * m, TOP + ROW * n
            opacity = f"{0.06 + 0.5 * count / most:.2f}"
            size = {"width": CELL - GAP, "height": ROW - GAP, "rx": 5}
            canvas.add("rect", x=x, y=y, **size, class_="heat", fill_opacity=opacity)
            look = "bold" if n == m else ""
            middle = x + (CELL - GAP) / 2, y + (ROW - GAP) / 2 + 6
            canvas.text(*middle, str(count), size=17, look=look)
    notes(canvas, t, language)
    canvas.text(WIDTH / 2, 300, t["note"], size=SMALL, look="quiet")
    return canvas


def notes(canvas: Canvas, t: Texts, language: str) -> None:
    """Frame the parts of the matrix, and write what they mean in the same colors."""
    matrix, labels, n = runs()["confusion"], runs()["labels"], 1
    right, total = sum(matrix[k][k] for k in range(3)), sum(map(sum, matrix))
    row, column = sum(matrix[n]), sum(line[n] for line in matrix)
    count, i, j = max((matrix[i][j], i, j) for i in range(3) for j in range(3) if i != j)
    hit = {"right": matrix[n][n], "label": t[labels[n]]}
    said = {"label": t[labels[i]], "other": t[labels[j]], "count": count}
    texts = {
        "diagonal": {"right": right, "all": total, "share": percent(right / total, language)},
        "row": hit | {"all": row, "share": percent(matrix[n][n] / row, language)},
        "column": hit | {"all": column, "share": percent(matrix[n][n] / column, language)},
        "worst": said,
    }
    looks = {"diagonal": "c0", "row": "c2", "column": "c3", "worst": "c1"}
    for line, (key, values) in enumerate(texts.items()):
        y = TOP + 8 + 50 * line
        canvas.box(NOTES, y - 12, 14, 14, looks[key], radius=3)
        canvas.text(NOTES + 24, y, t[key], size=SMALL + 1, look="bold", anchor="start")
        about = t[f"{key}_is"].format(**values)
        canvas.text(NOTES + 24, y + 20, about, size=SMALL, look="quiet", anchor="start")
    frames = {
        "row": (LEFT - 3, TOP + ROW * n - 3, 3 * CELL, ROW),
        "column": (LEFT + CELL * n - 3, TOP - 3, CELL, 3 * ROW),
        "worst": (LEFT + CELL * j, TOP + ROW * i, CELL - GAP, ROW - GAP),
    }
    for key, (x, y, width, height) in frames.items():
        size = {"width": width, "height": height, "rx": 6}
        canvas.add("rect", x=x, y=y, **size, class_=f"frame {looks[key]}")
