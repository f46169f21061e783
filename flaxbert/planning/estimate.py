"""From the figures of a compiled step to time, cost, and what fits.

The time of a step is that of its roofline, the largest of three: operations / peak, bytes /
bandwidth of HBM, and bytes that a chip sends / its interconnect (Williams et al. 2009, "Roofline";
Austin et al. 2025, "How to Scale Your Model"). No program reaches it, so it is divided by an
efficiency, which is stated with every estimate.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping

from flaxbert.planning.step import Analysis, Sizes
from flaxbert.planning.topology import Target

UPDATE_PASSES = 7
"""Arrays as large as the parameters that AdamW reads and writes: gradient, parameter and two
moments, and the last three again."""

SENT = {"all-reduce": 2.0}
"""How many times its bytes a chip of a large ring sends in a collective: a reduce-scatter or an
all-gather sends each byte once, and an all-reduce is one of each."""


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The least time of a step by each of a chip's limits, in seconds."""

    compute: float
    memory: float
    exchange: float

    @property
    def seconds(self) -> float:
        """The least time of the step."""
        return max(self.compute, self.memory, self.exchange)

    @property
    def bound(self) -> str:
        """The limit that decides: compute, memory or exchange."""
        limits = dataclasses.asdict(self)
        return max(limits, key=lambda name: limits[name])


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run takes on a target."""

    roofline: Roofline
    """That of the largest batch."""
    efficiency: float
    step_seconds: float
    """Time of a step with the largest batch."""
    mfu: float
    """Model FLOPs utilization of that step: analytic operations / (time * peak)."""
    tokens_per_second: float
    """Tokens of texts; without data, places of tokens."""
    seconds: float | None
    """Time of all training steps; None if their number is not known."""
    cost: float | None
    """Price of the chips for that time; None without a price."""


def roofline(analysis: Analysis, target: Target, dtype: str, rows: int | None = None) -> Roofline:
    """Return the least time of a step.

    Args:
      analysis: the compiled step.
      target: the devices.
      dtype: type of the matrix products.
      rows: R of another batch; its time is estimated: operations and activations follow the rows,
        the optimizer's update and the exchange of gradients do not.
    """
    chip, share = target.chip, (rows or analysis.rows) / analysis.rows
    update = min(analysis.traffic, UPDATE_PASSES * analysis.gradients)
    moved = update + share * (min(analysis.traffic, analysis.accessed) - update)
    sent = sum(SENT.get(kind, 1.0) * size for kind, (_, size) in analysis.collectives.items())
    count = len(target.devices)
    return Roofline(
        share * analysis.flops / chip.peak(dtype),
        moved / chip.bandwidth,
        sent * (count - 1) / count / chip.exchange(count),
    )


def estimate(
    analysis: Analysis,
    target: Target,
    *,
    dtype: str,
    buckets: Mapping[int, int],
    padding: float,
    efficiency: float,
    price: float | None,
) -> Estimate:
    """Return what a run takes; see `roofline`.

    Args:
      analysis: the compiled step of the largest batch.
      target: the devices.
      dtype: type of the matrix products.
      buckets: {rows: steps} of the run.
      padding: share of the computed places that hold no token.
      efficiency: share of the roofline that a step reaches.
      price: of a chip and hour; None leaves the cost out.
    """
    limits = roofline(analysis, target, dtype)
    step = limits.seconds / efficiency
    seconds = sum(
        steps * roofline(analysis, target, dtype, rows).seconds / efficiency
        for rows, steps in buckets.items()
    )
    places = analysis.row_length * sum(rows * steps for rows, steps in buckets.items())
    if not seconds:  # the number of steps is unknown
        places, total = analysis.row_length * analysis.rows, step
    else:
        total = seconds
    return Estimate(
        limits,
        efficiency,
        step,
        analysis.model_flops / (step * target.chip.peak(dtype)),
        (1 - padding) * places / total,
        seconds or None,
        None if price is None or not seconds else price * target.chips * seconds / 3600,
    )


def largest_batch(step: Sizes, target: Target, *, microbatches: int, features: float) -> int:
    """Return the largest `train.batch_size` that probably fits without more micro-batches.

    Args:
      step: a compiled step; the bytes of its activations are taken to follow the rows.
      target: the devices.
      microbatches: `train.accumulation_steps` of the step.
      features: features in its batch.
    """
    fixed, growing = step.held, step.activations
    if growing < step.gradients:
        # The compiler may keep activations where it keeps gradients later, so both may grow.
        fixed, growing = fixed - step.gradients, step.peak - fixed + step.gradients
    room = target.room - fixed
    if room <= 0 or growing <= 0:
        return 0
    most = math.floor(room / growing * step.rows / len(target.devices) / microbatches)
    return math.floor(most * microbatches * len(target.devices) * features / step.rows)


def changes(
    step: Sizes, target: Target, *, microbatches: int, fsdp: int, remat: str
) -> Iterator[str]:
    """Yield the settings that make a step fit that does not, the cheapest one first.

    Args:
      step: the step.
      target: the devices.
      microbatches: its `train.accumulation_steps`.
      fsdp: devices that share one copy of the parameters, in the step.
      remat: its `model.remat`.
    """
    room, count = target.room, len(target.devices)
    shares = [n for n in range(2 * fsdp, count + 1) if count % n == 0 and n % fsdp == 0]
    if step.held > room:
        fitting = [n for n in shares if step.held * fsdp / n < 0.8 * room]
        if fitting:
            yield f"train.fsdp={fitting[0]}"
        else:
            yield "more chips, or chips with more memory: parameters and moments alone do not fit"
        return
    local = step.rows // count  # rows of a device
    parts = [n for n in range(microbatches + 1, local + 1) if local % n == 0]
    fitting = [n for n in parts if step.held + step.activations * microbatches / n < room]
    if fitting:
        yield f"train.accumulation_steps={fitting[0]}"
    if remat != "full":
        yield "model.remat=full (about a third more operations)"
    if shares and step.held > 0.2 * room:
        yield f"train.fsdp={shares[0]}"
