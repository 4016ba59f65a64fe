"""How far apart two computations of the same thing may lie. One helper, so that no test invents its own."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(eq=False)  # an exception must be hashable
class Difference(AssertionError):
    """Two computations of the same thing that are further apart than rounding explains.

    Attributes:
      what: What was compared.
      place: The array within it and the index of the largest difference.
      got: The value there.
      expected: What it should be.
      allowed: The largest difference that rounding explains.
      wrong: How many values differ by more.
      size: How many there are.
      tokens: The tokens of the row that have a wrong value, where the leading axis of the array is tokens.
    """

    what: str
    place: str
    got: float | complex
    expected: float | complex
    allowed: float
    wrong: int
    size: int
    tokens: tuple[int, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.what}: {self.wrong} of {self.size} values differ, most at {self.place}: "
            f"got {number(self.got)}, expected {number(self.expected)}, allowed difference {self.allowed:.3g}"
        )


def raised_at(error: BaseException) -> str:
    """The last line of the user's own code that an exception came through; empty where there is none."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename.endswith(".py") and "site-packages" not in code.co_filename:
            place = f"{code.co_filename}:{trace.tb_lineno} in {code.co_name}"
        trace = trace.tb_next
    return place


def number(value: float | complex) -> str:
    """A value in nine digits, without an imaginary part where there is none."""
    value = complex(value)
    return f"{value.real:.9g}" if value.imag == 0 else f"{value:.9g}"


def tolerance(dtype: Any, length: int = 1) -> float:
    """Allowed error relative to the largest value of an array, for two computations in `dtype`.

    `32 * eps * sqrt(length)`. Rounding errors of a sum over `length` tokens are independent and grow like its
    root; a block chains some ten roundings of values that are a few times larger than its result. The worst
    of thousands of random cases of the built-in blocks was 5 * eps * sqrt(length), a float32 gradient against
    float64. The mistakes that the laws are after change results in their first or second digit.
    """
    return 32 * float(jnp.finfo(dtype).eps) * max(1, length) ** 0.5


def assert_close(got: Any, want: Any, what: str, *, tol: float, token: int | None = None) -> None:
    """Compares two PyTrees of arrays, leaf by leaf, against the largest value of the wanted leaf.

    A leaf is never measured more finely than at a tenth of the largest value in the whole tree: what is that
    small beside the rest may be a difference of larger numbers, and has their rounding errors.

    Args:
      got: A PyTree of arrays; compared in float64 or complex128, NaN equals nothing.
      want: A PyTree of the same structure.
      what: What is compared, for the message.
      tol: The allowed error relative to the scale; 0 asks for equality.
      token: Which token of the row the leading axes begin with, where they are tokens.

    Raises:
      Difference: With the place, both numbers and the allowed difference.
    """
    __tracebackhide__ = True
    wanted = [_wide(leaf) for leaf in jax.tree.leaves(want)]
    found = jax.tree_util.tree_leaves_with_path(got)
    assert len(found) == len(wanted), f"{what}: got {len(found)} arrays, expected {len(wanted)}"
    largest = max((np.abs(leaf).max(initial=0.0) for leaf in wanted), default=0.0)
    for (path, leaf), expected in zip(found, wanted, strict=True):
        actual = _wide(leaf)
        where = jax.tree_util.keystr(path)
        assert actual.shape == expected.shape, (
            f"{what}{where}: shape {actual.shape}, expected {expected.shape}"
        )
        scale = max(np.abs(expected).max(initial=0.0), 0.1 * largest)
        with np.errstate(invalid="ignore"):
            error = np.abs(actual - expected)
        wrong = ~(error <= tol * scale)
        if wrong.any():
            worst = np.argmax(np.where(wrong, np.nan_to_num(error, nan=np.inf), -1))
            index = tuple(int(i) for i in np.unravel_index(worst, error.shape))
            raise Difference(
                what,
                _place(where, index, token),
                actual[index].item(),
                expected[index].item(),
                float(tol * scale),
                int(wrong.sum()),
                wrong.size,
                () if token is None else tuple(int(token + t) for t in np.unique(np.nonzero(wrong)[0])),
            )


def _place(where: str, index: tuple[int, ...], token: int | None) -> str:
    if token is None:
        return f"{where}{list(index)}"
    return f"{where}token {token + index[0]}, channel {', '.join(map(str, index[1:]))}"


def _wide(leaf):
    return np.asarray(leaf, np.complex128 if np.iscomplexobj(leaf) else np.float64)


def assert_finite(tree: Any, what: str) -> None:
    """Raises AssertionError, naming the array and the place, where a value is NaN or infinite."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        wrong = ~np.isfinite(np.asarray(leaf, np.float64))
        place = tuple(int(i[0]) for i in np.nonzero(wrong)) if wrong.any() else ()
        assert not wrong.any(), (
            f"{what}{jax.tree_util.keystr(path)}: {wrong.sum()} values not finite, first at {place}"
        )
