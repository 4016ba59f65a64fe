"""The contract of a temporal-mixing block: what it is given, what it hands back, what it says of itself."""

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from griffin_eqx.errors import OptionError as OptionError

CacheGrowth = Literal["constant", "window", "linear"]
Cache = Any
"""A PyTree of arrays of fixed shape, best an `eqx.Module` with annotated fields; None in training."""


@dataclasses.dataclass(frozen=True)
class Dims:
    """The model's sizes, as a block sees them when it is built.

    Attributes:
      width: Channels of the residual stream (paper: D).
      lru_width: Channels of a recurrence (D_RNN) unless the block's own option says otherwise.
      num_layers: Layers of the model; output matrices start with a variance of 2 / num_layers.
      num_heads: Query heads; None means as many as `width / head_dim`.
      biases: Whether linear and conv layers have biases (gate biases always exist, q/k/v never do).
      dtype: Dtype of the parameters.
    """

    width: int
    lru_width: int
    num_layers: int
    num_heads: int | None = None
    biases: bool = False
    dtype: Any = np.float32


class SequenceLayout(eqx.Module):
    """Where each token of a chunk stands in its document, and how many tokens there are.

    A token may look back at most `positions[t]` tokens, whatever lies further left: this one array carries
    packing, resets and streaming.

    Attributes:
      positions: How many tokens of its own document stand before each token. Goes on counting when a
        later chunk continues a document; arbitrary at padding.
      length: Number of tokens in this chunk; padding follows them.
    """

    positions: Int[Array, " seq_len"]
    length: Int[Array, ""]

    @classmethod
    def single(cls, seq_len: int) -> "SequenceLayout":
        """One document from its first token on, without padding."""
        return cls(jnp.arange(seq_len, dtype=jnp.int32), jnp.asarray(seq_len, jnp.int32))

    @property
    def valid(self) -> Bool[Array, " seq_len"]:
        """True at tokens, False at padding."""
        return jnp.arange(self.positions.shape[0]) < self.length

    @property
    def reset(self) -> Bool[Array, " seq_len"]:
        """True where a token starts a document; False at padding."""
        return (self.positions == 0) & self.valid


class AbstractBlock(eqx.Module):
    """A temporal-mixing block: the only part of a layer where tokens meet.

    It acts on ONE sequence; batches are `jax.vmap`. One signature serves training, prefill, chunked prefill
    and decoding. The laws that every block keeps (`griffin_eqx.verify`):

    * causal: the future never changes the past;
    * streaming: any split into chunks, the cache handed on, gives the same outputs and an equal cache;
    * packing: documents in one row behave as if alone;
    * padding: what follows the first `length` tokens changes no valid output, no cache and no gradient;
    * bounded cache: its size grows as `cache_growth` says.

    A block computes in the dtype of `x` (the shared layers of `griffin_eqx.nn` cast their weights to it)
    and answers in it; a recurrent state and its decay live in `promote_types(dtype, float32)`.

    Class attributes:
      name: The name in patterns.
      aliases: Shorter names.
      summary: One line for `griffin blocks`.
      source: Paper and section, or wherever the idea is from.
      Options: A frozen dataclass of ints, floats, bools and words, every field with a default. Its
        `__post_init__` raises `OptionError(field, message)` for values out of range.
      cache_growth: `constant`, `window` or `linear` in the longest document.
      not_applicable: Laws that cannot apply to this block, each with the reason.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    Options: ClassVar[type]
    cache_growth: ClassVar[CacheGrowth]
    not_applicable: ClassVar[Mapping[str, str]] = {}

    @classmethod
    @abstractmethod
    def init(cls, options: Any, dims: Dims, *, key: PRNGKeyArray) -> "AbstractBlock":
        """Builds the block with fresh parameters.

        Args:
          options: An instance of `cls.Options`.
          dims: The model's sizes.
          key: A JAX random key.

        Raises:
          OptionError: If an option does not fit the model's sizes.
        """

    @abstractmethod
    def __call__(
        self,
        x: Float[Array, "seq_len width"],
        layout: SequenceLayout | None = None,
        cache: Cache | None = None,
    ) -> tuple[Float[Array, "seq_len width"], Cache | None]:
        """Mixes information over time.

        Args:
          x: One row a token, normalised by the residual block; finite also at padding.
          layout: Positions and length; one unpadded document when both it and the cache are None.
          cache: None (training), or what `init_cache` or the last call returned.

        Returns:
          `(y, cache)`: `y` like `x` (unspecified at padding); None for a cache of None.

        Raises:
          ValueError: If a cache comes without a layout.
        """

    @abstractmethod
    def init_cache(self, max_seq_len: int, dtype: Any) -> Cache:
        """An empty cache for documents of up to `max_seq_len` tokens, in compute dtype `dtype`."""

    @abstractmethod
    def flops(self, seq_len: int) -> int:
        """Floating-point operations of one forward pass over one sequence; a multiply-add is 2."""


def resolve_layout(seq_len: int, layout: SequenceLayout | None, cache: Cache | None) -> SequenceLayout:
    """The layout a block works with: the default where it may be left out.

    Raises:
      ValueError: If a cache comes without a layout, or the layout is for another length.
    """
    if layout is None:
        if cache is not None:
            raise ValueError(
                "A block that is given a cache needs a layout too: positions cannot be guessed. "
                "Pass SequenceLayout(positions, length); positions go on counting from the last chunk."
            )
        return SequenceLayout.single(seq_len)
    if layout.positions.shape[0] != seq_len:
        raise ValueError(f"The layout is for {layout.positions.shape[0]} tokens and x has {seq_len}.")
    return layout


def refuse_positions_beyond(
    max_seq_len: int, layout: SequenceLayout, y: Float[Array, "seq_len width"]
) -> Float[Array, "seq_len width"]:
    """Never lets a document outgrow a cache that `max_seq_len` sizes.

    Raises:
      ValueError: If a position is too large and known now. Where it is traced, the outputs from that
        token on are NaN instead.
    """
    too_far = layout.valid & (layout.positions >= max_seq_len)
    if not isinstance(too_far, Tracer) and bool(too_far.any()):
        raise ValueError(
            f"This cache holds documents of up to {max_seq_len} tokens; a token stands at position "
            f"{int(jnp.where(layout.valid, layout.positions, 0).max())}. Build it with a larger max_seq_len."
        )
    return jnp.where(too_far[:, None], jnp.nan, y)
