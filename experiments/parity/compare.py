"""Runs griffin_eqx beside the two reference programs and writes the table of differences (`make parity`).

Weights come in by every door: the folder that `save_pretrained` writes, the folder that `save_parameters` writes,
Flax's parameters and torch's in memory. Exit code 1 where a float32 difference is above 1e-4 of the scale (gradients:
1e-3), a greedy text differs, or a folder does not come back bit for bit.

In bfloat16 two right programs differ by their roundings; there the table has how far each is from float32 with the same
weights.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import references
from models import LARGE, SMALL, in_deepmind, in_hugging_face

import griffin_eqx as gx
from griffin_eqx import interop
from griffin_eqx.config import ModelConfig
from griffin_eqx.interop import deepmind, hugging_face
from griffin_eqx.interop.expressible import sizes_of
from griffin_eqx.interop.foreign import outgoing
from griffin_eqx.interop.weights import of_model
from griffin_eqx.training import naming

BOUND = 1e-4
RESULTS = Path(__file__).parent / "RESULTS.md"
HEADING = """# Figures

Written by `make parity`. Differences are the largest over the largest value: of logits, of any block's output, of any
tensor's gradient. The last two columns are how far logits are from those of the same bfloat16 weights in float32.
"""


def like(model: references.Model) -> ModelConfig:
    """What DeepMind's parameters do not say."""
    return ModelConfig(
        pattern="local_mqa",
        width=model.width,
        vocab_size=model.vocab_size,
        num_heads=model.heads,
        embedding_scale=model.scale,
        logit_soft_cap=model.cap,
        blocks={
            "local_mqa": {"window_size": model.window + 1, "head_dim": model.head_dim, "rope_fraction": 0.5}
        },
    )


def ours(
    net: gx.LanguageModel, model: references.Model
) -> tuple[np.ndarray, list[np.ndarray], gx.LanguageModel]:
    """`(logits, blocks, gradients)`."""
    tokens = jnp.asarray(references.tokens_of(model))

    def nll(net):
        logits, _ = net(tokens)
        steps = jax.nn.log_softmax(logits[:-1].astype(jnp.float32))
        return -jnp.take_along_axis(steps, tokens[1:, None], 1).mean()

    gradients = eqx.filter_jit(eqx.filter_grad(nll))(net)
    logits, layers = eqx.filter_jit(lambda net, t: gx.capture(net, t, names=("residual",)))(net, tokens)
    return (
        np.asarray(logits, np.float32),
        [np.asarray(layer["residual"], np.float32) for layer in layers],
        gradients,
    )


def relative(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference over the largest value."""
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-30))


def compare(name, net, config, model, outcome, dialect, greedy_tokens, wide=None):
    """One line of the table."""
    logits, blocks, gradients = ours(net, model)
    # Hugging Face's hidden states are what goes into a layer, DeepMind's what comes out.
    mine, theirs = (blocks, outcome.blocks) if dialect == "hf" else (blocks[1:], outcome.blocks[:-1])
    by_block = max((relative(a, b) for a, b in zip(mine, theirs, strict=True)), default=0.0)
    sizes = sizes_of(config.model, name)
    table = {"hf": hugging_face.table, "flax": lambda s: deepmind.table(s, deepmind.FLAX)}[dialect](sizes)
    _, specs, read = outgoing(table, of_model(gradients, config))
    assert set(specs) == set(outcome.gradients)
    by_gradient = max(relative(read(key).astype(np.float32), outcome.gradients[key]) for key in specs)
    written = gx.generate(
        net, [references.tokens_of(model)[:5]], max_new_tokens=greedy_tokens, temperature=0
    )[0]
    same = next(
        (i for i, (a, b) in enumerate(zip(written, outcome.greedy, strict=True)) if a != b), greedy_tokens
    )
    figures = [relative(logits, outcome.logits), by_block, by_gradient, same]
    return figures if wide is None else [*figures, relative(outcome.logits, wide), relative(logits, wide)]


def same_bytes(one, other) -> bool:
    one, other = (naming.flatten(z) for z in (one, other))
    return set(one) == set(other) and all(one[k].tobytes() == other[k].tobytes() for k in one)


def run(models, dtype, greedy_tokens):
    rows, wrong = [], []

    def add(program, model, figures):
        rows.append([program, model.name, dtype, *figures, *([None] * (6 - len(figures)))])
        print(*rows[-1], flush=True)
        if dtype == "float32" and (
            max(figures[:2]) > BOUND or figures[2] > 10 * BOUND or figures[3] < greedy_tokens
        ):
            wrong.append(rows[-1])

    narrow = dtype == "bfloat16"
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            if in_hugging_face(model):
                outcome = references.hugging_face(model, dtype, greedy_tokens, f"{folder}/hf")
                weights = interop.open_weights(f"{folder}/hf", window="hf")
                net = interop.to_model(weights)
                wide = (
                    references.hugging_face(model, "rounded", 1, f"{folder}/hf-wide").logits
                    if narrow
                    else None
                )
                figures = compare("hf", net, weights.config, model, outcome, "hf", greedy_tokens, wide)
                add("Hugging Face", model, figures)
                _round_trip(Path(folder) / "hf", wrong)
            if in_deepmind(model):
                outcome, params = references.deepmind(model, dtype, greedy_tokens, f"{folder}/rg")
                net, config = interop.from_flax(params, like(model))
                wide = (
                    references.deepmind(model, "rounded", 1, f"{folder}/rg-wide")[0].logits
                    if narrow
                    else None
                )
                figures = compare("rg", net, config, model, outcome, "flax", greedy_tokens, wide)
                add("DeepMind Flax", model, figures)
                on_disk = interop.to_model(interop.open_weights(f"{folder}/rg", like=like(model)))
                back = interop.to_flax(net, config)["params"]
                flat = [jax.tree_util.tree_leaves_with_path(tree) for tree in (params, back)]
                exact = all(p == q and np.array_equal(a, b) for (p, a), (q, b) in zip(*flat, strict=True))
                if not (exact and same_bytes(net, on_disk)):
                    wrong.append(["DeepMind's parameters do not come back", model.name])
                if dtype == "float32":
                    _, state, logits = references.deepmind_torch(model)
                    net, config = interop.from_torch(state, like(model))
                    mine, _ = eqx.filter_jit(net)(jnp.asarray(references.tokens_of(model)))
                    print(
                        "DeepMind torch",
                        model.name,
                        difference := relative(np.asarray(mine), logits),
                        flush=True,
                    )
                    rows.append(
                        ["DeepMind torch", model.name, dtype, difference, None, None, None, None, None]
                    )
                    back = interop.to_torch(net, config)
                    if difference > BOUND or any(not bool((back[k] == v).all()) for k, v in state.items()):
                        wrong.append(rows[-1])
    return rows, wrong


def _round_trip(path: Path, wrong: list) -> None:
    """Theirs, ours, theirs: every tensor and all of config.json."""
    interop.convert(path, path.parent / "ours", to="griffin")
    interop.convert(path.parent / "ours", path.parent / "back", to="hf")
    config = [msgspec.json.decode((p / "config.json").read_bytes()) for p in (path, path.parent / "back")]
    tensors = [hugging_face.TensorFile(p / "model.safetensors") for p in (path, path.parent / "back")]
    names = set(tensors[0].specs) | set(tensors[1].specs)
    if config[0] != config[1] or any(tensors[0].digest(n) != tensors[1].digest(n) for n in names):
        wrong.append(["Hugging Face's folder does not come back", str(path)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the small models alone, 40 tokens of text")
    parser.add_argument("--only", nargs="+", default=(), metavar="MODEL", help="these models alone")
    given = parser.parse_args()
    small, only = given.small, given.only
    rows, wrong = [], []
    plan = [("float32", [*LARGE, *SMALL]), ("bfloat16", [*LARGE[:2], *SMALL[:2]])]
    for dtype, models in [("float32", SMALL[:3])] if small else plan:
        models = [model for model in models if not only or model.name in only]
        found = run(models, dtype, 40 if small else 200)
        rows += found[0]
        wrong += found[1]
        if not small and not only:
            RESULTS.write_text(_table(rows))
    for row in wrong:
        print("WRONG", *row)
    return int(bool(wrong))


def _table(rows) -> str:
    heads = [
        "program",
        "model",
        "dtype",
        "logits",
        "blocks",
        "gradients",
        "equal greedy tokens",
        "its error",
        "our error",
    ]
    lines = [HEADING, "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [f"{z:.1e}" if isinstance(z, float) else "" if z is None else str(z) for z in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
