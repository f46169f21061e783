"""Draw architecture.svg: the layers, and the path of a batch through them.

    python docs/make_diagram.py

The color of an arrow's label is that of the layer that does the work.
"""

from pathlib import Path

LAYERS = {
    "commands": ("flags, tables, errors", "#e8e8e8"),
    "server": ("predictions over HTTP, and a page", "#e9dccb"),
    "planning": ("what a run needs on chips elsewhere", "#f3cdb8"),
    "training": ("a run: plan, loop, step, monitors", "#ffd9b3"),
    "report": ("what a run was like, as a page", "#f7dfcf"),
    "exports": ("for servers; their reader", "#fbe8c0"),
    "pipeline": ("task + tokenizer + model; loader", "#ffe9a8"),
    "pretrained": ("to and from Hugging Face", "#e4f0b5"),
    "tasks": ("one file per task", "#c9ebc4"),
    "runtime": ("devices, hosts, checkpoints", "#c2e8e4"),
    "data": ("files to batches, in numpy", "#c5dcf5"),
    "models": ("encoders, output layers, families", "#d9d0f2"),
    "messages": ("what a person reads, in two languages", "#ead9e8"),
    "metrics": ("predictions against labels", "#f2d0e4"),
}
GROUND = "config.py, errors.py, hub.py, packaged.py, types.py"

# The object, then how the next one is made of it: (layer, function).
FORWARD = [
    ("file or hub data set", "data", "readers"),
    ("Table of records", "tasks", "task.read, task.resolve"),
    ("examples", "tasks", "task.featurize"),
    ("Features", "data", "Batches: shuffle, pack, build"),
    ("Batch of numpy arrays", "pipeline", "Loader: place this host's rows"),
    ("Batch of jax.Array", "models", "model(params, batch)"),
    ("outputs of the head", "tasks", "task.loss"),
    ("{name: WeightedSum}", "training", "train_step: gradient, AdamW"),
    ("next TrainState", None, None),
]
BACKWARD = [
    ("Batch of jax.Array", "models", "model(params, batch)"),
    ("outputs of the head", "pipeline", "predict_step"),
    ("TaskOutputs on devices", "data", "Batches.unpack"),
    ("TaskOutputs on the host", "tasks", "task.decode"),
    ("predictions: plain dicts", "metrics", "task.score: functions of metrics/"),
    ("{metric: number}", None, None),
]

ROW, BOX = 62, 34


def text(x: float, y: float, content: str, *, size: int = 13, weight: str = "normal") -> str:
    """Return a centered line of text."""
    content = content.replace("&", "&amp;").replace("<", "&lt;")
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="middle" font-family="sans-serif">{content}</text>'
    )


def box(x: float, y: float, width: float, height: float, color: str) -> str:
    """Return a rounded rectangle."""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" '
        f'fill="{color}" stroke="#555"/>'
    )


def layers(x: float, y: float, width: float) -> list[str]:
    """Return the stack of layers, from top to bottom."""
    middle, parts = x + width / 2, [text(x + width / 2, y, "layers", size=15, weight="bold")]
    for number, (name, (about, color)) in enumerate(LAYERS.items()):
        top = y + 16 + number * 52
        parts += [box(x, top, width, 46, color)]
        parts += [text(middle, top + 19, f"{name}/", weight="bold"), text(middle, top + 37, about)]
    top = y + 16 + len(LAYERS) * 52
    return [*parts, box(x, top, width, 30, "#ffffff"), text(middle, top + 20, GROUND, size=12)]


def chain(x: float, y: float, width: float, title: str, steps: list[tuple]) -> list[str]:
    """Return objects below each other, with arrows that name the work between them."""
    middle, parts = x + width / 2, [text(x + width / 2, y, title, size=15, weight="bold")]
    for number, (name, layer, work) in enumerate(steps):
        top = y + 16 + number * ROW
        parts += [box(x, top, width, BOX, "#ffffff"), text(middle, top + 22, name)]
        if layer is not None:
            end = top + ROW
            parts.append(f'<path d="M{middle} {top + BOX} V{end - 5}" stroke="#555"/>')
            parts.append(f'<path d="M{middle - 4} {end - 6} h8 l-4 6 z" fill="#555"/>')
            parts += [box(x + 14, top + BOX + 3, width - 28, 18, LAYERS[layer][1])]
            parts += [text(middle, top + BOX + 16, work, size=12)]
    return parts


def draw() -> str:
    """Return the diagram as SVG."""
    parts = [
        *layers(20, 30, 260),
        *chain(330, 30, 230, "from a file to the gradient", FORWARD),
        *chain(610, 30, 230, "and back to predictions", BACKWARD),
    ]
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 724" width="860" height="724">'
    return "\n".join([head, '<rect width="860" height="724" fill="#ffffff"/>', *parts, "</svg>\n"])


if __name__ == "__main__":
    Path(__file__).with_name("architecture.svg").write_text(draw(), encoding="utf-8")
