"""Token shift: each channel mixes a token with the one before it (RWKV, arXiv:2305.13048, section 3.1)."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

import griffin_eqx as gx
from griffin_eqx.nn import Linear


@dataclasses.dataclass(frozen=True)
class TokenShiftOptions:
    mix: float = 0.5  # how much of the token before, at first

    def __post_init__(self):
        if not 0 <= self.mix <= 1:
            raise gx.OptionError("mix", f"must be between 0 and 1, got {self.mix}")


class TokenShiftCache(eqx.Module):
    last: Float[Array, " width"]


class TokenShiftBlock(gx.AbstractBlock):
    name = "token_shift"
    aliases = ("S",)
    summary = "mixes each token with the one before it"
    source = "Peng et al. 2023, arXiv:2305.13048, section 3.1"
    Options = TokenShiftOptions
    cache_growth = "constant"

    mix: Float[Array, " width"]
    out: Linear

    @classmethod
    def init(cls, options, dims, *, key):
        mix = jnp.full(dims.width, options.mix, dims.dtype)
        return cls(
            mix, Linear.init(dims.width, dims.width, axes=("width", "width"), dtype=dims.dtype, key=key)
        )

    def __call__(self, x, layout=None, cache=None):
        layout = gx.resolve_layout(x.shape[0], layout, cache)
        first = jnp.zeros_like(x[:1]) if cache is None else cache.last[None].astype(x.dtype)
        history = jnp.concatenate([first, x])
        before = jnp.where((layout.positions > 0)[:, None], history[:-1], 0)
        mix = self.mix.astype(x.dtype)[None]
        y = self.out(x + mix * (before - x))
        return y, None if cache is None else TokenShiftCache(history[layout.length].astype(cache.last.dtype))

    def init_cache(self, max_seq_len, dtype):
        return TokenShiftCache(jnp.zeros(self.mix.shape, dtype))

    def flops(self, seq_len):
        return seq_len * (2 * self.out.weight.size + 3 * self.mix.size)
