"""Keeps one known, harmless complaint of a library off the screen."""

import sys


def ignore_closed_event_loops() -> None:
    """Drops the tracebacks that Orbax's reads and writes leave behind; everything else is still shown.

    Orbax runs each in an event loop of its own. Where one array fails, the loop closes before the others are
    done, and TensorStore's threads then report `RuntimeError: Event loop is closed` one by one, to nobody.
    The error that matters has been raised by then.
    """
    before = sys.unraisablehook
    if getattr(before, "ignores_closed_event_loops", False):
        return

    def hook(report: "sys.UnraisableHookArgs") -> None:
        error = report.exc_value
        if not (
            report.object is None and type(error) is RuntimeError and str(error) == "Event loop is closed"
        ):
            before(report)

    setattr(hook, "ignores_closed_event_loops", True)  # noqa: B010 a function has no such field to the type checker
    sys.unraisablehook = hook
