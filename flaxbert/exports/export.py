"""Write an export for servers, with a certificate, or nothing."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from flaxbert.errors import ConfigError, ExportError
from flaxbert.exports import onnx_graph, stablehlo
from flaxbert.exports.certificate import Certificate, certify
from flaxbert.exports.decision import decision_of
from flaxbert.exports.runtime import DECISION
from flaxbert.pipeline.datasets import Dataset
from flaxbert.pipeline.predictor import Predictor
from flaxbert.runtime.files import atomic_directory, write_json
from flaxbert.tasks.base import HasUnits
from flaxbert.types import Params

FORMATS = ("onnx", "stablehlo")
CERTIFICATE = "certificate.json"
INT8_DROP = 1.0
"""How many points of 100 the metric may drop by default if weights are rounded to 8 bits."""


def check(destination: Path, *, format: str, int8: bool, max_drop: float | None) -> None:
    """Check the arguments of `export` that need no model.

    Raises:
      ConfigError: naming the flag and the valid values.
    """
    if format not in FORMATS:
        raise ConfigError(f"--format={format}: expected one of {', '.join(FORMATS)}.")
    if int8 and format != "onnx":
        raise ConfigError("--int8 is for --format=onnx; leave it out.")
    if max_drop is not None and not 0 <= max_drop <= 100:  # also NaN
        raise ConfigError(f"--max-drop={max_drop}: expected a number of points from 0 to 100.")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ConfigError(f"{destination}: exists and is not empty; name a new directory.")


def export(
    predictor: Predictor,
    dataset: Dataset,
    source: str,
    destination: Path,
    *,
    format: str = "onnx",
    int8: bool = False,
    max_drop: float | None = None,
) -> Certificate:
    """Write a model as ONNX or StableHLO, with config.json, tokenizer, decisions and certificate.

    Args:
      predictor: the model, in float32.
      dataset: the labeled examples that the export is compared on.
      source: their name.
      destination: a directory that does not exist or is empty.
      format: one of FORMATS.
      int8: whether to round the weights of matrix products and tables to 8 bits (ONNX only).
      max_drop: how many points of 100 the metric may drop; by default 0, with int8 `INT8_DROP`.

    Raises:
      ConfigError: for another format, a task that cannot be exported, or missing packages.
      ExportError: if the export differs from the model; nothing is left of it then.
    """
    check(destination, format=format, int8=int8, max_drop=max_drop)
    if max_drop is None:
        max_drop = INT8_DROP if int8 else 0.0
    params = exported_params(predictor)
    with atomic_directory(destination) as partial:
        write(predictor, params, partial, format=format, int8=int8)
        certificate = certify(
            partial,
            predictor,
            params,
            dataset,
            source,
            format=format,
            int8=int8,
            max_drop=max_drop,
        )
        write_json(partial / CERTIFICATE, certificate.to_json())
        if certificate.problems:
            raise ExportError(
                f"{destination}: not written, because the export is not the model: "
                f"{'; '.join(certificate.problems)} (on {source}). "
                + (
                    "Export without --int8, or allow more with --max-drop=POINTS."
                    if int8
                    else "Please report this, with the versions that flaxbert doctor prints."
                )
            )
    return certificate


def exported_params(predictor: Predictor) -> Params:
    """Return the parameters to export: float32, on the host, in the units of the labels."""
    task = predictor.pipeline.task
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), predictor.params)
    return task.to_units(params) if isinstance(task, HasUnits) else params


def write(
    predictor: Predictor, params: Params, directory: Path, *, format: str, int8: bool = False
) -> None:
    """Write all files but the certificate.

    config.json and the tokenizer are those of the Hugging Face export, so that optimum can load the
    directory too.
    """
    pipeline = predictor.pipeline.with_attention("plain")
    decision = decision_of(pipeline)
    pipeline.export(None, directory)
    write_json(directory / DECISION, decision)
    if format == "stablehlo":
        stablehlo.write(pipeline.model, params, directory)
        return
    onnx_graph.write(pipeline.model, params, directory)
    if int8:
        quantize(directory / onnx_graph.MODEL)


def quantize(path: Path) -> None:
    """Round the weights of an ONNX file to 8 bits; activations are rounded while it runs.

    Raises:
      ConfigError: if onnxruntime is not installed.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise ConfigError(
            f"--int8 needs the package onnxruntime ({error}); install it: "
            'pip install "flaxbert[onnx]"'
        ) from None
    rounded, data = path.with_suffix(".int8"), path.with_name(onnx_graph.DATA)
    with _quiet():
        # A scale for each output channel: with one for the whole matrix, the largest weight would
        # decide about the precision of all. The range is that of 7 bits: with 8, the products of
        # CPUs without VNNI instructions saturate, and the metric on them would be another one.
        quantize_dynamic(
            path,
            rounded,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            use_external_data_format=data.exists(),
        )
    data.unlink(missing_ok=True)
    rounded.replace(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the advice of onnxruntime to optimize a graph before it is quantized."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
