"""Matrices of 8 bits: what rounding does, and a model that has them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import griffin_eqx as gx
from griffin_eqx.config import ModelConfig
from griffin_eqx.model import count_parameters, in_int8
from griffin_eqx.nn import Int8Matrix, Linear, Policy
from griffin_eqx.pattern import Value

pytestmark = pytest.mark.core

BLOCKS: dict[str, dict[str, Value]] = {
    "rg_lru": {"gate_blocks": 2},
    "local_mqa": {"head_dim": 8, "window_size": 6},
}
MODEL = ModelConfig(pattern="rg_lru*2 local_mqa", width=16, lru_width=24, vocab_size=130, blocks=BLOCKS)

matrices = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=3, max_side=6),
    elements=st.floats(-(2.0**40), 2.0**40, width=32, allow_subnormal=False),
)


@given(matrices, st.booleans())
def test_every_entry_is_within_half_a_step_of_its_channel(matrix, inputs_first):
    found = Int8Matrix.of(jnp.asarray(matrix), axes=("a", "b"), inputs_first=inputs_first)
    assert found.shape == matrix.shape
    assert int(jnp.abs(found.values.astype(jnp.int32)).max(initial=0)) <= 127
    channels_first = np.swapaxes(matrix, -1, -2) if inputs_first else matrix
    step = np.abs(channels_first).max(-1, keepdims=True).astype(np.float64) / 127
    back = np.asarray(found.values, np.float64) * np.asarray(found.scale, np.float64)[..., None]
    assert (np.abs(back - channels_first) <= step * 0.50001 + 1e-37).all()


def test_a_channel_of_zeros_stays_zero_and_the_largest_entry_is_kept():
    found = Int8Matrix.of(jnp.asarray([[0.0, 0.0], [-3.0, 1.0]]), axes=("a", "b"), inputs_first=False)
    assert found.values.tolist() == [[0, 0], [-127, 42]]
    np.testing.assert_allclose(jnp.asarray(found), [[0, 0], [-3, 42 * 3 / 127]], rtol=1e-6)
    assert found.T.shape == (2, 2)


def test_a_linear_layer_is_that_of_the_widened_matrix_whoever_reads_it():
    layer = Linear.init(6, 4, axes=("width", "lru_width"), key=jax.random.key(0))
    weight: Any = Int8Matrix.of(jnp.asarray(layer.weight), axes=layer.axes, inputs_first=True)
    narrow = eqx.tree_at(lambda layer: layer.weight, layer, weight)
    x = jax.random.normal(jax.random.key(1), (3, 6))
    expected = x @ jnp.asarray(weight)
    np.testing.assert_allclose(narrow(x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jnp.einsum("ti,io->to", x, weight), expected, rtol=1e-6)
    # Where a block of its own asks an array for these, the matrix must have them.
    assert (weight.size, weight.ndim, weight.shape) == (24, 2, (6, 4))
    np.testing.assert_array_equal(np.asarray(weight), jnp.asarray(weight))
    np.testing.assert_array_equal(weight[2:, 1], jnp.asarray(weight)[2:, 1])
    np.testing.assert_allclose(x @ weight, expected, rtol=1e-6)  # as a stranger's block may write it
    assert narrow(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_a_model_drawn_in_8_bits_is_the_model_rounded():
    plain = gx.LanguageModel.init(MODEL, key=jax.random.key(0))
    drawn = gx.LanguageModel.init(MODEL, policy=Policy.parse("p=int8"), key=jax.random.key(0))
    rounded = in_int8(plain)
    for one, other in zip(jax.tree.leaves(drawn), jax.tree.leaves(rounded), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert jax.tree.structure(drawn) == jax.tree.structure(rounded)
    assert count_parameters(drawn) == count_parameters(plain)
    again = jax.tree.leaves(in_int8(drawn))
    assert all(one is other for one, other in zip(again, jax.tree.leaves(drawn), strict=True))
    wide = {jnp.dtype(leaf.dtype) for leaf in jax.tree.leaves(eqx.filter(drawn, eqx.is_array))}
    assert wide == {jnp.dtype(jnp.int8), jnp.dtype(jnp.float32)}


def test_it_scores_writes_and_steps_as_the_model_of_its_widened_matrices():
    narrow = gx.LanguageModel.init(MODEL, policy=Policy.parse("p=int8"), key=jax.random.key(0))

    def widened(node):
        return node.astype(jnp.float32) if isinstance(node, Int8Matrix) else node

    with jax.numpy_rank_promotion("allow"):
        wide = jax.tree.map(
            lambda node: (
                jax.vmap(widened)(node) if isinstance(node, Int8Matrix) and node.ndim == 3 else widened(node)
            ),
            narrow,
            is_leaf=lambda node: isinstance(node, Int8Matrix),
        )
    tokens = jnp.arange(1, 30)
    one, other = (eqx.filter_jit(model)(tokens)[0] for model in (narrow, wide))
    # Sums of at most 48 products, in another order.
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11]]
    written = [gx.generate(model, prompts, max_new_tokens=12, temperature=0) for model in (narrow, wide)]
    np.testing.assert_array_equal(written[0], written[1])


def test_a_precision_may_say_int8_of_parameters_alone():
    assert str(Policy.parse("p=int8,c=bf16")) == "p=int8,c=bf16,o=f32,s=f32"
    with pytest.raises(gx.ConfigError, match="cannot read 'c=int8'"):
        Policy.parse("c=int8")


def test_weights_of_8_bits_are_placed_as_those_of_float32():
    model = gx.LanguageModel.init(MODEL, policy=Policy.parse("p=int8"), key=jax.random.key(0))
    from griffin_eqx.mesh import MeshShape
    from griffin_eqx.sharding import place

    placed = {found.path: found for found in place(model, MeshShape(data=2, model=2))}
    values = placed[".stack.units[0][0].temporal.into_lru.weight.values"]
    assert values.axes == ("num_layers", "lru_width", "width")
    assert values.spec == (None, "model", "data")
    assert placed[".embedding.weight.scale"].axes == ("vocab_rows",)
