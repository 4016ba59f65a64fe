"""Beam search in one compiled loop: the likeliest texts, kept by gathering the whole cache each turn."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from griffin_eqx.model import LanguageModel
from griffin_eqx.sampling.programs import Tell, told
from griffin_eqx.sampling.session import State, feed


class Beams(eqx.Module):
    """Texts that compete, best first.

    Attributes:
      state: Of the documents.
      tokens: What each has written so far.
      log_probabilities: Of each token in nats.
      counts: Tokens of each; a stop token is none.
      totals: Log-probability of each text in nats, its stop token included; -inf where there is no text.
      done: Texts that have met a stop token.
    """

    state: State
    tokens: Int[Array, "beams room"]
    log_probabilities: Float[Array, "beams room"]
    counts: Int[Array, " beams"]
    totals: Float[Array, " beams"]
    done: Bool[Array, " beams"]


def first_beams(state: State, beams: int, room: int) -> Beams:
    """One text without a token, and none in the other places; `state` has a row a place, all alike."""
    return Beams(
        state,
        jnp.zeros((beams, room), jnp.int32),
        jnp.zeros((beams, room), jnp.float32),
        jnp.zeros(beams, jnp.int32),
        jnp.full(beams, -jnp.inf).at[0].set(0),
        jnp.zeros(beams, bool),
    )


def rank(
    totals: Float[Array, "*texts"], lengths: Int[Array, "*texts"], length_penalty: Float[Array, ""]
) -> Float[Array, "*texts"]:
    """`total / length**length_penalty` (Wu et al. 2016, arXiv:1609.08144, without its offset); a length of 0 is 1."""
    return totals / jnp.maximum(lengths, 1).astype(jnp.float32) ** length_penalty


class Search(eqx.Module):
    """What does not change during a search.

    Attributes:
      stops: Tokens that end a text.
      limit: Tokens to write at most.
      length_penalty: Of `rank`.
    """

    stops: Int[Array, " stops"]
    limit: Int[Array, ""]
    length_penalty: Float[Array, ""]


@eqx.filter_jit(donate="all-except-first")
def _search(fixed: tuple[LanguageModel, Search], beams: Beams) -> Beams:
    model, search = fixed
    places = beams.done.shape[0]
    vocab_size = model.embedding.vocab_size

    def unfinished(carry):
        turn, beams = carry
        return (turn < search.limit) & ~beams.done.all()

    def one(carry):
        turn, old = carry
        logits = old.state.logits.astype(jnp.float32)
        log_p = jax.nn.log_softmax(logits, axis=-1)
        # A text that is done has one way to go on: to stay as it is.
        stays = jnp.where(jnp.arange(vocab_size) == 0, 0, -jnp.inf).astype(jnp.float32)
        step = jnp.where(old.done[:, None], stays[None], log_p)
        totals = old.totals[:, None] + step
        # Its stop token counts as one.
        lengths = old.counts + 1
        lengths = jnp.broadcast_to(lengths[:, None], totals.shape)
        ranks = rank(totals, lengths, search.length_penalty)
        _, best = jax.lax.top_k(ranks.reshape(-1), places)
        parent, token = best // vocab_size, (best % vocab_size).astype(jnp.int32)
        kept = jax.tree.map(lambda z: z[parent], old)
        done = kept.done | (token[:, None] == search.stops[None]).any(-1)
        log_probabilities = kept.log_probabilities.at[:, turn].set(step[parent, token])
        state = feed(model, kept.state, token[:, None], (~done).astype(jnp.int32))
        return turn + 1, Beams(
            state,
            kept.tokens.at[:, turn].set(token),
            log_probabilities,
            kept.counts + (~done).astype(jnp.int32),
            totals[parent, token],
            done,
        )

    _, beams = jax.lax.while_loop(unfinished, one, (jnp.int32(0), beams))
    return beams


def search(model: LanguageModel, how: Search, beams: Beams, tell: Tell) -> Beams:
    """Searches, compiled; `beams` is given away. The answer is in order, best first."""
    places, room = beams.tokens.shape
    return told(_search, f"beam search {places} x {room}", tell)((model, how), beams)
