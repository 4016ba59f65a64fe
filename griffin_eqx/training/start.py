"""Weights that a run starts from: those of another run, or of a folder of weights, with a fresh optimizer."""

import hashlib
from typing import Any, NamedTuple

import msgspec
import numpy as np

from griffin_eqx import registry
from griffin_eqx.config import Config, ModelConfig
from griffin_eqx.errors import CheckpointError, ConfigError
from griffin_eqx.model import LanguageModel
from griffin_eqx.training import naming
from griffin_eqx.training.differences import differences
from griffin_eqx.training.load import load
from griffin_eqx.training.run_directory import find


class Start(NamedTuple):
    """Weights to start from.

    Attributes:
      model: The model that has them.
      source: Where they are from.
      step: Batches that they have seen; 0 where nobody knows.
      digest: SHA-256 (hex) over all arrays and their names.
    """

    model: LanguageModel
    source: str
    step: int
    digest: str

    def facts(self) -> dict[str, Any]:
        """What `env.json` says of it."""
        return {"source": self.source, "step": self.step, "digest": self.digest}


def read_start(config: Config) -> Start:
    """Reads what `train.init_from` names, and holds it to the model that is asked for.

    Args:
      config: The resolved configuration.

    Raises:
      ConfigError: If it is `latest`.
      CheckpointError: If it is another model, with the keys that differ, or its matrices are of 8 bits.
      GriffinError: What `griffin_eqx.load` raises.
    """
    source = config.train.init_from
    assert source is not None
    if source == "latest":
        raise ConfigError(
            "train.init_from=latest would be another run each time.\n"
            f"  The newest one now is {find(source)}.\n  Name a folder."
        )
    loaded = load(source)
    if changed := differences(_canonical(loaded.config.model), _canonical(config.model), prefix="model."):
        shown = changed[:8] + ([f"and {len(changed) - 8} more"] if len(changed) > 8 else [])
        lines = "\n  ".join(shown)
        raise CheckpointError(
            f"train.init_from has the weights of another model.\n  {source}\n  {lines}\n"
            "  Leave MODEL out to take the model from there, or name the same one."
        )
    if loaded.model.policy.is_int8:
        raise CheckpointError(
            f"train.init_from has matrices of 8 bits, too coarse to be trained on.\n  {source}\n"
            "  Name the folder that it was made from, or widen it: griffin convert SRC DST --dtype f32."
        )
    return Start(loaded.model, source, loaded.step, _digest(loaded.model))


def started(template: LanguageModel, start: Start) -> LanguageModel:
    """The weights in the dtypes of the run; `template` says which, and how layers are grouped."""
    dtypes = {name: spec.dtype for name, spec in naming.specs(template).items()}
    read = naming.reader(start.model)
    return naming.assemble(template, lambda name: read(name).astype(dtypes[name]))


def _canonical(model: ModelConfig) -> ModelConfig:
    blocks = {registry.find(name).name: options for name, options in model.blocks.items() if options}
    return msgspec.structs.replace(
        model,
        pattern=str(registry.resolve(model.pattern)),
        blocks=blocks,
        lru_width=model.resolved_lru_width,
        mlp_width=model.resolved_mlp_width,
    )


def _digest(model: LanguageModel) -> str:
    total = hashlib.sha256()
    read = naming.reader(model)
    for name, spec in sorted(naming.specs(model).items()):
        total.update(f"{name} {spec.dtype} {spec.shape}\n".encode())
        total.update(np.ascontiguousarray(read(name)).reshape(-1).view(np.uint8).data)
    return total.hexdigest()
