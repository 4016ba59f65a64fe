"""Mistakes in the convolution in front of a recurrence, and in the history that it carries."""

from functools import partial

from .mutation import Mutant

_conv = partial(Mutant, module="griffin_eqx.nn.conv", block="rg_lru")
_window = partial(Mutant, module="griffin_kernels.causal_conv.xla", block="rg_lru")

_MASKED = "jnp.where((positions >= k)[:, None], weight[k : k + 1] * earlier, 0)"
_BEFORE = "before = history.astype(x.dtype)"
_NEXT = "self._next_history(jnp.concatenate([before, x]), layout, history.dtype)"
_RECENT = "jax.lax.dynamic_slice_in_dim(extended, layout.length, conv_history)"

MUTANTS = (
    _window(
        name="conv-crosses-borders",
        law="packing",
        old=_MASKED,
        new="weight[k : k + 1] * earlier",
        traps=(7, 10, 11),
        why="positions restart and the state is reset, but the window still shows what stood to the left",
    ),
    _window(
        name="conv-crosses-borders-by-one",
        law="packing",
        old="(positions >= k)[:, None]",
        new="(positions >= k - 1)[:, None]",
        traps=(10,),
        why="the mask of the window is one token too wide",
    ),
    _window(
        name="conv-history-crosses-borders",
        law="packing",
        old="(positions >= k)[:, None]",
        new="((positions >= k) | (jnp.arange(seq_len) < k))[:, None]",
        traps=(8, 9),
        why="borders are masked within a chunk; what the cache holds is seen by whatever document comes next",
    ),
    _window(
        name="conv-single-token-sees-last-request",
        law="packing",
        old="(positions >= k)[:, None]",
        new="((positions >= k) | (seq_len == 1))[:, None]",
        traps=(14, 29),
        why="a prompt of one token finds the window of the request before it",
    ),
    _conv(
        name="conv-zeroed-by-chunked-prefill",
        law="streaming",
        old=_BEFORE,
        new="before = (0 if x.shape[0] > 1 else 1) * history.astype(x.dtype)",
        traps=(6,),
        why="more than one token means prefill, and prefill begins with zeros",
    ),
    _conv(
        name="conv-takes-one-token-with-a-cache",
        law="streaming",
        old="y = causal_conv(x, self",
        new="y = causal_conv(jnp.broadcast_to(x[:1], x.shape), self",
        traps=(4,),
        why="with a cache the chunk is taken for one token, and a chunk of several uses its first one's input",
    ),
    _conv(
        name="conv-history-keeps-padding",
        law=("padding", "streaming"),
        old=_RECENT,
        new="jax.lax.dynamic_slice_in_dim(extended, layout.positions.shape[0], conv_history)",
        traps=(8,),
        why="the last rows of the chunk are cached, padding or not",
    ),
    _conv(
        name="conv-history-of-a-short-chunk",
        law="streaming",
        old=_RECENT,
        new="jax.lax.dynamic_slice_in_dim(extended, jnp.maximum(layout.length, conv_history), conv_history)",
        traps=(23,),
        why="a prompt shorter than the window is not thought of",
    ),
    _conv(
        name="conv-history-one-early",
        law="streaming",
        old=_RECENT,
        new="jax.lax.dynamic_slice_in_dim(extended, layout.length - 1, conv_history)",
        why="the history stops before the last token",
    ),
    _conv(
        name="conv-history-replaced-by-the-chunk",
        law="streaming",
        old=_NEXT,
        new="self._next_history(jnp.concatenate([0 * before, x]), layout, history.dtype)",
        traps=(5,),
        why="a chunk shorter than the window throws away what was cached before it",
    ),
    _conv(
        name="conv-history-written-after-the-conv",
        law="streaming",
        old=_NEXT,
        new="self._next_history(jnp.concatenate([before, y]), layout, history.dtype)",
        traps=(22,),
        why="outputs instead of inputs go into the history",
    ),
    _conv(
        name="conv-history-of-another-width",
        law="streaming",
        old="jnp.zeros((self.weight.shape[0] - 1, self.weight.shape[1]), dtype)",
        new="jnp.zeros(self.weight.shape, dtype)",
        traps=(15, 23),
        why="the history is sized by another number than the one it is used with",
    ),
    _conv(
        name="conv-history-in-bfloat16",
        law="streaming",
        old="jnp.zeros((self.weight.shape[0] - 1, self.weight.shape[1]), dtype)",
        new="jnp.zeros((self.weight.shape[0] - 1, self.weight.shape[1]), jnp.bfloat16)",
        why="the cache is narrower than what it is asked to hold",
    ),
    _conv(
        name="conv-history-cleared-by-an-empty-chunk",
        law="streaming",
        old="own = (age <= last) | (layout.length == 0)",
        new="own = age <= last",
        traps=(29,),
        why="a chunk of padding alone asks its first position, which means nothing",
    ),
    _conv(
        name="conv-history-without-gradient",
        law="gradients",
        old=_BEFORE,
        new="before = jax.lax.stop_gradient(history).astype(x.dtype)",
        why="truncated back-propagation drops the convolution's share",
    ),
    _window(
        name="conv-sees-the-next-token",
        law="causal",
        old="y = weight[:1] * x",
        new="y = weight[:1] * jnp.concatenate([x[1:], x[-1:]])",
        why="the padding of a centred convolution in place of a causal one",
    ),
)
