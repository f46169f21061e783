"""Make families.npz, the golden file of tests/models/test_families.py, with transformers.

    python -m pip install torch 'transformers>=5,<6'
    python tests/golden/make_families.py [MODEL ...]

With names of models, only their cases are made, and the others stay as they are in the file. (The
last digits of all of them depend on the processor.)

For each model and output layer of tests/zoo.py, the file has, under `MODEL/HEAD/...`: `config`
(config.json); `names` (the shapes of its tensors by name, as JSON); all outputs; and `gradients`,
the fingerprints of the gradients of the outputs' weighted sum, in the order of `names`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import zoo  # noqa: E402 (in the parent folder)

from flaxbert.pretrained.load import head_class  # noqa: E402
from flaxbert.pretrained.parity import torch_forward  # noqa: E402


def build(name: str, head: str) -> torch.nn.Module:
    """Return the model with its weights set."""
    prefix, arguments, _ = zoo.MODELS[name]
    labels = 2 if head in zoo.TWO_OUTPUTS else zoo.LABELS
    config = getattr(transformers, f"{prefix}Config")(
        **arguments, num_labels=labels, attn_implementation="eager"
    )
    config.architectures = [f"{prefix}{head}"]
    model = getattr(transformers, f"{prefix}{head}")(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(zoo.tensor(key, tuple(parameter.shape))))
    model.tie_weights()
    return model


def run(model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], zoo.Arrays]:
    """Return the outputs of the model, by our names, and the batch."""
    config = model.config
    types = getattr(config, "type_vocab_size", 0)
    batch = zoo.batch(types, config.pad_token_id or 0)
    head = head_class(config.model_type, type(model).__name__)
    return torch_forward(model, head, batch), batch


def gradients(
    model: torch.nn.Module, outputs: dict[str, torch.Tensor], mask: np.ndarray
) -> zoo.Arrays:
    """Return the gradients of the weighted sum of all outputs."""
    model.zero_grad()
    sum(zoo.weighted(key, value, mask, torch.tensor) for key, value in outputs.items()).backward()
    return {
        key: np.zeros(p.shape, np.float32) if p.grad is None else p.grad.numpy()
        for key, p in model.named_parameters()
    }


def main() -> None:
    """Write the file."""
    file, models = HERE / "families.npz", sys.argv[1:] or list(zoo.MODELS)
    stored = np.load(file) if sys.argv[1:] else {}
    golden = {key: value for key, value in stored.items() if key.split("/")[0] not in models}
    for name, head in [case for case in zoo.CASES if case[0] in models]:
        model = build(name, head)
        outputs, batch = run(model)
        shapes = {key: list(parameter.shape) for key, parameter in model.named_parameters()}
        case = f"{name}/{head}"
        golden[f"{case}/config"] = np.array(model.config.to_json_string())
        golden[f"{case}/names"] = np.array(json.dumps(shapes))
        for key, value in outputs.items():
            if key != "hidden_states" or head == "Model":
                golden[f"{case}/{key}"] = value.detach().numpy()
        fingerprints = zoo.fingerprint(gradients(model, outputs, batch["attention_mask"]))
        golden[f"{case}/gradients"] = np.stack([fingerprints[key] for key in shapes])
    np.savez_compressed(file, **golden)


if __name__ == "__main__":
    main()
