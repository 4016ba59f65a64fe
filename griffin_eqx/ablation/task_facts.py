"""What a plan needs to know of a task before it runs."""

import functools
from typing import NamedTuple

from griffin_eqx import tasks
from griffin_eqx.config import Config, DataConfig
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
      DataError: If its text is missing or too short.
    """
    return _facts(config.data.task, config.data)


@functools.lru_cache(maxsize=256)
def _facts(text: str, data: DataConfig) -> TaskFacts:
    task = tasks.init(text, data)
    return TaskFacts(tasks.resolve(text), task.metric, task.vocab_size)
