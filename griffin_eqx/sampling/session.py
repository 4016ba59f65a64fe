"""What has been read and written so far, as a value: it can be forked, gathered, kept and gone on with."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from griffin_eqx.block import Cache, SequenceLayout
from griffin_eqx.model import LanguageModel
from griffin_eqx.sampling.prompts import Rows
from griffin_eqx.sharding import hold, rows_axis

ROWS = ("batch", "num_layers")
"""Names of the axes in front of a cache's own: one entry a row, and a row's layers where they are stacked."""


class State(eqx.Module):
    """What a batch of documents leaves behind, one row a document.

    Attributes:
      cache: What the layers carry.
      logits: The scores of each row's next token, in the policy's output dtype; zeros before the first.
      lengths: Tokens that each row has been fed: the position of its next one.
    """

    cache: Cache
    logits: Float[Array, "batch scores"]  # whole on each device of a mesh: the next token is one of all
    lengths: Int[Array, " batch"]


@dataclasses.dataclass(frozen=True)
class Session:
    """A batch of documents in the middle of being read or written.

    It is a value: nothing that an engine does changes it, so that to keep one is a snapshot, and to go on twice
    from one is a fork.

    Attributes:
      state: On the device.
      tokens: What each row has been fed, prompt and continuation.
      max_seq_len: Tokens that its cache has room for.
    """

    state: State
    tokens: Rows
    max_seq_len: int

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: Sequence[int]) -> "Session":
        """These rows in this order, each as often as it is named: to fork, to reorder, to leave out.

        Raises:
          IndexError: If there is no such row.
        """
        chosen = [range(len(self))[row] for row in rows]
        return Session(
            gathered(self.state, jnp.asarray(chosen, jnp.int32)),
            tuple(self.tokens[row] for row in chosen),
            self.max_seq_len,
        )


def empty_state(model: LanguageModel, batch: int, max_seq_len: int) -> State:
    """Documents of no tokens yet."""
    cache = jax.tree.map(
        lambda z: jnp.zeros((batch, *z.shape), z.dtype) + z[None], model.init_cache(max_seq_len)
    )
    logits = jnp.zeros((batch, model.embedding.vocab_size), model.policy.output)
    return State(cache, logits, jnp.zeros(batch, jnp.int32))


def feed(
    model: LanguageModel, state: State, tokens: Int[Array, "batch chunk"], counts: Int[Array, " batch"]
) -> State:
    """Reads the first `counts` tokens of each row; with none, a row stays as it is."""
    chunk = tokens.shape[1]

    def row(tokens, start, count, cache):
        positions = start + jnp.arange(chunk, dtype=jnp.int32)
        hidden, cache = model.hidden(tokens, SequenceLayout(positions, count), cache)
        return hidden[jnp.maximum(count - 1, 0)], cache

    batch = tokens.shape[0]
    each = jax.vmap(row, spmd_axis_name=rows_axis(batch))
    hidden, cache = each(tokens, state.lengths, counts, state.cache)
    logits = jnp.where((counts > 0)[:, None], model.logits(hidden), state.logits)
    return hold(State(cache, logits, state.lengths + counts), leading=ROWS, rows=batch)


@eqx.filter_jit
def gathered(state: State, rows: Int[Array, " rows"]) -> State:
    """The state of these rows."""
    return jax.tree.map(lambda z: z[rows], state)


def copied(state: State) -> State:
    """The same in buffers of its own, which can be given away."""
    return jax.tree.map(jnp.copy, state)


def cache_is_unbounded(model: LanguageModel, max_seq_len: int) -> bool:
    """Whether a cache for documents of `max_seq_len` tokens serves documents of any length as well."""

    def shapes(tokens: int):
        return jax.tree.map(lambda z: z.shape, eqx.filter_eval_shape(model.init_cache, tokens))

    return shapes(max_seq_len) == shapes(2 * max_seq_len)


def padded(rows: Rows, width: int) -> np.ndarray:
    """The rows as one array, filled up on the right."""
    array = np.zeros((len(rows), width), np.int32)
    for i, row in enumerate(rows):
        array[i, : len(row)] = row
    return array
