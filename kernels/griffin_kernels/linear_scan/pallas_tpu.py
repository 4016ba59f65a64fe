"""The recurrence and its derivative on TPU, one pass each: 3 and 5 words an element, the least there is."""

from typing import Any, cast

import jax
import jax.numpy as jnp

from griffin_kernels.linear_scan.planar import Planar
from griffin_kernels.linear_scan.steps import backward_step, dtypes_of, forward_step
from griffin_kernels.tpu_scan import Ahead, Cost, tpu_scan


def forward(x, a, h0, reset, *, reverse, interpret=False):
    """`(h, h_last)`; see `adjoint.forward_of`."""
    return tpu_scan(
        forward_step,
        h0,
        (x, a),
        idle=(_number(x, 0), _number(x, 1)),
        flags=_flags(reset),
        outputs=dtypes_of(x),
        reverse=reverse,
        cost=Cost(8 if isinstance(x, Planar) else 2),
        name="linear_scan",
        interpret=interpret,
    )


def backward(dh, dh_last, a, h, h0, reset, *, reverse, interpret=False):
    """`(dx, da, dh0)`; see `adjoint.backward_of`."""
    (dx, da), dh0 = tpu_scan(
        backward_step,
        dh_last,
        (dh, a),
        idle=(_number(dh, 0), _number(dh, 1)),
        ahead=(Ahead(h, h0),),
        flags=_flags(reset),
        outputs=(dtypes_of(dh), dtypes_of(a)),
        reverse=not reverse,
        cost=Cost(14 if isinstance(dh, Planar) else 3),
        name="linear_scan_backward",
        interpret=interpret,
    )
    return dx, da, dh0


def refuses(*arguments, **options) -> str:
    """Why these arguments cannot be computed, or ""."""
    del options
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(arguments)} - {jnp.dtype(bool)}
    if unknown := dtypes - {jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)}:
        return f"it knows float32 and bfloat16, not {', '.join(sorted(map(str, unknown)))}"
    return ""


def _number(like, value: Any) -> Any:
    return Planar(value, cast(Any, 0)) if isinstance(like, Planar) else value


def _flags(reset):
    return None if reset is None else reset.astype(jnp.int32)
