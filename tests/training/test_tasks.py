"""Training works over any task: resumed without a trace, judged at the end, told on the way."""

import json
import math
import shutil
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_eqx import tasks
from griffin_eqx.cli import main
from griffin_eqx.config import ModelConfig
from griffin_eqx.data import IGNORE, Batch, DataError
from griffin_eqx.errors import ConfigError, RunError
from griffin_eqx.model import LanguageModel
from griffin_eqx.task import EvalSet
from griffin_eqx.training import checkpoints
from griffin_eqx.training.evaluation import evaluate
from griffin_eqx.training.load import load
from griffin_eqx.training.loop import train
from griffin_eqx.training.metrics import read_metrics
from griffin_eqx.training.outcome import OUTCOME, read_outcome
from griffin_eqx.training.step import init_state, make_step

pytestmark = pytest.mark.core

PLUGIN = Path(__file__).parents[1] / "distributions/good/acme_blocks/first_token.py"


@pytest.fixture(scope="module", autouse=True)
def first_token():
    """The task of a stranger, for this module."""
    before = tasks.default._added
    tasks.add_file(PLUGIN)
    yield
    tasks.default._added = before
    del sys.modules["griffin_plugin_first_token"]


@pytest.fixture(scope="session")
def recall(make_config):
    """A run on that task, as an ablation has them."""

    def make(**overrides):
        defaults = {
            "task": "first_token",
            "pattern": "rg_lru",
            "vocab_size": None,
            "eval_lengths": (32,),
            "final_test": True,
            "keep_best": False,
            "keep_checkpoints": 1,
        }
        return make_config(**defaults | overrides)

    return make


def without_time(run_dir):
    lines = [
        *read_metrics(run_dir / "metrics.jsonl"),
        *map(json.loads, (run_dir / OUTCOME).read_text().splitlines()),
    ]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


def stopped_at(step):
    return lambda now: now >= step


@pytest.fixture(scope="module")
def straight(tmp_path_factory, recall):
    """A run without a stop."""
    path = tmp_path_factory.mktemp("straight") / "run"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        result = train(recall(), run_dir=path, quiet=True)
    assert (result.finished, result.metric) == (True, "accuracy")
    return path


def test_stops_change_nothing_and_leave_no_outcome_before_the_end(tmp_path, recall, straight):
    for stop in (1, 4, 9):
        assert not train(recall(), run_dir=tmp_path, quiet=True, stop=stopped_at(stop)).finished
        assert read_outcome(tmp_path) is None
    assert train(recall(), run_dir=tmp_path, quiet=True).finished
    assert without_time(tmp_path) == without_time(straight)


def test_the_outcome_has_every_set_of_both_splits_and_then_the_run(recall, straight):
    found = read_outcome(straight)
    assert found is not None
    sets, run = found
    assert [(one.split, one.name) for one in sets] == [
        (split, f"length {n}") for split in ("validation", "test") for n in (16, 32)
    ]
    # The first set is what training watched.
    last = read_metrics(straight / "metrics.jsonl")[-1]
    assert {name: getattr(sets[0], name) for name in ("loss", "accuracy", "exact", "targets", "bytes")} == {
        name: last[name] for name in ("loss", "accuracy", "exact", "targets", "bytes")
    }
    assert last["bits_per_byte"] is None
    assert sets[0].rows * 2 == sets[0].targets  # two answers a row, in the last two places
    assert [(bucket.start, bucket.stop) for bucket in sets[1].by_position] == [(16, 32)]
    assert (run.steps, run.skipped, run.tokens) == (12, 0, 12 * 4 * 16)
    weights = load(straight).model
    filler = weights.embedding.weight[6:].size
    assert (
        run.parameters
        == sum(leaf.size for leaf in jax.tree.leaves(weights) if hasattr(leaf, "size")) - filler
    )
    assert run.time["peak_bytes"] > 2**20
    assert run.time["tokens_per_second"] > 0


def test_an_outcome_that_is_missing_is_written_and_one_that_is_there_is_left_alone(
    tmp_path, recall, straight
):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    (run / OUTCOME).unlink()  # as after a kill between the last checkpoint and it
    (run / f".{OUTCOME}.new").write_text("half")
    assert train(recall(), run_dir=run, quiet=True).finished
    assert without_time(run) == without_time(straight)
    found = read_outcome(run)
    assert found is not None
    assert "seconds" not in found[1].time  # this session trained nothing
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock"}
    again = train(recall(), run_dir=run, quiet=True)
    assert again.finished
    assert again.tokens_per_second is None
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (run / OUTCOME).write_text('{"kind":"run"}\n')
    with pytest.raises(RunError, match="Delete it, and run the same command again"):
        train(recall(), run_dir=run, quiet=True)


def test_a_run_without_text_says_so_and_keeps_no_sample(straight, capsys):
    loaded = load(straight)
    assert loaded.tokenizer is None
    assert loaded.config.model.vocab_size == 6
    assert list((straight / "samples").iterdir()) == []
    assert main(["sample", str(straight)]) == 2
    assert "the model was trained on the task first_token." in capsys.readouterr().err


def test_no_best_checkpoint_is_kept_where_none_is_wanted(straight):
    folder = straight / "checkpoints"
    assert checkpoints.steps(folder) == [12]
    assert load(straight).step == 12  # also where an earlier evaluation was better


def test_the_facts_name_task_and_data(straight):
    facts = json.loads((straight / "env.json").read_text())
    assert facts["task"]["name"] == "first_token"
    assert "first_token" in facts["task"]["distribution"]
    assert facts["data"] == {"digest": ""}


def test_the_seed_of_the_weights_may_differ_from_that_of_the_data(tmp_path, recall):
    def first_lines(**seeds):
        run = tmp_path / str(seeds)
        train(recall(**seeds), run_dir=run, quiet=True, stop=stopped_at(1))
        return [line["loss"] for line in read_metrics(run / "metrics.jsonl")]

    plain = first_lines(seed=3)
    assert first_lines(seed=3, init_seed=3) == plain
    other_weights, other_data = first_lines(seed=3, init_seed=4), first_lines(seed=4, init_seed=3)
    assert len({*plain, *other_weights, *other_data, *first_lines(seed=4)}) == 4


def test_a_watcher_is_told_at_most_five_times_a_second(tmp_path, recall):
    told = []
    started = time.monotonic()
    train(recall(), run_dir=tmp_path, quiet=True, watch=lambda *args: told.append(args))
    assert 1 <= len(told) <= 1 + 5 * (time.monotonic() - started)
    step, loss, speed = told[0]
    assert (step, type(loss), type(speed)) == (1, float, float)
    assert loss == read_metrics(tmp_path / "metrics.jsonl")[0]["loss"]


def test_a_vocabulary_smaller_than_the_tasks_is_refused(tmp_path, recall):
    with pytest.raises(
        ConfigError, match=r"vocab_size=5 is less than the 6 tokens of the task first_token; leave it out\."
    ):
        train(recall(vocab_size=5), run_dir=tmp_path, quiet=True)


# One program


def test_learning_rates_and_seeds_share_one_program(recall, make_batch):
    def texts(**changes):
        config = recall(vocab_size=6, **changes)
        state = init_state(config, key=jax.random.key(config.train.seed))
        return make_step(config).lower(state, make_batch(config), jnp.zeros(4, bool)).as_text()

    one = texts(learning_rate=1e-3)
    assert texts(learning_rate=3e-2, seed=5) == one
    assert texts(learning_rate=1e-3, warmup_steps=3) != one


def test_the_peak_is_the_one_asked_for(recall, make_batch):
    """A step changes weights in proportion to the learning rate: AdamW's update does not depend on it."""

    def moved(learning_rate):
        config = recall(vocab_size=6, learning_rate=learning_rate, warmup_steps=0)
        before = init_state(config, key=jax.random.key(0))
        old = np.asarray(before.model.final_norm.scale)
        after, _ = make_step(config)(
            before, make_batch(config)._replace(targets=jnp.ones((4, 16), int)), jnp.zeros(4, bool)
        )
        return np.asarray(after.model.final_norm.scale) - old

    # float32: the scales are about 1, so that a change is rounded to 1e-7.
    np.testing.assert_allclose(4 * moved(0.01), moved(0.04), atol=1e-6)
    assert np.abs(moved(0.04)).max() == pytest.approx(0.04, rel=1e-3)


# What is judged


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(pattern="local_mqa[head_dim=8,window_size=4]", width=16, mlp_width=16, vocab_size=5)
    return LanguageModel.init(config, key=jax.random.key(0))


@pytest.fixture(scope="module")
def logits_of(model):
    """An oracle's logits: one row after the other. (What stands behind the row's end changes none before it.)"""
    scores = jax.jit(lambda tokens: model(tokens)[0])
    return lambda tokens: np.asarray(scores(jnp.asarray(tokens)), np.float64)


@settings(max_examples=5)
@given(st.data())
def test_every_measure_equals_that_of_plain_numpy(model, logits_of, data):
    rows, seq_len, batches = 3, 9, 2
    integers = st.integers(0, 4)
    sets = []
    for _ in range(batches):
        cells = st.lists(integers, min_size=rows * seq_len, max_size=rows * seq_len)
        tokens = np.array(data.draw(cells), np.int32).reshape(rows, seq_len)
        length = np.array(
            data.draw(st.lists(st.integers(0, seq_len), min_size=rows, max_size=rows)), np.int32
        )
        masked = np.array(
            data.draw(st.lists(st.booleans(), min_size=rows * seq_len, max_size=rows * seq_len))
        )
        targets = np.array(data.draw(cells), np.int32).reshape(rows, seq_len)
        targets[masked.reshape(rows, seq_len) | (np.arange(seq_len) >= length[:, None])] = IGNORE
        positions = np.tile(np.arange(seq_len, dtype=np.int32), (rows, 1))
        sets.append(Batch(tokens, targets, positions, length))
    nll, right, columns, whole = [], [], [], []
    for batch in sets:
        for tokens, targets, length in zip(batch.tokens, batch.targets, batch.length, strict=True):
            here = [t for t in range(length) if targets[t] >= 0]
            if not here:
                continue
            logits = logits_of(tokens)
            each = [math.log(np.exp(logits[t]).sum()) - logits[t, targets[t]] for t in here]
            hits = [int(logits[t].argmax()) == targets[t] for t in here]
            nll, right, columns = nll + each, right + hits, columns + here
            whole.append(all(hits))
    found = evaluate(
        model,
        EvalSet("some", seq_len, batches, lambda index: sets[index]),
        split="test",
        num_bytes=lambda targets: int((targets > 2).sum()),
        carry_max_seq_len=64,
    )
    assert (found.split, found.name, found.seq_len) == ("test", "some", seq_len)
    assert (found.targets, found.rows) == (len(nll), len(whole))
    assert found.accuracy == sum(right) / max(len(right), 1)
    assert found.exact == sum(whole) / max(len(whole), 1)
    # float32 scores of a small model: a few units in the last place of numbers around 2.
    assert found.loss == pytest.approx(np.mean(nll) if nll else 0, abs=1e-5)
    assert found.bytes == sum(int((batch.targets > 2).sum()) for batch in sets)
    if found.bytes:
        assert found.bits_per_byte == pytest.approx(sum(nll) / math.log(2) / found.bytes, rel=1e-5)
    else:
        assert found.bits_per_byte is None
    assert sum(bucket.targets for bucket in found.by_position) == len(nll)
    edges = [(bucket.start, bucket.stop) for bucket in found.by_position]
    assert set(edges) <= {(0, 1), (1, 2), (2, 4), (4, 8), (8, 9)}
    assert edges == sorted(edges)
    for bucket in found.by_position:
        inside = [i for i, t in enumerate(columns) if bucket.start <= t < bucket.stop]
        assert bucket.targets == len(inside) > 0
        assert bucket.loss == pytest.approx(np.mean([nll[i] for i in inside]), abs=1e-5)
        assert bucket.accuracy == np.mean([right[i] for i in inside])


def test_rows_that_go_on_from_batch_to_batch_are_judged_as_one(model):
    tokens = np.random.default_rng(0).integers(0, 5, (2, 13), np.int32)
    positions = np.tile(np.arange(12, dtype=np.int32), (2, 1))

    def cut(start, stop):
        columns = slice(start, stop)
        length = np.full(2, stop - start, np.int32)
        return Batch(tokens[:, :-1][:, columns], tokens[:, 1:][:, columns], positions[:, columns], length)

    def judged(seq_len, *, carry):
        batches = [cut(start, start + seq_len) for start in range(0, 12, seq_len)]
        examined = EvalSet("some", seq_len, len(batches), batches.__getitem__, carry=carry)
        return evaluate(model, examined, split="test", num_bytes=lambda _: 0, carry_max_seq_len=64)

    whole, carried, forgetful = judged(12, carry=False), judged(4, carry=True), judged(4, carry=False)
    assert whole.loss is not None
    # float32: the same sums, in another order.
    assert carried.loss == pytest.approx(whole.loss, rel=1e-5)
    assert carried.accuracy == whole.accuracy
    assert forgetful.loss != pytest.approx(whole.loss, rel=1e-5)


def test_what_is_not_finite_is_told_and_predicts_nothing(model):
    broken = eqx.tree_at(lambda m: m.final_norm.scale, model, replace_fn=lambda z: z.at[0].set(jnp.nan))
    ones = np.ones((2, 4), np.int32)
    batch = Batch(ones, ones, 0 * ones, np.full(2, 4, np.int32))
    found = evaluate(
        broken,
        EvalSet("some", 4, 1, lambda _: batch),
        split="validation",
        num_bytes=lambda _: 8,
        carry_max_seq_len=64,
    )
    assert (found.loss, found.bits_per_byte, found.accuracy, found.exact) == (None, None, 0.0, 0.0)
    assert {bucket.loss for bucket in found.by_position} == {None}
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_ties_predict_nothing(model):
    flat = eqx.tree_at(lambda m: m.embedding.weight, model, replace_fn=jnp.zeros_like)
    zeros = np.zeros((1, 4), np.int32)
    batch = Batch(zeros, zeros, zeros, np.full(1, 4, np.int32))
    found = evaluate(
        flat,
        EvalSet("some", 4, 1, lambda _: batch),
        split="test",
        num_bytes=lambda _: 0,
        carry_max_seq_len=64,
    )
    assert found.loss == pytest.approx(math.log(5))
    assert found.accuracy == 0


# Text


@pytest.mark.parametrize("carry", [False, True])
def test_longer_rows_are_the_same_text(make_config, carry):
    data = make_config(eval_lengths=(16, 64, 256), carry=carry).data
    task = tasks.init("text", data)
    for split in ("validation", "test"):
        sets = task.eval_sets(split, 500)
        assert [one.name for one in sets] == ["length 16", "length 64", "length 256"]
        streams = []
        for one in sets:
            batches = [one.batch(index) for index in range(one.num_batches)]
            # By row where rows go on, by batch where they do not: either way the text from its beginning.
            rows = [batch.targets for batch in batches]
            ordered = np.concatenate(rows, axis=1 if carry else 0).reshape(-1)
            streams.append(ordered[ordered >= 0])
            assert one.carry is carry
            assert all(batch.tokens.size <= max(64, one.seq_len) for batch in batches)
        assert all(np.array_equal(stream, streams[0]) for stream in streams)
        assert len(streams[0]) == 499
        assert task.num_bytes(streams[0]) == len(streams[0]) - (streams[0] == 256).sum()


def test_rows_longer_than_the_text_are_refused_before_training(tmp_path, make_config):
    config = make_config(eval_lengths=(4096,))
    with pytest.raises(DataError, match=r"too little text for data\.eval_lengths=4096: 200 tokens"):
        train(config, run_dir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
