"""The contract of a task: what a model is trained on, and what it is judged by. Imports no JAX."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Integer

from griffin_eqx.config import DataConfig
from griffin_eqx.data.packing import Batch
from griffin_eqx.data.tokenizer import Tokenizer

Metric = Literal["accuracy", "exact", "bits_per_byte", "loss"]
"""What a task is judged by: targets predicted rightly; rows predicted rightly to the last target; bits a byte of
text; nats a target."""

HIGHER_IS_BETTER: dict[Metric, bool] = {
    "accuracy": True,
    "exact": True,
    "bits_per_byte": False,
    "loss": False,
}

Split = Literal["validation", "test"]


@dataclasses.dataclass(frozen=True)
class EvalSet:
    """Batches to judge a model by, the same in every run.

    Attributes:
      name: What a report calls it, such as `length 256`; unique within a split.
      seq_len: Tokens a row.
      num_batches: How many batches there are.
      batch: Gives batch 0 to `num_batches - 1`.
      carry: Whether row b of a batch goes on where row b of the batch before stopped, so that the cache is
        handed on.
    """

    name: str
    seq_len: int
    num_batches: int
    batch: Callable[[int], Batch]
    carry: bool = False


class AbstractTask(abc.ABC):
    """What a model is trained on and judged by.

    Every batch is a pure function of the task's options, the seed and the step: equal in every process,
    whatever was asked for before. So a run resumes from one integer, and all variants of an ablation read the
    same rows in the same order.

    A batch predicts where its `targets` are not negative (`data.packing.Batch`): all tokens of a text, the
    answers alone of a recall task.

    Class attributes:
      name: The name in configs and plans.
      aliases: Other names.
      summary: One line for `griffin tasks`.
      source: Paper and section, or wherever the task is from.
      Options: A frozen dataclass of ints, floats, bools and words, every field with a default. Its
        `__post_init__` raises `OptionError(field, message)` for values out of range.
      metric: What the task is judged by.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    Options: ClassVar[type]
    metric: ClassVar[Metric]

    @classmethod
    @abc.abstractmethod
    def init(cls, options: Any, data: DataConfig) -> "AbstractTask":
        """Builds the task.

        Args:
          options: An instance of `cls.Options`.
          data: Rows and tokens of a batch (`batch_size`, `seq_len`), and what concerns text alone.

        Raises:
          OptionError: If an option does not fit the sizes.
          DataError: If text is missing or too short.
        """

    @classmethod
    def tokenizer(cls, options: Any, data: DataConfig) -> Tokenizer | None:
        """What turns text into this task's tokens; None where they are no text.

        With one, a finished run leaves a sample of text, and `griffin sample` writes more. It is asked for
        without the data, for a model outlives them.

        Args:
          options: An instance of `cls.Options`.
          data: Which one, where there is a choice: `data.tokenizer`.

        Raises:
          DataError: If it cannot be opened.
        """
        return None

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """The number of tokens: ids run from 0 to `vocab_size - 1`."""

    @abc.abstractmethod
    def train_batch(self, seed: int, step: int) -> Batch:
        """Gives the batch of a step, 0 or later."""

    @abc.abstractmethod
    def eval_sets(self, split: Split, max_tokens: int | None = None) -> tuple[EvalSet, ...]:
        """Gives the sets of a split; they share no row with training nor with the other split.

        The first has the conditions of training: training watches it on `validation`. Later ones ask for
        more, such as longer rows.

        Args:
          split: Which split.
          max_tokens: How many tokens each set may read at most, though never less than one batch; the task's
            own choice when None.
        """

    def continues(self, step: int) -> Bool[np.ndarray, " batch"] | None:
        """Says for each row whether it goes on from the row of the step before; None where none ever does."""
        return None

    def num_bytes(self, targets: Integer[np.ndarray, "*shape"]) -> int:
        """Counts the bytes of text that targets stand for; 0 where they are no text.

        Bits per byte are known where it is not 0: all targets' information over these bytes.
        """
        return 0

    def epoch(self, step: int) -> float | None:
        """Says how often the data has been read before a step; None where it never ends."""
        return None

    @property
    def digest(self) -> str:
        """Names what batches depend on beside configuration and version: the text's SHA-256. Else empty."""
        return ""

    def facts(self) -> dict[str, Any]:
        """What `env.json` should say of the data: origin, versions, sizes."""
        return {}
