"""Read an optimized HLO program: its arrays, its collectives, and what moves the most bytes.

An array counts where an instruction outside of a fusion writes it. Inside a fusion nothing is
stored. What a loop computes counts as often as the loop runs, if the compiler knows how often.
"""

import dataclasses
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8}
"""Bytes of an element, by type; all others have 4."""

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)

FREE = frozenset(
    ("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "while")
)
"""Operations that move no bytes themselves."""

KERNEL = "tpu_custom_call"
"""What a custom call of a Pallas kernel runs on a TPU."""

GPU_KERNEL = "__gpu$xla.gpu.triton"
"""What a custom call of a Pallas kernel runs on a GPU; it states neither operations nor bytes."""

SLICES = ("slice", "dynamic-slice", "gather")
"""Operations that read a part of their first operand, as large as their result."""

PLACEHOLDERS = ("AllocateBuffer", "ConcatBitcast")
"""Custom calls of the TPU compiler that only name memory which copies fill."""

_HEADER = re.compile(r"(ENTRY )?%?([\w.-]+) ")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*)$")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations)=(\{[^}]*\}|%?[^\s,}]+)"
)
_SCATTERING = re.compile(r"%?all-reduce-scatter[\w.-]* = [^\n]*?calls=%?([\w.-]+)")
"""The computations of fusions in which a TPU reduces an array and keeps a part of it."""
_REPEATS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONTRACTED = re.compile(
    r'lhs_contracting_dim(?:s=\{|ensions":\[)([\d,"]*)'  # of a dot, and of a call of cuBLAS
)
_ARRAY = re.compile(r"\b(pred|[suf]\d+|bf16)\[([\d,]*)\](\{[^}]*\})?")


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array that an instruction writes."""

    dtype: str
    shape: tuple[int, ...]
    on_chip: bool
    """Whether it lies in the chip's fast memory (VMEM) instead of HBM."""

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return BYTES.get(self.dtype, 4) * math.prod(self.shape)

    def __str__(self) -> str:
        """Return the type as in HLO."""
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction of a program."""

    name: str
    opcode: str
    outputs: tuple[StoredArray, ...]
    operands: tuple[str, ...]
    op_name: str
    """The path of the operation in the traced program, such as jit(train_step)/jvp(mlp)/mul."""
    target: str = ""
    """What a custom call runs; empty for other operations."""
    claimed_bytes: int = 0
    """Bytes that a kernel's author says it moves; the compiler counts these, and 0 without them."""
    computation: str = ""
    """The name of the computation that it is part of."""
    times: int = 1
    """How often it runs: more than once in a loop."""
    called: str = ""
    """The computation of a fusion; empty for other operations."""
    number: int = 0
    """Of a parameter: its place among the operands of whoever calls its computation."""
    contracted: tuple[int, ...] = ()
    """Of a matrix product: the axes of the first operand that are summed over."""

    @property
    def is_free(self) -> bool:
        """Whether no byte moves: a name for memory, or the end of a copy that began earlier."""
        return self.opcode in FREE or self.opcode.endswith("-done") or self.target in PLACEHOLDERS

    @property
    def is_copy(self) -> bool:
        """Whether an array moves between HBM and VMEM while other instructions run."""
        return self.opcode in ("copy-start", "slice-start")

    @property
    def written(self) -> tuple[StoredArray, ...]:
        """The arrays that the instruction fills; the type of a copy names its source too."""
        if self.opcode == "copy-start":
            return self.outputs[:1]
        if self.opcode == "slice-start":
            return self.outputs[-2:-1]
        return self.outputs


def instructions(program: str, *, fused: bool = False) -> Iterator[Instruction]:
    """Yield the instructions of an HLO text that are not part of a fusion or a reduction.

    Args:
      program: optimized HLO.
      fused: yield those that are part of one too.
    """
    inner = set() if fused else set(re.findall(r"(?:calls|to_apply)=%?([\w.-]+)", program))
    times = _times(program)
    computation, skipping = "", False
    for line in program.splitlines():
        if line and not line[0].isspace():
            header = _HEADER.match(line)
            computation = header.group(2) if header else ""
            skipping = header is None or computation in inner
        elif not skipping and (match := _INSTRUCTION.match(line)):
            one = _instruction(match.group(1), match.group(2))
            runs = times.get(computation, 1)
            yield dataclasses.replace(one, computation=computation, times=runs)


def _instruction(name: str, rest: str) -> Instruction:
    """Return an instruction of its name and what stands behind the equals sign."""
    kind, call = _split_type(rest)
    opcode, _, arguments = call.partition("(")
    op_name = re.search(r'op_name="([^"]*)"', arguments)
    target = re.search(r'custom_call_target="([^"]*)"', arguments)
    claim = re.search(r'"cost_estimate":\{[^}]*"bytes_accessed":"(\d+)"', arguments)
    called = re.search(r"\bcalls=%?([\w.-]+)", arguments) if opcode == "fusion" else None
    axes = _CONTRACTED.search(arguments)
    operands, _, _ = arguments.partition(")")
    return Instruction(
        name,
        opcode.strip(),
        tuple(_arrays(kind)),
        tuple(re.findall(r"%([\w.-]+)", operands)),
        op_name.group(1) if op_name else "",
        target.group(1) if target else "",
        int(claim.group(1)) if claim else 0,
        called=called.group(1) if called else "",
        number=int(operands) if opcode == "parameter" else 0,
        contracted=tuple(map(int, re.findall(r"\d+", axes.group(1)))) if axes else (),
    )


def _times(program: str) -> Mapping[str, int]:
    """Return how often each computation runs, {name: times}."""
    calls: dict[str, list[tuple[str, int]]] = defaultdict(list)  # {callee: [(caller, times)]}
    caller = entry = ""
    for line in program.splitlines():
        if line and not line[0].isspace():
            if header := _HEADER.match(line):
                caller = header.group(2)
                entry = caller if header.group(1) else entry
        elif "=" in line:
            repeats = _REPEATS.search(line)
            for key, names in _CALLED.findall(line):
                times = int(repeats.group(1)) if repeats and key in ("body", "condition") else 1
                for name in names.strip("{}").split(","):
                    calls[name.strip().lstrip("%")].append((caller, times))
    times_of: dict[str, int] = {entry: 1}

    def count(name: str) -> int:
        if name not in times_of:
            times_of[name] = sum(times * count(caller) for caller, times in calls[name])
        return times_of[name]

    for name in list(calls):
        count(name)
    return times_of


def _split_type(text: str) -> tuple[str, str]:
    """Split `TYPE opcode(...)`; a tuple's type has parentheses and spaces."""
    if not text.startswith("("):
        kind, _, call = text.partition(" ")
        return kind, call
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: place + 1], text[place + 1 :].strip()
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")


def _arrays(kind: str) -> Iterator[StoredArray]:
    for dtype, sizes, layout in _ARRAY.findall(kind):
        shape = tuple(int(size) for size in sizes.split(",") if size)
        yield StoredArray(dtype, shape, "S(" in layout)


@dataclasses.dataclass
class Traffic:
    """What a part of the step moves."""

    hbm: int = 0
    """Bytes read from and written to HBM."""
    vmem: int = 0
    """Bytes read from and written to VMEM."""
    passes: int = 0
    """Number of instructions."""


PARTS = ("embeddings", "attention", "mlp", "head")
"""Named scopes of the model. Residual sums, LayerNorm and their dropout have none."""


def stored_arrays(program: str) -> list[tuple[StoredArray, Instruction]]:
    """Return all arrays that the program writes, largest first, with their instructions."""
    written = [
        (array, instruction)
        for instruction in instructions(program)
        if not instruction.is_free
        for array in instruction.written
    ]
    return sorted(written, key=lambda pair: -pair[0].nbytes)


def score_arrays(program: str, heads: int, length: int) -> list[StoredArray]:
    """Return the stored arrays that have a number for each head and pair of tokens.

    Args:
      program: optimized HLO.
      heads: N; an array counts whose other sizes multiply to a multiple of it.
      length: T; an array counts that has two axes of this size.
    """
    matches = []
    for array, _ in stored_arrays(program):
        others = math.prod(array.shape) // length**2
        if array.shape.count(length) >= 2 and others and others % heads == 0:
            matches.append(array)
    return matches


def collectives(program: str) -> dict[str, tuple[int, int]]:
    """Return {kind: (count, bytes)} of the program's communication between devices.

    Bytes are those of the whole arrays on a device: of the result, and for a reduce-scatter of what
    is reduced. Communication in the background counts where it begins, also if it is fused with
    what is computed meanwhile.
    """
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    arrays: dict[str, tuple[StoredArray, ...]] = {}
    scattering = set(_SCATTERING.findall(program))
    for instruction in instructions(program, fused=True):
        arrays[instruction.name] = instruction.outputs
        kind = instruction.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            parts = instruction.outputs
            if kind != instruction.opcode and kind != "all-reduce":  # (operands, results, ...)
                parts = parts[1:2] if kind == "collective-permute" else parts[len(parts) // 2 :]
            if kind == "reduce-scatter":
                names = instruction.operands
                parts = tuple(array for name in names for array in arrays.get(name, ())) or parts
            if kind == "all-reduce" and instruction.computation in scattering:
                kind = "reduce-scatter"
            counts[kind] += instruction.times
            sizes[kind] += instruction.times * sum(array.nbytes for array in parts)
    return {kind: (counts[kind], sizes[kind]) for kind in counts}


def traffic(program: str) -> dict[str, Traffic]:
    """Return what the instructions of each part of the step read and write.

    An operand of a fusion counts in full, unless the fusion reads only slices of it.
    """
    arrays: dict[str, tuple[StoredArray, ...]] = {}
    in_part = _read_in_part(program)
    totals = {part: Traffic() for part in (*PARTS, "rest of the model", "optimizer", "copies")}
    for instruction in instructions(program):
        arrays[instruction.name] = instruction.outputs
        if instruction.is_free:
            continue
        total = totals[part_of(instruction)]
        total.passes += 1
        if instruction.is_copy:  # one of its two sides is HBM, the other VMEM
            moved = instruction.times * sum(array.nbytes for array in instruction.written)
            total.hbm += moved
            total.vmem += moved
            continue
        moved_arrays = [(array, array.nbytes) for array in instruction.written]
        for number, name in enumerate(instruction.operands):
            read = in_part.get((instruction.called, number))
            moved_arrays += [(a, a.nbytes if read is None else read) for a in arrays.get(name, ())]
        for array, nbytes in moved_arrays:
            if array.on_chip:
                total.vmem += instruction.times * nbytes
            else:
                total.hbm += instruction.times * nbytes
    return totals


def _read_in_part(program: str) -> dict[tuple[str, int], int]:
    """Return {(computation, number of its parameter): bytes} of what fusions read slices of."""
    numbers: dict[tuple[str, str], int] = {}  # of parameters, by computation and name
    sizes: dict[tuple[str, int], int] = {}
    read: Counter[tuple[str, int]] = Counter()
    whole: set[tuple[str, int]] = set()
    for one in instructions(program, fused=True):
        where = one.computation
        if one.opcode == "parameter":
            numbers[where, one.name] = one.number
            sizes[where, one.number] = sum(array.nbytes for array in one.outputs)
        for place, name in enumerate(one.operands):
            if (where, name) not in numbers:
                continue
            parameter = where, numbers[where, name]
            if place == 0 and one.opcode in SLICES:
                read[parameter] += sum(array.nbytes for array in one.outputs)
            else:
                whole.add(parameter)
    return {key: min(size, sizes[key]) for key, size in read.items() if key not in whole}


def product_flops(program: str) -> float:
    """Return the operations of the matrix products that are not part of a kernel.

    Those in a loop count as often as the loop runs.
    """
    total = 0
    shapes: dict[tuple[str, str], tuple[int, ...]] = {}  # by computation and name
    for one in instructions(program, fused=True):
        if one.outputs:
            shapes[one.computation, one.name] = one.outputs[0].shape
        if one.contracted:
            left = shapes[one.computation, one.operands[0]]
            summed = math.prod(left[axis] for axis in one.contracted)
            total += one.times * 2 * math.prod(one.outputs[0].shape) * summed
    return float(total)


def uncounted_kernel_bytes(program: str) -> int:
    """Return the bytes by which operands and results of kernels exceed what their authors claim."""
    arrays: dict[str, tuple[StoredArray, ...]] = {}
    total = 0
    for instruction in instructions(program):
        arrays[instruction.name] = instruction.outputs
        if instruction.target == KERNEL:
            operands = (array for name in instruction.operands for array in arrays.get(name, ()))
            moved = sum(array.nbytes for array in (*instruction.outputs, *operands))
            total += instruction.times * max(0, moved - instruction.claimed_bytes)
    return total


def part_of(instruction: Instruction) -> str:
    """Return the part of the step that an instruction belongs to."""
    if instruction.is_copy:
        return "copies"
    for part in PARTS:
        if f"({part})" in instruction.op_name or f"/{part}/" in instruction.op_name:
            return part
    return "rest of the model" if "jvp(" in instruction.op_name else "optimizer"
