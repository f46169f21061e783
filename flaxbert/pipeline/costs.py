"""What batch shapes cost: estimates by which row lengths and bucket sizes are chosen.

They depend only on the model, the kind of device and the number of devices. So all hosts choose the
same shapes, and a run that resumes continues with the shapes that it began with. Measured times
would differ between hosts and between processes.
"""

import dataclasses

from flaxbert.data.packing import ShapeCosts
from flaxbert.models.layers import EncoderConfig
from flaxbert.runtime import sharding


@dataclasses.dataclass(frozen=True)
class Platform:
    """The speed of a kind of device."""

    flops: float
    """Floating-point operations per second that a training step reaches on one device."""
    program_seconds: float
    """Seconds that one more program costs a run."""
    tile: int
    """Row lengths are multiples of this."""


PLATFORMS = {
    "cpu": Platform(flops=64e9, program_seconds=1.7, tile=8),
    "gpu": Platform(flops=200e12, program_seconds=5.0, tile=64),
    "tpu": Platform(flops=80e12, program_seconds=10.0, tile=128),
}
"""Orders of magnitude are enough: the best choice changes little with them.

For CPUs: two cores, which compile a training step of 6 layers in about 5 s. Programs are compiled
in parallel threads and come from the compilation cache in later runs, so a run is charged with
about a third of the time that compiling takes. Attention kernels for TPUs need rows of a multiple
of 128 tokens.
"""

ATTENTION = 3.0
"""Time of attention's products, relative to other products of the same FLOPs. They are small, and
the softmax and dropout between them read and write arrays of [T, T]."""


def shape_costs(encoder: EncoderConfig, mesh: sharding.Mesh) -> ShapeCosts:
    """Return the costs of batch shapes for a model on the devices of a mesh."""
    width, inner = encoder.hidden_size, encoder.intermediate_size
    dense = 8 * width**2 + 4 * width * inner  # FLOPs of a layer's products at a position, forward
    platform = PLATFORMS.get(sharding.platform(mesh), PLATFORMS["gpu"])
    devices = sharding.data_parallelism(mesh)
    per_second = platform.flops * devices / (3 * encoder.num_hidden_layers * dense)
    return ShapeCosts(
        program=platform.program_seconds * per_second,
        attention=ATTENTION * 4 * width / dense,
        tile=platform.tile,
    )
