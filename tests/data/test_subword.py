"""Tokenizers from files, made by the libraries that others make them with (`tests/tokenizer_files.py`)."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.data import (
    ByteTokenizer,
    DataError,
    Document,
    encode_documents,
    load_corpus,
    open_tokenizer,
)
from tests import tokenizer_files

pytestmark = pytest.mark.core

LOSSLESS = {
    "shakespeare": lambda folder: "shakespeare",
    "byte-level": tokenizer_files.byte_level,
    "byte-fallback": tokenizer_files.byte_fallback,
    "sentencepiece": tokenizer_files.sentencepiece_model,
}
SPACED = {
    "byte-level": lambda folder: tokenizer_files.byte_level(folder, prefix_space=True),
    "sentencepiece": lambda folder: tokenizer_files.sentencepiece_model(folder, prefix=True),
}
specials = st.sampled_from(["<bos>", "<eos>", "<s>", "</s>", "<|endoftext|>", "<0x0A>", "\u2581", "\ufffd"])
texts = st.lists(st.text() | specials | st.sampled_from(["  ", "\n\n", "né", "🙂", "To be"])).map("".join)


@pytest.fixture(scope="module", params=LOSSLESS)
def tokenizer(request, tmp_path_factory):
    return open_tokenizer(LOSSLESS[request.param](tmp_path_factory.mktemp("tokenizer")))


@given(text=texts)
def test_text_survives_and_its_ids_stand_for_its_bytes(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.uint16
    if "\u2581" not in text:  # what these tokenizers write for a space, so that one becomes the other
        assert tokenizer.decode(ids) == text
        assert tokenizer.num_bytes(ids) == len(text.encode())


@given(text=texts)
def test_no_text_gives_a_special_id(tokenizer, text):
    ids = set(tokenizer.encode(text).tolist())
    assert not ids & {*tokenizer.ends, tokenizer.document}
    assert max(ids, default=0) < tokenizer.vocab_size


def test_specials_and_padding_stand_for_no_bytes(tokenizer):
    ids = np.array([[tokenizer.document, -1], [*tokenizer.encode("x"), tokenizer.ends[-1]]])
    assert tokenizer.num_bytes(ids) == 1
    assert tokenizer.decode([tokenizer.document, *tokenizer.encode("x").tolist(), *tokenizer.ends]) == "x"


@pytest.mark.parametrize("wrong", [-1, 100_000])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer, wrong):
    with pytest.raises(ValueError, match=f"has ids 0 to {tokenizer.vocab_size - 1}: got {wrong}"):
        tokenizer.decode([wrong])


def test_the_file_alone_makes_the_same_tokenizer_again(tokenizer, tmp_path):
    (tmp_path / tokenizer.file.name).write_bytes(tokenizer.file.content)
    again = open_tokenizer(f"file:{tmp_path}")  # a folder: the file is known by its name
    assert again.digest == tokenizer.digest != ByteTokenizer().digest
    assert again.encode("Now is the winter").tolist() == tokenizer.encode("Now is the winter").tolist()
    assert again.name == f"file:{tmp_path}"


def test_a_corpus_comes_to_its_bytes(tokenizer):
    documents = load_corpus("shakespeare-1m").splits["validation"]
    stream = encode_documents(documents, tokenizer)
    assert tokenizer.num_bytes(stream.tokens) == sum(len(document.text) for document in documents)
    assert len(stream) < 0.7 * tokenizer.num_bytes(stream.tokens)
    assert (stream.tokens[stream.document_starts] == tokenizer.document).all()


@pytest.mark.parametrize("make", SPACED.values(), ids=SPACED)
@given(text=texts)
def test_a_space_that_stands_before_every_text_is_not_counted(make, tmp_path_factory, text):
    tokenizer = _SPACED.setdefault(make, None) or open_tokenizer(make(tmp_path_factory.mktemp("spaced")))
    _SPACED[make] = tokenizer
    document = Document("d", ("x" + text.replace("\u2581", "")).encode())
    stream = encode_documents([document], tokenizer)
    assert tokenizer.num_bytes(stream.tokens) == len(document.text)


_SPACED: dict = {}


def test_recurrent_gemmas_special_ids(tmp_path):
    for make in (tokenizer_files.sentencepiece_model, tokenizer_files.byte_fallback):
        tokenizer = open_tokenizer(make(tmp_path))
        assert (tokenizer.document, tokenizer.ends) == (2, (2, 1))


def test_a_tokenizer_that_changes_the_text_is_refused(tmp_path):
    lossy = open_tokenizer(tokenizer_files.sentencepiece_model(tmp_path, normalization="nmt_nfkc"))
    with pytest.raises(DataError) as caught:
        encode_documents([Document("notes.txt", b"two  spaces  and\n\nnew lines\n")], lossy)
    assert str(caught.value).splitlines()[:2] == [
        f"The tokenizer {lossy.name} does not keep this text: of its 28 bytes the tokens stand for 24.",
        "  in notes.txt",
    ]


def test_bytes_that_are_no_text_are_refused_with_their_place(tokenizer):
    with pytest.raises(DataError) as caught:
        encode_documents([Document("a.bin", b"abc\xff")], tokenizer)
    assert str(caught.value) == (
        "This is no UTF-8 text, which sub-word tokenizers need: invalid start byte.\n"
        "  at byte 3 of a.bin\n"
        "  Convert it to UTF-8, or use data.tokenizer=bytes, which reads anything."
    )
    with pytest.raises(DataError, match="at byte 1"):
        tokenizer.encode("x\udcff")  # as the command line hands over bytes that are no text


def test_bytes_are_a_tokenizer_by_name():
    assert isinstance(open_tokenizer("bytes"), ByteTokenizer)
    assert open_tokenizer("bytes").file is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "byts",
            "There is no tokenizer 'byts'.\n  known: bytes, shakespeare, file:PATH\n  Did you mean 'bytes'?",
        ),
        (
            "there.json",
            "There is no tokenizer 'there.json'.\n  known: bytes, shakespeare, file:PATH\n"
            "  Did you mean 'file:there.json'?",
        ),
        ("file:", "No path is given.\n  after file:\n  Give a file, file:PATH."),
        (
            "file:gone.json",
            "There is no such tokenizer.\n  at gone.json\n"
            "  Check the path; it counts from the folder in which the command runs.",
        ),
        (
            "file:empty",
            "This folder has no tokenizer.\n  in empty\n"
            "  Put a tokenizer.json or a tokenizer.model there, or name the file itself.",
        ),
        (
            "file:notes.txt",
            "This is no tokenizer's file: its name ends neither in .json nor in .model.\n  at notes.txt\n"
            "  Give a Hugging Face tokenizer.json or a SentencePiece *.model.",
        ),
    ],
)
def test_a_name_that_is_no_tokenizers(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    for file in ("there.json", "notes.txt"):
        Path(file).write_text("{}")
    Path("empty").mkdir()
    with pytest.raises(DataError) as caught:
        open_tokenizer(name)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["t.json", "t.model"])
@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b"\0\1\2 not a model", b'{"model": {"type": "BPE"}}']
)
def test_a_damaged_file_is_one_error_that_names_it(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_tokenizer(tmp_path / name)
    what, where, hint = str(caught.value).splitlines()
    assert what.startswith(("This tokenizer cannot be read: ", "This tokenizer has no token that begins"))
    assert where == f"  at file:{tmp_path / name}"
    assert hint


def test_a_missing_library_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "t.json").write_bytes(b"{}")
    monkeypatch.setitem(sys.modules, "tokenizers", None)  # what an import then meets is an ImportError
    with pytest.raises(DataError) as caught:
        open_tokenizer(tmp_path / "t.json")
    assert str(caught.value) == (
        "To read this tokenizer takes the package tokenizers, which is not installed.\n"
        f"  at file:{tmp_path / 't.json'}\n  Install it: pip install 'griffin_eqx[tokenizers]'"
    )
