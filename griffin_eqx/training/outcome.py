"""`outcome.jsonl`: what a finished run came to. Written whole, at the end; a run is finished where it exists.

One line an evaluation set of the validation and of the test split, all with the last weights, then one line of the
run itself. What the clock and the machine say stands apart under `time`: the rest is equal, bit for bit, whether the
run was interrupted or not.
"""

from pathlib import Path

import msgspec

from griffin_eqx.errors import RunError
from griffin_eqx.task import Split
from griffin_eqx.training.run_directory import OUTCOME as OUTCOME
from griffin_eqx.training.run_directory import replace_file


class _Base(msgspec.Struct, frozen=True, tag_field="kind"):
    """Frozen; `kind` tells lines apart."""


class Bucket(msgspec.Struct, frozen=True, array_like=True):
    """Targets at some positions of a row.

    Attributes:
      start: The first position.
      stop: One behind the last.
      targets: How many targets stand there.
      loss: Nats a target; None where it is not finite.
      accuracy: The fraction of them that was predicted.
    """

    start: int
    stop: int
    targets: int
    loss: float | None
    accuracy: float


class SetOutcome(_Base, frozen=True, kw_only=True, tag="evaluation"):
    """The last weights on one evaluation set.

    Attributes:
      split: `validation` or `test`.
      name: The set's name, such as `length 256`.
      seq_len: Tokens a row.
      rows: Rows with a target.
      targets: Tokens to predict.
      bytes: Those that are bytes of text.
      loss: Nats a target; None where it is not finite.
      bits_per_byte: All targets' information over the bytes; None where the task is no text, or not finite.
      accuracy: The fraction of targets predicted.
      exact: The fraction of rows with every target predicted.
      by_position: By position in the row, in buckets that double: 0, 1, 2 to 3, 4 to 7, ...; buckets without
        targets are left out.
      time: `seconds` and `tokens_per_second`.
    """

    split: Split
    name: str
    seq_len: int
    rows: int
    targets: int
    bytes: int
    loss: float | None
    bits_per_byte: float | None
    accuracy: float
    exact: float
    by_position: tuple[Bucket, ...]
    time: dict[str, float] = {}


class RunOutcome(_Base, frozen=True, kw_only=True, tag="run"):
    """The run.

    Attributes:
      steps: Optimizer steps, skipped ones too.
      skipped: Updates skipped because they were not finite.
      tokens: Tokens trained on.
      parameters: All parameters, the tied embedding once.
      time: `seconds` of training in the last session, `tokens_per_second`, `compile_seconds`, and
        `peak_bytes` of the process.
    """

    steps: int
    skipped: int
    tokens: int
    parameters: int
    time: dict[str, float] = {}


def write_outcome(run_dir: Path, sets: tuple[SetOutcome, ...], run: RunOutcome) -> None:
    """Writes the file whole or not at all."""
    lines = (msgspec.json.encode(line) + b"\n" for line in (*sets, run))
    replace_file(run_dir / OUTCOME, b"".join(lines))


def read_outcome(run_dir: Path) -> tuple[tuple[SetOutcome, ...], RunOutcome] | None:
    """Reads it; None where the run has not finished.

    Raises:
      RunError: If the file is damaged.
    """
    path = run_dir / OUTCOME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    decoder = msgspec.json.Decoder(SetOutcome | RunOutcome)
    try:
        lines = [decoder.decode(line) for line in text.splitlines()]
        sets = tuple(line for line in lines[:-1] if isinstance(line, SetOutcome))
        run = lines[-1]
        if not isinstance(run, RunOutcome) or len(sets) != len(lines) - 1:
            raise ValueError("its lines are not evaluations and then the run")
    except (msgspec.MsgspecError, ValueError, IndexError) as error:
        raise RunError(
            f"{OUTCOME} cannot be read: {error}.\n  {path}\n  Delete it, and run the same command again."
        ) from None
    return sets, run
