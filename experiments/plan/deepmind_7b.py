"""Compiles DeepMind's Griffin-7B for the slice that our griffin-7b is planned for, one of `SETTINGS` after the other.

`python experiments/plan/deepmind_7b.py` leaves alone what is done. Each line of deepmind.jsonl is a setting's plan as
`griffin plan --json` gives it, or the error. `--table` prints the table of README.md, with our plans beside.
`DEEPMIND_TPU_ENV` names the environment that deepmind-requirements.txt makes; this program itself runs in ours.
"""

import contextlib
import functools
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from griffin_eqx.aot.session import PACKAGES, TPU_VARIABLES, Child, folder_of
from griffin_eqx.mesh import MeshShape
from griffin_eqx.planning.order import Reading
from griffin_eqx.planning.verdict import Plan, as_dict

HERE = Path(__file__).parent
RESULTS = HERE / "deepmind.jsonl"
KINDS = ("all-reduce", "all-gather", "reduce-scatter")
"""Of collectives, those that have a column."""
TARGET, ROWS, TOKENS, VOCABULARY = "v5p:4x4x4", 128, 2048, 32_000
SECONDS = 3600.0


class Setting(msgspec.Struct, frozen=True):
    """One way to compile it.

    Attributes:
      scan: Of DeepMind's `ScanType`.
      layers: The first so many of the preset's 32.
      mesh: Devices along data, sequence, model.
      scanned_over: Mesh axes that rows and channels of the scan lie along, as its `scan_sharding_spec` says.
      keeps_rows: Whether the output of the embedding and of each block is laid over `data` by rows from outside:
        its own code says nothing of them.
      remat: Its `gradient_checkpointing`.
    """

    scan: str
    layers: int
    mesh: tuple[int, int, int] = (8, 1, 8)
    scanned_over: tuple[tuple[str, ...], tuple[str, ...]] = (("data",), ("model",))
    keeps_rows: bool = False
    remat: bool = True


EVERY = (("data", "model"), ())
"""Rows of the scan over all chips, for its channels cannot be cut in eight."""

SETTINGS = (
    Setting("LINEAR_PALLAS", 32),
    Setting("LINEAR_PALLAS", 3, (16, 1, 4)),
    Setting("LINEAR_PALLAS", 8, (16, 1, 4)),
    Setting("LINEAR_PALLAS", 32, (16, 1, 4)),
    Setting("LINEAR_PALLAS", 3, scanned_over=EVERY),
    Setting("LINEAR_NATIVE", 3),
    Setting("LINEAR_PALLAS", 8, (16, 1, 4), keeps_rows=True),
    Setting("LINEAR_PALLAS", 32, (16, 1, 4), keeps_rows=True),
)


def answer(request: dict[str, Any], dump: Path) -> dict[str, Any]:
    """Compiles a setting. Runs in the child process, in DeepMind's environment."""
    import jax
    import numpy as np
    import optax
    from jax.sharding import NamedSharding, PartitionSpec
    from recurrentgemma import common
    from recurrentgemma import jax as recurrentgemma

    from griffin_eqx.planning.child import compile_and_read, devices_of, spans
    from griffin_eqx.sharding import make_mesh

    setting = msgspec.convert(request, Setting)
    mesh = make_mesh(MeshShape(*setting.mesh), devices_of(TARGET))
    config = common.GriffinConfig.from_preset(common.Preset.GRIFFIN_PAPER_7B, vocab_size=VOCABULARY)
    config = config._replace(
        block_types=config.block_types[: setting.layers], scan_type=common.ScanType[setting.scan]
    )
    rows, channels = setting.scanned_over
    model = recurrentgemma.Griffin(
        config,
        scan_sharding_spec=recurrentgemma.ShardingSpec(
            mesh=mesh, batch_axis_name=rows, activations_axis_name=channels or None
        ),
        gradient_checkpointing=setting.remat,
        dtype="bfloat16",
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(5e-4, 0.9, 0.95, weight_decay=0.1))

    def initial() -> tuple[Any, Any]:
        few = jax.numpy.zeros((1, 2), "int32")
        plain = recurrentgemma.Griffin(config._replace(scan_type=common.ScanType.LINEAR_NATIVE))
        parameters = plain.init(jax.random.key(0), few, few)["params"]
        return parameters, optimizer.init(parameters)

    def laid(path: Any, leaf: Any) -> Any:
        return NamedSharding(mesh, PartitionSpec(*axes_of(jax.tree_util.keystr(path), len(leaf.shape))))

    def described(leaf: Any, sharding: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    def update(state: tuple[Any, Any], tokens: Any, positions: Any, targets: Any) -> Any:
        def loss(parameters: Any) -> Any:
            logits, _ = model.apply({"params": parameters}, tokens, positions, None, True, False)
            scores = logits.astype("float32")
            return optax.softmax_cross_entropy_with_integer_labels(scores, targets).mean()

        parameters, moments = state
        value, gradients = jax.value_and_grad(loss)(parameters)
        updates, moments = optimizer.update(gradients, moments, parameters)
        return (optax.apply_updates(parameters, updates), moments), value

    abstract = jax.eval_shape(initial)
    shardings = jax.tree_util.tree_map_with_path(laid, abstract)
    state = jax.tree.map(described, abstract, shardings)
    wide = jax.ShapeDtypeStruct((ROWS, TOKENS), np.int32, sharding=NamedSharding(mesh, PartitionSpec("data")))
    stream = NamedSharding(mesh, PartitionSpec("data"))

    step = jax.jit(update, donate_argnums=0, out_shardings=(shardings, None))
    traced = []

    def lower() -> Any:
        with _blocks_laid(stream) if setting.keeps_rows else contextlib.nullcontext():
            traced.append(step.trace(state, wide, wide, wide))
        return traced[0].lower()

    def size(tree: Any) -> int:
        return sum(_bytes(each) for each in jax.tree.leaves(tree))

    held = {"parameters": size(state[0]), "optimizer": size(state[1]), "batch": 3 * _bytes(wide)}
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract[0]))
    made = {"spans": spans(mesh), "held": held, "parameters": count} | compile_and_read(lower, mesh, dump)
    return made | {"flops": products(traced[0].jaxpr.jaxpr)}


def products(jaxpr: Any) -> int:
    """Floating-point operations of all products of a program, a multiply-add counted as 2.

    Shards of DeepMind's hold none.
    """
    import jax

    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[at] for at in contracted)
        values = jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda value: hasattr(value, "jaxpr")
        )
        inner = [getattr(value, "jaxpr", value) for value in values]
        total += equation.params.get("length", 1) * sum(
            products(each) for each in inner if hasattr(each, "eqns")
        )
    return total


def axes_of(name: str, rank: int) -> tuple[str | None, ...]:
    """The mesh axes of a parameter, by a plain rule that lays ours out the same way.

    What leaves the residual stream is cut into columns over `model`, what returns to it into rows, gates by their
    blocks, the table by its rows; the other side of each matrix over `data`. Vectors of channels lie over `model`,
    those of the stream are whole everywhere, as are keys' and values' columns, of one head.
    """
    rules = (
        ("input_embedding", ("model", "data")),
        ("gate']['w", ("model", "data", None)),
        ("gate']['b", ("model", None)),
        ("a_param", ("model",)),
        ("conv_1d']['w", (None, "model")),
        ("conv_1d']['b", ("model",)),
        ("linear_out']['kernel", ("model", "data")),
        ("proj_final']['kernel", ("model", "data")),
        ("ffw_down']['kernel", ("model", "data")),
        ("ffw_up']['w", (None, "data", "model")),
        ("ffw_up']['b", (None, None, None, "model")),
        ("proj_k']['kernel", ("data", None)),
        ("proj_v']['kernel", ("data", None)),
        ("linear_x']['bias", ("model",)),
        ("linear_y']['bias", ("model",)),
        ("kernel", ("data", "model")),
    )
    found = next((axes for part, axes in rules if part in name), ())
    return found if len(found) == rank else ()


@contextlib.contextmanager
def _blocks_laid(stream: Any) -> Iterator[None]:
    """Inside, what the embedding and every residual block return lies as `stream` says."""
    import jax
    from flax import linen
    from recurrentgemma.jax import modules

    def lay(call: Any, arguments: Any, named: Any, context: Any) -> Any:
        out = call(*arguments, **named)
        constrain = functools.partial(jax.lax.with_sharding_constraint, shardings=stream)
        if isinstance(context.module, modules.Embedder) and context.method_name == "encode":
            return constrain(out)
        if isinstance(context.module, modules.ResidualBlock) and context.method_name == "__call__":
            return constrain(out[0]), out[1]
        return out

    with linen.intercept_methods(lay):
        yield


def _bytes(array: Any) -> int:
    return math.prod(array.sharding.shard_shape(array.shape)) * array.dtype.itemsize


def main() -> None:
    if "--table" in sys.argv:
        print(table())
        return
    done = {msgspec.convert(result["setting"], Setting) for result in results()}
    for setting in SETTINGS:
        if setting in done:
            continue
        print(setting, file=sys.stderr, flush=True)
        started = time.time()
        result = {"setting": msgspec.to_builtins(setting)} | made(setting)
        with open(RESULTS, "a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        said = result.get("error") or f"fits: {result['fits']}"
        print(f"  {time.time() - started:.0f} s, {said}", file=sys.stderr, flush=True)


def made(setting: Setting) -> dict[str, Any]:
    """What came of a setting: its plan, or an `error`."""
    with tempfile.TemporaryDirectory(prefix="deepmind-plan-") as folder:
        dump = Path(folder) / "dump"
        flags = f"--xla_dump_to={dump} --xla_dump_hlo_as_text=true --xla_dump_hlo_module_re=jit_update"
        child = Child(
            "deepmind_7b:answer",
            python=Path(os.environ["DEEPMIND_TPU_ENV"]) / "bin" / "python",
            variables=TPU_VARIABLES | {"XLA_FLAGS": flags},
            packages={name: folder_of(name) for name in PACKAGES} | {"deepmind_7b": Path(__file__)},
            dump=dump,
            seconds=SECONDS,
        )
        try:
            came = child.ask(msgspec.to_builtins(setting))
        finally:
            child.stop()
    if "error" in came:
        return {"error": came["error"].strip().splitlines()[0]}
    reading = msgspec.convert(came["reading"], Reading)
    plan = Plan(
        model="DeepMind's Griffin-7B",
        pattern=f"(rg_lru rg_lru local_mqa)@{setting.layers}",
        job="train",
        target=TARGET,
        mesh=setting.mesh,
        batch_size=ROWS,
        seq_len=TOKENS,
        held_bytes=came["reading"]["held"],
        flops=came["reading"]["flops"],
        reading=reading,
        layers=(),
        versions=child.versions,
    )
    return as_dict(plan) | {"parameters": came["reading"]["parameters"]}


def results() -> list[dict]:
    """All there are."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def table() -> str:
    """Both programs as Markdown, the full depth first."""
    import run as plans

    columns = (
        *("program", "layers", "mesh", "remat", "scan, its rows / channels over"),
        *("GiB a chip", "temporaries", "PFLOP a step", "compute, ms", "memory", "network"),
        *(*(f"{kind}, GB" for kind in KINDS), "others, GB", "compile, CPU s", "program, MB"),
    )
    lines = [
        "| " + " | ".join(columns) + " |",
        "| --- | --: |" + " --- |" * 3 + " --: |" * (len(columns) - 5),
    ]
    rows = [
        ("ours", plan, (plan["remat"], "ours, data / model"))
        for plan in plans.results()
        if plan["model"] == "griffin-7b"
    ]
    for plan in results():
        setting = msgspec.convert(plan["setting"], Setting)
        over = " / ".join(",".join(axes) or "-" for axes in setting.scanned_over)
        told = ("full" if setting.remat else "none", f"{setting.scan}, {over}")
        plan = {"pattern": f"@{setting.layers}", "mesh": setting.mesh} | plan
        rows.append((f"DeepMind's{', rows kept' if setting.keeps_rows else ''}", plan, told))
    rows.sort(
        key=lambda row: (-int(row[1]["pattern"].partition("@")[2]), tuple(row[1]["mesh"]), row[0] != "ours")
    )
    return "\n".join([*lines, *(_line(*row) for row in rows)])


def _line(program: str, plan: dict[str, Any], told: tuple[str, ...]) -> str:
    cells = (program, plan["pattern"].partition("@")[2], str(MeshShape(*plan["mesh"])), *told)
    if "error" in plan:
        return f"| {' | '.join(cells)} | does not compile |" + " |" * 11
    reading, gib = plan["reading"], 1 << 30
    sent = dict.fromkeys((*KINDS, "others"), 0.0)
    for one in reading["collectives"]:
        sent[one["kind"] if one["kind"] in KINDS else "others"] += one["sent_bytes"] / 1e9
    cells += (
        f"{plan['needed_bytes'] / gib:.1f} of {plan['available_bytes'] / gib:.0f}",
        f"{reading['temporary_bytes'] / gib:.1f}",
        f"{plan['flops'] / 1e15:.1f}",
        *(
            f"{1e3 * plan['bounds'][name]:,.0f}" if plan["bounds"] else ""
            for name in ("compute", "memory", "network")
        ),
        *(f"{sent[kind]:.1f}" for kind in sent),
        f"{reading['cpu_seconds']:.0f}",
        f"{reading['program_bytes'] / 1e6:.0f}",
    )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
