"""Every format, both ways: bit for bit the same model, or a reason why it cannot be said there."""

import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import msgspec
import numpy as np
import pytest
import safetensors.flax
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import griffin_eqx as gx
from griffin_eqx import registry
from griffin_eqx.config import ModelConfig
from griffin_eqx.errors import WeightsError
from griffin_eqx.interop import convert, deepmind, hugging_face, open_weights, save, to_model, trees, write
from griffin_eqx.interop.weights import of_model
from griffin_eqx.pattern import Value

pytestmark = pytest.mark.core

FORMATS = ("griffin", "hf", "deepmind", "deepmind-torch")


def contents(weights):
    return {name: (a.dtype, a.shape, a.tobytes()) for name in weights.specs for a in [weights.read(name)]}


@st.composite
def models(draw, *, strict=False):
    """A configuration that Hugging Face's format can hold, and DeepMind's, too, where `strict`."""
    kinds = draw(st.lists(st.sampled_from(["rg_lru", "local_mqa"]), min_size=1, max_size=8))
    heads = draw(st.sampled_from([1, 2, 3]))
    head_dim = draw(st.sampled_from([4, 8]))
    kv_heads = 1 if strict else draw(st.sampled_from([k for k in (1, heads) if heads % k == 0]))
    attention = {
        "head_dim": head_dim,
        "window_size": draw(st.integers(2, 9)),
        "kv_heads": kv_heads,
        "rope_fraction": 0.5 if strict else draw(st.sampled_from([0.5, 1.0])),
    }
    recurrent = {
        "gate_blocks": heads,
        "conv_width": 4 if strict else draw(st.sampled_from([1, 3, 4])),
        "decay_init": draw(st.sampled_from(["paper", "recurrentgemma"])),
    }
    return ModelConfig(
        pattern=" ".join(kinds),
        width=heads * head_dim,
        lru_width=heads * draw(st.sampled_from([2, 6])),
        mlp_width=draw(st.sampled_from([None, 5, 12])),
        vocab_size=draw(st.integers(1, 140)),
        biases=draw(st.booleans()),
        embedding_scale=draw(st.booleans()) if strict else True,
        logit_soft_cap=draw(st.sampled_from([0.0, 30.0] if strict else [15.5, 30.0])),
        blocks={"rg_lru": recurrent, "local_mqa": attention},
    )


def _through(tmp_path_factory, model_config, precision, path_of_formats, random_model, make_config):
    config = msgspec.structs.replace(make_config(precision=precision), model=model_config)
    here = tmp_path_factory.mktemp("formats")
    source = save(random_model(config), config, here / "0", step=3)
    first = open_weights(source)
    for i, to in enumerate((*path_of_formats, "griffin"), 1):
        source = convert(source, here / str(i), to=to)
    return first, open_weights(source)


@given(
    model=models(strict=True), precision=st.sampled_from(["p=f32", "p=bf16,c=bf16", "p=bf16"]), data=st.data()
)
@settings(max_examples=settings().max_examples // 2)  # Orbax takes its time
def test_a_model_of_both_programs_survives_any_chain_of_formats(
    tmp_path_factory, make_config, random_model, model, precision, data
):
    caps = model.logit_soft_cap and model.embedding_scale
    formats = FORMATS if caps else tuple(f for f in FORMATS if f != "hf")
    chain = data.draw(st.lists(st.sampled_from(formats), min_size=1, max_size=3))
    first, last = _through(tmp_path_factory, model, precision, chain, random_model, make_config)
    assert contents(last) == contents(first)
    assert last.config == first.config
    assert (last.step, last.origin) == (first.step, first.origin)


@given(model=models(), precision=st.sampled_from(["p=f32", "p=bf16,c=bf16", "p=f16"]))
@settings(max_examples=settings().max_examples // 2)
def test_a_model_of_hugging_faces_survives(tmp_path_factory, make_config, random_model, model, precision):
    first, last = _through(tmp_path_factory, model, precision, ["hf"], random_model, make_config)
    assert contents(last) == contents(first)
    assert last.config == first.config


@settings(max_examples=settings().max_examples // 2)
@given(model=models(strict=True), narrow=st.booleans(), dialect=st.sampled_from(["flax", "torch"]))
def test_parameters_in_memory_survive(make_config, random_model, arrays, model, narrow, dialect):
    config = msgspec.structs.replace(make_config(precision="p=bf16" if narrow else "p=f32"), model=model)
    before = random_model(config)
    if dialect == "flax":
        after, found = trees.from_flax(trees.to_flax(before, config), like=model)
    else:
        names, _, read = deepmind.to_tensors(of_model(before, config), deepmind.TORCH)
        after, found = trees.from_torch({name: read(name) for name in names}, like=model)
    assert found.model.biases
    assert found.model.lru_width == (config.model.resolved_lru_width)
    kept = arrays(after)
    if not model.biases:  # which come as zeros, because that program always has them
        zeros = {name: kept.pop(name) for name in sorted(set(kept) - set(arrays(before)))}
        assert all(name.endswith(".bias") and not any(raw) for name, (_, _, raw) in zeros.items())
    assert kept == arrays(before)


@pytest.fixture(scope="module")
def model():
    recurrent: dict[str, Value] = {"gate_blocks": 2}
    attention: dict[str, Value] = {"head_dim": 8, "window_size": 6, "rope_fraction": 0.5}
    return ModelConfig(
        pattern="(rg_lru rg_lru local_mqa)@4",
        width=16,
        lru_width=24,
        vocab_size=40,
        biases=True,
        embedding_scale=True,
        logit_soft_cap=30.0,
        blocks={"rg_lru": recurrent, "local_mqa": attention},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory, make_config, random_model, model):
    config = msgspec.structs.replace(make_config(), model=model)
    return save(random_model(config), config, tmp_path_factory.mktemp("saved") / "w")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory, saved):
    """The same model in every format, without our record of it in config.json: as a stranger would have it."""
    here = tmp_path_factory.mktemp("foreign")
    for to in FORMATS[1:]:
        convert(saved, here / to, to=to)
    tree = json.loads((here / "hf" / "config.json").read_text())
    del tree["griffin_eqx"]
    (here / "hf" / "config.json").write_text(json.dumps(tree))
    for to in FORMATS[2:]:
        (here / to / "griffin_eqx.json").unlink()
    return here


def test_a_strangers_folder_goes_back_unchanged(foreign, tmp_path):
    """config.json with keys that we have no use for, several files with an index, other files, a tokenizer."""
    there = tmp_path / "there"
    shutil.copytree(foreign / "hf", there)
    tree = json.loads((there / "config.json").read_text())
    tree |= {"bos_token_id": 2, "torch_dtype": "float32", "novelty": {"a": [1, None]}}
    tree["block_types"] = ["recurrent", "recurrent", "attention"]
    (there / "config.json").write_text(json.dumps(tree))
    (there / "generation_config.json").write_text('{"top_k": 7}')
    (there / "tokenizer.json").write_text('{"some": "tokenizer"}')
    weights = open_weights(there)
    assert weights.config.model.blocks["local_mqa"]["window_size"] == 7
    convert(there, tmp_path / "ours", to="griffin")
    convert(tmp_path / "ours", tmp_path / "back", to="hf")
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == tree
    assert json.loads((tmp_path / "back" / "generation_config.json").read_text()) == {"top_k": 7}
    assert (tmp_path / "back" / "tokenizer.json").read_text() == '{"some": "tokenizer"}'
    before, after = (safetensors.numpy.load_file(p / "model.safetensors") for p in (there, tmp_path / "back"))
    assert {k: v.tobytes() for k, v in before.items()} == {k: v.tobytes() for k, v in after.items()}


def test_files_are_cut_and_put_together(saved, tmp_path):
    """Several files with an index are the same weights as one."""
    (tmp_path / "many").mkdir()
    hugging_face.write(open_weights(saved), tmp_path / "many", shard_bytes=5000)
    files = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert len(files) > 3
    assert contents(open_weights(tmp_path / "many")) == contents(open_weights(saved))
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    one = "model.layers.0.mlp_block.up_proj.bias"

    def refused(weight_map, said):
        (tmp_path / "many" / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": weight_map})
        )
        with pytest.raises(WeightsError, match=said):
            open_weights(tmp_path / "many")

    homes = index["weight_map"]
    refused({k: v for k, v in homes.items() if k != one}, f"{one} is not in the index")
    refused(homes | {"stowaway": files[0]}, "stowaway is not in its file")
    refused(homes | {one: files[-1]}, f"{one} is")
    refused(homes | {one: "../x.safetensors"}, "does not name files beside it")
    refused(homes | {one: "missing.safetensors"}, "cannot be read")
    refused([], "does not name files beside it")


def test_a_narrow_decay_goes_back_narrow(foreign, tmp_path):
    """Their bfloat16 models have the decay in bfloat16, too: ours is float32 meanwhile, with the same values."""
    there = tmp_path / "there"
    shutil.copytree(foreign / "hf", there)
    tensors = safetensors.numpy.load_file(there / "model.safetensors")
    narrow = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors.items()}
    safetensors.flax.save_file({k: jnp.asarray(v) for k, v in narrow.items()}, there / "model.safetensors")
    weights = open_weights(there)
    assert weights.specs["layers.0.temporal.a_param"].dtype == np.float32
    assert weights.specs["layers.0.mlp.up.bias"].dtype == ml_dtypes.bfloat16
    convert(there, tmp_path / "ours", to="griffin")
    convert(tmp_path / "ours", tmp_path / "back", to="hf")
    after = safetensors.flax.load_file(tmp_path / "back" / "model.safetensors")
    assert {k: np.asarray(v).tobytes() for k, v in after.items()} == {
        k: v.tobytes() for k, v in narrow.items()
    }


def test_a_dtype_that_is_asked_for_is_written(saved, tmp_path):
    convert(saved, tmp_path / "hf", to="hf", dtype="bf16")
    theirs = safetensors.flax.load_file(tmp_path / "hf" / "model.safetensors")
    assert {array.dtype for array in theirs.values()} == {jnp.dtype(jnp.bfloat16)}
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["dtype"] == "bfloat16"
    convert(saved, tmp_path / "ours", to="griffin", dtype="bf16")
    loaded = gx.load(tmp_path / "ours")
    assert str(loaded.model.policy) == "p=bf16,c=bf16,o=f32,s=f32"
    mixed = theirs | {"model.final_norm.weight": theirs["model.final_norm.weight"].astype(jnp.float32)}
    safetensors.flax.save_file(mixed, tmp_path / "hf" / "model.safetensors")
    with pytest.raises(
        WeightsError, match=r"several dtypes: float32 of model\.final_norm\.weight, bfloat16 of "
    ):
        open_weights(tmp_path / "hf")
    assert set(contents(open_weights(tmp_path / "hf", dtype="f32"))) == set(contents(open_weights(saved)))


def test_deepminds_parameters_say_half_of_the_model(foreign, saved, model):
    """The other half is refused to be guessed, except for RecurrentGemma itself."""
    for to in FORMATS[2:]:
        with pytest.raises(WeightsError, match="do not say the attention window"):
            open_weights(foreign / to)
        found = open_weights(foreign / to, like=model)
        assert contents(found) == contents(open_weights(saved))
        assert found.config.model.blocks["local_mqa"]["window_size"] == 6
    for size in ("2b", "9b"):
        published = gx.preset(f"recurrentgemma-{size}").model
        sizes = deepmind.sizes_of(published, "x")
        assert deepmind._published(sizes) == published


@pytest.mark.parametrize(
    ("change", "formats", "said"),
    [
        ({"pattern": "rg_lru global_mqa[head_dim=8]"}, FORMATS[1:], "it has no block global_mqa"),
        ({"pattern": "rg_lru[mlp=none]"}, FORMATS[1:], "mlp=none has no place"),
        ({"pattern": "rg_lru rg_lru[c=4]"}, FORMATS[1:], "the same options there; here differ c"),
        ({"pattern": "rg_lru[c=4]"}, FORMATS[1:], "is 8 there, not 4"),
        ({"pattern": "local_mqa[window_size=3] local_mqa"}, FORMATS[1:], "here differ window_size"),
        ({"pattern": "rg_lru[gate_blocks=4] local_mqa"}, FORMATS[1:], "gate_blocks=4, heads 2"),
        ({"pattern": "local_mqa[kv_heads=2]"}, FORMATS[2:], "there is one key head there"),
        ({"pattern": "local_mqa[rope_fraction=1.0]"}, FORMATS[2:], "have no place"),
        ({"pattern": "local_mqa[rope=false]"}, FORMATS[1:], "no pairs|have no place"),
        ({"pattern": "local_mqa[window_size=1]"}, FORMATS[2:], "window_size=1 has no place"),
        ({"pattern": "rg_lru[conv_width=3]"}, FORMATS[2:], "not conv_width=3"),
        ({"pattern": "local_mqa[head_dim=4]", "num_heads": 2}, FORMATS[1:], "channels there|fill the width"),
        ({"embedding_scale": False}, ["hf"], "embedding_scale=false has no place"),
        ({"logit_soft_cap": 0.0}, ["hf"], "logit_soft_cap=0 has no place"),
    ],
)
def test_what_a_format_cannot_say_is_refused_with_the_reason(
    tmp_path, make_config, random_model, model, change, formats, said
):
    model = msgspec.structs.replace(model, **change)
    config = msgspec.structs.replace(make_config(), model=model)
    weights = of_model(random_model(config), config)
    for to in formats:
        with pytest.raises(WeightsError, match=said):
            write(weights, tmp_path / "w", to=to)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 24}, "were|model.embed_tokens.weight: float32\\[40, 16\\] there"),
        (
            {"vocab_size": 41},
            "embed_tokens.weight: float32\\[40, 16\\] there, float32\\[41, 16\\] in the model",
        ),
        ({"num_hidden_layers": 3}, "model.layers.3.*nothing in the model"),
        ({"num_hidden_layers": 10**9}, "more than 10,000"),
        ({"intermediate_size": 48}, "mlp_block.gate_proj.weight"),
        ({"num_attention_heads": 3}, "does not fit together|rg_lru"),
        ({"num_attention_heads": 0}, "no positive number"),
        ({"hidden_size": "16"}, "no positive number"),
        ({"block_types": ["recurrent"]}, "model.layers.2.temporal_block.conv_1d.bias: nothing there"),
        ({"block_types": ["mamba"]}, "only recurrent and attention can be read"),
        ({"block_types": "recurrent"}, "only recurrent and attention can be read"),
        ({"hidden_activation": "relu"}, "hidden_activation is"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is false"),
        ({"attention_bias": True}, "attention_bias is true"),
        ({"model_type": "gemma2"}, "model_type is"),
        ({"rope_scaling": {"factor": 2}}, "scaled"),
        ({"quantization_config": {}}, "quantised"),
        ({"logits_soft_cap": None}, "no number"),
    ],
)
def test_a_configuration_that_is_not_of_these_weights_is_told(foreign, tmp_path, monkeypatch, change, said):
    there = tmp_path / "there"
    shutil.copytree(foreign / "hf", there)
    tree = json.loads((there / "config.json").read_text())
    (there / "config.json").write_text(json.dumps(tree | change))
    monkeypatch.setattr(hugging_face.TensorFile, "read", lambda *_: pytest.fail("a tensor was read"))
    with pytest.raises(WeightsError, match=said) as caught:
        open_weights(there)
    assert str(there) in str(caught.value)


@pytest.mark.parametrize("to", ["hf", "deepmind-torch"])
def test_a_wrong_tensor_is_named_before_anything_is_read(foreign, tmp_path, monkeypatch, model, to):
    there = tmp_path / "there"
    shutil.copytree(foreign / to, there)
    tensors = safetensors.numpy.load_file(there / "model.safetensors")
    name = next(name for name in tensors if "channel_pre_norm" in name)
    monkeypatch.setattr(hugging_face.TensorFile, "read", lambda *_: pytest.fail("a tensor was read"))

    def refused(changed):
        safetensors.numpy.save_file(changed, there / "model.safetensors")
        with pytest.raises(WeightsError) as caught:
            open_weights(there, like=model)
        assert str(there) in str(caught.value)
        return str(caught.value)

    rest = {k: v for k, v in tensors.items() if k != name}
    assert f"{name}: nothing there" in refused(rest)
    assert f"{name}: float32[7] there" in refused(rest | {name: np.zeros(7, np.float32)})
    assert "stowaway: float32[3] there, nothing in the model" in refused(
        tensors | {"stowaway": np.zeros(3, "f")}
    )
    assert "has the dtype int8" in refused(rest | {name: tensors[name].astype(np.int8)})


def test_an_orbax_folder_that_is_not_whole_is_one_typed_error(foreign, tmp_path, model):
    """Whatever file of it is gone or empty; what is read all the same is right."""
    wanted = contents(open_weights(foreign / "deepmind", like=model))
    files = [p.relative_to(foreign) for p in (foreign / "deepmind").rglob("*") if p.is_file()]
    told = 0
    for i, file in enumerate(files):
        shutil.copytree(foreign / "deepmind", tmp_path / str(i) / "deepmind")
        (tmp_path / str(i) / file).unlink()
        try:
            assert contents(open_weights(tmp_path / str(i) / "deepmind", like=model)) == wanted
        except WeightsError:
            told += 1
    assert told >= 3


def test_biases_are_not_dropped_unseen(saved, tmp_path, make_config, random_model, model):
    """A model without biases that comes back with some is told."""
    config = msgspec.structs.replace(make_config(), model=msgspec.structs.replace(model, biases=False))
    write(of_model(random_model(config), config), tmp_path / "hf", to="hf")
    file = tmp_path / "hf" / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    tensors["model.layers.1.mlp_block.up_proj.bias"][3] = 1e-8
    safetensors.numpy.save_file(tensors, file)
    with pytest.raises(WeightsError, match=r"up_proj\.bias is not zero"):
        open_weights(tmp_path / "hf")


def test_an_edited_configuration_beside_our_record_is_told(saved, tmp_path):
    convert(saved, tmp_path / "hf", to="hf")
    file = tmp_path / "hf" / "config.json"
    tree = json.loads(file.read_text())
    file.write_text(json.dumps(tree | {"attention_window_size": 99}))
    with pytest.raises(WeightsError, match="has been changed since griffin_eqx wrote it"):
        open_weights(tmp_path / "hf")
    file.write_text(json.dumps(tree | {"griffin_eqx": {"config": 3}}))
    with pytest.raises(WeightsError, match="is damaged"):
        open_weights(tmp_path / "hf")


def test_an_output_matrix_of_its_own_is_refused_and_a_copy_of_the_embedding_is_not(foreign, tmp_path):
    there = tmp_path / "there"
    shutil.copytree(foreign / "hf", there)
    tensors = safetensors.numpy.load_file(there / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].copy()
    safetensors.numpy.save_file(tensors | {"lm_head.weight": head}, there / "model.safetensors")
    assert contents(open_weights(there)) == contents(open_weights(foreign / "hf"))
    head[0, 0] += 1
    safetensors.numpy.save_file(tensors | {"lm_head.weight": head}, there / "model.safetensors")
    with pytest.raises(WeightsError, match=r"lm_head\.weight is not the embedding"):
        open_weights(there)


def test_a_run_becomes_weights(tmp_path, saved, monkeypatch):
    """What has no reader is told; a folder of ours is a source like any other."""
    with pytest.raises(WeightsError, match="There are no weights that can be read"):
        open_weights(tmp_path)
    with pytest.raises(WeightsError, match="There are no weights that can be read"):
        open_weights(tmp_path / "missing")
    model = to_model(open_weights(saved))
    logits, _ = jax.jit(lambda t: model(t))(jnp.arange(5))
    assert logits.shape == (5, 40)


def test_patterns_of_both_blocks_are_said_in_full(model):
    """Config to config: what their configuration says of a pattern is that pattern."""

    @given(st.lists(st.sampled_from(["rg_lru", "local_mqa"]), min_size=1, max_size=40))
    def check(kinds):
        asked = msgspec.structs.replace(model, pattern=" ".join(kinds))
        tree = hugging_face._config(deepmind.sizes_of(asked, "x"), fewer_keys=0)
        again = hugging_face.config_of(tree, window="hf").model
        assert registry.resolve(again.pattern) == registry.resolve(asked.pattern)

    check()
