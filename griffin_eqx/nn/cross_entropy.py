"""Cross-entropy of a tied output matrix without the logits of all tokens in memory at once."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from griffin_eqx.nn.int8 import Int8Matrix

_CHUNK_ELEMENTS = 2**25
"""Logits held at once: 128 MiB of float32. Smaller chunks would read and write the gradient more often."""


def token_nll(
    hidden: Float[Array, "tokens width"],
    weight: Float[Array, "vocab_rows width"] | Int8Matrix,
    targets: Int[Array, " tokens"],
    *,
    vocab_size: int,
    soft_cap: float = 0.0,
) -> Float[Array, " tokens"]:
    """Negative log-likelihood of each target in nats, float32; 0 where the target is negative.

    Args:
      hidden: What the output matrix scores, in the compute dtype; sums are float32.
      weight: The output matrix; rows from `vocab_size` on are filler and never predicted.
      targets: Ids, negative where there is nothing to predict.
      vocab_size: Number of tokens.
      soft_cap: Logits become `soft_cap * tanh(logits / soft_cap)`; 0 is off.
    """
    nll, _ = token_scores(hidden, weight, targets, vocab_size=vocab_size, soft_cap=soft_cap)
    return nll


def token_scores(
    hidden: Float[Array, "tokens width"],
    weight: Float[Array, "vocab_rows width"] | Int8Matrix,
    targets: Int[Array, " tokens"],
    *,
    vocab_size: int,
    soft_cap: float = 0.0,
) -> tuple[Float[Array, " tokens"], Bool[Array, " tokens"]]:
    """`token_nll`, and whether each target is predicted: it scores above every other token.

    So a tie is no prediction, nor is a score that is not a number; False where the target is negative.
    """

    def one(chunk):
        chunk_hidden, chunk_targets = chunk
        _, score, nll = _score(chunk_hidden, chunk_targets, weight.astype(hidden.dtype), vocab_size, soft_cap)
        # By counting, not by argmax, which XLA does not vectorise on a CPU.
        rivals = (score >= _picked(score, chunk_targets)[:, None]).sum(-1)
        return nll, (rivals == 1) & (chunk_targets >= 0)

    found = jax.lax.map(one, chunks(hidden, targets, weight.shape[0]))
    return jax.tree.map(lambda z: z.reshape(-1)[: hidden.shape[0]], found)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def summed_nll(
    hidden: Float[Array, "tokens width"],
    weight: Float[Array, "vocab_rows width"],
    targets: Int[Array, " tokens"],
    vocab_size: int,
    soft_cap: float = 0.0,
) -> Float[Array, ""]:
    """The sum of `token_nll` over all tokens, made to be differentiated.

    Its derivative is worked out on the way forward, chunk by chunk: the sum is a scalar, so that the
    gradient is known up to a factor, and neither are logits kept nor products done twice.
    """
    return token_nll(hidden, weight, targets, vocab_size=vocab_size, soft_cap=soft_cap).sum()


def _forward(hidden, weight, targets, vocab_size, soft_cap):
    tokens, width = hidden.shape
    narrow = weight.astype(hidden.dtype)

    def step(carry, chunk):
        total, dweight = carry
        chunk_hidden, chunk_targets = chunk
        slope, score, nll = _score(chunk_hidden, chunk_targets, narrow, vocab_size, soft_cap)
        real = chunk_targets >= 0
        # d nll / d logits = softmax - one hot of the target.
        top = score.max(-1, keepdims=True)
        weights = jnp.exp(score - top)
        hit = jnp.arange(score.shape[1])[None, :] == chunk_targets[:, None]
        dscore = jnp.where(
            real[:, None], weights / weights.sum(-1, keepdims=True) - hit.astype(score.dtype), 0
        )
        dscore = (dscore if slope is None else dscore * slope).astype(hidden.dtype)
        dhidden = jnp.matmul(dscore, narrow, preferred_element_type=jnp.float32)
        dweight = dweight + jnp.matmul(dscore.T, chunk_hidden, preferred_element_type=jnp.float32)
        return (total + nll.sum(), dweight), dhidden.astype(hidden.dtype)

    start = (
        jnp.zeros((), np.promote_types(hidden.dtype, jnp.float32)),
        jnp.zeros(weight.shape, jnp.float32),
    )
    (total, dweight), dhidden = jax.lax.scan(step, start, chunks(hidden, targets, weight.shape[0]))
    return total, (dhidden.reshape(-1, width)[:tokens], dweight.astype(weight.dtype))


def _backward(vocab_size, soft_cap, residuals, cotangent):
    dhidden, dweight = residuals

    def scale(z):
        return (z.astype(cotangent.dtype) * cotangent).astype(z.dtype)

    return scale(dhidden), scale(dweight), None


summed_nll.defvjp(_forward, _backward)


def chunks(hidden, targets, vocab_rows):
    """Tokens cut into equal chunks, the last one filled up with nothing to predict."""
    tokens = hidden.shape[0]
    count = max(1, math.ceil(tokens * vocab_rows / _CHUNK_ELEMENTS))
    size = math.ceil(tokens / count)
    pad = count * size - tokens
    hidden = jnp.pad(hidden, ((0, pad), (0, 0))).reshape(count, size, -1)
    return hidden, jnp.pad(targets, (0, pad), constant_values=-1).reshape(count, size)


def capped_scores(hidden, weight, soft_cap):
    """`(slope of the cap or None, scores)` of one chunk, in float32 or wider."""
    wide = np.promote_types(hidden.dtype, jnp.float32)
    score = jnp.matmul(hidden, weight.T, preferred_element_type=wide)
    if not soft_cap:
        return None, score
    bent = jnp.tanh(score / soft_cap)
    return 1 - jnp.square(bent), soft_cap * bent


def _score(hidden, targets, weight, vocab_size, soft_cap):
    """`(slope of the cap or None, masked scores, nll)` of one chunk, in float32 or wider."""
    slope, score = capped_scores(hidden, weight, soft_cap)
    if vocab_size < weight.shape[0]:
        score = jnp.where((jnp.arange(weight.shape[0]) < vocab_size)[None, :], score, -jnp.inf)
    nll = jnp.where(targets >= 0, jax.nn.logsumexp(score, axis=-1) - _picked(score, targets), 0)
    return slope, score, nll


def _picked(score, targets):
    """The targets' scores."""
    return jnp.take_along_axis(score, jnp.maximum(targets, 0)[:, None], axis=-1)[:, 0]
