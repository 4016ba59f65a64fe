"""Root-mean-square normalisation."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class RMSNorm(eqx.Module):
    """`y = x / sqrt(mean(x**2) + 1e-6) * (1 + scale)` (Zhang & Sennrich 2019), computed in float32.

    The scale is stored as its offset from 1, as RecurrentGemma does; a row of zeros stays zero.
    """

    scale: Float[Array, " width"]

    @classmethod
    def init(cls, width: int, *, dtype: Any = jnp.float32) -> "RMSNorm":
        """Starts as the plain normalisation."""
        return cls(jnp.zeros(width, dtype))

    def __call__(self, x: Float[Array, "seq_len width"]) -> Float[Array, "seq_len width"]:
        """Normalises each token."""
        wide = x.astype(np.promote_types(x.dtype, jnp.float32))
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + 1e-6)
        return (wide * inverse * (1 + self.scale.astype(wide.dtype))[None]).astype(x.dtype)
