"""`lax.scan` over time as one Pallas Triton kernel: each array is read once and written once, in its own dtype.

grid      (batch, channel blocks); a program runs through all of time.
threads   one a channel, or two channels of 16 bits where the width is even, so that a load is 32 bits wide.
state     float32, in registers; nothing is shared between threads.

What hides the latency of memory is the number of loads in flight: the rows of a group of steps are all loaded before
the first of them is used. The steps that whole groups leave over are a group of their own, and the channels that
whole blocks leave over are masked: no array is padded or copied. `reverse` counts rows from the other end.

Threads are batch * width, or half of it for 16 bits. An H100 wants about 2.3 MB in flight (3.35 TB/s, 0.7 us): 10,000
threads. With fewer, splitting time would help; that is not done.

Newer JAX (0.12) says that Pallas will drop Triton. Mosaic GPU, in its place, has nothing for an A100.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from griffin_kernels.operation import array_like

LOADS = 48
"""That a thread waits for at once; `experiments/gpu_kernels` has what more and fewer would do."""

STEPS_INTERPRETED = 2
"""Steps of a group: few, so that short arrays have whole groups and a rest, and programs compile quickly."""


def gpu_scan(
    step: Callable[..., tuple[Any, Any]],
    start: Any,
    now: Any,
    *,
    ahead: tuple[tuple[Any, Any], ...] = (),
    constants: Any = (),
    flags: Any = None,
    outputs: Any,
    reverse: bool,
    name: str,
    interpret: Any = False,
) -> tuple[Any, Any]:
    """Runs `state, out[t] = step(state, now[t], ahead[t + 1], constants, flags[t])` over all steps.

    Args:
      step: Takes and returns PyTrees of float32 arrays of some channels; flags[t] is an int32 scalar.
      start: The state before the first step, a PyTree of float32 `[*batch, width]`.
      now: PyTree of `[*batch, seq_len, width]`.
      ahead: Pairs of a PyTree like `now`, of which the step sees the next step, and one like `start` that the last
        step sees.
      constants: PyTree of float32 `[*batch, width]`.
      flags: Integers or bools `[*batch, seq_len]`; or None, and so is what the step gets.
      outputs: PyTree of dtypes: those of the outputs.
      reverse: From the last step to the first.
      name: Of the kernel.
      interpret: See `pallas_call`.

    Returns:
      `(out, state)`: outputs `[*batch, seq_len, width]`, and the state after the last step.
    """
    *leading, seq_len, width = jax.tree.leaves(now)[0].shape
    batch = math.prod(leading)
    sequences, ends = tuple(pair[0] for pair in ahead), tuple(pair[1] for pair in ahead)
    read = jax.tree.leaves((now, sequences))
    blocks = Blocks(width, min(z.dtype.itemsize for z in read))
    steps = STEPS_INTERPRETED if interpret else LOADS // len(read)
    # The last group has from one step to all: the step that sees an end is in it.
    groups = (seq_len - 1) // steps

    def kernel(start, now, sequences, ends, constants, flags, out, last):
        mask = blocks.mask()
        fixed = _load(constants, mask)

        def row(i):
            # The interpreter wants no Python int.
            return jnp.int32(seq_len - 1 - i if reverse else i)

        def group(first, steps, state, end=None):
            rows = [row(first + i) for i in range(steps)]
            inputs = [_load(now, mask, t) for t in rows]
            seen = [_load(sequences, mask, row(first + i + 1)) for i in range(steps - (end is not None))]
            seen += [] if end is None else [end]
            marks = [None if flags is None else flags[t].astype(jnp.int32) for t in rows]
            for t, *given, mark in zip(rows, inputs, seen, marks, strict=True):
                state, y = step(state, *given, fixed, mark)
                _store(out, y, mask, t)
            return state

        state = _load(start, mask)
        if groups:
            state = jax.lax.fori_loop(0, groups, lambda i, state: group(i * steps, steps, state), state)
        done = groups * steps
        _store(last, group(done, seq_len - done, state, end=_load(ends, mask)), mask)

    def each(spec, tree):
        return jax.tree.map(lambda _: spec, tree)

    rows_spec = pl.BlockSpec((None, seq_len, blocks.channels), lambda b, c: (b, 0, c))
    state_spec = pl.BlockSpec((None, blocks.channels), lambda b, c: (b, c))
    kernel.__name__ = name  # what Triton calls it
    out, last = pl.pallas_call(
        kernel,
        grid=(batch, blocks.count),
        in_specs=(
            each(state_spec, start),
            each(rows_spec, now),
            each(rows_spec, sequences),
            each(state_spec, ends),
            each(state_spec, constants),
            each(pl.BlockSpec((None, seq_len), lambda b, c: (b, 0)), flags),
        ),
        out_specs=(each(rows_spec, outputs), each(state_spec, start)),
        out_shape=(
            jax.tree.map(lambda dtype: array_like(start, (batch, seq_len, width), dtype), outputs),
            jax.tree.map(lambda z: array_like(start, (batch, width), z.dtype), start),
        ),
        compiler_params=plgpu.CompilerParams(num_warps=blocks.warps, num_stages=1),
        name=name,
        interpret=interpret,
    )(
        jax.tree.map(lambda z: z.reshape(batch, width), start),
        *jax.tree.map(lambda z: z.reshape(batch, seq_len, width), (now, sequences)),
        *jax.tree.map(lambda z: z.reshape(batch, width), (ends, constants)),
        None if flags is None else flags.reshape(batch, seq_len),
    )
    out, last = jax.tree.map(lambda z: z.reshape(*leading, *z.shape[1:]), (out, last))
    return out, last


class Blocks:
    """How channels are cut into the blocks of the programs."""

    def __init__(self, width: int, itemsize: int):
        """Plans for arrays whose narrowest dtype takes `itemsize` bytes."""
        # Rows of an odd width lie at odd addresses, where two channels of 16 bits are no 32-bit word.
        a_thread = 2 if itemsize == 2 and width % 2 == 0 else 1
        self.width = width
        self.channels = min(64 * a_thread, pl.next_power_of_2(width))
        self.count = pl.cdiv(width, self.channels)
        self.warps = max(1, self.channels // (32 * a_thread))

    def mask(self):
        """Which of the program's channels the arrays have; None if all."""
        if self.width % self.channels == 0:
            return None
        return pl.program_id(1) * self.channels + jnp.arange(self.channels) < self.width


def _load(refs, mask, row=None):
    """The program's channels in float32, of one row or of a state."""

    def one(ref):
        return plgpu.load(ref if row is None else ref.at[row], mask=mask).astype(jnp.float32)

    return jax.tree.map(one, refs)


def _store(refs, values, mask, row=None):
    """Writes the program's channels, in the dtype of the array."""

    def one(ref, value):
        plgpu.store(ref if row is None else ref.at[row], value.astype(ref.dtype), mask=mask)

    jax.tree.map(one, refs, values)
