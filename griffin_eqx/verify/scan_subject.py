"""A diagonal linear scan under test: its random arrays, and the compiled functions that its laws share."""

import dataclasses
import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from griffin_kernels.linear_scan import Planar
from hypothesis import strategies as st

from griffin_eqx.verify.comparison import tolerance
from griffin_eqx.verify.strategies import seeds

SEQ_LENS = (1, 2, 8, 9)
"""One step, two, a tile, and one more. No steps at all are a law of their own."""

ROWS, WIDTH = 2, 3

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class ScanSubject:
    """A function with the signature of `linear_scan`, and what of it is tried.

    Attributes:
      scan: The function, `scan(x, a, h0, reset, reverse=...)`; without `reverse` where `both_ways` is False,
        and without `reset` where `resets` is.
      complex: Try complex arrays, as `Planar` pairs, beside real ones.
      both_ways: Try both running directions.
      resets: Give resets.
      dtypes: Of `x` and `a`.
    """

    scan: Callable[..., Any]
    complex: bool = True
    both_ways: bool = True
    resets: bool = True
    dtypes: tuple[str, ...] = DTYPES

    def __str__(self) -> str:
        keywords = getattr(self.scan, "keywords", {})
        name = getattr(getattr(self.scan, "func", self.scan), "__name__", "scan")
        return "_".join([name, *map(str, keywords.values())])

    @property
    def words(self) -> str:
        """What is tried, in words."""
        arrays = "real and complex" if self.complex else "real"
        ways = "both ways" if self.both_ways else "forward"
        return f"{arrays}, {ways}, {' and '.join(self.dtypes)}"

    def call(self, x: Any, a: Any, h0: Any, reset: Any, reverse: bool) -> tuple[Any, Any]:
        """Calls the function with what it takes."""
        given = (x, a, h0, reset) if self.resets else (x, a, h0)
        return self.scan(*given, reverse=reverse) if self.both_ways else self.scan(*given)

    def run(self, case: "ScanCase", x: Any, a: Any, h0: Any, reset: Any) -> tuple[Any, Any]:
        """`(h, h_last)` of float64 or complex128 arrays, computed in the case's dtype."""
        forward, _ = compiled(self, case.reverse)
        h, h_last = forward(*narrowed(case, x, a), narrowed(case, h0, dtype=np.float32), jnp.asarray(reset))
        return read(h), read(h_last)

    def pull(self, case: "ScanCase", x: Any, a: Any, h0: Any, reset: Any, dh: Any, dh_last: Any) -> Any:
        """The cotangents `(dx, da, dh0)` of the same, given those of the outputs."""
        _, backward = compiled(self, case.reverse)
        wide = [narrowed(case, z, dtype=np.float32) for z in (h0, dh_last)]
        back = backward(*narrowed(case, x, a), wide[0], jnp.asarray(reset), *narrowed(case, dh), wide[1])
        return tuple(read(z) for z in back)


def check_call(scan: Callable[..., Any], *, reverse: bool) -> inspect.Signature:
    """The function's signature, if it can be called as a scan.

    Raises:
      TypeError: If it cannot be called as `scan(x, a, h0)`, or not with `reverse=` although it is asked to.
    """
    signature = inspect.signature(scan)
    try:
        signature.bind(None, None, None, **({"reverse": True} if reverse else {}))
    except TypeError as error:
        raise TypeError(
            f"{getattr(scan, '__name__', scan)}{signature}: {error}.\n"
            f"A scan is called as scan(x, a, h0, reset{', reverse=...' * reverse}) and returns (h, h_last)."
        ) from None
    return signature


def check_shapes(subject: ScanSubject) -> None:
    """Calls the function once, without numbers.

    Raises:
      TypeError: If it raises for arrays of the right form, or answers in another form.
    """
    case = ScanCase(8)
    x, a, h0, reset = arguments(case)
    form = f"x and a are (rows, steps, channels) = {x.shape}, h0 is {h0.shape}, reset is {reset.shape}"
    try:
        h, h_last = jax.eval_shape(compiled(subject, False)[0], x, a, h0, reset)
        found = h.shape, h_last.shape
    except Exception as error:
        raise TypeError(f"{subject} raised {type(error).__name__}: {error}\nIn this call {form}.") from error
    if found != (x.shape, h0.shape):
        raise TypeError(
            f"{subject} answered with (h, h_last) of shapes {found[0]} and {found[1]}.\n"
            f"In this call {form}; expected are {x.shape} and {h0.shape}."
        )


def scan_subject(
    scan: Callable[..., Any], *, complex: bool, reverse: bool, dtypes: tuple[str, ...]
) -> tuple[ScanSubject, dict[str, str]]:
    """A scan as a subject, and the laws that cannot apply to it, each with the reason.

    Raises:
      TypeError: As `check_call`.
    """
    signature, reasons = check_call(scan, reverse=reverse), {}
    resets = _takes(signature, None, None, None, None)
    if not resets:
        reasons["resets"] = "the function takes no resets"
    if not reverse:
        reasons["reverse"] = "reverse was not asked for"
    if "float32" not in dtypes:
        reasons["linear"] = "2 x - y has no exact value in bfloat16, and float32 was not asked for"
    if not _takes(signature, None, None):
        reasons["defaults"] = "h0 has no default"
    return ScanSubject(scan, complex, reverse, resets, dtypes), reasons


def _takes(signature: inspect.Signature, *arguments: None) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


@dataclasses.dataclass(frozen=True)
class ScanCase:
    """The kind of a scan and the seed of its arrays.

    Attributes:
      seq_len: One of `SEQ_LENS`.
      pick: A step, below `seq_len` where there is one.
      planar: Complex arrays, as pairs of real ones.
      dtype: `float32` or `bfloat16`.
      reverse: From the last step to the first.
      resets: Some steps forget what was before.
      seed: Of the arrays.
    """

    seq_len: int
    pick: int = 0
    planar: bool = False
    dtype: str = "float32"
    reverse: bool = False
    resets: bool = False
    seed: int = 0

    @property
    def tol(self) -> float:
        """Three roundings to the dtype, of a state, a cotangent and their product; sums are in float32.

        Inputs are rounded before the oracle sees them, so that only the scan's own errors count.
        """
        return 3 * float(jnp.finfo(self.dtype).eps) + tolerance(np.float32, self.seq_len)

    @property
    def wide_tol(self) -> float:
        """Of what stays in float32, whatever the dtype of the case."""
        return tolerance(np.float32, self.seq_len)

    def at(self, steps: slice) -> tuple[Any, slice]:
        """The index of steps counted in the running direction."""
        if not self.reverse:
            return np.s_[:, steps]
        first, last, _ = steps.indices(self.seq_len)
        return np.s_[:, self.seq_len - last : self.seq_len - first]

    def arrays(self) -> tuple[Any, ...]:
        """`(x, a, h0, reset, dh, dh_last)`: decays of all sizes, exactly 0 and 1 among them; resets anywhere."""
        rng = np.random.default_rng(self.seed)
        single = dataclasses.replace(self, dtype="float32")
        draw = lambda *shape: rounded(self, _normal(rng, shape, self.planar))  # noqa: E731
        wide = lambda *shape: rounded(single, _normal(rng, shape, self.planar))  # noqa: E731
        full, state = (ROWS, self.seq_len, WIDTH), (ROWS, WIDTH)
        radius = np.clip(rng.uniform(-0.2, 1.2, full), 0, 1)
        phase = (
            np.exp(1j * rng.uniform(-np.pi, np.pi, full)) if self.planar else rng.choice([-1.0, 1.0], full)
        )
        reset = (rng.random(full[:2]) < 0.3) & self.resets
        return draw(*full), rounded(self, radius * phase), wide(*state), reset, draw(*full), wide(*state)


@st.composite
def scan_cases(
    draw: Any, subject: ScanSubject, *, seq_lens: tuple = SEQ_LENS, dtypes: tuple = DTYPES
) -> ScanCase:
    """Every kind of scan that the subject is for; at least one of `dtypes` is among its own."""
    seq_len = draw(st.sampled_from(seq_lens))
    pick = draw(st.integers(0, max(0, seq_len - 1)))
    planar, reverse, resets = (
        draw(st.booleans()) if wanted else False
        for wanted in (subject.complex, subject.both_ways, subject.resets)
    )
    dtype = draw(st.sampled_from([name for name in dtypes if name in subject.dtypes]))
    return ScanCase(seq_len, pick, planar, dtype, reverse, resets, draw(seeds))


@lru_cache
def compiled(subject: ScanSubject, reverse: bool) -> tuple[Any, Any]:
    """The scan and its pullback."""

    def forward(x, a, h0, reset):
        return subject.call(x, a, h0, reset, reverse)

    def backward(x, a, h0, reset, dh, dh_last):
        out, pull = jax.vjp(lambda x, a, h0: forward(x, a, h0, reset), x, a, h0)
        # Of the dtypes that came out, right or wrong: it is the law `oracle` that judges those.
        return pull(jax.tree.map(lambda ct, z: ct.astype(z.dtype), (dh, dh_last), out))

    return jax.jit(forward), jax.jit(backward)


def _normal(rng, shape, planar):
    z = rng.standard_normal(shape)
    return z + 1j * rng.standard_normal(shape) if planar else z


def rounded(case: ScanCase, z: Any) -> Any:
    """The nearest values that the case's dtype has, in float64 or complex128."""
    if np.iscomplexobj(z):
        return rounded(case, z.real) + 1j * rounded(case, z.imag)
    return z.astype(jnp.dtype(case.dtype)).astype(np.float64)


def narrowed(case: ScanCase, *arrays: Any, dtype: Any = None) -> Any:
    """Arrays as the scan wants them, in the case's dtype; or one array in another."""
    cast = lambda z: jnp.asarray(z, dtype or case.dtype)  # noqa: E731
    made = [Planar(cast(z.real), cast(z.imag)) if np.iscomplexobj(z) else cast(z) for z in arrays]
    return made if dtype is None else made[0]


def read(z: Any) -> Any:
    """What a scan gave, in float64 or complex128."""
    if isinstance(z, Planar):
        whole = np.empty(z.re.shape, np.complex128)
        whole.real, whole.imag = z.re, z.im  # `re + 1j * im` would make NaN of an infinite part
        return whole
    return np.asarray(z, np.float64)


def arguments(case: ScanCase) -> tuple[Any, ...]:
    """`(x, a, h0, reset)` of a case as the scan wants them."""
    x, a, h0, reset, _, _ = case.arrays()
    return *narrowed(case, x, a), narrowed(case, h0, dtype=np.float32), jnp.asarray(reset)
