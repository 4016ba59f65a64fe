"""`griffin eval`: judges a finished model on a corpus, a file or its own task."""

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from griffin_eqx.cli.arguments import Flag, Number, Text, mesh_of, parse
from griffin_eqx.errors import GriffinError

if TYPE_CHECKING:
    from griffin_eqx.evaluation.evaluate import Evaluation
    from griffin_eqx.training.outcome import SetOutcome

_LIVE_SECONDS, _PLAIN_SECONDS = 0.2, 10.0


@dataclasses.dataclass(frozen=True)
class Data:
    """What is read, and how; as the run was trained with where it is left out.

    Attributes:
      corpus: The text: shakespeare, shakespeare-1m, pysource or file:PATH, of which a split is read.
      tokenizer: For weights that came without one: bytes, or file:PATH.
      seq_len: Tokens in a row. Rows do not overlap: each begins with nothing known, unless they carry.
      eval_lengths: Rows of other lengths that the same text is read in as well.
      batch_size: Rows in a batch; 1 for a file that is read with carry.
      carry: yes hands the cache on from row to row, so that a token is predicted from its whole document; no
        does not.
      carry_max_seq_len: Longest document that a carried cache must hold; it sizes that of global attention.
    """

    corpus: Text = None
    tokenizer: Text = None
    seq_len: Number = None
    eval_lengths: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="N ...", help_behavior_hint="")] = (
        None
    )
    batch_size: Number = None
    carry: Annotated[Literal["as-trained", "yes", "no"], tyro.conf.arg(help_behavior_hint="")] = "as-trained"
    carry_max_seq_len: Number = None


@dataclasses.dataclass(frozen=True)
class Eval:
    """Judge a model: loss, perplexity, bits per byte, and loss by position in the row.

    Attributes:
      model: A run's folder, latest for the one in runs/ that was written to last, or a folder of weights.
      file: A text file, or a folder of them, to read whole in place of a corpus.
      split: Which split of the corpus, or of the run's task.
      max_tokens: Tokens that each length reads at most, 0 for all; a file is read whole, and a split as far as in
        training, when left out.
      which: The run's best weights on the validation split, or its last.
      mesh: Devices to judge on, such as data=2,model=4. Without an accelerator they are virtual ones of this CPU, which
        show that it works and not how fast.
      json: Print one JSON object.
      quiet: Show no progress.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN_DIR|WEIGHTS|latest]")] = "latest"
    file: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[FILE]", help_behavior_hint="")
    ] = None
    split: Literal["validation", "test"] = "validation"
    max_tokens: Number = None
    which: Literal["best", "last"] = "best"
    mesh: Text = None
    json: Flag = False
    quiet: Flag = False
    data: Data = dataclasses.field(default_factory=Data)


def run(argv: list[str]) -> int:
    """Runs the command."""
    switches = parse(Eval, argv, prog="griffin eval")
    _check(switches)
    mesh = mesh_of(switches.mesh)
    from griffin_eqx.evaluation.evaluate import evaluate

    given: dict[str, Any] = dataclasses.asdict(switches.data)
    given["carry"] = None if switches.data.carry == "as-trained" else switches.data.carry == "yes"
    with _Progress(quiet=switches.quiet) as progress:
        found = evaluate(
            switches.model,
            switches.file,
            split=switches.split,
            max_tokens=switches.max_tokens,
            which=switches.which,
            mesh=mesh,
            watch=progress.watch,
            **given,
        )
    if switches.json:
        print(json.dumps(_tree(found), indent=2))
    else:
        _show(found)
    return 0


def _check(switches: Eval) -> None:
    numbers = {
        "--max-tokens": (switches.max_tokens, 0),
        "--data.seq_len": (switches.data.seq_len, 1),
        "--data.batch_size": (switches.data.batch_size, 1),
        "--data.carry_max_seq_len": (switches.data.carry_max_seq_len, 1),
        "--data.eval_lengths": (min(switches.data.eval_lengths or (1,)), 1),
    }
    if wrong := [name for name, (value, least) in numbers.items() if value is not None and value < least]:
        raise GriffinError(
            f"{', '.join(wrong)}: out of range.\n--max-tokens is 0 or more, the others 1 or more."
        )
    if switches.file is not None and switches.data.corpus is not None:
        raise GriffinError(
            f"Both a file ({switches.file}) and --data.corpus {switches.data.corpus} are given.\nKeep one."
        )


class _Progress:
    """How far it is, on standard error: one live line in a terminal, a plain line now and then elsewhere."""

    def __init__(self, *, quiet: bool):
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False, quiet=quiet, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._every = _LIVE_SECONDS if self._console.is_terminal else _PLAIN_SECONDS
        self._next = time.monotonic() + self._every
        self._first: dict[str, float] = {}

    def __enter__(self) -> "_Progress":
        if self._console.is_terminal:
            self._live.start()
            self._say("loading and compiling ...")
        return self

    def __exit__(self, *exception: Any) -> None:
        self._live.stop()

    def watch(self, name: str, done: int, of: int) -> None:
        """Told of each batch; the first of each length compiles, and is left out of what is left."""
        now = time.monotonic()
        first = self._first.setdefault(name, now)
        if now < self._next:
            return
        self._next = now + self._every
        left = (now - first) / (done - 1) * (of - done) if done > 1 else None
        self._say(f"{name}: batch {done:,}/{of:,}" + ("" if left is None else f"  {left:,.0f} s left"))

    def _say(self, line: str) -> None:
        from rich.text import Text as Line

        if self._console.is_terminal:
            self._live.update(Line(line), refresh=True)
        else:
            self._console.print(line, markup=False)


def _tree(found: "Evaluation") -> dict[str, Any]:
    import msgspec

    tree: dict[str, Any] = msgspec.to_builtins(found)
    for one, line in zip(found.sets, tree["sets"], strict=True):
        line.pop("kind")
        line.pop("split")
        line["perplexity"] = found.perplexity(one)
        line["by_position"] = [msgspec.structs.asdict(bucket) for bucket in one.by_position]
    return tree


def _show(found: "Evaluation") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    step = f", step {found.step:,}" if found.step else ""
    split = "" if found.split is None else f", {found.split} split"
    tokens = "" if found.tokenizer is None else f", tokenizer {found.tokenizer}"
    rows = "cache carried from row to row" if found.carry else "rows that know nothing of each other"
    for line in (f"{found.model}{step}", f"{found.data}{split}{tokens}; {rows}"):
        console.print(line, markup=False)
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    texts = any(one.bytes for one in found.sets)
    heads = [
        "rows",
        "targets",
        "loss",
        "perplexity",
        "right",
        *(["bytes", "bits/byte"] if texts else ["rows right"]),
    ]
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left")
    for one in found.sets:
        last = [f"{one.bytes:,}", _number(one.bits_per_byte)] if texts else [f"{one.exact:.1%}"]
        perplexity = found.perplexity(one)
        shown = "not finite" if perplexity is None else f"{perplexity:.4g}"
        table.add_row(one.name, f"{one.targets:,}", _number(one.loss), shown, f"{one.accuracy:.1%}", *last)
    console.print(table)
    console.print("\nLoss by position in the row, nats a target:\n", style="dim")
    console.print(_by_position(found.sets))


def _by_position(sets: "tuple[SetOutcome, ...]") -> Any:
    from rich.table import Table

    edges = sorted({(bucket.start, bucket.stop) for one in sets for bucket in one.by_position})
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("position")
    for one in sets:
        table.add_column(one.name, justify="right")
    for start, stop in edges:
        known = [{(b.start, b.stop): b for b in one.by_position}.get((start, stop)) for one in sets]
        place = f"{start:,}" if stop == start + 1 else f"{start:,} to {stop - 1:,}"
        table.add_row(place, *("" if bucket is None else _number(bucket.loss) for bucket in known))
    return table


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"
