"""Block-diagonal matrices cut for a matrix unit: for each group of 128 outputs the window of inputs that they see.

Blocks need not begin where groups do. With blocks of side 160, `lcm(160, 128) = 640` channels are 4 blocks and 5
groups, and no group sees beyond them: the unit in which everything repeats.
"""

import dataclasses
import math

import jax.numpy as jnp

from griffin_kernels.tpu_tiles import LANES


@dataclasses.dataclass(frozen=True)
class Windows:
    """Where the windows lie, counted in groups of 128 channels.

    Attributes:
      side: Of a diagonal block, in channels.
      period: Groups after which everything repeats.
      size: Of each window.
      starts: The first input group of each output group's window, within a period.
    """

    side: int
    period: int
    size: int
    starts: tuple[int, ...]

    @classmethod
    def of(cls, side: int) -> "Windows":
        """The windows of blocks of a side."""
        period = math.lcm(side, LANES) // LANES
        spans = []
        for group in range(period):
            first, last = group * LANES // side, ((group + 1) * LANES - 1) // side
            spans.append((first * side // LANES, -(-(last + 1) * side // LANES)))
        size = max(end - start for start, end in spans)
        return cls(side, period, size, tuple(min(start, period - size) for start, _ in spans))

    def start(self, group: int) -> int:
        """The first input group of an output group's window."""
        return group // self.period * self.period + self.starts[group % self.period]

    def cut(self, blocks):
        """`[gate_blocks, side, side]` to `[groups, size * 128, 128]`, zero outside of the blocks. It is linear."""
        count = self.period * LANES // self.side
        grouped = blocks.reshape(-1, count, self.side, self.side)
        # The blocks of a period on the diagonal of one matrix.
        rows = [
            jnp.pad(grouped[:, i], ((0, 0), (0, 0), (i * self.side, (count - 1 - i) * self.side)))
            for i in range(count)
        ]
        dense = jnp.concatenate(rows, axis=1)
        windows = [
            dense[:, start * LANES : (start + self.size) * LANES, i * LANES : (i + 1) * LANES]
            for i, start in enumerate(self.starts)
        ]
        return jnp.stack(windows, axis=1).reshape(-1, self.size * LANES, LANES)
