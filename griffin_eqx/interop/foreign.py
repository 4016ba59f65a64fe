"""What readers and writers of foreign folders share: checks, and the record of what a format cannot say."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import msgspec
import numpy as np

from griffin_eqx.config import Config, TrainConfig
from griffin_eqx.errors import ConfigError, GriffinError, WeightsError
from griffin_eqx.interop.cast import cast
from griffin_eqx.interop.expressible import Sizes, sizes_of
from griffin_eqx.interop.layout import NEGATED, Layout, Row
from griffin_eqx.interop.tensor_file import TensorSpec
from griffin_eqx.interop.weights import Origin, Weights, refuse_differences, specs_of
from griffin_eqx.nn import Policy
from griffin_eqx.pattern import PatternError

_LONGEST_JSON = 100_000_000

_FLOATS = {
    np.dtype(d): name for name, d in (("f32", jnp.float32), ("bf16", jnp.bfloat16), ("f16", jnp.float16))
}
"""Dtypes that foreign weights may have, and what a precision calls them."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What we leave in a foreign folder for the way back: all that its own configuration has no word for.

    Attributes:
      config: Our configuration of the model.
      step: Batches that the weights have seen.
      origin: Where they came from before.
      window: How the folder's attention window is to be read; see `hugging_face.read`.
    """

    config: Config
    step: int
    origin: Origin
    window: Literal["trained", "hf"] | None = None

    @staticmethod
    def of(weights: Weights, window: Literal["trained", "hf"] | None = None) -> dict[str, Any]:
        """What is written."""
        return msgspec.to_builtins(Record(weights.config, weights.step, weights.origin, window))

    @classmethod
    def find(cls, tree: Any, where: Path) -> "Record | None":
        """Reads it, if there is one.

        Raises:
          WeightsError: If it is damaged.
        """
        if tree is None:
            return None
        try:
            return msgspec.convert(tree, cls)
        except (msgspec.ValidationError, RecursionError, OverflowError) as error:
            raise WeightsError(
                f"What griffin_eqx noted about the weights is damaged: {str(error)[:150]}.\n  {where}\n"
                "  Copy the file again, or remove the key griffin_eqx to read the folder as a stranger's."
            ) from None


def foreign_weights(
    table: Sequence[Row],
    sizes: Sizes,
    found: Mapping[str, TensorSpec],
    read: Callable[[str], np.ndarray],
    *,
    where: Path | str,
    record: Record | None,
    origin: Origin,
    dtype: Any = None,
    tokenizer: Path | None = None,
) -> Weights:
    """Holds what is in foreign files to what their configuration says, and gives it under our names.

    Args:
      table: The format's layout of this model.
      sizes: What the configuration says.
      found: The tensors that are there.
      read: Gives one of them.
      where: For messages.
      record: What we left there, if we wrote it.
      origin: Where the weights come from, if we did not.
      dtype: Which dtype to read them in; as they are when None, and then they must have one.
      tokenizer: Its file.

    Raises:
      WeightsError: If names, shapes or dtypes are not all as they should be, or the record is of another model.
    """
    if record is not None:
        model, base, origin, step = record.config.model, record.config, record.origin, record.step
        if sizes_of(model, "This format") != _as_recorded(sizes, model):
            raise WeightsError(
                "The configuration has been changed since griffin_eqx wrote it beside its own.\n"
                f"  {where}\n  Bring it back, or remove the key griffin_eqx to read it as it is now."
            )
    else:
        model, base, step = sizes.config(), Config(), 0
    decays = {row.theirs for row in table if row.change is NEGATED}
    param = dtype or _dtype_of({name: spec for name, spec in found.items() if name not in decays}, where)
    decay = _dtype_of({name: spec for name, spec in found.items() if name in decays}, where)
    name = _FLOATS[np.dtype(param)]
    policy = Policy.parse(f"p={name},c={name}") if record is None else Policy.parse(base.train.precision)
    policy = Policy(jnp.dtype(param), policy.compute, policy.output, policy.state)
    train = msgspec.structs.replace(base.train, precision=str(policy))
    config = msgspec.structs.replace(base, model=model, train=train)
    full = _with_biases(config, where)
    layout = Layout(table, full, decay=decay)
    wanted = layout.specs
    if dtype is not None:
        wanted = {
            n: TensorSpec(s.shape, found[n].dtype if n in found else s.dtype) for n, s in wanted.items()
        }
    refuse_differences(found, wanted, where)
    ours = specs_of(config)
    for missing in sorted(set(full) - set(ours)):
        row = layout.home(missing)
        if np.any(read(row.theirs) != 0):
            raise WeightsError(
                f"{row.theirs} is not zero, and the model is recorded as one without biases.\n  {where}\n"
                "  Remove the key griffin_eqx to read it as one with them."
            )
    if record is None and decay != np.float32:
        origin = msgspec.structs.replace(origin, extra=origin.extra | {"decay": str(decay)})
    return Weights(config, ours, layout.reader(read, full), step, origin, tokenizer)


def outgoing(
    table: Sequence[Row], weights: Weights, dtype: Any = None
) -> tuple[list[str], dict[str, TensorSpec], Callable[[str], np.ndarray]]:
    """`(names, specs, read)` of the foreign tensors that weights become.

    Args:
      table: The format's layout of this model.
      weights: The weights.
      dtype: Which dtype they are written in, decays included; as they are when None.
    """
    if dtype is not None:
        weights = cast(weights, dtype)
    full = _with_biases(weights.config, "the model to be written")
    narrow = weights.origin.extra.get("decay")
    decay = np.dtype(dtype or (getattr(jnp, narrow) if narrow else np.float32))
    layout = Layout(table, full, decay=decay)
    read = layout.writer(weights.read, weights.specs, full, rounding=dtype is not None)
    return [row.theirs for row in table], layout.specs, read


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      WeightsError: If it cannot be read or is none.
    """
    try:
        if path.stat().st_size > _LONGEST_JSON:
            raise ValueError("it has more than 100 MB")
        tree = msgspec.json.decode(path.read_bytes())
        if not isinstance(tree, dict):
            raise ValueError("it is no table")
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0][:150]
        raise WeightsError(f"A file cannot be read: {reason}.\n  {path}\n  Copy it again.") from None
    return tree


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Writes a JSON object as people like to read it."""
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def copy_tokenizer(tokenizer: Path | None, path: Path) -> None:
    """Copies the tokenizer's file into a folder, if there is one."""
    if tokenizer is not None:
        shutil.copyfile(tokenizer, path / tokenizer.name)


def _as_recorded(sizes: Sizes, model: Any) -> Sizes:
    """Sizes that do not matter to this model, as `sizes_of` fills them in."""
    said = sizes_of(model, "This format")
    fields = {"conv_width"} if "rg_lru" not in said.layers else set()
    if said.window_size is None:
        fields |= {"kv_heads", "head_dim", "rope_fraction", "rope_base"}
    return dataclasses.replace(sizes, **{field: getattr(said, field) for field in fields})


def _dtype_of(found: Mapping[str, TensorSpec], where: Path | str) -> np.dtype:
    """The one dtype that all tensors have."""
    by_dtype = {spec.dtype: name for name, spec in found.items()}
    if wrong := [(name, dtype) for dtype, name in by_dtype.items() if dtype not in _FLOATS]:
        name, dtype = wrong[0]
        raise WeightsError(
            f"{name} has the dtype {dtype}: weights are of {', '.join(map(str, _FLOATS))}.\n  {where}\n"
            "  Quantised weights cannot be read."
        )
    if len(by_dtype) > 1:
        examples = ", ".join(f"{dtype} of {name}" for dtype, name in by_dtype.items())
        raise WeightsError(
            f"The weights are of several dtypes: {examples}.\n  {where}\n  Say which one to read them in: --dtype."
        )
    return next(iter(by_dtype), np.dtype(np.float32))


def _with_biases(config: Config, where: Path | str) -> dict[str, TensorSpec]:
    """Our tensors as a program has them that has biases everywhere."""
    model = msgspec.structs.replace(config.model, biases=True)
    train = TrainConfig(precision=config.train.precision)
    try:
        return specs_of(Config(model=model, train=train))
    except (ConfigError, PatternError, ValueError) as error:
        text = str(error) if isinstance(error, GriffinError) else f"{type(error).__name__}: {error}"
        raise WeightsError(
            f"The configuration does not fit together.\n  {where}\n  {text.splitlines()[0]}\n  Was it edited?"
        ) from None
