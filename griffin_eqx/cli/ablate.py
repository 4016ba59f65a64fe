"""`griffin ablate`: compares variants of a model on tasks, fairly; the same command again goes on with it."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Annotated, Any

import msgspec
import tyro

from griffin_eqx import presets
from griffin_eqx.ablation.check import check
from griffin_eqx.ablation.configs import base_config
from griffin_eqx.ablation.load import from_tree, load_plan
from griffin_eqx.ablation.naming import slugs
from griffin_eqx.ablation.plan import Adjust, Measure, Plan
from griffin_eqx.cli import INTERRUPTED, asks_help
from griffin_eqx.cli.arguments import Flag, Number, Text, parse
from griffin_eqx.cli.configure import take_blocks, type_registry, without_blocks
from griffin_eqx.config import Config, without_none
from griffin_eqx.errors import PlanError

PLAN = "plan.toml"
COMMAND_LINE = "command line"
"""What messages call a plan that stands in no file."""

Float = Annotated[float | None, tyro.conf.arg(metavar="X", help_behavior_hint="")]
Words = Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="")]


@dataclasses.dataclass(frozen=True)
class Ablate:
    """Compare variants of a model on tasks: matched in size, over seeds, with a report.

    Either PLAN, or --patterns and --task with what a plan says as options. The same command goes on where it
    stopped; finished runs are never done again. Ctrl-C saves and stops, twice stops now.

    Attributes:
      plan: A plan's TOML file, or the folder of an ablation to go on with.
      patterns: The variants: layer patterns, or presets, whose model is taken. The first is the baseline.
      task: What they are trained on; `griffin tasks` lists them.
      match: Make variants equal to the baseline in non-embedding parameters (params), training FLOPs a token
        (flops), bytes of cache (cache) or measured seconds a step (step_time).
      adjust: What is changed for it; left out, the width, and the MLP's where widths are too coarse.
      seeds: How many seeds.
      steps: Optimizer steps of a run.
      tokens: Training tokens of a run, in place of steps.
      flops: Training FLOPs of a run, in place of steps.
      minutes: Minutes of a run at the speed measured before, in place of steps.
      learning_rates: Peaks to try, the best chosen on validation; the configuration's own when left out.
      baseline: The variant that others are matched to and compared with: its pattern.
      base: The configuration that all share: a preset, or a TOML file. Overrides below go on top of it.
      name: The folder under runs/; the file's name, or tasks and a digest, when left out.
      folder: The folder itself, in place of a name.
      workers: Runs at once; one a core when left out.
      threads: Cores of each run.
      retry: Try failed runs again.
      slurm: Submit the runs to a SLURM cluster: options of submitit as NAME=VALUE, such as slurm_partition=gpu
        timeout_min=60. Needs the extra `cluster`.
      quiet: Print nothing.
      dry_run: Show every run, its matched size and the expected time, and start nothing.
      tree: The configuration that overrides apply to.
    """

    plan: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[PLAN]", help_behavior_hint="")
    ] = None
    patterns: Words = ()
    task: Words = ()
    match: Annotated[Measure | None, tyro.conf.arg(help_behavior_hint="")] = None
    adjust: Annotated[Adjust | None, tyro.conf.arg(help_behavior_hint="")] = None
    seeds: Number = None
    steps: Number = None
    tokens: Float = None
    flops: Float = None
    minutes: Float = None
    learning_rates: Annotated[
        tuple[float, ...], tyro.conf.arg(metavar="X [X ...]", help_behavior_hint="")
    ] = ()
    baseline: Text = None
    base: Text = None
    name: Text = None
    folder: Text = None
    workers: Number = None
    threads: Number = None
    retry: Flag = False
    slurm: Annotated[
        tuple[str, ...] | None, tyro.conf.arg(metavar="[NAME=VALUE ...]", help_behavior_hint="")
    ] = None
    quiet: Flag = False
    dry_run: Flag = False
    tree: Annotated[Config, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Config)


_RUNNING = ("plan", "name", "folder", "workers", "threads", "retry", "slurm", "quiet", "dry_run", "tree")
"""What may stand beside a plan's file; all else belongs into it."""


def run(argv: list[str]) -> int:
    """Runs the command."""
    plan, where, chosen = read(argv)
    if chosen.dry_run:
        from griffin_eqx.cli.ablate_dry_run import show

        show(plan, where=where, folder=_folder(chosen), workers=chosen.workers, threads=chosen.threads)
        return 0
    from griffin_eqx.ablation.ablate import ablate

    result = ablate(
        plan,
        folder=_folder(chosen),
        workers=chosen.workers,
        threads=chosen.threads,
        quiet=chosen.quiet,
        retry=chosen.retry,
        slurm=None if chosen.slurm is None else slurm_options(chosen.slurm),
    )
    if not result.finished:
        return INTERRUPTED
    return 1 if result.failed else 0


def slurm_options(words: tuple[str, ...]) -> dict[str, str | int]:
    """Reads NAME=VALUE; whole numbers become integers.

    Raises:
      PlanError: If one is written otherwise.
    """
    options: dict[str, str | int] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (equals and name.isidentifier()):
            raise PlanError(f"{COMMAND_LINE}: --slurm {word}: write NAME=VALUE, such as slurm_partition=gpu.")
        options[name] = int(value) if value.isdecimal() else value
    return options


def read(argv: list[str]) -> tuple[Plan, str, Ablate]:
    """Reads the arguments.

    Returns:
      `(plan, where, switches)`: `where` is what messages call the plan.

    Raises:
      PlanError: If the plan is wrong; the message names the key or option.
      ConfigError: If an option of a block is written wrongly.
      SystemExit: With 2 for a misspelt option; with 0 after `--help`.
    """
    help_wanted = asks_help(argv)
    argv, blocks = take_blocks([argument for argument in argv if argument not in ("-h", "--help")])
    # Twice: only the first reading tells which defaults the second has.
    first = _parse(argv, Config())
    try:
        base, _ = without_blocks(base_config(first.base))
    except PlanError as error:
        raise PlanError(f"{COMMAND_LINE}: --{error}") from None
    if help_wanted:
        _parse([*argv, "--help"], base)
    chosen = _parse(argv, base)
    overrides = _changes(base, chosen.tree)
    if blocks:
        overrides.setdefault("model", {})["blocks"] = blocks
    if chosen.name is not None and chosen.folder is not None:
        raise PlanError(
            f"{COMMAND_LINE}: both --name {chosen.name} and --folder {chosen.folder} are given.\nKeep one."
        )
    if chosen.plan is None:
        return _from_options(chosen, overrides), COMMAND_LINE, chosen
    return *_from_file(chosen, overrides), chosen


def _parse(argv: list[str], tree: Config) -> Ablate:
    return parse(Ablate, argv, prog="griffin ablate", default=Ablate(tree=tree), registry=type_registry())


def _folder(chosen: Ablate) -> Path | None:
    if chosen.folder is not None:
        return Path(chosen.folder)
    return Path(chosen.plan) if chosen.plan is not None and Path(chosen.plan).is_dir() else None


def _from_file(chosen: Ablate, overrides: dict[str, Any]) -> tuple[Plan, str]:
    assert chosen.plan is not None
    fields = (field for field in dataclasses.fields(Ablate) if field.name not in _RUNNING)
    given = [field.name for field in fields if getattr(chosen, field.name) != field.default]
    if given or overrides:
        what = ", ".join(f"--{name.replace('_', '-')}" for name in given) or "overrides of the configuration"
        raise PlanError(
            f"{COMMAND_LINE}: {what} and the plan {chosen.plan} are given.\nWrite them into it, or leave PLAN out."
        )
    path = Path(chosen.plan)
    if path.is_dir():
        path = path / PLAN
        if not path.is_file():
            raise PlanError(f"{chosen.plan}: this is no folder of an ablation: it has no {PLAN}.")
    elif path.suffix.lower() != ".toml":
        raise PlanError(
            f"{chosen.plan}: a plan is a file whose name ends in .toml.\n"
            "Without a file: griffin ablate --patterns PATTERN PATTERN ... --task TASK"
        )
    plan = load_plan(path)
    if chosen.name is not None:
        plan = msgspec.structs.replace(plan, name=chosen.name)
        check(plan, where=str(path))
    return plan, str(path)


def _from_options(chosen: Ablate, overrides: dict[str, Any]) -> Plan:
    """The plan that the options say."""
    missing = [f"--{name}" for name in ("patterns", "task") if not getattr(chosen, name)]
    if missing:
        raise PlanError(
            f"{COMMAND_LINE}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.\n"
            "Write griffin ablate PLAN.toml, or griffin ablate --patterns PATTERN PATTERN ... --task TASK"
        )
    for option in ("patterns", "task"):
        words = [word.strip() for word in getattr(chosen, option)]
        if twice := sorted({word for word in words if words.count(word) > 1}):
            raise PlanError(f"{COMMAND_LINE}: --{option}: {twice[0]} is there twice.")
    if chosen.adjust is not None and chosen.match is None:
        raise PlanError(
            f"{COMMAND_LINE}: --adjust {chosen.adjust} needs --match.\nAdd for example --match params."
        )
    variants = slugs(chosen.patterns)
    names = {pattern: name for name, pattern in variants.items()}
    baseline = None
    if chosen.baseline is not None:
        baseline = names.get(chosen.baseline, chosen.baseline)
    tree: dict[str, Any] = {
        "name": chosen.name,
        "base": chosen.base,
        "config": overrides,
        "variants": {name: _variant(pattern) for name, pattern in variants.items()},
        "baseline": baseline,
        "tasks": {name: {"task": task} if name != task else {} for name, task in slugs(chosen.task).items()},
        "budget": {name: getattr(chosen, name) for name in ("steps", "tokens", "flops", "minutes")},
        "match": None if chosen.match is None else {"by": chosen.match, "adjust": chosen.adjust},
        "seeds": chosen.seeds,
        "learning_rates": list(chosen.learning_rates),
    }
    plan = from_tree({**without_none(tree), "config": overrides}, where=COMMAND_LINE)
    if plan.name is None:
        plan = msgspec.structs.replace(plan, name=_default_name(plan))
    check(plan, where=COMMAND_LINE)
    return plan


def _variant(pattern: str) -> dict[str, Any]:
    """A pattern, or the model of a preset: presets win."""
    if pattern.lower() not in presets.names():
        return {"pattern": pattern}
    model = without_none(msgspec.to_builtins(presets.preset(pattern).model))
    model.pop("vocab_size", None)  # the task says
    return {"config": {"model": model}}


def _default_name(plan: Plan) -> str:
    """Tasks, and a digest of all that would make runs differ: more seeds and learning rates are the same folder."""
    same = msgspec.structs.replace(plan, seeds=1, learning_rates=[])
    digest = hashlib.sha256(msgspec.json.encode(same, order="deterministic")).hexdigest()[:8]
    return f"{'-'.join(plan.tasks)[:60]}-{digest}"


def _changes(base: msgspec.Struct, changed: msgspec.Struct) -> dict[str, Any]:
    """The keys that differ, nested as in a configuration file."""
    found: dict[str, Any] = {}
    for name in base.__struct_fields__:
        before, after = getattr(base, name), getattr(changed, name)
        if isinstance(before, msgspec.Struct):
            if inner := _changes(before, after):
                found[name] = inner
        elif before != after:
            found[name] = msgspec.to_builtins(after)
    return found
