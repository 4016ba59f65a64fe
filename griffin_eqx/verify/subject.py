"""A block under test: its random parameters, and the few compiled functions that all laws share."""

import dataclasses
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from griffin_eqx.block import AbstractBlock, Dims, SequenceLayout
from griffin_eqx.verify.strategies import ROW, Chunk

DIMS = Dims(width=16, lru_width=32, num_layers=2, num_heads=4, biases=True)
"""Small sizes, none of them a chunk length, so that axes cannot be taken for one another."""

MAX_SEQ_LEN = 32
"""Documents that caches of the laws hold: positions before a row, the row and a probe."""

PROBE = 8
"""Tokens that continue a cache to see what is in it: more than a short window or convolution."""


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """One class of blocks with options and sizes."""

    Block: type[AbstractBlock]
    options: Any
    dims: Dims = DIMS

    def __str__(self) -> str:
        return self.Block.name

    @cached_property
    def changed(self) -> dict[str, Any]:
        """The options that are not the block's defaults."""
        default = self.Block.Options()
        given = {field.name: getattr(self.options, field.name) for field in dataclasses.fields(self.options)}
        return {name: value for name, value in given.items() if value != getattr(default, name)}

    @property
    def words(self) -> str:
        """The options, as a pattern writes them."""
        return ", ".join(f"{name}={value}" for name, value in self.changed.items()) or "default options"

    @cached_property
    def fresh(self) -> AbstractBlock:
        """The block as `init` leaves it."""
        return self.Block.init(self.options, self.dims, key=jax.random.key(0))

    def block(self, rng: np.random.Generator, *, mild: bool = False) -> AbstractBlock:
        """The block with noise on all parameters: laws hold away from the initial weights too.

        Initial weights hide mistakes: biases are zero, convolutions and output matrices close to it.

        Args:
          rng: Where the noise comes from.
          mild: Keep parameters within the range that they start in: noise of 0.3 of their own size. For laws
            about the size of rounding errors, which a block may amplify anywhere else.
        """

        def noisy(p):
            if not eqx.is_inexact_array(p):
                return p
            p = np.asarray(p)
            own = float(np.sqrt(np.mean(np.square(p, dtype=np.float64)))) if mild and p.any() else 1.0
            return jnp.asarray((p + 0.3 * own * rng.standard_normal(p.shape)).astype(p.dtype))

        return jax.tree.map(noisy, self.fresh)

    def tokens(self, rng: np.random.Generator, count: int) -> Any:
        """Random inputs, float32."""
        return rng.standard_normal((count, self.dims.width)).astype(np.float32)


def empty_cache(block: Any) -> Any:
    """A cache that has seen nothing, in float32."""
    return block.init_cache(MAX_SEQ_LEN, np.float32)


def chunk(
    x: Any, positions: Any, bucket: int, rng: np.random.Generator, padding: float = 0.0
) -> tuple[Any, Any]:
    """Tokens and their positions as a chunk of `bucket`, with anything finite behind them."""
    tokens, width = x.shape
    filler = padding * rng.standard_normal((bucket - tokens, width))
    # Half of the time all 0, as if a document began there.
    anywhere = rng.integers(0, 2) * rng.integers(0, 2 * ROW, bucket - tokens)
    x = np.concatenate([x, filler]).astype(np.float32)
    return jnp.asarray(x), _layout(np.concatenate([positions, anywhere]), tokens)


def _layout(positions, length):
    return SequenceLayout(jnp.asarray(positions, jnp.int32), jnp.asarray(length, jnp.int32))


# Compiled functions hand out NumPy arrays, because slicing JAX arrays would compile once for each length.


@eqx.filter_jit
def _forward(block, x, layout, cache):
    return block(x, layout, cache)


def forward(block: Any, x: Any, layout: Any, cache: Any) -> tuple[Any, Any]:
    """One call of the block: outputs as a NumPy array, and the cache."""
    y, cache = _forward(block, x, layout, cache)
    return np.asarray(y), cache


def stream(
    block: Any,
    x: Any,
    positions: Any,
    chunks: Iterable[Chunk],
    cache: Any,
    rng: np.random.Generator,
    padding: float,
) -> tuple[Any, Any]:
    """All outputs of a row fed in chunks, and the last cache."""
    outputs, start = [np.zeros((0, x.shape[1]), np.float32)], 0
    for part in chunks:
        here = slice(start, start + part.tokens)
        y, cache = forward(block, *chunk(x[here], positions[here], part.bucket, rng, padding), cache)
        outputs.append(y[: part.tokens])
        start += part.tokens
    return np.concatenate(outputs), cache


def next_position(positions: Any) -> int:
    """Where the token after a row stands, if it continues the last document."""
    return int(positions[-1]) + 1 if len(positions) else 0


def probe(block: Any, cache: Any, x: Any, position: int) -> Any:
    """What a cache holds, as the outputs of a continuation see it: two caches are equal when all are."""
    return forward(block, jnp.asarray(x), continuation(position), cache)[0]


def continuation(position: int) -> SequenceLayout:
    """The layout of a probe that starts at `position`."""
    return _layout(position + np.arange(PROBE), PROBE)


def inner(left: Any, right: Any) -> Any:
    """The inner product of two PyTrees over their floating leaves: makes a scalar of outputs and cotangents."""
    left, right = (jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)) for tree in (left, right))
    return sum(jnp.vdot(a, b.astype(a.dtype)) for a, b in zip(left, right, strict=True))


def pullback(block: Any, x: Any, layout: Any, cache: Any, dy: Any, then: Any = None) -> Any:
    """Gradients of `<dy, y>` with respect to `(parameters, x, cache)`, as NumPy arrays.

    With `then = (probe_x, probe_layout, dprobe)` the cache is probed, and `<dprobe, probe>` is added.
    """
    return jax.tree.map(
        np.asarray, _pullback((block, x, cache), layout, *jax.tree.map(jnp.asarray, (dy, then)))
    )


@eqx.filter_jit
@eqx.filter_grad
def _pullback(arguments, layout, dy, then):
    block, x, cache = arguments
    y, cache = block(x, layout, cache)
    if then is None:
        return inner(dy, y)
    probe_x, probe_layout, dprobe = then
    return inner(dy, y) + inner(dprobe, block(probe_x, probe_layout, cache)[0])
