"""What a kernel is told of a token: one number a step."""

import jax.numpy as jnp

RESET, SKIP = 1, 2
"""The token starts a document; it is padding, and the state passes it as it is. 0 is any other."""


def flags_of(reset, valid):
    """Int32, shaped like `reset` and `valid`; None where neither is given. Padding resets nothing."""
    if reset is None and valid is None:
        return None
    flags = jnp.int32(0) if reset is None else jnp.where(reset, jnp.int32(RESET), jnp.int32(0))
    return flags if valid is None else jnp.where(valid, flags, jnp.int32(SKIP))
