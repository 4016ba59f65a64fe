"""What a run's task gives, with batches on the devices."""

import jax
import numpy as np

from griffin_eqx.config import Config
from griffin_eqx.data import Tokenizer
from griffin_eqx.task import AbstractTask
from griffin_eqx.training.objective import TokenBatch
from griffin_eqx.training.on_mesh import OnMesh


class RunData:
    """Batches by their number, and the sets that judge a model.

    Args:
      config: The run.
      task: Its task.
      tokenizer: That of the task; None where it is no text.
      on_mesh: Where batches go.
    """

    def __init__(self, config: Config, task: AbstractTask, tokenizer: Tokenizer | None, on_mesh: OnMesh):
        self.task = task
        self._on_mesh = on_mesh
        self.tokenizer = tokenizer
        self._seed = config.train.seed
        self._none_continues = on_mesh.rows(np.zeros(config.data.batch_size, bool))
        # Both before training starts: text may be too short for the longest rows.
        most = config.train.eval_tokens or None
        self.validation = task.eval_sets("validation", most)
        self.test = task.eval_sets("test", most) if config.train.final_test else ()

    def batch(self, step: int) -> tuple[TokenBatch, jax.Array, int]:
        """`(batch, continues, bytes of text among the targets)`."""
        batch = self.task.train_batch(self._seed, step)
        continues = self.task.continues(step)
        return (
            self._on_mesh.batch(batch),
            self._none_continues if continues is None else self._on_mesh.rows(continues),
            self.task.num_bytes(batch.targets),
        )
