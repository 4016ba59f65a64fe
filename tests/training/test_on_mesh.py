"""A run over a mesh is the run on one device, and goes on over another mesh with the same bits."""

import json
import math

import equinox as eqx
import jax
import numpy as np
import pytest

from griffin_eqx.cli import main
from griffin_eqx.mesh import MeshError, MeshShape
from griffin_eqx.sharding import place
from griffin_eqx.training import checkpoints
from griffin_eqx.training.loop import train
from griffin_eqx.training.metrics import read_metrics
from griffin_eqx.training.on_mesh import OnMesh
from griffin_eqx.training.step import init_state
from tests.models import divisible

WHOLE, SPLIT = MeshShape(data=8), MeshShape(2, 2, 2)


@pytest.fixture(scope="module")
def config(make_config):
    """Eight rows of 30 tokens, carried from batch to batch; no mesh divides 30 by 4 or 8."""
    model = divisible("rg_lru*2 local_mqa").model
    small = {"width": 16, "lru_width": 16, "mlp_width": 16, "vocab_size": 257}
    blocks = {"rg_lru": {"gate_blocks": 8}, "local_mqa": {"head_dim": 2, "window_size": 8}}
    return make_config(
        pattern=model.pattern,
        blocks=blocks,
        seq_len=30,
        batch_size=8,
        carry=True,
        steps=4,
        checkpoint_every=2,
        eval_every=0,
        **small,
    )


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """The run on one device."""
    path = tmp_path_factory.mktemp("alone") / "run"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert stopped(config, path, 3) == 3
    return path


def stopped(config, path, after, **placed):
    """Trains on until so many steps are done: what comes at a run's end need not be compiled here."""
    return train(config, run_dir=path, quiet=True, stop=lambda step: step == after, **placed).step


def losses(path):
    return [line["loss"] for line in read_metrics(path / "metrics.jsonl") if line["kind"] == "train"]


def test_a_run_over_meshes_is_that_of_one_device(config, alone, tmp_path):
    path = tmp_path / "run"
    assert stopped(config, path, 2, mesh=WHOLE) == 2
    assert stopped(config, path, 3, mesh=MeshShape(1, 4, 2)) == 3
    assert json.loads((path / "env.json").read_text())["mesh"] == {"data": 8, "sequence": 1, "model": 1}
    for one, many in zip(losses(alone), losses(path), strict=True):
        # Adam's first steps divide by a root of the gradient itself: last digits count for more than in the loss.
        assert math.isclose(one, many, rel_tol=1e-4)


def test_a_state_goes_on_elsewhere_bit_for_bit(config, alone):
    key = jax.random.key(0)
    template = eqx.filter_eval_shape(lambda: init_state(config, key=key))
    state = checkpoints.restore(alone / "checkpoints", 3, template, config.model)
    over = OnMesh(WHOLE, config).lay(state)
    there = OnMesh(SPLIT, config).lay(over)
    for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(there), strict=True):
        assert len(after.sharding.device_set) == 8
        np.testing.assert_array_equal(before, after)
    told = place(state.model, SPLIT)
    laid = jax.tree.leaves(eqx.filter(there.model, eqx.is_array))
    for each, array in zip(told, laid, strict=True):
        assert {piece.data.nbytes for piece in array.addressable_shards} == {each.bytes_per_device}
    carried = jax.tree.leaves(there.cache)
    assert all(array.sharding.spec[0] == "data" for array in carried)


def test_a_new_state_is_never_whole_on_a_device(config):
    key = jax.random.key(0)
    over = OnMesh(SPLIT, config).built(lambda: init_state(config, key=key))
    for one, many in zip(jax.tree.leaves(init_state(config, key=key)), jax.tree.leaves(over), strict=True):
        np.testing.assert_allclose(one, many, rtol=0, atol=1e-6)
    wide = over.model.embedding.weight
    assert isinstance(wide, jax.Array)
    assert {piece.data.size for piece in wide.addressable_shards} == {wide.size // 4}


def test_tokens_that_a_mesh_does_not_divide_are_followed_by_padding(config):
    from griffin_eqx.data import Batch

    rows = np.arange(240, dtype=np.int32).reshape(8, 30)
    batch = Batch(rows, rows, rows % 7, np.full(8, 30, np.int32))
    laid = OnMesh(MeshShape(1, 4, 2), config).batch(batch)
    assert laid.tokens.shape == (8, 32)
    np.testing.assert_array_equal(laid.tokens[:, :30], rows)
    assert (np.asarray(laid.targets[:, 30:]) == -1).all()
    np.testing.assert_array_equal(laid.length, 30)


@pytest.mark.parametrize(
    ("overrides", "shape", "part"),
    [
        ({"batch_size": 6}, WHOLE, "data.batch_size=6 over data=8"),
        ({"accumulation": 2}, WHOLE, r"data.batch_size=8 in 2 parts .* over data=8"),
        ({}, MeshShape(data=3), "data.batch_size=8 over data=3"),
        ({"batch_size": 64}, MeshShape(data=64), "has 64 devices and this program 8"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused_before_anything_is_written(
    make_config, tmp_path, overrides, shape, part
):
    config = make_config(**{"batch_size": 8, **overrides})
    with pytest.raises(MeshError, match=part):
        train(config, run_dir=tmp_path / "run", quiet=True, mesh=shape)
    assert not (tmp_path / "run").exists()


def test_the_command_says_what_is_wrong_with_a_mesh(capsys):
    assert main(["train", "--mesh", "data=2,rows=4"]) == 2
    assert "There is no mesh axis 'rows'" in capsys.readouterr().err
