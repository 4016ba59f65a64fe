"""How the TPU kernels of the gated RG-LRU cut their arrays, and what of them fits on the chip."""

import dataclasses
import math

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from griffin_kernels.gated_rg_lru.windows import Windows
from griffin_kernels.rg_lru.flags import SKIP, flags_of
from griffin_kernels.tpu_scan import VMEM_BYTES
from griffin_kernels.tpu_tiles import LANES, STEPS

MOST_TOKENS = 128
"""Of a block: enough to hide what a turn of the grid costs."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Blocks of tokens and of channel groups, 128 channels each.

    Attributes:
      windows: What each group's gates see.
      shape: `[batch, seq_len, width]` of the sequences.
      groups: Of a block: whole periods of the windows.
      tokens: Of a block; sequences are filled up to whole blocks.
      reverse: Whether time runs backwards.
    """

    windows: Windows
    shape: tuple[int, int, int]
    groups: int
    tokens: int
    reverse: bool

    @classmethod
    def make(
        cls, shape: tuple[int, ...], side: int, *, of_group: int, of_token: int, reverse: bool, long: bool
    ) -> "Plan | None":
        """The largest block that fits: as wide or as long as possible.

        The chain of steps costs the same for few channels as for many, and a product over tokens, as that of the
        weights' cotangents, fills the matrix unit only with 128 of them.

        Args:
          shape: `[*batch, seq_len, width]`.
          side: Of a gate's blocks.
          of_group: Bytes on the chip for each group of channels, whatever the tokens.
          of_token: Bytes on the chip for each token of a group.
          reverse: Whether time runs backwards.
          long: Tokens matter more than channels.

        Returns:
          None if nothing fits.
        """
        *leading, seq_len, width = shape
        windows, all_groups = Windows.of(side), width // LANES
        blocks = [n for n in range(windows.period, all_groups + 1, windows.period) if all_groups % n == 0]
        sizes = [(groups, most) for groups in blocks for most in (MOST_TOKENS, MOST_TOKENS // 2)]
        for groups, most in sorted(sizes, key=lambda size: size[::-1] if long else size, reverse=True):
            tokens = _tokens(seq_len, most)
            if groups * (of_group + tokens * of_token) <= VMEM_BYTES:
                return cls(windows, (math.prod(leading), seq_len, width), groups, tokens, reverse)
        return None

    @property
    def grid(self) -> tuple[int, int, int]:
        """Channel blocks, rows, time blocks; the last in the running direction."""
        batch, seq_len, width = self.shape
        return width // LANES // self.groups, batch, -(-seq_len // self.tokens)

    @property
    def filler(self) -> int:
        """Tokens behind the end."""
        return self.grid[2] * self.tokens - self.shape[1]

    @property
    def tiles(self) -> int:
        """Of 8 tokens, in a block."""
        return self.tokens // STEPS

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """`(first, groups)` of what is scanned at once: one register of 8 groups, fewer at the end."""
        return [(first, min(8, self.groups - first)) for first in range(0, self.groups, 8)]

    def filled(self, z):
        """`[*batch, seq_len, width]` as `[batch, all tokens, width]`."""
        z = z.reshape(self.shape)
        return jnp.pad(z, ((0, 0), (0, self.filler), (0, 0))) if self.filler else z

    def emptied(self, z, like):
        """The inverse."""
        return z[:, : self.shape[1]].reshape(like.shape)

    def flags(self, reset, valid):
        """One number a token, in blocks; filler is padding. None where nothing is flagged."""
        batch, seq_len, _ = self.shape
        flags = flags_of(reset, valid)
        if flags is None and self.filler:
            flags = jnp.zeros((batch, seq_len), jnp.int32)
        if flags is None:
            return None
        flags = flags.reshape(batch, seq_len)
        flags = jnp.pad(flags, ((0, 0), (0, self.filler)), constant_values=SKIP)
        return flags.reshape(batch, -1, 1, self.tokens)

    def split(self, z):
        """`[*batch, width]` by groups: `[batch, channel blocks, groups, 128]`."""
        return z.reshape(self.shape[0], -1, self.groups, LANES)

    def block(self, t):
        """The time block of a turn of the grid."""
        return self.grid[2] - 1 - t if self.reverse else t

    @property
    def rows(self):
        """Specification of a sequence's block."""
        return pl.BlockSpec((1, self.tokens, self.groups * LANES), lambda c, b, t: (b, self.block(t), c))

    @property
    def rows_before(self):
        """Of the 8 tokens before a block; before the first one any."""
        size = (1, STEPS, self.groups * LANES)
        return pl.BlockSpec(size, lambda c, b, t: (b, jnp.maximum(self.block(t) * self.tiles - 1, 0), c))

    @property
    def state(self):
        """Of `split` arrays."""
        return pl.BlockSpec((1, 1, self.groups, LANES), lambda c, b, t: (b, c, 0, 0))

    @property
    def marks(self):
        """Of flags, in scalar memory."""
        size = (1, 1, 1, self.tokens)
        return pl.BlockSpec(size, lambda c, b, t: (b, self.block(t), 0, 0), memory_space=pltpu.SMEM)

    def resident(self, z, *, fetched: bool = True):
        """Of `[groups, ...]` that a channel block keeps; fetched ones are not there twice."""
        size = (self.groups, *z.shape[1:])
        mode = pl.Buffered(1) if fetched else None
        return pl.BlockSpec(size, lambda c, b, t: (c,) + (0,) * (len(size) - 1), pipeline_mode=mode)

    @property
    def scratch(self):
        """Float32 of all tokens of a block: 8 steps of a group in 8 rows."""
        return pltpu.VMEM((self.tiles, self.groups * STEPS, LANES), jnp.float32)

    def cost(self, *, moved: int, flops: int, transcendentals: int, products: int) -> pl.CostEstimate:
        """What the compiler plans with.

        Args:
          moved: Bytes.
          flops: Of an element, beside the products.
          transcendentals: Of an element.
          products: How often the windows of both gates are multiplied.
        """
        elements = math.prod(self.shape)
        return pl.CostEstimate(
            flops=(flops + 4 * products * self.windows.size * LANES) * elements,
            transcendentals=transcendentals * elements,
            bytes_accessed=moved,
        )


def _tokens(seq_len: int, most: int) -> int:
    """Whole tiles a block, at most `most`: as few tokens as possible are filled up, in as few blocks as possible."""
    if seq_len <= most:
        return -(-seq_len // STEPS) * STEPS
    return min(range(most, most // 2, -STEPS), key=lambda tokens: -(-seq_len // tokens) * tokens)


def window_bytes(windows: Windows) -> int:
    """Both gates' weights for one group, in float32."""
    return windows.size * LANES * 2 * LANES * jnp.dtype(jnp.float32).itemsize
