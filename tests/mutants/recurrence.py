"""Mistakes in the recurrent blocks around their scan: resets, padding, state, precision."""

from functools import partial

from .mutation import Mutant

_real = partial(Mutant, module="griffin_plugins.rg_lru", block="rg_lru")
_unit = partial(Mutant, module="griffin_kernels.rg_lru.xla", block="rg_lru")
_gated = partial(Mutant, module="griffin_kernels.gated_rg_lru.composed", block="rg_lru")
_complex = partial(Mutant, module="griffin_plugins.cg_lru", block="cg_lru")

_RESET = "h0, layout.reset, valid"
_H0 = "h0 = None if cache is None else cache.h"
_DECAY = "input_gate * x.astype(wide), jnp.exp(log_a)"
_OUT = "self.out(h * jax.nn.gelu(self.into_gate(x), approximate=True))"
_BITS = "7 if x.dtype == jnp.bfloat16 else 23"
_COMPLEX_H0 = "h0 = None if cache is None else Planar(cache.h_re, cache.h_im)"

MUTANTS = (
    _gated(
        name="gates-without-cotangent-of-their-input",
        law="gradients",
        old="return dx + more,",
        new="return dx,",
        why="the input of the recurrence is also that of its gates",
    ),
    _gated(
        name="decay-parameter-of-one-row",
        law="transforms",
        old=".sum(axis=0)",
        new="[0]",
        why="rows share the parameter, and its cotangent is that of the first one",
    ),
    _real(
        name="state-never-reset",
        law="packing",
        old=_RESET,
        new="h0, None, valid",
        traps=(11,),
        why="document borders are used to find padding and for nothing else",
    ),
    _real(
        name="state-reset-one-token-late",
        law="packing",
        old=_RESET,
        new="h0, layout.valid & (layout.positions == 1), valid",
        why="the state is dropped behind the first token and not in front of it",
    ),
    _real(
        name="state-reset-softly",
        law="packing",
        module="griffin_kernels.linear_scan.xla",
        old="jnp.where(starts, 0, z)",
        new="jnp.where(starts, 1.4e-11 * z, z)",
        traps=(12,),
        why="a decay of exp(-25) at the border instead of none at all",
    ),
    _real(
        name="state-not-reset-by-a-chunk-that-starts-a-document",
        law="packing",
        old=_RESET,
        new="h0, layout.reset & (jnp.arange(x.shape[0]) > 0), valid",
        traps=(9,),
        why="borders count within a chunk; a live cache is taken over by the next document",
    ),
    _real(
        name="state-not-reset-by-a-single-token",
        law="packing",
        old=_RESET,
        new="h0, layout.reset if x.shape[0] > 1 else None, valid",
        traps=(29,),
        why="one token goes a path of its own, which tests of longer chunks never reach",
    ),
    _unit(
        name="state-decays-on-padding",
        law="streaming",
        old="jnp.where(valid[..., None], a, 1)",
        new="a",
        traps=(31,),
        why="padding adds nothing to the state and still shrinks it",
    ),
    _unit(
        name="padding-enters-the-state",
        law="streaming",
        old="jnp.where(valid[..., None], gated, 0)",
        new="gated",
        why="a bias turns padding of zeros into an input",
    ),
    _real(
        name="state-in-bfloat16",
        law="precision",
        old="state_dtype = np.promote_types(dtype, jnp.float32)",
        new="state_dtype = dtype",
        why="the state has the dtype of the computation",
    ),
    _real(
        name="state-rounded-between-calls",
        law="precision",
        old=_H0,
        new=f"{_H0}.astype(x.dtype)",
        traps=(18,),
        why="the state is float32 in the cache, and read in the dtype of the computation",
    ),
    _real(
        name="state-without-gradient",
        law="gradients",
        old=_H0,
        new="h0 = None if cache is None else jax.lax.stop_gradient(cache.h)",
        why="h0 gets no gradient, and back-propagation through chunks is truncated unasked",
    ),
    _unit(
        name="multiplier-of-a-first-token-in-every-chunk",
        law="streaming",
        old="jnp.where(reset[..., None], 1, multiplier)",
        new="jnp.where((reset | (jnp.arange(x.shape[-2]) == 0))[..., None], 1, multiplier)",
        why="the first token of a chunk is taken for the first of a document",
    ),
    _unit(
        name="decay-in-bfloat16",
        law="precision",
        old=_DECAY,
        new=_DECAY.replace("jnp.exp(log_a)", f"jax.lax.reduce_precision(jnp.exp(log_a), 8, {_BITS})"),
        traps=(18,),
        why="near 1 a bfloat16 decay is off by many of its own half-lives; a float32 state does not help",
    ),
    _unit(
        name="gates-in-bfloat16",
        law="precision",
        old="reset, valid, c, h0.dtype)",
        new="reset, valid, c, x.dtype)",
        traps=(18,),
        why="gates, softplus and exp run in the dtype of the computation",
    ),
    _unit(
        name="multiplier-by-subtraction-in-bfloat16",
        law="precision",
        old="multiplier = input_multiplier(log_a)",
        new=f"multiplier = jnp.sqrt(1 - jax.lax.reduce_precision(jnp.exp(2 * log_a), 8, {_BITS}))",
        traps=(18,),
        why="1 - a**2 cancels where a is close to 1: it is 0 or a few units of bfloat16",
    ),
    _real(
        name="multiplier-of-a-first-token-without-layout",
        law="transforms",
        old=_RESET,
        new="h0, layout.reset & padded, valid",
        why="no layout means one document from its start, which is not the same as none of its starts",
    ),
    _real(
        name="root-without-bound",
        law="gradients",
        module="griffin_kernels.gating",
        old="jax.lax.rsqrt(jnp.maximum(x, floor))",
        new="jax.lax.rsqrt(x)",
        traps=(19,),
        why="the derivative of the root at a = 1 is infinite",
    ),
    _real(
        name="root-with-epsilon",
        law="gradients",
        module="griffin_kernels.gating",
        old="return jnp.sqrt(x)",
        new="return jnp.sqrt(x + 1e-6)",
        traps=(19,),
        why="an epsilon in the root, which the derivative does not know",
    ),
    _real(
        name="float32-out-of-the-block",
        law="precision",
        old=_OUT,
        new="self.out(h.astype(self.a_param.dtype) * "
        "jax.nn.gelu(self.into_gate(x), approximate=True).astype(self.a_param.dtype))",
        why="the wide state widens everything behind it",
    ),
    _real(
        name="huge-padding-poisons-gradients",
        law="padding",
        old="x = jnp.where(layout.valid[:, None], x, 0)",
        new="pass",
        why="padding is masked out of the result and not out of the gated branch: 0 times infinity is NaN",
    ),
    _real(
        name="statistics-over-time",
        law="causal",
        old=_OUT,
        new="self.out(h * jax.nn.gelu(self.into_gate(x - x.mean(0, keepdims=True)), approximate=True))",
        why="a normalisation takes the axis of time for that of channels",
    ),
    _real(
        name="history-as-long-as-the-document",
        law="bounded_cache",
        old="self.conv.init_history(dtype), jnp.zeros(self.a_param.shape",
        new="jnp.zeros((max_seq_len, self.a_param.size), dtype), jnp.zeros(self.a_param.shape",
        why="the cache keeps all inputs of a convolution that sees four of them",
    ),
    _real(
        name="options-that-never-compare-equal",
        law="options",
        old="@dataclasses.dataclass(frozen=True)\nclass RecurrentOptions",
        new="@dataclasses.dataclass(frozen=True, eq=False)\nclass RecurrentOptions",
        why="options are compared by identity, and what was read back is another object",
    ),
    _complex(
        name="imaginary-part-dropped-from-the-cache",
        law="streaming",
        old=_COMPLEX_H0,
        new="h0 = None if cache is None else Planar(cache.h_re, jnp.zeros_like(cache.h_im))",
        traps=(13,),
        why="as soon as a state is handed in, everything is cast to a real dtype",
    ),
    _complex(
        name="cached-parts-swapped",
        law="streaming",
        old="ComplexRecurrentCache(conv, *h_last)",
        new="ComplexRecurrentCache(conv, *h_last[::-1])",
        why="real and imaginary parts change places on their way into the cache",
    ),
    _complex(
        name="state-turns-on-padding",
        law="streaming",
        module="griffin_kernels.cg_lru.composed",
        old="jnp.where(counts, a.im, 0)",
        new="a.im",
        traps=(31,),
        why="at padding the decay is 1 in its real part alone",
    ),
    _complex(
        name="complex-state-not-reset-with-a-cache",
        law="packing",
        old="self.theta, h0, layout.reset, valid",
        new="self.theta, h0, layout.reset if cache is None else None, valid",
        traps=(9,),
        why="packed training is right, and a live cache is not cleared for the next document",
    ),
    _complex(
        name="imaginary-part-without-gradient",
        law="gradients",
        old=_COMPLEX_H0,
        new="h0 = None if cache is None else Planar(cache.h_re, jax.lax.stop_gradient(cache.h_im))",
        why="one of the two parts of the state carries no gradient",
    ),
    _complex(
        name="conjugate-that-is-none",
        law="gradients",
        module="griffin_kernels.linear_scan.planar",
        old="Planar(self.re, -self.im)",
        new="Planar(self.re, self.im)",
        why="the adjoint of a complex product without its conjugate",
    ),
    _complex(
        name="complex-product-with-the-wrong-sign",
        law="gradients",
        module="griffin_kernels.linear_scan.planar",
        old="self.re * other.re - self.im * other.im",
        new="self.re * other.re + self.im * other.im",
        why="i * i = 1",
    ),
)
