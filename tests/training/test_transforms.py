"""Clipping and Adam against Optax's own, which are asked in the steps that count alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.training.transforms import clip_by_global_norm, scale_by_adam, skipping

pytestmark = pytest.mark.core

PARAMETERS = {"matrix": jnp.zeros((3, 2)), "scale": jnp.zeros(2), "frozen": None}


def gradients(seed, size, finite):
    rng = np.random.default_rng(seed)
    drawn = jax.tree.map(lambda p: size * rng.standard_normal(p.shape).astype(np.float32), PARAMETERS)
    if not finite:
        drawn["matrix"][1, 1] = rng.choice([np.nan, np.inf])
    return jax.tree.map(jnp.asarray, drawn)


@given(
    limit=st.sampled_from([1e-3, 1.0, 1e3]),
    beta1=st.sampled_from([0.0, 0.9]),
    size=st.sampled_from([1e-8, 1.0, 1e8]),
    counts=st.lists(st.booleans(), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_they_are_optax_s_in_the_steps_that_count_and_nothing_in_the_others(limit, beta1, size, counts, seed):
    ours = optax.chain(clip_by_global_norm(limit), scale_by_adam(beta1, 0.95, 1e-8))
    theirs = optax.chain(optax.clip_by_global_norm(limit), optax.scale_by_adam(beta1, 0.95, 1e-8))
    state, their_state = ours.init(PARAMETERS), theirs.init(PARAMETERS)
    assert jax.tree.structure(state) == jax.tree.structure(their_state)
    for i, finite in enumerate(counts):
        grads = gradients(seed + i, size, finite)
        before = state
        updates, state = ours.update(grads, state, PARAMETERS, finite=jnp.asarray(finite))
        if not finite:
            jax.tree.map(np.testing.assert_array_equal, state, before)
            continue
        their_updates, their_state = theirs.update(grads, their_state, PARAMETERS)
        # One rounding of the factor where they round twice an entry; the second moment squares it.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), updates, their_updates)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), state, their_state)


def test_a_gradient_below_the_limit_is_left_as_it_is():
    grads = gradients(0, 1.0, True)
    same, _ = clip_by_global_norm(1e3).update(grads, optax.EmptyState())
    jax.tree.map(np.testing.assert_array_equal, same, grads)


@pytest.mark.parametrize("finite", [True, False])
def test_any_transformation_can_be_skipped(finite):
    inner = optax.trace(0.9)
    outer = skipping(inner)
    grads = gradients(0, 1.0, True)
    start = jax.tree.map(jnp.ones_like, inner.init(PARAMETERS))
    _, state = outer.update(grads, start, PARAMETERS, finite=jnp.asarray(finite))
    expected = inner.update(grads, start, PARAMETERS)[1] if finite else start
    jax.tree.map(np.testing.assert_array_equal, state, expected)
