"""Mistakes in the TPU kernels, judged in the Pallas interpreter."""

from functools import partial

from .mutation import Mutant

_walk = partial(Mutant, module="griffin_kernels.tpu_scan", scan="pallas_tpu")
_kernel = partial(Mutant, module="griffin_kernels.linear_scan.pallas_tpu", scan="pallas_tpu")
_step = partial(Mutant, module="griffin_kernels.linear_scan.steps", scan="pallas_tpu")

MUTANTS = (
    _walk(
        name="tpu-rows-of-a-tile-always-forwards",
        law="reverse",
        old="list(range(STEPS))[:: -1 if self.reverse else 1]",
        new="list(range(STEPS))",
        why="tiles run backwards, and the steps within one do not",
    ),
    _walk(
        name="tpu-looks-ahead-into-the-tile-behind",
        law="adjoint",
        old="tile - 1 if plan.reverse else tile + 1",
        new="tile + 1 if plan.reverse else tile - 1",
        why="at the end of a tile the adjoint reads the state of the wrong neighbour",
    ),
    _walk(
        name="tpu-end-is-that-of-the-sequence-only-without-filler",
        law="adjoint",
        old="fill(z, end.reshape(batch, 1, width))",
        new="fill(z, 0)",
        why="behind the last step of an odd length stands filler, and not the state that was handed in",
    ),
    _kernel(
        name="tpu-filler-decays-the-state",
        law="oracle",
        old="idle=(_number(x, 0), _number(x, 1))",
        new="idle=(_number(x, 0), _number(x, 0))",
        why="a length is filled up with zeros, decays too, and the last state is read behind them",
    ),
    _step(
        name="tpu-reset-by-a-product",
        law="resets",
        old="jnp.where(flag != 0, 0.0, part)",
        new="part * jnp.where(flag != 0, 0.0, 1.0)",
        why="0 times NaN, with a scalar from scalar memory",
    ),
    _step(
        name="tpu-adjoint-not-reset",
        law="resets",
        old="return _unless(flag, _conj(a) * g), (g, _unless(flag, g * _conj(entering)))",
        new="return _conj(a) * g, (g, _unless(flag, g * _conj(entering)))",
        why="the backward kernel drops the decay's cotangent at a border and carries the state's over it",
    ),
)
