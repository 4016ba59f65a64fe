"""A finished model on a corpus, a file or its own task: the measures that training reports, afterwards."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import jax
import msgspec

from griffin_eqx import tasks
from griffin_eqx.config import DataConfig
from griffin_eqx.data import Tokenizer, encode_documents
from griffin_eqx.data.textfile import read_documents
from griffin_eqx.errors import ConfigError
from griffin_eqx.interop import open_weights
from griffin_eqx.mesh import MeshShape
from griffin_eqx.placement import check_rows
from griffin_eqx.sharding import in_host_memory, lay, make_mesh
from griffin_eqx.task import EvalSet, Metric, Split
from griffin_eqx.text_sets import text_sets
from griffin_eqx.training import evaluation
from griffin_eqx.training.load import Loaded, is_folder_of_weights, load
from griffin_eqx.training.outcome import SetOutcome
from griffin_eqx.training.run_directory import find, with_kept_tokenizer

Watch = Callable[[str, int, int], None]
"""Told how far an evaluation is: the set's name, batches judged, and how many there are."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """A model on a text or a task.

    Attributes:
      model: The run directory or the folder of weights.
      step: Batches that the weights have seen; 0 where nobody knows.
      data: What was read: a corpus, a file, or a task.
      split: `validation` or `test`; None for a file, which is read whole.
      tokenizer: What cut the text into tokens; None where there is no text.
      carry: Whether the cache was handed on from row to row.
      metric: What the task is judged by.
      sets: The measures, one entry a length of the rows.
    """

    model: str
    step: int
    data: str
    split: Split | None
    tokenizer: str | None
    carry: bool
    metric: Metric
    sets: tuple[SetOutcome, ...]

    def perplexity(self, found: SetOutcome) -> float | None:
        """The exponential of a set's loss: of a token, so it compares models of one tokenizer only."""
        return None if found.loss is None else math.exp(min(found.loss, 700.0))


def evaluate(
    source: str | Path,
    file: str | Path | None = None,
    *,
    split: Split = "validation",
    max_tokens: int | None = None,
    which: Literal["best", "last"] = "best",
    corpus: str | None = None,
    tokenizer: str | None = None,
    seq_len: int | None = None,
    batch_size: int | None = None,
    carry: bool | None = None,
    carry_max_seq_len: int | None = None,
    eval_lengths: tuple[int, ...] | None = None,
    mesh: MeshShape | None = None,
    watch: Watch | None = None,
) -> Evaluation:
    """Judges a model on a split of its corpus or another one, on a file, or on its task.

    Whatever is left out is as the run was trained with: so the best weights on the validation split come to the
    very numbers that the run reported. Rows do not overlap, and `text_sets` says what they know of each other.

    Args:
      source: A run directory, `latest`, or a folder of weights.
      file: A text file or a folder of them, read whole in place of a corpus.
      split: Which split of the corpus or the task.
      max_tokens: Tokens that each set reads at most; 0 reads all. `train.eval_tokens` of the run when None, and
        all of a file.
      which: As in `griffin_eqx.load`.
      corpus: As `data.corpus`.
      tokenizer: As `data.tokenizer`.
      seq_len: As `data.seq_len`.
      batch_size: As `data.batch_size`; 1 for a file that is read with `carry`.
      carry: As `data.carry`.
      carry_max_seq_len: As `data.carry_max_seq_len`.
      eval_lengths: As `data.eval_lengths`.
      mesh: The devices to judge on, as a mesh; one device when None. Measures are the same but for the last digits.
      watch: Told of each batch.

    Raises:
      MeshError: If there are not as many devices, or the mesh cannot divide the model or the rows of a batch.
      GriffinError: What `griffin_eqx.load` raises.
      ConfigError: If the tokenizer is not the model's, or there is none.
      DataError: If text is missing or too short, or the tokenizer cannot be read.
    """
    devices = None if mesh is None else make_mesh(mesh)
    # For a mesh into the host's memory, so that no device holds all of it.
    with nullcontext() if devices is None else in_host_memory():
        loaded = load(source, which=which)
    asked = {
        "corpus": corpus,
        "tokenizer": tokenizer,
        "seq_len": seq_len,
        "batch_size": batch_size,
        "carry": carry,
        "carry_max_seq_len": carry_max_seq_len,
        "eval_lengths": eval_lengths,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    data = msgspec.structs.replace(_as_trained(source, loaded), **given)
    if file is not None or corpus is not None:
        data = msgspec.structs.replace(data, task=DataConfig().task)
    task, options = tasks.choose(data.task)
    cutter = task.tokenizer(options, data)
    if cutter is not None:
        _refuse_a_foreign_tokenizer(cutter, loaded, source, named=tokenizer is not None)
    sets: tuple[EvalSet, ...]
    if file is None:
        limit = loaded.config.train.eval_tokens if max_tokens is None else max_tokens
        built = task.init(options, data)
        sets, count, metric = built.eval_sets(split, limit or None), built.num_bytes, task.metric
    else:
        assert cutter is not None, "the default task is one of text"
        if data.carry and batch_size is None:
            data = msgspec.structs.replace(data, batch_size=1)  # from its beginning to its end
        stream = encode_documents(read_documents(str(file)), cutter)
        sets = text_sets(stream, data, where=f"in {file}", max_tokens=max_tokens or None)
        count, metric = cutter.num_bytes, task.metric
    model = loaded.model
    if mesh is not None and devices is not None:
        check_rows(data.batch_size, mesh)
        model = lay(model, devices)
    with nullcontext() if devices is None else jax.set_mesh(devices):
        judged = tuple(
            evaluation.evaluate(
                model,
                examined,
                split=split,
                num_bytes=count,
                carry_max_seq_len=data.carry_max_seq_len,
                watch=None if watch is None else _named(watch, examined.name),
            )
            for examined in sets
        )
    return Evaluation(
        model=str(source),
        step=loaded.step,
        data=str(file) if file is not None else data.task if cutter is None else data.corpus,
        split=None if file is not None else split,
        tokenizer=None if cutter is None else cutter.name,
        carry=data.carry,
        metric=metric,
        sets=judged,
    )


def _as_trained(source: str | Path, loaded: Loaded) -> DataConfig:
    """The run's data, its tokenizer by where its file is now."""
    data = loaded.config.data
    if not is_folder_of_weights(source):
        return with_kept_tokenizer(data, find(source))
    file = open_weights(source).tokenizer
    return data if file is None else msgspec.structs.replace(data, tokenizer=f"file:{file}")


def _refuse_a_foreign_tokenizer(
    tokenizer: Tokenizer, loaded: Loaded, source: str | Path, *, named: bool
) -> None:
    vocab_size = loaded.model.embedding.vocab_size
    if loaded.tokenizer is None and not named:
        raise ConfigError(
            f"It is not known what cuts text into this model's {vocab_size:,} tokens.\n  {source}\n"
            "  Name its tokenizer: --data.tokenizer file:PATH, or bytes."
        )
    if loaded.tokenizer is not None and loaded.tokenizer.digest != tokenizer.digest:
        raise ConfigError(
            f"The tokenizer {tokenizer.name} is not the one that the model was trained with.\n  {source}\n"
            "  Leave --data.tokenizer out."
        )
    if tokenizer.vocab_size > vocab_size:
        raise ConfigError(
            f"The tokenizer {tokenizer.name} has {tokenizer.vocab_size:,} tokens, the model {vocab_size:,}.\n"
            f"  {source}\n  Name the model's own with --data.tokenizer."
        )


def _named(watch: Watch, name: str) -> evaluation.Watch:
    return lambda done, of: watch(name, done, of)
