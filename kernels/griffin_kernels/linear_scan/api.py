"""The public function: checks its arguments, chooses an implementation, runs it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from griffin_kernels.linear_scan.checks import check_arguments
from griffin_kernels.linear_scan.planar import Planar
from griffin_kernels.linear_scan.sharded import scan_over_mesh
from griffin_kernels.linear_scan.vjp import differentiable_scan
from griffin_kernels.mesh import mesh_in_effect
from griffin_kernels.operation import varying_alike


def linear_scan(
    x: Float[Array, "*batch seq_len width"] | Planar,
    a: Float[Array, "*batch seq_len width"] | Planar,
    h0: Float[Array, "*batch width"] | Planar | None = None,
    reset: Bool[Array, "*batch seq_len"] | None = None,
    *,
    reverse: bool = False,
    implementation: str | None = None,
    interpret: Any = False,
) -> tuple[Array | Planar, Array | Planar]:
    """Runs the diagonal linear recurrence `h_t = a_t * h_{t-1} + x_t` over time.

    This is equation (4) of Griffin (De et al., 2024, arXiv:2402.19427) with the gated, normalised input
    `sqrt(1 - a_t**2) * (i_t * x_t)` already folded into `x`; with `Planar` pairs, equation (13). With `jax.set_mesh`
    in effect, as `sharded_linear_scan`.

    Args:
      x: Gated input, one row per token, any real floating dtype; or a `Planar` pair of such arrays.
      a: Decay per token and channel; shape and dtype as `x`.
      h0: State before the first token in the running direction, in `promote_types(x.dtype, float32)`.
        Zeros when None.
      reset: True where a token starts a document: the state entering it, `h0` and any NaN included, is
        dropped by selection.
      reverse: Runs from the last token to the first; `h_last` is then the state at token 0.
      implementation: One of `IMPLEMENTATIONS`; that one runs or raises. None leaves the choice to the platform
        that the program is lowered for.
      interpret: Runs Pallas kernels in an interpreter, which any platform can: True, or
        `jax.experimental.pallas.tpu.InterpretParams`. Slow; for tests.

    Returns:
      `(h, h_last)`: all states in the dtype of `x`; the last one in `promote_types(x.dtype, float32)`,
      ready to be passed back as `h0` for the next chunk. With no tokens: empty, and `h0`.

    Raises:
      TypeError: If an array has a complex or integer dtype.
      ValueError: If shapes or dtypes differ, or `implementation` is unknown.
      NotImplementedError: When the program is lowered: if the named implementation cannot run this, or not on
        that platform.

    >>> h, h_last = linear_scan(jnp.ones((3, 1)), jnp.full((3, 1), 0.5))
    >>> h[:, 0].tolist(), h_last.tolist()
    ([1.0, 1.5, 1.75], [1.75])
    """
    leaf = check_arguments("linear_scan", x, a, h0, reset, implementation)
    wide = np.promote_types(leaf.dtype, jnp.float32)
    if h0 is None:
        zeros = jnp.zeros(leaf.shape[:-2] + leaf.shape[-1:], wide)
        start: Any = Planar(zeros, zeros) if isinstance(x, Planar) else zeros
    else:
        start = jax.tree.map(lambda z: z.astype(wide), h0)
    if leaf.size == 0:
        return x, start
    if (mesh := mesh_in_effect()) is not None:
        how: Any = {"reverse": reverse, "implementation": implementation, "interpret": interpret}
        return scan_over_mesh(mesh, x, a, None if h0 is None else start, reset, **how)
    # Outside of the derivative rule, so that cotangents of what varies less are summed.
    x, a, start, reset = varying_alike(x, a, start, reset)
    return differentiable_scan(x, a, start, reset, reverse, implementation, interpret)
