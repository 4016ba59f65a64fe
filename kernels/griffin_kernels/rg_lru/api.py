"""The public function: checks its arguments, and leaves the choice of an implementation to the platform."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from griffin_kernels.arguments import check_floating, check_implementation, check_shapes
from griffin_kernels.mesh import mesh_in_effect
from griffin_kernels.rg_lru.implementations import IMPLEMENTATIONS
from griffin_kernels.rg_lru.sharded import rg_lru_over_mesh
from griffin_kernels.rg_lru.vjp import rg_lru


def rg_lru_scan(
    x: Float[Array, "*batch seq_len width"],
    recurrence_gate: Float[Array, "*batch seq_len width"],
    input_gate: Float[Array, "*batch seq_len width"],
    a_param: Float[Array, " width"],
    h0: Float[Array, "*batch width"] | None = None,
    reset: Bool[Array, "*batch seq_len"] | None = None,
    valid: Bool[Array, "*batch seq_len"] | None = None,
    *,
    c: float = 8.0,
    implementation: str | None = None,
    interpret: Any = False,
) -> tuple[Float[Array, "*batch seq_len width"], Float[Array, "*batch width"]]:
    """Runs the real-gated linear recurrent unit over time (Griffin, arXiv:2402.19427, equations 1 to 4).

        r_t = sigmoid(recurrence_gate_t)
        i_t = sigmoid(input_gate_t)
        a_t = sigmoid(a_param) ** (c * r_t)
        h_t = a_t * h_{t-1} + sqrt(1 - a_t**2) * (i_t * x_t)

    Gates, decay and state are computed in `promote_types(x.dtype, float32)`; the derivative recomputes the gates,
    and the square root's is at most 1000. With `jax.set_mesh` in effect, as `griffin_kernels.mesh` says.

    Args:
      x: What enters the recurrence.
      recurrence_gate: The recurrence gate before its sigmoid; any real floating dtype.
      input_gate: The input gate before its sigmoid; any real floating dtype.
      a_param: Lambda of equation (3).
      h0: State before the first token, in `promote_types(x.dtype, float32)`. Zeros when None.
      reset: True where a token starts a document: the state entering it is dropped, by selection, and the input
        multiplier is 1. Never when None.
      valid: False at padding, which leaves the state as it is and has no gradient. Always when None.
      c: The constant of equation (3), positive.
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

    >>> x = jnp.ones((2, 1))
    >>> h, h_last = rg_lru_scan(x, 0 * x, 0 * x, jnp.full(1, 3.0), reset=jnp.array([True, False]))
    >>> h[:, 0].round(3).tolist()
    [0.5, 0.691]
    """
    floating = {"x": x, "recurrence_gate": recurrence_gate, "input_gate": input_gate, "a_param": a_param}
    check_floating("rg_lru_scan", x.shape, floating)
    *batch, _, width = x.shape
    expected = {
        "recurrence_gate": (recurrence_gate, x.shape),
        "input_gate": (input_gate, x.shape),
        "a_param": (a_param, (width,)),
        "h0": (h0, (*batch, width)),
        "reset": (reset, x.shape[:-1]),
        "valid": (valid, x.shape[:-1]),
    }
    check_shapes("rg_lru_scan", x.shape, expected)
    check_implementation("rg_lru_scan", implementation, IMPLEMENTATIONS)
    wide = np.promote_types(x.dtype, jnp.float32)
    start = jnp.zeros((*batch, width), wide) if h0 is None else h0.astype(wide)
    if x.size == 0:
        return x, start
    how = {"c": c, "implementation": implementation, "interpret": interpret}
    arguments = x, recurrence_gate, input_gate, a_param.astype(wide), start, reset, valid
    if (mesh := mesh_in_effect()) is not None:
        return rg_lru_over_mesh(mesh, *arguments, **how)
    return rg_lru(*arguments, **how)
