"""Which meshes are tried, in which order, and how they are ranked."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

import griffin_eqx as gx
from griffin_eqx.planning.search import candidates, rank
from griffin_eqx.planning.targets import parse_target
from tests.planning.test_verdict import GB, made, reading


def tried(preset: str, target: str, batch_size: int):
    base = gx.preset(preset)
    config = msgspec.structs.replace(base, data=msgspec.structs.replace(base.data, batch_size=batch_size))
    return candidates(parse_target(target), config, "train")


def test_the_sequence_is_split_last_and_rows_are_divided():
    found = tried("griffin-1.3b", "v5p:2x2x2", batch_size=4)
    assert [mesh.sequence for mesh in found] == sorted(mesh.sequence for mesh in found)
    assert found[0].sequence == 1
    assert {mesh.num_devices for mesh in found} == {8}
    assert all(4 % mesh.data == 0 for mesh in found)


def test_what_parameters_alone_would_fill_is_not_compiled():
    # 14 billion parameters and two moments in float32 are 170 GB: more than 4 chips of 16 GiB have, less than 64 have.
    assert not tried("griffin-14b", "v5e:2x2", batch_size=8)
    assert tried("griffin-14b", "v5e:8x8", batch_size=64)


sizes = st.integers(1, 40).map(lambda gib: gib * GB)
plans = st.builds(
    lambda temporary, flops, moved: made(
        flops=flops, reading=reading(temporary_bytes=temporary, moved_bytes=moved)
    ),
    sizes,
    st.integers(1, 10**15),
    st.integers(1, 10**12),
)


@given(st.lists(plans, min_size=2, max_size=6))
def test_what_fits_stands_before_what_does_not_and_the_fastest_first(found):
    ranked = sorted(found, key=rank)
    fitting = [plan.fits for plan in ranked]
    assert fitting == sorted(fitting, reverse=True)
    for group in (True, False):
        seconds = [plan.seconds for plan in ranked if plan.fits is group]
        assert seconds == sorted(seconds)
