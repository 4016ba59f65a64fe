"""The laws of diagonal linear scans, real and complex, judged by the float64 loop in NumPy."""

import dataclasses
from collections.abc import Callable, Collection
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from griffin_kernels.linear_scan.oracle import linear_scan_oracle, linear_scan_vjp_oracle

from griffin_eqx.verify.comparison import assert_close
from griffin_eqx.verify.law import Law
from griffin_eqx.verify.scan_subject import (
    DTYPES,
    SEQ_LENS,
    WIDTH,
    ScanCase,
    ScanSubject,
    arguments,
    check_shapes,
    compiled,
    narrowed,
    read,
    rounded,
    scan_cases,
    scan_subject,
)
from griffin_eqx.verify.strategies import seeds
from griffin_eqx.verify.verdict import EXAMPLES, ScoreBoard, Verdict, judge, verdicts

LONG = 1000


def _oracle(subject: ScanSubject, case: ScanCase) -> None:
    x, a, h0, reset, _, _ = case.arrays()
    want = linear_scan_oracle(x, a, h0, reset, reverse=case.reverse)
    h, h_last = subject.run(case, x, a, h0, reset)
    assert_close(h, want[0], "h against the loop in float64", tol=case.tol)
    assert_close(h_last, want[1], "h_last against the loop in float64", tol=case.wide_tol)
    types = jax.eval_shape(compiled(subject, case.reverse)[0], *arguments(case))
    for name, tree, dtype in (("h", types[0], case.dtype), ("h_last", types[1], "float32")):
        found = {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}
        assert found == {dtype}, f"{name} of {case.dtype} inputs is {found}, expected {dtype}"


def _adjoint(subject: ScanSubject, case: ScanCase) -> None:
    x, a, h0, reset, dh, dh_last = case.arrays()
    for name, cotangents in (("h", (dh, 0 * dh_last)), ("h_last", (0 * dh, dh_last))):
        got = subject.pull(case, x, a, h0, reset, *cotangents)
        want = linear_scan_vjp_oracle(x, a, h0, reset, *cotangents, reverse=case.reverse)
        for argument, dz, expected in zip(("x", "a", "h0"), got, want, strict=True):
            assert_close(dz, expected, f"cotangent of {argument} for one of {name} alone", tol=case.tol)


def _split(subject: ScanSubject, case: ScanCase) -> None:
    x, a, h0, reset, _, _ = case.arrays()
    h, h_last = subject.run(case, x, a, h0, reset)
    for cut in [n for n in SEQ_LENS if case.seq_len - n in SEQ_LENS]:
        parts, state = [], h0
        for steps in (slice(0, cut), slice(cut, case.seq_len)):
            here = case.at(steps)
            part, state = subject.run(case, x[here], a[here], state, reset[here])
            parts.append(part)
        joined = np.concatenate(parts[::-1] if case.reverse else parts, axis=1)
        assert_close(joined, h, f"h, cut after {cut} steps", tol=case.tol)
        assert_close(state, h_last, f"h_last, cut after {cut} steps", tol=case.wide_tol)


def _empty(subject: ScanSubject, case: ScanCase) -> None:
    x, a, h0, reset, dh, dh_last = case.arrays()
    h, h_last = subject.run(case, x, a, h0, reset)
    assert_close((h, h_last), (x, h0), "(h, h_last) of no steps", tol=0.0)
    back = subject.pull(case, x, a, h0, reset, dh, dh_last)
    assert_close(back, (x, x, dh_last), "cotangents of (x, a, h0) of no steps", tol=0.0)


def _linear(subject: ScanSubject, case: ScanCase) -> None:
    x, a, h0, reset, other_x, other_h0 = case.arrays()
    one, two = subject.run(case, x, a, h0, reset), subject.run(case, other_x, a, other_h0, reset)
    both = subject.run(case, 2 * x - other_x, a, 2 * h0 - other_h0, reset)
    want = tuple(2 * z - w for z, w in zip(one, two, strict=True))
    assert_close(both, want, "scan(2 x - y, 2 h0 - g0) against 2 scan(x, h0) - scan(y, g0)", tol=case.tol)


def _reverse(subject: ScanSubject, case: ScanCase) -> None:
    x, a, h0, reset, dh, dh_last = case.arrays()
    other = dataclasses.replace(case, reverse=not case.reverse)
    fx, fa, freset, fdh = (np.flip(z, 1) for z in (x, a, reset, dh))
    h, h_last = subject.run(other, fx, fa, h0, freset)
    assert_close(
        subject.run(case, x, a, h0, reset), (np.flip(h, 1), h_last), "(h, h_last), flipped", tol=case.tol
    )
    dx, da, dh0 = subject.pull(other, fx, fa, h0, freset, fdh, dh_last)
    want = np.flip(dx, 1), np.flip(da, 1), dh0
    got = subject.pull(case, x, a, h0, reset, dh, dh_last)
    assert_close(got, want, "cotangents of (x, a, h0), flipped", tol=case.tol)


def _resets(subject: ScanSubject, case: ScanCase) -> None:
    x, a, h0, reset, dh, dh_last = case.arrays()
    before, after = case.at(slice(0, case.pick)), case.at(slice(case.pick, case.seq_len))
    reset[case.at(slice(case.pick, case.pick + 1))] = True
    dh[before] = 0
    h, h_last = subject.run(case, x, a, h0, reset)
    back = subject.pull(case, x, a, h0, reset, dh, dh_last)
    for name, dz in (("x", back[0][before]), ("a", back[1][before]), ("h0", back[2])):
        assert_close(dz, np.zeros_like(dz), f"gradient across a reset, by {name}", tol=0.0)
    for other in (1e3, np.nan):
        x_other, a_other = x.copy(), a.copy()
        x_other[before], a_other[before] = other, other
        # The decay of the step itself is not used either.
        a_other[case.at(slice(case.pick, case.pick + 1))] = other
        changed = (x_other, a_other, np.full_like(h0, other), reset)
        got, got_last = subject.run(case, *changed)
        assert_close(
            (got[after], got_last),
            (h[after], h_last),
            f"(h, h_last) behind a reset and {other}",
            tol=case.tol,
        )
        dx, da, _ = subject.pull(case, *changed, dh, dh_last)
        want = back[0][after], back[1][after]
        assert_close(
            (dx[after], da[after]), want, f"cotangents of (x, a) behind a reset and {other}", tol=case.tol
        )


def _independent(subject: ScanSubject, case: ScanCase) -> None:
    x, a, h0, reset, _, _ = case.arrays()
    h, h_last = subject.run(case, x, a, h0, reset)
    place = case.at(slice(case.pick, case.pick + 1))
    bad = (np.nan, np.inf)[case.seed % 2]
    poisoned = x.copy()
    poisoned[0, place[1], 1] = bad
    got, got_last = subject.run(case, poisoned, a, h0, reset)
    touched, touched_last = np.zeros(h.shape, bool), np.zeros(h_last.shape, bool)
    touched[0, case.at(slice(case.pick, case.seq_len))[1], 1] = touched_last[0, 1] = True
    what = f"(h, h_last) of other rows, channels and earlier steps than a {bad} at step {case.pick}"
    assert_close(
        (got[~touched], got_last[~touched_last]), (h[~touched], h_last[~touched_last]), what, tol=0.0
    )


def _extremes(subject: ScanSubject, case: ScanCase) -> None:
    x, a, h0, reset, _, _ = case.arrays()
    none = np.zeros_like(reset)
    h, h_last = subject.run(case, x, np.zeros_like(a), h0, none)
    assert_close(
        (h, h_last), (x, x[case.at(slice(case.seq_len - 1, case.seq_len))][:, 0]), "h for a = 0", tol=0.0
    )
    sums, _ = linear_scan_oracle(x, np.ones_like(a), h0, none, reverse=case.reverse)
    assert_close(subject.run(case, x, np.ones_like(a), h0, none)[0], sums, "h for a = 1", tol=case.tol)


def _long(subject: ScanSubject, seed: int) -> None:
    for dtype in subject.dtypes:
        case = ScanCase(LONG, dtype=dtype, seed=seed)
        x, a, h0, reset, _, _ = case.arrays()
        # A memory of 64 steps, with a decay that bfloat16 has too; some channels never forget.
        a = rounded(case, np.where(np.arange(WIDTH) == 0, 1.0, 0.984375) * np.ones_like(a))
        none = np.zeros_like(reset)
        want = linear_scan_oracle(x, a, h0, none)
        got = subject.run(case, x, a, h0, none)
        assert_close(got, want, f"(h, h_last) over {LONG} steps in {dtype}", tol=case.tol)


def _defaults(subject: ScanSubject, case: ScanCase) -> None:
    x, a, h0, reset, _, _ = case.arrays()
    want = subject.run(case, x, a, 0 * h0, np.zeros_like(reset))
    h, h_last = _of_x_and_a(subject, case.reverse)(*narrowed(case, x, a))
    assert_close((read(h), read(h_last)), want, "(h, h_last) without h0 and reset", tol=case.tol)


@lru_cache
def _of_x_and_a(subject: ScanSubject, reverse: bool) -> Callable[..., Any]:
    """The scan of x and a alone, compiled once a shape."""
    return jax.jit(partial(subject.scan, **({"reverse": reverse} if subject.both_ways else {})))


@lru_cache
def _vmapped(subject: ScanSubject, reverse: bool) -> Callable[..., Any]:
    """The scan under vmap, compiled once a shape."""
    return jax.jit(jax.vmap(lambda x, a, h0, reset: subject.call(x, a, h0, reset, reverse)))


def _vmap(subject: ScanSubject, case: ScanCase) -> None:
    x, a, h0, reset, _, _ = case.arrays()
    run = _vmapped(subject, case.reverse)
    h, h_last = run(*arguments(case))
    want = subject.run(case, x, a, h0, reset)
    assert_close((read(h), read(h_last)), want, "(h, h_last) by vmap over rows", tol=case.tol)
    # A batch of batches, the second in another order: an axis counted from the front would be another one.
    batches = jax.tree.map(lambda z: jnp.stack([z, z[::-1]]), arguments(case))
    h, h_last = run(*batches)
    want = jax.tree.map(lambda z: np.stack([z, z[::-1]]), want)
    assert_close((read(h), read(h_last)), want, "(h, h_last) by vmap over batches", tol=case.tol)


_SUMS = "three roundings to the dtype of x beside sums in float32: `ScanCase.tol`"

_ALL = (
    Law(
        "oracle",
        "h_t = a_t h_{t-1} + x_t, h like x and h_last at least float32, for every seq_len from 1 on",
        _SUMS,
        scan_cases,
        _oracle,
    ),
    Law(
        "adjoint",
        "the cotangents of x, a and h0 are those of the float64 adjoint loop, for dh and dh_last alone",
        _SUMS,
        scan_cases,
        _adjoint,
    ),
    Law(
        "split",
        "scan([x, y]) = [scan(x), scan(y, h0=h_last of scan(x))] for every cut",
        _SUMS,
        scan_cases,
        _split,
    ),
    Law(
        "linear",
        "scan(2 x - y, a, 2 h0 - g0) = 2 scan(x, a, h0) - scan(y, a, g0)",
        _SUMS,
        lambda subject: scan_cases(subject, dtypes=("float32",)),
        _linear,
    ),
    Law(
        "reverse",
        "scan(x, reverse) = flip(scan(flip(x))), values and cotangents",
        _SUMS,
        scan_cases,
        _reverse,
    ),
    Law(
        "resets",
        "from a reset on nothing depends on what was before, large or NaN; gradients across are 0 exactly",
        _SUMS,
        scan_cases,
        _resets,
    ),
    Law(
        "independent",
        "a NaN or infinity leaves other rows, other channels and earlier steps as they are",
        "none: bitwise",
        scan_cases,
        _independent,
    ),
    Law(
        "extremes",
        "a = 0: h = x exactly; a = 1: h = h0 + cumsum(x)",
        _SUMS,
        scan_cases,
        _extremes,
    ),
    Law(
        "long",
        f"{LONG} steps with a = 1 and a = 0.984375 equal the float64 loop",
        _SUMS,
        lambda subject: seeds,
        _long,
        most=2,
    ),
    Law("defaults", "scan(x, a) = scan(x, a, h0=0, reset=False)", _SUMS, scan_cases, _defaults, most=8),
    Law("vmap", "vmap(scan)(x, ...) = scan of the batch", _SUMS, scan_cases, _vmap, most=8),
    # Last, because XLA ends the whole process for some programs on arrays without elements.
    Law(
        "empty",
        "no steps give an empty h, h_last = h0, and the cotangent of h_last as that of h0",
        "none: equality",
        lambda subject: scan_cases(subject, seq_lens=(0,)),
        _empty,
        most=8,
    ),
)
SCAN_LAWS: dict[str, Law] = {law.name: law for law in _ALL}
"""Every law of scans, with its check."""


def scan_law_tests(
    scan: Callable[..., Any],
    *,
    complex: bool = False,
    reverse: bool = False,
    dtypes: tuple[str, ...] = DTYPES,
) -> Callable[..., None]:
    """Makes one pytest test for each law: `test_my_scan = scan_law_tests(my_scan)`.

    Laws that cannot apply, for lack of a parameter or because they were not asked for, show up as skipped.

    Args:
      scan: A function like `griffin_kernels.linear_scan.linear_scan`: `scan(x, a, h0, reset)`.
      complex: Try `Planar` pairs beside real arrays.
      reverse: Try both running directions; `scan` takes `reverse=`.
      dtypes: Of `x` and `a`: `float32`, `bfloat16` or both.

    Returns:
      A test function, parametrised by the law's name.
    """
    import pytest

    subject, reasons = scan_subject(scan, complex=complex, reverse=reverse, dtypes=dtypes)

    @pytest.mark.parametrize("law", list(SCAN_LAWS))
    def test(law):
        if law in reasons:
            pytest.skip(f"{subject}: {law} does not apply: {reasons[law]}")
        SCAN_LAWS[law].hold(subject)

    test.__doc__ = "Holds a diagonal linear scan to the laws."
    return test


def verify_scan(
    scan: Callable[..., Any],
    *,
    complex: bool = False,
    reverse: bool = False,
    dtypes: tuple[str, ...] = DTYPES,
    laws: Collection[str] | None = None,
    seed: int = 0,
    max_examples: int = EXAMPLES,
    tell: Callable[[Verdict], None] = lambda verdict: None,
) -> ScoreBoard:
    """Holds a diagonal linear scan to the laws, judged by a float64 loop in NumPy.

    Args:
      scan: A function like `griffin_kernels.linear_scan.linear_scan`: `scan(x, a, h0, reset)`.
      complex: Try `Planar` pairs beside real arrays.
      reverse: Try both running directions; `scan` takes `reverse=`.
      dtypes: Of `x` and `a`: `float32`, `bfloat16` or both.
      laws: The names of the laws to try, all when None.
      seed: Of the random cases.
      max_examples: Random cases a law.
      tell: Called with each verdict as soon as it is known.

    Returns:
      The score-board.

    Raises:
      TypeError: If the function cannot be called as `scan(x, a, h0)`, or answers in another form.

    >>> from griffin_kernels.linear_scan import linear_scan
    >>> verify_scan(linear_scan, laws=["split"], max_examples=2).ok
    True
    """
    subject, reasons = scan_subject(scan, complex=complex, reverse=reverse, dtypes=dtypes)
    check_shapes(subject)

    def trial(law: Law) -> Verdict:
        return judge(
            law, [subject], fixed_seed=seed, max_examples=max_examples, reason=reasons.get(law.name, "")
        )

    found = verdicts([SCAN_LAWS[name] for name in laws or SCAN_LAWS], tell, trial)
    return ScoreBoard(str(subject), (subject.words,), seed, found)
