"""The recurrence and its derivative on GPU, one pass each: 3 and 5 words an element, the least there is."""

import jax
import jax.numpy as jnp

from griffin_kernels.gpu_scan import gpu_scan
from griffin_kernels.linear_scan.planar import Planar


def forward(x, a, h0, reset, *, reverse, interpret=False):
    """`(h, h_last)`; see `adjoint.forward_of`."""

    def step(h, inputs, _ahead, _constants, flag):
        x, a = inputs
        h = _unless(flag, a * h) + x
        return h, h

    return gpu_scan(
        step,
        h0,
        (x, a),
        flags=reset,
        outputs=_dtypes(x),
        reverse=reverse,
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

    (dx, da), dh0 = gpu_scan(
        step,
        dh_last,
        (dh, a),
        ahead=((h, h0),),
        flags=reset,
        outputs=(_dtypes(dh), _dtypes(a)),
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


def slower(*arguments, **options) -> str:
    """Why another implementation is faster, or ""."""
    if jax.tree.leaves(arguments)[0].shape[-2] == 1:
        return "a single step is best fused into what stands around it"
    return ""


def _unless(flag, z):
    """Zeros at a reset, by selection: 0 * NaN would let a NaN cross the border of a document."""
    return z if flag is None else jax.tree.map(lambda part: jnp.where(flag != 0, 0.0, part), z)


def _conj(z):
    return z.conj() if isinstance(z, Planar) else z


def _dtypes(tree):
    return jax.tree.map(lambda z: z.dtype, tree)
