"""What devices send each other is read from a module's text: which, over which axes, how often, how many bytes."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from griffin_eqx.aot.hlo import read_module
from griffin_eqx.planning.collectives import Collective, _group, read_collectives
from tests.meshes import AXES, make_mesh

SIZES = {"data": 2, "sequence": 2, "model": 2}
TURNS = 5

BODIES = {
    "all-reduce": lambda x, axis: jax.lax.psum(x, axis),
    "all-gather": lambda x, axis: jax.lax.all_gather(x, axis, tiled=True),
    "reduce-scatter": lambda x, axis: jax.lax.psum_scatter(x, axis, tiled=True),
    "all-to-all": lambda x, axis: jax.lax.all_to_all(x, axis, 0, 0, tiled=True),
    "collective-permute": lambda x, axis: jax.lax.ppermute(x, axis, [(0, 1), (1, 0)]),
}
# [8, 16] float32 on a device: a reduction sends 2 (g - 1) / g of it, a gather as much of its result.
SENT = {
    "all-reduce": 512,
    "all-gather": 512,
    "reduce-scatter": 256,
    "all-to-all": 256,
    "collective-permute": 512,
}


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("kind", BODIES)
def test_a_collective_in_a_loop_is_read_from_a_compiled_module(kind, axis):
    def body(x):
        def turn(x, _):
            y = BODIES[kind](x * 1.5, axis)
            return x + y[:8].sum() + jnp.resize(y, x.shape), None

        return jax.lax.scan(turn, x, length=TURNS)[0]

    run = jax.shard_map(body, mesh=make_mesh((2, 2, 2)), in_specs=P(AXES), out_specs=P(AXES), check_vma=False)
    text = jax.jit(run).lower(jax.ShapeDtypeStruct((64, 16), jnp.float32)).compile().as_text() or ""
    (found,) = read_collectives(read_module(text), SIZES)
    expected = Collective(kind=kind, axes=(axis,), devices=2, times=TURNS, sent_bytes=TURNS * SENT[kind])
    assert found == expected


def test_a_program_on_one_device_sends_nothing():
    text = jax.jit(lambda x: x @ x).lower(jnp.ones((8, 8))).compile().as_text() or ""
    assert read_collectives(read_module(text), SIZES) == ()


@st.composite
def groups(draw):
    """A mesh, some of its axes, and the groups of devices that differ along those alone, in the three spellings."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=3, max_size=3))
    chosen = draw(st.sets(st.sampled_from(range(3)), min_size=1))
    order = [*sorted(set(range(3)) - chosen), *sorted(chosen)]
    devices = math.prod(sizes[axis] for axis in chosen)
    numbered = np.arange(math.prod(sizes)).reshape(sizes).transpose(order).reshape(-1, devices)
    listed = "{" + ",".join("{" + ",".join(map(str, group)) + "}" for group in numbered.tolist()) + "}"
    transposed = "" if order == [0, 1, 2] else f"T({','.join(map(str, order))})"
    counted = f"[{len(numbered)},{devices}]<=[{','.join(map(str, sizes))}]{transposed}"
    outer = ",".join(f"'axis_{axis}'={size}" for axis, size in enumerate(sizes))
    inner = ",".join(f"'axis_{axis}'" for axis in sorted(chosen))
    named = f"mesh[{outer}] {{{inner}}}"
    return sizes, chosen, devices, draw(st.sampled_from((listed, counted, named)))


@given(groups())
def test_every_spelling_of_groups_gives_the_axes_that_they_were_made_from(case):
    sizes, chosen, devices, text = case
    mesh: dict[str, int] = dict(zip(AXES, sizes, strict=True))
    axes, found = _group(f"all-reduce(%x), replica_groups={text}, use_global_device_ids=true", mesh)
    assert found == devices
    assert axes == tuple(axis for at, axis in enumerate(AXES) if at in chosen and sizes[at] > 1)


@given(st.lists(st.integers(1, 4), min_size=3, max_size=3), st.permutations(range(3)), st.integers(1, 4))
def test_counted_groups_are_numpys_transposes(dims, order, cut):
    from griffin_eqx.planning.collectives import _iota

    numbers = np.arange(math.prod(dims)).reshape(dims).transpose(order).reshape(-1)
    size = math.gcd(cut, len(numbers))
    assert _iota([len(numbers) // size, size], dims, list(order)) == numbers.reshape(-1, size).tolist()


PIECES = """\
HloModule jit_step, is_scheduled=true

%started (p.1: bf16[8,64]) -> (bf16[8,64], bf16[16,64]) {
  %p.1 = bf16[8,64]{1,0} parameter(0)
  %all-gather.1 = bf16[16,64]{1,0} all-gather(%p.1), channel_id=7, GROUPS, dimensions={0}
  ROOT %call.1 = (bf16[8,64]{1,0}, bf16[16,64]{1,0}) custom-call(%p.1, %all-gather.1), custom_call_target="start"
}

%beside (p.2: bf16[8,64]) -> bf16[16,64] {
  %p.2 = bf16[8,64]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[16,64]{1,0} all-gather(%p.2), channel_id=7, GROUPS, dimensions={0}
}

%all-reduce-scatter.3 (p.3: f32[64,8]) -> f32[16,8] {
  %p.3 = f32[64,8]{1,0} parameter(0)
  %all-reduce.3 = f32[64,8]{1,0} all-reduce(%p.3), channel_id=9, replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add
  ROOT %slice.3 = f32[16,8]{1,0} slice(%all-reduce.3), slice={[0:16],[0:8]}
}

%body (p.4: (s32[], bf16[8,64])) -> (s32[], bf16[8,64]) {
  %p.4 = (s32[], bf16[8,64]{1,0}) parameter(0)
  %x.4 = bf16[8,64]{1,0} get-tuple-element(%p.4), index=1
  %fusion.4 = (bf16[8,64]{1,0}, bf16[16,64]{1,0}) fusion(%x.4), kind=kCustom, calls=%started
  %fusion.5 = bf16[16,64]{1,0} fusion(%x.4), kind=kOutput, calls=%beside
  ROOT %tuple.4 = (s32[], bf16[8,64]{1,0}) tuple(%x.4, %x.4)
}

%condition (p.5: (s32[], bf16[8,64])) -> pred[] {
  %p.5 = (s32[], bf16[8,64]{1,0}) parameter(0)
  %limit = s32[] constant(13)
  ROOT %compare.5 = pred[] compare(%p.5, %limit), direction=LT
}

ENTRY %main (x: bf16[8,64], w: f32[64,8]) -> f32[16,8] {
  %x = bf16[8,64]{1,0} parameter(0)
  %w = f32[64,8]{1,0} parameter(1)
  %start = (s32[], bf16[8,64]{1,0}) tuple(%x, %x)
  %while.1 = (s32[], bf16[8,64]{1,0}) while(%start), condition=%condition, body=%body
  ROOT %fusion.6 = f32[16,8]{1,0} fusion(%w), kind=kCustom, calls=%all-reduce-scatter.3
}
""".replace("GROUPS", "replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}")


def test_what_tpus_run_in_pieces_beside_products_counts_once():
    mesh = {"data": 4, "sequence": 1, "model": 2}
    scatter, gather = sorted(read_collectives(read_module(PIECES), mesh), key=lambda one: one.times)
    assert scatter == Collective(
        kind="reduce-scatter", axes=("data",), devices=4, times=1, sent_bytes=64 * 8 * 4 * 3 // 4
    )
    assert gather == Collective(
        kind="all-gather", axes=("model",), devices=2, times=13, sent_bytes=13 * 16 * 64 * 2 // 2
    )


def test_loops_in_loops_multiply():
    text = PIECES.replace(
        "%while.1 = (s32[], bf16[8,64]{1,0}) while(%start), condition=%condition, body=%body",
        "%while.1 = (s32[], bf16[8,64]{1,0}) while(%start), condition=%condition, body=%outer",
    ).replace(
        "%condition (p.5",
        "%outer (p.6: (s32[], bf16[8,64])) -> (s32[], bf16[8,64]) {\n"
        "  %p.6 = (s32[], bf16[8,64]{1,0}) parameter(0)\n"
        "  ROOT %while.6 = (s32[], bf16[8,64]{1,0}) while(%p.6), condition=%condition, body=%body, "
        'backend_config={"known_trip_count":{"n":"3"}}\n}\n\n%condition (p.5',
    )
    found = read_collectives(read_module(text), {"data": 4, "sequence": 1, "model": 2})
    assert [one.times for one in found if one.kind == "all-gather"] == [3 * 13]


def test_axes_of_pairs_are_those_along_which_devices_differ():
    from griffin_eqx.planning.collectives import _axes_of

    mesh = {"data": 2, "sequence": 3, "model": 4}
    places = list(itertools.product(range(2), range(3), range(4)))
    for one, other in itertools.product(range(len(places)), repeat=2):
        differ = {axis for axis, a, b in zip(mesh, places[one], places[other], strict=True) if a != b}
        assert set(_axes_of([(one, other)], mesh)) == differ
