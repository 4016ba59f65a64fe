"""Models from parameters in memory, and back: Flax's nested dictionaries, torch's state dicts."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from griffin_eqx.config import Config, ModelConfig
from griffin_eqx.errors import WeightsError
from griffin_eqx.interop import deepmind, orbax_tree
from griffin_eqx.interop.deepmind import FLAX, TORCH, Dialect
from griffin_eqx.interop.tensor_file import TensorSpec
from griffin_eqx.interop.weights import of_model, to_model
from griffin_eqx.model import LanguageModel


def from_flax(tree: Mapping[str, Any], like: ModelConfig | None = None) -> tuple[LanguageModel, Config]:
    """The model of DeepMind's Flax parameters.

    Args:
      tree: Nested dictionaries of arrays, with or without `params` around them.
      like: A model with that window, soft cap and embedding scale, which parameters do not say. Not needed for
        RecurrentGemma's published sizes.

    Returns:
      `(model, config)`.

    Raises:
      WeightsError: If they are not the parameters of that program.
    """
    leaves, _ = orbax_tree.flatten(tree)
    return _from({name: np.asarray(leaf) for name, leaf in leaves.items()}, FLAX, like)


def to_flax(model: LanguageModel, config: Config) -> dict[str, Any]:
    """DeepMind's Flax parameters of a model: `recurrentgemma.jax.Griffin(...).apply(tree, ...)` takes them.

    Args:
      model: The model.
      config: What it was built from.

    Returns:
      `{"params": ...}`, nested dictionaries of NumPy arrays.

    Raises:
      WeightsError: If that program cannot hold the model.
    """
    names, _, read = deepmind.to_tensors(of_model(model, config), FLAX)
    return orbax_tree.nest({name: np.ascontiguousarray(read(name)) for name in names}, 1)


def from_torch(
    state_dict: Mapping[str, Any], like: ModelConfig | None = None
) -> tuple[LanguageModel, Config]:
    """The model of DeepMind's torch parameters.

    Args:
      state_dict: Tensors, or arrays, by name.
      like: As `from_flax`.

    Returns:
      `(model, config)`.

    Raises:
      WeightsError: If they are not the parameters of that program.
    """
    return _from({name: _as_numpy(leaf) for name, leaf in state_dict.items()}, TORCH, like)


def to_torch(model: LanguageModel, config: Config) -> dict[str, Any]:
    """DeepMind's torch parameters of a model, as tensors: `load_state_dict` takes them. Needs torch.

    Args:
      model: The model.
      config: What it was built from.

    Raises:
      WeightsError: If that program cannot hold the model.
      ModuleNotFoundError: If torch is not installed.
    """
    torch = importlib.import_module("torch")
    names, _, read = deepmind.to_tensors(of_model(model, config), TORCH)

    def tensor(array: np.ndarray) -> Any:
        array = np.array(array, order="C")
        if array.dtype.name == "bfloat16":  # which torch does not know from NumPy
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    return {name: tensor(read(name)) for name in names}


def _from(
    arrays: Mapping[str, np.ndarray], dialect: Dialect, like: ModelConfig | None
) -> tuple[LanguageModel, Config]:
    specs = {name: TensorSpec(array.shape, array.dtype) for name, array in arrays.items()}
    get: Callable[[str], np.ndarray] = arrays.__getitem__
    weights = deepmind.from_tensors(specs, get, dialect, where="in memory", like=like)
    return to_model(weights), weights.config


def _as_numpy(leaf: Any) -> np.ndarray:
    """An array of a torch tensor, or of anything that NumPy knows."""
    if not hasattr(leaf, "detach"):
        return np.asarray(leaf)
    leaf = leaf.detach().cpu().contiguous()
    if str(leaf.dtype) == "torch.bfloat16":
        import ml_dtypes

        return leaf.view(importlib.import_module("torch").int16).numpy().view(ml_dtypes.bfloat16)
    try:
        return leaf.numpy()
    except TypeError:
        raise WeightsError(
            f"Tensors of {leaf.dtype} cannot be read.\n  in memory\n  Cast them to float32 first."
        ) from None
