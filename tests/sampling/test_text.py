"""Text as its tokens come: nothing half, nothing lost, nothing twice."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_eqx.data import ByteTokenizer
from griffin_eqx.sampling.text import TextStream

pytestmark = pytest.mark.core

DECODE = ByteTokenizer().decode
# Bytes of all roles in UTF-8, whole characters, and a document's beginning, which is no text.
roles = st.lists(
    st.sampled_from([0x41, 0x80, 0xBF, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xED, 0xF0, 0x9F, 0xFF, 256])
)
texts = st.text(max_size=12).map(lambda text: ByteTokenizer().encode(text).tolist())


def _cut(tokens, cuts):
    edges = [0, *sorted(cut % (len(tokens) + 1) for cut in cuts), len(tokens)]
    return [tokens[start:stop] for start, stop in itertools.pairwise(edges)]


@given(roles | texts, st.lists(st.integers(0, 50), max_size=12))
@settings(settings.get_profile("fuzz"))
def test_pieces_are_the_text_of_all_tokens(tokens, cuts):
    stream = TextStream(DECODE)
    assert "".join(map(stream.feed, _cut(tokens, cuts))) + stream.end() == DECODE(tokens)


@given(texts.filter(lambda tokens: b"\xef\xbf\xbd" not in bytes(tokens)))
@settings(settings.get_profile("fuzz"))
def test_byte_by_byte_no_character_is_shown_before_it_is_whole(tokens):
    stream = TextStream(DECODE)
    pieces = [stream.feed([token]) for token in tokens]
    assert "\ufffd" not in "".join(pieces)
    assert stream.end() == ""


def test_a_tokenizer_that_drops_the_first_space_keeps_those_between_pieces():
    words = ["▁To", "▁be", ",", "▁or"]

    def decode(tokens):
        return "".join(words[token] for token in tokens).replace("▁", " ").removeprefix(" ")

    stream = TextStream(decode)
    assert "".join(stream.feed([token]) for token in range(4)) + stream.end() == "To be, or"
