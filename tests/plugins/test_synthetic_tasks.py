"""The recall tasks: solvable from their tokens, aligned, unguessable, pure, and refused where they do not fit."""

import functools
import re

import numpy as np
import pytest
from griffin_plugins.tasks import _names
from griffin_plugins.tasks._draws import distinct
from griffin_plugins.tasks.induction_heads import InductionHeadsTask
from griffin_plugins.tasks.mqar import MQARTask
from griffin_plugins.tasks.phonebook import PhonebookTask
from griffin_plugins.tasks.selective_copying import SelectiveCopyingTask
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.config import DataConfig
from griffin_eqx.data import IGNORE, ByteTokenizer
from griffin_eqx.errors import OptionError

pytestmark = pytest.mark.core

TASKS = (SelectiveCopyingTask, InductionHeadsTask, MQARTask, PhonebookTask)
ROOMY = {SelectiveCopyingTask: 64, InductionHeadsTask: 64, MQARTask: 64, PhonebookTask: 300}
all_tasks = pytest.mark.parametrize("cls", TASKS, ids=lambda cls: cls.name)


# Each oracle reads the tokens of one row and gives position -> answer. It knows the task's words, not its code.


def copies(tokens, vocab):
    data = [token for token in tokens if 0 < token < vocab - 1]
    return dict(zip([place for place, token in enumerate(tokens) if token == vocab - 1], data, strict=True))


def follows_special(tokens, vocab):
    return {len(tokens) - 1: tokens[tokens.index(vocab - 1) + 1]}


def recalls(tokens, vocab):
    first, answers = {}, {}
    for place, token in enumerate(tokens):
        if 0 < token < vocab // 2:
            if token in first:
                answers[place] = tokens[first[token] + 1]
            else:
                first[token] = place
    return answers


def looks_up(tokens, vocab):
    assert tokens[0] == ByteTokenizer.DOCUMENT == vocab - 1
    text = bytes(tokens[1:]).decode("ascii")
    book, *shown, question = text.split("\n\n")
    entries = re.findall(r"^([A-Z][a-z]+ [A-Z][a-z]+): ([6-9][0-9]*)$", book, re.MULTILINE)
    assert len(entries) == book.count("\n") + 1 == len(dict(entries))
    for line in "".join(shown).split("\n") if shown else ():
        assert line in book.split("\n")
        assert line.split(":")[0] != question.split(":")[0]
    name, begun = question.split(": ")
    number = dict(entries)[name]
    assert number.startswith(begun)
    assert len(number) == len(begun) + 1
    return dict(zip(range(len(tokens) - len(number), len(tokens)), map(ord, number), strict=True))


ORACLES = {
    SelectiveCopyingTask: copies,
    InductionHeadsTask: follows_special,
    MQARTask: recalls,
    PhonebookTask: looks_up,
}


def task_of(cls, seq_len=None, batch_size=4, eval_lengths=(), **options):
    sizes = {"seq_len": seq_len or ROOMY[cls], "batch_size": batch_size, "eval_lengths": eval_lengths}
    return cls.init(cls.Options(**options), DataConfig(**sizes))


@st.composite
def tasks(draw, cls):
    options = {
        SelectiveCopyingTask: {"vocab": st.integers(4, 20), "data_tokens": st.integers(1, 20)},
        InductionHeadsTask: {"vocab": st.integers(3, 20)},
        MQARTask: {
            "vocab": st.sampled_from([22, 23, 8192]),
            "pairs": st.none() | st.integers(1, 10),
            "power": st.sampled_from([0.01, 0.5, 1.0]),
            "filler": st.sampled_from(["blank", "random"]),
        },
        PhonebookTask: {"digits": st.integers(1, 12), "examples": st.integers(0, 4)},
    }[cls]
    given_options = {key: draw(values) for key, values in options.items()}
    shortest = task_of(cls, 10_000 if cls is not MQARTask else 150, **given_options).min_seq_len
    if given_options.get("pairs", 1) is None:
        shortest = 4
    return task_of(
        cls, shortest + draw(st.integers(0, 150 - shortest if cls is MQARTask else 150)), **given_options
    )


@all_tasks
@given(st.data())
def test_an_oracle_that_reads_the_tokens_alone_gives_every_answer(cls, data):
    task = data.draw(tasks(cls))
    batch = task.train_batch(data.draw(st.integers(0, 2**70)), data.draw(st.integers(0, 10**6)))
    for tokens, targets, positions, length in zip(*(part.tolist() for part in batch), strict=True):
        answers = ORACLES[cls](tokens[:length], task.vocab_size)
        assert answers
        assert {place: target for place, target in enumerate(targets) if target != IGNORE} == answers
        assert positions == [*range(length), *[0] * (len(tokens) - length)]
        assert tokens[length:] == [0] * (len(tokens) - length)
        assert max(tokens) < task.vocab_size
        assert min(tokens) >= 0


@all_tasks
def test_rows_have_the_length_asked_for_and_full_books(cls):
    task = task_of(cls)
    batch = task.train_batch(0, 0)
    shape = (4, task.data.seq_len)
    assert [part.shape for part in batch] == [shape, shape, shape, shape[:1]]
    assert all(part.dtype == np.int32 for part in batch)
    entry = 7 + 1 + 7 + 2 + 10 + 1  # a phone book ends where no further entry is sure to fit
    assert (batch.length > task.data.seq_len - (entry if cls is PhonebookTask else 1)).all()


@all_tasks
def test_a_batch_depends_on_its_seed_and_step_alone(cls):
    def tokens(seed, step):
        return task_of(cls).train_batch(seed, step).tokens.tolist()

    task = task_of(cls)
    backwards = {step: task.train_batch(3, step).tokens.tolist() for step in (2, 1, 0)}
    assert all(tokens(3, step) == backwards[step] for step in range(3))
    drawn = [tokens(seed, step) for seed in (0, 1, 2**32, 2**64) for step in (0, 1, 2**32)]
    assert all(drawn.count(batch) == 1 for batch in drawn)
    with pytest.raises(IndexError, match="step=-1"):
        task.train_batch(0, -1)


def rows_of(eval_set):
    batches = [eval_set.batch(number) for number in range(eval_set.num_batches)]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


@all_tasks
def test_splits_and_lengths_share_no_row(cls):
    longer = 2 * ROOMY[cls]
    task = task_of(cls, batch_size=64, eval_lengths=(longer, ROOMY[cls], longer))
    sets = {split: task.eval_sets(split) for split in ("validation", "test")}
    assert [s.name for s in sets["test"]] == [f"length {ROOMY[cls]}", f"length {longer}"]
    assert not any(s.carry for s in sets["test"])
    train = np.concatenate([task.train_batch(seed, step).tokens for seed in range(2) for step in range(8)])
    rows = [tuple(row) for row in train.tolist()]
    for split_sets in sets.values():
        for eval_set in split_sets:
            tokens, _, _, length = rows_of(eval_set)
            assert tokens.shape == (512, eval_set.seq_len)
            assert (length > 0).all()
            rows += [tuple(row) for row in tokens.tolist()]
    assert len(set(rows)) == len(rows)


FIXED = {MQARTask: {"pairs": 4}}


@functools.cache
def all_at_once(cls, seq_len):
    return rows_of(task_of(cls, seq_len, 1024, **FIXED.get(cls, {})).eval_sets("test")[0])


@all_tasks
@given(batch_size=st.sampled_from([5, 100, 600]), max_tokens=st.none() | st.integers(0, 30_000))
def test_an_evaluation_reads_the_same_rows_in_batches_of_any_size(cls, batch_size, max_tokens):
    longer = 3 * ROOMY[cls]
    reference = all_at_once(cls, longer)
    task = task_of(cls, None, batch_size, (longer,), **FIXED.get(cls, {}))
    _, eval_set = task.eval_sets("test", max_tokens)
    first = eval_set.batch(0)
    assert first.tokens.size <= max(batch_size * ROOMY[cls], longer)
    tokens, targets, positions, length = rows_of(eval_set)
    wanted = 512 if max_tokens is None else min(512, max_tokens // longer)
    real = max(wanted, len(first.tokens))
    assert len(tokens) - len(first.tokens) < real <= len(tokens)
    assert (tokens[:real] == reference[0][:real]).all()
    assert (targets[:real] == reference[1][:real]).all()
    assert not tokens[real:].any()
    assert (targets[real:] == IGNORE).all()
    assert not positions[real:].any()
    assert not length[real:].any()


# What follows counts what was drawn; seeds are fixed, so a test that passes once passes always. The tolerance is
# five standard deviations of chi-square, whose mean is its degrees of freedom and whose variance twice these:
# a generator that is right would fail one such test of a million, one that favours a place by a tenth fails it.


def looks_uniform(values, outcomes):
    counts = np.array([np.count_nonzero(values == outcome) for outcome in outcomes])
    assert counts.sum() == np.size(values)
    looks_like(counts, np.full(len(counts), 1 / len(counts)))


def looks_like(counts, probabilities):
    expected = probabilities * counts.sum()
    assert expected.min() > 5, "too few draws to judge by"
    freedom = len(counts) - 1
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom), (chi_square, freedom)


def test_induction_heads_answers_and_places_are_uniform_and_unrelated():
    tokens, targets, *_ = task_of(InductionHeadsTask, 20, 10_000).train_batch(0, 0)
    place = (tokens[:, :-1] == 15).argmax(axis=1)
    looks_uniform(place, range(18))
    looks_uniform(targets[:, -1], range(15))
    looks_uniform(place * 15 + targets[:, -1], range(18 * 15))


def test_selective_copying_answers_and_places_are_uniform():
    tokens, targets, *_ = task_of(SelectiveCopyingTask, 40, 4_000, data_tokens=8).train_batch(0, 0)
    for place in range(32, 40):
        looks_uniform(targets[:, place], range(1, 15))
    looks_uniform(np.nonzero(tokens[:, :32])[1], range(32))
    gaps = np.diff(np.nonzero(tokens[:, :32])[1].reshape(-1, 8), axis=1)
    assert gaps.min() == 1
    assert gaps.max() > 12


def test_mqar_keys_and_values_are_uniform_and_gaps_follow_the_power_law():
    pairs, slots = 4, 28
    for power in (0.01, 1.0):
        task = task_of(MQARTask, 64, 10_000, vocab=32, power=power)
        tokens, targets, *_ = task.train_batch(0, 0)
        for pair in range(pairs):
            looks_uniform(tokens[:, 2 * pair], range(1, 16))
            looks_uniform(tokens[:, 2 * pair + 1], range(16, 32))
        looks_uniform(targets[targets != IGNORE], range(16, 32))
        first = (tokens[:, 2 * pairs :] == tokens[:, :1]).argmax(axis=1)
        assert not (first % 2).any()
        law = np.arange(1.0, slots + 1) ** (power - 1)
        looks_like(np.bincount(first // 2, minlength=slots), law / law.sum())
        # The second pair's gap, by the law of drawing without replacement.
        second = (tokens[:, 2 * pairs :] == tokens[:, 2:3]).argmax(axis=1) // 2
        law /= law.sum()
        left = np.array(
            [[a * b / (1 - a) if i != j else 0 for j, b in enumerate(law)] for i, a in enumerate(law)]
        )
        looks_like(np.bincount(second, minlength=slots), left.sum(axis=0))


def test_phonebook_digits_and_the_place_of_the_question_are_uniform():
    tokens, targets, _, length = task_of(PhonebookTask, 300, 4_000).train_batch(0, 0)
    places, answers = {}, targets[targets != IGNORE].reshape(-1, 10) - ord("0")
    for row, size in zip(tokens, length, strict=True):
        book, _, question = bytes(row[1:size].tolist()).decode().split("\n\n")
        names = [line.split(":")[0] for line in book.split("\n")]
        places.setdefault(len(names), []).append(names.index(question.split(":")[0]))
    for entries, found in places.items():
        if len(found) > 500:
            looks_uniform(np.array(found), range(entries))
    looks_uniform(answers[:, 0], range(6, 10))
    for digit in range(1, 10):
        looks_uniform(answers[:, digit], range(10))


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 2**32))
def test_distinct_draws_differ_and_are_in_range(count, more, seed):
    drawn = distinct(np.random.default_rng(seed), 5, count, count + more)
    assert drawn.shape == (5, count)
    assert all(len(set(row)) == count and min(row) >= 0 and max(row) < count + more for row in drawn.tolist())


def test_distinct_draws_are_uniform_over_ordered_choices():
    drawn = distinct(np.random.default_rng(0), 10_000, 3, 5)
    codes = drawn @ np.array([25, 5, 1])
    looks_uniform(
        codes,
        [a * 25 + b * 5 + c for a in range(5) for b in range(5) for c in range(5) if len({a, b, c}) == 3],
    )


def test_names_are_names():
    for names in (_names.FIRST.split(), _names.LAST.split()):
        assert len(set(names)) == len(names) >= 100
        assert all(re.fullmatch("[A-Z][a-z]{2,6}", name) for name in names)


@all_tasks
@given(st.data())
def test_the_shortest_row_fits_and_a_shorter_one_is_refused(cls, data):
    task = data.draw(tasks(cls))
    shortest, options = task.min_seq_len, task.options
    if cls is MQARTask and options.pairs is None:
        return  # then the row decides how many pairs there are
    sizes = DataConfig(seq_len=shortest, batch_size=64, eval_lengths=(shortest,))
    cls.init(options, sizes).train_batch(0, 0)
    if shortest > 1:
        for field, data_config in (
            ("seq_len", DataConfig(seq_len=shortest - 1)),
            ("eval_lengths", DataConfig(seq_len=shortest, eval_lengths=(shortest, shortest - 1))),
        ):
            with pytest.raises(
                OptionError, match=rf"at least {shortest} tokens, got data.{field} = {shortest - 1}"
            ) as e:
                cls.init(options, data_config)
            assert e.value.field == field


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (SelectiveCopyingTask, {"vocab": 3}),
        (SelectiveCopyingTask, {"data_tokens": 0}),
        (InductionHeadsTask, {"vocab": 2}),
        (MQARTask, {"vocab": 3}),
        (MQARTask, {"vocab": 8, "pairs": 4}),
        (MQARTask, {"pairs": 0}),
        (MQARTask, {"power": 0.0}),
        (MQARTask, {"power": 1.5}),
        (PhonebookTask, {"digits": 0}),
        (PhonebookTask, {"examples": -1}),
    ],
)
def test_options_out_of_range_are_refused(cls, options):
    with pytest.raises(OptionError) as error:
        task_of(cls, 400, **options)
    assert error.value.field in options
    assert "got" in error.value.message
