"""A model over a mesh is the model on one device: loss and gradients, packed and padded rows."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from griffin_eqx.mesh import AXES, MeshShape, meshes
from griffin_eqx.model import LanguageModel, in_int8
from griffin_eqx.sharding import make_mesh, shardings
from griffin_eqx.training.objective import (
    TokenBatch,
    batch_hidden,
    batch_nll,
    evaluate_batch,
    init_batch_cache,
)
from tests.models import divisible


def packed_batch(rows: int, seq_len: int) -> TokenBatch:
    """Rows of two documents each, the second of another length in every row."""
    random = np.random.default_rng(0)
    tokens = random.integers(0, 257, (rows, seq_len)).astype(np.int32)
    cuts = random.integers(1, seq_len, rows)
    steps = np.arange(seq_len)
    positions = np.where(steps < cuts[:, None], steps, steps - cuts[:, None]).astype(np.int32)
    length = np.full(rows, seq_len - 3, np.int32)
    targets = np.where(steps < length[:, None], np.roll(tokens, -1, 1), -1).astype(np.int32)
    return TokenBatch(*map(jnp.asarray, (tokens, targets, positions, length)))


OTHERS = "cg_lru[mlp=none] local_mqa[mlp=none] global_mqa[mlp=none]"
"""An MLP is the same beside each: one layer shows it."""

PATTERN = f"rg_lru*2 {OTHERS}"
"""A run of two layers, so that parameters are stacked."""

FEW = [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)]
SHAPES = [
    shape if shape in FEW else pytest.param(shape, marks=pytest.mark.thorough)
    for shape in map(tuple, meshes(8))
]


def over(mesh, model, batch):
    """A model and a batch on a mesh; tokens that it does not divide lie whole."""
    arrays, static = eqx.partition(model, eqx.is_array)
    laid = eqx.combine(jax.device_put(arrays, shardings(model, mesh)), static)

    def place(z):
        axes = [
            axis if size % mesh.shape[axis] == 0 else None for axis, size in zip(AXES, z.shape, strict=False)
        ]
        return jax.device_put(z, NamedSharding(mesh, P(*axes)))

    return laid, jax.tree.map(place, batch)


def agree(one, many):
    """Sums are taken in another order: float32 keeps seven digits, and these lose less than two of them."""
    for here, there in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(there, here, rtol=0, atol=1e-5 * float(np.abs(here).max()))


@pytest.fixture(scope="module")
def judge():
    return eqx.filter_jit(eqx.filter_value_and_grad(lambda model, batch: batch_nll(model, batch, None)[0]))


@pytest.fixture(scope="module")
def alone(judge):
    """`(model, batch, (loss, gradients))` on one device."""
    model = LanguageModel.init(divisible(PATTERN).model, key=jax.random.key(0))
    batch = packed_batch(8, 32)
    return model, batch, judge(model, batch)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(MeshShape(*shape)))
def test_loss_and_gradients_are_those_of_one_device(judge, alone, shape):
    model, batch, expected = alone
    mesh = make_mesh(MeshShape(*shape))
    with jax.set_mesh(mesh):
        agree(expected, judge(*over(mesh, model, batch)))


def test_a_carried_cache_and_rows_that_leave_shards_uneven():
    """30 tokens on four shards that go on from a cache: the next cache, and gradients through both."""
    model = LanguageModel.init(divisible(f"rg_lru {OTHERS}").model, key=jax.random.key(0))
    batch, empty = packed_batch(4, 30), init_batch_cache(model, 4, 64)
    cache = eqx.filter_jit(lambda model, batch, cache: batch_hidden(model, batch, cache)[1])(
        model, batch, empty
    )
    # This one goes on with the document that the one before ends in, up to its own first border.
    last = batch.positions[:, 26:27]
    first = jnp.cumsum(batch.positions == 0, axis=1) == 1
    batch = batch._replace(positions=jnp.where(first, batch.positions + last + 1, batch.positions))

    def weighed(z):
        return (z * jnp.sin(jnp.arange(z.size, dtype=z.dtype)).reshape(z.shape)).sum()

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def both(moving, batch):
        nll, cache = batch_nll(moving[0], batch, moving[1])
        return nll + sum(map(weighed, jax.tree.leaves(eqx.filter(cache, eqx.is_inexact_array)))), cache

    expected = both((model, cache), batch)
    mesh = make_mesh(MeshShape(1, 4, 2))
    with jax.set_mesh(mesh):
        laid, (rows, carried) = over(mesh, model, (batch, cache))
        agree(expected, both((laid, carried), rows))


@pytest.mark.parametrize("narrow", [False, True])
def test_what_an_evaluation_counts_is_what_it_is_on_one_device(narrow):
    model = LanguageModel.init(divisible("rg_lru").model, key=jax.random.key(0))
    model = in_int8(model) if narrow else model
    batch = packed_batch(6, 32)  # rows that `data` does not divide
    judge = eqx.filter_jit(lambda model, batch: evaluate_batch(model, batch, None)[:2])
    nll, predicted = judge(model, batch)
    mesh = make_mesh(MeshShape(4, 1, 2))
    with jax.set_mesh(mesh):
        there_nll, there_predicted = judge(*over(mesh, model, batch))
    agree(nll, there_nll)
    np.testing.assert_array_equal(predicted, there_predicted)
