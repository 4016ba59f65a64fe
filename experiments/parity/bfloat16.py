"""Takes the distance between programs in bfloat16 apart by operation, and writes BFLOAT16.md.

In both directions: one operation of theirs at a time in float32, and one operation of ours at a time rounded as they
round it. Exit code 1 where the programs as they are written again for this differ from themselves in a bit, or do not
become float32 once every operation is.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import references
import rounding_deepmind
import rounding_hugging_face
import rounding_ours
from compare import like, relative
from models import LARGE, SMALL
from operations import OPERATIONS, RG_LRU
from rounding_ours import ROUNDED

from griffin_eqx import interop

RESULTS = Path(__file__).parent / "BFLOAT16.md"
MODELS = [model for model in (*LARGE, *SMALL) if model.name in ("griffin-128", "hawk-128", "griffin")]
FRESH = "griffin-128"
"""Also with the weights that each program itself starts with."""

Logits = dict[str, list[np.ndarray]]
"""By variant, one array a draw."""


def deepmind(draws: list[references.Model]) -> tuple[list[np.ndarray], Callable, list]:
    """`(float32, wide operations -> logits, ours)`."""
    nets = [references.deepmind_net(draw, "bfloat16") for draw in draws]
    float32 = rounding_deepmind.forward(nets[0][0], draws[0], None)

    def run(wide):
        forward = rounding_deepmind.forward(nets[0][0], draws[0], wide)
        return [forward(params) for _, params in nets]

    ours = [interop.from_flax(params, like(draws[0]))[0] for _, params in nets]
    rounded = [jax.tree.map(lambda z: z.astype("float32"), params) for _, params in nets]
    return [float32(params) for params in rounded], run, ours


def hugging_face(draws: list[references.Model]) -> tuple[list[np.ndarray], Callable, list]:
    """As `deepmind`."""
    nets = [references.hugging_face_net(draw, "bfloat16") for draw in draws]
    ours, float32 = [], []
    for draw, net in zip(draws, nets, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            net.save_pretrained(folder)
            ours.append(interop.to_model(interop.open_weights(folder, window="hf")))
        rounded = rounding_hugging_face.with_frequencies(references.hugging_face_net(draw, "rounded"))
        float32.append(rounding_hugging_face.logits(rounded, draw, None))
    return float32, lambda wide: [rounding_hugging_face.logits(net, draws[0], wide) for net in nets], ours


PROGRAMS = {"DeepMind Flax": deepmind, "Hugging Face": hugging_face}


def measure(
    program: str, model: references.Model, draws: list[references.Model]
) -> tuple[list, Logits, Logits]:
    """`(float32, theirs, ours)`: logits of every variant."""
    float32, run, nets = PROGRAMS[program](draws)
    narrow = ROUNDED[program]
    theirs, ours = {}, {}
    variants = {
        "untouched": None,
        "nothing": (),
        **{op: (op,) for op in operations_of(program)},
        "RG-LRU": RG_LRU,
        "all of these": narrow,
        "everything": tuple(OPERATIONS),
    }
    for name, wide in variants.items():
        theirs[name] = run(wide)
        show(program, model, f"theirs, {name} in float32", theirs[name], float32)
    variants = {"untouched": (), **{op: (op,) for op in narrow}, "RG-LRU": RG_LRU, "all of these": narrow}
    for name, rounded in variants.items():
        forward = rounding_ours.forward(model, rounded)
        ours[name] = [forward(net) for net in nets]
        show(program, model, f"ours, {name} rounded", ours[name], float32)
    return float32, theirs, ours


def operations_of(program: str) -> list[str]:
    """DeepMind works its frequencies out in float32."""
    return [op for op in OPERATIONS if op != "frequencies" or program == "Hugging Face"]


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean square of the difference over that of `other`."""
    return float(np.sqrt(np.mean((one - other) ** 2) / np.mean(other**2)))


def distances(one: list[np.ndarray], other: list[np.ndarray], by: Callable = distance) -> np.ndarray:
    return np.array([by(a, b) for a, b in zip(one, other, strict=True)])


def show(program, model, what, logits, float32) -> None:
    print(program, model.name, what, *(f"{d:.1e}" for d in distances(logits, float32)), flush=True)


def wrongs(program, model, float32, theirs) -> list[str]:
    """The checks of what was written again."""
    found = []
    if not all(np.array_equal(a, b) for a, b in zip(theirs["untouched"], theirs["nothing"], strict=True)):
        found.append(f"{program} {model.name}: written again it is another program")
    if distances(theirs["everything"], float32).max() > 1e-5:
        found.append(f"{program} {model.name}: with every operation in float32 it is not float32")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="draws of every model")
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="these models alone; nothing is written")
    given = parser.parse_args()
    wrong, found = [], {}
    for program in PROGRAMS:
        for model in MODELS:
            if given.only and model.name not in given.only:
                continue
            draws = [model._replace(seed=seed) for seed in range(given.seeds)]
            if model.name == FRESH:
                draws += [draw._replace(fresh=True) for draw in draws]
            float32, theirs, ours = measure(program, model, draws)
            wrong += wrongs(program, model, float32, theirs)
            parts = {model.name: slice(given.seeds), f"{model.name}, fresh": slice(given.seeds, None)}
            for column, part in parts.items() if model.name == FRESH else [(model.name, slice(None))]:
                cut = [{name: logits[part] for name, logits in side.items()} for side in (theirs, ours)]
                found[program, column] = float32[part], *cut
            if not given.only:
                RESULTS.write_text(page(found, given.seeds))
    for line in wrong:
        print("WRONG", line)
    return int(bool(wrong))


def page(found, seeds: int) -> str:
    lines = [
        "# bfloat16, by operation",
        "",
        "`experiments/parity/bfloat16.py` writes this page; README.md says what the tables mean. A cell is the mean of",
        f"{seeds} draws of the weights, and from where to where they lie.",
    ]
    for program in PROGRAMS:
        columns = {column: value for (name, column), value in found.items() if name == program}
        if not columns:
            continue
        lines += ["", f"## {program}", "", *table("distance", columns, far(columns))]
        theirs = [*operations_of(program), "RG-LRU", "all of these", "everything"]
        rows = {label(op, program): [gone(value, op) for value in columns.values()] for op in theirs}
        lines += ["", "Theirs in float32: how much of its squared distance from float32 goes.", ""]
        lines += table("operation", columns, rows)
        ours = [*ROUNDED[program], "RG-LRU", "all of these"]
        rows = {label(op, program): [come(value, op) for value in columns.values()] for op in ours}
        lines += ["", "Ours rounded as theirs: how much of their squared distance comes.", ""]
        lines += table("operation", columns, rows)
    return "\n".join(lines) + "\n"


def label(operation: str, program: str) -> str:
    others = ", ".join(op for op in ROUNDED[program] if op not in RG_LRU)
    sums = {
        "RG-LRU": f"RG-LRU: {', '.join(RG_LRU)}",
        "all of these": f"all that we have in float32: RG-LRU, {others}",
        "everything": "everything",
    }
    return sums.get(operation) or f"{operation}: {OPERATIONS[operation]}"


def far(columns) -> dict[str, list[str]]:
    """The distances themselves."""

    def row(one, other, by=distance):
        return [spread(distances(one(*value), other(*value), by), ".4f") for value in columns.values()]

    def float32(float32, theirs, ours):
        return float32

    def theirs(variant):
        return lambda float32, theirs, ours: theirs[variant]

    def ours(variant):
        return lambda float32, theirs, ours: ours[variant]

    return {
        "theirs from float32": row(theirs("untouched"), float32),
        "ours from float32": row(ours("untouched"), float32),
        "theirs from float32, largest over largest": row(theirs("untouched"), float32, relative),
        "ours from float32, largest over largest": row(ours("untouched"), float32, relative),
        "theirs from ours": row(theirs("untouched"), ours("untouched")),
        "theirs, with what we have in float32, from ours": row(theirs("all of these"), ours("untouched")),
        "theirs from ours, with that rounded": row(theirs("untouched"), ours("all of these")),
    }


def gone(value, operation: str) -> str:
    float32, theirs, _ = value
    whole, left = (distances(theirs[name], float32) ** 2 for name in ("untouched", operation))
    return share(whole - left, whole)


def come(value, operation: str) -> str:
    float32, theirs, ours = value
    whole = distances(theirs["untouched"], float32) ** 2
    before, after = (distances(ours[name], float32) ** 2 for name in ("untouched", operation))
    return share(after - before, whole)


def share(part: np.ndarray, whole: np.ndarray) -> str:
    each = part / whole
    mean, low, high = (f"{round(z, 2) + 0.0:.0%}" for z in (part.sum() / whole.sum(), each.min(), each.max()))
    return f"{mean} ({low} to {high})"


def spread(values: np.ndarray, form: str) -> str:
    return f"{values.mean():{form}} ({values.min():{form}} to {values.max():{form}})"


def table(head: str, columns, rows: dict[str, list[str]]) -> list[str]:
    lines = [f"| {head} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]


if __name__ == "__main__":
    sys.exit(main())
