"""The language model: the laws of its blocks hold for all of it, and its program and counts are as promised."""

import dataclasses
import functools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_plugins.rg_lru import RGLRUBlock
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_eqx import presets
from griffin_eqx.block import AbstractBlock, CacheGrowth, Dims, SequenceLayout, resolve_layout
from griffin_eqx.config import ModelConfig
from griffin_eqx.errors import ConfigError
from griffin_eqx.model import LanguageModel, capture, count_parameters
from griffin_eqx.nn import Policy
from griffin_eqx.pattern import Pattern
from griffin_eqx.verify import assert_close, law_tests, tolerance
from griffin_eqx.verify.program import equations

pytestmark = pytest.mark.core

BLOCKS: dict[str, dict[str, Any]] = {
    "rg_lru": {"gate_blocks": 2},
    "cg_lru": {"gate_blocks": 2},
    "local_mqa": {"head_dim": 4, "window_size": 3},
    "global_mqa": {"head_dim": 4},
}
PATTERN = "(rg_lru local_mqa)*2 cg_lru[mlp=none]"
SEQ_LEN = 9
TOLERANCE = tolerance(np.float32, SEQ_LEN)


def build(pattern=PATTERN, seed=0, **fields):
    config = ModelConfig(
        pattern=pattern,
        **({"width": 16, "lru_width": 32, "num_heads": 4, "vocab_size": 19, "blocks": BLOCKS} | fields),
    )
    return LanguageModel.init(config, key=jax.random.key(seed))


def tokens_of(seed, seq_len=SEQ_LEN):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 19, seq_len), jnp.int32)


@functools.cache
def biased():
    return build(biases=True)


@pytest.fixture
def model():
    return biased()


@eqx.filter_jit
def run(model, tokens, layout=None, cache=None, mask=None):
    return model(tokens, layout, cache, mask=mask)


# The laws of blocks


class WholeModel(AbstractBlock):
    """All layers and the final norm, as one block: what lies around them acts on each token alone."""

    @dataclasses.dataclass(frozen=True)
    class Options:
        """A model has its own configuration."""

    name: ClassVar[str] = "whole_model"
    cache_growth: ClassVar[CacheGrowth] = "window"
    model: LanguageModel

    @classmethod
    def init(cls, options, dims: Dims, *, key):
        del options, key
        return cls(
            build("(rg_lru local_mqa)*2", width=dims.width, lru_width=dims.lru_width, biases=dims.biases)
        )

    def __call__(self, x, layout=None, cache=None):
        x, cache, _ = self.model.stack(x, resolve_layout(len(x), layout, cache), cache)
        return self.model.final_norm(x), cache

    def init_cache(self, max_seq_len, dtype):
        return self.model.stack.init_cache(max_seq_len, dtype)

    def flops(self, seq_len):
        return self.model.stack.flops(seq_len)


# The others are each block's own, and what they catch in a stack has tests of its own below.
test_whole_model = law_tests(
    WholeModel, laws=("causal", "streaming", "packing", "padding", "independent_rows", "bounded_cache")
)


@given(st.integers(0, 1000), st.integers(1, SEQ_LEN))
def test_step_by_step_decoding_equals_one_pass(seed, prompt):
    model, tokens = biased(), tokens_of(seed)
    want, none = run(model, tokens)
    assert none is None
    # The prompt comes in one padded chunk.
    layout = SequenceLayout(jnp.arange(SEQ_LEN, dtype=jnp.int32), jnp.asarray(prompt, jnp.int32))
    logits, cache = run(model, tokens, layout, model.init_cache(SEQ_LEN))
    assert_close(logits[prompt - 1], want[prompt - 1], "logits after the prompt", tol=TOLERANCE)
    for t in range(prompt, SEQ_LEN):
        layout = SequenceLayout(jnp.asarray([t], jnp.int32), jnp.asarray(1, jnp.int32))
        logits, cache = run(model, tokens[t : t + 1], layout, cache)
        assert_close(logits[0], want[t], f"logits after token {t}", tol=TOLERANCE)


@settings(max_examples=settings().max_examples // 2)
@given(st.integers(0, 1000), st.integers(0, 4), st.integers(1, 5))
def test_padding_on_either_side_changes_nothing(seed, left, length):
    model, tokens = biased(), tokens_of(seed)
    here = slice(left, left + length)
    layout = SequenceLayout(jnp.arange(SEQ_LEN, dtype=jnp.int32), jnp.asarray(length, jnp.int32))
    empty = model.init_cache(SEQ_LEN + 1)
    want, want_cache = run(model, jnp.roll(tokens, -left), layout, empty)
    mask = jnp.asarray((np.arange(SEQ_LEN) >= left) & (np.arange(SEQ_LEN) < left + length))
    for padding in (tokens, jnp.where(mask, tokens, (tokens + 7) % 19)):
        logits, cache = run(model, padding, None, empty, mask)
        assert_close(np.asarray(logits)[here], np.asarray(want)[:length], "logits", tol=TOLERANCE)
        step = SequenceLayout(jnp.asarray([length], jnp.int32), jnp.asarray(1, jnp.int32))
        following = [run(model, tokens[:1], step, held)[0] for held in (cache, want_cache)]
        assert_close(following[0], following[1], "logits of the next token", tol=TOLERANCE)


def test_a_layout_and_a_mask_together_are_refused(model):
    with pytest.raises(
        ValueError, match=r"^Pass a layout or a mask, not both: each says where the tokens are\.$"
    ):
        model(tokens_of(0), SequenceLayout.single(SEQ_LEN), mask=jnp.ones(SEQ_LEN, bool))


def test_a_bfloat16_model_is_close_to_its_float32_self(model):
    half = dataclasses.replace(model, policy=Policy.parse("p=f32,c=bf16,o=f32"))
    logits, cache = run(half, tokens_of(0), SequenceLayout.single(SEQ_LEN), half.init_cache(SEQ_LEN))
    assert logits.dtype == jnp.float32
    assert {str(z.dtype) for z in jax.tree.leaves(cache[0][0])} == {"bfloat16", "float32"}
    # 8 units of bfloat16, as for one block: five layers, each a small part of the residual stream.
    assert_close(logits, run(model, tokens_of(0))[0], "logits", tol=8 * float(jnp.finfo(jnp.bfloat16).eps))


# Program


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_recomputation_changes_neither_values_nor_gradients(model, remat):
    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(model, remat):
        hidden, _ = model.hidden(tokens_of(0), remat=remat)
        return jnp.square(model.logits(hidden)).sum()

    assert_close(loss(model, remat), loss(model, "none"), f"remat={remat}", tol=TOLERANCE)


def test_scanning_over_repeats_equals_applying_layers_one_by_one(model):
    layout = SequenceLayout.single(SEQ_LEN)

    @eqx.filter_jit
    def unrolled(model):
        x = model.embedding.encode(tokens_of(0), jnp.float32)
        for layer in model.stack.layers():
            x, _ = layer(x, layout, None)
        return model.logits(model.final_norm(x))

    assert [run.repeats for run in Pattern.parse(PATTERN).runs] == [2, 1]
    assert_close(unrolled(model), run(model, tokens_of(0))[0], "logits", tol=TOLERANCE)


def traced(pattern, monkeypatch):
    """`(calls of the block, equations in the program)` of a model with this pattern."""
    calls = 0
    plain = RGLRUBlock.__call__

    def counted(self, *arguments):
        nonlocal calls
        calls += 1
        return plain(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RGLRUBlock, "__call__", counted)
        model = eqx.filter_eval_shape(lambda: build(pattern))
        program, _, _ = eqx.filter_make_jaxpr(lambda m: m(tokens_of(0)))(model)
    return calls, len(list(equations(program.jaxpr)))


def test_program_grows_with_distinct_layers_and_not_with_depth(monkeypatch):
    shallow, deep = (traced(f"(rg_lru rg_lru local_mqa)@{depth}", monkeypatch) for depth in (6, 48))
    assert deep == shallow
    assert traced("rg_lru*2 local_mqa rg_lru*5 local_mqa", monkeypatch)[1] > shallow[1]


@pytest.mark.parametrize(
    ("pattern", "unrolled"),
    [
        ("rg_lru*4", "rg_lru rg_lru[c=8.0] rg_lru[conv_width=4] rg_lru[gate_blocks=2]"),
        ("(rg_lru local_mqa)*2", "rg_lru local_mqa rg_lru[c=8.0] local_mqa[kv_heads=1]"),
    ],
)
def test_a_layer_starts_the_same_however_the_pattern_repeats(pattern, unrolled):
    """Options that say what is so anyway make layers distinct, and nothing is stacked."""
    assert [run.repeats for run in Pattern.parse(unrolled).runs] == [1]
    one, other = (
        [eqx.filter(layer, eqx.is_array) for layer in build(p).stack.layers()] for p in (pattern, unrolled)
    )
    assert_close(one, other, "layers", tol=0.0)


def test_no_two_layers_start_with_the_same_weights():
    first = [jax.tree.leaves(layer.temporal)[0] for layer in build("rg_lru*4").stack.layers()]
    assert len({np.asarray(weight).tobytes() for weight in first}) == 4


# Looking inside


def test_capture_hands_out_every_layer_and_changes_no_logits(model):
    logits, layers = eqx.filter_jit(capture)(model, tokens_of(0))
    assert_close(logits, run(model, tokens_of(0))[0], "logits", tol=TOLERANCE)
    assert [sorted(layer) for layer in layers] == [
        ["h", "input_gate", "log_a", "mlp_out", "recurrence_gate", "residual", "temporal_out"],
        ["attended", "mlp_out", "residual", "temporal_out"],
    ] * 2 + [["h", "input_gate", "log_a", "phase", "recurrence_gate", "residual", "temporal_out"]]
    assert layers[0]["h"].shape == (SEQ_LEN, 32)
    assert layers[1]["attended"].shape == (SEQ_LEN, 4, 4)
    x = model.embedding.encode(tokens_of(0), jnp.float32)
    for i, layer in enumerate(layers):
        assert_close(layer["residual"], x, f"input of layer {i}", tol=TOLERANCE)
        x = x + layer["temporal_out"] + layer.get("mlp_out", jnp.zeros_like(x))
    assert_close(
        model.logits(model.final_norm(x)), logits, "logits of the last layer's output", tol=TOLERANCE
    )


def test_capture_of_a_name_hands_out_that_one_alone(model):
    _, layers = eqx.filter_jit(capture)(model, tokens_of(0), names=("log_a",))
    assert [sorted(layer) for layer in layers] == [["log_a"], [], ["log_a"], [], ["log_a"]]


def test_capture_of_an_unknown_name_is_refused(model):
    with pytest.raises(ValueError) as caught:
        capture(model, tokens_of(0), names=("gate_a", "log_a"))
    assert str(caught.value) == "No layer taps gate_a; tapped are log_a."


# Embedding and logits


def test_filler_rows_are_never_predicted_and_not_counted(model):
    rows, width = model.embedding.weight.shape
    assert (rows, width) == (128, 16)
    assert not model.embedding.weight[19:].any()
    assert run(model, tokens_of(0))[0].shape == (SEQ_LEN, 19)
    everything, without = count_parameters(model)
    assert everything - without == 19 * 16
    assert without == sum(
        z.size for z in jax.tree.leaves(eqx.filter((model.stack, model.final_norm), eqx.is_array))
    )


def test_a_soft_cap_bounds_logits_and_0_is_off(model):
    """Elsewhere a cap of 0 makes all logits zero."""
    hidden = 100 * jax.random.normal(jax.random.key(0), (3, 16))
    plain = model.logits(hidden)
    assert jnp.abs(plain).max() > 30
    capped = dataclasses.replace(model, logit_soft_cap=30.0).logits(hidden)
    assert_close(capped, 30 * np.tanh(np.asarray(plain) / 30), "capped logits", tol=TOLERANCE)


def test_the_embedding_scale_is_rounded_to_bfloat16():
    """sqrt(2560) = 50.596 is 50.5 there, and RecurrentGemma's weights were trained with that."""
    model = build("rg_lru", width=2560, num_heads=None, embedding_scale=True, lru_width=32, mlp_width=1)
    _, (layer,) = eqx.filter_jit(capture)(model, tokens_of(0), names=("residual",))
    assert_close(
        layer["residual"], 50.5 * model.embedding.encode(tokens_of(0), jnp.float32), "embedding", tol=1e-6
    )


def test_a_model_without_a_vocabulary_is_refused():
    with pytest.raises(ConfigError) as caught:
        build(vocab_size=None)
    assert (
        str(caught.value) == "model.vocab_size is not set.\nSet it, or let the tokenizer set it by training."
    )


# Counts


def shapes_of(preset):
    config = presets.preset(preset).model
    return eqx.filter_eval_shape(lambda: LanguageModel.init(config, key=jax.random.key(0)))


# Computed by hand from table 2 of the paper: recurrent block 3 D R + 4 R + 2 R**2 / 16 + 3 R, attention
# 2 D**2 + 2 * 128 D, MLP 9 D**2, two norms a layer and one behind the last.
NON_EMBEDDING = {
    "hawk-100m": 93_690_624,
    "hawk-200m": 173_562_880,
    "hawk-400m": 374_552_064,
    "hawk-1.3b": 1_303_648_256,
    "hawk-3b": 2_995_571_712,
    "hawk-7b": 7_174_836_224,
    "hawk-14b": 14_808_601_600,
    "griffin-100m": 89_205_504,
    "griffin-200m": 162_903_040,
    "griffin-400m": 355_096_064,
    "griffin-1.3b": 1_242_425_344,
    "griffin-3b": 2_833_861_632,
    "griffin-7b": 6_788_762_624,
    "griffin-14b": 13_761_639_424,
    "mqa-100m": 80_235_264,
    "mqa-200m": 141_583_360,
    "mqa-400m": 316_184_064,
    "mqa-1.3b": 1_119_979_520,
    "mqa-3b": 2_510_441_472,
    "mqa-7b": 5_939_400_704,
    "mqa-14b": 11_587_179_520,
    # Published: 2.03B and 7.53B (RecurrentGemma report, table 1).
    "recurrentgemma-2b": 2_027_502_080,
    "recurrentgemma-9b": 7_531_401_216,
}


def test_every_preset_of_a_published_size_is_counted():
    assert set(presets.names()) - set(NON_EMBEDDING) == {
        f"{family}-{size}" for family in presets.FAMILIES for size in ("tiny", "shakespeare")
    }


@pytest.mark.parametrize("preset", NON_EMBEDDING)
def test_presets_have_the_published_number_of_parameters(preset):
    model, config = shapes_of(preset), presets.preset(preset).model
    everything, non_embedding = count_parameters(model)
    assert non_embedding == NON_EMBEDDING[preset]
    assert config.vocab_size is not None
    assert everything - non_embedding == config.vocab_size * config.width


@pytest.mark.parametrize("pattern", ["rg_lru", "cg_lru", "local_mqa[window_size=16]", "global_mqa"])
def test_flops_are_those_that_xla_counts(pattern):
    """Our count leaves out pointwise work: norms, activations, gates and softmax.

    XLA counts one turn of any loop. With 16 tokens and one gate block there is one, but for the recurrence,
    whose few operations a channel are within the bound.
    """
    blocks = {"rg_lru": {"gate_blocks": 1}, "cg_lru": {"gate_blocks": 1}} | {
        name: {"head_dim": 32} for name in ("local_mqa", "global_mqa")
    }
    model = build(pattern, width=128, lru_width=256, num_heads=None, vocab_size=512, blocks=blocks)
    arrays, static = eqx.partition(model, eqx.is_array)
    program = jax.jit(lambda arrays, tokens: eqx.combine(arrays, static)(tokens)[0])
    counted = (program.lower(arrays, tokens_of(0, 16)).compile().cost_analysis() or {})["flops"]
    assert model.flops(16) == pytest.approx(counted, rel=0.03)
