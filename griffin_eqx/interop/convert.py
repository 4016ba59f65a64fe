"""From one folder to another: any format that can be read here into any that can be written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp

from griffin_eqx import presets
from griffin_eqx.config import Config, ModelConfig, load_file
from griffin_eqx.data.tokenizers import find_tokenizer
from griffin_eqx.errors import WeightsError
from griffin_eqx.interop import deepmind, folder, hugging_face
from griffin_eqx.interop.cast import cast
from griffin_eqx.interop.place import new_folder
from griffin_eqx.interop.weights import Weights, of_model
from griffin_eqx.model import LanguageModel
from griffin_eqx.nn import Policy

To = Literal["griffin", "hf", "deepmind", "deepmind-torch"]
Window = Literal["trained", "hf"]
Dtype = Literal["f32", "bf16", "f16", "int8"]
Progress = Callable[[str, int], None]

_DTYPES: dict[str, Any] = {"f32": jnp.float32, "bf16": jnp.bfloat16, "f16": jnp.float16, "int8": jnp.int8}


def open_weights(
    source: str | Path,
    *,
    window: Window | None = None,
    dtype: Dtype | None = None,
    like: str | ModelConfig | None = None,
    which: Literal["best", "last"] = "best",
) -> Weights:
    """Opens a folder of weights, whoever wrote it; tensors are read when they are asked for.

    Args:
      source: A run directory (or `latest`), a folder of ours, of Hugging Face's or of DeepMind's.
      window: How a window of Hugging Face's is read; see `hugging_face.read`.
      dtype: Which dtype to have the weights in; as they are when None. `int8` rounds matrices alone, see
        `griffin_eqx.nn.Int8Matrix`.
      like: For DeepMind's folders, a preset or TOML file with the window, soft cap and embedding scale.
      which: Which checkpoint of a run; see `gx.load`.

    Raises:
      WeightsError: If there is no such folder, or it is damaged or incomplete.
      GriffinError: As `gx.load` for a run directory.
    """
    wanted = None if dtype is None else _DTYPES[dtype]
    theirs = None if dtype == "int8" else wanted  # no format but ours has them
    path = Path(source)
    if folder.is_weights(path):
        weights = folder.read(path)
    elif hugging_face.is_hugging_face(path):
        weights = hugging_face.read(path, window=window, dtype=theirs)
    elif str(source) == "latest" or (path / "config.toml").is_file():
        from griffin_eqx.training.load import load
        from griffin_eqx.training.run_directory import find

        loaded = load(source, which=which)
        kept = find_tokenizer(find(source))
        weights = of_model(loaded.model, loaded.config, step=loaded.step, tokenizer=kept)
    elif path.is_dir() and (deepmind.orbax_folder(path) is not None or deepmind.is_torch(path)):
        weights = deepmind.read(path, like=_like(like), dtype=theirs)
    else:
        raise WeightsError(
            f"There are no weights that can be read.\n  {str(source)!r}\n  Name a run directory, a folder that "
            "`griffin convert` wrote, one of Hugging Face's (config.json and safetensors), or DeepMind's Orbax folder."
        )
    return weights if wanted is None else cast(weights, wanted)


def convert(
    source: str | Path,
    path: str | Path,
    *,
    to: To,
    window: Window | None = None,
    dtype: Dtype | None = None,
    like: str | ModelConfig | None = None,
    which: Literal["best", "last"] = "best",
    overwrite: bool = False,
    progress: Progress = lambda name, nbytes: None,
) -> Path:
    """Writes the weights in one folder into another, in another format; what `griffin convert` does.

    Memory holds one tensor at a time, except that a run's checkpoint and an Orbax folder to be written are whole in it.

    Args:
      source: As `open_weights`.
      path: The new folder. It appears when it is complete.
      to: Its format.
      window: How Hugging Face's window is read or written; see `hugging_face.read` and `hugging_face.write`.
      dtype: Which dtype to write; as they are when None. `int8` is for our format alone.
      like: As `open_weights`.
      which: As `open_weights`.
      overwrite: Whether weights that are there are replaced.
      progress: Told the name and bytes of each tensor written.

    Returns:
      The new folder.

    Raises:
      WeightsError: If the source cannot be read, or the format cannot hold the model.
    """
    weights = open_weights(source, window=window, dtype=dtype, like=like, which=which)
    write(weights, path, to=to, window=window, dtype=dtype, overwrite=overwrite, progress=progress)
    return Path(path)


def write(
    weights: Weights,
    path: str | Path,
    *,
    to: To,
    window: Window | None = None,
    dtype: Dtype | None = None,
    overwrite: bool = False,
    progress: Progress = lambda name, nbytes: None,
) -> None:
    """Writes weights into a new folder; see `convert`."""
    wanted = None if dtype is None else _DTYPES[dtype]
    if to != "griffin":
        _refuse_int8(weights, dtype)
    with new_folder(Path(path), overwrite=overwrite) as there:
        if to == "griffin":
            folder.write(weights if wanted is None else cast(weights, wanted), there, progress=progress)
        elif to == "hf":
            hugging_face.write(weights, there, window=window, dtype=wanted, progress=progress)
        else:
            deepmind.write(weights, there, torch=to == "deepmind-torch", dtype=wanted, progress=progress)


def save(
    model: LanguageModel, config: Config, path: str | Path, *, step: int = 0, overwrite: bool = False
) -> Path:
    """Writes a model's weights into a folder that `gx.load`, `griffin sample` and `griffin convert` read.

    Args:
      model: The model.
      config: The configuration that it was built from.
      path: The folder.
      step: Batches that the weights have seen.
      overwrite: Whether weights that are there are replaced.

    Returns:
      The folder.

    Raises:
      WeightsError: If the configuration is of another model, or the folder exists or cannot be written.
    """
    write(of_model(model, config, step=step), path, to="griffin", overwrite=overwrite)
    return Path(path)


def _refuse_int8(weights: Weights, dtype: Dtype | None) -> None:
    if dtype == "int8" or (dtype is None and Policy.parse(weights.config.train.precision).is_int8):
        raise WeightsError(
            "Matrices of 8 bits have no place in other programs' formats.\n  in the model to be written\n"
            "  Keep them in ours (--to griffin), or widen them: --dtype bf16."
        )


def _like(name: str | ModelConfig | None) -> ModelConfig | None:
    if name is None or isinstance(name, ModelConfig):
        return name
    config = load_file(name) if name.endswith(".toml") else presets.preset(name)
    return config.model
