"""Mistakes of definition and conversion that real implementations of these layers make, each named by its number.

RG is DeepMind's `recurrentgemma`, HF is Hugging Face's `transformers`. Those that break a law are in the tests of the
verification kit; that whole models agree with RG and HF is in test_golden.py.
"""

import json
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import msgspec
import numpy as np
import pytest

import griffin_eqx as gx
from griffin_eqx.block import SequenceLayout
from griffin_eqx.config import ModelConfig
from griffin_eqx.errors import WeightsError
from griffin_eqx.interop import deepmind, hugging_face, open_weights, to_flax, to_model, write
from griffin_eqx.interop.weights import of_model
from griffin_eqx.nn import RMSNorm, rotate
from griffin_eqx.pattern import Value

pytestmark = pytest.mark.core

BLOCKS: dict[str, dict[str, Value]] = {
    "rg_lru": {"gate_blocks": 2},
    "local_mqa": {"head_dim": 8, "window_size": 4, "rope_fraction": 0.5},
}
MODEL = ModelConfig(
    pattern="rg_lru local_mqa",
    width=16,
    lru_width=24,
    vocab_size=40,
    biases=True,
    embedding_scale=True,
    logit_soft_cap=30.0,
    blocks=BLOCKS,
)
THEIRS = {
    "model_type": "recurrent_gemma",
    "num_hidden_layers": 3,
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 96,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "attention_window_size": 4,
}
"""A config.json that leaves out what it can."""


@pytest.fixture(scope="module")
def model(make_config, random_model):
    config = msgspec.structs.replace(make_config(), model=MODEL)
    return random_model(config), config


def test_trap_01_the_two_programs_show_different_windows(tmp_path, model):
    """RG's W shows W+1 keys, HF's shows W: a window is read as trained, by choice as HF shows it, and goes back."""

    def window(config):
        return config.model.blocks["local_mqa"]["window_size"]

    assert window(hugging_face.config_of(THEIRS)) == 5
    assert window(hugging_face.config_of(THEIRS, window="hf")) == 4
    weights = of_model(*model)
    written: tuple[tuple[Literal["hf", "trained"], int], ...] = (("hf", 4), ("trained", 3))
    for choice, said in written:
        (tmp_path / choice).mkdir()
        hugging_face.write(weights, tmp_path / choice, window=choice)
        tree = json.loads((tmp_path / choice / "config.json").read_text())
        assert tree["attention_window_size"] == said
        assert window(open_weights(tmp_path / choice).config) == 4
    (tmp_path / "rg").mkdir()
    deepmind.write(weights, tmp_path / "rg", torch=True)
    said = json.loads((tmp_path / "rg" / "griffin_eqx.json").read_text())["their_config"]
    assert said["attention_window_size"] == 3
    # And a window of 4 is 4 keys: the token itself and 3 before it.
    block = next(layer for layer in model[0].stack.layers() if hasattr(layer.temporal, "query")).temporal
    x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 16), np.float32))
    slope = eqx.filter_jit(jax.grad(lambda x: block(x)[0][5].sum()))(x)
    assert np.flatnonzero(np.abs(slope).max(-1)).tolist() == [2, 3, 4, 5]


def test_trap_15_a_convolution_carries_lru_width_channels(model):
    """HF sizes its conv state by hidden_size, so that a prompt of one token crashes where lru_width differs."""
    net, _ = model
    block = next(net.stack.layers()).temporal
    cache = block.init_cache(8, jnp.float32)
    assert cache.conv.shape == (3, 24)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 16), np.float32))
    whole, _ = eqx.filter_jit(block)(x)
    step = eqx.filter_jit(lambda x, at, cache: block(x, SequenceLayout(at, jnp.array(1)), cache))
    one, cache = step(x[:1], jnp.arange(1), cache)
    two, _ = step(x[1:], jnp.arange(1, 2), cache)
    assert np.allclose(np.concatenate([one, two]), whole, rtol=0, atol=1e-5 * np.abs(whole).max())


def test_trap_16_a_soft_cap_of_zero_is_no_cap(tmp_path, model):
    """RG leaves logits alone at 0, HF makes tanh(logits / 0) * 0 of them."""
    net, config = model
    hidden = jnp.asarray(np.random.default_rng(0).standard_normal((3, 16), np.float32)) * 20
    open_net = eqx.tree_at(lambda n: n.final_norm, net, net.final_norm)
    object.__setattr__(open_net, "logit_soft_cap", 0.0)
    plain = np.asarray(hidden @ net.embedding.weight[:40].T)
    assert np.allclose(open_net.logits(hidden), plain, atol=1e-3)
    assert np.abs(plain).max() > 30 > np.abs(np.asarray(net.logits(hidden))).max()
    assert hugging_face.config_of(THEIRS | {"logits_soft_cap": 0.0}).model.logit_soft_cap == 0
    uncapped = msgspec.structs.replace(config, model=msgspec.structs.replace(MODEL, logit_soft_cap=0.0))
    weights = of_model(open_net, uncapped)
    with pytest.raises(WeightsError, match="a soft cap of 0 makes all logits 0 there"):
        write(weights, tmp_path / "hf", to="hf")
    write(weights, tmp_path / "rg", to="deepmind-torch")
    assert open_weights(tmp_path / "rg").config.model.logit_soft_cap == 0


def test_trap_17_key_heads_default_to_all_heads_there(tmp_path, model):
    """Where HF's config.json is silent it means as many as query heads; what we write is never silent."""
    silent = {key: value for key, value in THEIRS.items() if key != "num_key_value_heads"}
    assert hugging_face.config_of(silent).model.blocks["local_mqa"]["kv_heads"] == 2
    assert hugging_face.config_of(THEIRS).model.blocks["local_mqa"]["kv_heads"] == 1
    write(of_model(*model), tmp_path / "hf", to="hf")
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["num_key_value_heads"] == 1


def test_trap_20_the_first_token_enters_the_state_whole(model):
    """h_0 = i_0 * u_0 as in RG and HF, not sqrt(1 - a_0**2) * i_0 * u_0 as the paper's formula read literally."""
    net, _ = model
    tokens = jnp.array([3, 1, 4])
    names = ("residual", "h", "input_gate", "log_a")
    _, layers = eqx.filter_jit(lambda net, t: gx.capture(net, t, names=names))(net, tokens)
    layer, values = next(net.stack.layers()), layers[0]
    block = layer.temporal
    x0 = np.asarray(layer.temporal_norm(values["residual"]))[0]
    into = x0 @ np.asarray(block.into_lru.weight) + np.asarray(block.into_lru.bias)
    u0 = into * np.asarray(block.conv.weight)[0] + np.asarray(block.conv.bias)
    whole = np.asarray(values["input_gate"])[0] * u0
    assert np.allclose(np.asarray(values["h"])[0], whole, rtol=1e-4, atol=1e-6)
    literal = np.sqrt(-np.expm1(2 * np.asarray(values["log_a"])[0])) * whole
    assert not np.allclose(np.asarray(values["h"])[0], literal, rtol=1e-2)


def test_trap_24_the_first_half_of_a_head_is_rotated_in_halves():
    """Channel i is paired with i + head_dim / 4, not with its neighbour, and the second half stands still."""
    config = hugging_face.config_of(THEIRS).model
    assert config.blocks["local_mqa"]["rope_fraction"] == 0.5
    x = np.random.default_rng(0).standard_normal((1, 1, 8)).astype(np.float32)
    turned = np.asarray(rotate(jnp.asarray(x), jnp.array([3]), fraction=0.5))[0, 0]
    angles = 3 * 10_000.0 ** (-np.arange(2) / 2)
    first, second = x[0, 0, :2], x[0, 0, 2:4]
    wanted = [
        first * np.cos(angles) - second * np.sin(angles),
        second * np.cos(angles) + first * np.sin(angles),
    ]
    assert np.allclose(turned[:4], np.concatenate(wanted), atol=1e-5)
    assert np.array_equal(turned[4:], x[0, 0, 4:])


def test_trap_25_the_embedding_scale_is_rounded_to_bfloat16(make_config, random_model):
    """sqrt(2560) = 50.596 is 50.5 in RG and HF, in float32 too: they were trained with it."""
    assert float(jnp.asarray(2560**0.5, jnp.bfloat16)) == 50.5
    net = random_model(make_config(pattern="rg_lru", width=24, lru_width=8, embedding_scale=True))
    _, layers = eqx.filter_jit(lambda net, t: gx.capture(net, t, names=("residual",)))(net, jnp.array([5, 6]))
    rounded = np.float32(ml_dtypes.bfloat16(24**0.5))
    assert rounded != np.float32(24**0.5)
    assert np.array_equal(np.asarray(layers[0]["residual"]), np.asarray(net.embedding.weight)[5:7] * rounded)


def test_trap_26_intermediate_size_is_both_branches(tmp_path, model):
    """HF halves its intermediate_size; its class default of 3 widths is half of RecurrentGemma's MLP."""
    assert hugging_face.config_of(THEIRS).model.mlp_width == 48
    silent = {key: value for key, value in THEIRS.items() if key != "intermediate_size"} | {
        "hidden_size": 2560
    }
    assert hugging_face.config_of(silent).model.mlp_width == 3 * 2560 // 2
    write(of_model(*model), tmp_path / "hf", to="hf")
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["intermediate_size"] == 2 * 48
    up = to_flax(*model)["params"]["blocks.0"]["mlp_block"]["ffw_up"]["w"]
    assert up.shape == (2, 16, 48)


def test_trap_27_a_norm_stores_its_offset_from_one(model):
    """Both store w - 1, as we do; a row of zeros stays zero; in bfloat16 it is computed in float32, as in HF."""
    net, config = model
    theirs = to_flax(net, config)["params"]["final_norm"]["scale"]
    assert np.array_equal(theirs, net.final_norm.scale)
    fresh = RMSNorm.init(16)
    assert not np.any(fresh.scale)
    assert not np.any(fresh(jnp.zeros((1, 16))))
    x = np.random.default_rng(0).standard_normal((64, 256)).astype(ml_dtypes.bfloat16)
    scale = np.full(256, 0.37, np.float32).astype(ml_dtypes.bfloat16)
    wide = x.astype(np.float64)
    exact = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6) * (1 + scale.astype(np.float64))
    found = np.asarray(RMSNorm(jnp.asarray(scale))(jnp.asarray(x)), np.float64)
    assert np.array_equal(found, exact.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64))


def test_the_recurrence_keeps_its_sign(model):
    """Ours is Lambda of a = sigmoid(Lambda), theirs goes through softplus with the other sign."""
    net, config = model
    theirs = to_flax(net, config)["params"]["blocks.0"]["recurrent_block"]["rg_lru"]["a_param"]
    ours = np.asarray(next(net.stack.layers()).temporal.a_param, np.float64)
    assert np.array_equal(theirs, -ours.astype(np.float32))
    assert np.allclose(np.log(1 / (1 + np.exp(-ours))), -np.logaddexp(0, theirs))
    assert to_model(of_model(net, config)).embedding.vocab_size == 40
