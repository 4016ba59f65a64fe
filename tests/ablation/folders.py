"""Lays out the folder of a plan with made-up numbers, as `griffin ablate` would leave it. Trains nothing.

    python -m tests.ablation.folders runs/made_up

The numbers follow a simple law of each variant's `skill`, with noise of the seed, so that tests know what to expect:
nothing here says anything about real models.
"""

import dataclasses
import json
import math
import random
import sys
from pathlib import Path

import msgspec
import tomli_w

from griffin_eqx.ablation.design import Cell, Design, Matched, Run, Sizes
from griffin_eqx.ablation.plan import Budget, Match, Plan, TaskPlan, Variant
from griffin_eqx.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig, dumps
from griffin_eqx.task import Metric
from griffin_eqx.training.outcome import Bucket, RunOutcome, SetOutcome, write_outcome


@dataclasses.dataclass(frozen=True)
class Made:
    """A made-up variant: how good it is, and how it keeps that up beyond its training length (0 to 1)."""

    pattern: str
    skill: float = 0.9
    holds: float = 0.9
    init_seed: int = 0
    parameters: int = 250_000
    cache_bytes: int = 20_000
    speed: float = 30_000.0


FOUR = {
    "hawk": Made("rg_lru@6", 0.93, 0.98, parameters=251_136, cache_bytes=12_288, speed=41_000),
    "griffin": Made(
        "(rg_lru rg_lru local_mqa)@6", 0.96, 0.93, parameters=250_880, cache_bytes=45_056, speed=36_500
    ),
    "mqa": Made("global_mqa@6", 0.90, 0.25, parameters=252_032, cache_bytes=196_608, speed=30_200),
    "cg-hybrid": Made(
        "(cg_lru cg_lru local_mqa)@6", 0.955, 0.9, parameters=249_216, cache_bytes=53_248, speed=22_400
    ),
}

ACCURACY = TaskPlan(task="induction_heads[vocab=16]")
TEXT = TaskPlan(task="text", config={"data": {"corpus": "shakespeare"}})
TASKS: dict[str, tuple[TaskPlan, Metric]] = {
    "induction": (ACCURACY, "accuracy"),
    "text": (TEXT, "bits_per_byte"),
}

BLOCKS = ("rg_lru", "cg_lru", "local_mqa", "global_mqa")

ENVIRONMENT = {
    "python": "3.11.7",
    "packages": {"griffin_eqx": "0.1.0", "jax": "0.10.2", "jaxlib": "0.10.2", "numpy": "2.4.6"},
    "platform": "Linux-6.1-x86_64",
    "device": {"platform": "cpu", "kind": "cpu", "count": 1},
    "commit": "3662422aa0b4d7a1f9f1d1a54be8f8ac6a1f0c3d",
    "data": {"task": "induction_heads", "digest": ""},
}


def lay_out(
    folder: Path,
    *,
    variants: dict[str, Made] | None = None,
    tasks: dict[str, tuple[TaskPlan, Metric]] | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    learning_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2),
    tuning: str = "first",
    best: float = 3e-3,
    noise: float = 0.01,
    steps: int = 400,
    title: str = "Hawk, Griffin and attention on recall and on text",
    question: str = "Does a recurrence hold what attention loses beyond its training length?",
    failed: dict[tuple[str, str, float, int], str] | None = None,
    unfinished: tuple[tuple[str, str, float, int], ...] = (),
    missing: tuple[tuple[str, str, float, int], ...] = (),
    not_finite: tuple[tuple[str, str, float, int], ...] = (),
    matched: bool = True,
) -> Design:
    """Writes the folder.

    Args:
      folder: Where.
      variants: By name; four plausible ones when None.
      tasks: The plan's tasks and their metrics; a recall task and text when None.
      seeds: Of the runs.
      learning_rates: To try.
      tuning: As in a plan.
      best: The learning rate that is best for all.
      noise: Standard deviation over seeds, of an accuracy.
      steps: Of each run.
      title: The plan's.
      question: The plan's.
      failed: Reasons by (variant, task, learning rate, seed).
      unfinished: Runs without an outcome.
      missing: Runs without a folder.
      not_finite: Runs whose losses are not finite.
      matched: Whether variants were matched.

    Returns:
      The design.
    """
    variants = FOUR if variants is None else variants
    tasks = TASKS if tasks is None else tasks
    plan = Plan(
        name=folder.name,
        title=title,
        question=question,
        variants={
            name: Variant(pattern=made.pattern, init_seed=made.init_seed) for name, made in variants.items()
        },
        tasks={name: task for name, (task, _) in tasks.items()},
        budget=Budget(steps=steps),
        match=Match(by="params") if matched else None,
        seeds=list(seeds),
        learning_rates=list(learning_rates),
        tuning=tuning,  # pyright: ignore[reportArgumentType]
    )
    first = next(iter(variants.values()))
    cells = [
        Cell(
            variant=name,
            task=task,
            config=Config(
                model=ModelConfig(pattern=made.pattern, width=64, vocab_size=256 if metric == "bits_per_byte" else 16),
                data=DataConfig(task=task_plan.task or task, seq_len=64, batch_size=32, eval_lengths=(128, 256, 512)),
                optimizer=OptimizerConfig(),
                train=TrainConfig(steps=steps, final_test=True, keep_best=False),
            ),
            metric=metric,
            learning_rates=tuple(learning_rates),
            sizes=Sizes(
                parameters=made.parameters + 1024,
                parameters_non_embedding=made.parameters,
                training_flops_per_token=6.0 * made.parameters,
                cache_bytes=made.cache_bytes,
                cache_length=64,
            ),
            matched=Matched(
                by="params", adjust="width", before=64, after=64 + 2 * place, target=first.parameters,
                reached=made.parameters,
                nearest="" if abs(made.parameters / first.parameters - 1) < 0.01 else "the width is a multiple of 2",
            )
            if matched and place
            else None,
            blocks={name: "griffin_eqx 0.1.0" for name in BLOCKS if name in made.pattern},
        )
        for task, (task_plan, metric) in tasks.items()
        for place, (name, made) in enumerate(variants.items())
    ]  # fmt: skip
    design = Design(plan=plan, seeds=tuple(seeds), cells=tuple(cells))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "design.json").write_bytes(msgspec.json.format(msgspec.json.encode(design)))
    tree = msgspec.to_builtins(plan)
    (folder / "plan.toml").write_text(tomli_w.dumps(_without_none(tree)))
    for cell in cells:
        made = variants[cell.variant]
        for rate in learning_rates:
            for seed in seeds:
                key = (cell.variant, cell.task, rate, seed)
                tuned = tuning == "all" or seed == seeds[0] or rate == best
                if tuned and key not in missing:
                    _run(
                        folder, cell, made, rate, seed, best, noise, key, failed or {}, unfinished, not_finite
                    )
    return design


def _run(folder, cell, made, rate, seed, best, noise, key, failed, unfinished, not_finite):
    run = Run(variant=cell.variant, task=cell.task, learning_rate=rate, seed=seed, config=cell.config)
    path = folder / run.path
    path.mkdir(parents=True)
    train = msgspec.structs.replace(cell.config.train, seed=seed)
    optimizer = msgspec.structs.replace(cell.config.optimizer, learning_rate=rate)
    config = msgspec.structs.replace(cell.config, train=train, optimizer=optimizer)
    (path / "config.toml").write_text(dumps(config))
    (path / "env.json").write_text(json.dumps(ENVIRONMENT))
    luck = random.Random(f"{cell.variant} {made.init_seed} {cell.task} {rate} {seed}")
    shared = random.Random(f"{cell.task} {seed}").gauss(0, noise)  # what a seed's data does to all variants
    skill = made.skill - 0.3 * math.log10(rate / best) ** 2 + shared + luck.gauss(0, noise)
    finite = key not in not_finite
    stopped = key in failed or key in unfinished
    _curve(
        path, cell, skill, luck, made, steps=cell.config.train.steps // (2 if stopped else 1), finite=finite
    )
    if key in failed:
        failure = {"reason": failed[key], "kind": "diverged", "attempts": 2}
        (path / "failure.json").write_text(json.dumps(failure))
    elif key not in unfinished:
        sets = tuple(
            _set(split, length, cell, made, skill + luck.gauss(0, 0.2 * noise), finite)
            for split in ("validation", "test")
            for length in (64, *cell.config.data.eval_lengths)
        )
        steps, tokens = cell.config.train.steps, cell.config.train.steps * 64 * 32
        speed = made.speed * luck.uniform(0.97, 1.03)
        time = {
            "seconds": tokens / speed,
            "tokens_per_second": speed,
            "compile_seconds": 4.0,
            "peak_bytes": 6.1e8,
        }
        write_outcome(
            path,
            sets,
            RunOutcome(steps=steps, skipped=0, tokens=tokens, parameters=cell.sizes.parameters, time=time),
        )


def _set(split, length, cell, made, skill, finite):
    kept = skill * made.holds ** (math.log2(length / 64) ** 1.5)
    accuracy = min(1.0, max(0.0, kept))
    text = cell.metric == "bits_per_byte"
    loss = (3.2 - 1.6 * kept if text else 2.77 * (1 - accuracy) + 0.003) if finite else None
    buckets, start = [], 0
    while start < length:
        stop = max(1, 2 * start)
        decay = 0.6 / math.log2(start + 2) + (0.1 * max(0.0, math.log2((start + 1) / 64)) * (1 - made.holds))
        buckets.append(Bucket(start, stop, stop - start, loss and loss + decay, accuracy))
        start = stop
    return SetOutcome(
        split=split,
        name=f"length {length}",
        seq_len=length,
        rows=256,
        targets=256 * (length if text else 1),
        bytes=256 * length if text else 0,
        loss=loss,
        bits_per_byte=loss / math.log(2) if text and loss is not None else None,
        accuracy=accuracy,
        exact=accuracy,
        by_position=tuple(buckets),
        time={"seconds": 0.5, "tokens_per_second": 100_000.0},
    )


def _curve(path, cell, skill, luck, made, *, steps, finite):
    lines, tokens = [], 64 * 32
    text = cell.metric == "bits_per_byte"
    for step in range(10, steps + 1, 10):
        learnt = skill * (1 - math.exp(-4 * step / cell.config.train.steps))
        loss = (3.2 - 1.6 * learnt if text else 2.77 * (1 - learnt)) if finite else None
        bits = loss / math.log(2) if loss is not None and text else None
        seen = {"loss": loss and loss + abs(luck.gauss(0, 0.05)), "bits_per_byte": bits}
        state = {"grad_norm": 0.5, "learning_rate": 1e-3, "skipped": 0, "tokens": step * tokens}
        time = {"seconds": step * tokens / made.speed, "tokens_per_second": made.speed}
        lines.append({"kind": "train", "step": step, **seen, **state, "time": time})
        if step % 50 == 0:
            judged = {"loss": loss, "bits_per_byte": bits, "accuracy": learnt, "targets": 100, "bytes": 100}
            lines.append({"kind": "validation", "step": step, **judged, "time": {"seconds": 0.1}})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _without_none(tree):
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    return tree


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
