"""Hugging Face's RecurrentGemma: `config.json` and safetensors files, one or many with an index.

Checked against `transformers` 5.23.0, `models/recurrent_gemma`; what its code does differently from DeepMind's is
in docs/recurrentgemma.md. Configurations of earlier versions are read, too.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from griffin_eqx.config import Config
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
from griffin_eqx.interop.layout import NEGATED, SAME, TORCH_CONV, TRANSPOSED, Row, rows
from griffin_eqx.interop.tensor_file import TensorFile, TensorSpec
from griffin_eqx.interop.weights import Origin, Weights

CONFIG, TENSORS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
"""Files are cut where they would grow beyond this, as `save_pretrained` did for long."""

_RECORD = "griffin_eqx"
"""The key of config.json under which we keep what their configuration has no word for; their program lets it be."""

_BESIDE = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
"""Small files that their program wants; kept so that they can go back."""

_KINDS = {"recurrent": RECURRENT, "attention": ATTENTION}

_DEFAULTS: dict[str, Any] = {
    "num_hidden_layers": 26,
    "vocab_size": 256_000,
    "hidden_size": 2560,
    "intermediate_size": 3 * 2560,
    "num_attention_heads": 10,
    "lru_width": None,
    "attention_window_size": 2048,
    "conv1d_width": 4,
    "logits_soft_cap": 30.0,
    "num_key_value_heads": None,
    "block_types": ["recurrent", "recurrent", "attention"],
    "partial_rotary_factor": 0.5,
    "rope_theta": 10_000.0,
}
"""What their class takes where a key is missing: as many key heads as query heads, and half of RecurrentGemma's MLP."""

_FIXED = {
    "model_type": "recurrent_gemma",
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "embeddings_scale_by_sqrt_dim": True,
}
"""Keys with one value that can be read here."""

_NORMS = (
    ("temporal_pre_norm.weight", "temporal_norm.scale", SAME),
    ("channel_pre_norm.weight", "mlp_norm.scale", SAME),
)
_MLP = tuple(
    row
    for theirs, ours in (("gate_proj", "gate"), ("up_proj", "up"), ("down_proj", "down"))
    for row in (
        (f"mlp_block.{theirs}.weight", f"mlp.{ours}.weight", TRANSPOSED),
        (f"mlp_block.{theirs}.bias", f"mlp.{ours}.bias", SAME),
    )
)
_TEMPORAL = {
    RECURRENT: (
        ("linear_x.weight", "into_lru.weight", TRANSPOSED),
        ("linear_x.bias", "into_lru.bias", SAME),
        ("linear_y.weight", "into_gate.weight", TRANSPOSED),
        ("linear_y.bias", "into_gate.bias", SAME),
        ("conv_1d.weight", "conv.weight", TORCH_CONV),
        ("conv_1d.bias", "conv.bias", SAME),
        ("rg_lru.recurrent_gate_weight", "recurrence_gate.weight", SAME),
        ("rg_lru.recurrent_gate_bias", "recurrence_gate.bias", SAME),
        ("rg_lru.input_gate_weight", "input_gate.weight", SAME),
        ("rg_lru.input_gate_bias", "input_gate.bias", SAME),
        ("rg_lru.recurrent_param", "a_param", NEGATED),
        ("linear_out.weight", "out.weight", TRANSPOSED),
        ("linear_out.bias", "out.bias", SAME),
    ),
    ATTENTION: (
        ("q_proj.weight", "query.weight", TRANSPOSED),
        ("k_proj.weight", "key.weight", TRANSPOSED),
        ("v_proj.weight", "value.weight", TRANSPOSED),
        ("o_proj.weight", "out.weight", TRANSPOSED),
        ("o_proj.bias", "out.bias", SAME),
    ),
}


def table(sizes: Sizes) -> list[Row]:
    """Every tensor of their model, and ours that it is."""
    found = [Row("model.embed_tokens.weight", ("embedding.weight",), rows(sizes.vocab_size))]
    for i, kind in enumerate(sizes.layers):
        there, here = f"model.layers.{i}", f"layers.{i}"
        found += [Row(f"{there}.{t}", (f"{here}.{o}",), change) for t, o, change in (*_NORMS, *_MLP)]
        found += [
            Row(f"{there}.temporal_block.{t}", (f"{here}.temporal.{o}",), change)
            for t, o, change in _TEMPORAL[kind]
        ]
    return [*found, Row("model.final_norm.weight", ("final_norm.scale",), SAME)]


def is_hugging_face(path: Path) -> bool:
    """Whether a folder is one of theirs."""
    return (path / CONFIG).is_file() and ((path / TENSORS).is_file() or (path / INDEX).is_file())


def read(path: Path, *, window: Literal["trained", "hf"] | None = None, dtype: Any = None) -> Weights:
    """Opens a folder of Hugging Face's.

    Args:
      path: The folder.
      window: `trained` reads their window of W as the W+1 keys that DeepMind's code trained with, `hf` as the W keys
        that Hugging Face's own code shows. As recorded where we wrote the folder; `trained` otherwise.
      dtype: Which dtype to read the weights in; as they are when None.

    Raises:
      WeightsError: If it is damaged, incomplete, or says what cannot be read here.
    """
    where = path / CONFIG
    tree = read_json(where)
    record = Record.find(tree.get(_RECORD), where)
    if record is not None and window is not None and window != record.window:
        record = None  # asked for another model than the one that was written
    choice = window or (record.window if record else None) or "trained"
    sizes = _sizes(tree, where, more_keys=int(choice == "trained"))
    beside = {name: read_json(path / name) for name in _BESIDE if (path / name).is_file()}
    origin = Origin("hf", choice, {"config": tree, "files": beside})
    names, read_tensor, digest = _open(path)
    if (head := names.pop("lm_head.weight", None)) is not None:
        tied = names.get("model.embed_tokens.weight")
        if head != tied or digest("lm_head.weight") != digest("model.embed_tokens.weight"):
            raise WeightsError(
                "lm_head.weight is not the embedding: the output matrix is tied to it here.\n"
                f"  {path}\n  Untied models cannot be read."
            )
    return foreign_weights(
        table(sizes),
        sizes,
        names,
        read_tensor,
        where=path,
        record=record,
        origin=origin,
        dtype=dtype,
        tokenizer=find_tokenizer(path),
    )


def write(
    weights: Weights,
    path: Path,
    *,
    window: Literal["trained", "hf"] | None = None,
    dtype: Any = None,
    progress: Callable[[str, int], None] = lambda name, nbytes: None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a folder of theirs into one that exists and is empty.

    Args:
      weights: What to write.
      path: Where to.
      window: `trained` writes one key less than ours, `hf` as many as ours. As it was read where it came from them;
        otherwise `hf`, by which their program shows as many keys as ours.
      dtype: Which dtype to write; as they are when None.
      progress: Told of each tensor.
      shard_bytes: Tensors that one file holds at most, in bytes.

    Raises:
      WeightsError: If their program cannot hold the model.
      OSError: If it cannot be written.
    """
    origin = weights.origin
    choice = window or (origin.window if origin.format == "hf" else None) or "hf"
    sizes = sizes_of(weights.config.model, "Hugging Face's RecurrentGemma")
    _refuse(sizes, choice)
    keys, specs, read_tensor = outgoing(table(sizes), weights, dtype)
    config = _config(sizes, fewer_keys=int(choice == "trained"))
    config["dtype"] = str(specs["model.final_norm.weight"].dtype)
    there = origin.extra.get("config", {}) if origin.format == "hf" else {}
    if there and _same(there, config, choice):
        config = there | ({} if dtype is None else _dtype_keys(there, config["dtype"]))
    else:
        config |= {_RECORD: Record.of(weights, choice)}
    shards = _shards(keys, specs, shard_bytes)
    for file, names in shards.items():

        def told(name: str) -> np.ndarray:
            array = read_tensor(name)
            progress(name, array.nbytes)
            return array

        tensor_file.write(path / file, {name: specs[name] for name in names}, told, {"format": "pt"})
    if len(shards) > 1:
        total = sum(spec.nbytes for spec in specs.values())
        homes = {name: file for file, names in shards.items() for name in names}
        write_json(path / INDEX, {"metadata": {"total_size": total}, "weight_map": homes})
    for name, content in origin.extra.get("files", {}).items() if origin.format == "hf" else ():
        if name in _BESIDE:
            write_json(path / name, content)
    copy_tokenizer(weights.tokenizer, path)
    write_json(path / CONFIG, config)


def _sizes(tree: Mapping[str, Any], where: Path, *, more_keys: int) -> Sizes:
    """What their configuration says."""
    wrong = [
        f"{key} is {json.dumps(tree[key])[:60]}, and only {json.dumps(value)} can be read here"
        for key, value in _FIXED.items()
        if key in tree and tree[key] != value
    ]
    if "model_type" not in tree:
        wrong.append("model_type is missing")
    if "quantization_config" in tree:
        wrong.append("the weights are quantised")
    rope = tree.get("rope_parameters") or {}
    get = _DEFAULTS | dict(tree) | (rope if isinstance(rope, dict) else {})
    if get.get("rope_type", "default") != "default" or tree.get("rope_scaling"):
        wrong.append("rotary positions are scaled")
    positive = ("num_hidden_layers", "vocab_size", "hidden_size", "intermediate_size", "num_attention_heads")
    positive += ("attention_window_size", "conv1d_width")
    wrong += [
        f"{key} is {str(get[key])[:40]}, no positive number" for key in positive if not _counts(get[key])
    ]
    optional = ("lru_width", "num_key_value_heads")
    wrong += [
        f"{key} is {str(get[key])[:40]}, no positive number"
        for key in optional
        if get[key] is not None and not _counts(get[key])
    ]
    real = ("logits_soft_cap", "partial_rotary_factor", "rope_theta")
    wrong += [f"{key} is {str(get[key])[:40]}, no number" for key in real if not _is_real(get[key])]
    kinds = get["block_types"]
    if not (isinstance(kinds, list) and kinds and all(kind in _KINDS for kind in map(str, kinds))):
        wrong.append(f"block_types is {str(kinds)[:60]}: only {' and '.join(_KINDS)} can be read here")
    if not wrong and get["num_hidden_layers"] > 10_000:
        wrong.append(f"num_hidden_layers is {get['num_hidden_layers']}, more than 10,000")
    if wrong:
        lines = "".join(f"  {line}\n" for line in wrong)
        raise WeightsError(f"The configuration cannot be read.\n  {where}\n{lines}  Is it RecurrentGemma's?")
    heads, layers = get["num_attention_heads"], get["num_hidden_layers"]
    names = tuple(_KINDS[kinds[i % len(kinds)]] for i in range(layers))
    return Sizes(
        layers=names,
        vocab_size=get["vocab_size"],
        width=get["hidden_size"],
        lru_width=get["lru_width"] or get["hidden_size"],
        mlp_width=get["intermediate_size"] // 2,
        num_heads=heads,
        kv_heads=get["num_key_value_heads"] or heads,
        head_dim=max(1, get["hidden_size"] // heads),
        window_size=get["attention_window_size"] + more_keys if ATTENTION in names else None,
        conv_width=get["conv1d_width"],
        rope_fraction=float(get["partial_rotary_factor"]),
        rope_base=float(get["rope_theta"]),
        # Their tanh(logits / 0) * 0 would make every logit 0 or NaN: a model that was meant is one without a cap.
        logit_soft_cap=float(get["logits_soft_cap"]),
    )


def _config(sizes: Sizes, *, fewer_keys: int) -> dict[str, Any]:
    """Their configuration of a model."""
    names = {ours: theirs for theirs, ours in _KINDS.items()}
    return {
        "architectures": ["RecurrentGemmaForCausalLM"],
        **{key: value for key, value in _FIXED.items() if key != "embeddings_scale_by_sqrt_dim"},
        "num_hidden_layers": len(sizes.layers),
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.width,
        "intermediate_size": 2 * sizes.mlp_width,
        "num_attention_heads": sizes.num_heads,
        "num_key_value_heads": sizes.kv_heads,
        "lru_width": sizes.lru_width,
        "attention_window_size": 2048 if sizes.window_size is None else sizes.window_size - fewer_keys,
        "conv1d_width": sizes.conv_width,
        "logits_soft_cap": sizes.logit_soft_cap,
        "block_types": [names[kind] for kind in sizes.layers],
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": sizes.rope_base,
            "partial_rotary_factor": sizes.rope_fraction,
        },
    }


def _refuse(sizes: Sizes, choice: str) -> None:
    """Raises what their program has no way to say."""
    wrong = []
    if not sizes.embedding_scale:
        wrong.append("embeddings are multiplied by sqrt(width) there: embedding_scale=false has no place")
    if not sizes.logit_soft_cap:
        wrong.append("a soft cap of 0 makes all logits 0 there: logit_soft_cap=0 has no place")
    if sizes.window_size is not None:
        if sizes.head_dim != sizes.width // sizes.num_heads:
            wrong.append(
                f"a head has width // num_heads = {sizes.width // sizes.num_heads} channels there, "
                f"not head_dim={sizes.head_dim}"
            )
        turned = int(sizes.head_dim * sizes.rope_fraction)
        if turned < 2 or turned % 2:
            wrong.append(f"rope_fraction={sizes.rope_fraction:g} of a head is {turned} channels: no pairs")
        if choice == "trained" and sizes.window_size < 2:
            wrong.append("a window of one key less than 1 is none: use --window hf")
    if wrong:
        raise cannot_say("Hugging Face's RecurrentGemma", wrong)


def _same(there: Mapping[str, Any], config: Mapping[str, Any], choice: str) -> bool:
    """Whether two configurations of theirs are one model."""
    more = int(choice == "trained")
    try:
        return _sizes(there, Path(CONFIG), more_keys=more) == _sizes(config, Path(CONFIG), more_keys=more)
    except WeightsError:
        return False


def _dtype_keys(there: Mapping[str, Any], dtype: str) -> dict[str, str]:
    """The dtype under the key that a configuration has for it."""
    return {"torch_dtype" if "torch_dtype" in there and "dtype" not in there else "dtype": dtype}


def _open(path: Path) -> tuple[dict[str, TensorSpec], Callable[[str], np.ndarray], Callable[[str], str]]:
    """`(specs, read, digest)` of all their files."""
    if not (path / INDEX).is_file():
        file = TensorFile(path / TENSORS)
        return dict(file.specs), file.read, file.digest
    where = path / INDEX
    homes = read_json(where).get("weight_map")
    if not isinstance(homes, dict) or not all(
        isinstance(home, str) and home == Path(home).name and home.endswith(".safetensors")
        for home in homes.values()
    ):
        raise WeightsError(
            f"The index is damaged: weight_map does not name files beside it.\n  {where}\n  Copy it again."
        )
    files = {home: TensorFile(path / home) for home in sorted(set(homes.values()))}
    found = {(name, home) for home, file in files.items() for name in file.specs}
    if wrong := sorted(found ^ set(homes.items())):
        name, home = wrong[0]
        side = "is not in the index as such" if (name, home) in found else "is not in its file"
        raise WeightsError(f"{name} {side}.\n  {path / home}\n  Copy the folder again, whole.")
    specs = {name: files[home].specs[name] for name, home in homes.items()}
    return specs, lambda name: files[homes[name]].read(name), lambda name: files[homes[name]].digest(name)


def _shards(names: list[str], specs: Mapping[str, TensorSpec], shard_bytes: int) -> dict[str, list[str]]:
    """Which tensors go into which file."""
    groups: list[list[str]] = [[]]
    size = 0
    for name in names:
        if groups[-1] and size + specs[name].nbytes > shard_bytes:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += specs[name].nbytes
    if len(groups) == 1:
        return {TENSORS: groups[0]}
    return {f"model-{i:05}-of-{len(groups):05}.safetensors": group for i, group in enumerate(groups, 1)}


def _counts(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**40


def _is_real(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e9


def config_of(tree: Mapping[str, Any], *, window: Literal["trained", "hf"] = "trained") -> Config:
    """Our configuration of the model that a `config.json` describes; see `read`."""
    return Config(model=_sizes(tree, Path(CONFIG), more_keys=int(window == "trained")).config())
