"""Mistakes in the TPU kernels of the units with parameters of their own, judged in the Pallas interpreter."""

from functools import partial

from .mutation import Mutant

_gated = partial(
    Mutant, module="griffin_kernels.gated_rg_lru.pallas_tpu", family="gated_rg_lru", unit="pallas_tpu"
)
_complex = partial(Mutant, module="griffin_kernels.cg_lru.pallas_tpu", family="cg_lru", unit="pallas_tpu")

MUTANTS = (
    _gated(
        name="gated-tpu-reset-keeps-the-multiplier",
        law="oracle",
        old="root = jnp.where(flag == RESET, 1.0, root)",
        new="root = jnp.where(flag == RESET, root, root)",
        why="a document's first input is scaled like any other",
    ),
    _gated(
        name="gated-tpu-padding-brings-input",
        law="oracle",
        old="jnp.where(flag == SKIP, 1.0, a), jnp.where(flag == SKIP, 0.0, new)",
        new="jnp.where(flag == SKIP, 1.0, a), new",
        why="padding leaves the decay alone and still adds its own input",
    ),
    _gated(
        name="gated-tpu-gates-change-places",
        law="adjoint",
        old="dgates = jnp.concatenate([dr, di], axis=1)",
        new="dgates = jnp.concatenate([di, dr], axis=1)",
        why="the products' cotangents go to the other gate's weights",
    ),
    _gated(
        name="gated-tpu-input-has-no-way-through-the-gates",
        law="adjoint",
        old="behind = _dot(dgates, cuts[group], 1, 1)",
        new="behind = 0 * _dot(dgates, cuts[group], 1, 1)",
        why="x moves the gates as well as what they let in",
    ),
    _gated(
        name="gated-tpu-weights-of-the-last-row",
        law="adjoint",
        old="@pl.when((turn == 0) & (row == 0))",
        new="@pl.when(turn == 0)",
        why="the sum over the rows of a batch begins anew with each row",
    ),
    _gated(
        name="gated-tpu-first-state-forgotten-backward",
        law="adjoint",
        old="before = jnp.where(is_first, h0[0, 0, group : group + 1], before)",
        new="before = jnp.where(is_first, 0 * h0[0, 0, group : group + 1], before)",
        why="the first decay's cotangent is taken as if no state had come in",
    ),
    _complex(
        name="complex-tpu-turns-backwards",
        law="oracle",
        old="return r, a, Planar(a * cos, a * sin)",
        new="return r, a, Planar(a * cos, -a * sin)",
        why="the conjugate of the decay, which values of one sign of theta do not show",
    ),
    _complex(
        name="complex-tpu-phase-without-its-gate",
        law="oracle",
        old="cosine_and_sine(open_gate(r) * turns)",
        new="cosine_and_sine(turns + 0 * open_gate(r))",
        why="the gate slows the decay and not the turning",
    ),
    _complex(
        name="complex-tpu-cotangent-not-conjugated",
        law="adjoint",
        old="passed, used = turned.conj() * g, g",
        new="passed, used = turned * g, g",
        why="backward, the state's cotangent turns the same way as the state did forward",
    ),
    _complex(
        name="complex-tpu-angle-has-no-gradient",
        law="adjoint",
        old="d_angle + d_turned * r)",
        new="d_angle + 0 * d_turned * r)",
        why="theta is not trained",
    ),
    _complex(
        name="complex-tpu-last-cotangent-ignored",
        law="adjoint",
        old="(dh_last, zeros, zeros)",
        new="(jax.tree.map(jnp.zeros_like, dh_last), zeros, zeros)",
        why="the gradient of the final state is not asked for",
    ),
)
