"""The compiled programs of the engine, and a word whenever one had to be compiled.

Each takes what it only reads and what it changes. The latter's buffers are given to it: the caller passes its own.
"""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from griffin_eqx.model import LanguageModel
from griffin_eqx.sampling.samplers import Sampler
from griffin_eqx.sampling.session import ROWS, State, feed
from griffin_eqx.sharding import hold

Tell = Callable[[str], None]


class Progress(eqx.Module):
    """What writing changes.

    Attributes:
      state: Of the documents.
      seen: Which tokens each row has already; None where nobody asks.
      done: Rows that have met a stop token, which is neither written nor fed.
    """

    state: State
    seen: Bool[Array, "batch scores"] | None
    done: Bool[Array, " batch"]


class Order(eqx.Module):
    """How to write: what does not change meanwhile.

    Attributes:
      sampler: How tokens are chosen.
      seeds: Of the draws, one a row.
      stops: Tokens that end a row.
      limit: Tokens to write at most.
      room: Places for them, at least `limit`.
    """

    sampler: Sampler
    seeds: UInt32[Array, " batch"]
    stops: Int[Array, " stops"]
    limit: Int[Array, ""]
    room: int = eqx.field(static=True)


class Piece(eqx.Module):
    """What was written.

    Attributes:
      tokens: One column a turn.
      log_probabilities: Of each in the model's own distribution, in nats.
      counts: How many of a row count.
    """

    tokens: Int[Array, "batch room"]
    log_probabilities: Float[Array, "batch room"]
    counts: Int[Array, " batch"]


@eqx.filter_jit(donate="all-except-first")
def _read(fixed: tuple[LanguageModel, Array, Array], state: State) -> State:
    return feed(fixed[0], state, fixed[1], fixed[2])


@eqx.filter_jit(donate="all-except-first")
def _write(fixed: tuple[LanguageModel, Order], progress: Progress) -> tuple[Progress, Piece]:
    model, order = fixed
    batch = progress.done.shape[0]
    rows = jnp.arange(batch)

    def unfinished(carry):
        turn, progress, _ = carry
        return (turn < order.limit) & ~progress.done.all()

    def one(carry):
        turn, progress, piece = carry
        state, seen, done = progress.state, progress.seen, progress.done
        logits = state.logits.astype(jnp.float32)
        token = order.sampler.choose(logits, seen, order.seeds, state.lengths)
        chosen = log_probability(logits, token)
        done = done | (token[:, None] == order.stops[None]).any(-1)
        piece = Piece(
            piece.tokens.at[:, turn].set(token),
            piece.log_probabilities.at[:, turn].set(chosen),
            piece.counts + (~done).astype(jnp.int32),
        )
        if seen is not None:
            seen = seen.at[rows, token].set(seen[rows, token] | ~done)
        state = feed(model, state, token[:, None], (~done).astype(jnp.int32))
        return turn + 1, hold(Progress(state, seen, done), leading=ROWS, rows=batch), piece

    empty = Piece(
        jnp.zeros((batch, order.room), jnp.int32),
        jnp.zeros((batch, order.room), jnp.float32),
        jnp.zeros(batch, jnp.int32),
    )
    _, progress, piece = jax.lax.while_loop(unfinished, one, (jnp.int32(0), progress, empty))
    return progress, piece


def log_probability(
    logits: Float[Array, "batch vocab_size"], token: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """The log-probability in nats of one token a row."""
    picked = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
    return picked - jax.nn.logsumexp(logits, axis=-1)


def read(
    model: LanguageModel,
    tokens: Int[Array, "batch chunk"],
    counts: Int[Array, " batch"],
    state: State,
    tell: Tell,
) -> State:
    """`feed`, compiled; `state` is given away."""
    return told(_read, f"prefill {tokens.shape[0]} x {tokens.shape[1]}", tell)((model, tokens, counts), state)


def write(model: LanguageModel, order: Order, progress: Progress, tell: Tell) -> tuple[Progress, Piece]:
    """Writes up to `order.limit` tokens a row; `progress` is given away."""
    return told(_write, f"decode {progress.done.shape[0]} rows", tell)((model, order), progress)


def told(program: Callable[..., Any], name: str, tell: Tell) -> Callable[..., Any]:
    """The program; `tell` hears of it when a call has to compile it first."""

    def run(*arguments: Any) -> Any:
        before, started = _compilations[0], time.perf_counter()
        result = program(*arguments)
        if _compilations[0] > before:
            tell(f"compiled {name} in {time.perf_counter() - started:.1f} s")
        return result

    return run


_compilations = [0]


def _count(event: str, duration_secs: float, **kwargs: str | int) -> None:
    del duration_secs, kwargs
    if event.endswith("backend_compile_duration"):
        _compilations[0] += 1


jax.monitoring.register_event_duration_secs_listener(_count)
