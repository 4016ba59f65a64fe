"""What a worker and the process that started it say to each other: JSON objects, one a line. Imports no JAX."""

import msgspec

from griffin_eqx.config import Config


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """Frozen; `kind` tells messages apart."""


class Job(_Message, frozen=True):
    """To a worker: train this. One at a time.

    Attributes:
      run_dir: Where.
      config: What.
    """

    run_dir: str
    config: Config


class Stop(_Message, frozen=True):
    """To a worker: save, and end the job."""


class Ready(_Message, frozen=True):
    """From a worker, once: JAX has started."""


class Stepped(_Message, frozen=True):
    """From a worker: how far its job is. The first one says that it has compiled.

    Attributes:
      step: Batches seen.
      loss: Nats a target; None where it is not finite.
      tokens_per_second: Training speed, evaluations and saves left out.
    """

    step: int
    loss: float | None
    tokens_per_second: float


class Finished(_Message, frozen=True):
    """From a worker: the job has reached its last step, and `outcome.jsonl` is there.

    Attributes:
      compile_seconds: How long this worker compiled for it, or read from the cache.
    """

    compile_seconds: float = 0.0


class Stopped(_Message, frozen=True):
    """From a worker: the job was asked to stop and has saved.

    Attributes:
      compile_seconds: As of `Finished`.
    """

    compile_seconds: float = 0.0


class Failed(_Message, frozen=True):
    """From a worker: the job cannot go on, and would fail in the same way again.

    Attributes:
      reason: The error's text.
      diverged: Whether the loss stopped being finite.
    """

    reason: str
    diverged: bool = False


class Crashed(_Message, frozen=True):
    """From whoever watches the worker: it died with the job.

    Attributes:
      reason: How, and its last words.
    """

    reason: str


ToWorker = Job | Stop
FromWorker = Ready | Stepped | Finished | Stopped | Failed
Event = Stepped | Finished | Stopped | Failed | Crashed
"""What can be heard of a run."""

ENDS = (Finished, Stopped, Failed, Crashed)
"""After one of these nothing more is heard of it."""


def leaves(message: FromWorker) -> bool:
    """Whether a worker ends its process after this: it was stopped, or an error may have left something behind."""
    return isinstance(message, Stopped) or (isinstance(message, Failed) and not message.diverged)
