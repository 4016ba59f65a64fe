"""Designs without models: what the scheduler sees, and nothing that could be trained."""

from typing import Literal

from hypothesis import strategies as st

from griffin_eqx.ablation.design import Cell, Design, Sizes
from griffin_eqx.ablation.plan import Plan, TaskPlan, Variant
from griffin_eqx.config import Config, DataConfig, TrainConfig
from griffin_eqx.task import Metric


def make_cell(
    variant, task, *, steps=10, flops=1.0, metric: Metric = "accuracy", learning_rates=(1e-3,), config=None
):
    config = config or Config(data=DataConfig(seq_len=16, batch_size=4), train=TrainConfig(steps=steps))
    sizes = Sizes(
        parameters=1,
        parameters_non_embedding=1,
        training_flops_per_token=flops,
        cache_bytes=1,
        cache_length=16,
    )
    return Cell(
        variant=variant,
        task=task,
        config=config,
        metric=metric,
        learning_rates=tuple(learning_rates),
        sizes=sizes,
    )


def make_design(cells, *, seeds=(0,), tuning: Literal["first", "all"] = "first", init_seeds=None):
    names = dict.fromkeys(cell.variant for cell in cells)
    plan = Plan(
        name="plan",
        variants={
            name: Variant(pattern="rg_lru", init_seed=(init_seeds or {}).get(name, 0)) for name in names
        },
        tasks={cell.task: TaskPlan() for cell in cells},
        baseline=next(iter(names)),
        tuning=tuning,
    )
    return Design(plan=plan, seeds=tuple(seeds), cells=tuple(cells))


@st.composite
def designs(draw):
    """A few cells, one to three learning rates and seeds, either way of tuning."""
    rates = st.lists(st.sampled_from([1e-4, 3e-4, 1e-3, 3e-3]), min_size=1, max_size=3, unique=True)
    cells = []
    for task in ["copy", "text"][: draw(st.integers(1, 2))]:
        metric = draw(st.sampled_from(["accuracy", "exact", "loss", "bits_per_byte"]))
        for variant in ["a", "b", "c"][: draw(st.integers(1, 3))]:
            cell = make_cell(
                variant,
                task,
                steps=draw(st.integers(1, 50)),
                flops=draw(st.sampled_from([1.0, 5.0])),
                metric=metric,
                learning_rates=sorted(draw(rates)),
            )
            cells.append(cell)
    seeds = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
    return make_design(cells, seeds=seeds, tuning=draw(st.sampled_from(["first", "all"])))
