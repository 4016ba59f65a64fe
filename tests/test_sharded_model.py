"""A model over a mesh is the model on one device: loss and gradients, packed and padded rows."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from griffin_eqx.mesh import MeshShape
from griffin_eqx.model import LanguageModel
from griffin_eqx.sharding import make_mesh, shardings
from griffin_eqx.training.objective import TokenBatch, batch_nll
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


@pytest.fixture(scope="module")
def judge():
    return eqx.filter_jit(eqx.filter_value_and_grad(lambda model, batch: batch_nll(model, batch, None)[0]))


@pytest.fixture(scope="module")
def alone(judge):
    """`(model, batch, loss, gradients)` on one device; a run of two layers, so that parameters are stacked."""
    config = divisible("rg_lru*2 cg_lru local_mqa global_mqa")
    model = LanguageModel.init(config.model, key=jax.random.key(0))
    batch = packed_batch(8, 32)
    return model, batch, *judge(model, batch)


@pytest.mark.parametrize(
    "shape", [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)], ids=lambda shape: str(MeshShape(*shape))
)
def test_loss_and_gradients_are_those_of_one_device(judge, alone, shape):
    model, batch, loss, gradients = alone
    mesh = make_mesh(MeshShape(*shape))
    arrays, static = eqx.partition(model, eqx.is_array)
    laid = eqx.combine(jax.device_put(arrays, shardings(model, mesh)), static)
    rows = TokenBatch(
        *(jax.device_put(z, NamedSharding(mesh, P(*("data", "sequence")[: z.ndim]))) for z in batch)
    )
    with jax.set_mesh(mesh):
        there_loss, there = judge(laid, rows)
    # Sums are taken in another order: float32 keeps seven digits, and these sums lose less than two of them.
    assert math.isclose(loss, there_loss, rel_tol=1e-5)
    for one, many in zip(jax.tree.leaves(gradients), jax.tree.leaves(there), strict=True):
        np.testing.assert_allclose(many, one, rtol=0, atol=1e-5 * float(jnp.abs(one).max()))
