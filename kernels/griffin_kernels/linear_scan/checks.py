"""What the scan refuses, on one device and over a mesh."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from griffin_kernels.arguments import check_implementation
from griffin_kernels.linear_scan.implementations import IMPLEMENTATIONS
from griffin_kernels.linear_scan.planar import Planar


def check_arguments(function: str, x: Any, a: Any, h0: Any, reset: Any, implementation: str | None) -> Array:
    """Raises for anything but arrays that fit together and a known implementation; returns a leaf of `x`."""
    kinds = {isinstance(z, Planar) for z in (x, a, h0) if z is not None}
    if len(kinds) > 1:
        raise ValueError(f"{function} needs x, a and h0 to be all real arrays or all Planar pairs.")
    for name, z in (("x", x), ("a", a), ("h0", h0)):
        for leaf in jax.tree.leaves(z):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                advice = " Pass a Planar(re, im) pair." if jnp.iscomplexobj(leaf) else ""
                raise TypeError(
                    f"{function} needs real floating arrays: got {name} of dtype {leaf.dtype}.{advice}"
                )
    leaf = jax.tree.leaves(x)[0]
    if leaf.ndim < 2:
        raise ValueError(f"{function} needs x of shape [..., seq_len, width]: got {leaf.shape}.")
    for other in jax.tree.leaves((x, a)):
        if other.shape != leaf.shape or other.dtype != leaf.dtype:
            raise ValueError(
                f"{function} needs x and a of one shape and dtype: got x {leaf.shape} {leaf.dtype} and a "
                f"{other.shape} {other.dtype}. Did lru_width change between the gate and the input?"
            )
    state_shape = leaf.shape[:-2] + leaf.shape[-1:]
    for other in jax.tree.leaves(h0):
        if other.shape != state_shape:
            raise ValueError(f"{function} needs h0 of shape {state_shape}: got {other.shape}.")
    if reset is not None and reset.shape != leaf.shape[:-1]:
        raise ValueError(f"{function} needs reset of shape {leaf.shape[:-1]}: got {reset.shape}.")
    check_implementation(function, implementation, IMPLEMENTATIONS)
    return leaf
