"""The laws of temporal-mixing blocks: all of them, one by one, and as tests."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from griffin_eqx.block import AbstractBlock, Dims
from griffin_eqx.laws import LAWS
from griffin_eqx.verify.contract_laws import bounded_cache, independent_rows, options, transforms
from griffin_eqx.verify.law import Law
from griffin_eqx.verify.numeric_laws import gradients, precision
from griffin_eqx.verify.sequence_laws import causal, packing, padding, streaming
from griffin_eqx.verify.subject import DIMS, Subject

_ALL = (
    causal,
    streaming,
    packing,
    padding,
    independent_rows,
    bounded_cache,
    gradients,
    precision,
    transforms,
    options,
)
BLOCK_LAWS: dict[str, Law] = {law.name: law for law in _ALL}
"""Every law of `griffin_eqx.laws`, with its check."""

assert list(BLOCK_LAWS) == list(LAWS)


def check_block(
    block: type[AbstractBlock],
    law: Law | str,
    *,
    options: Any = None,
    dims: Dims = DIMS,
    max_examples: int | None = None,
) -> None:
    """Tries one law on a block; small sizes, so that a law takes a second or two.

    Args:
      block: The class.
      law: One of `BLOCK_LAWS`, or its name.
      options: An instance of `block.Options`, or a mapping to make one of; the defaults when None.
      dims: The model's sizes.
      max_examples: Random cases; as many as the Hypothesis profile says when None.

    Raises:
      AssertionError: With numbers, for the smallest case found that breaks the law.
    """
    chosen = BLOCK_LAWS[law] if isinstance(law, str) else law
    chosen.hold(_subject(block, options, dims), max_examples=max_examples)


def law_tests(
    block: type[AbstractBlock],
    *,
    options: Any = None,
    dims: Dims = DIMS,
    laws: Collection[str] | None = None,
) -> Callable[..., None]:
    """Makes one pytest test for each law: `test_my_block = law_tests(MyBlock)`.

    Laws in `block.not_applicable` show up as skipped, with their reason.

    Args:
      block: The class.
      options: As for `check_block`.
      dims: As for `check_block`.
      laws: The names of the laws, all of them when None; for further options of a block perhaps those that
        the options matter to.

    Returns:
      A test function, parametrised by the law's name.
    """
    import pytest

    subject = _subject(block, options, dims)

    @pytest.mark.parametrize("law", list(BLOCK_LAWS if laws is None else laws))
    def test(law):
        if law in block.not_applicable:
            pytest.skip(f"{block.name}: {law} does not apply: {block.not_applicable[law]}")
        BLOCK_LAWS[law].hold(subject)

    test.__doc__ = f"Holds {block.name} to the laws of temporal-mixing blocks."
    return test


def _subject(block: type[AbstractBlock], options: Any, dims: Dims) -> Subject:
    chosen = {} if options is None else options
    return Subject(block, block.Options(**chosen) if isinstance(chosen, Mapping) else chosen, dims)
