"""The embedding matrix, which is also the output matrix."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from griffin_kernels.mesh import mesh_in_effect, shard_map, splits_channels, splits_time
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray

from griffin_eqx.nn.init import normal
from griffin_eqx.nn.int8 import Int8Matrix

ROW_MULTIPLE = 128
"""Rows are rounded up to this, so that every mesh can split them; the filler is masked and not counted."""

FEW_ROWS, ROW_BLOCKS = 32, 16


class Embedding(eqx.Module):
    """Tied input and output embedding.

    Attributes:
      weight: One row a token, rounded up to a multiple of 128 rows; rows from `vocab_size` on are filler.
      vocab_size: Number of tokens.
    """

    weight: Float[Array, "vocab_rows width"] | Int8Matrix
    vocab_size: int = eqx.field(static=True)

    @classmethod
    def init(cls, vocab_size: int, width: int, *, dtype: Any = jnp.float32, key: PRNGKeyArray) -> "Embedding":
        """Draws rows of variance `1 / width`; the filler is zero and stays so."""
        rows = -(-vocab_size // ROW_MULTIPLE) * ROW_MULTIPLE
        weight = normal(key, (rows, width), 1 / width, dtype)
        return cls(weight.at[vocab_size:].set(0), vocab_size)

    def encode(self, tokens: Int[Array, " seq_len"], dtype: Any) -> Float[Array, "seq_len width"]:
        """Looks tokens up; ids outside of the vocabulary are the caller's error and give row 0 or the last."""
        if (mesh := mesh_in_effect()) is not None and tokens.size:
            return _encode_over_mesh(mesh, self.weight, jnp.clip(tokens, 0, self.weight.shape[0] - 1), dtype)
        return _rows(self.weight, tokens, dtype)

    def decode(self, hidden: Float[Array, "*leading width"]) -> Float[Array, "*leading vocab_size"]:
        """Scores every token: the product with the matrix, filler left out."""
        if isinstance(self.weight, Int8Matrix):
            return self.weight.product(hidden)[..., : self.vocab_size]
        *leading, width = hidden.shape
        rows = math.prod(leading)
        weight = self.weight.astype(hidden.dtype)
        if 1 < rows <= FEW_ROWS:
            # As in decoding a batch. Left to itself XLA on CPU repacks the whole matrix for a handful of rows; block by
            # block, matrix first, it took two thirds of the time.
            blocks = weight.reshape(ROW_BLOCKS, -1, width)
            scores = jax.vmap(lambda block: block @ hidden.reshape(rows, width).T)(blocks)
            logits = scores.reshape(-1, rows).T.reshape(*leading, -1)
        else:
            logits = hidden @ weight.T
        return logits[..., : self.vocab_size]


def _rows(weight, index, dtype):
    if isinstance(weight, Int8Matrix):
        return weight.row(index, dtype)
    return weight.at[index].get(mode="clip").astype(dtype)


def _encode_over_mesh(mesh, weight, tokens, dtype):
    """Each shard looks up what its own rows hold of its own tokens; left to itself the compiler gathers all of both."""
    rows, time = splits_channels(mesh, weight.shape[0]), splits_time(mesh, tokens.shape[0])
    time = time if time and tokens.shape[0] % mesh.shape[time] == 0 else None

    def body(weight, tokens):
        count = weight.shape[0]
        first = jax.lax.axis_index(rows) * count if rows else 0
        held = (tokens >= first) & (tokens < first + count)
        found = _rows(weight, tokens - first, dtype)
        return jnp.where(held[:, None], found, 0)[None]

    in_specs = PartitionSpec(rows), PartitionSpec(time)
    parts = shard_map(body, mesh, in_specs, PartitionSpec(rows, time, None))(weight, tokens)
    # Summed out here: its derivative then is a copy, where that of a sum inside would be a second one.
    return parts.sum(0)
