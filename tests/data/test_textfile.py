import gzip
import itertools
import lzma
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.data import DataError, load_corpus, textfile

pytestmark = pytest.mark.core

LINES = b"".join(b"line %d\n" % n for n in range(1000))
SPLITS = ("train", "validation", "test")


def load(path):
    return load_corpus(f"file:{path}")


def texts(corpus):
    return {split: b"".join(document.text for document in corpus.splits[split]) for split in SPLITS}


def test_a_file_is_cut_at_line_ends_into_90_5_and_5_percent(tmp_path):
    (tmp_path / "a.txt").write_bytes(LINES)
    corpus = load(tmp_path / "a.txt")
    parts = texts(corpus)
    assert b"".join(parts.values()) == LINES
    assert all(part.endswith(b"\n") for part in parts.values())
    shares = [len(part) / len(LINES) for part in parts.values()]
    assert shares == pytest.approx([0.9, 0.05, 0.05], abs=0.005)
    assert {document.name for documents in corpus.splits.values() for document in documents} == {"a.txt"}
    assert corpus.name == f"file:{tmp_path / 'a.txt'}"


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".XZ", lzma.compress)])
def test_compressed_files_are_the_files_in_them(tmp_path, suffix, compress):
    (tmp_path / "a.txt").write_bytes(LINES)
    (tmp_path / f"a.txt{suffix}").write_bytes(compress(LINES))
    assert texts(load(tmp_path / f"a.txt{suffix}")) == texts(load(tmp_path / "a.txt"))


@given(st.binary(min_size=textfile.MIN_BYTES, max_size=400) | st.text("ab\n", min_size=100).map(str.encode))
def test_a_cut_loses_nothing_and_leaves_no_part_empty(text):
    parts = textfile._cut(text)
    assert b"".join(parts) == text
    assert len(parts) == 3
    assert all(parts)


@pytest.mark.parametrize("count", [3, 4, 20, 100])
def test_a_folder_is_split_by_document(tmp_path, count):
    for number in range(count):
        folder = tmp_path / f"folder{number % 3}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.txt").write_bytes(b"text %d\n" % number * 10)
    (tmp_path / ".hidden").write_bytes(b"no")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_bytes(b"no")
    (tmp_path / "empty.txt").write_bytes(b"")
    corpus = load(tmp_path)
    found = {split: [document.name for document in corpus.splits[split]] for split in SPLITS}
    assert sorted(itertools.chain(*found.values())) == sorted(f"folder{n % 3}/{n}.txt" for n in range(count))
    assert all(names == sorted(names) for names in found.values())
    assert len(found["validation"]) == len(found["test"]) == max(1, round(count * 0.05))
    assert load(tmp_path).digest == corpus.digest


def test_a_folder_of_two_files_is_cut_within_them(tmp_path):
    (tmp_path / "a.txt").write_bytes(LINES)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(LINES))
    corpus = load(tmp_path)
    for split in SPLITS:
        assert [document.name for document in corpus.splits[split]] == ["a.txt", "b.txt.gz"]


def test_the_digest_does_not_depend_on_where_the_text_lies(tmp_path):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_bytes(LINES)
    assert load(tmp_path / "here" / "a.txt").digest == load(tmp_path / "there" / "a.txt").digest


def test_the_home_folder_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_bytes(LINES)
    assert load("~/a.txt").num_bytes("train") > 0


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.txt", None, "There is no such file"),
        ("empty.txt", b"", "only 0 bytes of text; at least 100"),
        ("short.txt", b"short\n", "only 6 bytes of text"),
        ("bad.gz", b"not gzip at all" * 20, "cannot be unpacked"),
        ("bad.xz", b"not xz at all" * 20, "cannot be unpacked"),
        ("cut.gz", gzip.compress(LINES)[:-20], "cannot be unpacked"),
        ("cut.xz", lzma.compress(LINES)[:-20], "cannot be unpacked"),
        (
            "flip.gz",
            gzip.compress(LINES)[:30] + b"\xff\x00\xff" + gzip.compress(LINES)[33:],
            "cannot be unpacked",
        ),
        ("x" * 300, None, "no such file|cannot be read"),
        ("a\0b", None, "no such file|cannot be read"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        load(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 3
    assert name.replace("\0", "\\x00") in str(caught.value).replace("\0", "\\x00")


def test_a_folder_without_text_is_refused(tmp_path):
    with pytest.raises(DataError, match="only 0 bytes"):
        load(tmp_path)


def test_no_path_is_refused():
    with pytest.raises(DataError, match="No path is given"):
        load("")


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(LINES)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        load(tmp_path / "a.txt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_devices_are_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        load(tmp_path / "pipe")
    (tmp_path / "a.txt").write_bytes(LINES)
    assert load(tmp_path).num_bytes("train") > 0


def test_text_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(textfile, "MAX_BYTES", 5000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(LINES))
    with pytest.raises(DataError, match="a corpus lives in memory"):
        load(tmp_path / "a.gz")
