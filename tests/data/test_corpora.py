import pytest

from griffin_eqx.data import Corpus, DataError, Document, load_corpus

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("shakspeare", "Did you mean 'shakespeare'?"),
        ("PySource", "Did you mean 'pysource'?"),
        ("enwik8-large", "For text of your own give file:PATH."),
        ("", "For text of your own give file:PATH."),
        ("\0", "For text of your own give file:PATH."),
        ("x" * 5000, "For text of your own give file:PATH."),
    ],
)
def test_an_unknown_corpus_says_what_where_and_what_to_do(name, hint):
    with pytest.raises(DataError) as caught:
        load_corpus(name)
    what, where, todo = str(caught.value).splitlines()
    assert what == f"There is no corpus {name!r}."
    assert where == "  known: shakespeare, shakespeare-1m, pysource, file:PATH"
    assert todo == f"  {hint}"


def test_a_path_without_its_prefix_is_recognised(tmp_path):
    with pytest.raises(DataError, match="Did you mean 'file:"):
        load_corpus(str(tmp_path))


def corpus(train, validation=b"v", names=("a", "b")):
    documents = tuple(Document(name, text) for name, text in zip(names, train, strict=True))
    splits = {"train": documents, "validation": (Document("v", validation),), "test": (Document("t", b"t"),)}
    return Corpus("made up", splits, {})


def test_the_digest_covers_names_bytes_and_the_borders_between_documents():
    digests = {
        corpus([b"xy", b"z"]).digest,
        corpus([b"x", b"yz"]).digest,
        corpus([b"xy", b"z"], names=("a", "c")).digest,
        corpus([b"z", b"xy"]).digest,
        corpus([b"xy", b"z"], validation=b"w").digest,
    }
    assert len(digests) == 5
    assert corpus([b"xy", b"z"]).digest == corpus([b"xy", b"z"]).digest


def test_showing_a_corpus_does_not_show_its_text():
    assert "secret" not in repr(corpus([b"secret", b"z"]))
