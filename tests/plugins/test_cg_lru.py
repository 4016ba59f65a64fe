"""The CG-LRU block: appendix B of the paper."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_plugins.cg_lru import CGLRUBlock, ComplexOptions
from griffin_plugins.rg_lru import RecurrentOptions, RGLRUBlock

from griffin_eqx.block import Dims, OptionError, SequenceLayout
from griffin_eqx.taps import recording
from griffin_eqx.verify import assert_close, tolerance

pytestmark = pytest.mark.core

DEFAULTS: dict[str, Any] = {"gate_blocks": 1}
DIMS = Dims(width=12, lru_width=20, num_layers=2, biases=True)


def build(**options: Any):
    return CGLRUBlock.init(ComplexOptions(**(DEFAULTS | options)), DIMS, key=jax.random.key(0))


@eqx.filter_jit
def run(block, x, layout=None, cache=None):
    return block(x, layout, cache)


@eqx.filter_jit
def tapped(block, x):
    with recording(()) as taps:
        block(x)
    return block.conv(block.into_lru(x), SequenceLayout.single(len(x)), None)[0], taps


def inputs(seq_len):
    return jnp.asarray(np.random.default_rng(1).standard_normal((seq_len, DIMS.width)), jnp.float32)


def test_without_phase_it_is_an_rg_lru_whose_halves_share_their_gates():
    complex_block = eqx.tree_at(lambda b: b.theta, build(), jnp.zeros(10))
    real = RGLRUBlock.init(RecurrentOptions(gate_blocks=1), DIMS, key=jax.random.key(1))
    shared = lambda b: (b.into_lru, b.into_gate, b.conv, b.out)  # noqa: E731
    gates = lambda b: [z for g in (b.recurrence_gate, b.input_gate) for z in (g.weight, g.bias)]  # noqa: E731
    real = eqx.tree_at(shared, real, shared(complex_block))
    real = eqx.tree_at(gates, real, [jnp.concatenate([z, z], -1) for z in gates(complex_block)])
    real = eqx.tree_at(lambda b: b.a_param, real, jnp.tile(complex_block.a_param, 2))
    x = inputs(9)
    assert_close(run(complex_block, x)[0], run(real, x)[0], "outputs", tol=tolerance(np.float32, 9))


def test_states_follow_equations_12_to_14():
    block, x = build(), inputs(6)
    u, taps = tapped(block, x)
    r, i = (np.asarray(taps[name], np.float64) for name in ("recurrence_gate", "input_gate"))
    x_tilde = np.asarray(u)[:, :10] + 1j * np.asarray(u)[:, 10:]
    decay = 1 / (1 + np.exp(-np.asarray(block.a_param, np.float64)))
    a = (decay * np.exp(1j * np.asarray(block.theta, np.float64))) ** (8 * r)
    h, states = i[0] * x_tilde[0], []
    for t in range(6):
        if t:
            h = a[t] * h + np.sqrt(1 - abs(a[t]) ** 2) * i[t] * x_tilde[t]
        states.append(np.r_[h.real, h.imag])
    assert_close(taps["h"], np.stack(states), "h", tol=tolerance(np.float32, 6))


def test_decoding_with_a_carried_complex_state_equals_one_pass():
    """A cast of the carried state to a real dtype would drop its imaginary part."""
    block, x = build(max_phase=3.0), inputs(7)
    whole, cache = run(block, x)[0], block.init_cache(7, jnp.float32)
    for t in range(7):
        y, cache = run(block, x[t : t + 1], SequenceLayout(jnp.asarray([t]), jnp.asarray(1)), cache)
        assert_close(y[0], whole[t], f"output {t}", tol=tolerance(np.float32, 7))
    assert jnp.abs(cache.h_im).min() > 0


def test_a_token_turns_the_state_by_at_most_max_phase_at_init():
    block = build(max_phase=0.3, c=4.0)
    turn = np.asarray(4 * block.theta)
    assert turn.min() >= 0
    assert turn.max() <= 0.3


def test_halves_that_the_gates_cannot_be_cut_into_are_refused():
    with pytest.raises(OptionError) as caught:
        build(gate_blocks=4)
    assert (
        str(caught.value)
        == "gate_blocks: lru_width=20 cannot be cut into 2 halves of gate_blocks=4 equal blocks"
    )
