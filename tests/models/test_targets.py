"""Checks of a bfloat16 training step as it is compiled for a TPU v5e and for an H100.

The programs are compiled and not run, so no accelerator is needed. `pip install -e '.[targets]'`
installs both compilers (several gigabytes); a test is skipped if its compiler is missing.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache
from targets import (
    bfloat16_sums,
    compile_step,
    compiled_step,
    h100_devices,
    tpu_devices,
    v5e_devices,
)

from flaxbert.config import DataConfig
from flaxbert.models.attention import attend
from flaxbert.models.dropout import DropoutKeys
from flaxbert.models.families import read_config
from flaxbert.models.model import Model
from flaxbert.planning.hlo import KERNEL, collectives, instructions, score_arrays
from flaxbert.runtime import memory, sharding
from flaxbert.tasks.pretraining import PreTraining
from flaxbert.tasks.question_answering import QuestionAnswering
from flaxbert.tasks.token_classification import TokenClassification

SIZES = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 1,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
ALBERT = SIZES | {"model_type": "albert", "embedding_size": 128, "vocab_size": 30000}
MODERN = SIZES | {
    "model_type": "modernbert",
    "vocab_size": 50368,
    "intermediate_size": 1152,
    "max_position_embeddings": 8192,
}

DATA = DataConfig()
TASKS: dict[str, tuple[Any, dict[str, tuple[str, ...]]]] = {
    "question_answering": (
        QuestionAnswering(DATA, QuestionAnswering.options_type()),
        {"by_segment": ("start", "end")},
    ),
    "pretraining": (
        PreTraining(DATA, PreTraining.options_type()),
        {"by_token": ("masked", "label"), "by_segment": ("follows",)},
    ),
    "words": (
        PreTraining(DATA, PreTraining.options_type(next_sentence=False)),
        {"by_token": ("masked", "label")},
    ),
    "token_classification": (
        TokenClassification(DATA, TokenClassification.options_type(), ("O", "B-PER", "I-PER")),
        {"by_token": ("label", "first")},
    ),
}
TRITON_CALL = re.compile(r'custom_call_target="[^"]*triton[^"]*"')
CASES = [
    ("question_answering", SIZES),
    ("pretraining", SIZES),
    ("token_classification", ALBERT),
    ("words", MODERN),
]


@pytest.fixture(autouse=True)
def optimized() -> Iterator[None]:
    """Compile as in a run, not as conftest.py has it, and anew.

    JAX keeps programs for absent devices too, but it cannot load them.
    """
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # it remembers whether it is enabled
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "config"), CASES, ids=[f"{t}-{c['model_type']}" for t, c in CASES]
)
@pytest.mark.parametrize("target", ["v5e", "h100"])
def test_nothing_is_summed_in_bfloat16(target: str, task: str, config: dict[str, Any]) -> None:
    pytest.importorskip("libtpu" if target == "v5e" else "jax_cuda12_plugin")
    devices = v5e_devices() if target == "v5e" else h100_devices()
    made, arrays = TASKS[task]
    program = compiled_step(made, config, devices, **arrays)
    assert re.search(r"bf16\[[^\n]* (dot|convolution|custom-call)\(", program)
    assert re.search(r"f32\[[^\n]* all-reduce(-start)?\(", program)
    assert not bfloat16_sums(program)


@pytest.mark.slow
@pytest.mark.parametrize("length", [384, 512])
@pytest.mark.parametrize("slice_name", ["v5e:2x4", "v6e:2x4"])
def test_a_step_for_tpus_stores_no_scores_and_moves_only_gradients(
    slice_name: str, length: int
) -> None:
    pytest.importorskip("libtpu")
    made, arrays = TASKS["question_answering"]
    config = SIZES | {"num_hidden_layers": 2}
    program = compiled_step(made, config, tpu_devices(slice_name), length=length, **arrays)
    # One forward and one backward kernel a layer.
    assert program.count('custom_call_target="tpu_custom_call"') == 4
    assert not score_arrays(program, SIZES["num_attention_heads"], length)
    assert set(collectives(program)) == {"all-reduce"}
    # What the kernel saves is never copied from the chip's fast memory to HBM and back.
    parts = {one.name: one for one in instructions(program)}
    for kernel in (one for one in parts.values() if one.target == KERNEL):
        saved = [parts[name].outputs[0] for name in kernel.operands if name in parts]
        saved = [array for array in saved if len(array.shape) == 3 and array.dtype == "bf16"]
        backward = "transpose" in kernel.op_name
        inputs = 4 if backward else 3  # queries, keys, values, and what attention returned
        assert [array.on_chip for array in saved[:inputs]] == [False] * inputs
        # The sums of the gradients of biases come from the kernel.
        assert len(kernel.outputs) == (4 if backward else 2)


ALL_GATHER = re.compile(r"= (\w+)\[([\d,]*)\]\S* all-gather(?:-start)?\(")  # inside fusions too


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [4, 8])
def test_a_step_with_shared_parameters_moves_them_and_looked_up_words(fsdp: int) -> None:
    pytest.importorskip("libtpu")
    made, arrays = TASKS["question_answering"]
    rows, length = 32, 384
    compiled = compile_step(made, SIZES, v5e_devices(), rows=rows, fsdp=fsdp, **arrays)
    program = compiled.as_text()
    params = Model.create(read_config(SIZES), made.make_head).shapes
    sizes = {leaf.size: leaf.ndim for leaf in jax.tree.leaves(params)}
    gathered = [
        (dtype, math.prod(map(int, shape.split(","))))
        for dtype, shape in ALL_GATHER.findall(program)
    ]
    ids = rows * length * fsdp // 8
    assert {size for _, size in gathered} <= {*sizes, ids}
    large = {dtype for dtype, size in gathered if size >= SIZES["hidden_size"] ** 2}
    assert large == {"bf16"}  # kernels are cast first; the table of words is not gathered
    found = collectives(program)
    assert found["all-to-all"][0] == 2
    # The compiler makes rings of permutations, or fusions of this name, of reduce-scatters.
    assert "collective-permute" in found or "all-reduce-scatter" in program
    whole = 4 * sum(size for size in sizes)
    if fsdp == 8:  # else parts are summed over the copies
        assert found["all-reduce"][1] < 0.02 * whole
    arguments = compiled.memory_analysis().argument_size_in_bytes
    total = 3 * 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    assert arguments < 1.04 * total / fsdp
    assert not bfloat16_sums(program)


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 8])
@pytest.mark.parametrize(("reduce_dtype", "expected"), [("float32", "f32"), ("bfloat16", "bf16")])
def test_gradients_of_kernels_are_sent_in_the_type_of_their_sums(
    reduce_dtype: str, expected: str, fsdp: int
) -> None:
    pytest.importorskip("libtpu")
    made, arrays = TASKS["question_answering"]
    program = compiled_step(
        made, SIZES, v5e_devices(), fsdp=fsdp, reduce_dtype=reduce_dtype, **arrays
    )
    widths = {SIZES["hidden_size"], SIZES["intermediate_size"]}
    heights = widths | {width // fsdp for width in widths}
    sent = {
        array.dtype
        for instruction in instructions(program)
        if instruction.opcode in ("all-reduce", "collective-permute-start")
        for array in instruction.outputs
        if len(array.shape) == 2 and array.shape[0] in heights and array.shape[1] in widths
    }
    assert sent == {expected}


@pytest.mark.slow
def test_the_chips_of_a_slice_share_parameters() -> None:
    pytest.importorskip("libtpu")
    mesh = sharding.make_mesh(tpu_devices("v5e:2x4", slices=2), fsdp=8)
    groups = [{chip.slice_index for chip in group} for group in mesh.devices]
    assert groups == [{0}, {1}]
    halves = sharding.make_mesh(tpu_devices("v5p:4x4x4"), fsdp=32)  # no axis has half of its chips
    assert dict(halves.shape) == {"data": 2, "fsdp": 32}


@pytest.mark.slow
def test_heads_of_width_80_use_the_kernel_for_tpus() -> None:
    pytest.importorskip("libtpu")
    made, arrays = TASKS["token_classification"]
    config = SIZES | {"model_type": "xlm-roberta-xl", "hidden_size": 640, "num_attention_heads": 8}
    program = compiled_step(made, config, v5e_devices(), length=512, **arrays)
    assert program.count('custom_call_target="tpu_custom_call"') == 2  # forward and backward
    assert not score_arrays(program, 8, 512)


@pytest.mark.slow
@pytest.mark.parametrize("length", [384, 512])
def test_a_step_for_gpus_stores_no_scores_and_moves_only_gradients(length: int) -> None:
    pytest.importorskip("jax_cuda12_plugin")
    made, arrays = TASKS["question_answering"]
    config = SIZES | {"num_hidden_layers": 2}
    program = compiled_step(made, config, h100_devices(), length=length, **arrays)
    # One forward and two backward kernels a layer.
    assert len(TRITON_CALL.findall(program)) == 6
    assert not score_arrays(program, SIZES["num_attention_heads"], length)
    assert set(collectives(program)) == {"all-reduce"}


@pytest.mark.slow
@pytest.mark.parametrize("length", [384, 8192])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("width", [32, 64, 128])
def test_attention_compiles_for_gpus(width: int, dtype: str, length: int) -> None:
    pytest.importorskip("jax_cuda12_plugin")
    rows = sharding.batch_sharding(sharding.make_mesh(h100_devices()))

    def array(dtype: str, *sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((8, length, *sizes), dtype, sharding=rows)

    def loss(q: jax.Array, ids: jax.Array, keys: DropoutKeys) -> jax.Array:
        context = attend(q, q, q, ids, window=64, rate=0.1, keys=keys, way="kernel")
        return jnp.sum(context.astype(jnp.float32))

    keys = DropoutKeys(array("uint32"), array("uint32"), array("int32"))
    step = jax.jit(jax.grad(loss)).lower(array(dtype, 4, width), array("int32"), keys)
    assert len(TRITON_CALL.findall(step.compile().as_text())) == 3


@pytest.mark.slow
def test_modernbert_base_trains_on_8192_tokens_in_16_gigabytes() -> None:
    pytest.importorskip("libtpu")
    made, arrays = TASKS["token_classification"]
    config = MODERN | {"num_hidden_layers": 22}
    compiled = compile_step(made, config, v5e_devices(), rows=8, length=8192, **arrays)
    assert memory.needed_bytes(compiled) < 16e9
    assert not score_arrays(compiled.as_text(), SIZES["num_attention_heads"], 8192)


@pytest.mark.slow
def test_the_refusal_of_a_program_that_is_too_large_for_a_chip_is_read() -> None:
    pytest.importorskip("libtpu")
    everywhere = sharding.replicated(sharding.make_mesh(v5e_devices()))
    array = jax.ShapeDtypeStruct((2560, 1024, 1024), jnp.float32, sharding=everywhere)
    with pytest.raises(jax.errors.JaxRuntimeError) as raised:
        jax.jit(lambda x: x + 1).lower(array).compile()
    assert memory.is_exhausted(raised.value)
    usage = memory.usage_in(raised.value, array)
    assert usage is not None
    assert (usage.total, usage.arguments) == (20 * 2**30, 10 * 2**30)
    assert usage.capacity == 15.75 * 2**30
