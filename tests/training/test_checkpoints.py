import hashlib
import json
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from griffin_eqx.errors import CheckpointError
from griffin_eqx.training import checkpoints
from griffin_eqx.training.checkpoints import Checkpoints, Standing
from griffin_eqx.training.naming import flatten
from griffin_eqx.training.step import init_state

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def config(make_config):
    # conv_width=1 leaves the convolution's cache empty: (rows, layers, 0, channels).
    return make_config(pattern="rg_lru[conv_width=1]*2", carry=True, vocab_size=257)


@pytest.fixture(scope="module")
def template(config):
    return eqx.filter_eval_shape(lambda: init_state(config, key=jax.random.key(0)))


@pytest.fixture(scope="module")
def state(template):
    random = np.random.default_rng(0)

    def fill(spec):
        return jnp.asarray(random.normal(size=spec.shape), spec.dtype) if hasattr(spec, "shape") else spec

    return at_step(jax.tree.map(fill, template), 7)


def at_step(state, step):
    return eqx.tree_at(lambda s: s.step, state, jnp.asarray(step, jnp.int32))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, config, state):
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder, keep=2) as manager:
        manager.save(state, config, Standing(skipped=3, best_step=7, best=2.5))
    return folder


def equal(a, b):
    a, b = flatten(a), flatten(b)
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and np.array_equal(a[n], b[n]) for n in a)


def test_what_was_saved_comes_back(saved, config, template, state):
    assert checkpoints.steps(saved) == [7]
    back = checkpoints.restore(saved, 7, template, config.model)
    assert equal(back, state)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(eqx.filter(back, eqx.is_array)))
    assert any(0 in leaf.shape for leaf in jax.tree.leaves(state.cache))
    assert checkpoints.describe(saved, 7).standing.skipped == 3


def test_the_model_alone_comes_back(saved, config, template, state):
    back = checkpoints.restore(saved, 7, {"model": template.model}, config.model)
    assert equal(back, {"model": state.model})


def test_bfloat16_and_a_restore_into_another_stacking(tmp_path, make_config):
    """A checkpoint knows layers, not how they are stacked."""
    options = {"pattern": "rg_lru rg_lru[c=7.0]", "precision": "p=bf16,c=bf16,o=f32,s=f32"}
    apart, stacked = make_config(**options), make_config(**options | {"pattern": "rg_lru*2"})
    shapes = [
        eqx.filter_eval_shape(lambda c=c: init_state(c, key=jax.random.key(0))) for c in (apart, stacked)
    ]
    state = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), shapes[0])
    with Checkpoints(tmp_path, keep=1) as manager:
        manager.save(state, apart, Standing())
    # The configuration is given as saved: another pattern would be refused.
    back = checkpoints.restore(tmp_path, 1, shapes[1], apart.model)
    assert back.model.stack.units[0][0].temporal.into_lru.weight.shape == (2, 16, 16)
    assert back.model.embedding.weight.dtype == jnp.bfloat16
    assert {n: a.tolist() for n, a in flatten(back).items()} == {
        n: a.tolist() for n, a in flatten(state).items()
    }


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"pattern": "rg_lru*3"}, "model.pattern: rg_lru[conv_width=1]*2 there, rg_lru*3 asked for"),
        ({"width": 32}, "model.width: 16 there, 32 asked for"),
        ({"vocab_size": 300}, "model.vocab_size: 257 there, 300 asked for"),
    ],
)
def test_another_model_is_refused_before_arrays_are_read(saved, tmp_path, make_config, change, line):
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    shutil.rmtree(copy / "7" / "model")  # so that reading it would fail in another way
    other = make_config(**{"pattern": "rg_lru[conv_width=1]*2", "carry": True} | change)
    shapes = eqx.filter_eval_shape(lambda: init_state(other, key=jax.random.key(0)))
    with pytest.raises(CheckpointError, match="another model") as caught:
        checkpoints.restore(copy, 7, shapes, other.model)
    assert line in str(caught.value)


def test_other_arrays_are_refused_though_the_configuration_is_equal(saved, config, template):
    wide = eqx.tree_at(lambda s: s.model.final_norm.scale, template, jax.ShapeDtypeStruct((17,), jnp.float32))
    with pytest.raises(CheckpointError, match=r"final_norm\.scale: float32\[16\] there, float32\[17\] asked"):
        checkpoints.restore(saved, 7, wide, config.model)


def test_a_newer_format_is_refused_by_its_version(tmp_path, saved):
    shutil.copytree(saved / "7", tmp_path / "7")
    path = tmp_path / "7" / "description" / "metadata"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(CheckpointError, match="newer griffin_eqx, in format 99"):
        checkpoints.describe(tmp_path, 7)


def test_a_checkpoint_of_format_1_is_read(tmp_path, saved, config, template, state):
    shutil.copytree(saved / "7", tmp_path / "7")
    path = tmp_path / "7" / "description" / "metadata"
    tree = json.loads(path.read_text())
    # As it was written then: fields in the order of their classes, the keys of dictionaries sorted.
    tree["format"] = 1
    del tree["parts"]
    tree["standing"] = {
        "skipped": 3,
        "best_step": 7,
        "best_bits_per_byte": 2.5,
        "last_bits_per_byte": 2.75,
    }
    tree["leaves"] = dict(sorted(tree["leaves"].items()))
    tree["model"]["blocks"] = {
        name: dict(sorted(options.items())) for name, options in sorted(tree["model"]["blocks"].items())
    }
    tree["digest"] = ""
    digest = hashlib.sha256(json.dumps(tree, separators=(",", ":")).encode()).hexdigest()
    path.write_text(json.dumps(tree | {"digest": digest}))
    standing = checkpoints.describe(tmp_path, 7).standing
    assert standing == Standing(skipped=3, best_step=7, best=2.5, last=2.75)
    assert equal(checkpoints.restore(tmp_path, 7, template, config.model), state)
    path.write_text(json.dumps(tree | {"digest": digest, "step": 8}))
    with pytest.raises(CheckpointError, match="differs from its fingerprint"):
        checkpoints.describe(tmp_path, 7)


def test_a_checkpoint_of_format_2_is_read(tmp_path, saved, config, template, state):
    shutil.copytree(saved / "7", tmp_path / "7")
    path = tmp_path / "7" / "description" / "metadata"
    tree = json.loads(path.read_text()) | {"format": 2, "digest": ""}
    assert tree.pop("parts") == {}
    signed = json.dumps(tree, separators=(",", ":"), sort_keys=True)
    path.write_text(json.dumps(tree | {"digest": hashlib.sha256(signed.encode()).hexdigest()}))
    assert equal(checkpoints.restore(tmp_path, 7, template, config.model), state)


def test_a_missing_step_names_those_that_are_there(saved):
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 8.\n.*\n  There are: 7"):
        checkpoints.describe(saved, 8)


def test_a_renamed_step_is_refused(tmp_path, saved):
    shutil.copytree(saved / "7", tmp_path / "9")
    with pytest.raises(CheckpointError, match="it is of step 7"):
        checkpoints.describe(tmp_path, 9)


def flipped(data, random):
    place = random.integers(len(data))
    return data[:place] + bytes([data[place] ^ (1 << random.integers(8))]) + data[place + 1 :]


DAMAGES = {
    "one bit flipped": flipped,
    "another bit flipped": flipped,
    "cut in half": lambda data, random: data[: len(data) // 2],
    "last byte lost": lambda data, random: data[:-1],
    "emptied": lambda data, random: b"",
    "deleted": lambda data, random: None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_found_or_harmless(tmp_path, saved, config, template, state, damage):
    """Correct or a `CheckpointError` that says where: nothing else, whichever file it is."""
    random = np.random.default_rng(sum(map(ord, damage)))
    whole = tmp_path / "whole"
    shutil.copytree(saved, whole)
    refused = {}
    files = sorted(path for path in whole.rglob("*") if path.is_file() and path.stat().st_size)
    assert len(files) > 10
    for path in files:
        data = path.read_bytes()
        broken = DAMAGES[damage](data, random)
        if broken is None:
            path.unlink()
        else:
            path.write_bytes(broken)
        try:
            back = checkpoints.restore(whole, 7, template, config.model)
        except CheckpointError as error:
            refused[path] = str(error)
        else:
            assert equal(back, state), path
        path.write_bytes(data)
    assert {path.relative_to(whole).parts[1] for path in refused} >= {"model", "progress", "description"}
    for message in refused.values():
        assert str(whole / "7") in message
        assert len(message.splitlines()) == 3


def swap(one, two):
    aside = one.with_name("aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def test_swapped_items_are_found(tmp_path, saved, config, template, state):
    with Checkpoints(tmp_path, keep=2) as manager:
        manager.save(at_step(jax.tree.map(lambda z: z + 1, state), 8), config, Standing())
    shutil.copytree(saved / "7", tmp_path / "7")
    for item in ("model", "progress"):
        swap(tmp_path / "7" / item, tmp_path / "8" / item)
        for step in (7, 8):
            with pytest.raises(CheckpointError, match="differs from its fingerprint"):
                checkpoints.restore(tmp_path, step, template, config.model)
        swap(tmp_path / "7" / item, tmp_path / "8" / item)


def test_the_newest_and_the_best_stay_and_foreign_folders_are_left_alone(tmp_path, config, state):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "thesis.txt").write_text("not a checkpoint")
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()  # what a killed process leaves
    with Checkpoints(tmp_path, keep=2) as manager:
        for step, best in ((10, 10), (11, 11), (12, 11), (13, 11), (14, 11)):
            manager.save(at_step(state, step), config, Standing(best_step=best))
    assert checkpoints.steps(tmp_path) == [1, 11, 13, 14]
    assert (tmp_path / "1" / "thesis.txt").exists()
    assert not list(tmp_path.glob("*tmp*"))
    # A new manager knows as much as the old one.
    with Checkpoints(tmp_path, keep=2) as manager:
        manager.save(at_step(state, 15), config, Standing(best_step=11))
    assert checkpoints.steps(tmp_path) == [1, 11, 14, 15]


def test_a_save_that_fails_is_an_error(tmp_path, config, state):
    manager = Checkpoints(tmp_path, keep=2)
    shutil.rmtree(tmp_path)
    tmp_path.write_text("a file where the folder was")

    def save():
        with manager:
            manager.save(state, config, Standing())

    with pytest.raises(
        CheckpointError, match=r"could not be written, so the run stops.\n.*\n  Is there room"
    ):
        save()


@pytest.mark.parametrize("change", [{"step": 8}, {"more": 1}])
def test_a_description_that_was_edited_is_found(tmp_path, saved, change):
    shutil.copytree(saved / "7", tmp_path / "7")
    path = tmp_path / "7" / "description" / "metadata"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match="differs from its fingerprint"):
        checkpoints.describe(tmp_path, 7)
