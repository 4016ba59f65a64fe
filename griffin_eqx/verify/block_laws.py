"""The laws of temporal-mixing blocks: all of them, one by one, and as tests."""

from collections.abc import Callable, Collection
from typing import Any

from griffin_eqx.block import AbstractBlock, Dims
from griffin_eqx.laws import LAWS
from griffin_eqx.verify.contract_laws import bounded_cache, independent_rows, options, transforms
from griffin_eqx.verify.kinds import kinds_of
from griffin_eqx.verify.law import Law
from griffin_eqx.verify.numeric_laws import gradients, precision
from griffin_eqx.verify.placement_law import placement
from griffin_eqx.verify.sequence_laws import causal, long, packing, padding, streaming
from griffin_eqx.verify.subject import DIMS
from griffin_eqx.verify.verdict import EXAMPLES, ScoreBoard, Verdict, judge, verdicts

_ALL = (
    causal,
    streaming,
    long,
    packing,
    padding,
    independent_rows,
    bounded_cache,
    gradients,
    precision,
    transforms,
    placement,
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
      options: An instance of `block.Options`, which is taken as it is, or a mapping of some options; those
        left out are the defaults, and once more the defaults made small (`kinds_of`).
      dims: The model's sizes.
      max_examples: Random cases; as many as the Hypothesis profile says when None.

    Raises:
      AssertionError: With numbers, for the smallest case found that breaks the law.
    """
    chosen = BLOCK_LAWS[law] if isinstance(law, str) else law
    for subject in kinds_of(block, options, dims):
        chosen.hold(subject, max_examples=max_examples)


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

    kinds = kinds_of(block, options, dims)

    @pytest.mark.parametrize("law", list(BLOCK_LAWS if laws is None else laws))
    def test(law):
        if law in block.not_applicable:
            pytest.skip(f"{block.name}: {law} does not apply: {block.not_applicable[law]}")
        if reason := BLOCK_LAWS[law].impossible():
            pytest.skip(f"{block.name}: {law} cannot be tried: {reason}")
        for subject in kinds:
            BLOCK_LAWS[law].hold(subject)

    test.__doc__ = f"Holds {block.name} to the laws of temporal-mixing blocks."
    return test


def verify_block(
    block: type[AbstractBlock],
    *,
    options: Any = None,
    dims: Dims = DIMS,
    laws: Collection[str] | None = None,
    seed: int = 0,
    max_examples: int = EXAMPLES,
    tell: Callable[[Verdict], None] = lambda verdict: None,
) -> ScoreBoard:
    """Holds a block to the laws of temporal-mixing blocks.

    Args:
      block: The class.
      options: As for `check_block`.
      dims: As for `check_block`.
      laws: The names of the laws to try, all when None.
      seed: Of the random cases.
      max_examples: Random cases a law, for each of the block's kinds.
      tell: Called with each verdict as soon as it is known.

    Returns:
      The score-board; `print(board)` shows it, `board.ok` says whether all laws hold.

    Raises:
      OptionError: If the options do not fit one another.
    """
    kinds = kinds_of(block, options, dims)

    def trial(law: Law) -> Verdict:
        reason = block.not_applicable.get(law.name, "")
        return judge(law, kinds, fixed_seed=seed, max_examples=max_examples, reason=reason)

    found = verdicts([BLOCK_LAWS[name] for name in laws or BLOCK_LAWS], tell, trial)
    return ScoreBoard(block.name, tuple(kind.words for kind in kinds), seed, found)
