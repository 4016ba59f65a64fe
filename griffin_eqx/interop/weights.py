"""A model between programs: its weights by name, each read when it is asked for.

Every format's reader makes a `Weights`, whatever the names and layouts on its disk, and every writer takes one. So
a conversion is a reader and a writer, with one tensor in memory at a time.
"""

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from griffin_eqx import registry
from griffin_eqx.config import Config, ModelConfig, TrainConfig
from griffin_eqx.errors import WeightsError
from griffin_eqx.interop.tensor_file import TensorSpec
from griffin_eqx.model import LanguageModel, template
from griffin_eqx.nn import Policy
from griffin_eqx.training import naming

Format = Literal["griffin", "hf", "deepmind"]


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where weights come from, and what their way back needs.

    Attributes:
      format: Whose program wrote them first.
      window: How a foreign attention window was read: `trained` (one key more than Hugging Face's code shows,
        as DeepMind's code trained them) or `hf` (as many as it shows).
      extra: What the foreign configuration says beyond the model, given back unchanged.
    """

    format: Format = "griffin"
    window: Literal["trained", "hf"] | None = None
    extra: dict[str, Any] = {}


class Weights(NamedTuple):
    """The weights of a model.

    Attributes:
      config: The model, and in `train.precision` the dtypes of its parameters and of computation.
      specs: Shape and dtype of each tensor by name, such as `layers.0.temporal.into_lru.weight`.
      read: Gives the tensor behind a name.
      step: Batches they have seen; 0 where nobody knows.
      origin: Where they come from.
      tokenizer: The tokenizer's file; None where there is none, or the task has its own.
    """

    config: Config
    specs: Mapping[str, TensorSpec]
    read: Callable[[str], np.ndarray]
    step: int = 0
    origin: Origin = Origin()
    tokenizer: Path | None = None


def tensor_specs(model: LanguageModel) -> dict[str, TensorSpec]:
    """Shape and dtype of each array of a model, or of its `template`, by name and in the order of the layers."""
    specs = {
        name: TensorSpec(tuple(spec.shape), np.dtype(spec.dtype))
        for name, spec in naming.specs(model).items()
    }
    return {name: specs[name] for name in sorted(specs, key=_natural)}


def specs_of(config: Config) -> dict[str, TensorSpec]:
    """`tensor_specs(template(config))`, remembered: a conversion asks several times, and it takes tracing.

    Raises:
      ConfigError: As `template`.
      PatternError: As `template`.
    """
    blocks = tuple(
        dict.fromkeys(plan.block for plan in registry.plan(config.model.pattern, config.model.blocks))
    )
    model = msgspec.json.encode(config.model, order="deterministic")
    return dict(_specs_of(model, str(Policy.parse(config.train.precision)), blocks))


@functools.lru_cache(maxsize=16)
def _specs_of(model: bytes, precision: str, blocks: tuple[type, ...]) -> dict[str, TensorSpec]:
    """Apart for blocks of one name: a notebook may define one anew."""
    config = Config(
        model=msgspec.json.decode(model, type=ModelConfig), train=TrainConfig(precision=precision)
    )
    return tensor_specs(template(config))


def of_model(model: LanguageModel, config: Config, **facts: Any) -> Weights:
    """The weights of a model in memory.

    Args:
      model: The model; its policy is written into the configuration.
      config: What it was built from.
      **facts: Other fields of `Weights`.

    Raises:
      WeightsError: If the configuration is of another model.
    """
    train = msgspec.structs.replace(config.train, precision=str(model.policy))
    config = msgspec.structs.replace(config, train=train)
    specs = tensor_specs(model)
    refuse_differences(specs, specs_of(config), "in memory")
    return Weights(config, specs, naming.reader(model), **facts)


def to_model(weights: Weights) -> LanguageModel:
    """Builds the model, with one tensor in memory beside it.

    Raises:
      WeightsError: If the weights are of another model than the configuration says; before any is read.
    """
    empty = template(weights.config)
    refuse_differences(weights.specs, tensor_specs(empty), "in memory")
    return naming.assemble(empty, weights.read)


def refuse_differences(
    there: Mapping[str, TensorSpec], wanted: Mapping[str, TensorSpec], where: Path | str
) -> None:
    """Holds the tensors of a file to those of a model: no name more, none less, shapes and dtypes equal.

    Raises:
      WeightsError: With the first few that differ.
    """
    names = {**wanted, **there}
    wrong = [
        f"{name}: {there.get(name, 'nothing')} there, {wanted.get(name, 'nothing')} in the model"
        for name in names
        if there.get(name) != wanted.get(name)
    ]
    if wrong:
        shown = wrong[:6] + ([f"and {len(wrong) - 6} more"] if len(wrong) > 6 else [])
        raise WeightsError(
            "The weights are not those of the model that their configuration describes.\n"
            f"  {where}\n" + "".join(f"  {line}\n" for line in shown) + "  Copy the folder again, whole."
        )


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts `layers.10` behind `layers.9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"\.", name)]
