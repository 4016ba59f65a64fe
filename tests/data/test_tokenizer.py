import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.data import ByteTokenizer

pytestmark = pytest.mark.core


@given(st.text())
def test_text_survives_encode_and_decode(text):
    ids = ByteTokenizer().encode(text)
    assert ids.dtype == np.uint16
    assert ByteTokenizer().decode(ids) == text


@given(st.binary())
def test_the_ids_of_bytes_are_the_bytes(raw):
    assert ByteTokenizer().encode(raw).tolist() == list(raw)


@given(st.lists(st.integers(0, 256)))
def test_decoding_never_fails_and_drops_specials(ids):
    expected = bytes(i for i in ids if i < 256).decode("utf-8", "replace")
    assert ByteTokenizer().decode(ids) == ByteTokenizer().decode(np.array(ids, np.int32)) == expected


@pytest.mark.parametrize("wrong", [257, -1, 1000])
def test_an_id_outside_the_vocabulary_is_refused(wrong):
    with pytest.raises(ValueError, match=f"ids 0 to 256: got {wrong}"):
        ByteTokenizer().decode([65, wrong])


def test_facts():
    tokenizer = ByteTokenizer()
    assert (tokenizer.name, tokenizer.vocab_size, tokenizer.document) == ("bytes", 257, 256)
    assert tokenizer.dtype is np.uint16
    # Checkpoints hold this digest: if it changes, so has the meaning of the ids.
    assert tokenizer.digest.startswith("07a1230c511de927")
