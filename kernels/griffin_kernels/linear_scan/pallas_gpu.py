"""The recurrence and its derivative on GPU, one pass each: 3 and 5 words an element, the least there is."""

import jax
import jax.numpy as jnp

from griffin_kernels.gpu_scan import gpu_scan
from griffin_kernels.linear_scan.steps import backward_step, dtypes_of, forward_step


def forward(x, a, h0, reset, *, reverse, interpret=False):
    """`(h, h_last)`; see `adjoint.forward_of`."""
    return gpu_scan(
        forward_step,
        h0,
        (x, a),
        flags=reset,
        outputs=dtypes_of(x),
        reverse=reverse,
        name="linear_scan",
        interpret=interpret,
    )


def backward(dh, dh_last, a, h, h0, reset, *, reverse, interpret=False):
    """`(dx, da, dh0)`; see `adjoint.backward_of`."""
    (dx, da), dh0 = gpu_scan(
        backward_step,
        dh_last,
        (dh, a),
        ahead=((h, h0),),
        flags=reset,
        outputs=(dtypes_of(dh), dtypes_of(a)),
        reverse=not reverse,
        name="linear_scan_backward",
        interpret=interpret,
    )
    return dx, da, dh0


def refuses(*arguments, **options) -> str:
    """Why these arguments cannot be computed, or ""."""
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(arguments)} - {jnp.dtype(bool)}
    known = {jnp.dtype(dtype) for dtype in (jnp.float32, jnp.bfloat16, jnp.float16)}
    if unknown := dtypes - known:
        return f"its state is float32, and {', '.join(sorted(map(str, unknown)))} asks for another"
    return ""
