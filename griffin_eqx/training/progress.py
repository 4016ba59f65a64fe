"""What a user sees of a run: one live line in a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

_LIVE_SECONDS, _PLAIN_SECONDS = 0.2, 10.0


class Progress:
    """Prints to standard output; nothing when `quiet`.

    Args:
      steps: Steps of the whole run.
      quiet: Whether to be silent.
    """

    def __init__(self, steps: int, *, quiet: bool):
        self._steps = steps
        self._console = Console(highlight=False, quiet=quiet, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._every = _LIVE_SECONDS if self._console.is_terminal else _PLAIN_SECONDS
        self._next = 0.0

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        """Prints a line that stays."""
        self._console.print(Text(text, style=style))

    def due(self) -> bool:
        """Whether it is time for `update`."""
        return time.monotonic() >= self._next

    def update(
        self, step: int, loss: float, bits_per_byte: float | None, tokens_per_second: float, eta: float
    ):
        """Shows where the run is: loss in nats a target, `eta` in seconds."""
        self._next = time.monotonic() + self._every
        parts = [f"step {step:,}/{self._steps:,}", f"loss {loss:.4f}"]
        if bits_per_byte is not None:
            parts.append(f"{bits_per_byte:.4f} bits/byte")
        parts += [f"{tokens_per_second:,.0f} tok/s", f"{duration(eta)} left"]
        line = "  ".join(parts)
        if self._console.is_terminal:
            self._live.update(Text(line), refresh=True)
        else:
            self._console.print(line, markup=False)


class Clock:
    """Seconds spent in training, evaluations and saves left out."""

    def __init__(self):
        self._before = 0.0
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + time.monotonic() - self._since

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Does not count the block."""
        self._before = self.seconds
        try:
            yield
        finally:
            self._since = time.monotonic()


def duration(seconds: float) -> str:
    """Seconds as `1:02:03`, or `2:03` below an hour.

    >>> duration(3723.0), duration(59.6)
    ('1:02:03', '1:00')
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
