"""A session on disk: it goes on as if it had never been away, and only for its own model."""

import dataclasses
import itertools

import equinox as eqx
import jax
import numpy as np
import pytest

from griffin_eqx.errors import CheckpointError
from griffin_eqx.interop.tensor_file import TensorFile, write
from griffin_eqx.sampling import Engine, Sampling
from tests.sampling.models import EVERY_KIND, small

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def engine():
    return Engine(small(EVERY_KIND), prefill_chunk=16)


@pytest.fixture
def session(engine):
    return engine.start([[5, 1, 2], [7], list(range(14))], room=44)


def test_a_saved_session_goes_on_as_the_kept_one_bit_for_bit(engine, session, tmp_path):
    engine.save(session, tmp_path / "here")
    back = Engine(small(EVERY_KIND), prefill_chunk=16).load(tmp_path / "here")
    for kept, read in zip(jax.tree.leaves(session.state), jax.tree.leaves(back.state), strict=True):
        np.testing.assert_array_equal(kept, read)
    first, second = (engine.write(one, 8, Sampling(), seed=4) for one in (session, back))
    assert first.tokens == second.tokens
    assert first.log_probabilities == second.log_probabilities
    assert [row.tolist() for row in back.tokens] == [row.tolist() for row in session.tokens]


def test_saving_replaces_and_leaves_nothing_else(engine, session, tmp_path):
    for one in (session, session.take([1])):
        engine.save(one, tmp_path / "here")
    assert len(engine.load(tmp_path / "here")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def _heavier(model):
    return eqx.tree_at(lambda m: m.final_norm.scale, model, model.final_norm.scale.at[3].add(1e-3))


@pytest.mark.parametrize(
    "other",
    [
        lambda: small("rg_lru"),
        lambda: _heavier(small(EVERY_KIND)),
        lambda: small(EVERY_KIND.replace("window_size=5", "window_size=6")),
        lambda: dataclasses.replace(small(EVERY_KIND), logit_soft_cap=5.0),
    ],
)
def test_another_model_is_refused(engine, session, tmp_path, other):
    engine.save(session, tmp_path / "here")
    with pytest.raises(CheckpointError, match=r"^The session is of another model"):
        Engine(other()).load(tmp_path / "here")


def test_every_flipped_bit_and_every_cut_is_noticed(engine, session, tmp_path):
    path = tmp_path / "here"
    engine.save(session, path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    spots = itertools.chain(range(0, header, 7), rng.integers(0, len(whole), 150).tolist())
    for spot in spots:
        damaged = bytearray(whole)
        damaged[spot] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            back = engine.load(path)
        except CheckpointError:
            continue
        # Blanks behind the header are all that may change unseen.
        assert whole[spot : spot + 1] == b" "
        assert len(back) == len(session)
    for length in (0, 4, header, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"^The session cannot be read"):
            engine.load(path)


def test_what_is_no_session_is_refused(engine, session, tmp_path):
    path = tmp_path / "here"
    with pytest.raises(CheckpointError, match=r"cannot be read"):
        engine.load(path)
    write(path, {}, lambda name: np.zeros(0), {"format": "weights"})
    with pytest.raises(CheckpointError, match=r"^This is no session"):
        engine.load(path)
    engine.save(session, path)
    file = TensorFile(path)
    write(
        path,
        file.specs,
        {name: file.read(name) for name in file.specs}.__getitem__,
        file.metadata | {"version": "2"},
    )
    with pytest.raises(CheckpointError, match=r"^The session is of version '2'; this program reads 1"):
        engine.load(path)
    with pytest.raises(CheckpointError, match=r"^The session cannot be saved"):
        engine.save(session, tmp_path / "nowhere/here")
