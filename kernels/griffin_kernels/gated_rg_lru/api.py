"""The public function: checks its arguments, and leaves the choice of an implementation to the platform."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from griffin_kernels.arguments import check_floating, check_implementation, check_shapes
from griffin_kernels.gated_rg_lru.implementations import FORWARD, IMPLEMENTATIONS
from griffin_kernels.gated_rg_lru.sharded import gated_rg_lru_over_mesh
from griffin_kernels.mesh import mesh_in_effect

Gate = tuple[Float[Array, "gate_blocks side side"], Float[Array, "gate_blocks side"]]
"""The weight of a block-diagonal product, one matrix a block with inputs first, and its bias."""


def gated_rg_lru(
    x: Float[Array, "*batch seq_len width"],
    recurrence_gate: Gate,
    input_gate: Gate,
    a_param: Float[Array, " width"],
    h0: Float[Array, "*batch width"] | None = None,
    reset: Bool[Array, "*batch seq_len"] | None = None,
    valid: Bool[Array, "*batch seq_len"] | None = None,
    *,
    c: float = 8.0,
    implementation: str | None = None,
    interpret: Any = False,
) -> tuple[Float[Array, "*batch seq_len width"], Float[Array, "*batch width"]]:
    """Runs the real-gated linear recurrent unit over time, the products of its gates included.

    Griffin (arXiv:2402.19427), equations 1 to 4, with the block-diagonal gates of section 4.1:

        r_t = sigmoid(W_a x_t + b_a)
        i_t = sigmoid(W_x x_t + b_x)
        a_t = sigmoid(a_param) ** (c * r_t)
        h_t = a_t * h_{t-1} + sqrt(1 - a_t**2) * (i_t * x_t)

    Gates, decay and state are computed in `promote_types(x.dtype, float32)`, the products at JAX's default matmul
    precision. What is saved for the derivative is x and h; gates are computed again. It is a derivative for reverse
    mode. Under `jax.vmap` over rows that share their weights, all rows are one call. With `jax.set_mesh` in effect, as
    `griffin_kernels.mesh` says.

    Args:
      x: What enters the recurrence.
      recurrence_gate: Weight and bias of W_a, block-diagonal; blocks are square.
      input_gate: Weight and bias of W_x.
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

    >>> x, weight, bias = jnp.ones((2, 2)), jnp.zeros((1, 2, 2)), jnp.zeros((1, 2))
    >>> h, h_last = gated_rg_lru(x, (weight, bias), (weight, bias), jnp.full(2, 3.0))
    >>> h[:, 0].round(3).tolist()
    [0.28, 0.512]
    """
    floating = {
        "x": x,
        "recurrence_gate's weight": recurrence_gate[0],
        "recurrence_gate's bias": recurrence_gate[1],
        "input_gate's weight": input_gate[0],
        "input_gate's bias": input_gate[1],
        "a_param": a_param,
    }
    check_floating("gated_rg_lru", x.shape, floating)
    *batch, _, width = x.shape
    blocks = recurrence_gate[0].shape[0]
    if not blocks or width % blocks:
        raise ValueError(f"gated_rg_lru cannot cut {width} channels into {blocks} equal blocks of a gate.")
    side = width // blocks
    expected = {
        "recurrence_gate's weight": (recurrence_gate[0], (blocks, side, side)),
        "recurrence_gate's bias": (recurrence_gate[1], (blocks, side)),
        "input_gate's weight": (input_gate[0], (blocks, side, side)),
        "input_gate's bias": (input_gate[1], (blocks, side)),
        "a_param": (a_param, (width,)),
        "h0": (h0, (*batch, width)),
        "reset": (reset, x.shape[:-1]),
        "valid": (valid, x.shape[:-1]),
    }
    check_shapes("gated_rg_lru", x.shape, expected)
    check_implementation("gated_rg_lru", implementation, IMPLEMENTATIONS)
    wide = np.promote_types(x.dtype, jnp.float32)
    start = jnp.zeros((*batch, width), wide) if h0 is None else h0.astype(wide)
    if x.size == 0:
        return x, start
    arguments = x, recurrence_gate, input_gate, a_param.astype(wide), start, reset, valid
    how = {"c": c, "implementation": implementation, "interpret": interpret}
    if (mesh := mesh_in_effect()) is not None:
        return gated_rg_lru_over_mesh(mesh, *arguments, **how)
    return FORWARD(*arguments, **how)
