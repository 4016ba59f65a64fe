"""What a block, the embedding and the loss communicate over a mesh, read from compiled programs."""

from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from griffin_eqx.block import SequenceLayout
from griffin_eqx.mesh import MeshShape
from griffin_eqx.model import LanguageModel, in_int8
from griffin_eqx.sampling.on_mesh import OnMesh
from griffin_eqx.sampling.session import feed
from griffin_eqx.sharding import constrain, make_mesh, rows_axis, shardings
from griffin_eqx.training.objective import TokenBatch, batch_nll
from tests.meshes import collectives
from tests.models import divisible
from tests.test_sharded_model import packed_batch

ROWS, SEQ_LEN, WIDTH, VOCABULARY = 8, 32, 64, 1024
FLOAT = 4
STREAM = ROWS * SEQ_LEN * WIDTH * FLOAT
"""Bytes of the residual stream."""


def laid(tree: Any, mesh: Any) -> Any:
    arrays, static = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.device_put(arrays, shardings(tree, mesh)), static)


@cache
def communicated(part: str, shape: tuple[int, int, int]) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """What a block, or the MLP beside it, communicates: forward alone, and forward and backward."""
    config = divisible("rg_lru" if part == "mlp" else part)
    (layer,) = LanguageModel.init(config.model, key=jax.random.key(0)).stack.layers()
    mesh = make_mesh(MeshShape(*shape))
    block = laid(layer.mlp if part == "mlp" else layer.temporal, mesh)
    parameters, static = eqx.partition(block, eqx.is_array)
    x = jax.device_put(jnp.ones((ROWS, SEQ_LEN, WIDTH)), NamedSharding(mesh, P("data", "sequence", None)))
    steps = jnp.tile(jnp.arange(SEQ_LEN), (ROWS, 1)) % 20
    positions = jax.device_put(steps, NamedSharding(mesh, P("data", "sequence")))

    def row(parameters, x, positions):
        block: Any = eqx.combine(parameters, static)
        x = constrain(x, "seq_len", "width")
        if part == "mlp":
            return constrain(block(x), "seq_len", "width")
        return constrain(block(x, SequenceLayout(positions, jnp.asarray(SEQ_LEN)))[0], "seq_len", "width")

    def forward(parameters, x, positions):
        rows: Any = jax.vmap(row, in_axes=(None, 0, 0), spmd_axis_name=rows_axis(ROWS))
        return rows(parameters, x, positions)

    def both(parameters, x, positions, dy):
        y, pull = jax.vjp(lambda parameters, x: forward(parameters, x, positions), parameters, x)
        dparameters, dx = pull(dy)
        return y, dx, jax.lax.with_sharding_constraint(dparameters, shardings(parameters, mesh))

    with jax.set_mesh(mesh):
        return collectives(forward, parameters, x, positions), collectives(both, parameters, x, positions, x)


def test_an_mlp_sums_the_stream_once_forward_and_its_two_branches_backward():
    forward, both = communicated("mlp", (1, 1, 8))
    assert forward == {"all-reduce": [STREAM]}
    # Branch by branch on CPU; the compilers of accelerators add the branches up before they communicate.
    assert both.keys() == {"all-reduce"}
    assert sum(both["all-reduce"]) == 3 * STREAM


def test_a_recurrent_block_communicates_what_an_mlp_does():
    """The paper's section 4.1: gates, convolution and recurrence need nothing."""
    assert communicated("rg_lru", (1, 1, 8)) == communicated("mlp", (1, 1, 8))


@pytest.mark.parametrize("part", ["local_mqa", "global_mqa"])
def test_attention_adds_the_cotangents_of_the_keys_that_heads_share(part):
    forward, both = communicated(part, (1, 1, 8))
    assert forward == {"all-reduce": [STREAM]}
    keys_and_values = 2 * ROWS * SEQ_LEN * 8 * FLOAT
    assert both.keys() == {"all-reduce"}
    # The keys' part of the stream's cotangent may be summed apart.
    assert sum(both["all-reduce"]) <= 3 * STREAM + 2 * keys_and_values


def test_a_complex_block_exchanges_its_halves_and_nothing_else():
    forward, both = communicated("cg_lru", (1, 1, 8))
    ours = STREAM // 8
    # There and back; a shard's channels in two pieces, and then to their place.
    assert forward == {"all-reduce": [STREAM], "all-to-all": 2 * [ours], "collective-permute": 2 * [ours]}
    assert sum(both.pop("all-reduce")) == 3 * STREAM
    assert both == {"all-to-all": 4 * [ours], "collective-permute": 4 * [ours]}


def test_over_the_sequence_a_recurrent_block_exchanges_a_pair_a_shard_and_a_halo():
    forward, both = communicated("rg_lru", (1, 8, 1))
    pairs, resets, halo = 8 * 2 * ROWS * WIDTH * FLOAT, 8 * ROWS, 3 * ROWS * WIDTH * FLOAT
    assert forward == {"all-gather": [resets, pairs], "collective-permute": [halo]}
    parameters = both.pop("all-reduce")
    assert both == {"all-gather": [resets, pairs, pairs], "collective-permute": [halo, halo]}
    block = LanguageModel.init(divisible("rg_lru").model, key=jax.random.key(0)).stack.units[0][0].temporal
    assert sum(parameters) == sum(z.nbytes for z in jax.tree.leaves(eqx.filter(block, eqx.is_array)))


def test_nothing_of_a_model_is_ever_gathered_but_parameters():
    """Nor by the embedding or the loss, which the compiler would lay out anew."""
    shape, batch = MeshShape(2, 2, 2), packed_batch(ROWS, 4 * SEQ_LEN)
    mesh = make_mesh(shape)
    model = laid(LanguageModel.init(divisible("rg_lru local_mqa").model, key=jax.random.key(0)), mesh)
    arrays, static = eqx.partition(model, eqx.is_array)
    rows = TokenBatch(
        *(jax.device_put(z, NamedSharding(mesh, P(*("data", "sequence")[: z.ndim]))) for z in batch)
    )

    def loss(arrays, batch):
        return batch_nll(eqx.combine(arrays, static), batch, None)[0]

    def step(arrays, batch):
        value, slopes = jax.value_and_grad(loss)(arrays, batch)
        return value, jax.lax.with_sharding_constraint(slopes, shardings(arrays, mesh))

    with jax.set_mesh(mesh):
        found = collectives(step, arrays, rows)
    widest = max(z.nbytes for z in jax.tree.leaves(arrays)) // shape.model
    assert max(found.pop("all-gather")) <= widest
    # Sums of a device's own tokens, at most three in one piece.
    own = ROWS * 4 * SEQ_LEN * WIDTH * FLOAT // (shape.data * shape.sequence)
    assert max(found.pop("all-reduce")) <= max(3 * own, widest + FLOAT)
    # Of the loss: the gradient of the output matrix.
    assert max(found.pop("reduce-scatter")) <= widest
    halos = 2 * 9 * (ROWS // 2) * 2 * 8 * FLOAT
    assert max(found.pop("collective-permute")) <= halos
    assert not found


@cache
def to_write_a_token(shape: tuple[int, int, int], narrow: bool) -> dict[str, list[int]]:
    """What a model of one recurrent layer communicates, which every row takes through once."""
    config = divisible("rg_lru").model
    model = LanguageModel.init(msgspec.structs.replace(config, vocab_size=VOCABULARY), key=jax.random.key(0))
    on_mesh = OnMesh(MeshShape(*shape), model)
    model = on_mesh.model(in_int8(model) if narrow else model)
    state = on_mesh.empty(model, ROWS, 16)
    token, one = on_mesh.tokens(np.zeros((ROWS, 1), np.int32)), on_mesh.rows(np.ones(ROWS, np.int32))
    arrays, static = eqx.partition(model, eqx.is_array)
    with on_mesh.in_effect():
        return collectives(
            lambda arrays, state, token, one: feed(eqx.combine(arrays, static), state, token, one),
            arrays,
            state,
            token,
            one,
        )


@pytest.mark.parametrize("narrow", [False, True])
def test_over_model_a_token_sums_the_stream_for_each_half_of_a_layer_and_gathers_its_scores(narrow):
    found = to_write_a_token((1, 1, 8), narrow)
    stream = ROWS * WIDTH * FLOAT
    # The embedding's lookup, the recurrent block, the MLP.
    assert found == {"all-reduce": [stream] * 3, "all-gather": [ROWS * VOCABULARY * FLOAT]}


def test_over_data_matrices_of_8_bits_are_gathered_as_they_are():
    wide, narrow = (to_write_a_token((8, 1, 1), narrow) for narrow in (False, True))
    assert wide.keys() == narrow.keys() == {"all-gather"}
    # Scales, gates and vectors stay in float32.
    assert sum(narrow["all-gather"]) < 0.3 * sum(wide["all-gather"])
