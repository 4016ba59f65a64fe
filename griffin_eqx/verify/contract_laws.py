"""Laws of the contract: rows of a batch, the cache's bound, JAX's transformations, options."""

import math
import types
import typing
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from griffin_eqx.block import SequenceLayout
from griffin_eqx.errors import OptionError
from griffin_eqx.pattern import LayerSpec, PatternError
from griffin_eqx.registry import Registry
from griffin_eqx.verify.comparison import assert_close
from griffin_eqx.verify.law import Law
from griffin_eqx.verify.sequence_laws import SAME_PROGRAM, TOLERANCE
from griffin_eqx.verify.strategies import ROW, Chunk, whole_rows
from griffin_eqx.verify.subject import (
    PROBE,
    Subject,
    chunk,
    continuation,
    empty_cache,
    forward,
    inner,
    next_position,
    pullback,
    stream,
)

BATCH_ROW = PROBE
BOUND = 5
"""A `max_seq_len` that documents outgrow."""


def _three_rows() -> st.SearchStrategy[Any]:
    return st.lists(whole_rows(most=BATCH_ROW), min_size=3, max_size=3).map(tuple)


def _batch(subject, cases):
    """Three rows as one batch: block, inputs, layouts, empty caches, cotangents of the tokens."""
    rng = cases[0].rng
    block = subject.block(rng)
    given = [
        chunk(subject.tokens(rng, case.row.tokens), case.row.positions, BATCH_ROW, rng, case.padding)
        for case in cases
    ]
    xs, layouts = jax.tree.map(lambda *rows: np.stack(rows), *given)
    caches = jax.tree.map(lambda z: np.stack([z] * 3), empty_cache(block))
    dys = np.stack([subject.tokens(rng, BATCH_ROW)] * 3)
    for dy, case in zip(dys, cases, strict=True):
        dy[case.row.tokens :] = 0
    return block, xs, layouts, caches, dys


def _row(i: int, tree: Any) -> Any:
    return jax.tree.map(lambda z: z[i], tree)


def _by_row(*arguments):
    """`(y, cache, dx)` of each row of a batch, as NumPy arrays."""
    return jax.tree.map(np.asarray, _vmapped(*arguments))


@eqx.filter_jit
def _vmapped(block, xs, layouts, caches, dys):

    def one(x, layout, cache, dy):
        def loss(x):
            y, last = block(x, layout, cache)
            return inner(dy, y), (y, last)

        dx, (y, last) = jax.grad(loss, has_aux=True)(x)
        return y, last, dx

    return jax.vmap(one)(xs, layouts, caches, dys)


def _independent_rows(subject: Subject, cases: Any) -> None:
    block, *batch = _batch(subject, cases)
    poisoned = batch[0].copy()
    poisoned[0, cases[0].pick] = np.nan
    results = _by_row(block, *batch)
    turned = _by_row(block, *jax.tree.map(lambda z: np.roll(z, 1, axis=0), tuple(batch)))
    beside_nan = _by_row(block, poisoned, *batch[1:])
    for i, case in enumerate(cases):
        (y, cache, dx), moved = _row(i, results), _row((i + 1) % 3, turned)
        tokens = case.row.tokens
        what = f"(outputs, gradient of x) of row {i}"
        got = moved[0][:tokens], moved[2]
        assert_close(got, (y[:tokens], dx), f"{what}, moved to row {(i + 1) % 3}", tol=TOLERANCE)
        if i > 0:
            got = _row(i, beside_nan)
            assert_close((got[0][:tokens], got[2]), (y[:tokens], dx), f"{what} beside a NaN", tol=TOLERANCE)
            assert_close(got[1], cache, f"cache of row {i} beside a NaN", tol=TOLERANCE)
    _among_other_caches(subject, cases, block, batch, results[1])


def _among_other_caches(subject, cases, block, batch, caches):
    """Rows that go on, and one that begins beside them: none may tell what caches the others have."""
    rng, begins = cases[0].rng, cases[0].pick % 3
    positions = [0 if i == begins else next_position(case.row.positions) for i, case in enumerate(cases)]
    xs = np.stack([subject.tokens(rng, BATCH_ROW) for _ in cases])
    layouts = jax.tree.map(lambda *rows: np.stack(rows), *map(continuation, positions))
    caches = jax.tree.map(lambda z, empty: np.where(_at(begins, z), empty, z), caches, batch[2])
    continued = xs, layouts, caches, np.stack([subject.tokens(rng, BATCH_ROW) for _ in cases])
    results = _by_row(block, *continued)
    for i in range(3):
        copies = jax.tree.map(lambda z, i=i: np.stack([z[i]] * 3), continued)
        what = f"(outputs, cache, gradient of x) of row {i} beside other caches, row {begins} begins"
        assert_close(_row(i, results), _row(i, _by_row(block, *copies)), what, tol=TOLERANCE)


def _at(row: int, z: np.ndarray) -> np.ndarray:
    return (np.arange(3) == row).reshape(3, *[1] * (z.ndim - 1))


independent_rows = Law(
    "independent_rows",
    "vmap(block)(xs)[p] = vmap(block)(xs[p]) for a permutation p, gradients alike; a NaN in a row leaves the "
    "outputs, caches and gradients of the other rows as they are; a row that goes on from a cache gives beside rows "
    "with other caches what it gives beside copies of itself",
    SAME_PROGRAM,
    lambda subject: _three_rows(),
    _independent_rows,
)


def cache_bytes(block: Any, max_seq_len: int) -> int:
    """Size of a float32 cache; allocates nothing."""
    shapes = eqx.filter_eval_shape(lambda: block.init_cache(max_seq_len, np.float32))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _bounded_cache(subject: Subject, case: Any) -> None:
    rng, row, growth = case.rng, case.row, subject.Block.cache_growth
    block, x, positions = subject.block(rng), subject.tokens(rng, row.tokens), row.positions
    _declared_growth(block, growth)
    right = np.asarray(forward(block, *chunk(x, positions, ROW, rng), None)[0])[: row.tokens]
    small = block.init_cache(BOUND, np.float32)
    # In few shapes: this cache has one of its own.
    cuts = range(0, row.tokens, BATCH_ROW)
    chunks = [Chunk(min(BATCH_ROW, row.tokens - start), BATCH_ROW) for start in cuts]
    traced, _ = stream(block, x, positions, chunks, small, rng, case.padding)
    beyond = positions >= BOUND
    assert_close(
        traced[~beyond], right[~beyond], f"outputs at positions below max_seq_len={BOUND}", tol=TOLERANCE
    )
    refused = np.isnan(traced).all(axis=1) & beyond
    assert_close(
        traced[~refused],
        right[~refused],
        f"outputs beyond max_seq_len={BOUND} that are not NaN",
        tol=TOLERANCE,
    )
    if growth == "linear":
        assert refused[beyond].all(), f"a cache of linear growth must answer NaN beyond max_seq_len={BOUND}"
    # Not compiled, and so with known positions; short, because every operation compiles by itself.
    if refused[:BATCH_ROW].any():
        known = chunk(x[:BATCH_ROW], positions[:BATCH_ROW], BATCH_ROW, rng)
        try:
            block(*known, small)
        except ValueError:
            return
        raise AssertionError(f"known positions {positions} do not raise ValueError with max_seq_len={BOUND}")


def _declared_growth(block, growth):
    sizes = [cache_bytes(block, n) for n in (1 << 20, 2 << 20, 3 << 20)]
    small = cache_bytes(block, BOUND)
    steps = (sizes[1] - sizes[0], sizes[2] - sizes[1])
    shown = f"{small} bytes for {BOUND} tokens, {sizes} for 1, 2, 3 * 2**20: not cache_growth={growth!r}"
    assert {
        "constant": steps == (0, 0) and small == sizes[0],
        "window": steps == (0, 0) and small <= sizes[0],
        "linear": steps[0] == steps[1] > 0,
    }[growth], shown


bounded_cache = Law(
    "bounded_cache",
    "bytes(init_cache(n)) is constant in n, or from some n on, or affine in n, as `cache_growth` says; beyond "
    "max_seq_len a document raises ValueError where positions are known and gives NaN from that token on where "
    "they are traced, unless its outputs are right all the same; earlier documents do not count",
    SAME_PROGRAM,
    lambda subject: whole_rows(),
    _bounded_cache,
    most=8,
)


@eqx.filter_jit
@eqx.filter_grad
def _rematerialised(arguments, layout, dy):
    """As `pullback`, with the block run again in the backward pass."""
    return inner(dy, eqx.filter_checkpoint(lambda block, x: block(x, layout, None)[0])(*arguments))


@eqx.filter_jit
def _weight_gradients(block, xs, layouts, dys):
    """Gradients by the parameters: of all rows at once, and summed over the rows."""

    @eqx.filter_grad
    def at_once(block):
        return inner(dys, jax.vmap(lambda x, layout: block(x, layout, None)[0])(xs, layouts))

    @eqx.filter_grad
    def of_row(block, row):
        x, layout, dy = row
        return inner(dy, block(x, layout, None)[0])

    rows = [of_row(block, _row(i, (xs, layouts, dys))) for i in range(3)]
    return at_once(block), jax.tree.map(lambda *z: sum(z), *rows)


@eqx.filter_jit
def _without_layout(block, xs):
    """Rows behind one another along axis 1, as documents of their own."""
    return jax.vmap(lambda x: block(x)[0], in_axes=1)(xs)


def _transforms(subject: Subject, cases: Any) -> None:
    block, *batch = _batch(subject, cases)
    together = _by_row(block, *batch)
    xs, layouts, _, dys = batch
    got, want = _weight_gradients(block, xs, layouts, dys)
    assert_close(got, want, "gradient of a batch by parameters against the sum over its rows", tol=TOLERANCE)
    for i, case in enumerate(cases):
        x, layout, empty, _ = jax.tree.map(jnp.asarray, _row(i, batch))
        y, last = forward(block, x, layout, empty)
        tokens, (y_together, last_together, _) = case.row.tokens, _row(i, together)
        got, want = (y_together[:tokens], last_together), (y[:tokens], last)
        assert_close(got, want, f"(outputs, cache) of row {i} by vmap", tol=TOLERANCE)
        _compiles_once(block, x, layout, empty)
        if i == 0:  # every operation compiles by itself
            eager, _ = block(x, layout, empty)
            assert_close(np.asarray(eager)[:tokens], y[:tokens], "outputs without jit", tol=TOLERANCE)
    rng = cases[0].rng
    xs = np.stack([subject.tokens(rng, BATCH_ROW) for _ in cases])
    single = SequenceLayout.single(BATCH_ROW)
    plain = np.stack([forward(block, jnp.asarray(x), single, None)[0] for x in xs])
    got = _without_layout(block, jnp.asarray(np.swapaxes(xs, 0, 1)))
    assert_close(got, plain, "outputs without a layout, by vmap over axis 1", tol=TOLERANCE)
    x, layout = chunk(subject.tokens(rng, ROW), np.arange(ROW), ROW, rng)
    again, plain = _rematerialised((block, x), layout, x), pullback(block, x, layout, None, x)[:2]
    assert_close(again, plain, "gradient of (parameters, x) under jax.checkpoint", tol=TOLERANCE)
    layers = [block, subject.block(rng)]
    deep = x
    for layer in layers:
        deep, _ = forward(layer, deep, layout, None)
    assert_close(_scanned(layers, x, layout), deep, "two layers by jax.lax.scan", tol=TOLERANCE)
    y, last = forward(block, x, layout, empty_cache(block))
    _check_donated(empty_cache(block))
    assert_close(
        _donating((block, x, layout), empty_cache(block)),
        (y, last),
        "(outputs, cache), donated",
        tol=TOLERANCE,
    )


@eqx.filter_jit
def _scanned(layers, x, layout):
    """Layers of one structure, their parameters stacked, as one loop."""
    arrays, static = eqx.partition(layers, eqx.is_array)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays)
    return jax.lax.scan(lambda x, p: (eqx.combine(p, static[0])(x, layout, None)[0], None), x, stacked)[0]


@eqx.filter_jit(donate="all-except-first")
def _donating(kept, cache):
    block, x, layout = kept
    return block(x, layout, cache)


def _check_donated(cache):
    """A buffer can be donated once, so no two arrays of a cache may share one."""
    leaves = [leaf for leaf in jax.tree.leaves(cache) if isinstance(leaf, jax.Array)]
    places = {leaf.unsafe_buffer_pointer() for leaf in leaves if leaf.size}
    assert len(places) == len([leaf for leaf in leaves if leaf.size]), (
        "init_cache puts one array into the cache twice, which then cannot be donated"
    )


def _compiles_once(block, x, layout, cache):
    """What jit goes by, the form of its arguments, is the same for the next call as for this one."""

    def form(tree):
        leaves, structure = jax.tree.flatten(eqx.filter_eval_shape(lambda: tree))
        return structure, [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in leaves]

    y, last = eqx.filter_eval_shape(block, x, layout, cache)
    what = "(structure, shapes, dtypes, weak types)"
    assert form(last) == form(cache), (
        f"{what} of the cache went in as {form(cache)} and came out as {form(last)}"
    )
    assert form(y) == form(x), f"{what} of x are {form(x)}, of the outputs {form(y)}"


transforms = Law(
    "transforms",
    "jit(block) = block; vmap(block)(xs) = [block(x) for x in xs], gradients by "
    "parameters too; block(x) = block(x, one document); grad(checkpoint(block)) = grad(block); a scan over "
    "stacked layers = the layers in turn; a donated cache changes nothing; the "
    "outputs have the form of x and the cache the form it went in with, so that equal shapes compile once",
    SAME_PROGRAM,
    lambda subject: _three_rows(),
    _transforms,
    most=4,
)


def _any_options(subject: Subject) -> st.SearchStrategy[dict[str, Any]]:
    """Any values for any of the block's options, out of range too."""
    hints = typing.get_type_hints(subject.Block.Options)
    return st.fixed_dictionaries({}, optional={field: _values(hint) for field, hint in hints.items()})


def _options(subject: Subject, given: dict[str, Any]) -> None:
    Block = subject.Block
    try:
        options = Block.Options(**given)
    except OptionError:
        return  # out of range, and says so
    try:
        spec = LayerSpec(Block.name, tuple(given.items()))
    except PatternError:
        return  # no pattern can hold it
    registry = Registry(group="none")
    registry.add(Block)
    plan = registry.plan(str(spec))[0]
    assert plan.options == options, f"{spec} was read back as {plan.options}, written from {options}"


def _values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of an option's type."""
    if isinstance(hint, types.UnionType):
        return st.one_of(*(_values(kind) for kind in typing.get_args(hint) if kind is not types.NoneType))
    if typing.get_origin(hint) is Literal:
        return st.sampled_from(typing.get_args(hint))
    return {
        bool: st.booleans(),
        int: st.integers(-2, 64) | st.integers(),
        float: st.floats(-1, 2) | st.floats(allow_nan=False),
        str: st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True),
    }[hint]


options = Law(
    "options",
    "read(print(options)) = options for every value that is in range; out of range is an OptionError",
    "none: equality",
    _any_options,
    _options,
)
