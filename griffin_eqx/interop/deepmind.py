"""DeepMind's RecurrentGemma: the parameters of its Flax model and of its torch model.

Checked against `recurrentgemma` 1.0.1. On a disk, Flax parameters are an Orbax folder, as DeepMind releases them and as
`recurrentgemma.jax.utils.load_parameters` reads them. Torch parameters are released as a pickle, and a pickle may run
code: it is never read here. Turn it into safetensors where torch is (docs/recurrentgemma.md has the two lines).

Neither says all of the model: window, soft cap and embedding scale come from what we noted beside them, from
RecurrentGemma's published sizes, or from `like`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from griffin_eqx import presets
from griffin_eqx.config import ModelConfig
from griffin_eqx.data.tokenizers import find_tokenizer
from griffin_eqx.errors import WeightsError
from griffin_eqx.interop import tensor_file
from griffin_eqx.interop.expressible import ATTENTION, RECURRENT, Sizes, cannot_say, sizes_of
from griffin_eqx.interop.foreign import (
    Record,
    copy_tokenizer,
    foreign_weights,
    outgoing,
    read_json,
    write_json,
)
from griffin_eqx.interop.layout import JOINED, JOINED_BIAS, NEGATED, REVERSED, SAME, TRANSPOSED, Row, rows
from griffin_eqx.interop.tensor_file import TensorFile, TensorSpec
from griffin_eqx.interop.weights import Origin, Weights

RECORD, TENSORS, PARAMS = "griffin_eqx.json", "model.safetensors", "params"
PROGRAM = "DeepMind's RecurrentGemma"


class Dialect(NamedTuple):
    """What its two programs write differently.

    Attributes:
      separator: Between the parts of a name.
      matrix: The last part of a dense layer's matrix, and how it lies.
    """

    separator: str
    matrix: tuple[str, Any]


FLAX = Dialect("/", ("kernel", SAME))
TORCH = Dialect(".", ("weight", TRANSPOSED))

_DENSE = {
    RECURRENT: (("linear_x", "into_lru"), ("linear_y", "into_gate"), ("linear_out", "out")),
    ATTENTION: (("proj_q", "query"), ("proj_k", "key"), ("proj_v", "value"), ("proj_final", "out")),
}
_BLOCK = {RECURRENT: "recurrent_block", ATTENTION: "attention_block"}
_WITHOUT_BIAS = ("proj_q", "proj_k", "proj_v")
_OTHERS = {
    RECURRENT: (
        (("conv_1d", "w"), "conv.weight", REVERSED),
        (("conv_1d", "b"), "conv.bias", SAME),
        (("rg_lru", "a_gate", "w"), "recurrence_gate.weight", SAME),
        (("rg_lru", "a_gate", "b"), "recurrence_gate.bias", SAME),
        (("rg_lru", "input_gate", "w"), "input_gate.weight", SAME),
        (("rg_lru", "input_gate", "b"), "input_gate.bias", SAME),
        (("rg_lru", "a_param"), "a_param", NEGATED),
    ),
    ATTENTION: (),
}


def table(sizes: Sizes, dialect: Dialect) -> list[Row]:
    """Every parameter of their model, and ours that it is made of."""
    last, turn = dialect.matrix

    def name(*parts: str) -> str:
        return dialect.separator.join(parts)

    found = [Row(name("embedder", "input_embedding"), ("embedding.weight",), rows(sizes.vocab_size))]
    for i, kind in enumerate(sizes.layers):
        there, here = f"blocks.{i}", f"layers.{i}"
        block, mlp = _BLOCK[kind], f"{here}.mlp"
        found.append(Row(name(there, "temporal_pre_norm", "scale"), (f"{here}.temporal_norm.scale",), SAME))
        for theirs, ours in _DENSE[kind]:
            layer = f"{here}.temporal.{ours}"
            found.append(Row(name(there, block, theirs, last), (f"{layer}.weight",), turn))
            if theirs not in _WITHOUT_BIAS:
                found.append(Row(name(there, block, theirs, "bias"), (f"{layer}.bias",), SAME))
        for parts, ours, change in _OTHERS[kind]:
            found.append(Row(name(there, block, *parts), (f"{here}.temporal.{ours}",), change))
        both = (f"{mlp}.gate.weight", f"{mlp}.up.weight")
        biases = (f"{mlp}.gate.bias", f"{mlp}.up.bias")
        found += [
            Row(name(there, "channel_pre_norm", "scale"), (f"{here}.mlp_norm.scale",), SAME),
            Row(name(there, "mlp_block", "ffw_up", "w"), both, JOINED),
            Row(name(there, "mlp_block", "ffw_up", "b"), biases, JOINED_BIAS),
            Row(name(there, "mlp_block", "ffw_down", last), (f"{mlp}.down.weight",), turn),
            Row(name(there, "mlp_block", "ffw_down", "bias"), (f"{mlp}.down.bias",), SAME),
        ]
    return [*found, Row(name("final_norm", "scale"), ("final_norm.scale",), SAME)]


def orbax_folder(path: Path) -> Path | None:
    """The Orbax folder that `path` is, or that is in it."""

    def is_orbax(folder: Path) -> bool:
        return (folder / "_METADATA").is_file() or (folder / "checkpoint").is_file()

    if is_orbax(path):
        return path
    inside = (
        [folder for folder in path.iterdir() if folder.is_dir() and is_orbax(folder)] if path.is_dir() else []
    )
    return inside[0] if len(inside) == 1 else None


def is_torch(path: Path) -> bool:
    """Whether a folder holds their torch parameters as safetensors."""
    return (path / TENSORS).is_file() and "embedder.input_embedding" in TensorFile(path / TENSORS).specs


def read(path: Path, *, like: ModelConfig | None = None, dtype: Any = None) -> Weights:
    """Opens a folder of DeepMind's parameters, Flax's or torch's.

    Args:
      path: The folder.
      like: A model with that window, soft cap and embedding scale, where the folder does not say.
      dtype: Which dtype to read the weights in; as they are when None.

    Raises:
      WeightsError: If it is damaged or incomplete, or nothing says what the parameters leave open.
    """
    record = None
    if (path / RECORD).is_file():
        tree = read_json(path / RECORD)
        record = Record.find(tree.get("griffin_eqx"), path / RECORD)
    if (folder := orbax_folder(path)) is not None:
        from griffin_eqx.interop import orbax_tree

        found, read_tensor, depth = orbax_tree.read(folder)
        dialect, where = FLAX, folder
        extra: dict[str, Any] = {"params": depth}
    else:
        file = TensorFile(path / TENSORS)
        found, read_tensor, dialect, where = dict(file.specs), file.read, TORCH, file.path
        extra = {"torch": True}
    # DeepMind's releases have it beside the Orbax folder.
    tokenizer = find_tokenizer(path) or (find_tokenizer(path.absolute().parent) if folder == path else None)
    return from_tensors(
        found,
        read_tensor,
        dialect,
        where=where,
        record=record,
        like=like,
        dtype=dtype,
        origin=Origin("deepmind", None, extra),
        tokenizer=tokenizer,
    )


def from_tensors(
    found: Mapping[str, TensorSpec],
    read_tensor: Callable[[str], np.ndarray],
    dialect: Dialect,
    *,
    where: Path | str,
    record: Record | None = None,
    like: ModelConfig | None = None,
    origin: Origin = Origin("deepmind"),  # noqa: B008 it is frozen
    dtype: Any = None,
    tokenizer: Path | None = None,
) -> Weights:
    """Gives their parameters under our names; see `read`."""
    sizes = _sizes(found, dialect, where, record.config.model if record else like)
    return foreign_weights(
        table(sizes, dialect),
        sizes,
        found,
        read_tensor,
        where=where,
        record=record,
        origin=origin,
        dtype=dtype,
        tokenizer=tokenizer,
    )


def write(
    weights: Weights,
    path: Path,
    *,
    torch: bool = False,
    dtype: Any = None,
    progress: Callable[[str, int], None] = lambda name, nbytes: None,
) -> None:
    """Writes a folder of theirs into one that exists and is empty.

    Args:
      weights: What to write.
      path: Where to: `params` for Flax, `model.safetensors` for torch, and `griffin_eqx.json` for the way back.
      torch: Whether torch's parameters are written rather than Flax's.
      dtype: Which dtype to write; as they are when None.
      progress: Told of each tensor.

    Raises:
      WeightsError: If their program cannot hold the model.
      OSError: If it cannot be written.
    """
    names, specs, read_tensor = to_tensors(weights, TORCH if torch else FLAX, dtype)

    def told(name: str) -> np.ndarray:
        array = read_tensor(name)
        progress(name, array.nbytes)
        return array

    if torch:
        tensor_file.write(path / TENSORS, {name: specs[name] for name in names}, told, {"format": "pt"})
    else:
        from griffin_eqx.interop import orbax_tree

        orbax_tree.write(path / PARAMS, names, told, weights.origin.extra.get("params", 1))
    write_json(path / RECORD, {"griffin_eqx": Record.of(weights), "their_config": _say(weights)})
    copy_tokenizer(weights.tokenizer, path)


def to_tensors(
    weights: Weights, dialect: Dialect, dtype: Any = None
) -> tuple[list[str], dict[str, TensorSpec], Callable[[str], np.ndarray]]:
    """`(names, specs, read)` of the parameters that weights become.

    Raises:
      WeightsError: If their program cannot hold the model.
    """
    sizes = sizes_of(weights.config.model, PROGRAM)
    _refuse(sizes)
    return outgoing(table(sizes, dialect), weights, dtype)


def _sizes(
    found: Mapping[str, TensorSpec], dialect: Dialect, where: Path | str, like: ModelConfig | None
) -> Sizes:
    """What shapes and `like` say together."""
    last, turn = dialect.matrix

    def shape(*parts: str) -> tuple[int, ...] | None:
        spec = found.get(dialect.separator.join(parts))
        if spec is None:
            return None
        return spec.shape[::-1] if parts[-1] == last and turn is TRANSPOSED else spec.shape

    embedding = shape("embedder", "input_embedding")
    layers = []
    lru = key = up = None
    while (kind := _kind(found, f"blocks.{len(layers)}", dialect)) is not None:
        block = f"blocks.{len(layers)}"
        layers.append(kind)
        up = up or shape(block, "mlp_block", "ffw_up", "w")
        lru = lru or shape(block, _BLOCK[RECURRENT], "rg_lru", "a_gate", "w")
        key = key or shape(block, _BLOCK[ATTENTION], "proj_k", last)
    whole = embedding is not None and len(embedding) == 2 and layers and up is not None and len(up) == 3
    whole = whole and (lru is None or (len(lru) == 3 and 0 not in lru))
    if not whole or embedding is None or up is None or (key is not None and (len(key) != 2 or 0 in key)):
        raise WeightsError(
            f"These are not the parameters of {PROGRAM}: they have no embedding, no blocks.0, or odd shapes.\n"
            f"  {where}\n  They begin with {', '.join(sorted(found)[:3]) or 'nothing'}."
        )
    width = embedding[1]
    num_heads = lru[0] if lru is not None else (width // key[1] if key is not None else 1)
    sizes = Sizes(
        layers=tuple(layers),
        vocab_size=embedding[0],
        width=width,
        lru_width=lru[0] * lru[1] if lru is not None else width,
        mlp_width=up[2],
        num_heads=max(1, num_heads),
        head_dim=key[1] if key is not None else 1,
    )
    return _completed(sizes, like or _published(sizes), where)


def _completed(sizes: Sizes, like: ModelConfig | None, where: Path | str) -> Sizes:
    """With what shapes do not say."""
    if like is None:
        raise WeightsError(
            "The parameters do not say the attention window, the soft cap and whether embeddings are scaled.\n"
            f"  {where}\n  Name a model that has them: --like recurrentgemma-2b, or a TOML file."
        )
    said = sizes_of(like, PROGRAM)
    if ATTENTION in sizes.layers and said.window_size is None:
        raise WeightsError(
            f"The model that it is said to be like has no {ATTENTION}, and so no window.\n  {where}\n"
            "  Name another one."
        )
    return dataclasses.replace(
        sizes,
        window_size=said.window_size if ATTENTION in sizes.layers else None,
        embedding_scale=said.embedding_scale,
        logit_soft_cap=said.logit_soft_cap,
        lru_width=sizes.lru_width if RECURRENT in sizes.layers else said.lru_width,
    )


def _published(sizes: Sizes) -> ModelConfig | None:
    """RecurrentGemma's own configuration, if the sizes are one of its two."""
    for size in presets.RECURRENT_GEMMA_SIZES:
        model = presets.preset(f"recurrentgemma-{size}").model
        said = sizes_of(model, PROGRAM)
        if (said.layers, said.width, said.num_heads) == (sizes.layers, sizes.width, sizes.num_heads):
            return model
    return None


def _kind(found: Mapping[str, TensorSpec], block: str, dialect: Dialect) -> str | None:
    """Which of the two a layer is; None where there is no such layer."""
    starts = {kind: dialect.separator.join((block, part, "")) for kind, part in _BLOCK.items()}
    probes = {RECURRENT: ("linear_x", dialect.matrix[0]), ATTENTION: ("proj_q", dialect.matrix[0])}
    for kind, start in starts.items():
        if start + dialect.separator.join(probes[kind]) in found:
            return kind
    return None


def _refuse(sizes: Sizes) -> None:
    """Raises what their program has no way to say."""
    wrong = []
    if sizes.conv_width != 4 and RECURRENT in sizes.layers:
        wrong.append(f"convolutions see 4 tokens there, not conv_width={sizes.conv_width}")
    if RECURRENT in sizes.layers and sizes.lru_width % 2:
        wrong.append(f"lru_width is even there, not {sizes.lru_width}")
    if sizes.window_size is not None:
        if sizes.kv_heads != 1:
            wrong.append(f"there is one key head there, not kv_heads={sizes.kv_heads}")
        if sizes.head_dim * sizes.num_heads != sizes.width:
            wrong.append(
                f"heads fill the width there: head_dim={sizes.head_dim} x {sizes.num_heads} heads is not "
                f"width={sizes.width}"
            )
        if sizes.head_dim % 4 or (sizes.rope_fraction, sizes.rope_base) != (0.5, 10_000.0):
            wrong.append(
                "half of each head is rotated there, in pairs, with wavelengths up to 10,000: "
                f"head_dim={sizes.head_dim}, rope_fraction={sizes.rope_fraction:g}, "
                f"rope_base={sizes.rope_base:g} have no place"
            )
        if sizes.window_size < 2:
            wrong.append("a token sees at least itself and one more there: window_size=1 has no place")
    elif sizes.width % sizes.num_heads:
        wrong.append(f"the number of heads divides the width there, not {sizes.num_heads} of {sizes.width}")
    if wrong:
        raise cannot_say(PROGRAM, wrong)


def _say(weights: Weights) -> dict[str, Any]:
    """The arguments of their `GriffinConfig`, for people."""
    sizes = sizes_of(weights.config.model, PROGRAM)
    return {
        "vocab_size": sizes.vocab_size,
        "width": sizes.width,
        "mlp_expanded_width": sizes.mlp_width,
        "num_heads": sizes.num_heads,
        "lru_width": sizes.lru_width,
        "block_types": [_BLOCK[kind].partition("_")[0].upper() for kind in sizes.layers],
        "embeddings_scale_by_sqrt_dim": sizes.embedding_scale,
        "attention_window_size": 2048 if sizes.window_size is None else sizes.window_size - 1,
        "logits_soft_cap": sizes.logit_soft_cap,
    }
