"""`metrics.jsonl`: one JSON object a line, each written at once, so that a kill costs half a line at most.

Every line has `kind` and `step` (batches seen). What the clock says stands apart under `time`: without it the
lines of a run that was stopped and taken up again equal those of one that was not, bit for bit.

```
train       loss (nats a target), bits_per_byte, grad_norm, learning_rate, skipped (updates so far), tokens,
            epoch; time: seconds (of training, in this session), tokens_per_second
validation  loss, bits_per_byte, accuracy, exact, targets, bytes, as in `outcome.SetOutcome`; time: seconds (of
            the evaluation)
skipped     batch (the data step, from 0), loss, grad_norm: the update that was skipped; null is not finite
```
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from griffin_eqx.errors import RunError
from griffin_eqx.training.run_directory import replace_file


class MetricsWriter:
    """Appends to a run's metrics.

    Args:
      path: The file; made where it is missing. None writes nothing.
      step: Where training goes on: lines of later steps, and half of one, are dropped first.

    Raises:
      RunError: If a line cannot be read.
    """

    def __init__(self, path: Path | None, *, step: int):
        self._file = None
        if path is not None:
            _truncate(path, step)
            self._file = open(path, "ab")  # noqa: SIM115 open as long as the run

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._file is not None:
            self._file.close()

    def write(
        self, kind: str, step: int, values: dict[str, Any], time: dict[str, float] | None = None
    ) -> None:
        """Writes a line; numbers that are not finite become null, which is what JSON has for them."""
        if self._file is None:
            return
        line = {"kind": kind, "step": step, **values} | ({"time": time} if time else {})
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads all lines; the last one is left out where it is only half written.

    Raises:
      RunError: If another line is no JSON object with a step.
    """
    return [line for _, line in _lines(path)]


def _lines(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]
    lines = []
    for number, text in enumerate(whole, 1):
        try:
            line = json.loads(text)
            if not (isinstance(line, dict) and type(line.get("step")) is int):
                raise ValueError("it has no step")
        except (ValueError, RecursionError) as error:
            raise RunError(
                f"Line {number} of the metrics cannot be read: {error}.\n  {path}\n  Delete that line."
            ) from None
        lines.append((text, line))
    return lines


def _truncate(path: Path, step: int) -> None:
    kept = b"".join(text + b"\n" for text, line in _lines(path) if line["step"] <= step)
    if path.exists() and path.stat().st_size != len(kept):
        replace_file(path, kept)
