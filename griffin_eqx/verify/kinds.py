"""In which sizes and options a block is tried."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax

from griffin_eqx.block import AbstractBlock, Dims
from griffin_eqx.errors import GriffinError, OptionError
from griffin_eqx.verify.comparison import raised_at
from griffin_eqx.verify.strategies import ROW
from griffin_eqx.verify.subject import DIMS, Subject

SMALL = 4
"""What stands in for an option larger than the longest row: a window of 4 ends within a row of 17 tokens."""


def small_options(block: type[AbstractBlock]) -> dict[str, int]:
    """The integer options whose defaults no row of the laws would reach, made small.

    Options that cannot be small are left as they are.
    """
    small = {}
    for field in dataclasses.fields(block.Options):
        if type(field.default) is int and field.default > ROW:
            try:
                block.Options(**{field.name: SMALL})
            except OptionError:
                continue
            small[field.name] = SMALL
    return small


def kinds_of(block: type[AbstractBlock], options: Any = None, dims: Dims = DIMS) -> tuple[Subject, ...]:
    """A block with its options made small, and, where that changes some, also as it is by default.

    Args:
      block: The class.
      options: Options that are given: an instance of `block.Options`, which is taken as it is, or a mapping,
        which stands above the small ones.
      dims: The model's sizes.

    Raises:
      OptionError: If the options do not fit one another or the sizes.
    """
    if options is not None and not isinstance(options, Mapping):
        return (Subject(block, options, dims),)
    given = dict(options or {})
    chosen = [block.Options(**given)]
    _build(block, chosen[0], dims)
    small = block.Options(**(small_options(block) | given))
    if small != chosen[0]:
        try:
            _build(block, small, dims)
        except OptionError:
            pass  # The small ones do not fit one another: what is left is the block as it is.
        else:
            chosen.insert(0, small)
    return tuple(Subject(block, each, dims) for each in chosen)


def _build(block: type[AbstractBlock], options: Any, dims: Dims) -> None:
    """Builds the block without allocating anything.

    Raises:
      OptionError: If its options do not fit the sizes.
      GriffinError: If it cannot be built for another reason.
    """
    try:
        eqx.filter_eval_shape(lambda key: block.init(options, dims, key=key), jax.random.key(0))
    except GriffinError:
        raise
    except Exception as error:
        place = raised_at(error)
        raise GriffinError(
            f"{block.__name__}.init raised {type(error).__name__}: {error}"
            + (f"\nat {place}" if place else "")
            + "\nIt is called as init(options, dims, key=key) and returns the block."
        ) from error
