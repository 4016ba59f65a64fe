"""What a model costs, counted layer by distinct layer, is what the whole model and the compiler say."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import msgspec
import pytest
from hypothesis import given

import griffin_eqx as gx
from griffin_eqx.ablation import sizes as counting
from griffin_eqx.ablation.sizes import sizes
from griffin_eqx.errors import ConfigError, OptionError
from griffin_eqx.model import LanguageModel

from .models import config_of, configs


@given(configs())
def test_they_are_those_of_the_whole_model(config):
    counted = sizes(config)
    whole = gx.describe(config)
    assert counted.parameters == whole.parameters
    assert counted.parameters_non_embedding == whole.parameters_non_embedding
    assert counted.training_flops_per_token == pytest.approx(whole.training_flops_per_token, rel=1e-12)
    assert counted.cache_bytes == whole.total_cache_bytes


@pytest.mark.parametrize("length", [1, 19, 20, 77])
def test_caches_are_counted_for_any_length(length):
    config = config_of("rg_lru local_mqa[head_dim=8,window_size=20] global_mqa[head_dim=16]")
    assert (
        sizes(config, cache_length=length).cache_bytes
        == gx.describe(config, seq_len=length).total_cache_bytes
    )


def test_what_cannot_be_built_is_said_every_time():
    good, bad = (config_of(f"rg_lru[gate_blocks=4] local_mqa[head_dim={dim}]") for dim in (16, 48))
    for _ in range(2):
        assert sizes(good).parameters > 0
        with pytest.raises(OptionError, match="head_dim: 48 does not divide width=64"):
            sizes(bad)
    with pytest.raises(ConfigError, match=r"model\.vocab_size is not set"):
        sizes(msgspec.structs.replace(good, model=msgspec.structs.replace(good.model, vocab_size=None)))


def test_equal_layers_are_counted_once(monkeypatch):
    seen = []

    def counted(layer, *rest):
        seen.append(layer)
        return counting.LayerSizes(1, 1, 1)

    monkeypatch.setattr(counting, "_layer", counted)
    sizes(config_of("(rg_lru rg_lru local_mqa)@300 rg_lru[c=4.0]"))
    assert len(seen) == 3


# FLOPs, against the compiler

WIDTH, SEQ_LEN = 1024, 32
CLOSE = 0.02
"""What a block counts are its products, the convolution and the recurrence; what it leaves out (norms, GeLU, rotary
positions, softmax) costs as a channel does and products as a channel squared, so the gap is about 12 / width, 1.2 %
here. Attention counts the keys that a token sees, and XLA computes the square that they are cut from: 0.2 % here."""


@pytest.fixture
def unrolled(monkeypatch):
    """XLA counts the body of a loop once. Here layers, diagonal blocks and blocks of attention are no loops; the
    recurrence stays one, whose 6 FLOPs an element are 0.1 % of a block this wide."""
    scan = jax.lax.scan

    def map_unrolled(fn, xs):
        count = len(jax.tree.leaves(xs)[0])
        return jnp.stack([fn(jax.tree.map(lambda x, i=i: x[i], xs)) for i in range(count)])

    monkeypatch.setattr(jax.lax, "scan", functools.partial(scan, unroll=True))
    monkeypatch.setattr(jax.lax, "map", map_unrolled)


def compilers_flops(config, *, training=False):
    """The compiler's count of a pass over one sequence. Nothing is allocated."""
    model = eqx.filter_eval_shape(LanguageModel.init, config.model, key=jax.random.key(0))
    arrays, static = eqx.partition(model, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))

    def forward(arrays, tokens):
        return eqx.combine(arrays, static)(tokens)[0]

    def backward(arrays, tokens):
        return jax.grad(lambda arrays: forward(arrays, tokens).sum())(arrays)

    tokens = jax.ShapeDtypeStruct((SEQ_LEN,), jnp.int32)
    cost: Any = jax.jit(backward if training else forward).lower(arrays, tokens).cost_analysis()
    return cost["flops"]


@pytest.mark.parametrize(
    "pattern",
    [
        "rg_lru",
        "rg_lru[gate_blocks=2,mlp=none]",
        "cg_lru",
        "local_mqa[window_size=16]",
        "global_mqa[head_dim=64,kv_heads=4]",
        "(rg_lru rg_lru local_mqa)*2 cg_lru global_mqa",
    ],
)
def test_flops_are_the_compilers(unrolled, pattern):
    config = config_of(pattern, width=WIDTH, seq_len=SEQ_LEN)
    counted = sizes(config).training_flops_per_token * SEQ_LEN / 3
    assert counted == pytest.approx(compilers_flops(config), rel=CLOSE)


def test_training_costs_three_forward_passes(unrolled):
    config = config_of("rg_lru local_mqa", width=WIDTH, seq_len=SEQ_LEN)
    counted = sizes(config).training_flops_per_token * SEQ_LEN
    assert counted == pytest.approx(compilers_flops(config, training=True), rel=CLOSE)
