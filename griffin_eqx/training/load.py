"""A model, back from its run directory or from a folder of weights."""

from pathlib import Path
from typing import Literal, NamedTuple

import equinox as eqx
import msgspec

from griffin_eqx import tasks
from griffin_eqx.config import Config, load_file
from griffin_eqx.data import Tokenizer, open_tokenizer
from griffin_eqx.errors import CheckpointError
from griffin_eqx.interop import deepmind, hugging_face
from griffin_eqx.interop import folder as weights_folder
from griffin_eqx.interop.convert import open_weights
from griffin_eqx.interop.weights import Weights, to_model
from griffin_eqx.model import LanguageModel, template
from griffin_eqx.training import checkpoints, naming
from griffin_eqx.training.run_directory import CHECKPOINTS, CONFIG, find, with_kept_tokenizer


class Loaded(NamedTuple):
    """What a run has made, or a conversion.

    Attributes:
      model: The model.
      tokenizer: What turns text into its tokens; None where its task is no text, or weights came without one.
      config: The run's configuration. Of weights from another program, `model` and `train.precision` say
        something; the rest are defaults.
      step: Batches the weights have seen; 0 where nobody knows.
    """

    model: LanguageModel
    tokenizer: Tokenizer | None
    config: Config
    step: int


def load(run_dir: str | Path, *, which: Literal["best", "last"] = "best", decoding: bool = False) -> Loaded:
    """Loads a model from a run directory or a folder of weights; nothing in it is changed.

    Args:
      run_dir: The directory, `latest` for the newest under `runs/`, or a folder that `griffin convert` or
        `griffin_eqx.interop.save` wrote, or one of Hugging Face's or DeepMind's, of which there is one version: `which`
        makes no difference.
      which: `best` by the task's metric on the validation split, or `last`. The best is the newest while nothing
        was evaluated yet, and with `train.keep_best=false`, which keeps no other.
      decoding: Lay the model out as `griffin_eqx.Engine` has it, so that it makes no copy: every layer's arrays apart.
        On CPU those of a folder of ours stay in its file, mapped into memory: it must not be written to meanwhile.

    Raises:
      RunError: If it is no run directory.
      ConfigError: If its configuration cannot be read.
      PatternError: If its task is not installed.
      CheckpointError: If it has no checkpoint yet, or the one wanted is damaged.
      WeightsError: If a folder of weights is damaged or incomplete.
      DataError: If its tokenizer cannot be read.
    """
    if is_folder_of_weights(run_dir):
        return _load_weights(run_dir, decoding)
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
    restored = checkpoints.restore(folder, step, {"model": template(config)}, config.model)
    kept = msgspec.structs.replace(config, data=with_kept_tokenizer(config.data, path))
    model = _unstacked(restored.pop("model")) if decoding else restored["model"]
    return Loaded(model, _task_tokenizer(kept), config, step)


def is_folder_of_weights(path: str | Path) -> bool:
    """Whether a folder is one of weights, whoever wrote it, and no run directory."""
    if "\0" in str(path):
        return False
    folder = Path(path)
    if weights_folder.is_weights(folder) or hugging_face.is_hugging_face(folder):
        return True
    if not folder.is_dir() or (folder / CONFIG).is_file():
        return False
    return deepmind.orbax_folder(folder) is not None or deepmind.is_torch(folder)


def _load_weights(path: str | Path, decoding: bool) -> Loaded:
    ours = weights_folder.is_weights(path)
    weights = weights_folder.read(path, mapped=decoding) if ours else open_weights(path)
    if weights.tokenizer is not None:
        tokenizer = open_tokenizer(weights.tokenizer)
    else:
        tokenizer = _task_tokenizer(weights.config) if weights.origin.format == "griffin" else None
    model = _decoding_model(weights) if decoding else to_model(weights)
    return Loaded(model, tokenizer, weights.config, weights.step)


def _decoding_model(weights: Weights) -> LanguageModel:
    """The model laid out for decoding, without its stacked form on the way."""
    apart = eqx.filter_eval_shape(_unstacked, template(weights.config))
    return naming.assemble(apart, weights.read, own=False)


def _unstacked(model: LanguageModel) -> LanguageModel:
    # Not at the top: the engine beside it imports the interop, and that this module.
    from griffin_eqx.sampling.decoding_model import unstacked

    return unstacked(model)


def _task_tokenizer(config: Config) -> Tokenizer | None:
    task, options = tasks.choose(config.data.task)
    return task.tokenizer(options, config.data)
