"""The optimizer against arithmetic written out by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SIZES
from tolerance import assert_close

from flaxbert.config import OptimConfig
from flaxbert.models.bert import BertConfig
from flaxbert.models.heads import SequenceClassificationHead
from flaxbert.models.model import Model
from flaxbert.runtime import sharding
from flaxbert.training import freezing
from flaxbert.training.optim import (
    averaged_params,
    decay_mask,
    make_optimizer,
    make_schedule,
    warmup_steps,
)
from flaxbert.training.step import compiler_options, keep_if

PEAK = 1e-3


@pytest.mark.parametrize("warmup", [0.1, 10.0])  # of 100 steps, the same
def test_learning_rate_rises_to_the_peak_and_falls_to_zero_after_the_last_step(warmup):
    rate = make_schedule(OptimConfig(learning_rate=PEAK, warmup=warmup), 100)
    # By definition: step / 10 before step 10, then (100 - step) / 90, both of the peak.
    expected = {0: 0.0, 1: 0.1, 9: 0.9, 10: 1.0, 11: 89 / 90, 99: 1 / 90, 100: 0.0}
    found = {step: float(rate(jnp.int32(step))) / PEAK for step in expected}
    assert found == pytest.approx(expected, rel=1e-6)


def test_warmup_share_is_rounded_up_to_whole_steps():
    rate = make_schedule(OptimConfig(learning_rate=PEAK, warmup=0.25), 5)  # 1.25 steps: 2
    assert [float(rate(step)) / PEAK for step in range(6)] == pytest.approx(
        [0, 1 / 2, 1, 2 / 3, 1 / 3, 0], abs=1e-6
    )


@pytest.mark.parametrize(
    ("schedule", "power", "shares"),  # at the peak, halfway, after three quarters, and at the end
    [
        ("linear", 1.0, (1, 1 / 2, 1 / 4, 0)),
        ("cosine", 1.0, (1, 1 / 2, (1 - np.sqrt(1 / 2)) / 2, 0)),
        ("polynomial", 1.0, (1, 1 / 2, 1 / 4, 0)),
        ("polynomial", 2.0, (1, 1 / 4, 1 / 16, 0)),
        ("constant", 1.0, (1, 1, 1, 1)),
    ],
)
def test_schedules_after_the_same_warmup(schedule, power, shares):
    config = OptimConfig(learning_rate=PEAK, warmup=4.0, schedule=schedule, power=power)
    rate = make_schedule(config, 20)
    expected = [1 / 4, 3 / 4, *shares]
    steps = (1, 3, 4, 12, 16, 20)
    on_host, on_device = (
        [float(rate(kind(step))) / PEAK for step in steps] for kind in (int, jnp.int32)
    )
    assert on_host == pytest.approx(expected, rel=1e-6, abs=1e-7)
    assert on_device == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_without_warmup_the_first_step_has_the_peak_learning_rate():
    rate = make_schedule(OptimConfig(learning_rate=PEAK, warmup=0.0), 4)
    assert [float(rate(step)) / PEAK for step in range(4)] == pytest.approx(
        [1, 3 / 4, 1 / 2, 1 / 4]
    )


def test_learning_rate_of_a_step_on_the_host_is_that_of_the_device_to_the_bit():
    rate = make_schedule(OptimConfig(learning_rate=3e-5, warmup=0.1), 37)
    for step in range(38):
        on_host = rate(step)
        assert not isinstance(on_host, jax.Array)  # it would wait for the steps in the queue
        assert float(on_host) == float(rate(jnp.int32(step)))


@pytest.mark.parametrize(
    ("warmup", "total", "steps"),
    [
        (0.1, 1, 0),  # its only step would have a rate of 0
        (1.0, 1, 0),
        (0.1, 2, 1),
        (0.95, 10, 9),
        (100.0, 10, 9),  # longer than the run
        (9.0, 10, 9),
        (8.0, 10, 8),
    ],
)
def test_warmup_ends_before_the_last_step(warmup, total, steps):
    config = OptimConfig(learning_rate=PEAK, warmup=warmup)
    assert warmup_steps(config, total) == steps
    rate = make_schedule(config, total)
    assert max(float(rate(step)) for step in range(total)) == pytest.approx(PEAK)


def test_skipped_step_advances_the_schedule():
    # Without a gradient an update is -rate * decay * weight, so it shows the rate.
    config = OptimConfig(learning_rate=0.1, warmup=0.5, weight_decay=1.0)
    optimizer, schedule = make_optimizer(config, total_steps=10)
    params = jax.tree.map(jnp.float32, PARAMS)
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = optimizer.init(params)
    _, state = optimizer.update(zeros, state, params, step=jnp.int32(0))
    for step in (2, 9):  # the state after step 1 was not kept: step.py skips like that
        updates, state = optimizer.update(zeros, state, params, step=jnp.int32(step))
        np.testing.assert_allclose(
            updates["dense"]["kernel"],
            -float(schedule(step)) * PARAMS["dense"]["kernel"],
            rtol=1e-6,
        )


@pytest.mark.parametrize("bias_correction", [True, False])
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_optimizer_state_has_the_structure_of_earlier_checkpoints(bias_correction, clip_norm):
    config = OptimConfig(bias_correction=bias_correction, clip_norm=clip_norm)
    optimizer, schedule = make_optimizer(config, total_steps=10)
    clip = optax.clip_by_global_norm(1.0) if clip_norm else optax.identity()
    decay = optax.add_decayed_weights(0.01, decay_mask)
    earlier = optax.chain(
        clip, optax.scale_by_adam(), decay, optax.scale_by_learning_rate(schedule)
    )
    params = jax.tree.map(jnp.float32, PARAMS)
    state, before = optimizer.init(params), earlier.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(before)
    _, after = optimizer.update(params, state, params, step=jnp.int32(0))
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (before, after)]
    assert shapes[0] == shapes[1]


def test_weight_decay_excludes_biases_and_layer_norm():
    config = BertConfig(vocab_size=50, **SIZES)
    model = Model.create(config, lambda c, rngs: SequenceClassificationHead(c, 3, rngs))
    masked = jax.tree_util.tree_leaves_with_path(decay_mask(model.shapes))
    names = {jax.tree_util.keystr(p, simple=True, separator="/") for p, decays in masked if decays}
    blocks = ("attention/query", "attention/key", "attention/value", "attention/output")
    assert names == {
        "encoder/embeddings/word/embedding",
        "encoder/embeddings/position/embedding",
        "encoder/embeddings/token_type/embedding",
        *(
            f"encoder/layers/{i}/{b}/kernel"
            for i in (0, 1)
            for b in (*blocks, "intermediate", "output")
        ),
        "head/pooler/dense/kernel",
        "head/classifier/kernel",
    }
    assert len(masked) == 3 + 2 + 2 * 16 + 4  # none is lost: the others are known not to decay


def test_layer_decay_lowers_the_rate_from_the_top_layer_to_the_embeddings():
    weight = {"kernel": np.ones((2, 2), np.float32)}
    layers = {n: {"output": weight} for n in range(3)}
    params = {"encoder": {"embeddings": {"word": weight}, "layers": layers}, "head": weight}
    settings = OptimConfig(learning_rate=1.0, warmup=0.0, layer_decay=0.5, clip_norm=0.0)
    optimizer, _ = make_optimizer(settings, total_steps=10)
    updates, _ = optimizer.update(params, optimizer.init(params), params, step=np.int32(0))
    rates = jax.tree.map(lambda update: -float(update[0, 0]) / 1.01, updates)
    # All gradients and weights are 1, so Adam's part is 1, and that of the decay 0.01.
    assert rates["head"]["kernel"] == pytest.approx(1.0, rel=1e-5)
    for n, factor in enumerate((0.25, 0.5, 1.0)):
        assert rates["encoder"]["layers"][n]["output"]["kernel"] == pytest.approx(factor, rel=1e-5)
    assert rates["encoder"]["embeddings"]["word"]["kernel"] == pytest.approx(0.125, rel=1e-5)


def test_moving_average_of_the_parameters_by_hand():
    settings = OptimConfig(learning_rate=0.1, warmup=0.0, freeze=("norm",))
    optimizer, _ = make_optimizer(settings, total_steps=10, ema=0.2)
    params = jax.tree.map(jnp.float32, PARAMS)
    state = optimizer.init(params)
    jax.tree.map(np.testing.assert_array_equal, averaged_params(params, state), params)
    expected = PARAMS["dense"]["kernel"]
    trained, frozen = freezing.split(params, settings.freeze)
    for step in range(4):
        grads = freezing.split(jax.tree.map(jnp.float32, gradient(step)), settings.freeze)[0]
        updates, state = optimizer.update(grads, state, trained, step=jnp.int32(step))
        trained = optax.apply_updates(trained, updates)
        decay = min(0.2, (1 + step) / (10 + step))  # 1/10, 2/11, and then 0.2
        expected = decay * expected + (1 - decay) * trained["dense"]["kernel"]
    averaged = averaged_params(freezing.merge(trained, frozen), state)
    assert_close(averaged["dense"]["kernel"], expected)
    np.testing.assert_array_equal(averaged["norm"]["scale"], params["norm"]["scale"])


def test_the_update_on_a_cpu_copies_no_parameter_and_no_moment():
    optimizer, _ = make_optimizer(OptimConfig(), total_steps=10)

    def train_step(params, state, x):
        grads = jax.grad(lambda kernel: jnp.sum(jnp.tanh(x @ kernel["kernel"])))(params)
        updates, new = optimizer.update(grads, state, params, step=jnp.int32(1))
        finite = jnp.isfinite(optax.tree.norm(grads))
        return keep_if(finite, (optax.apply_updates(params, updates), new), (params, state))

    params = {"kernel": jnp.zeros((300, 200))}
    step = jax.jit(
        train_step,
        donate_argnums=(0, 1),
        compiler_options=compiler_options(sharding.make_mesh(jax.devices()[:1])),
    )
    program = step.lower(params, optimizer.init(params), jnp.ones((8, 300))).compile().as_text()
    assert re.findall(r"= f32\[300,200\]\S* copy\(", program) == []


def test_clip_norm_of_zero_leaves_gradients_as_they_are():
    params = jax.tree.map(jnp.float32, PARAMS)
    huge = jax.tree.map(lambda x: 1e6 * jnp.ones_like(x), params)

    def moments(clip_norm):
        optimizer, _ = make_optimizer(OptimConfig(clip_norm=clip_norm, b1=0.0), total_steps=10)
        _, state = optimizer.update(huge, optimizer.init(params), params, step=jnp.int32(0))
        return state[1].mu

    jax.tree.map(np.testing.assert_array_equal, moments(0.0), huge)
    assert float(optax.tree.norm(moments(1.0))) == pytest.approx(1.0)


PARAMS = {
    "dense": {"kernel": np.array([[0.5, -1.0], [2.0, 0.25]]), "bias": np.array([0.5, -0.5])},
    "norm": {"scale": np.array([1.0, 1.5])},
}


def gradient(step: int) -> dict:
    """A different gradient each step, with a norm above 1 and below 8."""
    draw = np.random.default_rng(step).standard_normal
    return jax.tree.map(lambda x: draw(x.shape), PARAMS)


def run_optax(config: OptimConfig, steps: int) -> dict:
    optimizer, _ = make_optimizer(config, total_steps=10)
    params = jax.tree.map(jnp.float32, PARAMS)
    state = optimizer.init(params)
    for step in range(steps):
        grads = jax.tree.map(jnp.float32, gradient(step))
        updates, state = optimizer.update(grads, state, params, step=step)
        params = jax.tree.map(jnp.add, params, updates)
    return params


def run_by_hand(config: OptimConfig, steps: int) -> dict:
    """AdamW as the papers write it, in float64. Kernels decay; bias and scale do not."""
    leaves, tree = jax.tree.flatten(PARAMS)
    decays = [path[-1].key == "kernel" for path, _ in jax.tree_util.tree_leaves_with_path(PARAMS)]
    m, v = [0.0 * x for x in leaves], [0.0 * x for x in leaves]
    for step in range(steps):
        grads = jax.tree.leaves(gradient(step))
        norm = np.sqrt(sum(np.sum(g**2) for g in grads))
        if config.clip_norm and norm > config.clip_norm:
            grads = [g * config.clip_norm / norm for g in grads]
        rate = config.learning_rate * (10 - step) / 10
        for i, g in enumerate(grads):
            m[i] = config.b1 * m[i] + (1 - config.b1) * g
            v[i] = config.b2 * v[i] + (1 - config.b2) * g**2
            first, second = m[i], v[i]
            if config.bias_correction:
                first = first / (1 - config.b1 ** (step + 1))
                second = second / (1 - config.b2 ** (step + 1))
            update = first / (np.sqrt(second) + config.eps)
            decay = config.weight_decay * leaves[i] if decays[i] else 0.0
            leaves[i] = leaves[i] - rate * (update + decay)
    return jax.tree.unflatten(tree, leaves)


@pytest.mark.parametrize("bias_correction", [True, False])
@pytest.mark.parametrize("clip_norm", [0.0, 1.0, 100.0])
def test_three_steps_equal_adamw_by_hand(bias_correction, clip_norm):
    config = OptimConfig(
        learning_rate=0.1,
        warmup=0.0,
        weight_decay=0.3,
        clip_norm=clip_norm,
        eps=1e-2,  # large enough that its place in the formula shows
        bias_correction=bias_correction,
    )
    assert_close(run_optax(config, 3), run_by_hand(config, 3))


@pytest.mark.parametrize("bias_correction", [True, False])
def test_weight_decay_is_decoupled_from_adam(bias_correction):
    # Without a gradient Adam's part is zero and only the decay is left: w - rate * decay * w.
    config = OptimConfig(
        learning_rate=0.1, warmup=0.0, weight_decay=0.3, bias_correction=bias_correction
    )
    optimizer, _ = make_optimizer(config, total_steps=10)
    params = jax.tree.map(jnp.float32, PARAMS)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params, step=0)
    np.testing.assert_allclose(
        updates["dense"]["kernel"], -0.1 * 0.3 * PARAMS["dense"]["kernel"], rtol=1e-6
    )
    assert not updates["dense"]["bias"].any()
    assert not updates["norm"]["scale"].any()
