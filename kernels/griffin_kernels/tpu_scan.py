"""`lax.scan` over time as one Pallas TPU kernel: each array is read once and written once.

grid      (batch, channel blocks, time blocks); the last one runs in order, in the running direction.
blocks    [1, tiles, groups * 8, 128] of the tile view (`tpu_tiles.py`), double-buffered by Pallas.
state     float32 [groups, 128] in VMEM scratch between time blocks, in registers within one.
flags     one int32 a step in scalar memory, so that resets cost no vector traffic.

A step is an ordinary function of float32 arrays. It is called for 8 groups of 128 channels at a time, one full
register, and unrolled over the 8 steps of a tile.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from griffin_kernels.operation import array_like
from griffin_kernels.tpu_tiles import LANES, STEPS, from_tiles, load_pair, store_pair, to_tiles

VMEM_BYTES = 14 * 2**20
"""What the blocks of one kernel may take, of the 16 MiB that the compiler gives by default."""

MOST_TILES = 16
"""Tiles a block: enough to hide what a turn of the grid costs; more would only delay the first one."""


class Cost(NamedTuple):
    """Operations an element, for the compiler's schedule: it cannot look into a kernel."""

    flops: int
    transcendentals: int = 0


class Ahead(NamedTuple):
    """A sequence that a step sees one step ahead of itself, in the running direction.

    Attributes:
      sequence: `[*batch, seq_len, width]`.
      end: Float32 `[*batch, width]`: what the last step sees.
    """

    sequence: Any
    end: Any


def tpu_scan(
    step: Callable[..., tuple[Any, Any]],
    start: Any,
    now: Any,
    idle: Any,
    *,
    ahead: tuple[Ahead, ...] = (),
    constants: Any = (),
    flags: Any = None,
    outputs: Any,
    reverse: bool,
    cost: Cost,
    name: str,
    interpret: Any = False,
) -> tuple[Any, Any]:
    """Runs `state, out[t] = step(state, now[t], ahead[t + 1], constants, flags[t])` over all steps.

    Lengths that are a multiple of 8 and widths that are one of 128 cost no copies; others are filled up.

    Args:
      step: Takes and returns PyTrees of float32 arrays of some channels; flags[t] is an int32 scalar.
      start: The state before the first step, a PyTree of float32 `[*batch, width]`.
      now: PyTree of `[*batch, seq_len, width]`, float32 or bfloat16.
      idle: As `now`, but of numbers: a step with these inputs and flag 0 leaves the state as it is.
      ahead: What the step sees of the next step.
      constants: PyTree of float32 `[*batch, width]`.
      flags: Int32 `[*batch, seq_len]` or None, and so is what the step gets.
      outputs: PyTree of dtypes: those of the outputs.
      reverse: From the last step to the first.
      cost: Of one element.
      name: Of the kernel.
      interpret: See `pallas_call`.

    Returns:
      `(out, state)`: outputs `[*batch, seq_len, width]`, and the state after the last step.
    """
    *leading, seq_len, width = jax.tree.leaves(now)[0].shape
    batch = math.prod(leading)
    more_steps, more_channels = -seq_len % STEPS, -width % LANES

    def fill(z, value):
        """`[batch, seq_len, width]` with both filled up."""
        z = z.reshape(batch, seq_len, width)
        if more_steps:
            behind = jnp.broadcast_to(jnp.asarray(value, z.dtype), (batch, 1, width))
            z = jnp.concatenate([z, jnp.repeat(behind, more_steps, axis=1)], axis=1)
        return jnp.pad(z, ((0, 0), (0, 0), (0, more_channels)))

    def widen(z):
        """`[batch, width]` with the width filled up."""
        return jnp.pad(z.reshape(batch, width), ((0, 0), (0, more_channels)))

    if flags is not None:
        flags = jnp.pad(flags.reshape(batch, seq_len), ((0, 0), (0, more_steps)))
    out, last = _whole_tiles(
        step,
        jax.tree.map(widen, start),
        jax.tree.map(fill, now, idle),
        # Behind the end stands the end: in the reverse direction the filler comes between it and the last step.
        tuple(
            _map_ahead(lambda z, end: fill(z, end.reshape(batch, 1, width)), widen, entry) for entry in ahead
        ),
        jax.tree.map(widen, constants),
        flags,
        outputs,
        reverse,
        cost,
        name,
        interpret,
    )
    out = jax.tree.map(lambda z: z[:, :seq_len, :width].reshape(*leading, seq_len, width), out)
    return out, jax.tree.map(lambda z: z[:, :width].reshape(*leading, width), last)


def _map_ahead(on_sequence, on_end, entry: Ahead) -> Ahead:
    return Ahead(jax.tree.map(on_sequence, entry.sequence, entry.end), jax.tree.map(on_end, entry.end))


def _whole_tiles(step, start, now, ahead, constants, flags, outputs, reverse, cost, name, interpret):
    """`tpu_scan` of `[batch, seq_len, width]` that needs no filler."""
    batch, seq_len, width = jax.tree.leaves(now)[0].shape
    sequences, ends = tuple(z.sequence for z in ahead), tuple(z.end for z in ahead)
    moved = [z.dtype.itemsize for z in jax.tree.leaves((now, sequences))]
    moved += [jnp.dtype(dtype).itemsize for dtype in jax.tree.leaves(outputs)]
    fetched_twice = sum(z.dtype.itemsize for z in jax.tree.leaves(sequences))
    plan = Plan.make(seq_len // STEPS, width // LANES, sum(moved), reverse)

    def state(z):
        return z.reshape(batch, plan.channel_blocks, plan.groups, LANES)

    if flags is not None:
        filler = plan.time_blocks * plan.tiles * STEPS - seq_len
        flags = jnp.pad(flags, ((0, 0), (0, filler))).reshape(batch, plan.time_blocks, 1, -1)
    start, ends, constants = (
        jax.tree.map(state, start),
        jax.tree.map(state, ends),
        jax.tree.map(state, constants),
    )
    now, sequences = jax.tree.map(to_tiles, (now, sequences))

    state_spec = pl.BlockSpec((1, 1, plan.groups, LANES), lambda b, c, t: (b, c, 0, 0))
    block = (1, plan.tiles, plan.groups * STEPS, LANES)
    block_spec = pl.BlockSpec(block, lambda b, c, t: (b, plan.time_block(t), c, 0))
    edge_spec = pl.BlockSpec((1, 1, *block[2:]), lambda b, c, t: (b, plan.tile_ahead(t), c, 0))
    flag_spec = pl.BlockSpec(
        (1, 1, 1, plan.tiles * STEPS), lambda b, c, t: (b, plan.time_block(t), 0, 0), memory_space=pltpu.SMEM
    )

    def each(spec, tree):
        return jax.tree.map(lambda _: spec, tree)

    rows = (batch, plan.all_tiles, plan.channel_blocks * plan.groups * STEPS, LANES)
    elements = batch * seq_len * width
    out, last = pl.pallas_call(
        partial(_kernel, step, plan, packed=not interpret),
        grid=(batch, plan.channel_blocks, plan.time_blocks),
        in_specs=(
            each(state_spec, start),
            each(block_spec, now),
            each(block_spec, sequences),
            each(edge_spec, sequences),
            each(state_spec, ends),
            each(state_spec, constants),
            each(flag_spec, flags),
        ),
        out_specs=(each(block_spec, outputs), each(state_spec, start)),
        out_shape=(
            jax.tree.map(lambda dtype: array_like(start, rows, dtype), outputs),
            jax.tree.map(lambda z: array_like(start, z.shape, z.dtype), start),
        ),
        scratch_shapes=jax.tree.map(lambda _: pltpu.VMEM((plan.groups, LANES), jnp.float32), (start, ends)),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=cost.flops * elements,
            transcendentals=cost.transcendentals * elements,
            bytes_accessed=round((sum(moved) + fetched_twice / plan.tiles) * elements),
        ),
        interpret=interpret,
        name=name,
    )(start, now, sequences, sequences, ends, constants, flags)
    return jax.tree.map(from_tiles, out), jax.tree.map(lambda z: z.reshape(batch, width), last)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the arrays are cut, counted in tiles of 8 steps and groups of 128 channels.

    Attributes:
      all_tiles: Of the sequence.
      tiles: Of a block; the last block of the sequence may hold fewer.
      groups: Of a block.
      channel_blocks: How many blocks lie beside each other.
      reverse: Whether time runs backwards.
    """

    all_tiles: int
    tiles: int
    groups: int
    channel_blocks: int
    reverse: bool

    @classmethod
    def make(cls, all_tiles: int, all_groups: int, moved: int, reverse: bool) -> "Plan":
        """Takes all channels at once if two tiles of them fit: then each block is one contiguous copy.

        Args:
          all_tiles: Of the sequence.
          all_groups: Of the width.
          moved: Bytes that one element of all sequences takes.
          reverse: Whether time runs backwards.
        """
        tile_bytes = 2 * moved * STEPS * LANES  # of one group, double-buffered

        def fit(groups):
            return VMEM_BYTES // (tile_bytes * groups)

        groups = max(n for n in range(1, all_groups + 1) if all_groups % n == 0 and (fit(n) >= 2 or n == 1))
        most = min(fit(groups), MOST_TILES, all_tiles)
        # A block that may be cut short costs a branch a tile.
        even = max(n for n in range(1, most + 1) if all_tiles % n == 0)
        tiles = even if 2 * even >= most else most
        return cls(all_tiles, tiles, groups, all_groups // groups, reverse)

    @property
    def time_blocks(self) -> int:
        """How many blocks follow each other."""
        return -(-self.all_tiles // self.tiles)

    def time_block(self, turn):
        """The block of a turn of the grid."""
        return self.time_blocks - 1 - turn if self.reverse else turn

    def tile_ahead(self, turn):
        """The first tile of the next turn's block, in the running direction; at the end any."""
        if self.reverse:
            return jnp.maximum(self.time_block(turn) * self.tiles - 1, 0)
        return jnp.minimum((turn + 1) * self.tiles, self.all_tiles - 1)

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """`(first, groups)` of what is handled at once: one register of 8 groups, fewer at the end."""
        return [(first, min(8, self.groups - first)) for first in range(0, self.groups, 8)]

    @property
    def rows(self) -> list[int]:
        """The steps of a tile in the running direction."""
        return list(range(STEPS))[:: -1 if self.reverse else 1]


def _kernel(
    step, plan, start, now, sequences, edges, ends, constants, flags, out, last, carry, beyond, *, packed
):
    turn = pl.program_id(2)
    is_last = turn == plan.time_blocks - 1
    tiles = jnp.minimum(plan.tiles, plan.all_tiles - plan.time_block(turn) * plan.tiles)

    @pl.when(turn == 0)
    def _():
        _write(carry, jax.tree.map(lambda ref: ref[0, 0], start))

    # What the last step of this block sees ahead: a step of the next block, or what stands behind the end.
    for cut in plan.chunks:
        edge = _Tile(edges, jnp.int32(0), cut, packed).read(plan.rows[0])
        end = jax.tree.map(lambda ref: ref[0, 0, pl.ds(*cut), :], ends)  # noqa: B023
        _write(beyond, jax.tree.map(partial(jnp.where, is_last), end, edge), pl.ds(*cut))

    def run(turn, states):
        tile = tiles - 1 - turn if plan.reverse else turn
        following = jnp.clip(tile - 1 if plan.reverse else tile + 1, 0, tiles - 1)
        marks = [None if flags is None else flags[0, 0, 0, tile * STEPS + row] for row in range(STEPS)]
        chunks = [
            _Chunk(
                _Tile(now, tile, cut, packed),
                _Tile(sequences, tile, cut, packed),
                _Tile(sequences, following, cut, packed),
                _Tile(out, tile, cut, packed),
                _read(beyond, pl.ds(*cut)),
                jax.tree.map(lambda ref: ref[0, 0, pl.ds(*cut), :], constants),  # noqa: B023
            )
            for cut in plan.chunks
        ]
        states = list(states)
        for row, next_row in zip(plan.rows, [*plan.rows[1:], None], strict=True):
            for i, chunk in enumerate(chunks):
                if next_row is None:
                    inside = chunk.following.read(plan.rows[0])
                    seen = jax.tree.map(partial(jnp.where, turn == tiles - 1), chunk.beyond, inside)
                else:
                    seen = chunk.sequences.read(next_row)
                states[i], y = step(states[i], chunk.now.read(row), seen, chunk.constants, marks[row])
                chunk.out.write(row, y)
        return tuple(states)

    def run_inside(turn, states):
        return jax.lax.cond(turn < tiles, run, lambda _, states: states, turn, states)

    # A constant number of turns, because the interpreter cannot run another.
    turns = run_inside if plan.all_tiles % plan.tiles else run
    begin = tuple(_read(carry, pl.ds(*cut)) for cut in plan.chunks)
    for state, cut in zip(jax.lax.fori_loop(0, plan.tiles, turns, begin), plan.chunks, strict=True):
        _write(carry, state, pl.ds(*cut))

    @pl.when(is_last)
    def _():
        jax.tree.map(lambda ref, z: ref.__setitem__((0, 0), z[...]), last, carry)


class _Chunk(NamedTuple):
    """What the steps of one tile read and write, for one register of channels."""

    now: "_Tile"
    sequences: "_Tile"
    following: "_Tile"
    out: "_Tile"
    beyond: Any
    constants: Any


class _Tile:
    """One tile of several arrays, for some groups of channels.

    It is read and written by pairs of steps: registers are few, and a word of bfloat16 holds two.
    """

    def __init__(self, refs, tile, cut, packed):
        self.refs, self.tree = jax.tree.flatten(refs)
        self.place = (tile, *cut)
        self.packed = packed
        self.steps: dict[int, list[Any]] = {}

    def read(self, row):
        """The arrays at one step."""
        if row not in self.steps:
            pairs = [load_pair(ref, self.place, row // 2, packed=self.packed) for ref in self.refs]
            self.steps[row & ~1], self.steps[row | 1] = ([pair[i] for pair in pairs] for i in range(2))
        return jax.tree.unflatten(self.tree, self.steps[row])

    def write(self, row, values):
        """Keeps the outputs of one step, and writes them with those of the other step of its pair."""
        self.steps[row] = jax.tree.leaves(values)
        if row ^ 1 in self.steps:
            for ref, *pair in zip(self.refs, self.steps[row & ~1], self.steps[row | 1], strict=True):
                store_pair(ref, self.place, row // 2, pair, packed=self.packed)


def _read(refs, at):
    return jax.tree.map(lambda ref: ref[at, :], refs)


def _write(refs, values, at: Any = slice(None)):
    for ref, value in zip(jax.tree.leaves(refs), jax.tree.leaves(values), strict=True):
        ref[at, :] = value
