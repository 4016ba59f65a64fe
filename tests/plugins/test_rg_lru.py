"""The RG-LRU block: the paper's facts, and the mistakes that other implementations make."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_kernels.linear_scan import linear_scan
from griffin_plugins.rg_lru import RecurrentOptions, RGLRUBlock

from griffin_eqx.block import Dims, OptionError, SequenceLayout
from griffin_eqx.nn import input_multiplier
from griffin_eqx.taps import recording

pytestmark = pytest.mark.core

DEFAULTS: dict[str, Any] = {"gate_blocks": 2}
DIMS = Dims(width=12, lru_width=20, num_layers=2, biases=True)


def build(dims=DIMS, **options):
    return RGLRUBlock.init(RecurrentOptions(**(DEFAULTS | options)), dims, key=jax.random.key(0))


@eqx.filter_jit
def run(block, x, layout, cache):
    return block(x, layout, cache)


@eqx.filter_jit
def tapped(block, x, layout):
    with recording(()) as taps:
        block(x, layout)
    return block.conv(block.into_lru(x), layout, None)[0], taps


def look_inside(block, x, layout=None):
    """The recurrence's input and every tapped value."""
    u, taps = tapped(block, x, layout or SequenceLayout.single(len(x)))
    return np.asarray(u), {name: np.asarray(value) for name, value in taps.items()}


def inputs(seq_len, seed=1):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((seq_len, DIMS.width)), jnp.float32)


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, np.float64)))


def farthest_from_uniform(values, low, high):
    """The largest difference of the sample's distribution from the uniform one (Kolmogorov-Smirnov)."""
    ranks = (np.sort(values) - low) / (high - low)
    return np.abs(ranks - (np.arange(len(ranks)) + 0.5) / len(ranks)).max()


@pytest.mark.parametrize(
    ("decay_init", "power", "low", "high"), [("paper", 8, 0.9, 0.999), ("recurrentgemma", 2, 0.81, 0.998001)]
)
def test_decay_at_init_is_uniform_on_its_range(decay_init, power, low, high):
    """a**c in the paper (section 2.4), a**2 in RecurrentGemma's code."""
    block = build(Dims(width=2, lru_width=4096, num_layers=2), decay_init=decay_init)
    values = sigmoid(block.a_param) ** power
    # The parameter is float32: near a = 1 it holds 1 - a**8 to about 1e-6.
    assert low - 1e-5 <= values.min()
    assert values.max() <= high + 1e-5
    # 4096 samples stay within 0.03 with a probability above 0.998.
    assert farthest_from_uniform(values, low, high) < 0.03


def test_decay_is_the_papers_power_of_a_sigmoid():
    """Equation (3), with the paper's sign: a_t = sigmoid(Lambda) ** (c r_t)."""
    block = build()
    _, taps = look_inside(block, inputs(5))
    a = sigmoid(block.a_param) ** (8 * taps["recurrence_gate"].astype(np.float64))
    np.testing.assert_allclose(np.exp(taps["log_a"]), a, rtol=1e-6)


def test_states_follow_equation_4_and_the_first_token_has_multiplier_1():
    block = build()
    u, taps = look_inside(block, inputs(5))
    a, gated = np.exp(taps["log_a"].astype(np.float64)), taps["input_gate"] * u
    h = gated[0]
    np.testing.assert_allclose(taps["h"][0], h, rtol=1e-5)
    for t in range(1, 5):
        h = a[t] * h + np.sqrt(1 - a[t] ** 2) * gated[t]
        np.testing.assert_allclose(taps["h"][t], h, rtol=1e-4, atol=1e-6)


def test_every_document_in_a_row_starts_with_multiplier_1():
    layout = SequenceLayout(jnp.asarray([0, 1, 2, 0, 1]), jnp.asarray(5))
    u, taps = look_inside(build(), inputs(5), layout)
    np.testing.assert_allclose(taps["h"][3], (taps["input_gate"] * u)[3], rtol=1e-6)


def test_a_closed_recurrence_gate_keeps_the_state():
    """r = 0: a = 1 and the input multiplier 0, exactly (section 2.4)."""
    block = build()
    bias = jnp.full_like(block.recurrence_gate.bias, -1e9)
    block = eqx.tree_at(lambda b: b.recurrence_gate.bias, block, bias)
    _, taps = look_inside(block, inputs(6))
    assert (taps["h"] == taps["h"][0]).all()
    assert taps["h"].any()


@pytest.mark.parametrize("a", [0.5, 0.9, 0.99])
def test_white_noise_keeps_its_variance(a):
    """What sqrt(1 - a**2) is for."""
    x = jax.random.normal(jax.random.key(0), (2000, 64))
    log_a = jnp.full_like(x, np.log(a))
    h, _ = jax.jit(lambda x: linear_scan(input_multiplier(log_a) * x, jnp.exp(log_a)))(x)
    # Behind 500 steps of start-up, 64 channels hold some 64 * 1500 * (1 - a) independent values.
    assert abs(float(jnp.var(h[500:])) - 1) < 6 / np.sqrt(64 * 1500 * (1 - a))


def test_gates_and_decay_of_bfloat16_inputs_are_float32():
    """In bfloat16, 1 - a**2 would be up to a fifth off."""
    _, taps = look_inside(build(), inputs(5).astype(jnp.bfloat16))
    assert {str(taps[name].dtype) for name in ("recurrence_gate", "input_gate", "log_a")} == {"float32"}


def test_the_cache_of_a_row_holds_the_convolution_inputs_of_its_last_document_alone():
    block, x = build(conv_width=4), inputs(7)
    layout = SequenceLayout(jnp.asarray([0, 1, 2, 3, 4, 0, 1]), jnp.asarray(7))
    _, cache = run(block, x, layout, block.init_cache(16, jnp.float32))
    np.testing.assert_allclose(
        cache.conv, np.r_[np.zeros((1, 20)), np.asarray(block.into_lru(x))[5:]], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"gate_blocks": 3}, "gate_blocks: lru_width=20 cannot be cut into gate_blocks=3 equal blocks"),
        ({"conv_width": 0}, "conv_width: must be at least 1, got 0"),
        ({"lru_width": -4}, "lru_width: must be at least 1, got -4"),
        ({"c": 0.0}, "c: must be positive, got 0.0"),
    ],
)
def test_options_out_of_range_are_refused(options, text):
    with pytest.raises(OptionError) as caught:
        build(**options)
    assert str(caught.value) == text


def test_recurrence_may_be_wider_than_the_model():
    block = build(lru_width=32)
    y, cache = run(block, inputs(1), SequenceLayout.single(1), block.init_cache(4, jnp.float32))
    assert (y.shape, cache.conv.shape, cache.h.shape) == ((1, 12), (3, 32), (32,))
