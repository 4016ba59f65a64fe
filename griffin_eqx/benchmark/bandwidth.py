"""How fast weights can be read: one vector times matrices that no cache holds."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

STREAM_BYTES = 2**28
"""Of all matrices together: far more than a processor's caches."""

SHAPE = (1024, 4096)


def streaming_products(dtype: Any) -> tuple[int, dict[str, Callable[[], Any]]]:
    """Programs whose time is that of reading so many bytes of weights, `x @ W` and `W @ x`.

    Args:
      dtype: Of vector and matrices.

    Returns:
      `(bytes, programs)`: each returns when its results are ready.
    """
    itemsize = jnp.dtype(dtype).itemsize
    count = max(1, STREAM_BYTES // (SHAPE[0] * SHAPE[1] * itemsize))
    make = jax.jit(lambda key: jax.random.normal(key, SHAPE, jnp.float32).astype(dtype))
    matrices = [make(jax.random.key(i)) for i in range(count)]
    rows, columns = jnp.ones(SHAPE[0], dtype), jnp.ones(SHAPE[1], dtype)
    from_left = jax.jit(lambda x, matrices: [x @ w for w in matrices])
    from_right = jax.jit(lambda x, matrices: [w @ x for w in matrices])
    programs = {
        "x @ W": lambda: jax.block_until_ready(from_left(rows, matrices)),
        "W @ x": lambda: jax.block_until_ready(from_right(columns, matrices)),
    }
    return count * SHAPE[0] * SHAPE[1] * itemsize, programs
