"""A trace of a few steps with JAX's profiler."""

from pathlib import Path
from typing import Any

import jax

_FIRST, _END = 3, 6
"""Steps of a session that are recorded: the ones before still warm caches up."""


class Profiler:
    """Records steps 3, 4 and 5 of a session.

    Args:
      folder: Where the trace goes; None records nothing.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._recording = False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._recording:
            self._recording = False
            jax.profiler.stop_trace()

    def before(self, session_step: int) -> None:
        """Starts or ends the trace; called before every step."""
        if self._folder is None:
            return
        if session_step == _FIRST:
            jax.profiler.start_trace(str(self._folder))
            self._recording = True
        elif session_step == _END:
            self.__exit__()
