"""The recurrence and its derivative on TPU, one pass each: 3 and 5 words an element, the least there is."""

from typing import Any, cast

import jax
import jax.numpy as jnp

from griffin_kernels.linear_scan.planar import Planar
from griffin_kernels.tpu_scan import Ahead, Cost, tpu_scan


def forward(x, a, h0, reset, *, reverse, interpret=False):
    """`(h, h_last)`; see `adjoint.forward_of`."""

    def step(h, inputs, _ahead, _constants, flag):
        x, a = inputs
        h = _unless(flag, a * h) + x
        return h, h

    return tpu_scan(
        step,
        h0,
        (x, a),
        idle=(_number(x, 0), _number(x, 1)),
        flags=_flags(reset),
        outputs=_dtypes(x),
        reverse=reverse,
        cost=Cost(8 if isinstance(x, Planar) else 2),
        name="linear_scan",
        interpret=interpret,
    )


def backward(dh, dh_last, a, h, h0, reset, *, reverse, interpret=False):
    """`(dx, da, dh0)`; see `adjoint.backward_of`.

    The adjoint runs the other way and sees h one step ahead of itself: the state that entered the step.
    """

    def step(g, inputs, entering, _constants, flag):
        dh, a = inputs
        g = g + dh
        return _unless(flag, _conj(a) * g), (g, _unless(flag, g * _conj(entering[0])))

    (dx, da), dh0 = tpu_scan(
        step,
        dh_last,
        (dh, a),
        idle=(_number(dh, 0), _number(dh, 1)),
        ahead=(Ahead(h, h0),),
        flags=_flags(reset),
        outputs=(_dtypes(dh), _dtypes(a)),
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


def slower(*arguments, **options) -> str:
    """Why another implementation is faster, or ""."""
    del options
    if jax.tree.leaves(arguments)[0].shape[-2] == 1:
        return "a single step is best fused into what stands around it"
    return ""


def _unless(flag, z):
    """Zeros at a reset, by selection: 0 * NaN would let a NaN cross the border of a document."""
    return z if flag is None else jax.tree.map(lambda part: jnp.where(flag != 0, 0.0, part), z)


def _conj(z):
    return z.conj() if isinstance(z, Planar) else z


def _number(like, value: Any) -> Any:
    return Planar(value, cast(Any, 0)) if isinstance(like, Planar) else value


def _dtypes(tree):
    return jax.tree.map(lambda z: z.dtype, tree)


def _flags(reset):
    return None if reset is None else reset.astype(jnp.int32)
