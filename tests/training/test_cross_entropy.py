import jax
import jax.numpy as jnp
import numpy as np
import pytest

from griffin_eqx.nn import cross_entropy
from griffin_eqx.nn.cross_entropy import summed_nll, token_nll

pytestmark = pytest.mark.core

TOKENS, WIDTH, ROWS, VOCAB = 13, 6, 16, 11


def inputs(dtype):
    keys = jax.random.split(jax.random.key(0), 3)
    hidden = jax.random.normal(keys[0], (TOKENS, WIDTH), jnp.float32).astype(dtype)
    weight = jax.random.normal(keys[1], (ROWS, WIDTH), jnp.float32).astype(dtype)
    targets = jax.random.randint(keys[2], (TOKENS,), -2, VOCAB)  # negative: nothing to predict
    return hidden, weight, targets


def plain(hidden, weight, targets, soft_cap):
    """All logits at once, in float32."""
    logits = hidden.astype(jnp.float32) @ weight[:VOCAB].astype(jnp.float32).T
    if soft_cap:
        logits = soft_cap * jnp.tanh(logits / soft_cap)
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(targets, 0)[:, None], axis=-1)[:, 0]
    return -jnp.where(targets >= 0, picked, 0)


@pytest.mark.parametrize("chunk", [1, 40, 2**24])
@pytest.mark.parametrize("soft_cap", [0.0, 2.0])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_chunks_equal_plain_log_softmax_in_value_and_gradient(monkeypatch, chunk, soft_cap, dtype):
    monkeypatch.setattr(cross_entropy, "_CHUNK_ELEMENTS", chunk)
    hidden, weight, targets = inputs(dtype)
    # float32: rounding of a few sums. bfloat16: the slope of the logits, at most 1, is rounded to 8 bits
    # before the products, and the gradients once more after them.
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    each = token_nll(hidden, weight, targets, vocab_size=VOCAB, soft_cap=soft_cap)
    np.testing.assert_allclose(each, plain(hidden, weight, targets, soft_cap), rtol=1e-5, atol=1e-5)
    assert (np.asarray(each)[np.asarray(targets) < 0] == 0).all()

    ours = jax.value_and_grad(
        lambda h, w: jnp.asarray(summed_nll(h, w, targets, VOCAB, soft_cap)) / 3, argnums=(0, 1)
    )
    theirs = jax.value_and_grad(lambda h, w: plain(h, w, targets, soft_cap).sum() / 3, argnums=(0, 1))
    (value, grads), (wanted, wanted_grads) = ours(hidden, weight), theirs(hidden, weight)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
        assert grad.dtype == wanted_grad.dtype
        scale = float(jnp.abs(wanted_grad).max())
        np.testing.assert_allclose(
            np.asarray(grad, np.float32), np.asarray(wanted_grad, np.float32), rtol=0, atol=tolerance * scale
        )


def test_filler_rows_have_no_gradient():
    hidden, weight, targets = inputs("float32")
    grad = jax.grad(lambda w: summed_nll(hidden, w, targets, VOCAB))(weight)
    assert (np.asarray(grad)[VOCAB:] == 0).all()
    assert (np.asarray(grad)[:VOCAB] != 0).any()


def test_nothing_to_predict_costs_and_teaches_nothing():
    hidden, weight, _ = inputs("float32")
    none = jnp.full(TOKENS, -1)
    value, grad = jax.value_and_grad(lambda h: summed_nll(h, weight, none, VOCAB))(hidden)
    assert float(value) == 0
    assert (np.asarray(grad) == 0).all()
