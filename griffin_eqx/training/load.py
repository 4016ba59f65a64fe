"""A trained model, back from its run directory."""

from pathlib import Path
from typing import Literal, NamedTuple

import equinox as eqx
import jax

from griffin_eqx import tasks
from griffin_eqx.config import Config, load_file
from griffin_eqx.data import Tokenizer
from griffin_eqx.errors import CheckpointError
from griffin_eqx.model import LanguageModel
from griffin_eqx.nn import Policy
from griffin_eqx.training import checkpoints
from griffin_eqx.training.run_directory import CHECKPOINTS, CONFIG, find


class Loaded(NamedTuple):
    """What a run has made.

    Attributes:
      model: The model.
      tokenizer: What turns text into its tokens; None where its task is no text.
      config: The run's configuration.
      step: Batches the weights have seen.
    """

    model: LanguageModel
    tokenizer: Tokenizer | None
    config: Config
    step: int


def load(run_dir: str | Path, *, which: Literal["best", "last"] = "best") -> Loaded:
    """Loads a model from a run directory; nothing in it is changed.

    Args:
      run_dir: The directory, or `latest` for the newest under `runs/`.
      which: `best` by the task's metric on the validation split, or `last`. The best is the newest while nothing
        was evaluated yet, and with `train.keep_best=false`, which keeps no other.

    Raises:
      RunError: If it is no run directory.
      ConfigError: If its configuration cannot be read.
      PatternError: If its task is not installed.
      CheckpointError: If it has no checkpoint yet, or the one wanted is damaged.
    """
    path = find(run_dir)
    config = load_file(path / CONFIG)
    folder = path / CHECKPOINTS
    steps = checkpoints.steps(folder)
    if not steps:
        raise CheckpointError(
            f"The run has no checkpoint yet.\n  {folder}\n"
            f"  Go on with: griffin train {path / CONFIG} --run-dir {path}"
        )
    step = steps[-1]
    if which == "best" and config.train.keep_best:
        best = checkpoints.describe(folder, step).standing.best_step
        step = step if best is None else best
    policy = Policy.parse(config.train.precision)
    template = eqx.filter_eval_shape(
        lambda: LanguageModel.init(config.model, policy=policy, key=jax.random.key(0))
    )
    restored = checkpoints.restore(folder, step, {"model": template}, config.model)
    task, options = tasks.choose(config.data.task)
    return Loaded(restored["model"], task.tokenizer(options), config, step)
