"""The laws of the fused RG-LRU, judged by float64 loops in NumPy: for its tests, and for the mistakes planted in it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from griffin_kernels.rg_lru.oracle import rg_lru_oracle, rg_lru_vjp_oracle
from hypothesis import strategies as st

from griffin_eqx.verify import ScoreBoard
from griffin_eqx.verify.law import Law
from griffin_eqx.verify.verdict import EXAMPLES, judge, verdicts

OUTPUTS = ("h", "h_last")
COTANGENTS = ("dx", "drecurrence_gate", "dinput_gate", "da_param", "dh0")


@dataclass(frozen=True)
class Unit:
    """A function with the signature of `rg_lru_scan`, and the implementation of it that is judged."""

    scan: Callable[..., Any]
    implementation: str

    def __str__(self) -> str:
        return f"rg_lru_scan_{self.implementation}"

    def run(self, arrays: "Arrays") -> tuple[Any, ...]:
        """`(h, h_last)`."""
        return _compiled(self)[0](*arrays.inputs)

    def pull(self, arrays: "Arrays") -> tuple[Any, ...]:
        """The cotangents, named in `COTANGENTS`."""
        return _compiled(self)[1](*arrays.inputs, arrays.dh, arrays.dh_last)


@lru_cache
def _compiled(unit: Unit) -> tuple[Any, Any]:
    def scan(*arguments):
        return unit.scan(*arguments, implementation=unit.implementation, interpret=True)

    def pull(*arguments):
        *moving, reset, valid, dh, dh_last = arguments
        _, back = jax.vjp(lambda *moving: scan(*moving, reset, valid), *moving)
        return back((dh, dh_last))

    return jax.jit(scan), jax.jit(pull)


@dataclass(frozen=True)
class Arrays:
    """The arguments of `rg_lru_scan` but for its options, and the cotangents of what it returns."""

    x: Any
    recurrence_gate: Any
    input_gate: Any
    a_param: Any
    h0: Any
    reset: Any
    valid: Any
    dh: Any
    dh_last: Any

    @property
    def inputs(self) -> tuple[Any, ...]:
        """The arguments."""
        return (
            *(self.x, self.recurrence_gate, self.input_gate, self.a_param),
            *(self.h0, self.reset, self.valid),
        )

    def oracle(self) -> tuple[Any, ...]:
        """`(h, h_last)` by the loop."""
        return rg_lru_oracle(*map(_wide, self.inputs))

    def vjp_oracle(self) -> tuple[Any, ...]:
        """The cotangents by the loop."""
        arguments: Any = map(_wide, (*self.inputs, self.dh, self.dh_last))
        return rg_lru_vjp_oracle(*arguments)


def _wide(z) -> Any:
    return None if z is None else np.asarray(z, bool if z.dtype == bool else np.float64)


@dataclass(frozen=True)
class Case:
    """Sizes, what is given, and the seed of the arrays."""

    seq_len: int
    width: int = 3
    resets: bool = False
    padding: bool = False
    dtype: str = "float32"
    gate_dtype: str = "float32"
    seed: int = 0

    def arrays(self) -> Arrays:
        """Gates here and there shut or open; decays from 0.05 a token to 1 - 1e-7."""
        rng = np.random.default_rng(self.seed)
        full, state = (2, self.seq_len, self.width), (2, self.width)
        draw = lambda shape, dtype: jnp.asarray(rng.standard_normal(shape), dtype)  # noqa: E731
        shut = jnp.asarray(rng.choice([0, 0, 0, -60, 60], full), self.gate_dtype)
        a_param = jnp.asarray(rng.uniform(-1, 14, self.width), jnp.float32)
        return Arrays(
            x=draw(full, self.dtype),
            recurrence_gate=draw(full, self.gate_dtype) + shut,
            input_gate=draw(full, self.gate_dtype) * 2,
            a_param=a_param,
            h0=draw(state, jnp.float32),
            reset=jnp.asarray(rng.random(full[:2]) < 0.3) if self.resets else None,
            valid=jnp.asarray(rng.random(full[:2]) < 0.7) if self.padding else None,
            dh=draw(full, self.dtype),
            dh_last=draw(state, jnp.float32),
        )

    @property
    def tol(self) -> float:
        """Roundings to the dtype of the array, of the states that the derivative reads, and of sums in float32.

        A decay close to 1 carries a float32 rounding of itself over the whole sequence.
        """
        narrow = {"float32": 0.0, "bfloat16": 2.0**-7}
        return 2 * max(narrow[self.dtype], narrow[self.gate_dtype]) + 3e-5


def holds(names, got, want, tol):
    """Compares arrays to a tolerance relative to the larger of 1 and the largest value."""
    for name, one, other in zip(names, got, want, strict=True):
        atol = tol * np.abs(other).max(initial=1.0)
        np.testing.assert_allclose(_wide(one), other, rtol=tol, atol=atol, err_msg=name)


def equals_the_loops(unit: Unit, case: Case) -> None:
    """Values and cotangents."""
    _oracle(unit, case)
    arrays = case.arrays()
    holds(COTANGENTS, unit.pull(arrays), arrays.vjp_oracle(), case.tol)


def _oracle(unit: Unit, case: Case) -> None:
    arrays = case.arrays()
    holds(OUTPUTS, unit.run(arrays), arrays.oracle(), case.tol)


def _adjoint(unit: Unit, case: Case) -> None:
    arrays = case.arrays()
    for alone in ({"dh_last": 0 * arrays.dh_last}, {"dh": 0 * arrays.dh}):
        one = replace(arrays, **alone)
        holds(COTANGENTS, unit.pull(one), one.vjp_oracle(), case.tol)


def _state(unit: Unit, case: Case) -> None:
    """What the outputs round, the state does not."""
    arrays = case.arrays()
    holds(["h_last"], unit.run(arrays)[1:], arrays.oracle()[1:], 1e-4)


def _near_one(unit: Unit, case: Case) -> None:
    """Inputs enter with `sqrt(1 - a**2)` near 0.001, which is all that there is beside a state of 0."""
    arrays = case.arrays()
    arrays = replace(arrays, a_param=jnp.full_like(arrays.a_param, 15.0), h0=0 * arrays.h0)
    (h, _), (want, _) = unit.run(arrays), arrays.oracle()
    np.testing.assert_allclose(_wide(h), want, rtol=1e-3, atol=1e-3 * np.abs(want).max())


def _resets(unit: Unit, case: Case) -> None:
    arrays = case.arrays()
    cut = case.seed % case.seq_len
    reset = jnp.zeros((2, case.seq_len), bool).at[:, cut].set(True)
    arrays = replace(arrays, reset=reset, valid=None)
    dirty = replace(arrays, x=arrays.x.at[:, :cut].set(jnp.nan), h0=arrays.h0 * jnp.nan)
    np.testing.assert_array_equal(unit.run(dirty)[0][:, cut:], unit.run(arrays)[0][:, cut:], err_msg="h")
    for name, one, other in zip(COTANGENTS[:3], unit.pull(dirty)[:3], unit.pull(arrays)[:3], strict=True):
        np.testing.assert_array_equal(one[:, cut:], other[:, cut:], err_msg=name)
    later = unit.pull(replace(arrays, dh=arrays.dh.at[:, :cut].set(0)))
    for name, cotangent in zip(COTANGENTS[:3], later[:3], strict=True):
        np.testing.assert_array_equal(cotangent[:, :cut], 0, err_msg=name)
    np.testing.assert_array_equal(later[4], 0)


def _padding(unit: Unit, case: Case) -> None:
    """Rows of other lengths, one of them 0, and resets where the padding lies."""
    arrays = case.arrays()
    lengths = jnp.asarray([[case.seed % case.seq_len], [0]])
    valid = jnp.arange(case.seq_len)[None] < lengths
    arrays = replace(arrays, reset=~valid, valid=valid, dh=jnp.where(valid[..., None], arrays.dh, 0))
    h_last = unit.run(arrays)[1]
    np.testing.assert_array_equal(h_last[1], arrays.h0[1])
    np.testing.assert_allclose(h_last, replace(arrays, reset=None).oracle()[1], rtol=1e-4, atol=1e-4)
    cotangents = unit.pull(arrays)
    np.testing.assert_array_equal(cotangents[4][1], arrays.dh_last[1])
    for name, cotangent in zip(COTANGENTS[:3], cotangents[:3], strict=True):
        np.testing.assert_array_equal(np.where(valid[..., None], 0, cotangent), 0, err_msg=name)


def _cases(**fixed) -> Any:
    """Flags are always given, and lengths few: each kind of case is a program of its own."""
    known = {"resets": st.just(True), "padding": st.just(True), "seq_len": st.sampled_from([9, 1])}
    return lambda _: st.builds(Case, seed=st.integers(0, 2**16), **known | fixed)


_ROUNDINGS = "roundings to the dtypes of the arrays beside sums in float32: `Case.tol`"
_BF16 = st.just("bfloat16")

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Law("oracle", "(h, h_last) are those of the loop", _ROUNDINGS, _cases(), _oracle),
        Law(
            "adjoint",
            "the cotangents are those of the reverse loop, for dh and dh_last alone",
            _ROUNDINGS,
            _cases(),
            _adjoint,
        ),
        Law(
            "state",
            "h_last of bfloat16 arrays is that of a float32 state",
            "sums in float32",
            _cases(dtype=_BF16, gate_dtype=_BF16, seq_len=st.just(40), padding=st.just(False)),
            _state,
        ),
        Law(
            "near_one",
            "h for decays of 1 - 1e-6 r: 1 - a**2 is not cancelled",
            "1e-3: a root of 1 - a * a would be off by a tenth",
            _cases(seq_len=st.just(9), padding=st.just(False), resets=st.just(False)),
            _near_one,
        ),
        Law(
            "resets",
            "no NaN and no gradient crosses a reset",
            "none: bitwise",
            _cases(seq_len=st.just(9), padding=st.just(False)),
            _resets,
        ),
        Law(
            "padding",
            "padding hands the state on, resets nothing and has no gradient",
            "sums in float32; bitwise where nothing is computed",
            _cases(seq_len=st.just(9)),
            _padding,
        ),
    )
}
"""Every law by name."""


def verify_unit(
    scan: Callable[..., Any], implementation: str, *, laws: Collection[str], seed: int
) -> ScoreBoard:
    """Holds one implementation to laws, as `griffin verify` does with scans."""
    unit = Unit(scan, implementation)
    trial = partial(judge, subjects=[unit], fixed_seed=seed, max_examples=EXAMPLES)
    found = verdicts([LAWS[name] for name in laws], lambda verdict: None, trial)
    return ScoreBoard(str(unit), ("real, float32 and bfloat16",), seed, found)
