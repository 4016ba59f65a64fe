"""How much of the time goes into tracing and compiling."""

import time
from typing import Any

import jax

_COMPILE = "/jax/core/compile/backend_compile_duration"
_PHASES = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    _COMPILE,
)


class Compiling:
    """Counts the programs that JAX compiles while it is entered, and the seconds that takes."""

    def __init__(self):
        self.programs = 0
        self._spans: list[tuple[float, float]] = []

    def __enter__(self) -> "Compiling":
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *raised: Any) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: Any) -> None:
        if event in _PHASES:
            now = time.perf_counter()
            self._spans.append((now - duration_secs, now))
            self.programs += event == _COMPILE

    @property
    def seconds(self) -> float:
        """Seconds in which something was traced or compiled; a trace within a trace counts once."""
        total, until = 0.0, 0.0
        for start, end in sorted(self._spans):
            total += max(0.0, end - max(start, until))
            until = max(until, end)
        return total
