"""From a plan to its design: every variant's size, every run's steps. Builds no model and trains nothing."""

import inspect
import math

import msgspec

from griffin_eqx import registry
from griffin_eqx.ablation.check import check
from griffin_eqx.ablation.configs import compose, task_of
from griffin_eqx.ablation.design import Cell, Design, Matched
from griffin_eqx.ablation.matching import Timer, match
from griffin_eqx.ablation.plan import Budget, Plan
from griffin_eqx.ablation.sizes import sizes
from griffin_eqx.ablation.timing import StepTimer
from griffin_eqx.config import Config
from griffin_eqx.errors import GriffinError, PlanError
from griffin_eqx.pattern import Pattern
from griffin_eqx.training.resolve import resolve


def work_out(
    plan: Plan,
    *,
    where: str | None = None,
    timer: Timer | None = None,
) -> Design:
    """Works a plan out.

    Args:
      plan: The plan.
      where: What messages call it, such as its file; its name when None.
      timer: Gives the seconds of a training step of each of some configurations, for plans that match by
        `step_time` or whose budget is in minutes; when None they are measured, with all cores.

    Raises:
      PlanError: If it asks for what cannot be; the message names table and key.
      RunError: If measuring fails.
    """
    timer = timer or StepTimer()
    where = where or f"plan {plan.name or 'without a name'}"
    check(plan, where=where)
    seeds = tuple(plan.seeds) if isinstance(plan.seeds, list) else tuple(range(plan.seeds))
    plan = msgspec.structs.replace(plan, baseline=plan.baseline or next(iter(plan.variants)))
    cells: list[Cell] = []
    problems: list[str] = []
    for task in plan.tasks:
        try:
            cells += _task_cells(plan, task, timer)
        except PlanError as error:
            problems += error.problems
    if problems:
        raise PlanError(*(f"{where}: {problem}" for problem in dict.fromkeys(problems)))
    return Design(plan=plan, seeds=seeds, cells=tuple(cells))


def _task_cells(plan: Plan, task: str, timer: Timer) -> list[Cell]:
    """The cells of a task, all of its problems collected."""
    assert plan.baseline is not None
    cache_length = _cache_length(plan)
    configs, matched = _matched(plan, task, cache_length, timer)
    own = plan.tasks[task]
    budget, place = (plan.budget, "budget") if own.budget is None else (own.budget, f"tasks.{task}.budget")
    rates = plan.learning_rates if own.learning_rates is None else own.learning_rates
    seconds = dict.fromkeys(configs, 0.0)
    if budget.minutes is not None:
        seconds = dict(zip(configs, timer(list(configs.values())), strict=True))
    cells = []
    problems = []
    for variant, config in configs.items():
        counted = sizes(config, cache_length=cache_length)
        try:
            steps = _steps(config, budget, counted.training_flops_per_token, seconds[variant])
        except PlanError as error:
            problems += (
                f"{place}.{problem}\nIt is a step of variant {variant}." for problem in error.problems
            )
            continue
        cells.append(
            Cell(
                variant=variant,
                task=task,
                config=msgspec.structs.replace(
                    config, train=msgspec.structs.replace(config.train, steps=steps)
                ),
                metric=task_of(config.data).metric,
                learning_rates=tuple(sorted(rates)) or (config.optimizer.learning_rate,),
                sizes=counted,
                matched=matched.get(variant),
                blocks=_origins(config),
            )
        )
    if problems:
        raise PlanError(*problems)
    return cells


def _matched(
    plan: Plan, task: str, cache_length: int, timer: Timer
) -> tuple[dict[str, Config], dict[str, Matched]]:
    """Every variant's configuration on a task, matched to the baseline's, and what was done for it."""
    baseline = plan.baseline
    assert baseline is not None
    configs: dict[str, Config] = {}
    matched: dict[str, Matched] = {}
    problems: list[str] = []
    target = None
    for variant in (baseline, *(name for name in plan.variants if name != baseline)):
        try:
            config = _prepared(compose(plan, task, variant))
            if target is None or plan.match is None or not plan.variants[variant].match:
                sizes(config)  # which says what cannot be built
                target = target or config
            else:
                wanted = msgspec.structs.replace(plan.match, length=cache_length)
                config, matched[variant] = match(config, target, wanted, timer=timer, baseline=baseline)
            configs[variant] = _canonical(config)
        except GriffinError as error:
            texts = error.problems if isinstance(error, PlanError) else (str(error),)
            problems += (f"variants.{variant}: on task {task}: {text}" for text in texts)
            if target is None:
                break
    if problems:
        raise PlanError(*problems)
    return {variant: configs[variant] for variant in plan.variants}, matched


def _cache_length(plan: Plan) -> int:
    """Tokens that caches are counted for: the same in every cell."""
    if plan.match is not None and plan.match.length is not None:
        return plan.match.length
    assert plan.baseline is not None
    return compose(plan, next(iter(plan.tasks)), plan.baseline).data.seq_len


def _prepared(config: Config) -> Config:
    """What training makes of it, but for the pattern: its last count may be what matching changes."""
    replace = msgspec.structs.replace
    resolved = resolve(config, task_of(config.data))
    return replace(
        resolved,
        model=replace(resolved.model, pattern=config.model.pattern),
        train=replace(resolved.train, final_test=True, keep_best=False),
    )


def _canonical(config: Config) -> Config:
    pattern = str(registry.resolve(config.model.pattern))
    return msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, pattern=pattern))


def _steps(config: Config, budget: Budget, flops_per_token: float, seconds: float) -> int:
    """The steps that a budget comes to.

    Raises:
      PlanError: If it is less than one.
    """
    tokens = config.data.batch_size * config.data.seq_len
    if budget.steps is not None:
        return budget.steps
    if budget.tokens is not None:
        if budget.tokens < tokens:
            raise PlanError(f"tokens: {budget.tokens:,.0f} is less than the {tokens:,} of one step.")
        return math.ceil(budget.tokens / tokens)
    if budget.flops is not None:
        one = tokens * flops_per_token
        if budget.flops < one / 2:
            raise PlanError(f"flops: {budget.flops:.3g} is less than the {one:.3g} of one step.")
        return max(1, round(budget.flops / one))
    if budget.minutes is not None:
        if budget.minutes * 60 < seconds:
            raise PlanError(
                f"minutes: {budget.minutes:g} is less than the {seconds:.3g} seconds of one step."
            )
        return int(budget.minutes * 60 / seconds)
    return config.train.steps


def _origins(config: Config) -> dict[str, str]:
    """Where each block of the pattern comes from."""
    return {
        name: _origin(name)
        for name in sorted({spec.name for spec in Pattern.parse(config.model.pattern).layers})
    }


def _origin(name: str) -> str:
    entry = registry.find(name)
    if not registry.is_added(entry):
        return entry.distribution
    try:
        return inspect.getsourcefile(registry.load(name)) or entry.distribution
    except (TypeError, OSError):  # of a notebook
        return entry.distribution
