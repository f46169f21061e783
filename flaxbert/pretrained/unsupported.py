"""Checkpoints that are recognized but not supported: adapters, quantized weights, other formats.

The explanations name the command or the directory that leads to a supported checkpoint.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

LFS_POINTER = b"version https://git-lfs.github.com/spec/"

READABLE = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")
"""Files of weights; shards are listed in `FILE.index.json`."""

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
"""Patterns of files in other formats, and what they contain."""

STEP = re.compile(r"checkpoint-(\d+)")
SHARD = re.compile(r"(model|pytorch_model)-\d+-of-\d+\.(safetensors|bin)")

ADAPTER_TENSORS = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|base_layer|modules_to_save)\.")
QUANTIZED_TENSORS = re.compile(
    r"\.(absmax|quant_map|nested_absmax|SCB|qweight|qzeros|weight_format)$|\.quant_state\."
)


def explain(directory: Path) -> str | None:
    """Explain what a directory without readable weights or config.json is, and what to do.

    Returns:
      A sentence or two; None if the directory is not recognized.
    """
    if (directory / "adapter_config.json").is_file():
        return _adapter(directory)
    names = sorted(path.name for path in directory.iterdir())
    if any(name.startswith("global_step") for name in names) and "zero_to_fp32.py" in names:
        return (
            "the weights are partitioned by DeepSpeed; merge them first: python "
            f"{directory / 'zero_to_fp32.py'} {directory} {directory} --safe_serialization"
        )
    if any(name.startswith("pytorch_model_fsdp") for name in names):
        return "the weights are partitioned by FSDP; merge them first: accelerate merge-weights"
    if inner := _model_subdirectories(directory):
        more = f" ({len(inner)} of them have one)" if len(inner) > 1 else ""
        return f"the model is in a subdirectory{more}; use {inner[-1]}"
    for pattern, what in FORMATS:
        if file := next(iter(sorted(directory.glob(pattern))), None):
            return (
                f"{file.relative_to(directory)} contains {what}, which flaxbert does not read. "
                "Use the checkpoint that it was converted from"
            )
    if shards := [name for name in names if SHARD.fullmatch(name)]:
        stem, _, ending = shards[0].partition("-")
        index = f"{stem}.{ending.rpartition('.')[2]}.index.json"
        return f"{len(shards)} shards such as {shards[0]}, but no {index}; download it too"
    for pattern, known in (("*.safetensors", READABLE[0]), ("*.pt", READABLE[1]),
                           ("*.pth", READABLE[1]), ("*.ckpt", READABLE[1]), ("*.bin", READABLE[1]),
                           ("*.msgpack", READABLE[2])):  # fmt: skip
        weights = [n for n in sorted(directory.glob(pattern)) if n.name not in TRAINING_STATE]
        if len(weights) == 1:
            return f"if {weights[0].name} contains the model's weights, rename it to {known}"
    return None


TRAINING_STATE = {"optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "training_args.bin"}
"""Files that transformers' Trainer saves next to the weights."""


def has_weights(directory: Path) -> bool:
    """Return whether a directory has readable weights, or the index of their shards."""
    names = [name for file in READABLE for name in (file, f"{file}.index.json")]
    return any((directory / name).is_file() for name in names)


def _model_subdirectories(directory: Path) -> list[Path]:
    """Return subdirectories with a complete model; only Trainer checkpoints, by step, if any."""
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
        base, peft_type = config.get("base_model_name_or_path"), config.get("peft_type")
        modules = config.get("modules_to_save")
    except (ValueError, AttributeError):
        base = peft_type = modules = None
    is_lora = peft_type == "LORA"
    adapter = "a LoRA adapter" if is_lora else f"an adapter ({peft_type or 'of unknown type'})"
    layers = f", with other trained layers ({', '.join(map(str, modules))})" if modules else ""
    return (
        f"{adapter} of {base or 'an unknown model'}{layers}, not a complete model; merge it into "
        "that model first (peft: model.merge_and_unload().save_pretrained(DIR)) and use DIR"
    )


def quantized(hf_config: object) -> str | None:
    """Return an explanation if a config.json is of quantized weights, else None."""
    section = hf_config.get("quantization_config") if isinstance(hf_config, dict) else None
    if not section:
        return None
    method = section.get("quant_method") if isinstance(section, dict) else None
    return (
        "according to config.json, the weights are quantized "
        f"({method or 'quantization_config'}); flaxbert reads float32, float16 and bfloat16. Use "
        "the model that it was quantized from"
    )


def unusual_tensors(names: Iterable[str]) -> str | None:
    """Return an explanation if tensor names show adapters or quantized weights, else None."""
    for name in names:
        if ADAPTER_TENSORS.search(name):
            return (
                f"tensors of an adapter among the model's, such as {name}; merge them first "
                "(peft: model.merge_and_unload().save_pretrained(DIR)) and use DIR"
            )
        if QUANTIZED_TENSORS.search(name):
            return (
                f"quantized weights ({name}); flaxbert reads float32, float16 and bfloat16. Use "
                "the model that it was quantized from"
            )
    return None


def lfs_pointer(file: Path) -> bool:
    """Return whether a file is the pointer that Git LFS keeps in place of a large file."""
    with open(file, "rb") as content:
        return content.read(len(LFS_POINTER)) == LFS_POINTER
