import re

import pytest

from griffin_eqx.data import DataError, load_corpus, open_tokenizer, shakespeare

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def corpus():
    return load_corpus("shakespeare")


def names(corpus, split):
    return {document.name for document in corpus.splits[split]}


def test_the_plays_are_split_by_play(corpus):
    assert [len(corpus.splits[split]) for split in ("train", "validation", "test")] == [34, 2, 2]
    every = [document.name for documents in corpus.splits.values() for document in documents]
    assert len(set(every)) == len(every) == 38
    texts = {document.text for documents in corpus.splits.values() for document in documents}
    assert len(texts) == 38
    for split in ("validation", "test"):
        assert {name.split("/")[0] for name in names(corpus, split)} == {"comedies", "tragedies"}


def test_the_text_is_the_one_that_results_were_measured_on(corpus):
    assert corpus.digest.startswith("0d95a55f9db0a721")
    sizes = [corpus.num_bytes(split) for split in ("train", "validation", "test")]
    assert sizes == [4_507_525, 216_362, 274_190]
    assert "MIT" in corpus.source["edition"]


def test_no_markup_is_left(corpus):
    for documents in corpus.splits.values():
        for document in documents:
            text = document.text.decode("ascii")
            assert re.search(r"[*_#\[\]\\<>`$|{}\t\r]|&(?!c\b| [A-Z][A-Za-z])|://| $", text, re.M) is None, (
                document.name
            )
            assert "\n\n\n" not in text
            assert text.endswith("\n")
            assert not text.endswith("\n\n")


def test_the_layout_is_the_familiar_one(corpus):
    (hamlet,) = (d.text.decode() for d in corpus.splits["train"] if d.name == "tragedies/hamlet")
    assert hamlet.startswith(
        "Hamlet\n\nACT I\n\nSCENE I. Elsinore. A platform before the castle.\n\n"
        "(FRANCISCO at his post. Enter to him BERNARDO)\n\n"
        "BERNARDO:\nWho's there?\n\nFRANCISCO:\nNay, answer me: stand, and unfold yourself.\n"
    )


def test_the_smaller_corpus_is_a_part_of_the_larger(corpus):
    small = load_corpus("shakespeare-1m")
    assert names(small, "train") == set(shakespeare.PLAYS_1M) < names(corpus, "train")
    assert 1_000_000 < small.num_bytes("train") < 1_200_000
    for split in ("validation", "test"):
        assert small.splits[split] == corpus.splits[split]
    assert small.digest != corpus.digest


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_one_flipped_bit_is_noticed(monkeypatch, place):
    read = shakespeare._read

    def damaged(name, what):
        content = bytearray(read(name, what))
        content[place] ^= 1
        return bytes(content)

    monkeypatch.setattr(shakespeare, "_read", damaged)
    for name in ("shakespeare", "shakespeare-1m"):
        with pytest.raises(DataError, match=r"damaged.*\n.*shakespeare.jsonl.xz.*\n.*Reinstall"):
            load_corpus(name)
    with pytest.raises(DataError, match=r"damaged.*\n.*shakespeare.model.*\n.*Reinstall"):
        open_tokenizer("shakespeare")


def test_a_missing_file_is_named(monkeypatch):
    monkeypatch.setattr(shakespeare, "FILE", "not-there.xz")
    monkeypatch.setattr(shakespeare, "VOCABULARY", "not-there.model")
    with pytest.raises(DataError, match=r"cannot be read.*\n.*not-there.xz"):
        load_corpus("shakespeare")
    with pytest.raises(DataError, match=r"cannot be read.*\n.*not-there.model"):
        open_tokenizer("shakespeare")


def test_the_vocabulary_spells_every_play(corpus):
    tokenizer = open_tokenizer("shakespeare")
    assert tokenizer.vocab_size == 2048
    for split in corpus.splits.values():
        for play in split:
            ids = tokenizer.encode(play.text)
            assert tokenizer.num_bytes(ids) == len(play.text) > 2.4 * len(ids)
            assert tokenizer.decode(ids) == play.text.decode()
