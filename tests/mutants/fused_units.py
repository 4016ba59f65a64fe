"""Mistakes in the fused RG-LRU: in its gates, its normaliser, its flags and its derivative, judged in interpreters."""

from functools import partial

from .mutation import Mutant

_tpu = partial(Mutant, module="griffin_kernels.rg_lru.pallas_tpu", unit="pallas_tpu")
_math = partial(Mutant, module="griffin_kernels.rg_lru.tpu_math", unit="pallas_tpu")
_gpu = partial(Mutant, module="griffin_kernels.rg_lru.pallas_gpu", unit="pallas_gpu")
_xla = partial(Mutant, module="griffin_kernels.rg_lru.xla", unit="xla")
_rule = partial(Mutant, module="griffin_kernels.rg_lru.vjp", unit="pallas_gpu")
_flags = partial(Mutant, module="griffin_kernels.rg_lru.flags", unit="pallas_gpu")

_PASSED = "jnp.where(flag == RESET, 0.0, jnp.where(flag == SKIP, g, passed))"

MUTANTS = (
    _tpu(
        name="fused-tpu-normaliser-at-a-reset",
        law="oracle",
        old="jnp.where(flag == RESET, new, a * h + root * new)",
        new="jnp.where(flag == RESET, root * new, a * h + root * new)",
        why="a document's first input is scaled like any other, though no state stands beside it",
    ),
    _tpu(
        name="fused-tpu-filler-decays-the-state",
        law="oracle",
        old="idle=(0, _CLOSED, _CLOSED)",
        new="idle=(0, 0, 0)",
        why="a length is filled up with gates of a half, and the last state is read behind them",
    ),
    _tpu(
        name="fused-tpu-padding-updates-the-state",
        law="padding",
        old="new = jnp.where(flag == SKIP, h, new)",
        new="new = jnp.where(flag == SKIP, a * h, new)",
        why="padding brings no input, and the state decays all the same",
    ),
    _tpu(
        name="fused-tpu-outputs-are-the-state",
        law="state",
        old="return new, new",
        new="new = new.astype(jnp.bfloat16).astype(jnp.float32)\n        return new, new",
        why="the state takes the dtype in which it is stored",
    ),
    _math(
        name="fused-tpu-sign-of-the-decay-cotangent",
        law="adjoint",
        old="2 * a * i * x * slope - entering",
        new="2 * a * i * x * slope + entering",
        why="the decay's two ways into the state, directly and through the root, have opposite signs",
    ),
    _gpu(
        name="fused-gpu-root-by-subtraction",
        law="near_one",
        old="-jnp.expm1(2 * log_a)",
        new="1 - jnp.exp(log_a) * jnp.exp(log_a)",
        why="1 - a * a cancels where a is close to 1",
    ),
    _gpu(
        name="fused-gpu-reset-by-a-product",
        law="resets",
        old="jnp.where(flag == RESET, new, jnp.where(flag == SKIP, h, run))",
        new="jnp.where(flag == SKIP, h, jnp.where(flag == RESET, 0.0, a) * h"
        " + jnp.where(flag == RESET, 1.0, jnp.sqrt(v)) * new)",
        why="0 times NaN lets a NaN cross the border",
    ),
    _gpu(
        name="fused-gpu-input-gate-without-its-derivative",
        law="adjoint",
        old="d_gated * x * i * (1 - i)",
        new="d_gated * x",
        why="the cotangent of the gate is handed out as that of its pre-activation",
    ),
    _gpu(
        name="fused-gpu-recomputed-from-the-other-gate",
        law="adjoint",
        old="i = _sigmoid(input_gate)\n        g = g + dh",
        new="i = _sigmoid(recurrence_gate)\n        g = g + dh",
        why="backward, the input gate is recomputed from the wrong pre-activation",
    ),
    _gpu(
        name="fused-gpu-root-without-slope",
        law="adjoint",
        old="g * a * (entering - 2 * a * i * x * slope)",
        new="g * a * entering",
        why="the decay's cotangent forgets that the normaliser depends on it",
    ),
    _gpu(
        name="fused-gpu-slope-of-a-reset",
        law="resets",
        old="d_log_a = jnp.where(flag != 0, 0.0, d_log_a)",
        new="d_log_a = jnp.where(flag == SKIP, 0.0, d_log_a)",
        why="a NaN before the border comes back by the decay that the reset did not use",
    ),
    _gpu(
        name="fused-gpu-multiplier-of-a-reset-backward",
        law="adjoint",
        old="scale = jnp.where(flag == RESET, 1.0, scale)",
        new="scale = jnp.where(flag == RESET, scale, scale)",
        why="forward the multiplier of a first token is 1, and backward it is not",
    ),
    _gpu(
        name="fused-gpu-cotangent-through-a-reset",
        law="resets",
        old=_PASSED,
        new="jnp.where(flag == SKIP, g, passed)",
        why="h0 gets a gradient from behind a border",
    ),
    _gpu(
        name="fused-gpu-cotangent-stops-at-padding",
        law="padding",
        old=_PASSED,
        new="jnp.where(flag != 0, 0.0, passed)",
        why="what padding hands on forward, it keeps backward",
    ),
    _gpu(
        name="fused-gpu-last-cotangent-ignored",
        law="adjoint",
        old="(dh_last, jnp.zeros_like(dh_last))",
        new="(jnp.zeros_like(dh_last), jnp.zeros_like(dh_last))",
        why="the gradient of the final state is not asked for",
    ),
    _gpu(
        name="fused-gpu-parameter-by-the-wrong-sigmoid",
        law="adjoint",
        old="jax.nn.sigmoid(-a_param",
        new="jax.nn.sigmoid(a_param",
        why="d log(sigmoid(L)) / dL is sigmoid(-L)",
    ),
    _rule(
        name="fused-residual-of-another-start",
        law="adjoint",
        old="(*gates, h, h0, reset, valid)",
        new="(*gates, h, 0 * h0, reset, valid)",
        why="the first step's decay gets its cotangent as if no state had come in",
    ),
    _flags(
        name="fused-padding-resets",
        law="padding",
        old="jnp.where(valid, flags, jnp.int32(SKIP))",
        new="jnp.where(valid | (flags == RESET), flags, jnp.int32(SKIP))",
        why="a reset at a padded position clears the state that is handed on",
    ),
    _xla(
        name="fused-xla-padding-resets",
        law="padding",
        old="return reset if reset is None or valid is None else reset & valid",
        new="return reset",
        why="the same, in the composition",
    ),
)
