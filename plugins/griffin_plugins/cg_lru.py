"""The recurrent block of Griffin with a complex recurrence (appendix B)."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from griffin_kernels.cg_lru import cg_lru_scan
from griffin_kernels.linear_scan import Planar
from jaxtyping import Array, Float, PRNGKeyArray

from griffin_eqx.block import AbstractBlock, CacheGrowth, Dims, SequenceLayout, resolve_layout
from griffin_eqx.nn import BlockDiagonalLinear, CausalConv1D, Linear, log_decay
from griffin_eqx.sharding import constrain
from griffin_eqx.taps import tap
from griffin_plugins.rg_lru import RecurrentOptions, init_a_param, resolve_widths


class ComplexRecurrentCache(eqx.Module):
    """What the block carries: the inputs the convolution still sees, and the complex state in two parts."""

    conv: Float[Array, "conv_history lru_width"]
    h_re: Float[Array, " lru_half"]
    h_im: Float[Array, " lru_half"]


@dataclasses.dataclass(frozen=True)
class ComplexOptions(RecurrentOptions):
    """Options of the complex block: those of the real one, and the range of the initial phase.

    Attributes:
      max_phase: theta starts uniform on [0, max_phase / c] radians, so that with r = 1 a token turns the
        state by at most max_phase. The paper gives no value; 0.1 pi is that of RecurrentGemma's code.
    """

    max_phase: float = 0.3141592653589793


class CGLRUBlock(AbstractBlock):
    """The recurrent block around a complex-gated linear recurrent unit (Griffin, appendix B).

    The input's two halves are the real and imaginary parts; the gates are real and see all of it:

        a~_t = (sigmoid(Lambda) * exp(i theta)) ** (c * r_t)
        h~_t = a~_t * h~_{t-1} + sqrt(1 - |a~_t|**2) * (i_t * x~_t)
        y_t  = [Re h~_t ; Im h~_t]

    At the first token of a document the multiplier is 1.
    """

    name: ClassVar[str] = "cg_lru"
    aliases: ClassVar[tuple[str, ...]] = ("C",)
    summary: ClassVar[str] = "recurrent block with the complex-gated linear recurrent unit"
    source: ClassVar[str] = "De et al. 2024, arXiv:2402.19427, appendix B"
    Options: ClassVar[type] = ComplexOptions
    cache_growth: ClassVar[CacheGrowth] = "constant"

    into_lru: Linear
    into_gate: Linear
    conv: CausalConv1D
    recurrence_gate: BlockDiagonalLinear
    input_gate: BlockDiagonalLinear
    a_param: Float[Array, " lru_half"]
    theta: Float[Array, " lru_half"]
    out: Linear
    c: float = eqx.field(static=True)

    @classmethod
    def init(cls, options: ComplexOptions, dims: Dims, *, key: PRNGKeyArray) -> "CGLRUBlock":
        """Builds the block; see `AbstractBlock.init`."""
        lru_width, blocks = resolve_widths(options, dims, halves=2)
        half = lru_width // 2
        keys = jax.random.split(key, 8)
        made: dict[str, Any] = {"bias": dims.biases, "dtype": dims.dtype}
        into, out_of = ("width", "lru_width"), ("lru_width", "width")
        return cls(
            into_lru=Linear.init(dims.width, lru_width, axes=into, **made, key=keys[0]),
            into_gate=Linear.init(dims.width, lru_width, axes=into, **made, key=keys[1]),
            conv=CausalConv1D.init(lru_width, options.conv_width, **made, key=keys[2]),
            recurrence_gate=BlockDiagonalLinear.init(lru_width, half, blocks, dtype=dims.dtype, key=keys[3]),
            input_gate=BlockDiagonalLinear.init(lru_width, half, blocks, dtype=dims.dtype, key=keys[4]),
            a_param=init_a_param(options.decay_init, half, options.c, key=keys[5]),
            theta=jax.random.uniform(keys[7], (half,), maxval=options.max_phase / options.c),
            out=Linear.init(
                lru_width, dims.width, axes=out_of, gain=2 / dims.num_layers, **made, key=keys[6]
            ),
            c=options.c,
        )

    def __call__(
        self,
        x: Float[Array, "seq_len width"],
        layout: SequenceLayout | None = None,
        cache: ComplexRecurrentCache | None = None,
    ) -> tuple[Float[Array, "seq_len width"], ComplexRecurrentCache | None]:
        """Mixes information over time; see `AbstractBlock.__call__`."""
        padded = layout is not None
        layout = resolve_layout(x.shape[0], layout, cache)
        if padded:
            # Huge values would overflow in the gated branch and turn its zero gradients into NaN.
            x = jnp.where(layout.valid[:, None], x, 0)
        u, conv = self.conv(self.into_lru(x), layout, None if cache is None else cache.conv)
        recurrence_gate, input_gate = self.recurrence_gate(u), self.input_gate(u)
        self._tap_gates(recurrence_gate, input_gate)
        h0 = None if cache is None else Planar(cache.h_re, cache.h_im)
        valid = layout.valid if padded else None
        gated = _parts(u), recurrence_gate, input_gate
        h, h_last = cg_lru_scan(*gated, self.a_param, self.theta, h0, layout.reset, valid, c=self.c)
        h = tap("h", _joined(h))
        y = self.out(h * jax.nn.gelu(self.into_gate(x), approximate=True))
        return y, None if conv is None else ComplexRecurrentCache(conv, *h_last)

    def _tap_gates(self, recurrence_gate, input_gate):
        """Names what the kernel computes inside; it costs nothing where nobody asks."""
        r = tap("recurrence_gate", jax.nn.sigmoid(recurrence_gate))
        tap("input_gate", jax.nn.sigmoid(input_gate))
        log_a = tap("log_a", log_decay(r, self.a_param, self.c))
        tap("phase", self.c * r * self.theta.astype(log_a.dtype)[None])

    def init_cache(self, max_seq_len: int, dtype: Any) -> ComplexRecurrentCache:
        """An empty cache; its size does not depend on `max_seq_len`."""
        half, wide = self.a_param.shape, np.promote_types(dtype, jnp.float32)
        return ComplexRecurrentCache(
            self.conv.init_history(dtype), jnp.zeros(half, wide), jnp.zeros(half, wide)
        )

    def flops(self, seq_len: int) -> int:
        """Products of the three linears, the conv and the gates, and 14 a complex channel for the recurrence."""
        width, lru_width = self.into_lru.weight.shape
        gates = 2 * self.recurrence_gate.weight.size
        return 2 * seq_len * (3 * width * lru_width + self.conv.weight.size + gates + 7 * lru_width // 2)


def _parts(u):
    """The halves of the channels, real and imaginary, each split anew over a mesh."""
    halves = constrain(u.reshape(u.shape[0], 2, -1), "seq_len", "parts", "lru_half")
    return Planar(halves[:, 0], halves[:, 1])


def _joined(h):
    """The channels as they were before `_parts`."""
    halves = constrain(jnp.stack(h, axis=1), "seq_len", "parts", "lru_half")
    return constrain(halves.reshape(halves.shape[0], -1), "seq_len", "lru_width")
