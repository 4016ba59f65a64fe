"""What may be drawn, against definitions worked out in NumPy; and how often it is, against exact probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from griffin_eqx.sampling import Sampling
from griffin_eqx.sampling.samplers import greedy

pytestmark = pytest.mark.core

SIZE = 7
# Steps of a quarter: ties happen, and rounding decides nothing.
rows = arrays(np.int8, SIZE, elements=st.integers(-12, 12)).map(lambda z: z.astype(np.float32) / 4)
masks = arrays(np.bool_, SIZE)


def _softmax(logits):
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def _expected(logits, seen, temperature, top_k, top_p, min_p, penalty):
    """The probability of each token, by the definitions."""
    logits = logits.astype(np.float64).copy()
    logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
    logits = logits / temperature
    kept = logits >= np.sort(logits)[-top_k]
    p = _softmax(np.where(kept, logits, -np.inf))
    order = np.argsort(-p, kind="stable")
    count = 1
    while p[order[:count]].sum() < top_p - 1e-9 and count < SIZE:
        count += 1
    kept &= p >= p[order[count - 1]] - 1e-12
    p = _softmax(np.where(kept, logits, -np.inf))
    kept &= p >= min_p * p.max() * (1 - 1e-9)
    return _softmax(np.where(kept, logits, -np.inf))


@jax.jit
def _adjusted(logits, seen, sampler):
    return jax.nn.softmax(sampler.adjusted(logits, seen))


@given(
    rows,
    masks,
    st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    st.sampled_from([1, 3, 7]),
    st.floats(0.05, 0.95),
    st.floats(0.05, 0.95),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_what_is_drawn_from_is_what_the_definitions_say(
    logits, seen, temperature, top_k, top_p, min_p, penalty
):
    sampler = Sampling(temperature, top_k, top_p, min_p, penalty).compiled()
    expected = _expected(logits, seen, temperature, top_k, top_p, min_p, penalty)
    ratio = expected / expected.max()
    cumulative = np.cumsum(np.sort(expected)[::-1])
    if np.any(np.abs(ratio - min_p) < 1e-4) or np.any(np.abs(cumulative - top_p) < 1e-4):
        return  # float32 may put a token on either side of the limit
    np.testing.assert_allclose(_adjusted(logits, seen, sampler), expected, atol=1e-5)


@given(rows)
def test_greedy_is_the_first_of_the_largest(logits):
    assert int(greedy(jnp.asarray(logits))) == int(np.argmax(logits))


@pytest.mark.parametrize(
    "settings",
    [
        Sampling(),
        Sampling(temperature=2.0, top_k=4),
        Sampling(top_p=0.8),
        Sampling(temperature=1.5, min_p=0.3, repetition_penalty=1.5),
    ],
)
def test_draws_follow_the_probabilities(settings):
    logits = jnp.asarray([0.0, 1.0, 1.5, -1.0, 0.25, 2.0, -0.5])
    seen = jnp.asarray([False, True, False, False, False, True, False])
    sampler = settings.compiled()
    draws = 20_000
    rows = jnp.broadcast_to(logits, (draws, SIZE)), jnp.broadcast_to(seen, (draws, SIZE))
    tokens = sampler.choose(*rows, jnp.arange(draws, dtype=jnp.uint32), jnp.zeros(draws, jnp.int32))
    counts = np.bincount(np.asarray(tokens), minlength=SIZE)
    p = np.asarray(jax.nn.softmax(sampler.adjusted(logits, seen)))
    assert np.all(counts[p == 0] == 0)
    # Five standard deviations of a count.
    assert np.all(np.abs(counts / draws - p) <= 5 * np.sqrt(p * (1 - p) / draws))


def test_draws_at_different_positions_are_independent():
    sampler = Sampling().compiled()
    many = jnp.zeros((4000, 2))
    seeds = jnp.arange(4000, dtype=jnp.uint32)
    first, second = (sampler.choose(many, None, seeds, jnp.full(4000, i, jnp.int32)) for i in (3, 4))
    assert abs(float((first == second).mean()) - 0.5) < 5 * 0.5 / 4000**0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, "temperature=-1 must be 0 or a positive number."),
        ({"top_k": 0}, "top_k=0 must be at least 1."),
        ({"top_p": 0.0}, "top_p=0.0 must be above 0 and at most 1."),
        ({"top_p": 1.5}, "top_p=1.5 must be above 0 and at most 1."),
        ({"min_p": -0.1}, "min_p=-0.1 must be between 0 and 1."),
        ({"repetition_penalty": 0}, "repetition_penalty=0 must be a positive number."),
    ],
)
def test_a_number_out_of_range_is_named(settings, message):
    with pytest.raises(ValueError, match=r"must be") as caught:
        Sampling(**settings)
    assert str(caught.value) == message
