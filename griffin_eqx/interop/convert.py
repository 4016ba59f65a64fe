"""From one folder to another."""

from pathlib import Path

from griffin_eqx.config import Config
from griffin_eqx.interop import folder
from griffin_eqx.interop.place import new_folder
from griffin_eqx.interop.weights import of_model
from griffin_eqx.model import LanguageModel


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
    weights = of_model(model, config, step=step)
    with new_folder(Path(path), overwrite=overwrite) as there:
        folder.write(weights, there)
    return Path(path)
