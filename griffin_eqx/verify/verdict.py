"""What came of trying laws: a verdict for each, with the smallest counterexample, and all as a score-board."""

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

from hypothesis.errors import FlakyFailure, HypothesisException

from griffin_eqx.verify.compiling import Compiling
from griffin_eqx.verify.law import Law

EXAMPLES = 40
"""Random cases a law, unless said otherwise."""

Status = Literal["holds", "broken", "not applicable"]


@dataclasses.dataclass(frozen=True)
class Counterexample:
    """The smallest case found that breaks a law.

    Attributes:
      law: The law.
      subject: What was tested, with its options.
      case: The case.
      error: What the check raised.
      flaky: The same case gave another result when it was tried again.
    """

    law: Law
    subject: Any
    case: Any
    error: Exception
    flaky: bool = False


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What came of trying one law.

    Attributes:
      law: The law.
      status: `holds`, `broken` or `not applicable`.
      reason: Why it does not apply.
      cases: How many cases were tried, those that shrank a counterexample included.
      seconds: How long it took.
      compile_seconds: The part of it in which JAX traced and compiled.
      programs: How many programs were compiled.
      counterexample: The smallest case that breaks the law.
    """

    law: Law
    status: Status
    reason: str = ""
    cases: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    programs: int = 0
    counterexample: Counterexample | None = None


@dataclasses.dataclass(frozen=True)
class ScoreBoard:
    """The verdicts on one block or scan.

    Attributes:
      subject: Its name.
      kinds: What of it was tried: option sets of a block, kinds of arrays of a scan.
      seed: Of all cases.
      verdicts: One a law.
    """

    subject: str
    kinds: tuple[str, ...]
    seed: int
    verdicts: tuple[Verdict, ...]

    @property
    def ok(self) -> bool:
        """Whether no law is broken."""
        return not self.broken

    @property
    def broken(self) -> tuple[Verdict, ...]:
        """The verdicts on broken laws."""
        return tuple(verdict for verdict in self.verdicts if verdict.status == "broken")

    @property
    def seconds(self) -> float:
        """How long all laws took together."""
        return sum(verdict.seconds for verdict in self.verdicts)

    def __str__(self) -> str:
        from griffin_eqx.verify.report import as_text

        return as_text(self)

    __repr__ = __str__


def judge(
    law: Law, subjects: Iterable[Any], *, fixed_seed: int, max_examples: int, reason: str = ""
) -> Verdict:
    """Tries one law on every subject until one breaks it.

    Args:
      law: The law.
      subjects: The block or scan in each of its kinds.
      fixed_seed: Of the cases.
      max_examples: Random cases for each subject.
      reason: Why the law does not apply; empty if it does.
    """
    if reason := reason or law.impossible():
        return Verdict(law, "not applicable", reason)
    cases, found, start = 0, None, time.perf_counter()
    with Compiling() as compiling:
        for subject in subjects:
            tried, found = _try(law, subject, fixed_seed, max_examples)
            cases += tried
            if found:
                break
    seconds = time.perf_counter() - start
    return Verdict(
        law,
        "broken" if found else "holds",
        cases=cases,
        seconds=seconds,
        compile_seconds=min(seconds, compiling.seconds),
        programs=compiling.programs,
        counterexample=found,
    )


def _try(law: Law, subject: Any, fixed_seed: int, max_examples: int) -> tuple[int, Counterexample | None]:
    cases = 0
    smallest: tuple[Any, Exception] | None = None

    def watch(case: Any, error: Exception | None) -> None:
        nonlocal cases, smallest
        cases += 1
        if error is not None and not isinstance(error, HypothesisException):
            smallest = case, error

    try:
        law.hold(subject, max_examples=max_examples, fixed_seed=fixed_seed, watch=watch)
    except Exception as error:
        if smallest is None:
            raise
        case, broken = smallest
        flaky = isinstance(error, FlakyFailure) or _raised(law, subject, case) != str(broken)
        return cases, Counterexample(law, subject, case, broken, flaky)
    return cases, None


def _raised(law: Law, subject: Any, case: Any) -> str | None:
    """What the check raises for one more try of a case."""
    try:
        law.check(subject, case)
    except Exception as error:
        return str(error)
    return None


def verdicts(
    laws: Iterable[Law],
    tell: Callable[[Verdict], None],
    trial: Callable[[Law], Verdict],
) -> tuple[Verdict, ...]:
    """Tries laws one after the other and tells each verdict as it is known."""
    found = []
    for law in laws:
        found.append(trial(law))
        tell(found[-1])
    return tuple(found)
