"""Small models with random weights: every tensor different, biases and norms included."""

import hashlib

import jax
import numpy as np
import pytest

from griffin_eqx.config import Config, ModelConfig, TrainConfig
from griffin_eqx.interop import weights as forms
from griffin_eqx.model import template
from griffin_eqx.training import naming


@pytest.fixture(scope="session")
def make_config():
    """Gives a configuration of the model's fields and a precision."""

    def make(precision="p=f32,c=f32,o=f32", **model):
        base = {"pattern": "rg_lru*2 local_mqa", "width": 16, "lru_width": 24, "vocab_size": 40}
        blocks = {
            "rg_lru": {"gate_blocks": 2},
            "local_mqa": {"head_dim": 8, "window_size": 5, "rope_fraction": 0.5},
        }
        return Config(
            model=ModelConfig(**{**base, "blocks": blocks, **model}), train=TrainConfig(precision=precision)
        )

    return make


@pytest.fixture(scope="session")
def random_model():
    """Gives a model whose tensors are random and depend on nothing but their names."""

    def make(config, scale=0.3):
        def draw(name):
            spec = specs[name]
            seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
            array = np.random.default_rng(seed).standard_normal(spec.shape, np.float32) * scale
            if name == "embedding.weight":
                array[config.model.vocab_size :] = 0
            return array.astype(spec.dtype)

        empty = template(config)
        specs = forms.tensor_specs(empty)
        return naming.assemble(empty, draw)

    return make


@pytest.fixture(scope="session")
def arrays():
    """Gives a model's tensors by name, as bytes: equal means bit-exact."""

    def of(model):
        return {
            name: (array.dtype, array.shape, array.tobytes()) for name, array in naming.flatten(model).items()
        }

    return of


@pytest.fixture(autouse=True)
def usual_promotion():
    """As users have it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
