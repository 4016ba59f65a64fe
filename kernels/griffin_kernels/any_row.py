"""A condition that all rows of a batch share, so that a branch stays a branch under `jax.vmap`.

Blocks act on one sequence and batches are `jax.vmap`, which turns `jax.lax.cond` on what differs from row to row into
both branches and a selection. Where one branch only spares the other's work, one row that needs it may make all do it.
"""

from typing import Any

from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Bool

_any_row = Primitive("any_row")


def any_row(flag: Bool[Array, ""]) -> Bool[Array, ""]:
    """The flag; under `jax.vmap`, whether any row's is set: one value for all of them.

    What a row computes must not depend on it, only how much work that is.
    """
    return _any_row.bind(flag)


def _batched(arguments, axes):
    return _any_row.bind(arguments[0].any(axis=axes[0])), None  # no row's own


def _derivative(primals, tangents):
    del tangents
    flag: Any = _any_row.bind(*primals)
    zero: Any = ad.Zero
    return flag, zero.from_primal_value(flag)


_any_row.def_impl(lambda flag: flag)
_any_row.def_abstract_eval(lambda flag: flag)
ad.primitive_jvps[_any_row] = _derivative
batching.primitive_batchers[_any_row] = _batched
mlir.register_lowering(_any_row, mlir.lower_fun(lambda flag: flag, multiple_results=False))
