"""The contract between an ablation and whatever runs its runs: processes here, a cluster, or a test's fake."""

import abc
from collections.abc import Iterable
from pathlib import Path

from griffin_eqx.ablation.design import Run
from griffin_eqx.ablation.messages import Event


class AbstractExecutor(abc.ABC):
    """Runs that are under way. Each that was started is heard of until exactly one of `messages.ENDS`."""

    @property
    @abc.abstractmethod
    def slots(self) -> int:
        """How many runs may be under way at once, at least 1."""

    @abc.abstractmethod
    def start(self, run: Run) -> None:
        """Starts a run, or goes on with it. Called for at most `slots` runs at once.

        Raises:
          GriffinError: If nothing can be run at all.
        """

    @abc.abstractmethod
    def events(self, seconds: float) -> Iterable[tuple[Path, Event]]:
        """Waits up to `seconds` for news of runs, and gives what there is with the runs' paths.

        Raises:
          GriffinError: If nothing can be run at all.
        """

    @abc.abstractmethod
    def stop(self) -> None:
        """Asks every run to save and stop; the end of each is heard through `events`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends at once whatever is still under way, and waits until it is gone."""
