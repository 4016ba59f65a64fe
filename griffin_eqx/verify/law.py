"""What a law is, as an object that commands, tests and score-boards can list."""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from griffin_eqx.errors import GriffinError


@dataclasses.dataclass(frozen=True)
class Law:
    """A statement that holds for every input.

    Attributes:
      name: Its identifier.
      statement: What it says, as an equation where there is one.
      tolerance: Why its numbers may differ by as much as they may.
      cases: The strategy of its inputs, for the subject at hand.
      check: Takes the subject and a case; raises AssertionError with numbers where the law is broken.
      most: Upper bound of the examples in one run, for a law whose cases are slow.
      impossible: Says why this program cannot try the law, or "" if it can.
    """

    name: str
    statement: str
    tolerance: str
    cases: Callable[[Any], SearchStrategy[Any]]
    check: Callable[[Any, Any], None]
    most: int | None = None
    impossible: Callable[[], str] = lambda: ""

    def hold(
        self,
        subject: Any,
        *,
        max_examples: int | None = None,
        fixed_seed: int | None = None,
        watch: Callable[[Any, Exception | None], None] = lambda case, error: None,
    ) -> None:
        """Tries the law on random cases, as many as the Hypothesis profile says.

        Args:
          subject: What is tested.
          max_examples: Random cases; as many as the profile says when None.
          fixed_seed: The same cases in every run for the same seed, whatever the profile says.
          watch: Called after each case with it and the error it raised, or None; the last case that raised
            is the smallest one.

        Raises:
          AssertionError: For the smallest case found that breaks it.
          GriffinError: If this program cannot try it.
        """
        if reason := self.impossible():
            raise GriffinError(f"The law {self.name} cannot be tried: {reason}.")
        profile = settings()
        wanted = max_examples or profile.max_examples
        count = wanted if self.most is None or wanted > 100 else min(self.most, wanted)

        def check(case):
            try:
                self.check(subject, case)
            except Exception as error:
                watch(case, error)
                raise
            watch(case, None)

        # Hypothesis tells tests apart by name: its database goes by it.
        check.__name__ = check.__qualname__ = f"{self.name}_of_{subject}"
        # Hypothesis would derive the seed from the source of `check`, which all laws share.
        drawn_from = 0 if fixed_seed is None and profile.derandomize else fixed_seed
        known = {} if drawn_from is None else {"derandomize": False, "database": None}
        # The first case of a shape compiles, which says nothing about the next one.
        calm = settings(
            profile,
            max_examples=count,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow],
            phases=[phase for phase in profile.phases if phase != Phase.explain],
            **known,
        )
        test = given(self.cases(subject))(check)
        if drawn_from is not None:
            test = seed(zlib.crc32(f"{drawn_from} {self.name} {subject}".encode()))(test)
        calm(test)()
