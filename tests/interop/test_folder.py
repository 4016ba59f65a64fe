"""Our folder of weights: what goes in comes out bit for bit, and whatever is wrong with it is one typed error."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
import safetensors.flax
from hypothesis import given, settings
from hypothesis import strategies as st

import griffin_eqx as gx
from griffin_eqx import registry
from griffin_eqx.block import CacheGrowth
from griffin_eqx.errors import GriffinError, WeightsError
from griffin_eqx.interop import folder, save
from griffin_eqx.nn import Linear
from griffin_eqx.training import naming

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def config(make_config):
    return make_config(pattern="R*2 L R*2 L", precision="p=bf16,c=f32,o=f32")


@pytest.fixture(scope="module")
def saved(tmp_path_factory, config, random_model):
    path = tmp_path_factory.mktemp("weights") / "w"
    return save(random_model(config), config, path, step=7)


@given(
    pattern=st.lists(st.sampled_from(["R", "L", "G", "C", "R[mlp=none]"]), min_size=1, max_size=7),
    precision=st.sampled_from(["p=f32", "p=bf16,c=bf16", "p=f16"]),
    vocab_size=st.integers(1, 130),
    biases=st.booleans(),
)
@settings(max_examples=10)
def test_every_model_comes_back_bit_for_bit(
    tmp_path_factory, make_config, random_model, arrays, pattern, precision, vocab_size, biases
):
    blocks = {name: {"head_dim": 8} for name in ("local_mqa", "global_mqa")}
    blocks |= {name: {"gate_blocks": 2} for name in ("rg_lru", "cg_lru")}
    config = make_config(
        pattern=" ".join(pattern), precision=precision, vocab_size=vocab_size, biases=biases, blocks=blocks
    )
    model = random_model(config)
    path = save(model, config, tmp_path_factory.mktemp("weights") / "w")
    loaded = gx.load(path)
    assert arrays(loaded.model) == arrays(model)
    assert jax.tree.structure(loaded.model) == jax.tree.structure(model)
    assert str(loaded.config.model.pattern) == str(registry.resolve(config.model.pattern))


def test_the_folder_is_what_the_page_says(saved, config):
    assert sorted(path.name for path in saved.iterdir()) == [
        "config.toml",
        "model.safetensors",
        "weights.json",
    ]
    assert gx.describe(gx.load(saved).config).parameters == gx.describe(config).parameters
    theirs = safetensors.flax.load_file(saved / "model.safetensors")
    assert theirs["layers.2.temporal.query.weight"].shape == (16, 16)
    assert theirs["layers.4.temporal.a_param"].dtype == jnp.float32
    assert theirs["layers.4.mlp.up.weight"].dtype == jnp.bfloat16
    named = naming.flatten(gx.load(saved).model)
    assert set(theirs) == set(named)
    assert all(np.array_equal(theirs[name], named[name]) for name in named)


def test_a_loaded_folder_says_what_it_is(saved):
    loaded = gx.load(saved)
    assert loaded.step == 7
    assert loaded.tokenizer is not None
    assert loaded.config.model.pattern == "(rg_lru rg_lru local_mqa)*2"
    assert str(loaded.model.policy) == "p=bf16,c=f32,o=f32,s=f32"


def test_a_loaded_model_owns_its_arrays(saved):
    """Nothing of it is a view of the file: a training step writes into the buffers that it is given."""
    model = gx.load(saved).model
    moved = jax.jit(lambda w: w + 1, donate_argnums=0)(jnp.array(model.final_norm.scale))
    assert np.isfinite(np.asarray(moved, np.float32)).all()
    assert all(leaf.is_fully_addressable for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array)))


def test_for_decoding_every_layer_is_apart_and_stays_in_the_file(tmp_path, make_config, random_model, arrays):
    """The same bits, in the layout that the engine would make, at the very addresses of the file's map."""
    config = make_config(pattern="R*2 L R*2 L", lru_width=32)  # tensors of multiples of 64 bytes
    saved = save(random_model(config), config, tmp_path / "w")
    model = gx.load(saved, decoding=True).model
    usual = gx.load(saved).model
    assert arrays(model) == arrays(usual)
    engine = gx.Engine(model)
    assert engine.model is model
    assert jax.tree.structure(engine.model) == jax.tree.structure(gx.Engine(usual).model)
    maps = [
        line.split()
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "model.safetensors" in line
    ]
    spans = [[int(end, 16) for end in fields[0].split("-")] for fields in maps]
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_array))
    there = [any(a <= leaf.unsafe_buffer_pointer() < b for a, b in spans) for leaf in leaves]
    assert all(there)
    moved = jax.jit(lambda w: 2 * w, donate_argnums=0)(
        leaves[0]
    )  # given away all the same, it is not written to
    np.testing.assert_array_equal(jnp.asarray(moved) / 2, gx.load(saved).model.embedding.weight)
    again = gx.load(saved, decoding=True).model
    assert arrays(again) == arrays(usual)


@dataclasses.dataclass(frozen=True)
class _Options:
    pass


class _Odd(gx.AbstractBlock):
    """Arrays in a dictionary, a tuple and a buffer of integers."""

    name: ClassVar[str] = "odd_block"
    Options: ClassVar[type] = _Options
    cache_growth: ClassVar[CacheGrowth] = "constant"

    parts: dict
    pair: tuple
    table: jax.Array

    @classmethod
    def init(cls, options, dims, *, key):
        made = Linear.init(dims.width, dims.width, axes=("width", "width"), dtype=dims.dtype, key=key)
        return cls({"b": made, "a": jnp.ones(3, dims.dtype)}, (made, made), jnp.arange(4, dtype=jnp.int8))

    def __call__(self, x, layout=None, cache=None):
        return self.parts["b"](x), cache

    def init_cache(self, max_seq_len, dtype):
        return None

    def flops(self, seq_len):
        return 0


def test_a_strangers_block_is_written_and_read(tmp_path, monkeypatch, make_config, arrays):
    monkeypatch.setattr(registry.default, "_added", {})
    gx.registry.add(_Odd)
    config = make_config(pattern="odd_block*3 rg_lru")
    model = gx.LanguageModel.init(config.model, key=jax.random.key(0))
    assert arrays(gx.load(save(model, config, tmp_path / "w")).model) == arrays(model)
    names = json.loads((tmp_path / "w" / "weights.json").read_text())["tensors"]
    assert {"layers.2.temporal.pair.1.weight", "layers.0.temporal.parts.a", "layers.1.temporal.table"} <= set(
        names
    )


def test_names_do_not_depend_on_how_layers_are_grouped(tmp_path, make_config, random_model, arrays):
    """The same layers written as repeats and one by one are one file."""
    one, other = make_config(pattern="rg_lru*4"), make_config(pattern="rg_lru rg_lru rg_lru[c=8.0] rg_lru")
    first, second = (save(random_model(c), c, tmp_path / str(i)) for i, c in enumerate((one, other)))
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_weights_of_another_model_are_not_saved(tmp_path, make_config, random_model):
    with pytest.raises(WeightsError) as caught:
        save(random_model(make_config()), make_config(mlp_width=40), tmp_path / "w")
    assert "layers.0.mlp.gate.weight: float32[16, 48] there, float32[16, 40] in the model" in str(
        caught.value
    )
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(saved, tmp_path, config, random_model):
    model = random_model(config)
    path = save(model, config, tmp_path / "w", step=1)
    with pytest.raises(WeightsError, match="nothing is overwritten unasked"):
        save(model, config, path)
    assert gx.load(save(model, config, path, step=2, overwrite=True)).step == 2
    (path / "thesis.tex").write_text("years of work")
    with pytest.raises(WeightsError, match=r"holds more than weights.*thesis\.tex"):
        save(model, config, path, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["w"]


def test_a_failure_on_the_way_leaves_nothing(saved, tmp_path, config, random_model, monkeypatch):
    model = random_model(config)
    path = save(model, config, tmp_path / "w", step=1)
    monkeypatch.setattr(folder, "dumps", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(model, config, path, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["w"]
    assert gx.load(path).step == 1
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="cannot be written"):
        save(model, config, path / "config.toml" / "below")


@given(data=st.data())
@settings(settings.get_profile("fuzz"))
def test_a_flipped_bit_anywhere_is_told_or_harmless(saved, arrays, tmp_path_factory, data):
    """Every file, every byte: one typed error that names a file of the folder, or the same weights."""
    copy = tmp_path_factory.mktemp("copy") / "w"
    shutil.copytree(saved, copy)
    file = copy / data.draw(st.sampled_from(["config.toml", "model.safetensors", "weights.json"]))
    raw = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(raw)
    problem, read = None, None
    try:
        found = folder.read(copy)
        read = {name: (a.dtype, a.shape, a.tobytes()) for name in found.specs for a in [found.read(name)]}
    except GriffinError as error:
        problem = str(error)
    if problem is not None:
        assert str(copy) in problem
        return
    assert file.name != "weights.json"
    assert read == _contents(saved)


_KEPT = {}


def _contents(path):
    if path not in _KEPT:
        found = folder.read(path)
        _KEPT[path] = {n: (a.dtype, a.shape, a.tobytes()) for n in found.specs for a in [found.read(n)]}
    return _KEPT[path]


@pytest.mark.parametrize("name", ["config.toml", "model.safetensors", "weights.json"])
@pytest.mark.parametrize("harm", ["missing", "empty", "half", "folder"])
def test_a_file_that_is_not_whole_is_named(saved, tmp_path, name, harm):
    copy = tmp_path / "w"
    shutil.copytree(saved, copy)
    raw = (copy / name).read_bytes()
    (copy / name).unlink()
    if harm == "folder":
        (copy / name).mkdir()
    elif harm != "missing":
        (copy / name).write_bytes(raw[: len(raw) // 2] if harm == "half" else b"")
    with pytest.raises(GriffinError) as caught:
        gx.load(copy)
    assert str(copy) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 12


def test_a_wrong_tensor_is_named_before_anything_is_read(saved, tmp_path, monkeypatch):
    copy = tmp_path / "w"
    shutil.copytree(saved, copy)
    monkeypatch.setattr(folder.TensorFile, "read", lambda *_: pytest.fail("a tensor was read"))
    weights = safetensors.flax.load_file(copy / "model.safetensors")

    def refused(changed):
        safetensors.flax.save_file(changed, copy / "model.safetensors")
        with pytest.raises(WeightsError) as caught:
            gx.load(copy)
        assert str(copy / "model.safetensors") in str(caught.value)
        return str(caught.value)

    name = "layers.1.mlp.down.weight"
    rest = {k: v for k, v in weights.items() if k != name}
    assert f"{name}: nothing there, bfloat16[48, 16] in the model" in refused(rest)
    assert f"{name}: bfloat16[16, 48] there, bfloat16[48, 16]" in refused(rest | {name: weights[name].T})
    assert f"{name}: float32[48, 16] there" in refused(rest | {name: weights[name].astype(jnp.float32)})
    assert "stowaway: float32[3] there, nothing in the model" in refused(weights | {"stowaway": jnp.ones(3)})


def test_two_tensors_that_changed_places_are_told(saved, tmp_path):
    copy = tmp_path / "w"
    shutil.copytree(saved, copy)
    weights = safetensors.flax.load_file(copy / "model.safetensors")
    one, other = "layers.0.mlp.up.weight", "layers.1.mlp.up.weight"
    safetensors.flax.save_file(
        weights | {one: weights[other], other: weights[one]}, copy / "model.safetensors"
    )
    with pytest.raises(WeightsError, match="is damaged: it differs from its fingerprint"):
        gx.load(copy)


def test_another_configuration_is_told_key_by_key(saved, tmp_path):
    copy = tmp_path / "w"
    shutil.copytree(saved, copy)
    text = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(text.replace("width = 16", "width = 32", 1))
    with pytest.raises(WeightsError, match=r"model.width: 16 there, 32 asked for"):
        gx.load(copy)


def test_a_later_format_says_so(saved, tmp_path):
    copy = tmp_path / "w"
    shutil.copytree(saved, copy)
    tree = msgspec.json.decode((copy / "weights.json").read_bytes())
    (copy / "weights.json").write_bytes(msgspec.json.encode(tree | {"format": 99, "novelty": 1}))
    with pytest.raises(WeightsError, match="newer griffin_eqx, in format 99"):
        gx.load(copy)
