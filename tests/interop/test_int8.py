"""Folders with matrices of 8 bits: rounded once, read as they are, widened when asked, refused where they cannot be."""

import json

import jax
import msgspec
import numpy as np
import pytest

import griffin_eqx as gx
from griffin_eqx import interop
from griffin_eqx.errors import CheckpointError, ConfigError, WeightsError
from griffin_eqx.model import in_int8
from griffin_eqx.training import naming
from griffin_eqx.training.start import read_start

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def config(make_config):
    return make_config(pattern="R*2 L R*2 L", vocab_size=257, embedding_scale=True, logit_soft_cap=30.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, config, random_model):
    """`(the model's folder, that of its 8 bits)`."""
    here = tmp_path_factory.mktemp("weights")
    wide = interop.save(random_model(config), config, here / "wide")
    return wide, interop.convert(wide, here / "narrow", to="griffin", dtype="int8")


def test_what_is_read_is_the_model_rounded_in_memory(folders, config, random_model, arrays):
    _, narrow = folders
    loaded = gx.load(narrow)
    rounded = in_int8(random_model(config))
    assert arrays(loaded.model) == arrays(rounded)
    assert jax.tree.structure(loaded.model) == jax.tree.structure(rounded)
    assert str(loaded.model.policy) == "p=int8,c=f32,o=f32,s=f32"
    tensors = json.loads((narrow / "weights.json").read_text())["tensors"]
    assert tensors["layers.2.temporal.query.weight.values"] == {
        "shape": [16, 16],
        "dtype": "I8",
        "sha256": tensors["layers.2.temporal.query.weight.values"]["sha256"],
    }
    assert tensors["layers.0.temporal.input_gate.weight"]["dtype"] == "F32"
    sizes = [(folder / "model.safetensors").stat().st_size for folder in folders]
    assert sizes[1] < 0.6 * sizes[0]  # gates, norms and headers are much of so small a model


def test_a_model_in_memory_is_saved_as_it_is(folders, tmp_path, config, random_model):
    saved = interop.save(in_int8(random_model(config)), config, tmp_path / "saved")
    assert (saved / "model.safetensors").read_bytes() == (folders[1] / "model.safetensors").read_bytes()


@pytest.mark.parametrize("to", ["hf", "deepmind-torch", "griffin"])
def test_it_goes_to_other_programs_widened_and_only_when_asked(folders, tmp_path, to, config, random_model):
    _, narrow = folders
    if to != "griffin":
        for dtype in (None, "int8"):
            with pytest.raises(WeightsError, match="no place in other programs' formats"):
                interop.convert(narrow, tmp_path / "out", to=to, dtype=dtype)
        assert not (tmp_path / "out").exists()
    out = interop.convert(narrow, tmp_path / "out", to=to, dtype="f32")
    like = config.model if to == "deepmind-torch" else None
    back = naming.flatten(interop.to_model(interop.open_weights(out, like=like)))
    exact = naming.flatten(random_model(config))
    assert set(back) == set(exact)
    for name, array in exact.items():
        # Half a step of the largest entry of any channel.
        assert np.abs(back[name] - array).max() <= np.abs(array).max() / 127 * 0.51, name


def test_it_writes_and_is_judged_and_is_not_trained_on(folders, make_config, tmp_path):
    _, narrow = folders
    prompt = [[1, 2, 3, 4, 5, 6, 7]]
    assert len(gx.generate(gx.load(narrow).model, prompt, max_new_tokens=8, temperature=0)[0]) == 8
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be, that is the question. " * 8)
    one, other = (
        gx.evaluate(folder, text, tokenizer="bytes", seq_len=32, batch_size=2).sets[0].loss
        for folder in folders
    )
    assert one is not None
    assert other is not None
    assert 0 < abs(one - other) < 0.02 * one
    base = make_config(pattern="R*2 L R*2 L", vocab_size=257, embedding_scale=True, logit_soft_cap=30.0)
    started = msgspec.structs.replace(base.train, init_from=str(narrow))
    with pytest.raises(CheckpointError, match="8 bits, too coarse to be trained on"):
        read_start(msgspec.structs.replace(base, train=started))
    with pytest.raises(ConfigError, match="weights of 8 bits are not trained"):
        gx.train(make_config(pattern="rg_lru", precision="p=int8"), run_dir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
