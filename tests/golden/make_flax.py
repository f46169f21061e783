"""Make the files of tests/golden/transformers4 with a version of transformers that has Flax.

    python -m venv old && old/bin/pip install transformers==4.55.4 jax==0.10.2 flax torch==2.13.0
    old/bin/python tests/golden/make_flax.py

The files are config.json and flax_model.msgpack of models of tests/zoo.py, with its tensors.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import torch
import transformers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import zoo  # noqa: E402 (in the parent folder)

CASES = (
    ("bert", "ForPreTraining"),
    ("roberta", "ForSequenceClassification"),
    ("distilbert", "ForQuestionAnswering"),
    ("electra", "ForMaskedLM"),
    ("albert", "ForTokenClassification"),
)
ONE_GROUP = {"num_hidden_layers": 4, "num_hidden_groups": 1, "inner_group_num": 2}
"""Sizes of ALBERT, of which the Flax version only supports one group of layers."""


def main() -> None:
    """Write the files."""
    for name, head in CASES:
        prefix, arguments, _ = zoo.MODELS[name]
        arguments = arguments | (ONE_GROUP if name == "albert" else {})
        labels = 2 if head in zoo.TWO_OUTPUTS else zoo.LABELS
        config = getattr(transformers, f"{prefix}Config")(**arguments, num_labels=labels)
        model = getattr(transformers, f"{prefix}{head}")(config).eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                parameter.copy_(torch.tensor(zoo.tensor(key, tuple(parameter.shape))))
        model.tie_weights()
        target = HERE / "transformers4" / f"{name}_{head}"
        with tempfile.TemporaryDirectory() as directory:
            model.save_pretrained(directory)
            flax = getattr(transformers, f"Flax{prefix}{head}").from_pretrained(
                directory, from_pt=True
            )
            flax.save_pretrained(directory)
            shutil.copy(Path(directory) / "flax_model.msgpack", f"{target}.msgpack")
            shutil.copy(Path(directory) / "config.json", f"{target}.json")


if __name__ == "__main__":
    main()
