"""An engine over a mesh writes what it writes on one device, wherever its sessions come from."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import griffin_eqx as gx
from griffin_eqx.mesh import MeshError, MeshShape
from griffin_eqx.model import in_int8
from griffin_eqx.sampling import Engine, Sampling
from griffin_eqx.sampling.on_mesh import OnMesh
from griffin_eqx.sharding import place
from tests.sampling.models import EVERY_KIND, small

pytestmark = pytest.mark.core

MESH = MeshShape(2, 2, 2)
ROWS, MOST, ROOM = 4, 20, 44
VOCABULARY = 200
"""More than a shard of the embedding's 256 rows."""

GREEDY, DRAWN = Sampling(temperature=0), Sampling(temperature=0.8, top_p=0.9, repetition_penalty=1.2)

prompts = st.lists(
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=MOST), min_size=ROWS, max_size=ROWS
)
SOME = [[5, 1, 150, 3], [199], list(range(0, 198, 11)), [9, 9]]


@pytest.fixture(scope="module")
def alone():
    return Engine(small(EVERY_KIND, VOCABULARY), prefill_chunk=16)


@pytest.fixture(scope="module")
def over():
    return Engine(small(EVERY_KIND, VOCABULARY), prefill_chunk=16, mesh=MESH)


def agree(one, many):
    """float32 keeps seven digits, and sums in another order lose less than two of them."""
    for here, there in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(there, here, rtol=0, atol=1e-5 * float(np.abs(here).max(initial=0)))


@given(prompts, st.integers(0, 3), st.integers(1, 8), st.sampled_from([GREEDY, DRAWN]))
def test_prompts_of_any_lengths_are_continued_as_on_one_device(alone, over, prompts, seed, first, sampling):
    one, many = (engine.start(prompts, room=ROOM) for engine in (alone, over))
    agree(one.state, many.state)
    pieces = []
    for engine, session in ((alone, one), (over, many)):
        written = engine.write(session, first, sampling, seed=seed, stop=4)
        pieces.append((written, engine.write(written.session, 9 - first, sampling, seed=seed)))
    for here, there in zip(*pieces, strict=True):
        assert (there.tokens, there.finished) == (here.tokens, here.finished)
        agree(here.session.state, there.session.state)


def test_beams_and_the_best_of_forks_are_those_of_one_device(alone, over):
    found = []
    for engine in (alone, over):
        session = engine.start([SOME[2]], room=ROOM)  # one row, which `data` cannot divide
        (beams,) = engine.beam_search(session, 6, beams=4)
        best = engine.best_of(session, 4, 9, DRAWN, seed=2)
        agree(best.log_probabilities, found[0][2] if found else best.log_probabilities)
        found.append((beams.tokens, best.tokens, best.log_probabilities))
    assert found[0][:2] == found[1][:2]


def test_a_session_saved_over_a_mesh_goes_on_anywhere(alone, over, tmp_path):
    session = over.start(SOME, room=ROOM)
    over.save(session, tmp_path / "here")
    assert alone.digest == over.digest
    written = []
    for engine in (alone, over):
        back = engine.load(tmp_path / "here")
        for kept, read in zip(jax.tree.leaves(session.state), jax.tree.leaves(back.state), strict=True):
            np.testing.assert_array_equal(kept, read)
        written.append(engine.write(back, 6, GREEDY).tokens)
    assert written[0] == written[1] == over.write(session, 6, GREEDY).tokens


def test_what_a_device_holds_is_its_part_and_stays_so(over):
    told = place(over.model, MESH)
    for each, array in zip(told, jax.tree.leaves(over.model), strict=True):
        assert {piece.data.nbytes for piece in array.addressable_shards} == {each.bytes_per_device}
    before = over.start(SOME, room=ROOM)
    after = over.write(before, 9, GREEDY).session
    for fresh, worn in zip(jax.tree.leaves(before.state), jax.tree.leaves(after.state), strict=True):
        assert fresh.sharding == worn.sharding
        assert fresh.sharding.spec[0] == "data"
    wide = after.state.cache[0][0].h
    assert tuple(wide.sharding.spec) == ("data", "model")


def test_pieces_compile_once(over):
    told = []
    engine = Engine(over.model, prefill_chunk=16, mesh=MESH, tell=told.append)
    engine.write(engine.start(SOME, room=ROOM), 9, GREEDY)
    told.clear()
    session = engine.start(SOME, room=ROOM)
    for piece in engine.stream(session, 9, GREEDY, pace=iter([1, 3, 5]).__next__):
        session = piece.session
    engine.write(session, 4, GREEDY)
    assert told == []


def test_a_model_of_8_bits_writes_over_a_mesh():
    narrow = in_int8(small("rg_lru local_mqa[window_size=5]", VOCABULARY))
    mesh = MeshShape(data=2, model=2)
    one, many = Engine(narrow, prefill_chunk=16), Engine(narrow, prefill_chunk=16, mesh=mesh)
    found = [engine.write(engine.start(SOME, room=ROOM), 9, GREEDY) for engine in (one, many)]
    assert found[0].tokens == found[1].tokens
    agree(found[0].session.state, found[1].session.state)
    block: Any = many.model.stack.units[0][0].temporal
    values = block.into_lru.weight.values
    assert {piece.data.nbytes for piece in values.addressable_shards} == {values.size // 4}


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (
            MeshShape(data=8),
            "The mesh data=8 cannot divide these axes:\n"
            "  texts written at once: 4 over data=8\n"
            "Meshes of 8 devices that work: data=4,model=2  data=4,sequence=2  data=2,sequence=2,model=2",
        ),
        (MeshShape(model=4), ".temporal.recurrence_gate.weight: gate_blocks = 2 over model=4\n"),
        (MeshShape(data=3), "Meshes of 3 devices that work: sequence=3"),
        (MeshShape(data=4, model=4), "The mesh data=4,model=4 has 16 devices and this program 8."),
    ],
)
def test_a_mesh_that_cannot_be_is_refused_before_anything_is_compiled(mesh, message, monkeypatch):
    monkeypatch.setattr(OnMesh, "in_effect", lambda self: pytest.fail("a program is called"))
    with pytest.raises(MeshError) as caught:
        gx.generate(small("rg_lru", VOCABULARY), SOME, max_new_tokens=3, mesh=mesh)
    assert message in str(caught.value)


def test_beams_that_a_mesh_cannot_divide_are_refused(over):
    with pytest.raises(MeshError, match=r"beams: 3 over data=2\nMeshes of 8 devices that work: "):
        over.beam_search(over.start(SOME[:1], room=ROOM), 6, beams=3)


def test_an_engine_has_its_own_mesh(alone):
    with pytest.raises(ValueError, match="an engine is given its mesh when it is made"):
        gx.generate(alone, SOME, mesh=MESH)
