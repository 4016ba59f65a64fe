"""Layers that blocks share: facts that no law of blocks would notice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.nn import RMSNorm, bounded_sqrt, input_multiplier, rotate

pytestmark = pytest.mark.core


@given(st.floats(1e-7, 20.0))
def test_input_multiplier_does_not_cancel_where_the_decay_is_close_to_1(minus_log_a):
    """1 - a * a would lose all its digits there; the last one of float32 may differ, and four of rounding."""
    got = float(input_multiplier(jnp.float32(-minus_log_a)))
    exact = np.sqrt(-np.expm1(-2 * np.float64(np.float32(minus_log_a))))
    assert abs(got - exact) <= 5 * np.finfo(np.float32).eps * exact


@given(st.floats(0, 4, width=32))
def test_square_root_is_exact_and_its_derivative_at_most_1000(x):
    value, slope = jax.value_and_grad(bounded_sqrt)(jnp.float32(x))
    assert float(value) == float(jnp.sqrt(jnp.float32(x)))
    exact = min(1000.0, 0.5 / np.sqrt(x)) if x > 0 else 1000.0
    assert abs(float(slope) - exact) <= 1e-6 * exact


def test_derivative_of_the_square_root_at_0_is_1000():
    assert float(jax.grad(bounded_sqrt)(jnp.float32(0))) == 1000


def test_a_row_of_zeros_stays_zero_with_finite_gradient():
    norm, zeros = RMSNorm.init(5), jnp.zeros((2, 5))
    assert not norm(zeros).any()
    assert jnp.isfinite(jax.grad(lambda x: norm(x).sum())(zeros)).all()


def test_the_norm_scale_is_stored_as_its_offset_from_1():
    x = jnp.asarray([[3.0, -4.0]])
    norm = RMSNorm(jnp.asarray([0.0, 1.0]))
    rms = np.sqrt(12.5 + 1e-6)
    np.testing.assert_allclose(norm(x), [[3 / rms, -8 / rms]], rtol=1e-6)


def test_rotary_pairs_are_halves_and_not_neighbours():
    x = jnp.zeros((1, 1, 8)).at[0, 0, 1].set(1.0)
    turned = rotate(x, jnp.asarray([3]), base=10_000.0)[0, 0]
    angle = 3 * 10_000.0 ** (-1 / 4)
    np.testing.assert_allclose(turned, [0, np.cos(angle), 0, 0, 0, np.sin(angle), 0, 0], atol=1e-6)


@pytest.mark.parametrize(("fraction", "rotated"), [(1.0, 12), (0.5, 6), (0.25, 2), (0.0, 0)])
def test_only_the_leading_fraction_of_a_head_is_rotated(fraction, rotated):
    """A fraction of 0.25 of 12 channels is 3, rounded down to a pair."""
    x = jnp.ones((1, 1, 12))
    turned = rotate(x, jnp.asarray([5]), fraction=fraction)
    assert np.flatnonzero(np.asarray(turned != x)[0, 0]).tolist() == list(range(rotated))


@given(st.integers(0, 1000), st.integers(0, 30))
def test_rotated_products_depend_on_the_distance_alone(start, distance):
    rng = np.random.default_rng(start)
    q, k = jnp.asarray(rng.standard_normal((2, 1, 1, 8)), jnp.float32)

    def product(position):
        turned = [rotate(z, jnp.asarray([p])) for z, p in ((q, position + distance), (k, position))]
        return float(jnp.vdot(*turned))

    # Angles of 1000 radians keep three digits less than float32 has.
    assert abs(product(start) - product(0)) <= 1e-3
