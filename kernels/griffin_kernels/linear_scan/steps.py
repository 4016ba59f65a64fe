"""One step of the recurrence and one of its adjoint: what `tpu_scan` and `gpu_scan` run over time."""

import jax
import jax.numpy as jnp

from griffin_kernels.linear_scan.planar import Planar


def forward_step(h, inputs, _ahead, _constants, flag):
    """`h = a * h + x`, the state and the output; without the state that enters where `flag` is not 0."""
    x, a = inputs
    h = _unless(flag, a * h) + x
    return h, h


def backward_step(g, inputs, ahead, _constants, flag):
    """The cotangent that is carried to the step before, and `(dx, da)` of this one.

    The adjoint runs the other way and sees h one step ahead of itself: the state that entered the step.
    """
    (dh, a), (entering,) = inputs, ahead
    g = g + dh
    return _unless(flag, _conj(a) * g), (g, _unless(flag, g * _conj(entering)))


def dtypes_of(tree):
    """The dtype of each array."""
    return jax.tree.map(lambda z: z.dtype, tree)


def slower_for_one_step(*arguments, **_options) -> str:
    """Why another implementation is faster than a kernel, or ""; the first argument is a sequence."""
    if jax.tree.leaves(arguments)[0].shape[-2] == 1:
        return "a single step is best fused into what stands around it"
    return ""


def _unless(flag, z):
    """Zeros at a reset, by selection: 0 * NaN would let a NaN cross the border of a document."""
    return z if flag is None else jax.tree.map(lambda part: jnp.where(flag != 0, 0.0, part), z)


def _conj(z):
    return z.conj() if isinstance(z, Planar) else z
