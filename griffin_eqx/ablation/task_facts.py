"""What a plan needs to know of a task before it runs."""

import functools
from typing import NamedTuple

from griffin_eqx.config import Config, DataConfig
from griffin_eqx.pattern import PatternError
from griffin_eqx.task import Metric


class TaskFacts(NamedTuple):
    """What a plan needs to know of a task.

    Attributes:
      text: The task as configurations hold it, names canonical.
      metric: What it is judged by.
      vocab_size: Its tokens.
    """

    text: str
    metric: Metric
    vocab_size: int


def task_facts(config: Config) -> TaskFacts:
    """Asks the task of a configuration.

    Raises:
      PatternError: If there is no such task, or it has no such option.
    """
    return _facts(config.data.task, config.data)


@functools.lru_cache(maxsize=256)
def _facts(text: str, data: DataConfig) -> TaskFacts:
    from griffin_eqx.data.tokenizer import ByteTokenizer

    if text != "text":
        raise PatternError(f"there is no task named {text!r}", text, 0, len(text), "Known: text.")
    return TaskFacts("text", "bits_per_byte", ByteTokenizer().vocab_size)
