"""Keeps two known complaints of Orbax off the screen, each of which repeats an error that was raised."""

import logging
import sys


def quiet_orbax() -> None:
    """Drops what Orbax's threads say after a read or write has failed; everything else is still shown.

    Each works in an event loop of its own. Where one array fails, the loop closes before the others are done,
    and TensorStore's threads report `RuntimeError: Event loop is closed` one by one, to nobody. And a thread
    that fails logs a traceback of the exception that its caller gets.
    """
    absl = logging.getLogger("absl")
    if _is_news not in absl.filters:
        absl.addFilter(_is_news)
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(sys.unraisablehook)


def _is_news(record: logging.LogRecord) -> bool:
    return "_SignalingThread.run() raised an exception" not in record.getMessage()


class _Hook:
    """`sys.unraisablehook` as it was before, but for one error."""

    def __init__(self, before):
        self._before = before

    def __call__(self, report: "sys.UnraisableHookArgs") -> None:
        error = report.exc_value
        if not (
            report.object is None and type(error) is RuntimeError and str(error) == "Event loop is closed"
        ):
            self._before(report)
