"""A loss that is not finite: skipped, counted, and after too many in a row traced to a layer."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from griffin_eqx import registry
from griffin_eqx.block import AbstractBlock, resolve_layout
from griffin_eqx.errors import DivergedError
from griffin_eqx.model import LanguageModel
from griffin_eqx.training import checkpoints
from griffin_eqx.training.diagnose import first_not_finite
from griffin_eqx.training.loop import train
from griffin_eqx.training.metrics import read_metrics


@dataclasses.dataclass(frozen=True)
class BadOptions:
    pass


class BadBlock(AbstractBlock):
    """Hands its input on, but NaN at the first token of a document that begins inside of a row."""

    name: ClassVar[str] = "bad_block"
    Options: ClassVar[type] = BadOptions
    cache_growth: ClassVar[Any] = "constant"
    weight: jax.Array

    @classmethod
    def init(cls, options, dims, *, key):
        return cls(jnp.ones(()))

    def __call__(self, x, layout=None, cache=None):
        layout = resolve_layout(x.shape[0], layout, cache)
        inner = layout.reset & (jnp.arange(x.shape[0]) > 0)
        return jnp.where(inner[:, None], jnp.nan, x * self.weight), cache

    def init_cache(self, max_seq_len, dtype):
        return jnp.zeros(())

    def flops(self, seq_len):
        return 0


@pytest.fixture
def bad_block(monkeypatch):
    # The registry is the process's: what is added here is taken out again.
    monkeypatch.setattr(registry.default, "_added", dict(registry.default._added))
    registry.add(BadBlock)


@pytest.fixture
def documents(tmp_path):
    """A folder of short documents: some batches have a border and others have none."""
    folder = tmp_path / "documents"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i:02}.txt").write_text(f"document {i:02} " * 12)
    return f"file:{folder}"


def skipped_lines(run_dir):
    return [line["step"] for line in read_metrics(run_dir / "metrics.jsonl") if line["kind"] == "skipped"]


def test_skips_are_counted_and_a_stop_between_them_changes_nothing(
    tmp_path, make_config, bad_block, documents
):
    config = make_config(pattern="bad_block", corpus=documents, steps=40, max_skipped=40, eval_every=0)
    assert train(config, run_dir=tmp_path / "run", quiet=True).finished
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    bad = skipped_lines(tmp_path / "run")
    assert 0 < len(bad) < 40
    trained = {line["step"]: line for line in lines if line["kind"] == "train"}
    assert trained[40]["skipped"] == len(bad)
    assert [step for step, line in trained.items() if line["loss"] is None] == bad
    first = next(line for line in lines if line["kind"] == "skipped")
    assert first == {"kind": "skipped", "step": bad[0], "batch": bad[0] - 1, "loss": None, "grad_norm": None}
    for stop in (bad[0], bad[0] + 1):
        train(config, run_dir=tmp_path / "again", quiet=True, stop=lambda step, stop=stop: step >= stop)
    train(config, run_dir=tmp_path / "again", quiet=True)
    strip = [{k: v for k, v in line.items() if k != "time"} for line in lines]
    again = read_metrics(tmp_path / "again" / "metrics.jsonl")
    assert [{k: v for k, v in line.items() if k != "time"} for line in again] == strip


@pytest.mark.parametrize("max_skipped", [0, 1, 2])
def test_too_many_in_a_row_end_the_run_at_that_step(tmp_path, make_config, bad_block, documents, max_skipped):
    # Where the runs of skips are is a matter of the data, and the same for every config of one seed.
    survey = make_config(pattern="bad_block", corpus=documents, steps=40, max_skipped=40, eval_every=0)
    train(survey, run_dir=tmp_path / "survey", quiet=True)
    bad = skipped_lines(tmp_path / "survey")
    expected = next(s for s in range(1, 41) if all(s - i in bad for i in range(max_skipped + 1)))
    config = make_config(
        pattern="bad_block", corpus=documents, steps=40, max_skipped=max_skipped, eval_every=0
    )
    with pytest.raises(DivergedError, match=r"layer 0 \(bad_block\) is the first") as caught:
        train(config, run_dir=tmp_path / "run", quiet=True)
    assert f"up to step {expected} (data batch {expected - 1})" in str(caught.value)
    assert skipped_lines(tmp_path / "run")[-1] == expected
    assert caught.value.exit_code == 5
    kept = checkpoints.steps(tmp_path / "run" / "checkpoints")
    assert all(step < expected for step in kept)


def test_debug_nan_stops_at_the_first(tmp_path, make_config, bad_block, documents):
    config = make_config(pattern="bad_block", corpus=documents, steps=40, max_skipped=40, eval_every=0)
    with pytest.raises(DivergedError, match="the output of its temporal-mixing block is not finite, in row"):
        train(config, run_dir=tmp_path / "run", quiet=True, debug_nan=True)
    assert len(skipped_lines(tmp_path / "run")) == 1


@pytest.mark.core
def test_the_first_thing_that_is_not_finite_is_named(make_config, make_batch):
    config = make_config(pattern="rg_lru*3")
    batch = make_batch(config)
    model = LanguageModel.init(config.model, key=jax.random.key(0))
    sane = "run again by itself, the batch is finite"
    assert first_not_finite(model, batch).startswith(sane)
    poisoned = eqx.tree_at(
        lambda m: m.stack.units[0][0].mlp.up.weight, model, replace_fn=lambda z: z.at[1, 0, 0].set(jnp.inf)
    )
    assert first_not_finite(poisoned, batch) == (
        "the parameters are not finite, first model.layers.1.mlp.up.weight"
    )
    # Finite weights, too large for the products that come after.
    huge = eqx.tree_at(
        lambda m: m.stack.units[0][0].mlp.up.weight, model, replace_fn=lambda z: z.at[2].set(3e38)
    )
    assert first_not_finite(huge, batch).startswith("layer 2 (rg_lru) is the first: the output of its MLP")
    far = batch._replace(length=np.zeros(4, np.int32))  # nothing valid: nothing to blame
    assert first_not_finite(huge, far._replace(targets=jnp.full((4, 16), -1))).startswith(
        ("the loss is finite", sane)
    )
