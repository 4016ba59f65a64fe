"""How a prompt is cut into chunks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.sampling.prompts import chunks

pytestmark = pytest.mark.core


@given(tokens=st.integers(0, 10_000), largest=st.integers(1, 4096))
def test_chunks_read_every_token_once_with_little_filler(tokens, largest):
    cut, end = list(chunks(tokens, largest)), 0
    for start, places in cut:
        assert start == end < tokens
        assert 1 <= places <= largest
        end = start + places
    assert end >= tokens
    if cut:
        filler, places = end - tokens, cut[-1][1]
        assert filler < places
        if places > 512:
            assert 4 * filler <= places
    # Whole ones first; of other sizes there are few, and each is a program.
    assert len({places for _, places in cut}) <= 4


@pytest.mark.parametrize(
    ("tokens", "sizes"),
    [
        (0, []),
        (1, [16]),
        (300, [512]),
        (512, [512]),
        (600, [512, 128]),
        (768, [1024]),
        (1024, [1024]),
        (1025, [1024, 16]),
    ],
)
def test_common_lengths(tokens, sizes):
    assert [places for _, places in chunks(tokens, 1024)] == sizes
