"""Laws of numbers: gradients and precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from griffin_eqx.block import SequenceLayout
from griffin_eqx.verify.comparison import assert_close, assert_finite, tolerance
from griffin_eqx.verify.law import Law
from griffin_eqx.verify.program import equations
from griffin_eqx.verify.strategies import Case, Chunk, paddings, rows, seeds
from griffin_eqx.verify.subject import MAX_SEQ_LEN, Subject, chunk, empty_cache, forward, inner

HALF = 8
"""The bucket of each of the two chunks that gradients go through."""

LONG, END = 512, 16
"""Tokens of the longest row of `precision`, and of the two ends whose errors are compared."""


@st.composite
def two_chunks(draw: Any) -> Case:
    """A row in two chunks, either of which may be empty."""
    row = draw(rows(most=2 * HALF))
    first = draw(st.integers(max(0, row.tokens - HALF), min(HALF, row.tokens)))
    chunks = (Chunk(first, HALF), Chunk(row.tokens - first, HALF))
    return Case(row, chunks, draw(st.integers(0, 3)), draw(paddings), draw(seeds))


def _loss(arguments: Any, layouts: Any, cotangents: Any) -> Any:
    """A scalar of everything that two chunks give out."""
    block, (x_1, x_2), cache = arguments
    y_1, cache = block(x_1, layouts[0], cache)
    y_2, cache = block(x_2, layouts[1], cache)
    return inner(cotangents[:2], (y_1, y_2)) + inner(cotangents[2], cache)


_value_and_gradient = eqx.filter_jit(eqx.filter_value_and_grad(_loss))


def _gradients(subject: Subject, case: Case) -> None:
    rng, (first, second) = case.rng, case.chunks
    block, x, positions = subject.block(rng), subject.tokens(rng, case.row.tokens), case.row.positions
    warm = case.pick
    cache = empty_cache(block)
    if warm:  # The first document goes on from tokens that the cache holds already.
        _, cache = forward(block, *chunk(subject.tokens(rng, warm), np.arange(warm), HALF, rng), cache)
        positions = positions + warm * (np.arange(case.row.tokens) < case.row.documents[0])
    cut = first.tokens
    given = [
        chunk(x[here], positions[here], part.bucket, rng, min(case.padding, 1.0))
        for here, part in ((slice(cut), first), (slice(cut, None), second))
    ]
    xs, layouts = tuple(x for x, _ in given), tuple(layout for _, layout in given)
    dys = [subject.tokens(rng, HALF) * np.asarray(layout.valid)[:, None] for layout in layouts]
    d_cache = _random_like(cache, rng)
    for of, cotangents in (
        ("outputs alone", (*dys, _zeros_like(d_cache))),
        ("last cache alone", (*_zeros_like(dys), d_cache)),
    ):
        _check_gradient((block, xs, cache), layouts, cotangents, of, rng)


def _check_gradient(arguments, layouts, cotangents, of, rng):
    _, single = _value_and_gradient(arguments, layouts, cotangents)
    what = f"of the {of} by (parameters, x, cache)"
    assert_finite(single, f"gradient {what}")
    # Gates at 0 and 1: there the derivative of a root is infinite unless it is bounded.
    block, xs, cache = arguments
    _, saturated = _value_and_gradient((block, tuple(1e4 * x for x in xs), cache), layouts, cotangents)
    assert_finite(saturated, f"gradient {what}, for x 1e4 times as large")
    direction, step = _random_like(arguments, rng), 1e-6
    arguments, cotangents, direction = _widened((arguments, cotangents, direction))
    with _float64():
        (behind, _), (_, double), (ahead, _) = (
            _value_and_gradient(_moved(arguments, direction, distance), layouts, cotangents)
            for distance in (-step, 0.0, step)
        )
    slope, expected = float(ahead - behind) / (2 * step), _dot(direction, double)
    norm, noise = _dot(double, double) ** 0.5, 1e-9 * (abs(float(ahead)) + 1)
    assert_close(single, double, f"float32 gradient {what} against float64", tol=_GRADIENT)
    agree = abs(slope - expected) <= 1e-6 * norm + noise
    assert agree or not _rounds(arguments, layouts, cotangents), (
        "the block rounds to float32 although its inputs and parameters are float64, so that its gradient cannot "
        "be judged by differences: write promote_types(x.dtype, float32) where it says float32"
    )
    assert agree, (
        f"derivative {what} along a random direction: {expected:.12g} by the gradient and "
        f"{slope:.12g} by float64 differences; the gradient's norm is {norm:.3g}"
    )


def _rounds(arguments, layouts, cotangents):
    """Whether the float64 program casts float64 to a narrower dtype on the way."""
    with _float64():
        program = eqx.filter_make_jaxpr(_loss)(arguments, layouts, cotangents)[0]
    return any(
        equation.primitive.name == "convert_element_type"
        and equation.invars[0].aval.dtype == np.float64
        and jnp.issubdtype(equation.params["new_dtype"], jnp.floating)
        and jnp.finfo(equation.params["new_dtype"]).bits < 64
        for equation in equations(program.jaxpr)
    )


_GRADIENT = tolerance(np.float32, 2 * HALF)


def _random_like(tree: Any, rng: np.random.Generator) -> Any:
    """Standard normal numbers in place of every floating array, zeros in place of others."""

    def draw(z):
        return jnp.asarray(rng.standard_normal(z.shape), z.dtype) if eqx.is_inexact_array(z) else None

    return jax.tree.map(draw, eqx.filter(tree, eqx.is_inexact_array))


def _zeros_like(tree: Any) -> Any:
    return jax.tree.map(lambda z: 0 * z, tree)


@contextmanager
def _float64() -> Iterator[None]:
    """Computes in float64; `promote_types(float64, float32)` is refused where promotion is strict."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield


def _widened(tree: Any) -> Any:
    """Floating arrays in float64, as NumPy has them."""
    return jax.tree.map(lambda z: np.asarray(z, np.float64) if eqx.is_inexact_array(z) else z, tree)


def _moved(tree: Any, direction: Any, step: float) -> Any:
    return eqx.apply_updates(tree, jax.tree.map(lambda v: step * v, direction))


def _dot(left: Any, right: Any) -> float:
    """The inner product of two PyTrees of floating arrays."""
    return float(
        sum(np.vdot(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))
    )


gradients = Law(
    "gradients",
    "the gradients of <dy, y> and of <dcache, last cache> by (parameters, x of both chunks, first cache) are finite, "
    "equal those of the same block in float64, and times a direction v equal (L(. + e v) - L(. - e v)) / 2e in float64",
    "against float64: `tolerance(float32, row)`; differences: 1e-6 of the gradient's norm and 1e-9 of the "
    "value, of which e**2 = 1e-12 and float64 rounding over e, 1e-10, use little",
    lambda subject: two_chunks(),
    _gradients,
    most=8,
)


@eqx.filter_jit
def _one_pass(block, x):
    return block(x, SequenceLayout.single(x.shape[0]), None)[0]


@eqx.filter_jit
def _by_token(block, x, cache):
    """The row fed token by token."""

    def step(cache, token):
        position, x = token
        y, cache = block(x[None], SequenceLayout(position[None], jnp.asarray(1, jnp.int32)), cache)
        return cache, y[0]

    return jax.lax.scan(step, cache, (jnp.arange(x.shape[0], dtype=jnp.int32), x))[1]


def _precision(subject: Subject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    block = subject.block(rng, mild=True)
    x = jnp.asarray(subject.tokens(rng, LONG), jnp.bfloat16)
    with _float64():
        wide_block, wide_x = _widened((block, x))
        exact = np.asarray(_one_pass(wide_block, wide_x))
    for path in _narrow_states(subject, block, rng):
        raise AssertionError(f"cache{path}: a state that is carried by arithmetic must be at least float32")
    cache = block.init_cache(LONG, jnp.bfloat16)
    for name, y in (("in one pass", _one_pass(block, x)), ("token by token", _by_token(block, x, cache))):
        assert y.dtype == jnp.bfloat16, f"bfloat16 in gave {y.dtype} out, {name}"
        error = np.square(np.asarray(y, np.float64) - exact)
        size = np.square(exact)
        early, late = (np.sqrt(error[part].mean() / size[part].mean()) for part in _ENDS)
        assert max(early, late) <= _BOUND, (
            f"{name}: relative error {early:.2g} at first, {late:.2g} at last; at most {_BOUND:.2g}"
        )
        assert late <= _GROWTH * early + _UNIT, (
            f"{name}: the relative error grows with length, from {early:.2g} to {late:.2g}"
        )


_UNIT = float(jnp.finfo(jnp.bfloat16).eps)
_BOUND = 4 * _UNIT
_GROWTH = 4
_ENDS = (slice(END), slice(-END, None))


def _narrow_states(subject: Subject, block: Any, rng: np.random.Generator) -> list[str]:
    """Arrays of a bfloat16 cache that are narrower than float32 although arithmetic carries them on.

    What is copied from cache to cache or replaced (keys, values, inputs of a convolution) may be narrow: its
    gradient by the old array is a copy of the cotangent or 0. A recurrent state's is neither.
    """
    cache = empty_cache(block)
    _, cache = forward(block, *chunk(subject.tokens(rng, 3), np.arange(3), HALF, rng), cache)
    layout = SequenceLayout(jnp.asarray([3], jnp.int32), jnp.asarray(1, jnp.int32))
    x = jnp.asarray(subject.tokens(rng, 1))
    cotangents, structure = jax.tree.flatten(_random_like(cache, rng))
    narrow = eqx.filter(block.init_cache(MAX_SEQ_LEN, jnp.bfloat16), eqx.is_inexact_array)
    found = []
    for i, (path, stored) in enumerate(jax.tree_util.tree_leaves_with_path(narrow)):
        only = [z if i == j else jnp.zeros_like(z) for j, z in enumerate(cotangents)]
        back = _carry_back(block, x, layout, cache, jax.tree.unflatten(structure, only))
        copied = np.isin(np.asarray(jax.tree.leaves(back)[i]), np.append(np.asarray(only[i]), 0)).all()
        if not copied and jnp.finfo(stored.dtype).bits < 32:
            found.append(jax.tree_util.keystr(path))
    return found


@eqx.filter_jit
def _carry_back(block, x, layout, cache, cotangent):
    return eqx.filter_grad(
        lambda cache: inner(cotangent, eqx.filter(block(x, layout, cache)[1], eqx.is_inexact_array))
    )(cache)


precision = Law(
    "precision",
    "bfloat16 x gives bfloat16 y; a state that arithmetic carries is at least float32 in a bfloat16 cache; the "
    "error against the block in float64 is bounded, in one pass and token by token, and does not grow with length",
    "4 units of bfloat16 (2**-7) relative to the root mean square of the outputs: some ten roundings of 1/2 unit, "
    "of which the built-in blocks reach 2.3; growth: 4 times the error of the first 16 tokens, because independent "
    "errors of what a state remembers for 256 tokens add up to 4 times as much, and one unit for chance",
    lambda subject: seeds,
    _precision,
    most=5,
)
