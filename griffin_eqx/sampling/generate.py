"""Continues prompts: one call of the model over each whole prompt, then one compiled loop, a token a turn."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from griffin_eqx.block import SequenceLayout
from griffin_eqx.model import LanguageModel

SMALLEST_BUCKET = 16


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int] | np.ndarray],
    *,
    max_new_tokens: int = 256,
    temperature: float | int = 1.0,
    top_k: int | None = None,
    stop: int | None = None,
    seed: int = 0,
) -> list[list[int]]:
    """Continues each prompt by sampling from the model.

    A prompt's continuation does not depend on its neighbours: row i is what that prompt gives alone with
    `seed + i`. Lengths are rounded up to powers of two inside, so that new lengths seldom compile again.

    Args:
      model: The model.
      prompts: Token ids, at least one a prompt, of any lengths; a document begins with the tokenizer's
        `document`.
      max_new_tokens: Tokens to write at most.
      temperature: Logits are divided by it; 0 always takes the likeliest token.
      top_k: Draw only among this many likeliest tokens; among all when None.
      stop: The token that ends a continuation; it is not part of the answer.
      seed: Of the draws.

    Returns:
      The new tokens of each prompt, the prompt itself left out.

    Raises:
      ValueError: If a prompt is empty or holds an id outside of the vocabulary, or a number is out of range.
    """
    rows = [np.asarray(prompt, np.int64).reshape(-1) for prompt in prompts]
    vocab_size = model.embedding.vocab_size
    _check(rows, vocab_size, max_new_tokens, temperature, top_k)
    if not rows or max_new_tokens == 0:
        return [[] for _ in rows]
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.zeros((len(rows), _bucket(int(lengths.max()))), np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    seeds = np.array([(seed + i) % 2**32 for i in range(len(rows))], np.uint32)
    written, counts = _generate(
        model,
        jnp.asarray(tokens),
        jnp.asarray(lengths),
        jnp.asarray(seeds),
        jnp.asarray(temperature, jnp.float32),
        jnp.asarray(-1 if stop is None else stop, jnp.int32),
        jnp.asarray(max_new_tokens, jnp.int32),
        None if top_k is None else min(top_k, vocab_size),
        _bucket(max_new_tokens),
    )
    written, counts = np.asarray(written), np.asarray(counts)
    return [row[:count].tolist() for row, count in zip(written, counts, strict=True)]


@eqx.filter_jit
def _generate(
    model: LanguageModel,
    tokens: Int[Array, "batch prompt_len"],
    lengths: Int[Array, " batch"],
    seeds: UInt32[Array, " batch"],
    temperature: Float[Array, ""],
    stop: Int[Array, ""],
    max_new_tokens: Int[Array, ""],
    top_k: int | None,
    room: int,
) -> tuple[Int[Array, "batch room"], Int[Array, " batch"]]:
    """`(written, counts)`: the new tokens of each row, and how many of them count."""
    batch, prompt_len = tokens.shape
    keys = jax.vmap(jax.random.key)(seeds)
    cache = jax.tree.map(
        lambda z: jnp.broadcast_to(z, (batch, *z.shape)), model.init_cache(prompt_len + room)
    )

    def advance(tokens, positions, length, cache):
        """Feeds a chunk to one row: the logits behind its last token, and the cache."""
        hidden, cache = model.hidden(tokens, SequenceLayout(positions, length), cache)
        return model.logits(hidden[length - 1]), cache

    def choose(key, logits, turn):
        logits = logits.astype(jnp.float32)
        likeliest = jnp.argmax(logits)
        if top_k is not None:
            logits = jnp.where(logits >= jax.lax.top_k(logits, top_k)[0][-1], logits, -jnp.inf)
        scaled = logits / jnp.where(temperature > 0, temperature, 1)
        drawn = jax.random.categorical(jax.random.fold_in(key, turn), scaled)
        return jnp.where(temperature > 0, drawn, likeliest).astype(jnp.int32)

    def unfinished(state) -> Bool[Array, ""]:
        turn, _, _, done, *_ = state
        return (turn < max_new_tokens) & ~done.all()

    def write(state):
        turn, logits, cache, done, written, counts = state
        token = jax.vmap(choose, in_axes=(0, 0, None))(keys, logits, turn)
        done = done | (token == stop)
        written = written.at[:, turn].set(token)
        counts = jnp.where(done, counts, counts + 1)
        one = jnp.ones_like(lengths)
        logits, cache = jax.vmap(advance)(token[:, None], (lengths + turn)[:, None], one, cache)
        return turn + 1, logits, cache, done, written, counts

    positions = jnp.broadcast_to(jnp.arange(prompt_len, dtype=jnp.int32), tokens.shape)
    logits, cache = jax.vmap(advance)(tokens, positions, lengths, cache)
    nothing = jnp.zeros((batch, room), jnp.int32)
    start = (jnp.int32(0), logits, cache, jnp.zeros(batch, bool), nothing, jnp.zeros_like(lengths))
    *_, written, counts = jax.lax.while_loop(unfinished, write, start)
    return written, counts


def _bucket(size: int) -> int:
    """The next power of two."""
    return max(SMALLEST_BUCKET, 1 << (size - 1).bit_length())


def _check(rows, vocab_size, max_new_tokens, temperature, top_k) -> None:
    for i, row in enumerate(rows):
        if not row.size:
            raise ValueError(f"prompt {i} is empty: begin it with the tokenizer's `document`.")
        if row.min() < 0 or row.max() >= vocab_size:
            raise ValueError(
                f"prompt {i} holds ids outside of 0 to {vocab_size - 1}: is it another tokenizer's?"
            )
    if max_new_tokens < 0:
        raise ValueError(f"{max_new_tokens=} must not be negative.")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"{temperature=} must be 0 or a positive number.")
    if top_k is not None and top_k < 1:
        raise ValueError(f"{top_k=} must be at least 1.")
