"""The recurrence as Pallas Triton kernels: each array is read or written once, in its own dtype.

One program runs one batch row and a block of channels through all of time; a thread owns one channel (two of 16
bits, so that a load is 32 bits wide) and keeps the state in float32 registers. Nothing is shared between threads.
What hides the latency of memory is the number of loads in flight: the rows of a group of steps are all loaded
before the first of them is used.

- Forward reads x and a and writes h: 3 words an element. Backward reads dh, a and h and writes dx and da: 5.
- The steps that whole groups leave over are a group of their own, and the channels that whole blocks leave over are
  masked: no array is padded or copied. `reverse` counts rows from the other end.
- Threads are batch * width, or half of it for 16 bits. An H100 wants about 2.3 MB in flight (3.35 TB/s, 0.7 us):
  10,000 threads. With fewer, splitting time would help; that is not done.
- Newer JAX (0.12) says that Pallas will drop Triton. Mosaic GPU, in its place, has nothing for an A100.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from griffin_kernels.linear_scan.planar import Planar

_AHEAD = 64
"""Loads of 32 bits that a thread waits for at once: the most without spills, by `experiments/gpu_kernels`."""

_AHEAD_INTERPRETED = 2
"""Steps a group: few, so that short arrays have whole groups and a rest, and programs compile quickly."""


def forward(x, a, h0, reset, *, reverse, interpret: Any = False):
    """`(h, h_last)`; see `linear_scan` for the arguments."""
    grid = _Grid(x, rows=(x, a), reverse=reverse, interpret=interpret)

    def linear_scan_forward(x, a, h0, reset, h, h_last):
        mask = grid.mask()

        def group(start, steps, state):
            at = [grid.row(start + i) for i in range(steps)]
            loaded = [(_load(x, mask, t), _load(a, mask, t), _flag(reset, t)) for t in at]
            for t, (x_t, a_t, reset_t) in zip(at, loaded, strict=True):
                state = _keep(reset_t, a_t * state) + x_t
                _store(h, state, mask, t)
            return state

        state = _load(h0, mask)
        state = jax.lax.fori_loop(0, grid.groups, lambda i, s: group(i * grid.ahead, grid.ahead, s), state)
        _store(h_last, group(grid.groups * grid.ahead, grid.left, state), mask)

    return grid.call(linear_scan_forward, (x, a, h0, reset), like=(x, h0), interpret=interpret)


def backward(dh, dh_last, a, h, h0, reset, *, reverse, interpret: Any = False):
    """The cotangents `(dx, da, dh0)` in one pass from the last step to the first; see `adjoint`."""
    grid = _Grid(dh, rows=(dh, a, h), reverse=not reverse, interpret=interpret)

    def linear_scan_backward(dh, dh_last, a, h, h0, reset, dx, da, dh0):
        mask = grid.mask()

        def group(start, steps, carried, first=None):
            """With `first`, the group ends with the step that this state enters."""
            at = [grid.row(start + i) for i in range(steps)]
            loaded = [(_load(dh, mask, t), _load(a, mask, t), _flag(reset, t)) for t in at]
            entering = [_load(h, mask, grid.row(start + i + 1)) for i in range(steps - (first is not None))]
            entering += [] if first is None else [first]
            for t, h_before, (dh_t, a_t, reset_t) in zip(at, entering, loaded, strict=True):
                dx_t = carried + dh_t
                _store(dx, dx_t, mask, t)
                _store(da, _keep(reset_t, dx_t * _conj(h_before)), mask, t)
                carried = _keep(reset_t, dx_t * _conj(a_t))
            return carried

        carried = _load(dh_last, mask)
        carried = jax.lax.fori_loop(
            0, grid.groups, lambda i, c: group(i * grid.ahead, grid.ahead, c), carried
        )
        carried = group(grid.groups * grid.ahead, grid.left, carried, first=_load(h0, mask))
        _store(dh0, carried, mask)

    return grid.call(
        linear_scan_backward, (dh, dh_last, a, h, h0, reset), like=(dh, a, h0), interpret=interpret
    )


def refuses(*arguments, **options) -> str:
    """Why the kernels cannot compute this, or ""."""
    dtype = jax.tree.leaves(arguments)[0].dtype
    if dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        return ""
    return f"its state is float32, and {dtype} asks for another"


def slower(*arguments, **options) -> str:
    """Why another implementation is faster, or ""."""
    if jax.tree.leaves(arguments)[0].shape[-2] == 1:
        return "a single step is best fused into what stands around it"
    return ""


def _load(ref, mask, row=None):
    """The program's channels in float32, of one row or of a state."""

    def one(ref):
        return plgpu.load(ref if row is None else ref.at[row], mask=mask).astype(jnp.float32)

    return jax.tree.map(one, ref)


def _store(ref, value, mask, row=None):
    """Writes the program's channels, in the dtype of the array."""

    def one(ref, value):
        plgpu.store(ref if row is None else ref.at[row], value.astype(ref.dtype), mask=mask)

    jax.tree.map(one, ref, value)


def _flag(reset, row):
    return None if reset is None else reset[row]


def _keep(reset, tree):
    """The values, or 0 where the step starts a document: by selection, for 0 * NaN is NaN."""
    return tree if reset is None else jax.tree.map(lambda z: jnp.where(reset, 0, z), tree)


def _conj(z):
    return z.conj() if isinstance(z, Planar) else z


class _Grid:
    """How arrays `[*batch, seq_len, width]` are cut into programs, and the steps of a program into groups."""

    def __init__(self, x, *, rows, reverse, interpret):
        """Plans for `x` or a Planar pair of the same.

        Args:
          x: For its shape and dtype.
          rows: What is read at every step.
          reverse: Row 0 of the program is the last one of the array.
          interpret: Whether the interpreter runs it.
        """
        leaf = jax.tree.leaves(x)[0]
        self.shape, self.reverse = leaf.shape, reverse
        self.seq_len, self.width = leaf.shape[-2:]
        self.batch = leaf.size // (self.seq_len * self.width)
        per_thread = 4 // leaf.dtype.itemsize
        self.channels = min(64 * per_thread, pl.next_power_of_2(self.width))
        self.warps = max(1, self.channels // (32 * per_thread))
        self.ahead = _AHEAD_INTERPRETED if interpret else _AHEAD // len(jax.tree.leaves(rows))
        # The last group has from one step to all: the one whose neighbour is the state at the edge is in it.
        self.groups = (self.seq_len - 1) // self.ahead
        self.left = self.seq_len - self.groups * self.ahead

    def row(self, i):
        """Where the program's row `i` is in the array."""
        # The interpreter wants no Python int.
        return jnp.int32(self.seq_len - 1 - i if self.reverse else i)

    def mask(self):
        """Which of the program's channels the array has; None if all."""
        if self.width % self.channels == 0:
            return None
        return pl.program_id(1) * self.channels + jnp.arange(self.channels) < self.width

    def call(self, kernel, arguments, *, like, interpret):
        """Runs the kernel on arrays of rows, states and resets; the outputs are as `like`."""
        flat = lambda z: (self.batch, *z.shape[len(self.shape) - 2 :])  # noqa: E731
        out = pl.pallas_call(
            kernel,
            grid=(self.batch, pl.cdiv(self.width, self.channels)),
            in_specs=jax.tree.map(self._spec, arguments),
            out_specs=jax.tree.map(self._spec, like),
            out_shape=jax.tree.map(lambda z: jax.ShapeDtypeStruct(flat(z), z.dtype), like),
            compiler_params=plgpu.CompilerParams(num_warps=self.warps, num_stages=1),
            name=kernel.__name__,
            interpret=interpret,
        )(*jax.tree.map(lambda z: z.reshape(flat(z)), arguments))
        return jax.tree.map(lambda z, like: z.reshape(like.shape), out, like)

    def _spec(self, z):
        """Rows, a state, or resets, by their number of axes."""
        if z.dtype == jnp.bool:
            return pl.BlockSpec((None, self.seq_len), lambda b, c: (b, 0))
        if z.ndim == len(self.shape):
            return pl.BlockSpec((None, self.seq_len, self.channels), lambda b, c: (b, 0, c))
        return pl.BlockSpec((None, self.channels), lambda b, c: (b, c))
