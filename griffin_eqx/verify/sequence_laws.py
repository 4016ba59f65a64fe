"""Laws of order: causality, streaming, packing, padding."""

import numpy as np

from griffin_eqx.verify.comparison import assert_close, assert_finite, tolerance
from griffin_eqx.verify.law import Law
from griffin_eqx.verify.strategies import HUGE, ROW, Case, Chunk, cut_rows, seeds, whole_rows
from griffin_eqx.verify.subject import (
    PROBE,
    Subject,
    chunk,
    continuation,
    empty_cache,
    forward,
    next_position,
    probe,
    pullback,
    stream,
)

LONG = (700, 300, 1100)
"""Chunks of the law `long`: no border of a tile of 128, 256, 512 or 1,024 lies in the same place in both."""

TOLERANCE = tolerance(np.float32, ROW)
SAME_PROGRAM = "the same numbers in another order of summation: float32 rounding, `tolerance(float32, row)`"


def _causal(subject: Subject, case: Case) -> None:
    rng, tokens, t = case.rng, case.row.tokens, case.pick
    block, x, positions = subject.block(rng), subject.tokens(rng, tokens), case.row.positions
    # Another future, in other documents, and so large that a small leak shows.
    other, other_positions = x.copy(), positions.copy()
    other[t:] += 1e3 * subject.tokens(rng, tokens - t)
    other_positions[t:] = np.arange(tokens - t)
    given = chunk(x, positions, ROW, rng)
    y, _ = forward(block, *given, None)
    y_other, _ = forward(block, *chunk(other, other_positions, ROW, rng), None)
    assert_close(
        y_other[:t],
        y[:t],
        f"outputs before token {t}, which alone changed with its future",
        tol=TOLERANCE,
        token=0,
    )
    dy = subject.tokens(rng, ROW)
    dy[t:] = 0
    _, dx, _ = pullback(block, *given, None, dy)
    assert_close(
        dx[t:tokens],
        np.zeros_like(dx[t:tokens]),
        f"gradient of outputs before {t} by inputs from {t} on",
        tol=0.0,
        token=t,
    )
    assert_finite(dx, "gradient of x")


causal = Law(
    "causal",
    "y[:t] does not depend on x[t:] nor on positions[t:], and d y[:t] / d x[t:] = 0 exactly, for every t",
    f"values: {SAME_PROGRAM}; gradients: none, a zero is a zero",
    lambda subject: whole_rows(),
    _causal,
)


def _streaming(subject: Subject, case: Case) -> None:
    rng = case.rng
    block, x, positions = subject.block(rng), subject.tokens(rng, case.row.tokens), case.row.positions
    tokens, after = case.row.tokens, subject.tokens(rng, PROBE)
    empty = empty_cache(block)
    given = chunk(x, positions, ROW, rng)
    trained, none = forward(block, *given, None)
    assert none is None, "without a cache a block must hand None back"
    filled, cache = forward(block, *given, empty)
    assert_close(
        filled[:tokens],
        trained[:tokens],
        "outputs with an empty cache against none",
        tol=TOLERANCE,
        token=0,
    )
    streamed, last = stream(block, x, positions, case.chunks, empty, rng, case.padding)
    assert_close(streamed, trained[:tokens], "outputs in chunks against one pass", tol=TOLERANCE, token=0)
    position = next_position(positions)
    assert_close(
        probe(block, last, after, position),
        probe(block, cache, after, position),
        f"continuation of the cache after chunks against that after one pass, padded to {ROW}",
        tol=TOLERANCE,
    )


streaming = Law(
    "streaming",
    "block(x) = [block(x1, cache0), block(x2, cache1), ...] for every split x = [x1, x2, ...], down to single "
    "tokens, padded chunks and chunks of padding alone; and the last cache equals that of one pass",
    SAME_PROGRAM,
    lambda subject: cut_rows(),
    _streaming,
)


def _long(subject: Subject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    block, positions = subject.block(rng, mild=True), np.arange(sum(LONG))
    x = subject.tokens(rng, sum(LONG))
    whole, _ = forward(block, *chunk(x, positions, sum(LONG), rng), None)
    parts = [Chunk(tokens, tokens) for tokens in LONG]
    streamed, _ = stream(block, x, positions, parts, block.init_cache(sum(LONG), np.float32), rng, 0.0)
    tol = tolerance(np.float32, sum(LONG))
    assert_close(streamed, whole, f"outputs in chunks of {LONG} against one pass", tol=tol, token=0)


long = Law(
    "long",
    "block(x) = [block(x1, cache0), block(x2, cache1), ...] for 2,100 tokens in three unequal chunks",
    "the same numbers in another order of summation: float32 rounding, `tolerance(float32, 2100)`",
    lambda subject: seeds,
    _long,
    most=2,
)


def _packing(subject: Subject, case: Case) -> None:
    rng, row = case.rng, case.row
    block, x, positions = subject.block(rng), subject.tokens(rng, row.tokens), row.positions
    after, empty = subject.tokens(rng, PROBE), empty_cache(block)
    packed, cache = stream(block, x, positions, case.chunks, empty, rng, case.padding)
    alone_cache = empty
    for index, span in enumerate(row.spans):
        alone, alone_cache = forward(block, *chunk(x[span], positions[span], ROW, rng), empty)
        length = span.stop - span.start
        assert_close(
            packed[span],
            alone[:length],
            f"outputs of document {index} in the row against alone",
            tol=TOLERANCE,
            token=span.start,
        )
    position = next_position(positions)
    assert_close(
        probe(block, cache, after, position),
        probe(block, alone_cache, after, position),
        f"continuation of the last document, in the row against alone, padded to {ROW}",
        tol=TOLERANCE,
    )
    _others_change_nothing(subject, case, block, x, positions, after, empty, rng)


def _others_change_nothing(subject, case, block, x, positions, after, empty, rng):
    """Gives all documents but one other, larger contents; nothing of that one may notice."""
    span = case.row.spans[case.pick]
    other = 1e3 * subject.tokens(rng, case.row.tokens)
    other[span] = x[span]
    dy = np.zeros((ROW, x.shape[1]), np.float32)
    dy[span] = subject.tokens(rng, span.stop - span.start)
    # The cache is the last document's own.
    dprobe = subject.tokens(rng, PROBE) * (span.stop == case.row.tokens)
    then = (after, continuation(next_position(positions)), dprobe)
    results = []
    for values in (x, other):
        given = chunk(values, positions, ROW, rng)
        d_block, dx, _ = pullback(block, *given, empty, dy, then)
        outside = np.delete(dx, np.r_[span], axis=0)
        assert_close(outside, np.zeros_like(outside), "gradient of a document by the others", tol=0.0)
        results.append((forward(block, *given, None)[0][span], dx[span], d_block))
    names = "a document's outputs, gradient of x and of parameters, when the others change"
    assert_close(results[1], results[0], names, tol=TOLERANCE)


packing = Law(
    "packing",
    "[block(a), block(b), ...] = block([a, b, ...]) for documents in one row, through every split and its live "
    "caches; changing a changes nothing of b: outputs, gradients, final cache; d b / d a = 0 exactly",
    SAME_PROGRAM,
    lambda subject: cut_rows(),
    _packing,
)


def _padding(subject: Subject, case: Case) -> None:
    rng, tokens = case.rng, case.row.tokens
    block, x, positions = subject.block(rng), subject.tokens(rng, tokens), case.row.positions
    dy, dprobe, after = subject.tokens(rng, ROW), subject.tokens(rng, PROBE), subject.tokens(rng, PROBE)
    dy[tokens:] = 0
    then = (after, continuation(next_position(positions)), dprobe)
    for cache in (None, empty_cache(block)):
        results = []
        # Zeros are what it is compared with. In their place what only infinite intermediate values show.
        scale = case.padding or HUGE
        # Also another amount of it: a mistake that always takes in as much padding would compare as equal.
        for padding, bucket in ((0.0, ROW), (scale, ROW + PROBE)):
            given = chunk(x, positions, bucket, rng, padding)
            y, last = forward(block, *given, cache)
            longer = np.concatenate([dy, np.zeros((bucket - ROW, dy.shape[1]), dy.dtype)])
            d_block, dx, d_cache = pullback(block, *given, cache, longer, None if cache is None else then)
            assert_finite((d_block, dx, d_cache), f"gradients with padding of scale {padding:g}")
            assert_close(dx[tokens:], np.zeros_like(dx[tokens:]), "gradient by padding", tol=0.0)
            probed = None if cache is None else probe(block, last, after, next_position(positions))
            results.append(
                {"y": y[:tokens], "probe": probed, "x": dx[:tokens], "parameters": d_block, "cache": d_cache}
            )
        assert_close(
            results[1],
            results[0],
            f"{ROW + PROBE - tokens} tokens of padding of scale {scale:g} against {ROW - tokens} of zeros",
            tol=TOLERANCE,
        )


padding = Law(
    "padding",
    "values and positions behind the first `length` tokens change no output there, no cache and no gradient, by x, "
    "parameters or cache, whatever finite values they are; d y / d padding = 0 exactly",
    SAME_PROGRAM,
    lambda subject: whole_rows(),
    _padding,
)
