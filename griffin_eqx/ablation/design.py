"""A plan worked out: every run with its configuration, its size and its place. Imports no JAX."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from griffin_eqx.ablation.naming import lr_folder
from griffin_eqx.ablation.plan import Adjust, Measure, Plan
from griffin_eqx.config import Config
from griffin_eqx.task import Metric


class _Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Frozen, no unknown keys."""


class Sizes(_Base, frozen=True, kw_only=True):
    """What a variant costs, counted and not measured.

    Attributes:
      parameters: All parameters, the tied embedding once.
      parameters_non_embedding: Those outside of it.
      training_flops_per_token: Three times those of a forward pass at the training length.
      cache_bytes: Memory that decoding one sequence of `cache_length` tokens needs.
      cache_length: Those tokens.
    """

    parameters: int
    parameters_non_embedding: int
    training_flops_per_token: float
    cache_bytes: int
    cache_length: int


class Change(_Base, frozen=True):
    """A size that was changed.

    Attributes:
      adjust: Which.
      before: Its value as the plan had it, or as it followed from the change before.
      after: Its value now.
    """

    adjust: Adjust
    before: int
    after: int

    def __str__(self) -> str:
        return f"{self.adjust} {self.before} to {self.after}"


class Matched(_Base, frozen=True, kw_only=True):
    """What matching did to a variant.

    Attributes:
      by: What was made equal.
      adjust: What was changed for it.
      before: Its value as the plan had it.
      after: Its value now.
      finer: What was changed then, where the first has too coarse a grain; None where nothing was.
      target: The baseline's measure: parameters, FLOPs a token, bytes, or seconds.
      reached: The variant's.
      nearest: Why it is no nearer, in words; empty when it is within 1 %.
    """

    by: Measure
    adjust: Adjust
    before: int
    after: int
    finer: Change | None = None
    target: float
    reached: float
    nearest: str = ""

    @property
    def mismatch(self) -> float:
        """How far off it is, as a signed fraction of the target."""
        return self.reached / self.target - 1

    @property
    def changes(self) -> tuple[Change, ...]:
        """What is really another value than before."""
        made = (Change(self.adjust, self.before, self.after), *((self.finer,) if self.finer else ()))
        return tuple(change for change in made if change.before != change.after)


class Cell(_Base, frozen=True, kw_only=True):
    """A variant on a task: all of its runs share this but for learning rate and seed.

    Attributes:
      variant: Its name.
      task: The task's name in the plan.
      config: The configuration of a run, matched, its steps set; learning rate and seed are each run's own.
      metric: What the task is judged by.
      learning_rates: Those to try, ascending.
      sizes: What the variant costs.
      matched: What matching did; None where it did nothing.
      blocks: Where each block comes from: canonical name to distribution and version, or file.
    """

    variant: str
    task: str
    config: Config
    metric: Metric
    learning_rates: tuple[float, ...]
    sizes: Sizes
    matched: Matched | None = None
    blocks: dict[str, str] = {}


class Design(_Base, frozen=True, kw_only=True):
    """All of a plan, worked out; kept as `design.json` in the plan's folder.

    Attributes:
      plan: The plan, its name and baseline set.
      seeds: Of the runs.
      cells: Every variant on every task, tasks outermost.
    """

    plan: Plan
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]

    @property
    def baseline(self) -> str:
        """The variant that others are compared with."""
        return self.plan.baseline or next(iter(self.plan.variants))


class Run(_Base, frozen=True, kw_only=True):
    """One training run.

    Attributes:
      variant: Of which variant.
      task: On which task of the plan.
      learning_rate: The peak.
      seed: Of weights (together with the variant's `init_seed`) and data.
      config: Its whole configuration.
    """

    variant: str
    task: str
    learning_rate: float
    seed: int
    config: Config

    @property
    def path(self) -> Path:
        """Its run directory, within the plan's folder."""
        return Path("runs", self.variant, self.task, lr_folder(self.learning_rate), f"seed{self.seed}")


def run_of(design: Design, cell: Cell, learning_rate: float, seed: int) -> Run:
    """A run of a cell. Its seed is that of the data; a variant's `init_seed` moves the weights' alone."""
    replace, config = msgspec.structs.replace, cell.config
    offset = design.plan.variants[cell.variant].init_seed
    config = replace(
        config,
        optimizer=replace(config.optimizer, learning_rate=learning_rate),
        train=replace(config.train, seed=seed, init_seed=seed + offset if offset else None),
    )
    return Run(variant=cell.variant, task=cell.task, learning_rate=learning_rate, seed=seed, config=config)


def tunes(design: Design, cell: Cell) -> bool:
    """Whether the cell's first seed chooses a learning rate for the others."""
    return design.plan.tuning == "first" and len(cell.learning_rates) > 1


def possible_runs(design: Design, cell: Cell) -> Iterator[Run]:
    """Every run that a cell may come to; `planned_runs` says how many of them are run."""
    return (run_of(design, cell, rate, seed) for rate in cell.learning_rates for seed in design.seeds)


def planned_runs(design: Design, cell: Cell) -> int:
    """How many runs a cell takes: its first seed tries every learning rate, the others one or all."""
    rates, seeds = len(cell.learning_rates), len(design.seeds)
    return rates + seeds - 1 if tunes(design, cell) else rates * seeds
