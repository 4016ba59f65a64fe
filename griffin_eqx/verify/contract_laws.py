"""Laws of the contract: rows of a batch, the cache's bound, JAX's transformations, options."""

import dataclasses
import math
import types
import typing
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from griffin_eqx.errors import OptionError
from griffin_eqx.pattern import LayerSpec, PatternError
from griffin_eqx.registry import Registry
from griffin_eqx.verify.law import Law
from griffin_eqx.verify.sequence_laws import SAME_PROGRAM, TOLERANCE
from griffin_eqx.verify.strategies import ROW, cut_rows, whole_rows
from griffin_eqx.verify.subject import Subject, chunk, empty_cache, forward, inner, stream
from griffin_eqx.verify.tolerance import assert_close

BATCH_ROW = 8
BOUND = 5
"""A `max_seq_len` that documents outgrow."""


def _three_rows() -> st.SearchStrategy[Any]:
    return st.lists(whole_rows(most=BATCH_ROW), min_size=3, max_size=3).map(tuple)


def _batch(subject, cases):
    """Three rows as one batch: block, inputs, layouts, empty caches, cotangents of the tokens."""
    rng = cases[0].rng
    block = subject.block(rng)
    given = [
        chunk(subject.tokens(rng, case.row.tokens), case.row.positions, BATCH_ROW, rng, case.padding) for case in cases
    ]
    xs, layouts = jax.tree.map(lambda *rows: jnp.stack(rows), *given)
    caches = jax.tree.map(lambda z: jnp.stack([z] * 3), empty_cache(block))
    tokens = np.array([case.row.tokens for case in cases])
    dys = np.where((np.arange(BATCH_ROW) < tokens[:, None])[..., None], subject.tokens(rng, 3 * BATCH_ROW).reshape(xs.shape), 0)
    return block, xs, layouts, caches, jnp.asarray(dys)


@eqx.filter_jit
def _by_row(block, xs, layouts, caches, dys):
    """`(y, cache, dx)` of each row of a batch."""

    def one(x, layout, cache, dy):
        def loss(x):
            y, last = block(x, layout, cache)
            return inner(dy, y), (y, last)

        dx, (y, last) = jax.grad(loss, has_aux=True)(x)
        return y, last, dx

    return jax.vmap(one)(xs, layouts, caches, dys)


def _tokens_of(case, y, dx):
    return np.asarray(y)[: case.row.tokens], np.asarray(dx)


def _independent_rows(subject: Subject, cases: Any) -> None:
    block, *batch = _batch(subject, cases)
    y, cache, dx = _by_row(block, *batch)
    turned = jax.tree.map(lambda z: jnp.roll(z, 1, axis=0), tuple(batch))
    y_turned, _, dx_turned = _by_row(block, *turned)
    poisoned = batch[0].at[0, cases[0].pick].set(jnp.nan)
    y_poisoned, cache_poisoned, dx_poisoned = _by_row(block, poisoned, *batch[1:])
    for i, case in enumerate(cases):
        want = _tokens_of(case, y[i], dx[i])
        j = (i + 1) % 3
        assert_close(_tokens_of(case, y_turned[j], dx_turned[j]), want, f"row {i}, moved to row {j}", tol=TOLERANCE)
        if i > 0:
            got = _tokens_of(case, y_poisoned[i], dx_poisoned[i])
            assert_close(got, want, f"row {i}, outputs and gradient of x beside a NaN in row 0", tol=TOLERANCE)
            held = [jax.tree.map(lambda z, i=i: z[i], tree) for tree in (cache_poisoned, cache)]
            assert_close(held[0], held[1], f"row {i}, cache beside a NaN in row 0", tol=TOLERANCE)


independent_rows = Law(
    "independent_rows",
    "vmap(block)(xs)[p] = vmap(block)(xs[p]) for a permutation p, gradients alike; a NaN in a row leaves outputs, "
    "caches and gradients of the other rows as they are",
    SAME_PROGRAM,
    _three_rows,
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
    traced, _ = stream(block, x, positions, case.chunks, small, rng, case.padding)
    beyond = positions >= BOUND
    assert_close(traced[~beyond], right[~beyond], f"outputs at positions below max_seq_len={BOUND}", tol=TOLERANCE)
    refused = np.isnan(traced).all(axis=1) & beyond
    assert_close(traced[~refused], right[~refused], f"outputs beyond max_seq_len={BOUND} that are not NaN", tol=TOLERANCE)
    if growth == "linear":
        assert refused[beyond].all(), f"a cache of linear growth must answer NaN beyond max_seq_len={BOUND}"
    try:
        known, _ = block(*chunk(x, positions, ROW, rng), small)
    except ValueError:
        assert beyond.any(), f"documents of {row.documents} tokens are refused with max_seq_len={BOUND}"
        return
    assert not refused.any(), f"positions beyond max_seq_len={BOUND} are known and no ValueError is raised"
    assert_close(known[: row.tokens], right, f"outputs with max_seq_len={BOUND}, not traced", tol=TOLERANCE)


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
    "bytes(init_cache(n)) is constant in n, or from some n on, or affine in n, as `cache_growth` says; a document "
    "of more than max_seq_len tokens raises ValueError where positions are known and gives NaN from that token on "
    "where they are traced, unless its outputs are right all the same; earlier documents do not count",
    SAME_PROGRAM,
    cut_rows,
    _bounded_cache,
    most=8,
)


@eqx.filter_jit
def _rematerialised(block, x, layout, dy):
    """Gradients by (parameters, x), the block run again in the backward pass or not."""

    def loss(arguments, call):
        return inner(dy, call(*arguments))

    def plain(block, x):
        return block(x, layout, None)[0]

    again = eqx.filter_checkpoint(plain)
    return tuple(eqx.filter_grad(loss)((block, x), call) for call in (plain, again))


class _Counted:
    """A compiled call that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

        def call(block, x, layout, cache):
            self.traces += 1
            return block(x, layout, cache)

        self.call = eqx.filter_jit(call)


def _transforms(subject: Subject, cases: Any) -> None:
    block, xs, layouts, caches, dys = _batch(subject, cases)
    y, cache, _ = _by_row(block, xs, layouts, caches, dys)
    counted = _Counted()
    for i, case in enumerate(cases):
        x, layout, empty = jax.tree.map(lambda z, i=i: z[i], (xs, layouts, caches))
        alone, last = counted.call(block, x, layout, empty)
        tokens = case.row.tokens
        stacked = np.asarray(y)[i, :tokens], jax.tree.map(lambda z, i=i: z[i], cache)
        assert_close(stacked, (alone[:tokens], last), f"row {i} by vmap against alone", tol=TOLERANCE)
        counted.call(block, x, layout, last)
    assert counted.traces == 1, (
        f"calls of equal shapes were traced {counted.traces} times: a cache must come back with the shapes and "
        "dtypes it went in with"
    )
    x, layout, dy = jax.tree.map(lambda z: z[0], (xs, layouts, dys))
    eager, _ = block(x, layout, None)
    tokens = cases[0].row.tokens
    assert_close(eager[:tokens], forward(block, x, layout, None)[0][:tokens], "eager against jit", tol=TOLERANCE)
    plain, again = _rematerialised(block, x, layout, dy)
    assert_close(again, plain, "gradient of (parameters, x) under jax.checkpoint", tol=TOLERANCE)


transforms = Law(
    "transforms",
    "jit(block) = block; vmap(block)(xs) = [block(x) for x in xs]; grad(checkpoint(block)) = grad(block); calls of "
    "equal shapes, each with the last one's cache, are traced once",
    SAME_PROGRAM,
    _three_rows,
    _transforms,
    most=4,
)


def _options(subject: Subject, data: st.DataObject) -> None:
    Block = subject.Block
    given = {}
    for field, hint in typing.get_type_hints(Block.Options).items():
        if data.draw(st.booleans(), label=f"set {field}"):
            given[field] = data.draw(_values(hint), label=field)
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
    "Options(**read(print(options))) = options for every value that is in range; out of range is an OptionError",
    "none: equality",
    st.data,
    _options,
)
