"""Muon: matrices inside of the layers move along their gradient's singular vectors, all else as with AdamW."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest

from griffin_eqx.config import OptimizerConfig
from griffin_eqx.mesh import MeshShape
from griffin_eqx.model import LanguageModel
from griffin_eqx.sharding import place
from griffin_eqx.training.loop import train
from griffin_eqx.training.metrics import read_metrics
from griffin_eqx.training.naming import flatten
from griffin_eqx.training.optimizer import MUON_RMS, make_optimizer, orthogonalised
from griffin_eqx.training.step import init_state, make_step
from tests.models import divisible

PATTERN = "rg_lru*3 cg_lru local_mqa"
BLOCKS = {"rg_lru": {"gate_blocks": 2}, "cg_lru": {"gate_blocks": 2}, "local_mqa": {"head_dim": 8}}
MATRICES = (
    "gate.weight",
    "into_lru.weight",
    "up.weight",
    "down.weight",
    "out.weight",
    "query.weight",
    "key.weight",
)


@pytest.fixture(scope="module")
def first_updates(make_config):
    """Gradients by name, the first updates for them of Muon and of AdamW, and which parameters are Muon's."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return updates_of_both(make_config)


def updates_of_both(make_config):
    found = []
    for name in ("muon", "adamw"):
        config = make_config(
            name=name, pattern=PATTERN, blocks=BLOCKS, warmup_steps=0, clip_norm=0.0, weight_decay=0.0
        )
        model: Any = LanguageModel.init(config.model, key=jax.random.key(0))
        keys = iter(jax.random.split(jax.random.key(1), 200))
        grads = jax.tree.map(lambda leaf: 3 * jax.random.normal(next(keys), leaf.shape), model)  # noqa: B023
        optimizer = make_optimizer(config.optimizer, 10)
        updates, _ = optimizer.update(grads, optimizer.init(model), model, peak=jnp.asarray(0.5))
        found.append(flatten({"model": updates}))
        marks = jax.tree.map(lambda mark, leaf: np.full(leaf.shape, mark), orthogonalised(model), model)
    named = {name: bool(mark.any()) for name, mark in flatten({"model": marks}).items()}
    return flatten({"model": grads}), *found, named


@pytest.mark.core
def test_the_matrices_inside_of_the_layers_are_its_own(first_updates):
    *_, named = first_updates
    for name, mine in named.items():
        matrix = name.endswith("weight") and "embedding" not in name and ".conv." not in name
        assert mine == matrix, name
    assert all(any(name.endswith(end) for name, mine in named.items() if mine) for end in MATRICES)


@pytest.mark.core
def test_a_matrix_moves_against_its_singular_vectors_and_the_rest_as_with_adamw(first_updates):
    grads, muon, adamw, named = first_updates
    for name, mine in named.items():
        if not mine:
            np.testing.assert_array_equal(muon[name], adamw[name], err_msg=name)
            continue
        # Blocks of a diagonal each on their own.
        for grad, update in zip(
            grads[name].reshape(-1, *grads[name].shape[-2:]),
            muon[name].reshape(-1, *grads[name].shape[-2:]),
            strict=True,
        ):
            u, s, vt = np.linalg.svd(grad.astype(np.float64), full_matrices=False)
            turned = -u.T @ update @ vt.T / (0.5 * MUON_RMS * max(grad.shape) ** 0.5)
            moved = np.diag(turned)
            # Off the diagonal is what five rounds of float32 products leave.
            np.testing.assert_allclose(turned, np.diag(moved), atol=2e-3, err_msg=name)
            # Five steps of Newton-Schulz bring singular values to about 1 and not nearer; those near zero take more.
            large = s > 0.05 * np.linalg.norm(s)
            assert large.any()
            assert np.all((moved[large] > 0.6) & (moved[large] < 1.3)), (name, moved)


@pytest.mark.core
def test_how_layers_are_stacked_changes_no_update(make_config, make_batch):
    # Freezing the middle layer's norm cuts the stack of five layers into three parts.
    results = []
    for freeze in ((), ("layers.2.mlp_norm",)):
        config = make_config(
            name="muon", pattern="rg_lru*5", warmup_steps=0, clip_norm=0.0, eps=1.0, freeze=freeze
        )
        state = init_state(config, key=jax.random.key(0))
        results.append(flatten(make_step(config)(state, make_batch(config), jnp.zeros(4, bool))[0]))
    free, cut = results
    for name in cut:
        if name.startswith("model.") and name != "model.layers.2.mlp_norm.scale":
            # Newton-Schulz makes more of what rounding did to a gradient's smallest singular values.
            np.testing.assert_allclose(cut[name], free[name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.core
def test_a_stop_changes_nothing(tmp_path, make_config):
    config = make_config(name="muon", pattern="rg_lru local_mqa", freeze=("layers.0.mlp",), steps=6)
    assert train(config, run_dir=tmp_path / "straight", quiet=True).finished
    assert not train(config, run_dir=tmp_path / "stopped", quiet=True, stop=lambda step: step >= 3).finished
    assert train(config, run_dir=tmp_path / "stopped", quiet=True).finished
    losses = [
        [line["loss"] for line in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("straight", "stopped")
    ]
    assert losses[0] == losses[1]


def test_its_momentum_lies_on_a_mesh_as_the_parameters_do():
    base = divisible("rg_lru*2 local_mqa")
    config = msgspec.structs.replace(base, optimizer=OptimizerConfig(name="muon"))
    state = eqx.filter_eval_shape(lambda: init_state(config, key=jax.random.key(0)))
    mesh = MeshShape(2, 1, 4)
    parameters = {each.path: each.spec for each in place(state.model, mesh)}
    moments = [each for each in place(state.optimizer, mesh) if each.shape]
    # Momentum for each matrix, two moments for everything else, and the coefficients of Newton-Schulz.
    matrices = sum(jax.tree.leaves(orthogonalised(state.model)))
    assert len(moments) == matrices + 2 * (len(parameters) - matrices) + 1
    for each in moments:
        (path,) = [path for path in parameters if each.path.endswith(path)] or [None]
        assert each.spec == (parameters[path] if path else (None, None)[: len(each.shape)]), each
