"""The way in which a run computes attention: tried on its devices once, then kept."""

import dataclasses
import json
import logging

import jax

from flaxbert.models.attention_trial import Trial, try_kernel
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.runtime import multihost, sharding

log = logging.getLogger("flaxbert")


def with_fitting_attention(
    pipeline: Pipeline, shape: tuple[int, int], microbatches: int, kept: str | None
) -> Pipeline:
    """Return the pipeline with the way to compute attention that is right and fast here.

    `model.attention=auto` becomes `kernel` or `plain` where there is a kernel for the devices and
    the row length. All hosts must call this; they use the kernel only if it suits all of them.

    Args:
      pipeline: its model says which way is asked for.
      shape: (R, T) of the largest batch, on all devices.
      microbatches: parts in which a batch is computed, one after another.
      kept: the way that the run began with; None for a new run.
    """
    if pipeline.model.config.attention != "auto":
        return pipeline
    if kept is not None:  # another way would change the last digits
        return pipeline.with_attention(kept)
    rows, length = shape[0] // (sharding.data_parallelism(pipeline.mesh) * microbatches), shape[1]
    trial = try_kernel(pipeline.model.config, rows, length, jax.local_devices()[0])
    trials = _of_all_hosts(trial)
    if not trials:
        return pipeline
    chosen = next((trial for trial in trials if trial.way == "plain"), trials[0])
    if multihost.is_lead_host():
        log.log(
            logging.WARNING if chosen.failed else logging.INFO,
            f"attention, {rows} rows of {length} tokens on a device: model.attention={chosen.way}, "
            f"because {chosen.reason}",
        )
    return pipeline.with_attention(chosen.way)


def _of_all_hosts(trial: Trial | None) -> list[Trial]:
    """Return the trials of all hosts that had a kernel to try."""
    values = multihost.all_gather(json.dumps(trial and dataclasses.asdict(trial)))
    return [Trial(**fields) for fields in map(json.loads, values) if fields]
