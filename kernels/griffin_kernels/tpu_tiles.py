"""`[batch, seq_len, width]` as a TPU holds it: tiles of 8 steps by 128 channels.

Cut into its tiles and with the 8 steps moved behind the channel groups, such an array has the same bytes as before:
XLA:TPU makes it a bitcast, while any other reshape of the channel axis copies the whole array twice. In
`[batch, seq_len / 8, groups * 8, 128]` the rows of one step are 8 apart, so a strided load brings 8 groups of 128
channels of one step into one full register.

bfloat16 holds two steps in one 32-bit row. There a row of words is loaded, and its halves are taken apart.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

STEPS = 8
LANES = 128


def to_tiles(z):
    """`[batch, seq_len, width]` to `[batch, seq_len / 8, width / 16, 128]`; both must divide."""
    batch, seq_len, width = z.shape
    z = z.reshape(batch, seq_len // STEPS, STEPS, width // LANES, LANES)
    return z.swapaxes(2, 3).reshape(batch, seq_len // STEPS, width // LANES * STEPS, LANES)


def from_tiles(z):
    """The inverse of `to_tiles`."""
    batch, tiles, rows, _ = z.shape
    z = z.reshape(batch, tiles, rows // STEPS, STEPS, LANES).swapaxes(2, 3)
    return z.reshape(batch, tiles * STEPS, rows // STEPS * LANES)


def load_pair(ref, place, pair, *, packed):
    """Two steps of a tile in float32, each `[groups, 128]`.

    Args:
      ref: A block `[1, tiles, rows, 128]` in float32 or bfloat16.
      place: `(tile, first, groups)`: the tile's index in the block, an int32 scalar; the first channel group;
        how many groups.
      pair: Steps `2 * pair` and `2 * pair + 1`.
      packed: Take bfloat16 as words of two steps, as compiled code must; interpreters cannot.
    """
    if ref.dtype == jnp.bfloat16 and packed:
        return halves(ref.bitcast(jnp.uint32)[_rows(place, pair, STEPS // 2)])
    one, two = (ref[_rows(place, 2 * pair + half, STEPS)] for half in range(2))
    return one.astype(jnp.float32), two.astype(jnp.float32)


def store_pair(ref, place, pair, values, *, packed):
    """Writes what `load_pair` reads; values are rounded to the dtype of `ref`, to nearest even."""
    if ref.dtype == jnp.bfloat16 and packed:
        ref.bitcast(jnp.uint32)[_rows(place, pair, STEPS // 2)] = joined(values)
        return
    for half in range(2):
        ref[_rows(place, 2 * pair + half, STEPS)] = values[half].astype(ref.dtype)


def halves(word):
    """The two bfloat16 numbers in a 32-bit word, low half first, as float32: exact, NaN payloads included."""
    low, high = word << 16, word & jnp.uint32(0xFFFF0000)
    return jax.lax.bitcast_convert_type(low, jnp.float32), jax.lax.bitcast_convert_type(high, jnp.float32)


def joined(values):
    """The 32-bit word of two float32 arrays rounded to bfloat16, the first in its low half: what `halves` takes apart.

    Compiled, it is one instruction (`vpack`), which no interpreter runs.
    """
    return pltpu.pack_elementwise(values, packed_dtype=jnp.bfloat16)


def _rows(place, row, stride):
    tile, first, groups = place
    # An int32 scalar in front: the interpreter takes no Python integer beside a strided slice.
    return jnp.int32(0), tile, pl.ds(first * stride + row, groups, stride=stride), slice(None)
