import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.data import IGNORE, ByteTokenizer, Document, encode_documents, pack, window
from griffin_eqx.data.packing import cut

pytestmark = pytest.mark.core

DOCUMENT = ByteTokenizer.DOCUMENT
texts = st.lists(st.binary(max_size=12), min_size=1, max_size=6)


def stream_of(texts):
    documents = [Document(str(number), text) for number, text in enumerate(texts)]
    return encode_documents(documents, ByteTokenizer())


def oracle_positions(tokens, known_from=0):
    """Counts by hand, token by token: 0 at every DOCUMENT and where the known text begins."""
    positions = []
    for index, token in enumerate(tokens[known_from:]):
        positions.append(0 if token == DOCUMENT or index == 0 else positions[-1] + 1)
    return positions


@given(texts)
def test_a_stream_is_every_document_after_its_document_token(texts):
    stream = stream_of(texts)
    assert stream.tokens.tolist() == [t for text in texts for t in (DOCUMENT, *text)]
    assert stream.tokens.dtype == np.uint16
    assert stream.document_starts.tolist() == np.flatnonzero(stream.tokens == DOCUMENT).tolist()


def test_no_documents_give_an_empty_stream():
    assert len(stream_of([])) == 0


@given(texts, st.data())
def test_a_window_shows_the_stream_its_next_tokens_and_positions(texts, data):
    stream = stream_of(texts)
    start = data.draw(st.integers(0, len(stream)))
    length = data.draw(st.integers(0, len(stream) - start))
    whole = stream.tokens.tolist()
    for from_zero in (False, True):
        tokens, targets, positions = window(stream, start, length, from_zero=from_zero)
        assert tokens.dtype == targets.dtype == positions.dtype == np.int32
        assert tokens.tolist() == whole[start : start + length]
        assert targets.tolist() == [*whole, IGNORE][start + 1 : start + 1 + length]
        known_from = start if from_zero else 0
        expected = oracle_positions(whole, known_from)[start - known_from :][:length]
        assert positions.tolist() == expected


@pytest.mark.parametrize(("start", "length"), [(-1, 2), (0, 6), (6, 0), (2, -1)])
def test_a_window_outside_the_stream_is_refused(start, length):
    with pytest.raises(ValueError, match=rf"<= 5, .*: got start={start}, length={length}"):
        window(stream_of([b"abcd"]), start, length, from_zero=True)


@given(texts, st.data())
def test_rows_are_cut_out_of_a_ring(texts, data):
    stream = stream_of(texts)
    seq_len = data.draw(st.integers(1, 2 * len(stream)))
    start = data.draw(st.integers(0, 2 * len(stream)))
    known_from = data.draw(st.integers(0, start))
    length = data.draw(st.integers(0, seq_len))
    batch = cut(stream, np.array([start]), np.array([length]), seq_len, np.array([known_from]))
    unrolled = stream.tokens.tolist() * 5
    padding = seq_len - length
    assert batch.tokens[0].tolist() == unrolled[start : start + length] + [0] * padding
    assert batch.targets[0].tolist() == unrolled[start + 1 : start + 1 + length] + [IGNORE] * padding
    expected = oracle_positions(unrolled, known_from)[start - known_from :][:length]
    assert batch.positions[0].tolist() == expected + [0] * padding
    assert batch.length.tolist() == [length]


@given(st.lists(st.lists(st.integers(0, 300), max_size=8).map(lambda d: np.array(d, np.int64)), max_size=12))
def test_packing_keeps_every_document_whole_once_and_alone(documents):
    batch = pack(documents, seq_len=8)
    assert all(array.dtype == np.int32 for array in batch)
    found = []
    for tokens, targets, positions, length in zip(*batch, strict=True):
        assert 0 < length <= 8
        starts = np.flatnonzero(positions[:length] == 0)
        assert starts[0] == 0
        for start, end in zip(starts, [*starts[1:], length], strict=True):
            found.append(tokens[start:end].tolist())
            assert positions[start:end].tolist() == list(range(end - start))
            assert targets[start:end].tolist() == [*tokens[start + 1 : end], IGNORE]
        assert (targets[length:] == IGNORE).all()
        assert (tokens[length:] == 0).all()
    assert sorted(found) == sorted(d.tolist() for d in documents if len(d))


@given(st.lists(st.integers(1, 8), min_size=1, max_size=20))
def test_packing_is_first_fit(sizes):
    batch = pack([np.full(size, number) for number, size in enumerate(sizes)], seq_len=8)
    used: list[int] = []
    for size in sizes:
        row = next((row for row, taken in enumerate(used) if taken + size <= 8), len(used))
        used[row : row + 1] = [(used[row] if row < len(used) else 0) + size]
    assert batch.length.tolist() == used


def test_packing_refuses_a_document_longer_than_a_row():
    with pytest.raises(ValueError, match="at most seq_len=3 tokens: got one of 5"):
        pack([np.arange(2), np.arange(5)], seq_len=3)
