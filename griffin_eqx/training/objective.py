"""What training lowers: the mean negative log-likelihood of the next token."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from griffin_kernels.mesh import mesh_in_effect
from jaxtyping import Array, Bool, Float, Int

from griffin_eqx.block import Cache, SequenceLayout
from griffin_eqx.model import LanguageModel, Remat
from griffin_eqx.nn.cross_entropy import summed_nll, token_scores
from griffin_eqx.nn.sharded_cross_entropy import summed_nll_over_mesh, token_scores_over_mesh
from griffin_eqx.sharding import rows_axis


class TokenBatch(NamedTuple):
    """A batch as the step takes it; the fields of `griffin_eqx.data.Batch`, on the device.

    Attributes:
      tokens: What the model reads.
      targets: What comes next, negative where nothing is to be predicted.
      positions: How many tokens of its document stand before each token.
      length: Tokens in each row; padding follows.
    """

    tokens: Int[Array, "batch seq_len"]
    targets: Int[Array, "batch seq_len"]
    positions: Int[Array, "batch seq_len"]
    length: Int[Array, " batch"]


def batch_hidden(
    model: LanguageModel, batch: TokenBatch, cache: Cache | None, *, remat: Remat = "none"
) -> tuple[Float[Array, "batch seq_len width"], Cache | None]:
    """Runs the model over each row of a batch; the cache has one entry a row."""

    def row(tokens, positions, length, cache):
        return model.hidden(tokens, SequenceLayout(positions, length), cache, remat=remat)

    inputs = (batch.tokens, batch.positions, batch.length, cache)
    if batch.tokens.shape[0] == 1:
        # Without the axis of size 1: XLA on CPU takes thirty times as long to sum over time beside it.
        alone = row(*jax.tree.map(lambda z: z[0], inputs))
        return jax.tree.map(lambda z: z[None], alone)
    return jax.vmap(row, spmd_axis_name=rows_axis(batch.tokens.shape[0]))(*inputs)


def batch_nll(
    model: LanguageModel, batch: TokenBatch, cache: Cache | None, *, remat: Remat = "none"
) -> tuple[Float[Array, ""], Cache | None]:
    """The sum of all targets' negative log-likelihoods in nats, and the cache after the batch."""
    hidden, cache = batch_hidden(model, batch, cache, remat=remat)
    weight, (vocab_size, cap) = model.embedding.weight, (model.embedding.vocab_size, model.logit_soft_cap)
    if (mesh := mesh_in_effect()) is not None and isinstance(weight, jax.Array):
        return summed_nll_over_mesh(mesh, hidden, weight, batch.targets, vocab_size, cap), cache
    flat = hidden.reshape(-1, hidden.shape[-1])
    nll: Any = summed_nll(flat, weight, batch.targets.reshape(-1), vocab_size, cap)
    return nll, cache


def evaluate_batch(
    model: LanguageModel, batch: TokenBatch, cache: Cache | None
) -> tuple[Float[Array, "batch seq_len"], Bool[Array, "batch seq_len"], Cache | None]:
    """Judges each target.

    Returns:
      `(nll, predicted, cache)`: the negative log-likelihood in nats, 0 where there is no target; whether the
      target scores above all other tokens (`token_scores`); the cache after the batch.
    """
    hidden, cache = batch_hidden(model, batch, cache)
    weight, (vocab_size, cap) = model.embedding.weight, (model.embedding.vocab_size, model.logit_soft_cap)
    if (mesh := mesh_in_effect()) is not None and isinstance(weight, jax.Array):
        return *token_scores_over_mesh(mesh, hidden, weight, batch.targets, vocab_size, cap), cache
    flat = hidden.reshape(-1, hidden.shape[-1])
    nll, predicted = token_scores(
        flat, weight, batch.targets.reshape(-1), vocab_size=vocab_size, soft_cap=cap
    )
    return nll.reshape(batch.targets.shape), predicted.reshape(batch.targets.shape), cache


def init_batch_cache(model: LanguageModel, batch_size: int, max_seq_len: int) -> Cache:
    """Empty caches, one a row."""
    return eqx.filter_vmap(lambda _: model.init_cache(max_seq_len))(jnp.arange(batch_size))


def keep_rows(cache: Cache, fresh: Cache, continues: Bool[Array, " batch"]) -> Cache:
    """The cache where a row goes on, the fresh one where it does not."""

    def choose(old, new):
        return jnp.where(continues.reshape(-1, *[1] * (old.ndim - 1)), old, new)

    return jax.tree.map(choose, cache, fresh)
