"""Random initial weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray


def normal(key: PRNGKeyArray, shape: tuple[int, ...], variance: float, dtype: Any) -> Array:
    """Draws from a normal distribution with the given variance, in float32 at least, then casts."""
    wide = np.promote_types(dtype, jnp.float32)
    return (jax.random.normal(key, shape, wide) * variance**0.5).astype(dtype)
