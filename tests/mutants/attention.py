"""Mistakes in attention: windows, the ring of cached keys, rotation, the merge of two softmaxes."""

from functools import partial

from .mutation import Mutant

_local = partial(Mutant, module="griffin_plugins._attention", block="local_mqa")
_global = partial(Mutant, module="griffin_plugins._attention", block="global_mqa")
_api = partial(Mutant, module="griffin_kernels.local_attention.api", block="local_mqa")
_xla = partial(Mutant, module="griffin_kernels.local_attention.xla", block="local_mqa")
_rope = partial(Mutant, module="griffin_eqx.nn.rope", block="local_mqa")

_PREFILL_WINDOW = "lookback = jnp.minimum(lookback, self.window_size - 1)\n        mixed"
_SEEN = "(back <= lookback[:, None])"
_ROTATED = "rotate(q, layout.positions, **turn), rotate(k, layout.positions, **turn)"
_REFUSE = "y = refuse_positions_beyond(slots, layout, y)"

MUTANTS = (
    _local(
        name="window-one-too-wide-in-decoding",
        law="streaming",
        old=_SEEN,
        new="(back <= jnp.minimum(layout.positions, self.window_size or slots)[:, None])",
        traps=(1, 2),
        why="W keys in one pass and W + 1 from the cache",
    ),
    _local(
        name="window-one-too-narrow-in-prefill",
        law="streaming",
        old=_PREFILL_WINDOW,
        new="lookback = jnp.minimum(lookback, max(self.window_size - 2, 0))\n        mixed",
        traps=(2,),
        why="one flag, two windows by path",
    ),
    _local(
        name="window-lost-in-prefill",
        law="streaming",
        old=_PREFILL_WINDOW,
        new="window_size, lookback = max(seq_len, 1), layout.positions\n        mixed",
        traps=(3,),
        why="a negative bound means no bound to the kernel, and sliding attention is global",
    ),
    _local(
        name="window-grows-by-the-chunk",
        law="streaming",
        old="back = age[None, :] + jnp.arange(seq_len)[:, None]",
        new="back = age[None, :] + jnp.zeros_like(q[:, 0, 0], dtype=int)[:, None]",
        why="every token of a chunk sees as much of the cache as its first one",
    ),
    _local(
        name="slot-ages-one-off",
        law="streaming",
        old="jnp.mod(start - 1 - jnp.arange(slots), slots)",
        new="jnp.mod(start - jnp.arange(slots), slots)",
        why="the ring is read from one slot too far",
    ),
    _local(
        name="ring-replaced-by-the-chunk",
        law="streaming",
        old="fresh[token].astype(stored.dtype), stored)",
        new="fresh[token].astype(stored.dtype), 0)",
        traps=(5,),
        why="the chunk's keys take the place of all cached ones; the chunk itself comes out right",
    ),
    _local(
        name="ring-not-cleared-at-a-border",
        law="packing",
        old=_SEEN,
        new="(back < (self.window_size or slots))",
        traps=(9,),
        why="the mask of the cache knows slots, and nothing of documents",
    ),
    _local(
        name="ring-keeps-padding",
        law="streaming",
        old="last = jnp.maximum(layout.length - 1, 0)",
        new="last = jnp.asarray(seq_len - 1)",
        traps=(8,),
        why="the last rows of the chunk are cached, padding or not",
    ),
    _local(
        name="ring-written-by-an-empty-chunk",
        law="streaming",
        old=" & (layout.length > 0)\n        token",
        new="\n        token",
        traps=(29,),
        why="a chunk of padding alone leaves a key of padding",
    ),
    _local(
        name="ring-forgotten-by-an-empty-chunk",
        law="streaming",
        old="jnp.where(layout.length > 0, held, cache.num_held)",
        new="held",
        traps=(29,),
        why="the count of keys is taken from the position of padding",
    ),
    _local(
        name="ring-counts-padding",
        law="streaming",
        old="continued + layout.length, position + 1",
        new="continued + seq_len, position + 1",
        traps=(32,),
        why="the count in the cache advances by the size of the chunk and not by its tokens",
    ),
    _local(
        name="ring-shows-empty-slots",
        law="streaming",
        old=" & (age <= cache.num_held)[None, :]",
        new="",
        why="slots that were never filled have a weight when positions do not start at 0",
    ),
    _local(
        name="ring-as-long-as-the-document",
        law="bounded_cache",
        old="max_seq_len if self.window_size is None else min(self.window_size, max_seq_len)",
        new="max_seq_len",
        why="a window that saves no memory",
    ),
    _local(
        name="ring-counts-in-another-dtype",
        law="transforms",
        old=".astype(cache.num_held.dtype)",
        new=".astype(k.dtype)",
        why="the cache comes out in another form than it went in, and every call compiles again",
    ),
    _local(
        name="shortened-ring-never-refuses",
        law="bounded_cache",
        options={"window_size": 8},
        old="if slots != self.window_size:",
        new="if self.window_size is None:",
        why="a ring shorter than its window overwrites keys that are still to be seen",
    ),
    _local(
        name="single-token-without-cache",
        law="streaming",
        old="if cache is None or seq_len == 0:",
        new="if cache is None or seq_len <= 1:",
        traps=(29,),
        why="one token goes a path of its own",
    ),
    _local(
        name="huge-padding-poisons-scores",
        law="padding",
        old="x = jnp.where(layout.valid[:, None], x, 0)",
        new="pass",
        why="infinite scores of padding are masked, and still NaN in the derivative",
    ),
    _local(
        name="rotation-restarts-in-every-chunk",
        law="streaming",
        old=_ROTATED,
        new="(rotate(z, layout.positions - layout.positions[:1], **turn) for z in (q, k))",
        why="the second chunk counts from 0 again",
    ),
    _local(
        name="rotation-counts-the-row",
        law="packing",
        old=_ROTATED,
        new="(rotate(z, layout.positions[:1] + jnp.arange(seq_len), **turn) for z in (q, k))",
        why="rotation goes on counting through a border; the next chunk counts in the document",
    ),
    _local(
        name="queries-not-rotated-from-the-cache",
        law="streaming",
        old="self._attend_to_cache(q, layout, cache)\n        y",
        new="self._attend_to_cache(rotate(q, -layout.positions, **turn), layout, cache)\n        y",
        why="keys are cached rotated, queries meet them as they were",
    ),
    _rope(
        name="rotation-by-a-global-counter",
        law="streaming",
        old="angle = positions.astype(wide)[:, None, None]",
        new='globals()["_seen"] = seen = globals().get("_seen", 0) + x.shape[0]\n'
        "    angle = (positions + seen).astype(wide)[:, None, None]",
        traps=(14, 32),
        why="one counter for all: keys see it after the queries have moved it on",
    ),
    _rope(
        name="rotation-table-of-the-first-call",
        law="transforms",
        old="sin, cos = jnp.sin(angle), jnp.cos(angle)\n",
        new="sin, cos = jnp.sin(angle), jnp.cos(angle)\n"
        "    import jax\n"
        "    if not isinstance(angle, jax.core.Tracer):\n"
        '        sin, cos = globals().setdefault("_tables", {}).setdefault(angle.shape, (sin, cos))\n',
        traps=(14,),
        why="what one call has left behind decides about the next",
    ),
    _rope(
        name="rotation-in-bfloat16",
        law="precision",
        old="wide = np.promote_types(x.dtype, jnp.float32)",
        new="wide = x.dtype",
        why="bfloat16 has no room for the angle of a late token",
    ),
    _global(
        name="too-long-documents-silently-wrong",
        law="bounded_cache",
        old=_REFUSE,
        new="pass",
        why="the ring goes round in a document that it was not made for",
    ),
    _global(
        name="too-long-documents-refused-one-token-late",
        law="bounded_cache",
        old=_REFUSE,
        new="y = refuse_positions_beyond(slots + 1, layout, y)",
        why="positions count from 0, lengths from 1",
    ),
    _global(
        name="all-documents-count-against-the-bound",
        law="bounded_cache",
        old=_REFUSE,
        new="y = refuse_positions_beyond(slots, SequenceLayout(jnp.arange(seq_len), layout.length), y)",
        why="a row of short documents is refused as if it were a long one",
    ),
    _global(
        name="growth-not-declared",
        law="bounded_cache",
        module="griffin_plugins.global_mqa",
        old='cache_growth: ClassVar[CacheGrowth] = "linear"',
        new='cache_growth: ClassVar[CacheGrowth] = "constant"',
        why="a cache is planned for that grows with the document",
    ),
    _api(
        name="merge-of-equal-halves",
        law="streaming",
        old="jax.nn.sigmoid(jnp.where(none, 0, lse_2) - lse_1)",
        new="0.5 * jnp.ones_like(lse_1)",
        why="two softmaxes are joined without their denominators",
    ),
    _api(
        name="merge-with-nothing",
        law="streaming",
        old="lse = jnp.where(some, top + jnp.log(safe), -jnp.inf)",
        new="lse = top + jnp.log(safe)",
        why="a query that sees no cached key gives weight to none of them all the same",
    ),
    _api(
        name="division-by-no-weight",
        law="streaming",
        old="some = total > 0",
        new="some = total >= 0",
        why="a row without visible keys is 0 / 0",
    ),
    _api(
        name="cached-scores-not-scaled",
        law="streaming",
        old="preferred_element_type=wide) * head_dim**-0.5",
        new="preferred_element_type=wide)",
        why="the scale of the scores is in one path and not in the other",
    ),
    _api(
        name="cached-heads-in-another-order",
        law="streaming",
        options={"kv_heads": 2},
        old="q.reshape(seq_len, k.shape[1], -1, head_dim)",
        new="q.reshape(seq_len, -1, k.shape[1], head_dim).swapaxes(1, 2)",
        why="query heads are dealt out to key heads in turn from the cache, and in groups otherwise",
    ),
    _xla(
        name="attention-sees-the-next-token",
        law="causal",
        old="visible = (back >= 0)",
        new="visible = (back >= -1)",
        why="the diagonal of the mask is one off",
    ),
    _xla(
        name="attention-mask-without-documents",
        law="packing",
        old="visible = (back >= 0) & (back <= lookback_i[:, None])",
        new="visible = (back >= 0) & (lookback_i[:, None] >= 0)",
        traps=(10,),
        why="a causal mask, with nothing of documents in it",
    ),
    _xla(
        name="attention-backward-without-mask",
        law="causal",
        old="weight = jnp.where(visible, jnp.exp(score - lse_b[i]), 0)",
        new="weight = jnp.exp(score - lse_b[i])",
        why="the backward pass computes the weights again and forgets what is not visible",
    ),
    _xla(
        name="attention-backward-without-lse",
        law="gradients",
        old="(dout.astype(lse.dtype) * out.astype(lse.dtype)).sum(-1) - dlse",
        new="(dout.astype(lse.dtype) * out.astype(lse.dtype)).sum(-1)",
        why="the cotangent of the denominators is dropped, and only merged results have one",
    ),
    _xla(
        name="attention-backward-without-scale",
        law="gradients",
        old="dscore = jnp.where(visible, weight * (dweight - pull_b[i]), 0) * scale",
        new="dscore = jnp.where(visible, weight * (dweight - pull_b[i]), 0)",
        why="the scale of the scores is missing from their derivative",
    ),
    _xla(
        name="attention-band-too-short",
        law="streaming",
        old="reach = -(-(window_size - 1) // block)",
        new="reach = (window_size - 1) // block",
        traps=(34,),
        why="a window that reaches into the block before is cut off at its edge",
    ),
    _xla(
        name="attention-tail-skipped",
        law="streaming",
        old="for i in range(num_blocks) for j",
        new="for i in range(max(1, num_blocks - 1)) for j",
        traps=(34,),
        why="what is left over behind the last full block is not computed",
    ),
)
