"""What the units keep that have parameters of their own: values and cotangents of their NumPy loops. For their tests,
and for the mistakes planted in their kernels."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from griffin_kernels.cg_lru.oracle import cg_lru_oracle, cg_lru_vjp_oracle
from griffin_kernels.linear_scan import Planar
from griffin_kernels.rg_lru.oracle import gated_rg_lru_oracle, gated_rg_lru_vjp_oracle
from hypothesis import strategies as st

from griffin_eqx.verify import ScoreBoard
from griffin_eqx.verify.law import Law
from griffin_eqx.verify.verdict import EXAMPLES, judge, verdicts

OUTPUTS = ("h", "h_last")
GATED = ("dx", "drecurrence_gate", "dinput_gate", "da_param", "dh0")
COMPLEX = ("dx", "drecurrence_gate", "dinput_gate", "da_param", "dtheta", "dh0")


def draw_gated(shape, blocks, dtype="float32", flags=False, seed=0) -> Any:
    """The arguments of `gated_rg_lru` but for its options, and cotangents of what it returns."""
    rng = np.random.default_rng(seed)
    batch, seq_len, width = shape
    side = width // blocks
    normal = lambda *shape, dtype="float32": jnp.asarray(rng.standard_normal(shape), dtype)  # noqa: E731
    gate = lambda: (normal(blocks, side, side) / side**0.5, normal(blocks, side))  # noqa: E731
    arguments = (
        normal(*shape, dtype=dtype),
        gate(),
        gate(),
        jnp.asarray(rng.uniform(-1, 8, width), jnp.float32),
        normal(batch, width),
        jnp.asarray(rng.random((batch, seq_len)) < 0.3) if flags else None,
        jnp.asarray(rng.random((batch, seq_len)) < 0.7) if flags else None,
    )
    return arguments, (normal(*shape, dtype=dtype), normal(batch, width))


def draw_complex(seq_len, dtype="float32", flags=False, seed=0, width=3) -> Any:
    """The arguments of `cg_lru_scan` but for its options, and cotangents of what it returns."""
    rng = np.random.default_rng(seed)
    full, state = (2, seq_len, width), (2, width)
    normal = lambda shape, dtype="float32": jnp.asarray(rng.standard_normal(shape), dtype)  # noqa: E731
    planar = lambda *how: Planar(normal(*how), normal(*how))  # noqa: E731
    arguments = (
        planar(full, dtype),
        normal(full) + jnp.asarray(rng.choice([0, 0, 0, -60, 60], full), jnp.float32),
        normal(full) * 2,
        # From decays of 0.05 a token to 1 - 1e-7, and up to three turns of it.
        jnp.asarray(rng.uniform(-1, 14, width), jnp.float32),
        normal((width,)),
        planar(state),
        jnp.asarray(rng.random(full[:2]) < 0.3) if flags else None,
        jnp.asarray(rng.random(full[:2]) < 0.7) if flags else None,
    )
    return arguments, (planar(full, dtype), planar(state))


def wide(tree) -> Any:
    """In double precision, but for flags."""

    def widened(z):
        if isinstance(z, Planar):
            return np.asarray(z.re, np.float64) + 1j * np.asarray(z.im, np.float64)
        return np.asarray(z, bool if z.dtype == bool else np.float64)

    return jax.tree.map(widened, tree, is_leaf=lambda z: isinstance(z, Planar))


def holds(names, got, want, tol):
    """Compares leaf by leaf, to a tolerance relative to the larger of 1 and the leaf's largest value."""
    for name, one, other in zip(names, got, want, strict=True):
        for z, exact in zip(jax.tree.leaves(wide(one)), jax.tree.leaves(other), strict=True):
            atol = tol * np.abs(exact).max(initial=1.0)
            np.testing.assert_allclose(z, exact, rtol=tol, atol=atol, err_msg=name)


@dataclass(frozen=True)
class Unit:
    """A unit, and the implementation of it that is judged.

    Attributes:
      family: `gated_rg_lru` or `cg_lru`.
      scan: The function.
      implementation: Of it.
    """

    family: str
    scan: Callable[..., Any]
    implementation: str

    def __str__(self) -> str:
        return f"{self.family}_{self.implementation}"

    def run(self, arguments) -> Any:
        """`(h, h_last)`."""
        return _compiled(self)[0](arguments)

    def pull(self, arguments, cotangents) -> Any:
        """The cotangents of the arguments that are no flags."""
        return _compiled(self)[1](arguments, cotangents)


@lru_cache
def _compiled(unit: Unit) -> tuple[Any, Any]:
    scan: Any = partial(unit.scan, implementation=unit.implementation, interpret=True)

    def pull(arguments, cotangents):
        *moving, reset, valid = arguments
        return jax.vjp(lambda *moving: scan(*moving, reset, valid), *moving)[1](cotangents)

    return jax.jit(lambda arguments: scan(*arguments)), jax.jit(pull)


@dataclass(frozen=True)
class Case:
    """A sequence of 9 tokens, which fills no tile, with resets and padding."""

    seed: int

    def drawn(self, unit: Unit) -> Any:
        """Arguments and cotangents."""
        if unit.family == "cg_lru":
            return draw_complex(9, flags=True, seed=self.seed)
        return draw_gated((2, 9, 128), 2, flags=True, seed=self.seed)


def _oracle(unit: Unit, case: Case) -> None:
    arguments, _ = case.drawn(unit)
    loop: Any = cg_lru_oracle if unit.family == "cg_lru" else gated_rg_lru_oracle
    holds(OUTPUTS, unit.run(arguments), loop(*wide(arguments)), _TOL)


def _adjoint(unit: Unit, case: Case) -> None:
    arguments, cotangents = case.drawn(unit)
    complex_ = unit.family == "cg_lru"
    loop: Any = cg_lru_vjp_oracle if complex_ else gated_rg_lru_vjp_oracle
    want = loop(*wide(arguments), *wide(cotangents))
    holds(COMPLEX if complex_ else GATED, unit.pull(arguments, cotangents), want, _TOL)


_TOL = 3e-5
_ROUNDINGS = f"{_TOL:g}: sums in float32, and decays close to 1 that carry a rounding over the sequence"


def _cases(unit: Unit) -> Any:
    return st.builds(Case, seed=st.integers(0, 2**16))


LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Law("oracle", "(h, h_last) are those of the loop", _ROUNDINGS, _cases, _oracle, most=5),
        Law("adjoint", "the cotangents are those of the reverse loop", _ROUNDINGS, _cases, _adjoint, most=5),
    )
}
"""Every law by name."""


def verify_unit(unit: Unit, *, laws: Collection[str], seed: int) -> ScoreBoard:
    """Holds one implementation to laws, as `griffin verify` does with scans."""
    trial = partial(judge, subjects=[unit], fixed_seed=seed, max_examples=EXAMPLES)
    found = verdicts([LAWS[name] for name in laws], lambda verdict: None, trial)
    return ScoreBoard(str(unit), ("real, float32",), seed, found)
