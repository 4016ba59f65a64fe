"""The conclusions of a plan follow from its readings."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.planning.collectives import Collective, merged
from griffin_eqx.planning.order import Reading
from griffin_eqx.planning.targets import CHIPS, larger, parse_target
from griffin_eqx.planning.verdict import Plan, as_dict

GB = 10**9


def reading(**given) -> Reading:
    usual = {
        "trace_seconds": 1.0,
        "compile_seconds": 2.0,
        "cpu_seconds": 3.0,
        "spans": {"data": (0,), "sequence": (), "model": (1,)},
        "argument_bytes": 7 * GB,
        "new_bytes": GB,
        "temporary_bytes": 2 * GB,
        "program_bytes": 10**6,
        "moved_bytes": 819 * 10**6,
        "cycles": 1_500_000,
        "collectives": (
            Collective(kind="all-reduce", axes=("model",), devices=4, times=2, sent_bytes=10**8),
            Collective(kind="all-gather", axes=("data", "model"), devices=16, times=3, sent_bytes=10**8),
        ),
    }
    return Reading(**(usual | given))


def made(**given) -> Plan:
    usual = {
        "model": "griffin-100m",
        "pattern": "rg_lru*2",
        "job": "train",
        "target": "v5e:4x4",
        "mesh": (4, 1, 4),
        "batch_size": 64,
        "seq_len": 2048,
        "held_bytes": {"parameters": 2 * GB, "optimizer": 4 * GB, "batch": 10**6},
        "flops": 16 * 197 * 10**9,
        "reading": reading(),
        "layers": (),
        "versions": {},
    }
    return Plan(**(usual | given))


def test_times_are_amounts_over_rates():
    plan = made()
    # 197 GFLOP a chip at 197 TFLOP/s; 0.819 GB at 819 GB/s; two directions of one link, then of two.
    assert plan.bounds == pytest.approx({"compute": 1e-3, "memory": 1e-3, "network": 1e-3 + 0.5e-3})
    assert plan.bottleneck == "network"
    assert plan.seconds == pytest.approx(1.5e-3)
    assert plan.tokens_per_second == pytest.approx(64 * 2048 / 1.5e-3)
    assert plan.compiler_seconds == pytest.approx(1e-3)
    assert made(job="decode").tokens_per_second == pytest.approx(64 / 1.5e-3)


def test_memory_is_all_that_the_compiler_counts():
    plan = made()
    assert plan.needed_bytes == 10 * GB + 10**6
    assert plan.fits
    kinds = plan.bytes_by_kind
    assert kinds["layout"] == 7 * GB - 6 * GB - 10**6
    assert sum(kinds.values()) == plan.needed_bytes
    assert not made(reading=reading(temporary_bytes=20 * GB)).fits


def test_what_the_compiler_refuses_does_not_fit():
    refused = reading(needed_bytes=20 * GB, available_bytes=15 * GB, collectives=(), moved_bytes=0)
    plan = made(reading=refused)
    assert (plan.fits, plan.needed_bytes, plan.available_bytes) == (False, 20 * GB, 15 * GB)
    assert sum(plan.bytes_by_kind.values()) == 20 * GB
    assert (plan.bounds, plan.seconds, plan.tokens_per_second) == ({}, None, None)
    assert plan.advice()[0].startswith("--train.remat full")
    mostly_kept = made(reading=refused, held_bytes={"parameters": 6 * GB, "optimizer": 12 * GB})
    assert "--target v5e:4x8" in mostly_kept.advice()[0]


def test_of_a_cpu_nothing_is_concluded():
    plan = made(target="cpu:16")
    assert (plan.fits, plan.bounds, plan.seconds, plan.advice()) == (None, {}, None, [])


@pytest.mark.parametrize(
    ("amounts", "bound", "said"),
    [
        ({"moved_bytes": 0}, "network", "all-reduce over model"),
        ({"moved_bytes": 10**10}, "memory", "smaller model axis"),
        ({"moved_bytes": 0, "collectives": ()}, "compute", "more chips"),
    ],
)
def test_advice_is_for_the_bottleneck(amounts, bound, said):
    plan = made(reading=reading(**amounts))
    assert plan.bottleneck == bound
    assert said in " ".join(plan.advice())


def test_a_plan_that_fits_by_a_hair_says_so():
    assert "little to spare" in made(reading=reading(temporary_bytes=8 * GB)).advice()[0]


def test_json_has_what_follows():
    answer = as_dict(made())
    assert answer["fits"] is True
    assert answer["bottleneck"] == "network"
    read = msgspec.json.decode(msgspec.json.encode(answer))
    assert read.keys() == answer.keys()
    assert (read["mesh"], read["bounds"]) == ([4, 1, 4], answer["bounds"])


COLLECTIVES = st.builds(
    Collective,
    kind=st.sampled_from(("all-reduce", "all-gather")),
    axes=st.sampled_from((("data",), ("model",), ("data", "model"))),
    devices=st.just(2),
    times=st.integers(1, 9),
    sent_bytes=st.integers(0, 99),
)


@given(st.lists(COLLECTIVES))
def test_merging_keeps_every_sum(collectives):
    result = merged(collectives)
    assert len({(one.kind, one.axes) for one in result}) == len(result)
    for field in ("times", "sent_bytes"):
        assert sum(getattr(one, field) for one in result) == sum(getattr(one, field) for one in collectives)
    assert [one.sent_bytes for one in result] == sorted((one.sent_bytes for one in result), reverse=True)


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_every_published_slice_can_be_named_and_the_next_is_larger(chip):
    for topology in chip.topologies:
        target = parse_target(f"{chip.name}:{topology}")
        assert str(target) == f"{chip.name}:{topology}"
        bigger = larger(target)
        assert bigger is None or bigger.num_devices > target.num_devices
