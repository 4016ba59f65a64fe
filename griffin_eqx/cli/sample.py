"""`griffin sample`: writes text with a trained model."""

import dataclasses
import json
import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from griffin_eqx.cli.arguments import Flag, Number, Text, mesh_of, parse
from griffin_eqx.errors import GriffinError, RunError

if TYPE_CHECKING:
    from griffin_eqx.data import Tokenizer
    from griffin_eqx.mesh import MeshShape
    from griffin_eqx.sampling import Engine, Sampling, Session, Written

Share = Annotated[float | None, tyro.conf.arg(metavar="P", help_behavior_hint="")]

PIECE_SECONDS = 0.05
"""A piece of streamed text takes about so long: quick enough to read along, and few calls."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """Write text with a trained model.

    Attributes:
      run: The run's folder, or one of weights, ours or another program's; `latest` is the run in runs/ that was written
        to last.
      prompt: The text to continue; a new document when left out.
      prompt_file: A file whose whole text is the prompt; `-` is standard input.
      prompts: A file with one prompt a line, or of JSON objects with a "prompt" where its name ends in .jsonl;
        `-` is standard input. All are written at once.
      max_new_tokens: Tokens to write at most.
      temperature: Below 1 keeps to likely tokens, 0 always takes the likeliest.
      top_k: Draw among this many likeliest tokens only.
      top_p: Draw among the fewest likeliest tokens with this probability together.
      min_p: Draw among tokens at least this many times as likely as the likeliest.
      repetition_penalty: Above 1 avoids what the text has already.
      stop: End at this text too, which is one token; may be repeated. A text always ends with its document.
      seed: Of the draws: the same seed writes the same text. Counted up over texts.
      num: Texts to write for each prompt.
      best_of: Write this many texts for each one that is asked for, and show the likeliest.
      beams: Search for the likeliest texts with this many beams, in place of drawing.
      length_penalty: Texts are compared by their log-probability over length to this power.
      session: Go on from a file that `--save-session` wrote; prompts are read behind it.
      save_session: Keep what was read and written in a file, to go on from in no time.
      prefill_chunk: Tokens of a prompt that are read at once; more take more memory.
      mesh: Devices to write on, such as model=4: the model and its caches lie over them. Without an accelerator they
        are virtual ones of this CPU, which show that it works and not how fast.
      json: Print one JSON object a line: prompt, text, tokens, log_probabilities (in nats, of the model's own
        distribution), their sum with the stop token's, whether the text came to its end, and seed.
      verbose: Say on standard error what is compiled, and how fast the model reads and writes.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN_DIR|latest]")] = "latest"
    prompt: str = ""
    prompt_file: Text = None
    prompts: Text = None
    max_new_tokens: int = 256
    temperature: float = 1.0
    top_k: Number = None
    top_p: Share = None
    min_p: Share = None
    repetition_penalty: Share = None
    stop: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="TEXT")] = ()
    seed: int = 0
    num: int = 1
    best_of: Number = None
    beams: Number = None
    length_penalty: float = 1.0
    session: Text = None
    save_session: Text = None
    prefill_chunk: int = 1024
    mesh: Text = None
    json: Flag = False
    verbose: Flag = False


@dataclasses.dataclass(frozen=True)
class _Job:
    """What is to be written: one row a text."""

    switches: Sample
    engine: "Engine"
    tokenizer: "Tokenizer"
    sampling: "Sampling"
    prompts: list[str]
    stops: list[int]
    session: "Session"

    @property
    def seeds(self) -> list[int]:
        return [self.switches.seed + i for i in range(len(self.prompts))]


def run(argv: list[str]) -> int:
    """Runs the command."""
    switches = parse(Sample, argv, prog="griffin sample")
    _check(switches)
    prompts = _prompts(switches)
    mesh = mesh_of(switches.mesh)
    from griffin_eqx.sampling import Engine, Sampling
    from griffin_eqx.training.load import load

    with _where(mesh):
        loaded = load(switches.run, decoding=True)
    tokenizer = loaded.tokenizer
    if tokenizer is None:
        raise RunError(
            f"There is no text to write: the model was trained on the task {loaded.config.data.task}.\n"
            f"  {switches.run}\n  Name a run of a task of text, or look at what this one came to: its metrics.jsonl."
        )
    stops = [*tokenizer.ends, *(_stop_token(text, tokenizer) for text in switches.stop)]
    try:
        sampling = Sampling(
            switches.temperature, switches.top_k, switches.top_p, switches.min_p, switches.repetition_penalty
        )
    except ValueError as error:
        raise GriffinError(f"{error}") from None
    say = _say if switches.verbose else lambda text: None
    engine = Engine(loaded.model, prefill_chunk=switches.prefill_chunk, tell=say, mesh=mesh)
    del loaded  # what was read to be laid over a mesh
    started = time.perf_counter()
    session, prompts = _read(engine, tokenizer, prompts, switches)
    if switches.verbose:
        session.state.logits.block_until_ready()
        read = sum(map(len, session.tokens))
        say(f"{read} tokens stand in {len(session)} texts after {time.perf_counter() - started:.2f} s")
    per_prompt = 1 if switches.beams else switches.num
    session = session.take([row for row in range(len(session)) for _ in range(per_prompt)])
    prompts = [prompt for prompt in prompts for _ in range(per_prompt)]
    job = _Job(switches, engine, tokenizer, sampling, prompts, stops, session)
    started = time.perf_counter()
    if switches.beams or switches.best_of or switches.json:
        last, written = _whole(job)
    else:
        last, written = _streamed(job)
    if switches.verbose:
        seconds = time.perf_counter() - started
        say(f"{written} tokens in {seconds:.2f} s, compiling included: {written / seconds:.1f} tokens/s")
    if switches.save_session:
        engine.save(last, switches.save_session)
    return 0


def _where(mesh: "MeshShape | None") -> AbstractContextManager[Any]:
    """Where a model is loaded to: for a mesh into the host's memory, so that no device holds all of it."""
    if mesh is None:
        return nullcontext()
    from griffin_eqx.sharding import in_host_memory

    return in_host_memory()


def _check_rows(engine: "Engine", prompts: int, switches: Sample) -> None:
    """Holds what will be written at once to the mesh, before prompts are read."""
    if switches.beams:
        engine.check_rows(switches.beams, "--beams")
    elif switches.max_new_tokens:
        engine.check_rows(prompts * switches.num * (switches.best_of or 1))


def _read(
    engine: "Engine", tokenizer: "Tokenizer", prompts: list[str], switches: Sample
) -> tuple["Session", list[str]]:
    """The session with the prompts read, and the prompts, one a row."""
    texts = [tokenizer.encode(prompt).tolist() for prompt in prompts]
    if switches.session is None:
        _check_rows(engine, len(prompts), switches)
        room = switches.max_new_tokens
        if switches.save_session:
            room = max(2 * room, 1024)  # so that there is something to go on with
        return engine.start([[tokenizer.document, *text] for text in texts], room=room), prompts
    session = engine.load(switches.session)
    if len(texts) == 1:
        texts, prompts = texts * len(session), prompts * len(session)
    if len(session) == 1:
        session = session.take([0] * len(texts))
    if len(texts) != len(session):
        raise GriffinError(
            f"{len(texts)} prompts, and the session has {len(session)} texts.\n  {switches.session}\n"
            "  Give one prompt, or one for each."
        )
    _check_rows(engine, len(session), switches)
    try:
        return engine.extend(session, texts), prompts
    except ValueError as error:
        raise GriffinError(f"{error}\n  {switches.session}") from None


def _whole(job: _Job) -> tuple["Session", int]:
    """Writes all texts and then prints them. The session behind them, and how many tokens were written."""
    switches = job.switches
    ranked: dict[str, Any] = {"stop": job.stops, "length_penalty": switches.length_penalty}
    rows: list[tuple[str, Written, int, int | None]] = []
    last = job.session
    if switches.beams:
        found = job.engine.beam_search(job.session, switches.max_new_tokens, switches.beams, **ranked)
        for prompt, texts in zip(job.prompts, found, strict=True):
            rows += [(prompt, texts, i, None) for i in range(min(switches.num, len(texts.tokens)))]
        last = found[0].session
    else:
        if switches.best_of:
            how: dict[str, Any] = ranked | {"seed": switches.seed}
            written = job.engine.best_of(
                job.session, switches.best_of, switches.max_new_tokens, job.sampling, **how
            )
        else:
            how = {"stop": job.stops, "seed": job.seeds}
            written = job.engine.write(job.session, switches.max_new_tokens, job.sampling, **how)
        last = written.session
        seeds = job.seeds if not switches.best_of else [switches.seed] * len(job.prompts)
        rows = [(prompt, written, i, seeds[i]) for i, prompt in enumerate(job.prompts)]
    for number, (prompt, written, i, seed) in enumerate(rows):
        text = job.tokenizer.decode(written.tokens[i])
        if switches.json:
            row = {
                "prompt": prompt,
                "text": text,
                "tokens": written.tokens[i],
                "log_probabilities": written.log_probabilities[i],
                "log_probability": written.totals[i],
                "finished": written.finished[i],
            }
            print(json.dumps(row if seed is None else row | {"seed": seed}))
        else:
            print(("\n---\n\n" if number else "") + printable(prompt + text))
    return last, sum(len(written.tokens[i]) for _, written, i, _ in rows)


def _streamed(job: _Job) -> tuple["Session", int]:
    """Prints texts as they are written: the first one live, the others behind it, each live when its turn has come."""
    from griffin_eqx.sampling.text import TextStream

    switches = job.switches
    rows = len(job.prompts)
    streams = [TextStream(job.tokenizer.decode) for _ in range(rows)]
    waiting = list(job.prompts)
    ended = [switches.max_new_tokens == 0] * rows
    showing, written, last = 0, 0, job.session

    def show() -> None:
        nonlocal showing
        while showing < rows:
            sys.stdout.write(printable(waiting[showing]))
            waiting[showing] = ""
            if not ended[showing]:
                break
            sys.stdout.write("\n")
            showing += 1
            if showing < rows:
                sys.stdout.write("\n---\n\n")
        sys.stdout.flush()

    pace = _Pace()
    try:
        show()
        pieces: Iterator[Written] = job.engine.stream(
            job.session, switches.max_new_tokens, job.sampling, stop=job.stops, seed=job.seeds, pace=pace
        )
        for piece in pieces:
            last, written = piece.session, written + sum(map(len, piece.tokens))
            for row, tokens in enumerate(piece.tokens):
                waiting[row] += streams[row].feed(tokens)
                if piece.finished[row] and not ended[row]:
                    waiting[row] += streams[row].end()
                    ended[row] = True
            show()
    finally:
        # Ctrl-C as well: what was written stays, and the line is ended.
        for row in range(showing, rows):
            waiting[row] += streams[row].end()
            ended[row] = True
        show()
    return last, written


class _Pace:
    """How many tokens a piece has: as many as take `PIECE_SECONDS`, from one on."""

    def __init__(self):
        self._tokens, self._asked = 1, None

    def __call__(self) -> int:
        now = time.perf_counter()
        if self._asked is not None:
            fitting = int(self._tokens * PIECE_SECONDS / max(now - self._asked, 1e-6))
            self._tokens = max(1, min(fitting, 2 * self._tokens))
        self._asked = now
        return self._tokens


def printable(text: str) -> str:
    """The text without control characters: what a model writes must not steer the terminal."""

    def steers(character: str) -> bool:
        return character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf")

    return "".join("\ufffd" if steers(character) else character for character in text)


def _prompts(switches: Sample) -> list[str]:
    """The prompts as texts."""
    if switches.prompts is not None:
        lines = _text(switches.prompts).splitlines()
        if switches.prompts.lower().endswith(".jsonl"):
            lines = [_prompt_of(line, i, switches.prompts) for i, line in enumerate(lines, 1) if line.strip()]
        if not lines:
            raise GriffinError(f"There is no prompt in it.\n  {switches.prompts}\n  Write one a line.")
        return lines
    if switches.prompt_file is not None:
        return [_text(switches.prompt_file)]
    return [switches.prompt]


def _text(path: str) -> str:
    """A file's text; bytes that are none come back as the bytes that they were."""
    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise GriffinError(
            f"The prompt cannot be read: {error.strerror}.\n  {path}\n  Name a file, or - for standard input."
        ) from None
    return raw.decode("utf-8", "surrogateescape")


def _prompt_of(line: str, number: int, path: str) -> str:
    try:
        prompt = json.loads(line)["prompt"]
        if not isinstance(prompt, str):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise GriffinError(
            f'This line is no JSON object with a text named "prompt".\n  {path}, line {number}\n'
            '  Write for example {"prompt": "To be"}.'
        ) from None
    return prompt


def _stop_token(text: str, tokenizer: "Tokenizer") -> int:
    tokens = tokenizer.encode(text).tolist()
    if len(tokens) != 1:
        raise GriffinError(
            f"--stop {text!r}: it is {len(tokens)} tokens of the tokenizer {tokenizer.name}, and a stop is one.\n"
            "Give a text of one token, such as a line's end."
        )
    return tokens[0]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _check(switches: Sample) -> None:
    limits = {
        "--max-new-tokens": switches.max_new_tokens >= 0,
        "--temperature": 0 <= switches.temperature < float("inf"),
        "--top-k": switches.top_k is None or switches.top_k >= 1,
        "--seed": switches.seed >= 0,
        "--num": switches.num >= 1,
        "--best-of": switches.best_of is None or switches.best_of >= 1,
        "--beams": switches.beams is None or switches.beams >= 1,
        "--prefill-chunk": switches.prefill_chunk >= 1,
    }
    if wrong := [name for name, ok in limits.items() if not ok]:
        advice = "--max-new-tokens, --temperature and --seed are 0 or more, the others 1 or more."
        raise GriffinError(f"{', '.join(wrong)}: out of range.\n{advice}")
    given = {
        "--prompt": switches.prompt,
        "--prompt-file": switches.prompt_file,
        "--prompts": switches.prompts,
    }
    if len(both := [name for name, value in given.items() if value]) > 1:
        raise GriffinError(f"{' and '.join(both)} are given.\nKeep one.")
    if switches.beams and switches.best_of:
        raise GriffinError("--beams and --best-of are given.\nKeep one: the one searches, the other draws.")
    if switches.beams and switches.num > switches.beams:
        raise GriffinError(f"--num {switches.num} texts out of --beams {switches.beams}.\nUse more beams.")
