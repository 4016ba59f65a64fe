"""Looking inside: named intermediate values of every layer, without touching a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

_T = TypeVar("_T", bound=Array)
_tape: ContextVar[tuple[tuple[str, ...], dict[str, Array]] | None] = ContextVar("tape", default=None)


def tap(name: str, value: _T) -> _T:
    """Gives a value a name: returned as it is, and recorded where `gx.capture` asked for that name.

    The name also serves `jax.checkpoint` policies. Call it directly in a block's `__call__`, not inside of
    a nested `jit`, `vmap` or `scan`, from which a recorded value could not leave.
    """
    tape = _tape.get()
    if tape is not None:
        wanted, recorded = tape
        if not wanted or name in wanted:
            recorded[name] = value
    return checkpoint_name(value, name)


@contextmanager
def recording(names: tuple[str, ...]) -> Iterator[dict[str, Array]]:
    """Collects what `tap` sees inside of the block, all names when `names` is empty."""
    recorded: dict[str, Array] = {}
    token = _tape.set((names, recorded))
    try:
        yield recorded
    finally:
        _tape.reset(token)
