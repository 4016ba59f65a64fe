"""From logits to a token: pure functions of one row of logits, and the settings that compose them.

Each takes the logits of one row and gives logits again; what may not be drawn becomes -inf. So they compose in
any order; `Sampling` takes the usual one. Log-probabilities that the engine reports are none of these: they are
the model's own, before any of it.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

Logits = Float[Array, " vocab_size"]
Number = Float[Array, ""] | float


def repetition_penalty(logits: Logits, seen: Bool[Array, " vocab_size"], penalty: Number) -> Logits:
    """Makes what the text has already less likely (Keskar et al. 2019, arXiv:1909.05858, section 4.1).

    Its logits are divided by `penalty` where positive and multiplied where negative; 1 changes nothing.
    """
    punished = jnp.where(logits > 0, logits / penalty, logits * penalty)
    return jnp.where(seen, punished, logits)


def temper(logits: Logits, temperature: Number) -> Logits:
    """Divides by a positive temperature: below 1 keeps to likely tokens."""
    return logits / temperature


def keep_top_k(logits: Logits, k: int) -> Logits:
    """Keeps the `k` likeliest tokens, and all that tie with the last of them."""
    if k >= logits.shape[0]:
        return logits
    return _keep(logits, logits >= jax.lax.top_k(logits, k)[0][-1])


def keep_top_p(logits: Logits, p: Number) -> Logits:
    """Keeps the fewest likeliest tokens that have probability `p` together (Holtzman et al. 2020, arXiv:1904.09751).

    The likeliest is always kept, and whatever ties with the last one.
    """
    descending = jnp.sort(logits, descending=True)
    probability = jax.nn.softmax(descending)
    before = jnp.cumsum(probability) - probability
    # What stands before the first token is 0, whatever rounding makes of the difference.
    kept = (before < p).at[0].set(True)
    return _keep(logits, logits >= jnp.where(kept, descending, jnp.inf).min())


def keep_min_p(logits: Logits, p: Number) -> Logits:
    """Keeps tokens at least `p` times as likely as the likeliest (Nguyen et al. 2024, arXiv:2407.01082)."""
    return _keep(logits, logits >= logits.max() + jnp.log(jnp.asarray(p, logits.dtype)))


def greedy(logits: Float[Array, "*batch vocab_size"]) -> Int[Array, "*batch"]:
    """The likeliest token, the lowest id of those that tie."""
    vocab_size = logits.shape[-1]
    # By two plain reductions, not by argmax, which XLA does not vectorise on a CPU.
    best = logits >= logits.max(-1, keepdims=True)
    ids = jnp.arange(vocab_size, dtype=jnp.int32)
    ids = jnp.broadcast_to(ids, logits.shape)
    return jnp.minimum(jnp.where(best, ids, vocab_size).min(-1), vocab_size - 1)


def draw(key: PRNGKeyArray, logits: Logits) -> Int[Array, ""]:
    """A token, each with the probability that the logits give it."""
    return jax.random.categorical(key, logits).astype(jnp.int32)


def _keep(logits, kept):
    return jnp.where(kept, logits, -jnp.inf)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. What is None is left out of the program; other numbers do not compile again.

    The order is: repetition penalty, temperature, top-k, top-p, min-p, and then a draw. Temperature 0 takes
    the likeliest token after the repetition penalty.

    Attributes:
      temperature: Logits are divided by it; 0 always takes the likeliest.
      top_k: Draw only among this many likeliest tokens.
      top_p: Draw only among the fewest likeliest tokens that have this probability together.
      min_p: Draw only among tokens at least this many times as likely as the likeliest.
      repetition_penalty: Above 1 avoids what the text has already, the prompt included.
    """

    temperature: float | int = 1.0
    top_k: int | None = None
    top_p: float | int | None = None
    min_p: float | int | None = None
    repetition_penalty: float | int | None = None

    def __post_init__(self):
        wrong = []
        if not 0 <= self.temperature < float("inf"):
            wrong.append(f"temperature={self.temperature!r} must be 0 or a positive number.")
        if self.top_k is not None and self.top_k < 1:
            wrong.append(f"top_k={self.top_k!r} must be at least 1.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            wrong.append(f"top_p={self.top_p!r} must be above 0 and at most 1.")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            wrong.append(f"min_p={self.min_p!r} must be between 0 and 1.")
        if self.repetition_penalty is not None and not 0 < self.repetition_penalty < float("inf"):
            wrong.append(f"repetition_penalty={self.repetition_penalty!r} must be a positive number.")
        if wrong:
            raise ValueError("\n".join(wrong))

    def compiled(self) -> "Sampler":
        """The same as a PyTree: numbers are arrays, what is left out is None."""

        def number(value: Any) -> Any:
            return None if value is None else jnp.asarray(value, jnp.float32)

        return Sampler(
            number(self.temperature),
            self.top_k,
            number(self.top_p),
            number(self.min_p),
            number(self.repetition_penalty),
        )


class Sampler(eqx.Module):
    """`Sampling` inside of a compiled program."""

    temperature: Float[Array, ""]
    top_k: int | None = eqx.field(static=True)
    top_p: Float[Array, ""] | None
    min_p: Float[Array, ""] | None
    repetition_penalty: Float[Array, ""] | None

    def adjusted(self, logits: Logits, seen: Bool[Array, " vocab_size"] | None) -> Logits:
        """The logits of one row that are drawn from, for a positive temperature."""
        logits = temper(self._penalised(logits, seen), self.temperature)
        if self.top_k is not None:
            logits = keep_top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = keep_top_p(logits, self.top_p)
        if self.min_p is not None:
            logits = keep_min_p(logits, self.min_p)
        return logits

    def choose(
        self,
        logits: Float[Array, "batch vocab_size"],
        seen: Bool[Array, "batch vocab_size"] | None,
        seeds: UInt32[Array, " batch"],
        positions: Int[Array, " batch"],
    ) -> Int[Array, " batch"]:
        """The next token of each row: a function of its own logits, seed and position alone."""

        def drawn():
            def row(logits, seen, seed, position):
                key = jax.random.fold_in(jax.random.key(seed), position)
                return draw(key, self.adjusted(logits, seen))

            return jax.vmap(row)(logits, seen, seeds, positions)

        def likeliest():
            return greedy(jax.vmap(self._penalised)(logits, seen))

        return jax.lax.cond(self.temperature > 0, drawn, likeliest)

    def _penalised(self, logits, seen):
        if self.repetition_penalty is None:
            return logits
        return repetition_penalty(logits, seen, self.repetition_penalty)
