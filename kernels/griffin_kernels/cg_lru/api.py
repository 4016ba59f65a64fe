"""The public function: checks its arguments, and leaves the choice of an implementation to the platform."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from griffin_kernels.arguments import check_floating, check_implementation, check_shapes
from griffin_kernels.cg_lru.implementations import IMPLEMENTATIONS
from griffin_kernels.cg_lru.sharded import cg_lru_over_mesh
from griffin_kernels.cg_lru.vjp import cg_lru
from griffin_kernels.linear_scan.planar import Planar
from griffin_kernels.mesh import mesh_in_effect


def cg_lru_scan(
    x: Planar,
    recurrence_gate: Float[Array, "*batch seq_len width"],
    input_gate: Float[Array, "*batch seq_len width"],
    a_param: Float[Array, " width"],
    theta: Float[Array, " width"],
    h0: Planar | None = None,
    reset: Bool[Array, "*batch seq_len"] | None = None,
    valid: Bool[Array, "*batch seq_len"] | None = None,
    *,
    c: float = 8.0,
    implementation: str | None = None,
    interpret: Any = False,
) -> tuple[Planar, Planar]:
    """Runs the complex-gated linear recurrent unit over time (Griffin, arXiv:2402.19427, appendix B).

        r_t, i_t = sigmoid(recurrence_gate_t), sigmoid(input_gate_t)
        a_t = (sigmoid(a_param) * exp(1j * theta)) ** (c * r_t)
        h_t = a_t * h_{t-1} + sqrt(1 - |a_t|**2) * (i_t * x_t)

    Gates, decay and state are computed in `promote_types(x.dtype, float32)`; the derivative recomputes the gates,
    and the square root's is at most 1000. With `jax.set_mesh` in effect, as `griffin_kernels.mesh` says.

    Args:
      x: What enters the recurrence, `[*batch, seq_len, width]` in two parts; width counts complex channels.
      recurrence_gate: The recurrence gate before its sigmoid; any real floating dtype.
      input_gate: The input gate before its sigmoid; any real floating dtype.
      a_param: Lambda of the decay's radius.
      theta: The decay's angle in radians.
      h0: State before the first token, `[*batch, width]` in `promote_types(x.dtype, float32)`. Zeros when None.
      reset: True where a token starts a document: the state entering it is dropped, by selection, and the input
        multiplier is 1. Never when None.
      valid: False at padding, which leaves the state as it is and has no gradient. Always when None.
      c: Positive.
      implementation: One of `IMPLEMENTATIONS`; that one runs or raises. None leaves the choice to the platform
        that the program is lowered for.
      interpret: Runs Pallas kernels in an interpreter, on any platform. Slow; for tests.

    Returns:
      `(h, h_last)`: all states in the dtype of `x`; the last one in `promote_types(x.dtype, float32)`. With no
      tokens: empty, and `h0`.

    Raises:
      TypeError: If an array has a complex or integer dtype.
      ValueError: If shapes differ, or `implementation` is unknown.
      NotImplementedError: When the program is lowered: if the named implementation cannot run this, or not on
        that platform.

    >>> one = jnp.ones((1, 1))
    >>> h, h_last = cg_lru_scan(Planar(one, 2 * one), 0 * one, 0 * one, jnp.zeros(1), jnp.zeros(1))
    >>> h.re.round(3).tolist(), h.im.round(3).tolist()
    ([[0.499]], [[0.998]])
    """
    shape = x.re.shape
    floating = {"x": x.re, "x's imaginary part": x.im, "recurrence_gate": recurrence_gate}
    floating |= {"input_gate": input_gate, "a_param": a_param, "theta": theta}
    check_floating("cg_lru_scan", shape, floating)
    *batch, _, width = shape
    expected = {
        "x's imaginary part": (x.im, shape),
        "recurrence_gate": (recurrence_gate, shape),
        "input_gate": (input_gate, shape),
        "a_param": (a_param, (width,)),
        "theta": (theta, (width,)),
        "h0": (h0 and h0.re, (*batch, width)),
        "h0's imaginary part": (h0 and h0.im, (*batch, width)),
        "reset": (reset, shape[:-1]),
        "valid": (valid, shape[:-1]),
    }
    check_shapes("cg_lru_scan", shape, expected)
    check_implementation("cg_lru_scan", implementation, IMPLEMENTATIONS)
    wide = np.promote_types(x.re.dtype, jnp.float32)
    zeros = jnp.zeros((*batch, width), wide)
    start = Planar(zeros, zeros) if h0 is None else jax.tree.map(lambda z: z.astype(wide), h0)
    if x.re.size == 0:
        return x, start
    how = {"c": c, "implementation": implementation, "interpret": interpret}
    parameters = a_param.astype(wide), theta.astype(wide)
    arguments = x, recurrence_gate, input_gate, *parameters, start, reset, valid
    if (mesh := mesh_in_effect()) is not None:
        return cg_lru_over_mesh(mesh, *arguments, **how)
    return cg_lru(*arguments, **how)
