"""Checkpoints that are recognized but not read: adapters, quantized weights, other formats.

Each gets the name of what it is, and the command or the directory that leads to a readable one.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

LFS_POINTER = b"version https://git-lfs.github.com/spec/"

READABLE = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")
"""Weights in one file; `FILE.index.json` stands for shards."""

FORMATS = (
    ("*.gguf", "weights for llama.cpp (GGUF)"),
    ("*.onnx", "weights for ONNX Runtime"),
    ("onnx/*.onnx", "weights for ONNX Runtime"),
    ("openvino*.xml", "weights for OpenVINO"),
    ("openvino/*.xml", "weights for OpenVINO"),
    ("tf_model*.h5", "weights of transformers' TensorFlow classes"),
    ("*.tflite", "weights for TensorFlow Lite"),
    ("rust_model.ot", "weights for rust-bert"),
)
"""Files of other formats, and what they hold."""

STEP = re.compile(r"checkpoint-(\d+)")
SHARD = re.compile(r"(model|pytorch_model)-\d+-of-\d+\.(safetensors|bin)")

ADAPTER_TENSORS = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|base_layer|modules_to_save)\.")
QUANTIZED_TENSORS = re.compile(
    r"\.(absmax|quant_map|nested_absmax|SCB|qweight|qzeros|weight_format)$|\.quant_state\."
)


def explain(directory: Path) -> str | None:
    """What a directory without readable weights or config.json holds, and how to go on.

    Returns:
      A sentence or two; None for a directory that is nothing known.
    """
    if (directory / "adapter_config.json").is_file():
        return _adapter(directory)
    names = sorted(path.name for path in directory.iterdir())
    if any(name.startswith("global_step") for name in names) and "zero_to_fp32.py" in names:
        return (
            "the weights are DeepSpeed's, in parts; join them first: python "
            f"{directory / 'zero_to_fp32.py'} {directory} {directory} --safe_serialization"
        )
    if any(name.startswith("pytorch_model_fsdp") for name in names):
        return "the weights are in FSDP's parts; join them first: accelerate merge-weights"
    if inner := _inner(directory):
        more = f" (there are {len(inner)} such directories)" if len(inner) > 1 else ""
        return f"the model is in a directory below{more}; use {inner[-1]}"
    for pattern, what in FORMATS:
        if file := next(iter(sorted(directory.glob(pattern))), None):
            return (
                f"{file.relative_to(directory)} holds {what}, which flaxbert does not read. Use "
                "the checkpoint that it was converted from"
            )
    if shards := [name for name in names if SHARD.fullmatch(name)]:
        stem, _, ending = shards[0].partition("-")
        index = f"{stem}.{ending.rpartition('.')[2]}.index.json"
        return f"{len(shards)} shards such as {shards[0]}, but no {index}; fetch it too"
    for pattern, known in (("*.safetensors", READABLE[0]), ("*.pt", READABLE[1]),
                           ("*.pth", READABLE[1]), ("*.ckpt", READABLE[1]), ("*.bin", READABLE[1]),
                           ("*.msgpack", READABLE[2])):  # fmt: skip
        weights = [n for n in sorted(directory.glob(pattern)) if n.name not in TRAINING_STATE]
        if len(weights) == 1:
            return f"if {weights[0].name} holds the model's weights, rename it to {known}"
    return None


TRAINING_STATE = {"optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "training_args.bin"}
"""What transformers' Trainer keeps next to the weights."""


def has_weights(directory: Path) -> bool:
    """Whether a directory holds weights that are read, or the index of their shards."""
    names = [name for file in READABLE for name in (file, f"{file}.index.json")]
    return any((directory / name).is_file() for name in names)


def _inner(directory: Path) -> list[Path]:
    """Directories right below with a whole model, the Trainer's checkpoints by their steps."""
    inner = [
        path
        for path in sorted(directory.iterdir())
        if path.is_dir() and (path / "config.json").is_file() and has_weights(path)
    ]
    steps = {path: match for path in inner if (match := STEP.fullmatch(path.name))}
    return sorted(steps, key=lambda path: int(steps[path][1])) or inner


def _adapter(directory: Path) -> str:
    try:
        config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
        base, kind = config.get("base_model_name_or_path"), config.get("peft_type")
        own = config.get("modules_to_save")
    except (ValueError, AttributeError):
        base = kind = own = None
    what = "a LoRA adapter" if kind == "LORA" else f"an adapter ({kind or 'of an unknown type'})"
    layers = f", with trained layers besides ({', '.join(map(str, own))})" if own else ""
    return (
        f"{what} of {base or 'a model that it does not name'}{layers}, not a whole model; merge it "
        "into that model first (peft: model.merge_and_unload().save_pretrained(DIR)) and use DIR"
    )


def quantized(hf_config: object) -> str | None:
    """What is wrong with a config.json that says that the weights are quantized."""
    section = hf_config.get("quantization_config") if isinstance(hf_config, dict) else None
    if not section:
        return None
    method = section.get("quant_method") if isinstance(section, dict) else None
    return (
        f"config.json says that the weights are quantized ({method or 'quantization_config'}); "
        "flaxbert reads float32, float16 and bfloat16. Fetch the model before it was quantized"
    )


def unusual_tensors(names: Iterable[str]) -> str | None:
    """What names of tensors say of weights that no model of ours has: adapters, quantized ones."""
    for name in names:
        if ADAPTER_TENSORS.search(name):
            return (
                f"an adapter's tensors next to the model's, such as {name}; merge them first "
                "(peft: model.merge_and_unload().save_pretrained(DIR)) and use DIR"
            )
        if QUANTIZED_TENSORS.search(name):
            return (
                f"quantized weights ({name}); flaxbert reads float32, float16 and bfloat16. Fetch "
                "the model before it was quantized"
            )
    return None


def lfs_pointer(file: Path) -> bool:
    """Whether a file is what Git keeps in place of a large one."""
    with open(file, "rb") as content:
        return content.read(len(LFS_POINTER)) == LFS_POINTER
