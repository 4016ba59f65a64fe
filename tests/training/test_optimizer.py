import equinox as eqx
import jax
import numpy as np
import pytest

from griffin_eqx.config import OptimizerConfig
from griffin_eqx.model import LanguageModel
from griffin_eqx.training.naming import flatten
from griffin_eqx.training.optimizer import decays, schedule

pytestmark = pytest.mark.core


def rates(config, steps):
    part = schedule(config, steps)
    return lambda step: config.learning_rate * np.asarray(part(step)).item()


def test_the_learning_rate_starts_peaks_and_ends_where_the_config_says():
    config = OptimizerConfig(learning_rate=0.5, warmup_steps=10, final_fraction=0.1)
    rate = rates(config, 100)
    assert rate(0) == 0
    assert rate(5) == pytest.approx(0.25)
    assert rate(10) == 0.5
    assert rate(100) == pytest.approx(0.05)
    assert all(rate(i) >= rate(i + 1) for i in range(10, 100))


def test_without_warm_up_the_first_step_has_the_peak():
    rate = rates(OptimizerConfig(learning_rate=0.5, warmup_steps=0), 100)
    assert rate(0) == 0.5


def test_a_warm_up_longer_than_the_run_is_cut():
    assert rates(OptimizerConfig(learning_rate=0.5, warmup_steps=50), 10)(10) == 0.5


@pytest.mark.parametrize(
    "pattern", ["rg_lru*3 local_mqa", "rg_lru cg_lru", "cg_lru*2", "global_mqa[head_dim=8]*2"]
)
@pytest.mark.parametrize("biases", [False, True])
def test_matrices_decay_and_nothing_else_does(make_config, pattern, biases):
    blocks = {"rg_lru": {"gate_blocks": 2}, "cg_lru": {"gate_blocks": 2}, "local_mqa": {"head_dim": 8}}
    config = make_config(pattern=pattern, biases=biases, blocks=blocks).model
    model = eqx.filter_eval_shape(lambda: LanguageModel.init(config, key=jax.random.key(0)))
    marks = decays(model)
    # As arrays of the parameters' shapes, so that they can be named.
    shown = jax.tree.map(lambda mark, leaf: np.full(leaf.shape, mark), marks, model)
    named = {name: bool(mark.any()) for name, mark in flatten({"model": shown}).items()}
    assert named["model.embedding.weight"]
    for name, decaying in named.items():
        spared = name.endswith(("scale", "bias", "a_param", "theta"))
        assert decaying != spared, name
