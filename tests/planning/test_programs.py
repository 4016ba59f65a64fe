"""What is planned is what runs: the programs, their memory, and what they communicate."""

import jax
import msgspec
import numpy as np
import pytest

from griffin_eqx.aot.hlo import read_module
from griffin_eqx.data import Batch
from griffin_eqx.mesh import MeshShape
from griffin_eqx.planning.collectives import read_collectives
from griffin_eqx.planning.programs import Programs, executed_flops, held_bytes
from griffin_eqx.training.on_mesh import OnMesh
from griffin_eqx.training.step import init_state, make_step
from tests.models import divisible

SHAPE = MeshShape(data=4, model=2)


@pytest.fixture(autouse=True, scope="module")
def usual_promotion():
    """As users have it: Optax's schedules divide floats by integers, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def config():
    base = divisible("rg_lru*2")
    return msgspec.structs.replace(base, data=msgspec.structs.replace(base.data, batch_size=8, seq_len=32))


@pytest.fixture(scope="module")
def planned(config):
    return Programs(config, SHAPE, jax.devices()).lower("train").compile()


def test_the_planned_step_is_the_one_that_training_compiles(config, planned):
    on_mesh = OnMesh(SHAPE, config)
    rows, tokens = config.data.batch_size, config.data.seq_len
    wide = np.zeros((rows, tokens), np.int32)
    with on_mesh.in_effect():
        state = on_mesh.built(lambda: init_state(config, key=jax.random.key(0)))
        batch = on_mesh.batch(Batch(wide, wide, wide, np.zeros(rows, np.int32)))
        step = make_step(config, lay=on_mesh.lay)
        real = step.compile(state, batch, on_mesh.rows(np.zeros(rows, bool)))
    memory, there = (compiled.memory_analysis() for compiled in (planned, real.executable.compiled))
    # Its peak learning rate is an argument, and a constant here: 4 bytes.
    assert abs(memory.argument_size_in_bytes - there.argument_size_in_bytes) <= 4
    assert memory.temp_size_in_bytes == pytest.approx(there.temp_size_in_bytes, rel=0.02)
    sizes = SHAPE._asdict()
    mine, its = (
        read_collectives(read_module(compiled.as_text()), sizes)
        for compiled in (planned, real.executable.compiled)
    )
    assert mine
    assert mine == its


def test_what_is_held_is_what_the_compiler_is_given(config, planned):
    # A CPU pads nothing.
    held = held_bytes(config, SHAPE, "train")
    # Beside it: two counters, of steps and of those skipped.
    assert sum(held.values()) + 8 == planned.memory_analysis().argument_size_in_bytes


def test_caches_are_held_by_decoding(config):
    decoding = Programs(config, SHAPE, jax.devices()).lower("decode").compile()
    held = held_bytes(config, SHAPE, "decode")
    assert held["caches"] > 0
    assert sum(held.values()) == decoding.memory_analysis().argument_size_in_bytes
    donated = decoding.memory_analysis().alias_size_in_bytes
    assert donated >= held["caches"]


def test_layers_are_compiled_alone(config):
    alone = Programs(config, SHAPE, jax.devices()).lower("train 0.0").compile()
    found = read_collectives(read_module(alone.as_text()), SHAPE._asdict())
    assert {one.axes for one in found} >= {("model",)}


def test_recomputing_layers_costs_a_forward_pass(config):
    full = msgspec.structs.replace(config, train=msgspec.structs.replace(config.train, remat="full"))
    more = executed_flops(full, "train") / executed_flops(config, "train")
    assert 1 < more < 4 / 3
    assert executed_flops(config, "decode") < executed_flops(config, "train") / 3


def test_described_programs_leave_nothing_in_memory(config):
    before = len(jax.live_arrays())
    Programs(config, SHAPE, jax.devices()).lower("train")
    assert len(jax.live_arrays()) <= before + 1
