"""Cross-entropy over a mesh: each shard scores its own tokens against its own rows of the output matrix.

Tokens lie over `data` and `sequence`, the vocabulary over `model`. No device ever holds another's tokens or rows: what
is communicated is a few numbers a token for the softmax, and backward one sum over `model` of the tokens' cotangents
and one over the tokens' axes of the matrix's.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from griffin_kernels.mesh import DATA, SEQUENCE, shard_map, splits_channels
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from griffin_eqx.nn.cross_entropy import capped_scores, chunks


@partial(jax.custom_vjp, nondiff_argnums=(0, 4, 5))
def summed_nll_over_mesh(
    mesh: Any,
    hidden: Float[Array, "batch seq_len width"],
    weight: Float[Array, "vocab_rows width"],
    targets: Int[Array, "batch seq_len"],
    vocab_size: int,
    soft_cap: float = 0.0,
) -> Float[Array, ""]:
    """`summed_nll` of all rows of a batch, in nats; the derivative is known on the way forward here too.

    Args:
      mesh: That in effect, with any of the axes `data`, `sequence` and `model`; an axis that does not divide what it
        would split leaves that whole.
      hidden: What is scored, of any floating dtype; scores and sums are in `promote_types(dtype, float32)`.
      weight: The output matrix; rows from `vocab_size` on are filler and have no score.
      targets: Token ids, int32; below 0 where nothing is asked.
      vocab_size: Rows that are tokens.
      soft_cap: Bends scores to lie within it; 0 is off.
    """
    nll, _ = token_scores_over_mesh(mesh, hidden, weight, targets, vocab_size, soft_cap)
    return nll.sum()


def token_scores_over_mesh(
    mesh: Any,
    hidden: Float[Array, "batch seq_len width"],
    weight: Float[Array, "vocab_rows width"],
    targets: Int[Array, "batch seq_len"],
    vocab_size: int,
    soft_cap: float = 0.0,
) -> tuple[Float[Array, "batch seq_len"], Bool[Array, "batch seq_len"]]:
    """`token_scores` of all rows of a batch: nats, and whether the target alone scores highest. Arguments as above."""
    tokens, rows = _split(mesh, targets.shape, weight.shape[0])

    def body(hidden, weight, targets):
        narrow = weight.astype(hidden.dtype)

        def one(chunk):
            found = _scored(chunk, narrow, rows, vocab_size, soft_cap)
            rivals = _over(rows, jax.lax.psum, (found.score >= found.picked[:, None]).sum(-1))
            return found.nll, (rivals == 1) & (chunk[1] >= 0)

        answers = jax.lax.map(one, chunks(*_flat(hidden, targets), weight.shape[0]))
        return jax.tree.map(lambda z: z.reshape(-1)[: targets.size].reshape(targets.shape), answers)

    placed = PartitionSpec(*tokens)
    in_specs = (PartitionSpec(*tokens, None), PartitionSpec(rows, None), placed)
    return shard_map(body, mesh, in_specs, (placed, placed))(hidden, weight, targets)


def _forward(mesh, hidden, weight, targets, vocab_size, soft_cap):
    tokens, rows = _split(mesh, targets.shape, weight.shape[0])
    spread = tuple(axis for axis in tokens if axis)
    scatters = DATA in spread and weight.shape[1] % mesh.shape[DATA] == 0

    def body(hidden, weight, targets):
        narrow = weight.astype(hidden.dtype)

        def step(carry, chunk):
            total, dweight = carry
            chunk_hidden, chunk_targets = chunk
            found = _scored(chunk, narrow, rows, vocab_size, soft_cap)
            # d nll / d logits = softmax - one hot of the target.
            dscore = jnp.exp(found.score - found.normaliser[:, None]) - found.hit.astype(found.score.dtype)
            dscore = jnp.where((chunk_targets >= 0)[:, None], dscore, 0)
            dscore = (dscore if found.slope is None else dscore * found.slope).astype(hidden.dtype)
            dhidden = jnp.matmul(dscore, narrow, preferred_element_type=jnp.float32)
            dweight += jnp.matmul(dscore.T, chunk_hidden, preferred_element_type=jnp.float32)
            return (total + found.nll.sum(), dweight), dhidden.astype(hidden.dtype)

        start = (
            jnp.zeros((), jnp.promote_types(hidden.dtype, jnp.float32)),
            jnp.zeros(weight.shape, jnp.float32),
        )
        (total, dweight), dhidden = jax.lax.scan(
            step, start, chunks(*_flat(hidden, targets), weight.shape[0])
        )
        dhidden = dhidden.reshape(-1, hidden.shape[-1])[: targets.size].reshape(hidden.shape)
        for axis in spread:
            if axis == DATA and scatters:  # where the matrix is split over `data` as well
                dweight = jax.lax.psum_scatter(dweight, axis, scatter_dimension=1, tiled=True)
            else:
                dweight = jax.lax.psum(dweight, axis)
        total = jax.lax.psum(total, spread) if spread else total
        return total, _over(rows, jax.lax.psum, dhidden), dweight.astype(weight.dtype)

    of_hidden, of_weight = PartitionSpec(*tokens, None), PartitionSpec(rows, None)
    out_specs = PartitionSpec(), of_hidden, PartitionSpec(rows, DATA if scatters else None)
    run = shard_map(body, mesh, (of_hidden, of_weight, PartitionSpec(*tokens)), out_specs)
    total, *slopes = run(hidden, weight, targets)
    return total, slopes


def _backward(mesh, vocab_size, soft_cap, residuals, cotangent):
    dhidden, dweight = ((z.astype(cotangent.dtype) * cotangent).astype(z.dtype) for z in residuals)
    return dhidden, dweight, None


summed_nll_over_mesh.defvjp(_forward, _backward)


class _Scored(NamedTuple):
    """A chunk of tokens against a shard's rows; `normaliser`, `picked` and `nll` are of all rows."""

    slope: Any
    score: Any
    hit: Any
    normaliser: Any
    picked: Any
    nll: Any


def _scored(chunk, weight, rows, vocab_size, soft_cap):
    hidden, targets = chunk
    count = weight.shape[0]
    row = jnp.arange(count) + (jax.lax.axis_index(rows) * count if rows else 0)
    slope, score = capped_scores(hidden, weight, soft_cap)
    score = jnp.where((row < vocab_size)[None, :], score, -jnp.inf)
    top = _over(rows, jax.lax.pmax, score.max(-1))
    normaliser = top + jnp.log(_over(rows, jax.lax.psum, jnp.exp(score - top[:, None]).sum(-1)))
    hit = row[None, :] == targets[:, None]
    picked = _over(rows, jax.lax.psum, jnp.where(hit, score, 0).sum(-1))
    nll = jnp.where(targets >= 0, normaliser - picked, 0)
    return _Scored(slope, score, hit, normaliser, picked, nll)


def _over(axis, reduce, z):
    return reduce(z, axis) if axis else z


def _flat(hidden, targets):
    return hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)


def _split(mesh, shape, vocab_rows):
    """`((axis of rows, axis of tokens), axis of the vocabulary)`, None for what is whole."""
    tokens = tuple(
        axis if mesh.shape.get(axis, 1) > 1 and size % mesh.shape[axis] == 0 else None
        for axis, size in zip((DATA, SEQUENCE), shape, strict=True)
    )
    return tokens, splits_channels(mesh, vocab_rows)
