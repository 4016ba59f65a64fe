"""The engine: a model made ready to read prompts and to write, for many prompts at once."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from griffin_eqx.mesh import MeshShape
from griffin_eqx.model import LanguageModel
from griffin_eqx.sampling import beams as search
from griffin_eqx.sampling import programs, snapshot
from griffin_eqx.sampling.decoding_model import unstacked
from griffin_eqx.sampling.on_mesh import OnMesh
from griffin_eqx.sampling.prompts import Rows, as_rows, as_seeds, as_stops, bucket, chunks
from griffin_eqx.sampling.samplers import Sampling
from griffin_eqx.sampling.session import Session, State, cache_is_unbounded, copied, padded

PIECE = 64
"""Tokens that a call of the decoding program has places for; longer texts are several calls."""


@dataclasses.dataclass(frozen=True)
class Written:
    """What an engine has written.

    Attributes:
      tokens: The new tokens of each row, without the stop token.
      log_probabilities: Of each in nats, in the model's own distribution: before temperature, penalty or filters.
      totals: The log-probability of each row's new text in nats, that of its stop token included.
      finished: Whether the row has met a stop token.
      session: To go on from. A row that has met a stop token stands before it.
    """

    tokens: list[list[int]]
    log_probabilities: list[list[float]]
    totals: list[float]
    finished: list[bool]
    session: Session


class Engine:
    """Reads prompts and writes on.

    Each row gives what it gives alone, whatever its neighbours are, on whichever side they were padded and in
    whatever chunks they were read: the model is told positions and lengths, and padding leaves no trace in a cache.
    Lengths are rounded up to powers of two inside, so that new ones seldom compile again.

    >>> engine = Engine(model)                                          # doctest: +SKIP
    >>> session = engine.start([prompt])                                # doctest: +SKIP
    >>> written = engine.write(session, max_new_tokens=100)             # doctest: +SKIP
    >>> more = engine.write(written.session, max_new_tokens=100)        # doctest: +SKIP
    >>> ten = engine.write(session.take([0] * 10), max_new_tokens=100)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        prefill_chunk: int = 1024,
        tell: Callable[[str], None] = lambda _: None,
        mesh: MeshShape | None = None,
    ):
        """Lays the model out for decoding: arrays of layers that the pattern repeats are copied apart.

        Args:
          model: The model; it is left as it is.
          prefill_chunk: Tokens of a prompt that are read at once. Larger ones take more memory.
          tell: Hears a line whenever a program is compiled.
          mesh: The devices that it reads and writes on, as a mesh; those where the model lies when None.

        Raises:
          ValueError: If `prefill_chunk` is below 1.
          MeshError: If there are not as many devices, or the mesh cannot divide the model.
        """
        if prefill_chunk < 1:
            raise ValueError(f"{prefill_chunk=} must be at least 1.")
        model = unstacked(model)
        self._on_mesh = OnMesh(mesh, model)
        self.model = self._on_mesh.model(model)
        self.prefill_chunk = prefill_chunk
        self.tell = tell

    @property
    def vocab_size(self) -> int:
        """Tokens that the model knows."""
        return self.model.embedding.vocab_size

    def check_rows(self, rows: int, what: str = "texts written at once") -> None:
        """Checks that the mesh divides so many rows, as writing does: before prompts are read for nothing.

        Rows that are only read may be any number, for they are often forked: those of a number that `data` does not
        divide are whole on each of its devices.

        Raises:
          MeshError: If it does not; it names the nearest meshes that do.
        """
        self._on_mesh.check_rows(self.model, rows, what)

    def start(self, prompts: Any, *, mask: Any = None, room: int = 1024) -> Session:
        """Reads prompts, chunk by chunk.

        Args:
          prompts: Token ids, at least one a prompt, of any lengths; or an array `[batch, seq_len]`. A document
            begins with the tokenizer's `document`.
          mask: With an array: True at tokens, which are contiguous; padding may stand on either side.
          room: Tokens that may be added to the longest one later, at least. Caches that do not grow take any number.

        Raises:
          ValueError: If a prompt is empty, holds an id outside of the vocabulary, or the mask does not fit.
        """
        rows = as_rows(prompts, mask, vocab_size=self.vocab_size)
        longest = max((len(row) for row in rows), default=0)
        max_seq_len = bucket(max(1, longest + room))
        state = self._on_mesh.empty(self.model, len(rows), max_seq_len)
        nothing = tuple(np.zeros(0, np.int32) for _ in rows)
        return self._read(Session(state, nothing, max_seq_len), rows, state)

    def extend(self, session: Session, tokens: Any) -> Session:
        """Reads on: more tokens for each row, of any lengths; none for a row leaves it as it is.

        Raises:
          ValueError: If there are not as many rows, an id is outside of the vocabulary, or the cache has no room.
        """
        rows = as_rows(tokens, vocab_size=self.vocab_size, empty=True)
        if len(rows) != len(session):
            raise ValueError(f"{len(rows)} rows of tokens for a session of {len(session)}.")
        return self._read(session, rows, self._own(session))

    def write(
        self,
        session: Session,
        max_new_tokens: int = 256,
        sampling: Sampling | None = None,
        *,
        stop: int | Sequence[int] | None = None,
        seed: int | Sequence[int] = 0,
    ) -> Written:
        """Writes on from a session, in one compiled loop.

        What a row gets depends on its own tokens and seed alone: to write in two goes is to write in one.

        Args:
          session: Where to go on from; it stays as it is.
          max_new_tokens: Tokens to write at most.
          sampling: How to choose them.
          stop: The token or tokens that end a row.
          seed: Of the draws: one a row, or a number that is counted up.

        Raises:
          ValueError: If a number is out of range, or the cache has no room.
          MeshError: If the mesh cannot divide the rows.
        """
        return self._gather(session, self.stream(session, max_new_tokens, sampling, stop=stop, seed=seed))

    def stream(
        self,
        session: Session,
        max_new_tokens: int = 256,
        sampling: Sampling | None = None,
        *,
        stop: int | Sequence[int] | None = None,
        seed: int | Sequence[int] = 0,
        pace: Callable[[], int] | None = None,
    ) -> Iterator[Written]:
        """`write` in pieces, as they come. A piece's session serves until the next piece is asked for.

        Args:
          session: As in `write`.
          max_new_tokens: As in `write`.
          sampling: As in `write`.
          stop: As in `write`.
          seed: As in `write`.
          pace: Asked before each piece how many tokens a row it should have at most.

        Raises:
          ValueError: As `write`.
          MeshError: As `write`.
        """
        if max_new_tokens < 0:
            raise ValueError(f"{max_new_tokens=} must not be negative.")
        sampling = sampling or Sampling()
        seeds = self._on_mesh.rows(as_seeds(seed, len(session)))
        stops = jnp.asarray(as_stops(stop))
        self._check_room(session, [max_new_tokens] * len(session))
        if max_new_tokens:
            self.check_rows(len(session))
        return self._pieces(session, max_new_tokens, sampling, stops, seeds, pace or (lambda: PIECE))

    def beam_search(
        self,
        session: Session,
        max_new_tokens: int = 256,
        beams: int = 4,
        *,
        stop: int | Sequence[int] | None = None,
        length_penalty: float | int = 1.0,
    ) -> list[Written]:
        """Searches for the likeliest continuations, for each row of a session apart.

        Texts are ranked by their log-probability over `length**length_penalty`, stop token and its place in the length
        included. A text that has met a stop token stays in its place until something better comes.

        Args:
          session: Where to go on from; it stays as it is.
          max_new_tokens: Tokens to write at most.
          beams: Texts that are kept.
          stop: The token or tokens that end a text.
          length_penalty: 0 ranks by the whole text's log-probability, 1 by that of a token.

        Returns:
          For each row of the session its texts as rows, best first; fewer than `beams` where there are no more.

        Raises:
          ValueError: If a number is out of range, or the cache has no room.
          MeshError: If the mesh cannot divide the beams.
        """
        if max_new_tokens < 0:
            raise ValueError(f"{max_new_tokens=} must not be negative.")
        if beams < 1:
            raise ValueError(f"{beams=} must be at least 1.")
        self._check_room(session, [max_new_tokens] * len(session))
        self.check_rows(beams, "beams")
        how = search.Search(
            jnp.asarray(as_stops(stop)),
            jnp.asarray(max_new_tokens, jnp.int32),
            jnp.asarray(length_penalty, jnp.float32),
        )
        return [self._search(session, row, how, beams, bucket(max_new_tokens)) for row in range(len(session))]

    def _search(self, session: Session, row: int, how: search.Search, beams: int, room: int) -> Written:
        places = session.take([row] * beams)
        start = search.first_beams(self._on_mesh.state(places.state), beams, room)
        with self._on_mesh.in_effect():
            found = search.search(self.model, how, start, self.tell)
        tokens, scores, counts, totals, done = jax.device_get(
            (found.tokens, found.log_probabilities, found.counts, found.totals, found.done)
        )
        there = np.flatnonzero(np.isfinite(totals))
        new = [tokens[i, : counts[i]] for i in there]
        texts = tuple(np.concatenate([session.tokens[row], text]) for text in new)
        found_all = Session(found.state, (*texts, *places.tokens[len(there) :]), session.max_seq_len)
        return Written(
            [text.tolist() for text in new],
            [scores[i, : counts[i]].tolist() for i in there],
            totals[there].tolist(),
            done[there].tolist(),
            found_all if len(there) == beams else found_all.take(range(len(there))),
        )

    def best_of(
        self,
        session: Session,
        n: int,
        max_new_tokens: int = 256,
        sampling: Sampling | None = None,
        *,
        stop: int | Sequence[int] | None = None,
        seed: int = 0,
        length_penalty: float | int = 1.0,
    ) -> Written:
        """Writes `n` texts for each row of a session, forked from it, and keeps the best of each.

        Args:
          session: As in `write`.
          n: Texts for each row.
          max_new_tokens: As in `write`.
          sampling: As in `write`.
          stop: As in `write`.
          seed: Counted up over all texts.
          length_penalty: As in `beam_search`; what is compared is the model's own log-probability.

        Raises:
          ValueError: If a number is out of range, or the cache has no room.
          MeshError: If the mesh cannot divide the texts.
        """
        if n < 1:
            raise ValueError(f"{n=} must be at least 1.")
        forks = session.take([row for row in range(len(session)) for _ in range(n)])
        written = self.write(forks, max_new_tokens, sampling, stop=stop, seed=seed)
        lengths = [len(row) + done for row, done in zip(written.tokens, written.finished, strict=True)]
        ranks = np.array(written.totals) / np.maximum(lengths, 1) ** float(length_penalty)
        best = [i + int(np.argmax(ranks[i : i + n])) for i in range(0, len(forks), n)]

        def chosen(values: list) -> list:
            return [values[i] for i in best]

        return Written(
            chosen(written.tokens),
            chosen(written.log_probabilities),
            chosen(written.totals),
            chosen(written.finished),
            written.session.take(best),
        )

    @functools.cached_property
    def digest(self) -> str:
        """Of the model: what a saved session is bound to. Reads all weights once."""
        return snapshot.model_digest(self.model)

    def save(self, session: Session, path: str | Path) -> None:
        """Saves a session as one safetensors file; a file that is there is replaced.

        Raises:
          CheckpointError: If it cannot be written.
        """
        snapshot.save(session, path, self.digest)

    def load(self, path: str | Path) -> Session:
        """Reads a session back: nothing of the text is read again.

        Raises:
          CheckpointError: If it is no session, is damaged, of a later version, or of another model.
        """
        return snapshot.load(path, self.model, self.digest)

    def _pieces(self, session, left, sampling, stops, seeds, pace) -> Iterator[Written]:
        if left == 0 or not len(session):
            return
        seen = None
        if sampling.repetition_penalty is not None:
            seen = np.zeros((len(session), self.vocab_size), bool)
            for row, tokens in zip(seen, session.tokens, strict=True):
                row[tokens] = True
        seen, done = self._on_mesh.rows((seen, np.zeros(len(session), bool)))
        sampler = sampling.compiled()
        progress = programs.Progress(self._own(session), seen, done)
        texts, finished = session.tokens, np.zeros(len(session), bool)
        while left:
            limit = max(1, min(pace(), left, PIECE))
            order = programs.Order(sampler, seeds, stops, jnp.asarray(limit, jnp.int32), PIECE)
            with self._on_mesh.in_effect():
                progress, piece = programs.write(self.model, order, progress, self.tell)
            tokens, scores, counts, done = jax.device_get(
                (piece.tokens, piece.log_probabilities, piece.counts, progress.done)
            )
            new = [row[:count] for row, count in zip(tokens, counts, strict=True)]
            # The stop token stands behind what counts.
            judged = counts + (done & ~finished)
            totals = [float(row[:count].sum()) for row, count in zip(scores, judged, strict=True)]
            finished = done
            texts = tuple(np.concatenate(pair) for pair in zip(texts, new, strict=True))
            yield Written(
                [row.tolist() for row in new],
                [row[:count].tolist() for row, count in zip(scores, counts, strict=True)],
                totals,
                done.tolist(),
                Session(progress.state, texts, session.max_seq_len),
            )
            left -= limit
            if done.all():
                return

    def _gather(self, session: Session, pieces: Iterator[Written]) -> Written:
        """All pieces as one."""
        tokens: list[list[int]] = [[] for _ in session.tokens]
        scores: list[list[float]] = [[] for _ in session.tokens]
        totals = [0.0] * len(session)
        last = Written(tokens, scores, totals, [False] * len(session), session)
        for last in pieces:
            for i in range(len(session)):
                tokens[i] += last.tokens[i]
                scores[i] += last.log_probabilities[i]
                totals[i] += last.totals[i]
        return Written(tokens, scores, totals, last.finished, last.session)

    def _read(self, session: Session, rows: Rows, state: State) -> Session:
        """Reads on into `state`, which is given away."""
        self._check_room(session, [len(row) for row in rows])
        longest = max((len(row) for row in rows), default=0)
        for start, places in chunks(longest, self.prefill_chunk):
            chunk = tuple(row[start : start + places] for row in rows)
            tokens = self._on_mesh.tokens(padded(chunk, places))
            counts = self._on_mesh.rows(np.array([len(row) for row in chunk], np.int32))
            with self._on_mesh.in_effect():
                state = programs.read(self.model, tokens, counts, state, self.tell)
        texts = tuple(np.concatenate(pair) for pair in zip(session.tokens, rows, strict=True))
        return Session(state, texts, session.max_seq_len)

    def _own(self, session: Session) -> State:
        """A session's state in its place, in buffers that can be given away."""
        return copied(self._on_mesh.state(session.state))

    def _check_room(self, session: Session, more: Sequence[int]) -> None:
        needed = max((len(row) + new for row, new in zip(session.tokens, more, strict=True)), default=0)
        if needed > session.max_seq_len and not cache_is_unbounded(self.model, session.max_seq_len):
            raise ValueError(
                f"This session has room for documents of {session.max_seq_len} tokens, and one would have {needed}. "
                "Start it with a larger room."
            )
