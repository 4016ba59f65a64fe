"""Two presets, planned by the real TPU compiler: they fit, and communicate what their layers need."""

import fcntl
import hashlib
import importlib.util
import json
from pathlib import Path

import msgspec
import pytest

import griffin_eqx as gx
from griffin_eqx.aot import environment
from griffin_eqx.mesh import parse_mesh
from griffin_eqx.planning.plan import Planner
from griffin_eqx.planning.targets import parse_target
from griffin_eqx.planning.verdict import Plan, as_dict

PRESETS = (("hawk-100m", "v6e:2x4", "data=4,model=2"), ("mqa-100m", "v5e:2x2", "data=2,model=2"))

pytestmark = pytest.mark.xdist_group("aot")


@pytest.fixture(scope="module", params=PRESETS, ids=lambda preset: preset[0])
def plan(request) -> Plan:
    """A plan, kept for the next run until a source that is compiled changes."""
    reason = environment.unsupported()
    if reason:
        pytest.skip(f"no TPU compiler for this machine: {reason}")
    name, target, mesh = request.param
    folder = request.config.cache.mkdir("plans")
    found = folder / f"{name}-{_digest()}.json"
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            config = gx.preset(name)
            data = msgspec.structs.replace(config.data, batch_size=8, seq_len=512)
            with Planner(parse_target(target)) as planner:
                made = planner.plan(msgspec.structs.replace(config, data=data), parse_mesh(mesh), model=name)
            for stale in folder.glob(f"{name}-*.json"):
                stale.unlink()
            found.write_bytes(msgspec.json.encode(made))
    return msgspec.json.decode(found.read_bytes(), type=Plan)


def _digest() -> str:
    digest = hashlib.sha256(str(environment.folder()).encode())
    for package in ("griffin_kernels", "griffin_eqx", "griffin_plugins"):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        for folder in spec.submodule_search_locations:
            # What a training step is made of, and what reads it.
            for path in sorted(Path(folder).rglob("*.py")):
                if not {"cli", "ablation", "verify", "interop", "benchmark", "sampling"} & set(path.parts):
                    digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def test_it_fits_and_its_memory_adds_up(plan):
    assert plan.fits
    assert sum(plan.bytes_by_kind.values()) == plan.needed_bytes
    assert plan.reading.argument_bytes >= sum(plan.held_bytes.values())
    # Arrays are padded to tiles, and hardly more.
    assert plan.reading.argument_bytes < 1.1 * sum(plan.held_bytes.values())


def test_times_are_bounded_by_something(plan):
    assert plan.bottleneck in ("compute", "memory", "network")
    assert plan.seconds == max(plan.bounds.values())
    assert all(seconds > 0 for seconds in plan.bounds.values())


def test_a_layer_sums_over_model_as_often_as_its_two_halves_need(plan):
    """One sum after mixing and one after the MLP, each way; the compiler may put two into one, never add one.

    Attention adds one each way for the keys and values that all heads share.
    """
    (layer,) = plan.layers
    assert layer.error is None
    sums = [one for one in layer.reading.collectives if one.axes == ("model",) and one.kind == "all-reduce"]
    assert 1 <= sum(one.times for one in sums) <= (4 if layer.kind == "rg_lru" else 6)
    rows = plan.batch_size // plan.mesh[0]
    stream = rows * plan.seq_len * 768 * 2  # bytes of the residual stream: bfloat16
    part = 2 * (plan.mesh[2] - 1) / plan.mesh[2]
    assert sum(one.sent_bytes for one in sums) <= 4.5 * part * stream


def test_the_answer_is_json(plan):
    answer = json.loads(json.dumps(as_dict(plan)))
    assert answer["fits"] is True
    assert answer["versions"] == {name: environment.pins()[name] for name in ("jax", "libtpu")}
