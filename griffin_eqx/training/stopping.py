"""Stopping when asked: Ctrl-C or SIGTERM once finishes the step and saves, twice stops at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGINT or SIGTERM has come since.

    With the first of them the handlers that were there before come back, so that the second one does what it
    always does. Outside of the main thread, where Python allows no handlers, the answer stays False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def give_back() -> None:
        for number, handler in before.items():
            # None: a handler that was not set from Python and cannot be set again from it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        give_back()

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: asked
    finally:
        give_back()
