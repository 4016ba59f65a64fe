import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.data import (
    IGNORE,
    ByteTokenizer,
    DataError,
    Document,
    EvalLoader,
    TrainLoader,
    encode_documents,
)
from griffin_eqx.data.packing import TokenStream

pytestmark = pytest.mark.core

DOCUMENT = ByteTokenizer.DOCUMENT


def stream_of(*sizes):
    documents = [Document(str(n), bytes(i % 251 for i in range(size))) for n, size in enumerate(sizes)]
    return encode_documents(documents, ByteTokenizer())


def numbered(num_tokens):
    """A stream in which every token tells its own index: one document."""
    return TokenStream(np.arange(num_tokens, dtype=np.uint32), np.zeros(1, np.int64))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


sizes = st.lists(st.integers(0, 40), min_size=1, max_size=6)
seeds = st.integers(0, 2**32 - 1)


@given(st.integers(40, 300), st.integers(1, 40), st.integers(1, 5), seeds, st.integers(0, 3))
def test_every_window_is_seen_exactly_once_an_epoch(num_tokens, seq_len, batch_size, seed, epoch):
    loader = TrainLoader(numbered(num_tokens), seq_len=seq_len, batch_size=batch_size, seed=seed)
    windows = num_tokens // seq_len
    assert loader.windows_per_epoch == windows
    first_step, skipped = divmod(epoch * windows, batch_size)
    steps = range(first_step, first_step + 1 + (skipped + windows - 1) // batch_size)
    rows = np.concatenate([loader.batch(step).tokens for step in steps])
    seen = np.sort(rows[skipped : skipped + windows].ravel())
    assert (np.diff(seen) > 0).all()  # no token twice
    assert len(seen) == windows * seq_len > num_tokens - seq_len  # and fewer than a window left out


def test_epochs_differ_in_borders_and_order():
    loader = TrainLoader(numbered(1000), seq_len=10, batch_size=100, seed=0)
    first, second = loader.batch(0).tokens[:, 0], loader.batch(1).tokens[:, 0]
    assert set(first % 10) != set(second % 10)
    assert not np.array_equal(np.argsort(first), np.argsort(second))
    other = TrainLoader(numbered(1000), seq_len=10, batch_size=100, seed=1).batch(0).tokens[:, 0]
    assert not np.array_equal(first, other)


@given(sizes, st.integers(1, 12), st.integers(1, 4), seeds, st.booleans(), st.integers(0, 10**9))
def test_a_batch_is_a_pure_function_of_seed_step_and_data(sizes, seq_len, batch_size, seed, carry, step):
    stream = stream_of(50, *sizes)

    def make():
        return TrainLoader(stream, seq_len=seq_len, batch_size=batch_size, seed=seed, carry=carry)

    loader = make()
    batch = loader.batch(step)
    assert [array.dtype for array in batch] == [np.int32] * 4
    assert batch.tokens.shape == batch.targets.shape == batch.positions.shape == (batch_size, seq_len)
    assert (batch.length == seq_len).all()
    loader.batch(step + 7)
    assert same(batch, loader.batch(step))
    assert same(batch, make().batch(step))


@given(sizes, st.integers(1, 12), st.integers(1, 4), seeds, st.booleans(), st.integers(0, 50))
def test_training_targets_are_the_next_tokens_and_positions_keep_the_contract(
    sizes, seq_len, batch_size, seed, carry, step
):
    loader = TrainLoader(
        stream_of(50, *sizes), seq_len=seq_len, batch_size=batch_size, seed=seed, carry=carry
    )
    tokens, targets, positions, _ = loader.batch(step)
    assert np.array_equal(targets[:, :-1], tokens[:, 1:])
    assert (targets >= 0).all()
    assert (positions[tokens == DOCUMENT] == 0).all()
    expected = np.where(tokens[:, 1:] == DOCUMENT, 0, positions[:, :-1] + 1)
    assert np.array_equal(positions[:, 1:], expected)
    if not loader.continues(step)[0]:
        assert (positions[:, 0] == 0).all()


@given(sizes, st.integers(1, 12), st.integers(1, 4), seeds, st.data())
def test_carried_rows_go_on_where_they_stopped(sizes, seq_len, batch_size, seed, data):
    stream = stream_of(50, *sizes)
    loader = TrainLoader(stream, seq_len=seq_len, batch_size=batch_size, seed=seed, carry=True)
    steps = loader.windows_per_epoch // batch_size
    assert steps == len(stream) // batch_size // seq_len
    assert not loader.continues(0).any()
    for step in {steps, data.draw(st.integers(1, 2 * steps))}:
        before, after = loader.batch(step - 1), loader.batch(step)
        continues = loader.continues(step)
        assert continues.shape == (batch_size,)
        assert continues.all() == (step % steps != 0)
        if continues.all():
            assert np.array_equal(before.targets[:, -1], after.tokens[:, 0])
            begins = after.tokens[:, 0] == DOCUMENT
            expected = np.where(begins, 0, before.positions[:, -1] + 1)
            assert np.array_equal(after.positions[:, 0], expected)
        else:  # another pass: nothing is known
            assert (after.positions[:, 0] == 0).all()


@given(st.integers(20, 200), st.integers(1, 6), st.integers(1, 4), seeds)
def test_a_carried_pass_reads_no_token_twice(num_tokens, seq_len, batch_size, seed):
    if num_tokens < seq_len * batch_size:
        return
    loader = TrainLoader(numbered(num_tokens), seq_len=seq_len, batch_size=batch_size, seed=seed, carry=True)
    steps = loader.windows_per_epoch // batch_size
    seen = np.sort(np.concatenate([loader.batch(step).tokens.ravel() for step in range(steps)]))
    assert (np.diff(seen) > 0).all()
    assert len(seen) == steps * batch_size * seq_len > num_tokens - batch_size * (seq_len + 1)


@given(
    st.integers(2, 120), st.integers(1, 12), st.integers(1, 5), st.none() | st.integers(2, 150), st.booleans()
)
def test_evaluation_predicts_every_token_but_the_first_exactly_once(
    num_tokens, seq_len, batch_size, max_tokens, carry
):
    loader = EvalLoader(
        numbered(num_tokens), seq_len=seq_len, batch_size=batch_size, max_tokens=max_tokens, carry=carry
    )
    batches = list(loader)
    assert len(batches) == len(loader)
    targets = np.concatenate([batch.targets.ravel() for batch in batches])
    taken = min(num_tokens, max_tokens or num_tokens)
    assert np.sort(targets[targets != IGNORE]).tolist() == list(range(1, taken))
    assert sum(ByteTokenizer().num_bytes(batch.targets) for batch in batches) == min(taken, 256) - 1
    for step, batch in enumerate(batches):
        column = np.arange(seq_len)
        real = column < batch.length[:, None]
        assert batch.tokens.shape == (batch_size, seq_len)
        assert np.array_equal(real, batch.targets != IGNORE)
        assert (batch.targets - batch.tokens)[real].tolist() == [1] * real.sum()
        known = step * seq_len if carry else 0
        assert np.array_equal(batch.positions, np.where(real, known + column, 0))


@given(sizes, st.integers(1, 12), st.integers(1, 4))
def test_carried_evaluation_rows_go_on_where_they_stopped(sizes, seq_len, batch_size):
    stream = stream_of(10, *sizes)
    loader = EvalLoader(stream, seq_len=seq_len, batch_size=batch_size, carry=True)
    assert not loader.continues(0).any()
    for step in range(1, len(loader)):
        before, after = loader.batch(step - 1), loader.batch(step)
        assert loader.continues(step).all()
        for row in np.flatnonzero(after.length):
            assert before.length[row] == seq_len
            assert before.targets[row, -1] == after.tokens[row, 0]
            begins = after.tokens[row, 0] == DOCUMENT
            assert after.positions[row, 0] == (0 if begins else before.positions[row, -1] + 1)


def test_independent_evaluation_windows_know_nothing_of_what_stands_before_them():
    loader = EvalLoader(stream_of(3, 20), seq_len=4, batch_size=2)
    assert loader.batch(0).positions.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert loader.batch(1).positions[0].tolist() == [0, 1, 2, 3]
    assert not loader.continues(1).any()


def test_bytes_are_counted_without_specials_and_padding():
    assert ByteTokenizer().num_bytes(np.array([[0, 255, 256, IGNORE]])) == 2
    batches = EvalLoader(stream_of(5, 7), seq_len=4, batch_size=3)
    assert sum(ByteTokenizer().num_bytes(batch.targets) for batch in batches) == 12


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"seq_len": 0}, "seq_len=0"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"seq_len": 0, "batch_size": 0}, "seq_len=0, batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**32}, "seed=4294967296"),
        ({"seq_len": 12}, "11 tokens, and at least 12 are needed for seq_len=12"),
        (
            {"seq_len": 4, "batch_size": 3, "carry": True},
            "11 tokens, and at least 12 are needed for seq_len=4 and batch_size=3",
        ),
    ],
)
def test_training_on_too_little_or_with_wrong_numbers_is_refused(arguments, says):
    with pytest.raises(DataError, match=says):
        TrainLoader(stream_of(10), **{"seq_len": 4, "batch_size": 1, "seed": 0} | arguments)


@pytest.mark.parametrize(
    ("size", "arguments", "says"),
    [
        (10, {"seq_len": 0}, "seq_len=0"),
        (10, {"batch_size": 0}, "batch_size=0"),
        (10, {"max_tokens": 1}, "11 tokens, max_tokens=1"),
        (0, {}, "1 tokens, max_tokens=None"),
    ],
)
def test_evaluating_too_little_or_with_wrong_numbers_is_refused(size, arguments, says):
    with pytest.raises(DataError, match=says):
        EvalLoader(stream_of(size), **{"seq_len": 4, "batch_size": 1} | arguments)


def test_steps_that_do_not_exist_are_refused():
    with pytest.raises(IndexError, match="step=-1"):
        TrainLoader(stream_of(10), seq_len=4, batch_size=1, seed=0).batch(-1)
    loader = EvalLoader(stream_of(10), seq_len=4, batch_size=1)
    for step in (-1, len(loader)):
        with pytest.raises(IndexError, match=f"There are 3 batches, counted from 0: got step={step}"):
            loader.batch(step)


def test_one_window_is_enough():
    stream = stream_of(10)
    batch = TrainLoader(stream, seq_len=11, batch_size=2, seed=3).batch(0)
    assert sorted(batch.tokens[0]) == sorted(stream.tokens)
