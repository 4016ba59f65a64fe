"""Plans presets on slices of TPUs, one after the other: `python experiments/plan/run.py`. What is done is left alone.

Each line of results.jsonl is a plan as `griffin plan --json` gives it. `python experiments/plan/run.py --table` prints
the table of README.md.
"""

import json
import sys
import time
from pathlib import Path

import msgspec

from griffin_eqx import presets, registry
from griffin_eqx.mesh import MeshShape, parse_mesh
from griffin_eqx.planning.plan import Planner
from griffin_eqx.planning.targets import parse_target
from griffin_eqx.planning.verdict import as_dict

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"

ROWS = (
    # preset, target, mesh, rows of a batch, overrides
    ("griffin-14b", "v5p:4x4x8", "data=16,model=8", 256, {}),
    ("griffin-100m", "v5e:2x4", "data=8", 64, {}),
    ("hawk-100m", "v5e:2x4", "data=8", 64, {}),
    ("hawk-100m", "v5e:2x4", "data=8", 64, {"pattern": "rg_lru@24"}),
    ("recurrentgemma-2b", "v6e:4x4", "data=8,model=2", 16, {}),
    ("griffin-1.3b", "v6e:4x4", "data=8,model=2", 64, {}),
    ("mqa-100m", "v5e:2x4", "data=8", 64, {}),
    ("griffin-7b", "v5p:4x4x4", "data=8,model=8", 128, {}),
    ("griffin-3b", "v5p:2x4x4", "data=8,model=4", 64, {}),
    ("griffin-400m", "v5e:4x4", "data=16", 64, {"remat": "full"}),
    ("hawk-1.3b", "v5e:4x4", "data=4,model=4", 32, {"remat": "full"}),
    ("recurrentgemma-9b", "v5p:4x4x4", "data=16,model=4", 64, {}),
    ("hawk-7b", "v5p:4x4x4", "data=8,model=8", 128, {}),
    ("mqa-7b", "v5p:4x4x4", "data=8,model=8", 128, {}),
    ("hawk-14b", "v5p:4x4x8", "data=16,model=8", 256, {}),
    ("mqa-14b", "v5p:4x4x8", "data=16,model=8", 256, {}),
    ("hawk-3b", "v5p:2x4x4", "data=8,model=4", 64, {}),
    ("mqa-3b", "v6e:4x8", "data=8,model=4", 64, {}),
    ("mqa-1.3b", "v6e:4x4", "data=8,model=2", 64, {}),
    ("hawk-400m", "v5e:4x4", "data=16", 64, {}),
    ("mqa-400m", "v5e:4x4", "data=16", 64, {}),
    ("griffin-200m", "v5e:2x4", "data=8", 64, {}),
    ("hawk-200m", "v5e:2x4", "data=8", 64, {}),
    ("mqa-200m", "v5e:2x4", "data=8", 64, {}),
    # Beside DeepMind's (deepmind_7b.py), which computes each layer twice, on the mesh that its kernel can be cut for.
    ("griffin-7b", "v5p:4x4x4", "data=16,model=4", 128, {"remat": "full"}),
    (
        "griffin-7b",
        "v5p:4x4x4",
        "data=16,model=4",
        128,
        {"remat": "full", "pattern": "(rg_lru rg_lru local_mqa)@8"},
    ),
)
"""The most telling first: each takes minutes."""


def main() -> None:
    if "--table" in sys.argv:
        print(table())
        return
    done = {_key(plan) for plan in results()}
    for name, target, mesh, batch, overrides in ROWS:
        config = _config(name, batch, overrides)
        shape = parse_mesh(mesh)
        pattern = str(registry.resolve(config.model.pattern))
        if (pattern, name, target, tuple(shape), batch, config.train.remat) in done:
            continue
        print(f"{name} {target} {mesh}", file=sys.stderr, flush=True)
        started = time.time()
        with Planner(parse_target(target)) as planner:  # layers alone take as long again: one row shows them
            plan = planner.plan(config, shape, model=name, layers=name == "griffin-14b")
        with open(RESULTS, "a", encoding="utf-8") as file:
            file.write(json.dumps(as_dict(plan) | {"remat": config.train.remat}) + "\n")
        print(f"  {time.time() - started:.0f} s, fits: {plan.fits}", file=sys.stderr, flush=True)


def results() -> list[dict]:
    """All plans there are."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def _config(name, batch, overrides):
    config = presets.preset(name)
    data = msgspec.structs.replace(config.data, batch_size=batch)
    model = msgspec.structs.replace(config.model, pattern=overrides.get("pattern", config.model.pattern))
    train = msgspec.structs.replace(config.train, remat=overrides.get("remat", config.train.remat))
    return msgspec.structs.replace(config, data=data, model=model, train=train)


def _key(plan):
    mesh = tuple(plan["mesh"])
    return plan["pattern"], plan["model"], plan["target"], mesh, plan["batch_size"], plan["remat"]


def table() -> str:
    """The plans as Markdown, in the order of ROWS."""
    columns = (
        *(
            "preset",
            "layers",
            "target",
            "mesh",
            "rows x tokens",
            "remat",
            "fits",
            "GiB a chip",
            "kept",
            "temporaries",
        ),
        *("compute", "memory", "network", "bound", "tokens/s at most", "compile, CPU s"),
    )
    lines = ["| " + " | ".join(columns) + " |", "| --- | --- | --- | --- |" + " --: |" * (len(columns) - 4)]
    order = [row[0] for row in ROWS]
    for plan in sorted(results(), key=lambda plan: order.index(plan["model"])):
        kinds, bounds, gib = plan["bytes_by_kind"], plan["bounds"], 1 << 30
        kept = sum(kinds.get(kind, 0) for kind in ("parameters", "optimizer"))
        cells = (
            plan["model"],
            plan["pattern"],
            plan["target"],
            str(MeshShape(*plan["mesh"])),
            f"{plan['batch_size']} x {plan['seq_len']}",
            plan["remat"],
            "yes" if plan["fits"] else "no",
            f"{plan['needed_bytes'] / gib:.1f} of {plan['available_bytes'] / gib:.0f}",
            f"{kept / gib:.2f}",
            f"{kinds.get('temporaries', kinds.get('all else', 0)) / gib:.1f}",
            *(f"{1e3 * bounds[name]:,.0f} ms" if bounds else "" for name in ("compute", "memory", "network")),
            plan["bottleneck"] or "",
            f"{plan['tokens_per_second']:,.0f}" if plan["tokens_per_second"] else "",
            f"{plan['reading']['cpu_seconds']:.0f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
