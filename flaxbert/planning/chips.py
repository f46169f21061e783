"""Peak rates and memory of accelerators: one table, with the source of each figure.

A chip here is what JAX calls a device. Rates are those of the data sheets, which no program reaches
(see `Chip.efficiency`).
"""

import dataclasses

from flaxbert.errors import ConfigError

GIBIBYTE = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """An accelerator, as JAX sees it."""

    name: str
    """The name on the command line."""
    kind: str
    """JAX's name for the device; that of a GPU has further words."""
    bfloat16: float
    """Peak of matrix products in bfloat16, FLOP/s."""
    float32: float
    """The same for float32 at JAX's default precision: on TPUs one pass of bfloat16, on NVIDIA GPUs
    TF32."""
    memory: int
    """Bytes of HBM that a program can use."""
    bandwidth: float
    """Peak of reads and writes of HBM, bytes/s."""
    interconnect: float
    """Peak that a chip sends to its neighbors over all its links, one way, bytes/s."""
    host: int = 8
    """Most chips that `interconnect` holds for; beyond, `network` limits. For TPUs: a pod."""
    network: float = 0.0
    """Peak that a chip sends to other hosts, one way, bytes/s."""
    efficiency: float = 0.5
    """Share of the roofline that a step reaches: an assumption until it is measured on the chip.
    Records of BERT reach 47 to 49 % of the peak: MLPerf v2.0 on TPU v4, v4.0 on H100 (see
    docs/scaling.md)."""

    def peak(self, dtype: str) -> float:
        """Return the peak of matrix products in a type, FLOP/s."""
        return self.bfloat16 if dtype == "bfloat16" else self.float32

    def exchange(self, chips: int) -> float:
        """Return the bytes per second that a chip sends if that many take part."""
        return self.interconnect if chips <= self.host else self.network


def _tpu(
    name: str, kind: str, tera: float, memory: float, giga: float, links: float, pod: int
) -> Chip:
    """Return a TPU.

    Args:
      name: generation.
      kind: JAX's name for it.
      tera: peak in bfloat16, TFLOP/s.
      memory: GiB that a program can use.
      giga: bandwidth of HBM, GB/s.
      links: GB/s that all links together send, one way.
      pod: chips of the largest slice.
    """
    usable = int(memory * GIBIBYTE)
    rates = 1e12 * tera, 1e12 * tera, usable, 1e9 * giga, 1e9 * links
    return Chip(name, kind, *rates, host=pod)


def _gpu(
    name: str, kind: str, tera: float, tf32: float, memory: float, giga: float, links: float
) -> Chip:
    """Return an NVIDIA GPU; see `_tpu`. JAX uses three quarters of its memory by default."""
    usable = int(0.75 * memory * GIBIBYTE)
    rates = 1e12 * tera, 1e12 * tf32, usable, 1e9 * giga, 1e9 * links
    return Chip(name, kind, *rates, host=8, network=50e9)


CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        # TPUs. Peak, HBM and links: the tables of the "TPUs" and "rooflines" chapters of How to
        # Scale Your Model (jax-ml/scaling-book), and Google Cloud's page of each generation. A chip
        # of v5e and v6e has four links, one of v4, v5p and TPU7x six. Usable memory: what the TPU
        # compiler names as capacity in its messages (v5e, v6e), elsewhere what the page says less
        # 256 MiB, as there.
        _tpu("v4", "TPU v4", 275, 32 - 0.25, 1200, 6 * 45, pod=4096),
        _tpu("v5e", "TPU v5 lite", 197, 15.75, 819, 4 * 45, pod=256),
        _tpu("v5p", "TPU v5", 459, 94.75, 2765, 6 * 90, pod=8960),
        _tpu("v6e", "TPU v6 lite", 918, 31.25, 1638, 4 * 90, pod=256),
        # Of a TPU7x JAX sees two devices, so each has half of the page's figures.
        _tpu("tpu7x", "TPU7x", 2307 / 2, 96 - 0.25, 7380 / 2, 600 / 2, pod=2 * 9216),
        # NVIDIA GPUs. Data sheets, dense rates, SXM: NVLink sends 300 (A100) or 450 GB/s (H100,
        # H200) one way. Hosts: DGX, with one network card of 400 Gbit/s for each GPU. Three
        # quarters of the memory: JAX's page on GPU memory allocation.
        _gpu("a100", "A100", 312, 156, 79.3, 2039, 300),
        _gpu("h100", "H100", 989, 494.5, 79.6, 3350, 450),
        _gpu("h200", "H200", 989, 494.5, 140.4, 4800, 450),
    )
}

# Not an accelerator: an order of magnitude for plans on a laptop. The FLOP/s that training steps
# reach on two cores, as in pipeline/costs.py; bandwidth of two channels of DDR4.
CPU = Chip("cpu", "cpu", 64e9, 64e9, 8 * GIBIBYTE, 40e9, 40e9, host=10**6, efficiency=1.0)

PER_CHIP = {"tpu7x": 2}
"""Devices of JAX that are one chip for those who sell it, where that is not one."""


def chip_of(kind: str) -> Chip:
    """Return the chip that JAX calls `kind`.

    Raises:
      ConfigError: for one that is not in the table.
    """
    if kind == CPU.kind:
        return CPU
    for chip in CHIPS.values():
        if kind == chip.kind or (not chip.kind.startswith("TPU") and chip.kind in kind):
            return chip
    raise ConfigError(
        f"no peak rates are known for {kind}, which JAX uses here. Plan for another chip: "
        f"--topology=v5e:2x4, or --gpu with one of {', '.join(gpus())}."
    )


def gpus() -> list[str]:
    """Return the names of the GPUs in the table."""
    return [name for name, chip in CHIPS.items() if not chip.kind.startswith("TPU")]


def generations() -> list[str]:
    """Return the names of the TPUs in the table."""
    return [name for name in CHIPS if name not in gpus()]
