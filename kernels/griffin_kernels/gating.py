"""The numerics of a gated linear recurrence: decay, and the input multiplier that keeps the state's variance."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MAX_SQRT_DERIVATIVE = 1000.0
"""Bound of the square root's derivative (RecurrentGemma report, section 2)."""


def log_decay(
    gate: Float[Array, "*batch seq_len channels"], a_param: Float[Array, "*rows channels"], c: float
) -> Float[Array, "*batch seq_len channels"]:
    """`log a_t = c * r_t * log(sigmoid(a_param))`, in nats per token, at most 0 (Griffin, equation 6).

    Args:
      gate: The recurrence gate r_t in [0, 1], float32 or wider.
      a_param: The parameter Lambda of equation (3), `a = sigmoid(Lambda)`; one for all rows, or one a row.
      c: The constant of equation (3), 8 in the paper.
    """
    return c * gate * jax.nn.log_sigmoid(a_param.astype(gate.dtype))[..., None, :]


@jax.custom_jvp
def bounded_sqrt(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Square root whose derivative is at most 1000, also at 0; the value is exact."""
    return jnp.sqrt(x)


@bounded_sqrt.defjvp
def _bounded_sqrt_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    # d sqrt(x) / dx = 0.5 / sqrt(x) reaches the bound at x = 1 / (2 * bound)**2.
    floor = (2 * MAX_SQRT_DERIVATIVE) ** -2
    return bounded_sqrt(x), dx * 0.5 * jax.lax.rsqrt(jnp.maximum(x, floor))


def input_multiplier(log_a: Float[Array, "..."]) -> Float[Array, "..."]:
    """`sqrt(1 - a**2)` from the log of the decay, with no cancellation where a is close to 1."""
    return bounded_sqrt(-jnp.expm1(2 * log_a))
