"""The compiled step of a run, in as many micro-batches as the run itself would use."""

import logging

from flaxbert.planning import step
from flaxbert.planning.step import Analysis, Exhausted
from flaxbert.planning.topology import Target
from flaxbert.planning.workload import Job, Work
from flaxbert.runtime.memory import gib

log = logging.getLogger("flaxbert")


def compiled(job: Job, target: Target) -> tuple[Work, Analysis | Exhausted]:
    """Return the largest batch of a run on a target, and its compiled step.

    With `train.accumulation_steps=auto` the step is compiled in 1, 2, 4, ... micro-batches until it
    fits; see `training.microbatches.prepare`. If none fits, the last one is returned.
    """
    parts = job.config.train.microbatches
    while True:
        work = job.on(target, parts)
        analysis = _compile(job, target, work)
        fits = isinstance(analysis, Analysis) and analysis.peak <= target.room
        if job.config.train.accumulation_steps != "auto" or fits or not work.divisible:
            return work, analysis
        log.info(
            f"train.accumulation_steps={parts} does not fit: it needs {gib(analysis.peak)} of "
            f"{gib(target.chip.memory)} GiB"
        )
        parts *= 2


def _compile(job: Job, target: Target, work: Work) -> Analysis | Exhausted:
    pipeline, config = work.pipeline, job.config.with_accumulation_steps(work.microbatches)
    rows, length = work.arrays["input_ids"].shape
    log.info(
        f"{target.name}: {rows} rows x {length} tokens, "
        f"train.accumulation_steps={work.microbatches}"
    )
    analysis = step.analyze(
        pipeline.model,
        pipeline.task,
        pipeline.mesh,
        work.arrays,
        train=config.train,
        optim=config.optim,
        steps=work.schedule_steps,
    )
    log.info(f"compiled for {target.name} in {analysis.seconds:.0f} s")
    return analysis
