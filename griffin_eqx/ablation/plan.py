"""A plan: what is compared, on what, how fairly, and for how long. Imports no JAX."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from griffin_eqx.config import Natural, Positive

Measure = Literal["params", "flops", "cache", "step_time"]
"""What variants are made equal in."""

Adjust = Literal["width", "lru_width", "mlp_width", "depth"]
"""What is turned to make them equal."""

Above0 = Annotated[float, Meta(gt=0.0)]


class _Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Frozen, no unknown keys."""


class Budget(_Base, frozen=True, kw_only=True):
    """How long each run trains: exactly one of these.

    Attributes:
      steps: Optimizer steps.
      tokens: Training tokens; rounded up to whole steps.
      flops: Training FLOPs, three times those of the forward pass; rounded to the nearest whole step.
      minutes: Minutes of training at the speed measured before the runs start.
    """

    steps: Positive | None = None
    tokens: Annotated[float, Meta(ge=1)] | None = None
    flops: Annotated[float, Meta(ge=1)] | None = None
    minutes: Above0 | None = None


class Match(_Base, frozen=True, kw_only=True):
    """How variants are made equal to the baseline.

    Attributes:
      by: Parameters outside of the embedding (`params`), training FLOPs a token (`flops`), bytes of the cache at
        `length` tokens (`cache`), or measured seconds a step (`step_time`).
      adjust: What is changed to get there: a width of the model, or the count at the end of the pattern (`depth`).
        Sizes that the configuration leaves out follow as they always do. Left out: the width, and
        where its steps are too coarse another width for the rest; whatever first comes within 1 %, else the
        nearest. Another depth must be asked for.
      length: Tokens that the cache is for; `data.seq_len` of the first task when left out.
      tolerance: A variant further off than this, as a fraction, is an error and not a footnote.
    """

    by: Measure
    adjust: Adjust | None = None
    length: Positive | None = None
    tolerance: Annotated[float, Meta(gt=0.0)] = 0.05


class Variant(_Base, frozen=True, kw_only=True):
    """One thing that is compared.

    Attributes:
      pattern: Its layers; the base's when left out.
      config: Overrides, as in a configuration file: `{model = {width = 96}, optimizer = {...}}`.
      match: Whether its size is changed by matching.
      init_seed: Added to each run's seed for the weights alone (the data's order stays the same), so that one
        variant under two names can show what chance does.
    """

    pattern: str | None = None
    config: dict[str, Any] = {}
    match: bool = True
    init_seed: Natural = 0


class TaskPlan(_Base, frozen=True, kw_only=True):
    """What variants are trained on and judged by.

    Attributes:
      task: Its name and options, written like a block of a pattern; the key in `[tasks]` when left out.
      config: Overrides for this task, over the plan's and under the variant's.
      budget: In place of the plan's.
      learning_rates: In place of the plan's.
    """

    task: str | None = None
    config: dict[str, Any] = {}
    budget: Budget | None = None
    learning_rates: list[Above0] | None = None


class Plan(_Base, frozen=True, kw_only=True):
    """An ablation.

    Attributes:
      name: Its folder under `runs/`; the file's name when left out.
      title: One line for the report.
      question: What it should answer, in a sentence or three, for the report.
      base: The configuration that all share: a preset, or a TOML file, relative to the plan's.
      config: Overrides of the base, as in a configuration file.
      variants: What is compared, by name; the first is the baseline unless another is named.
      baseline: The variant that others are matched to and paired with.
      tasks: What they are trained on, by name.
      budget: How long each run trains.
      match: How sizes are made equal; not at all when left out.
      seeds: How many (0, 1, ...), or which.
      learning_rates: Peaks to try; the configuration's own when empty.
      tuning: Which seeds try all the learning rates: the first alone (the others then train with the best of
        it, by validation), or all.
    """

    name: str | None = None
    title: str = ""
    question: str = ""
    base: str | None = None
    config: dict[str, Any] = {}
    variants: dict[str, Variant]
    baseline: str | None = None
    tasks: dict[str, TaskPlan]
    budget: Budget = Budget()
    match: Match | None = None
    seeds: Annotated[int, Meta(ge=1, le=1000)] | Annotated[list[Natural], Meta(min_length=1)] = 3
    learning_rates: list[Above0] = []
    tuning: Literal["first", "all"] = "first"
