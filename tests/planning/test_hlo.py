"""planning/hlo.py reads what optimized HLO stores, moves and exchanges."""

import jax
import jax.numpy as jnp
import pytest
import tpu_traffic
from jax import Array

from flaxbert.planning import hlo
from flaxbert.runtime import sharding

HLO = """HloModule jit_train_step

%fused (p0: bf16[8,4,64,64]) -> bf16[8,4,64,64] {
  %p0 = bf16[8,4,64,64]{3,2,1,0} parameter(0)
  ROOT %exp = bf16[8,4,64,64]{3,2,1,0} exponential(%p0)
}

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

ENTRY %main (x: bf16[8,4,64,64], w: f32[100]) -> (f32[100], bf16[8,4,64,64]) {
  %x = bf16[8,4,64,64]{3,2,1,0} parameter(0)
  %w = f32[100]{0:T(128)} parameter(1)
  %copy-start = (f32[100]{0:T(128)S(1)}, f32[100]{0:T(128)}, u32[]{:S(2)}) copy-start(%w)
  %copy-done = f32[100]{0:T(128)S(1)} copy-done(%copy-start)
  %probs = bf16[8,4,64,64]{3,2,1,0} fusion(%x), kind=kLoop, calls=%fused, \
metadata={op_name="jit(train_step)/jvp(attention)/exp"}
  %all-reduce = (f32[100]{0:T(128)S(1)}, f32[]{:T(128)}) all-reduce(%copy-done, %copy-done), \
to_apply=%sum
  %gradient = f32[100]{0:T(128)S(1)} get-tuple-element(%all-reduce), index=0
  ROOT %tuple = (f32[100], bf16[8,4,64,64]) tuple(%gradient, %probs)
}
""".replace("\\\n", "")
SCORES = 2 * 8 * 4 * 64 * 64


def test_traffic_counts_operands_and_results_outside_of_fusions() -> None:
    parts = hlo.traffic(HLO)
    assert parts["attention"] == hlo.Traffic(hbm=2 * SCORES, vmem=0, passes=1)
    assert parts["copies"] == hlo.Traffic(hbm=400, vmem=400, passes=1)
    assert parts["optimizer"] == hlo.Traffic(hbm=4, vmem=1200, passes=1)


def test_all_branches_of_a_condition_in_a_loop_count_once_for_each_repetition() -> None:
    lines = [
        "ENTRY %main (x: f32[8]) -> f32[8] {",
        '  %loop = while(%x), condition=%done, body=%body, {"known_trip_count":{"n":"3"}}',
        "}",
        "%body (x: f32[8]) -> f32[8] {",
        "  %y = f32[8] conditional(%p, %x, %x), branch_computations={%first, %second}",
        "}",
    ]
    assert hlo._times("\n".join(lines)) == {
        "main": 1,
        "done": 3,
        "body": 3,
        "first": 3,
        "second": 3,
    }


def test_kernels_count_with_their_operands_and_results_if_those_exceed_their_estimate() -> None:
    kernel = '%y = f32[100] custom-call(%w), custom_call_target="tpu_custom_call"'
    estimate = ', backend_config={"cost_estimate":{"flops":"1","bytes_accessed":"BYTES"}}'
    lines = "ENTRY %main () -> f32[100] {\n  %w = f32[100]{0} parameter(0)\n  "
    assert hlo.uncounted_kernel_bytes(lines + kernel) == 800
    for claimed, uncounted in ((300, 500), (1000, 0)):
        text = lines + kernel + estimate.replace("BYTES", str(claimed))
        assert hlo.uncounted_kernel_bytes(text) == uncounted


def test_collectives_are_counted_with_their_bytes() -> None:
    assert hlo.collectives(HLO) == {"all-reduce": (1, 404)}


@pytest.mark.parametrize(
    ("heads", "length", "count"), [(4, 64, 1), (8, 64, 1), (3, 64, 0), (4, 8, 0)]
)
def test_arrays_with_a_score_for_each_pair_of_tokens(heads: int, length: int, count: int) -> None:
    assert len(hlo.score_arrays(HLO, heads, length)) == count


def test_the_gradients_of_a_sharded_step_are_all_reduced_once() -> None:
    mesh = sharding.make_mesh()
    place = sharding.replicated(mesh), sharding.batch_sharding(mesh)

    def loss(weights: Array, rows: Array) -> Array:
        return jnp.sum(jnp.tanh(rows @ weights))

    step = jax.jit(jax.grad(loss), in_shardings=place, out_shardings=place[0])
    text = step.lower(jnp.ones((16, 32)), jnp.ones((8, 16))).compile().as_text()
    assert text is not None
    assert hlo.collectives(text) == {"all-reduce": (1, 4 * 16 * 32)}


def test_a_step_that_exchanges_more_than_gradients_is_reported() -> None:
    record = {"parameters": 100, "collectives": {"all-reduce": {"bytes": 404}}}
    assert not tpu_traffic.check(record)
    record["collectives"] = {"all-reduce": {"bytes": 800_000}, "all-gather": {"bytes": 8}}
    assert tpu_traffic.check(record) == [
        "collectives besides all-reduce: all-gather",
        "all-reduces of 800000 bytes, more than the gradients have",
    ]


LOOP = """HloModule jit_train_step

%body (p: f32[8,100]) -> f32[8,100] {
  %p = f32[8,100]{1,0} parameter(0)
  ROOT %all-gather = f32[8,100]{1,0} all-gather(%p), dimensions={0}
}

%scatter (q: f32[800]) -> f32[100] {
  %q = f32[800]{0} parameter(0)
  %all-reduce = f32[800]{0} all-reduce(%q), to_apply=%sum
  ROOT %slice = f32[100]{0} dynamic-slice(%all-reduce, %q)
}

ENTRY %main (x: f32[8,100], g: f32[800]) -> f32[100] {
  %x = f32[8,100]{1,0} parameter(0)
  %g = f32[800]{0} parameter(1)
  %while = f32[8,100]{1,0} while(%x), condition=%done, body=%body, \
backend_config={"known_trip_count":{"n":"4"}}
  ROOT %all-reduce-scatter.1 = f32[100]{0} fusion(%g), kind=kCustom, calls=%scatter
}
""".replace("\\\n", "")


def test_what_a_loop_and_a_fusion_exchange_is_counted() -> None:
    assert hlo.collectives(LOOP) == {"all-gather": (4, 4 * 3200), "reduce-scatter": (1, 3200)}


GPU = """HloModule jit_train_step

%sliced (a: f32[1000], i: s32[]) -> f32[10] {
  %i = s32[] parameter(1)
  %a = f32[1000]{0} parameter(0)
  %first = f32[10]{0} slice(%a), slice={[0:10]}
  %next = f32[10]{0} dynamic-slice(%a, %i), dynamic_slice_sizes={10}
  ROOT %add = f32[10]{0} add(%first, %next)
}

%gemm (l: bf16[8,64], r: bf16[64,100]) -> bf16[8,100] {
  %l = bf16[8,64]{1,0} parameter(0)
  %r = bf16[64,100]{1,0} parameter(1)
  ROOT %dot = bf16[8,100]{1,0} dot(%l, %r), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (p: bf16[8,64]) -> bf16[8,64] {
  %p = bf16[8,64]{1,0} parameter(0)
  %w = bf16[64,100]{1,0} constant({...})
  %y = bf16[8,100]{1,0} fusion(%p, %w), kind=kCustom, calls=%gemm
  ROOT %same = bf16[8,64]{1,0} copy(%p)
}

ENTRY %main (x: bf16[8,64], b: f32[1000], n: s32[]) -> f32[10] {
  %x = bf16[8,64]{1,0} parameter(0)
  %b = f32[1000]{0} parameter(1)
  %n = s32[] parameter(2)
  %while = bf16[8,64]{1,0} while(%x), condition=%done, body=%body, \
backend_config={"known_trip_count":{"n":"4"}}
  %call = (bf16[64,64]{1,0}, s8[99]{0}) custom-call(%x, %x), custom_call_target="__cublas$gemm", \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":{\
"lhs_contracting_dimensions":["0"],"rhs_contracting_dimensions":["0"]}}}
  ROOT %fusion = f32[10]{0} fusion(%b, %n), kind=kLoop, calls=%sliced
}
""".replace("\\\n", "")


def test_products_are_counted_in_fusions_loops_and_calls_of_cublas() -> None:
    assert hlo.product_flops(GPU) == 4 * 2 * 8 * 64 * 100 + 2 * 64 * 64 * 8


def test_of_a_sliced_operand_only_the_slices_are_read() -> None:
    (last,) = (one for one in hlo.instructions(GPU) if one.called == "sliced")
    text = GPU.replace(", backend_config=", ', metadata={op_name="jvp(mlp)"}, backend_config=')
    text = text.replace("calls=%sliced", 'calls=%sliced, metadata={op_name="jvp(embeddings)"}')
    assert last.operands == ("b", "n")
    assert hlo.traffic(text)["embeddings"].hbm == 4 * (10 + 2 * 10 + 1)
