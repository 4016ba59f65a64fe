"""DeepMind's Flax program in bfloat16, with some of its operations in float32.

Its modules promote what they are given, so that an operation in float32 is its own code with wide arguments; where one
method holds several operations, the method is written again here.
"""

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import operations
import references
from flax import linen as nn
from recurrentgemma.jax import layers, modules, scan

XP = SimpleNamespace(
    sigmoid=jax.nn.sigmoid, softplus=jax.nn.softplus, exp=jnp.exp, sqrt=jnp.sqrt, where=jnp.where
)
WHOLE = {
    layers.RMSNorm: "norms",
    nn.Dense: "products",
    layers.Einsum: "products",
    layers.Conv1D: "convolution",
}


def forward(net: Any, model: references.Model, wide: Collection[str] | None):
    """`parameters -> logits`, compiled; the program untouched where `wide` is None."""
    tokens, positions = jnp.asarray(references.tokens_of(model))[None], jnp.arange(model.length)[None]

    def logits(params):
        return net.apply({"params": params}, tokens, positions, None, True, False)[0][0].astype(jnp.float32)

    def rounded(params):
        with nn.intercept_methods(_interceptor(wide or ())):
            return logits(params)

    compiled = jax.jit(logits if wide is None else rounded)
    return lambda params: np.asarray(compiled(params))


def _interceptor(wide: Collection[str]):
    def take(operation, *arrays):
        dtype = jnp.float32 if operation in wide else jnp.bfloat16
        return tuple(z.astype(dtype) for z in arrays)

    def residual_block(m, x, positions, *_):
        mixed, _ = m.temporal_block(m.temporal_pre_norm(x), positions, None, return_cache=False)
        mixed, x = take("residual", mixed, x)
        x = mixed + x
        mixed, x = take("residual", m.mlp(m.channel_pre_norm(x)), x)
        return mixed + x, None

    def recurrent_block(m, x, positions, *_, **__):
        y, x = m.linear_y(x), m.linear_x(x)
        x, _ = m.conv_1d(x=x, segment_pos=positions, cache=None, return_cache=False)
        x, _ = m.lru(x=x, segment_pos=positions, cache=None, return_cache=False)
        x, y = take("GeLU", x, y)
        return m.linear_out(x * jax.nn.gelu(y)), None

    def rg_lru(m, x, segment_pos, **_):
        reset = (segment_pos == 0)[..., None]
        a, x = operations.rg_lru(take, XP, x, (m.a_gate, m.input_gate), m.a_real_param, reset)
        dtype = jnp.promote_types(a.dtype, x.dtype)
        a, x = a.astype(dtype), x.astype(dtype)
        return scan.linear_scan(x=x, a=a, h0=None, scan_type=m.scan_type, sharding_spec=None, unroll=128)

    def mlp(m, x):
        gate, up = take("GeLU", *m.ffw_up(x))
        return m.ffw_down(jax.nn.gelu(gate) * up)

    def attention(m, x, positions, *_, **__):
        q, k, v = (z.reshape(*z.shape[:2], -1, m.head_dim) for z in (m.q(x), m.k(x), m.v(x)))
        q, k = (modules._apply_rope(z, positions) for z in take("rotation", q, k))
        q, k, v = take("attention", q, k, v)
        scores = jnp.einsum("btnh,bsnh->bnts", q, jnp.broadcast_to(k, (*k.shape[:2], q.shape[2], m.head_dim)))
        visible = modules._compute_forward_pass_mask(positions, m.window_size)[:, None]
        scores = jnp.where(visible, scores * m.head_dim**-0.5, modules._MIN_LOGITS_VALUE)
        weights = jax.nn.softmax(scores.astype(jnp.float32), -1).astype(v.dtype)
        mixed = jnp.einsum("bnts,bsh->btnh", weights, v[:, :, 0])
        return m.out(mixed.reshape(*mixed.shape[:2], -1)), None

    def encode(m, tokens):
        (x,) = take("embedding", m.input_embedding_table[(tokens,)])
        return x * jnp.sqrt(m.embed_dim).astype(jnp.bfloat16) if m.scale_by_sqrt_dim else x

    written_again = {
        (modules.ResidualBlock, "__call__"): residual_block,
        (modules.RecurrentBlock, "__call__"): recurrent_block,
        (modules.LocalAttentionBlock, "__call__"): attention,
        (modules.MLPBlock, "__call__"): mlp,
        (modules.Embedder, "encode"): encode,
        (layers.RGLRU, "__call__"): rg_lru,
    }

    def intercept(method, args, kwargs, context):
        key = (type(context.module), context.method_name)
        if key in written_again:
            return written_again[key](context.module, *args, **kwargs)
        whole = "logits" if key == (modules.Embedder, "decode") else WHOLE.get(key[0])
        if whole and key[1] in ("__call__", "decode"):
            (x,) = take(whole, kwargs.pop("x") if "x" in kwargs else args[0])
            return method(x, *args[1:], **kwargs)
        return method(*args, **kwargs)

    return intercept
