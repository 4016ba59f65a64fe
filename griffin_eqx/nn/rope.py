"""Rotary position embedding."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def rotate(
    x: Float[Array, "seq_len heads head_dim"],
    positions: Int[Array, " seq_len"],
    *,
    fraction: float = 1.0,
    base: float = 10_000.0,
) -> Float[Array, "seq_len heads head_dim"]:
    """Rotates pairs of channels by an angle proportional to the position (RoFormer, arXiv:2104.09864).

    Channel i of the rotated part is paired with channel i + half of it (split into halves, not
    interleaved, as RecurrentGemma does) and turns by `positions * base**(-i / half)` radians. Angles are
    float32; the result is in the dtype of `x`.

    Args:
      x: Queries or keys.
      positions: Position of each token in its document.
      fraction: The leading part of `head_dim` that is rotated; 0.5 in RecurrentGemma. Rounded down to an
        even number of channels.
      base: Wavelengths grow from 2 pi to 2 pi * base tokens.
    """
    half = int(x.shape[-1] * fraction) // 2
    if half == 0:
        return x
    wide = np.promote_types(x.dtype, jnp.float32)
    frequency = base ** (-jnp.arange(half, dtype=wide) / half)
    angle = positions.astype(wide)[:, None, None] * frequency[None, None]
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    first, second = x[..., :half].astype(wide), x[..., half : 2 * half].astype(wide)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(x.dtype)
    return jnp.concatenate([turned, x[..., 2 * half :]], -1)
