"""Multi-query attention with a ring of cached keys: what local and global attention share."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from griffin_kernels.any_row import any_row
from griffin_kernels.local_attention import cached_attention, local_attention, merge
from griffin_kernels.operation import varying_alike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from griffin_eqx.block import (
    AbstractBlock,
    Dims,
    OptionError,
    SequenceLayout,
    refuse_positions_beyond,
    resolve_layout,
)
from griffin_eqx.nn import Linear, rotate
from griffin_eqx.taps import tap


class AttentionCache(eqx.Module):
    """The keys and values of the last tokens of one document.

    The token at position p lies in slot `p % slots`. `num_held` tokens right before the next one are
    there; whatever else the slots hold belongs to earlier documents and is never seen.
    """

    keys: Float[Array, "slots kv_heads head_dim"]
    values: Float[Array, "slots kv_heads head_dim"]
    num_held: Int[Array, ""]


def check_attention_options(options: Any) -> None:
    """Raises `OptionError` for ranges that local and global attention share."""
    for field in ("head_dim", "kv_heads"):
        if getattr(options, field) < 1:
            raise OptionError(field, f"must be at least 1, got {getattr(options, field)}")
    if not 0 <= options.rope_fraction <= 1:
        raise OptionError("rope_fraction", f"must be between 0 and 1, got {options.rope_fraction}")
    if not options.rope_base > 1:
        raise OptionError("rope_base", f"must be above 1, got {options.rope_base}")


class AbstractAttentionBlock(AbstractBlock):
    """Causal attention with rotary positions; `window_size` None sees the whole document.

    Queries, keys and values have no biases. Scores, softmax and sums are at least float32.
    """

    query: Linear
    key: Linear
    value: Linear
    out: Linear
    window_size: int | None = eqx.field(static=True)
    head_dim: int = eqx.field(static=True)
    rope_fraction: float = eqx.field(static=True)
    rope_base: float = eqx.field(static=True)

    @classmethod
    def init(cls, options: Any, dims: Dims, *, key: PRNGKeyArray) -> "AbstractAttentionBlock":
        """Builds the block; see `AbstractBlock.init`."""
        head_dim, kv_heads = options.head_dim, options.kv_heads
        if dims.num_heads is None and dims.width % head_dim:
            raise OptionError(
                "head_dim",
                f"{head_dim} does not divide width={dims.width}; choose one that does, or set num_heads",
            )
        num_heads = dims.num_heads or dims.width // head_dim
        if num_heads % kv_heads:
            raise OptionError("kv_heads", f"{kv_heads} does not divide {num_heads=}")
        keys = jax.random.split(key, 4)
        attended = num_heads * head_dim
        return cls(
            query=Linear.init(
                dims.width, attended, axes=("width", "num_heads"), dtype=dims.dtype, key=keys[0]
            ),
            key=Linear.init(
                dims.width, kv_heads * head_dim, axes=("width", "kv_heads"), dtype=dims.dtype, key=keys[1]
            ),
            value=Linear.init(
                dims.width, kv_heads * head_dim, axes=("width", "kv_heads"), dtype=dims.dtype, key=keys[2]
            ),
            out=Linear.init(
                attended,
                dims.width,
                axes=("num_heads", "width"),
                bias=dims.biases,
                gain=2 / dims.num_layers,
                dtype=dims.dtype,
                key=keys[3],
            ),
            window_size=getattr(options, "window_size", None),
            head_dim=head_dim,
            rope_fraction=options.rope_fraction if options.rope else 0.0,
            rope_base=options.rope_base,
        )

    def __call__(
        self,
        x: Float[Array, "seq_len width"],
        layout: SequenceLayout | None = None,
        cache: AttentionCache | None = None,
    ) -> tuple[Float[Array, "seq_len width"], AttentionCache | None]:
        """Mixes information over time; see `AbstractBlock.__call__`."""
        padded = layout is not None
        layout = resolve_layout(x.shape[0], layout, cache)
        if padded:
            # Scores of padding could overflow and poison what they are masked out of.
            x = jnp.where(layout.valid[:, None], x, 0)
            layout = SequenceLayout(jnp.where(layout.valid, layout.positions, 0), layout.length)
        seq_len = x.shape[0]
        q, k, v = (
            product(x).reshape(seq_len, -1, self.head_dim) for product in (self.query, self.key, self.value)
        )
        turn = {"fraction": self.rope_fraction, "base": self.rope_base}
        q, k = rotate(q, layout.positions, **turn), rotate(k, layout.positions, **turn)
        if cache is not None and seq_len == 1:
            mixed, cache = self._attend_to_one(q, k, v, layout, cache)
            y = self.out(tap("attended", mixed).reshape(seq_len, -1))
            return self._refuse_outgrown(y, layout, cache), cache
        window_size = self.window_size or max(seq_len, 1)
        lookback = layout.positions
        if self.window_size is not None:
            lookback = jnp.minimum(lookback, self.window_size - 1)
        mixed = local_attention(q, k, v, lookback, window_size=window_size)
        if cache is None or seq_len == 0:
            y = self.out(tap("attended", mixed[0]).reshape(seq_len, -1))
            return y, cache
        earlier = self._attend_to_cache(q, layout, cache)
        y = self.out(tap("attended", merge(mixed, earlier)).reshape(seq_len, -1))
        return self._refuse_outgrown(y, layout, cache), self._store(k, v, layout, cache)

    def _refuse_outgrown(self, y, layout, cache):
        slots = cache.keys.shape[0]
        if slots != self.window_size:  # sized by max_seq_len
            y = refuse_positions_beyond(slots, layout, y)
        return y

    def _attend_to_one(self, q, k, v, layout, cache):
        """One token: it is put into its slot first and is then one of the keys. `(attended, cache)`."""
        slots, position, valid = cache.keys.shape[0], layout.positions[0], layout.length > 0
        slot = position % slots

        def place(stored, fresh):
            # One slot is written where `_store` would write the whole ring anew.
            old = jax.lax.dynamic_slice_in_dim(stored, slot, 1)
            fresh = jnp.where(valid, fresh.astype(stored.dtype), old)
            return jax.lax.dynamic_update_slice_in_dim(stored, fresh, slot, 0)

        held = jnp.minimum(jnp.minimum(jnp.where(position > 0, cache.num_held, 0), position) + 1, slots)
        held = jnp.asarray(jnp.where(valid, held, cache.num_held), cache.num_held.dtype)
        cache = AttentionCache(place(cache.keys, k), place(cache.values, v), held)
        back = jnp.mod(position - jnp.arange(slots), slots)
        visible = (back < held)[None]
        keys, values = cache.keys.astype(q.dtype), cache.values.astype(q.dtype)
        mixed, _ = cached_attention(q, keys, values, visible)
        return mixed, cache

    def _attend_to_cache(self, q, layout, cache):
        """Attention to the tokens before the chunk, for those of its tokens that continue their document."""
        seq_len, slots = q.shape[0], cache.keys.shape[0]
        start = layout.positions[0]
        # A slot's age: 1 for the token right before the chunk. Token t of the chunk looks age + t back.
        age = 1 + jnp.mod(start - 1 - jnp.arange(slots), slots)
        lookback = layout.positions
        if self.window_size is not None:
            lookback = jnp.minimum(lookback, self.window_size - 1)
        back = age[None, :] + jnp.arange(seq_len)[:, None]
        visible = (back <= lookback[:, None]) & (age <= cache.num_held)[None, :]

        def attend():
            return cached_attention(q, cache.keys.astype(q.dtype), cache.values.astype(q.dtype), visible)

        def nothing():
            lse = jnp.full(q.shape[:2], -jnp.inf, np.promote_types(q.dtype, jnp.float32))
            return varying_alike((jnp.zeros_like(q), lse), (q, cache, visible))[0]

        # What the first chunk of a prompt finds, and a fifth of its time to find it out.
        return jax.lax.cond(any_row((cache.num_held > 0) & (start > 0)), attend, nothing)

    def _store(self, k, v, layout, cache):
        """The ring after the chunk: the last tokens of the document that the chunk ends in."""
        seq_len, slots = k.shape[0], cache.keys.shape[0]
        last = jnp.maximum(layout.length - 1, 0)
        position = layout.positions[last]
        # Which token of the chunk belongs into each slot: the newest one whose position fits it.
        back = jnp.mod(position - jnp.arange(slots), slots)
        own = (back <= jnp.minimum(last, position)) & (layout.length > 0)
        token = jnp.clip(last - back, 0, seq_len - 1)
        continued = jnp.where(position >= layout.length, cache.num_held, 0)
        held = jnp.minimum(jnp.minimum(continued + layout.length, position + 1), slots)

        def place(stored, fresh):
            return jnp.where(own[:, None, None], fresh[token].astype(stored.dtype), stored)

        return AttentionCache(
            place(cache.keys, k),
            place(cache.values, v),
            jnp.where(layout.length > 0, held, cache.num_held).astype(cache.num_held.dtype),
        )

    def init_cache(self, max_seq_len: int, dtype: Any) -> AttentionCache:
        """An empty cache of `min(window_size, max_seq_len)` slots."""
        slots = max_seq_len if self.window_size is None else min(self.window_size, max_seq_len)
        shape = (slots, self.key.weight.shape[1] // self.head_dim, self.head_dim)
        return AttentionCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros((), jnp.int32))

    def flops(self, seq_len: int) -> int:
        """Products of the four linears, and of the scores and values over the keys that tokens see."""
        width, attended = self.query.weight.shape
        linears = 2 * width * attended + 2 * width * self.key.weight.shape[1]
        window = min(self.window_size or seq_len, seq_len)
        seen = seq_len * window - window * (window - 1) // 2
        return 2 * seq_len * linears + 4 * attended * seen
