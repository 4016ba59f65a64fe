"""The recurrent block of Griffin: a short convolution, the RG-LRU, and a gated branch beside them."""

import dataclasses
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from griffin_kernels.gated_rg_lru import gated_rg_lru
from jaxtyping import Array, Float, PRNGKeyArray

from griffin_eqx.block import AbstractBlock, CacheGrowth, Dims, OptionError, SequenceLayout, resolve_layout
from griffin_eqx.nn import BlockDiagonalLinear, CausalConv1D, Linear, log_decay
from griffin_eqx.taps import tap


@dataclasses.dataclass(frozen=True)
class RecurrentOptions:
    """Options of the recurrent blocks, real and complex.

    Attributes:
      lru_width: Channels of the recurrence; the model's when left out.
      gate_blocks: Diagonal blocks of the two gate matrices (16 in all of the paper's experiments).
      conv_width: Tokens the convolution sees, itself included.
      c: The constant in `a_t = a ** (c * r_t)`.
      decay_init: `paper` draws a**c uniform on [0.9, 0.999]; `recurrentgemma` draws a**2 uniform with a in
        that range.
    """

    lru_width: int | None = None
    gate_blocks: int = 16
    conv_width: int = 4
    c: float = 8.0
    decay_init: Literal["paper", "recurrentgemma"] = "paper"

    def __post_init__(self):
        for field in ("lru_width", "gate_blocks", "conv_width"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise OptionError(field, f"must be at least 1, got {value}")
        if not self.c > 0:
            raise OptionError("c", f"must be positive, got {self.c}")


class RecurrentCache(eqx.Module):
    """What a recurrent block carries: the inputs the convolution still sees, and the state."""

    conv: Float[Array, "conv_history lru_width"]
    h: Float[Array, " lru_width"]


def init_a_param(decay_init: str, channels: int, c: float, *, key: PRNGKeyArray) -> Float[Array, " channels"]:
    """Draws Lambda of `a = sigmoid(Lambda)`, always in float32: near a = 1 bfloat16 has no room for it.

    `paper`: a**c uniform on [0.9, 0.999] (section 2.4). `recurrentgemma`: a**2 uniform between the squares
    of 0.9 and 0.999, as its code draws.
    """
    if decay_init == "paper":
        log_a = jnp.log(jax.random.uniform(key, (channels,), minval=0.9, maxval=0.999)) / c
    else:
        log_a = 0.5 * jnp.log(jax.random.uniform(key, (channels,), minval=0.9**2, maxval=0.999**2))
    # logit(a) from log a: log a - log(1 - a).
    return log_a - jnp.log(-jnp.expm1(log_a))


def resolve_widths(options: RecurrentOptions, dims: Dims, *, halves: int = 1) -> tuple[int, int]:
    """`(lru_width, gate_blocks)`, checked against each other.

    Raises:
      OptionError: If the gates cannot be cut into that many equal blocks.
    """
    lru_width = options.lru_width or dims.lru_width
    if lru_width % (halves * options.gate_blocks):
        parts = "" if halves == 1 else f" {halves} halves of"
        raise OptionError(
            "gate_blocks",
            f"{lru_width=} cannot be cut into{parts} gate_blocks={options.gate_blocks} equal blocks",
        )
    return lru_width, options.gate_blocks


class RGLRUBlock(AbstractBlock):
    """`y = out(rg_lru(conv(into_lru(x))) * gelu(into_gate(x)))` (Griffin, sections 2.3 and 2.4).

    The RG-LRU, elementwise in its channels:

        r_t = sigmoid(W_a u_t + b_a)         recurrence gate
        i_t = sigmoid(W_x u_t + b_x)         input gate
        a_t = sigmoid(Lambda) ** (c * r_t)
        h_t = a_t * h_{t-1} + sqrt(1 - a_t**2) * (i_t * u_t)

    At the first token of a document the multiplier is 1, as in RecurrentGemma.
    """

    name: ClassVar[str] = "rg_lru"
    aliases: ClassVar[tuple[str, ...]] = ("R",)
    summary: ClassVar[str] = "recurrent block with the real-gated linear recurrent unit"
    source: ClassVar[str] = "De et al. 2024, arXiv:2402.19427, sections 2.3 and 2.4"
    Options: ClassVar[type] = RecurrentOptions
    cache_growth: ClassVar[CacheGrowth] = "constant"

    into_lru: Linear
    into_gate: Linear
    conv: CausalConv1D
    recurrence_gate: BlockDiagonalLinear
    input_gate: BlockDiagonalLinear
    a_param: Float[Array, " lru_width"]
    out: Linear
    c: float = eqx.field(static=True)

    @classmethod
    def init(cls, options: RecurrentOptions, dims: Dims, *, key: PRNGKeyArray) -> "RGLRUBlock":
        """Builds the block; see `AbstractBlock.init`."""
        lru_width, blocks = resolve_widths(options, dims)
        keys = jax.random.split(key, 7)
        made: dict[str, Any] = {"bias": dims.biases, "dtype": dims.dtype}
        into, out_of = ("width", "lru_width"), ("lru_width", "width")
        return cls(
            into_lru=Linear.init(dims.width, lru_width, axes=into, **made, key=keys[0]),
            into_gate=Linear.init(dims.width, lru_width, axes=into, **made, key=keys[1]),
            conv=CausalConv1D.init(lru_width, options.conv_width, **made, key=keys[2]),
            recurrence_gate=BlockDiagonalLinear.init(
                lru_width, lru_width, blocks, dtype=dims.dtype, key=keys[3]
            ),
            input_gate=BlockDiagonalLinear.init(lru_width, lru_width, blocks, dtype=dims.dtype, key=keys[4]),
            a_param=init_a_param(options.decay_init, lru_width, options.c, key=keys[5]),
            out=Linear.init(
                lru_width, dims.width, axes=out_of, gain=2 / dims.num_layers, **made, key=keys[6]
            ),
            c=options.c,
        )

    def __call__(
        self,
        x: Float[Array, "seq_len width"],
        layout: SequenceLayout | None = None,
        cache: RecurrentCache | None = None,
    ) -> tuple[Float[Array, "seq_len width"], RecurrentCache | None]:
        """Mixes information over time; see `AbstractBlock.__call__`."""
        padded = layout is not None
        layout = resolve_layout(x.shape[0], layout, cache)
        if padded:
            # Huge values would overflow in the gated branch and turn its zero gradients into NaN.
            x = jnp.where(layout.valid[:, None], x, 0)
        u, conv = self.conv(self.into_lru(x), layout, None if cache is None else cache.conv)
        self._tap_gates(u)
        h0 = None if cache is None else cache.h
        valid = layout.valid if padded else None
        r, i = self.recurrence_gate, self.input_gate
        gates = (r.weight, r.bias), (i.weight, i.bias)
        h, h_last = gated_rg_lru(u, *gates, self.a_param, h0, layout.reset, valid, c=self.c)
        h = tap("h", h)
        y = self.out(h * jax.nn.gelu(self.into_gate(x), approximate=True))
        return y, None if conv is None else RecurrentCache(conv, h_last)

    def _tap_gates(self, u):
        """Names what the kernel computes inside; nothing of it is run where nobody asks."""
        r = tap("recurrence_gate", jax.nn.sigmoid(self.recurrence_gate(u)))
        tap("input_gate", jax.nn.sigmoid(self.input_gate(u)))
        tap("log_a", log_decay(r, self.a_param, self.c))

    def init_cache(self, max_seq_len: int, dtype: Any) -> RecurrentCache:
        """An empty cache; its size does not depend on `max_seq_len`."""
        state_dtype = np.promote_types(dtype, jnp.float32)
        return RecurrentCache(self.conv.init_history(dtype), jnp.zeros(self.a_param.shape, state_dtype))

    def flops(self, seq_len: int) -> int:
        """Products of the three linears, the conv and the gates, and 6 an element for the recurrence."""
        width, lru_width = self.into_lru.weight.shape
        gates = 2 * self.recurrence_gate.weight.size
        return 2 * seq_len * (3 * width * lru_width + self.conv.weight.size + gates + 3 * lru_width)
