"""Our model in bfloat16, with operations that are float32 here rounded as the two programs round them."""

import contextlib
import dataclasses
from collections.abc import Collection
from types import SimpleNamespace
from unittest import mock

import equinox as eqx
import griffin_plugins._attention
import griffin_plugins.rg_lru
import jax
import jax.numpy as jnp
import numpy as np
import operations
import references
from griffin_kernels.rows import block_matmul

import griffin_eqx as gx
from griffin_eqx.nn import RMSNorm

XP = SimpleNamespace(
    sigmoid=jax.nn.sigmoid, softplus=jax.nn.softplus, exp=jnp.exp, sqrt=jnp.sqrt, where=jnp.where
)

ROUNDED = {
    "DeepMind Flax": ("norms", *operations.RG_LRU, "rotation", "attention", "logits"),
    "Hugging Face": (*operations.RG_LRU, "frequencies", "rotation", "logits"),
}
"""What each program has in bfloat16 and we have in float32; the rest is bfloat16 here as well, or float32 there."""


def forward(model: references.Model, narrow: Collection[str]):
    """`model of ours -> logits`, compiled."""
    tokens = jnp.asarray(references.tokens_of(model))

    @eqx.filter_jit
    def logits(net):
        with _rounding(frozenset(narrow)):
            return net(tokens)[0].astype(jnp.float32)

    def run(net: gx.LanguageModel) -> np.ndarray:
        if "logits" in narrow:
            net = dataclasses.replace(net, policy=dataclasses.replace(net.policy, output=jnp.bfloat16))
        return np.asarray(logits(net))

    return run


@contextlib.contextmanager
def _rounding(narrow):
    def take(operation, *arrays):
        dtype = jnp.bfloat16 if operation in narrow else jnp.float32
        return tuple(z.astype(dtype) for z in arrays)

    def norm(self, x):
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-6)
        return x * inverse * (1 + self.scale)[None]

    def gated_rg_lru(x, recurrence_gate, input_gate, a_param, h0, reset, valid, *, c):
        del valid  # no padding here
        assert h0 is None
        assert c == 8

        def gate(weight, bias):
            return lambda u: block_matmul(u, weight.astype(u.dtype)) + bias.astype(u.dtype).reshape(1, -1)

        gates = gate(*recurrence_gate), gate(*input_gate)
        a, gated = operations.rg_lru(take, XP, x, gates, -a_param, reset[:, None])

        def step(h, inputs):
            h = inputs[0].astype(jnp.float32) * h + inputs[1].astype(jnp.float32)
            return h, h.astype(x.dtype)

        return jax.lax.scan(step, jnp.zeros(x.shape[1]), (a, gated))[::-1]

    def rotate(x, positions, *, fraction, base):
        half = int(x.shape[-1] * fraction) // 2
        frequency = base ** (-jnp.arange(half) / half)
        frequency = frequency.astype(jnp.bfloat16 if "frequencies" in narrow else jnp.float32)
        angle = positions[:, None, None] * frequency.astype(jnp.float32)[None, None]
        first, second, rest = jnp.split(x, (half, 2 * half), -1)
        first, second, sin, cos = take("rotation", first, second, jnp.sin(angle), jnp.cos(angle))
        turned = [first * cos - second * sin, second * cos + first * sin]
        return jnp.concatenate([z.astype(x.dtype) for z in turned] + [rest], -1)

    def local_attention(q, k, v, lookback, *, window_size):
        del window_size  # `lookback` has it
        group = q.shape[1] // k.shape[1]
        k, v = (jnp.repeat(z, group, axis=1) for z in (k, v))
        scores = jnp.einsum("tnh,snh->nts", q, k) * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
        back = jnp.arange(q.shape[0])[:, None] - jnp.arange(q.shape[0])[None]
        scores = jnp.where(((back >= 0) & (back <= lookback[:, None]))[None], scores, -jnp.inf)
        weights = jax.nn.softmax(scores.astype(jnp.float32), -1).astype(q.dtype)
        return jnp.einsum("nts,snh->tnh", weights, v), None

    with contextlib.ExitStack() as stack:

        def patch(*names, **how):
            if not narrow.isdisjoint(names):
                stack.enter_context(mock.patch.object(**how))

        patch("norms", target=RMSNorm, attribute="__call__", new=norm)
        unit, attention = griffin_plugins.rg_lru, griffin_plugins._attention
        patch(*operations.RG_LRU, target=unit, attribute="gated_rg_lru", new=gated_rg_lru)
        patch("rotation", "frequencies", target=attention, attribute="rotate", new=rotate)
        patch("attention", target=attention, attribute="local_attention", new=local_attention)
        yield
