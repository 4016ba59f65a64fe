"""Our folder of weights: what `griffin sample`, `griffin eval` and `gx.load` read beside run directories.

    config.toml        the configuration, its pattern resolved; `griffin info FOLDER/config.toml` reads it, too
    model.safetensors  one tensor an array and layer, never stacked: `layers.0.temporal.into_lru.weight`
    weights.json       what the tensors must be, with the SHA-256 of each, where they come from, and its own digest
    tokenizer.*        the tokenizer's file, where the source had one

Names follow from the module tree, so that a block that nobody here has heard of is written and read as well.
Safetensors has no check of content: a flipped bit comes back as a wrong weight. Hence the digests.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from griffin_eqx import registry
from griffin_eqx.config import Config, ModelConfig, dumps, load_file
from griffin_eqx.data.tokenizers import TOKENIZERS
from griffin_eqx.errors import ConfigError, WeightsError
from griffin_eqx.interop import tensor_file
from griffin_eqx.interop.tensor_file import TensorFile, TensorSpec
from griffin_eqx.interop.weights import Origin, Weights, refuse_differences, specs_of
from griffin_eqx.pattern import PatternError
from griffin_eqx.training.differences import differences

FORMAT = 1
"""Version of the layout described above. A newer program reads older ones."""

CONFIG, TENSORS, DESCRIPTION = "config.toml", "model.safetensors", "weights.json"

Progress = Callable[[str, int], None]
"""Told the name and the bytes of each tensor when it is done."""


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a tensor must be."""

    shape: tuple[int, ...]
    dtype: str
    sha256: str


class TokenizerFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tokenizer beside the weights."""

    file: str
    sha256: str


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a folder says of itself.

    Attributes:
      format: Version of the layout.
      model: The model's configuration; that of `config.toml` must be equal.
      step: Batches that the weights have seen; 0 where nobody knows.
      origin: Where they come from.
      tokenizer: The tokenizer's file, if there is one.
      tensors: Every tensor by name.
      digest: SHA-256 of all of the above as JSON.
    """

    format: int
    model: ModelConfig
    step: int
    origin: Origin
    tokenizer: TokenizerFile | None
    tensors: dict[str, Tensor]
    digest: str = ""


def is_weights(path: str | Path) -> bool:
    """Whether a folder is one of ours."""
    return "\0" not in str(path) and (Path(path) / DESCRIPTION).is_file()


def read(path: str | Path, *, mapped: bool = False) -> Weights:
    """Opens a folder of weights: everything is checked but the tensors' content, which is when they are read.

    Args:
      path: The folder.
      mapped: Whether tensors are given as they lie in the file (`TensorFile.map`), and not in memory of their own.

    Raises:
      WeightsError: If a file is missing or damaged, they do not belong together, or a newer program wrote them.
      ConfigError: If the configuration cannot be read, or a block of its pattern is not installed.
    """
    path = Path(path)
    description = _describe(path / DESCRIPTION)
    try:
        config = load_file(path / CONFIG)
    except PatternError as error:
        raise ConfigError(f"{path / CONFIG}: {error}") from None
    if changed := differences(description.model, config.model, prefix="model."):
        raise WeightsError(
            f"{CONFIG} is not the one that the weights were written with.\n  {path}\n"
            + "".join(f"  {line}\n" for line in changed)
            + "  Bring the old one back: weights keep their model."
        )
    said = {
        name: TensorSpec(tensor.shape, np.dtype(tensor_file.DTYPES[tensor.dtype]))
        for name, tensor in description.tensors.items()
    }
    try:
        wanted = specs_of(config)
    except (ConfigError, PatternError) as error:
        raise ConfigError(f"{path / CONFIG}: {error}") from None
    refuse_differences(said, wanted, path / CONFIG)
    file = TensorFile(path / TENSORS)
    refuse_differences(file.specs, said, path / TENSORS)

    def checked(name: str) -> np.ndarray:
        array = file.map(name) if mapped else file.read(name)
        if _sha256(array) != description.tensors[name].sha256:
            raise WeightsError(
                f"{name} is damaged: it differs from its fingerprint.\n  {path / TENSORS}\n  Copy the file again."
            )
        return array

    tokenizer = _tokenizer(path, description.tokenizer)
    return Weights(config, said, checked, description.step, description.origin, tokenizer)


def write(weights: Weights, path: Path, *, progress: Progress = lambda name, nbytes: None) -> None:
    """Writes a folder of weights into one that exists and is empty.

    Args:
      weights: What to write.
      path: Where to.
      progress: Told of each tensor.

    Raises:
      WeightsError: If a dtype has no place in the format, or a tensor is not what it should be.
      OSError: If it cannot be written.
    """
    config = _resolved(weights.config)
    refuse_differences(weights.specs, specs_of(config), CONFIG)
    tensors: dict[str, Tensor] = {}

    def told(name: str) -> np.ndarray:
        array = np.asarray(weights.read(name), order="C")
        tensors[name] = Tensor(array.shape, tensor_file.NAMES[array.dtype], _sha256(array))
        progress(name, array.nbytes)
        return array

    tensor_file.write(path / TENSORS, weights.specs, told, {"format": "griffin_eqx"})
    tokenizer = None
    if weights.tokenizer is not None:
        kept = path / weights.tokenizer.name
        shutil.copyfile(weights.tokenizer, kept)
        tokenizer = TokenizerFile(kept.name, _sha256_of(kept))
    description = Description(FORMAT, config.model, weights.step, weights.origin, tokenizer, tensors)
    tree = msgspec.to_builtins(description)
    tree["digest"] = _digest(tree)
    (path / DESCRIPTION).write_bytes(msgspec.json.format(msgspec.json.encode(tree), indent=1))
    (path / CONFIG).write_text(dumps(config), encoding="utf-8")


def _resolved(config: Config) -> Config:
    """With canonical names of blocks, so that a later alias cannot come to mean another one."""
    model = msgspec.structs.replace(
        config.model,
        pattern=str(registry.resolve(config.model.pattern)),
        blocks={registry.find(name).name: options for name, options in config.model.blocks.items()},
    )
    return msgspec.structs.replace(config, model=model)


def _describe(path: Path) -> Description:
    try:
        tree = msgspec.json.decode(path.read_bytes())
        version = tree["format"]
        if isinstance(version, int) and version > FORMAT:
            raise WeightsError(
                f"The weights were written by a newer griffin_eqx, in format {version}.\n  {path}\n"
                f"  This one reads formats up to {FORMAT}: update griffin_eqx."
            )
        description = msgspec.convert(tree, Description)
        if tree["digest"] != _digest(tree):
            raise ValueError("it differs from its fingerprint")
        if unknown := {tensor.dtype for tensor in description.tensors.values()} - set(tensor_file.DTYPES):
            raise ValueError(f"it speaks of dtypes {', '.join(sorted(unknown))}")
    except WeightsError:
        raise
    except Exception as error:  # whatever a damaged file makes the parser say
        reason = str(error).partition("\n")[0][:200]
        raise WeightsError(
            f"The description of the weights is damaged: {type(error).__name__}: {reason}.\n  {path}\n"
            "  Copy the folder again."
        ) from None
    return description


def _tokenizer(path: Path, recorded: TokenizerFile | None) -> Path | None:
    if recorded is None:
        return None
    file = path / recorded.file
    if Path(recorded.file).name != recorded.file or recorded.file not in TOKENIZERS:
        raise WeightsError(
            f"The tokenizer is said to be in {recorded.file[:100]!r}.\n  {path / DESCRIPTION}\n"
            f"  It is one of {', '.join(TOKENIZERS)}, in the same folder."
        )
    try:
        found = _sha256_of(file)
    except OSError as error:
        raise WeightsError(
            f"The tokenizer's file cannot be read.\n  {file}: {error.strerror}\n  Copy the folder again, whole."
        ) from error
    if found != recorded.sha256:
        raise WeightsError(
            f"The tokenizer's file is not the one that the weights were written with.\n  {file}\n"
            "  Copy it again: another tokenizer would give other ids."
        )
    return file


def _digest(tree: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(tree | {"digest": ""}, order="sorted")).hexdigest()


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(tensor_file.raw_bytes(array)).hexdigest()


def _sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
