import base64
import hashlib
import importlib.metadata
import sys

import pytest

from griffin_eqx.data import DataError, load_corpus, pysource


def install(folder, package, files, record=None):
    """Lays out a package as an installer would, and gives the lines of its RECORD."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = []
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(text)}")
    lines = lines if record is None else record(lines)
    if lines is not None:
        (info / "RECORD").write_text("\n".join([*lines, f"{info.name}/RECORD,,", "../../bin/tool.py,,"]))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that stands in for site-packages, with scipy in it and nothing else."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    install(tmp_path, "scipy", {f"scipy/m{n}.py": b"x = %d\n" % n for n in range(20)})
    return tmp_path


@pytest.mark.core
def test_files_are_sorted_split_by_package_and_described(site):
    files = {"optax/b.py": b"b\n", "optax/a.py": b"a\n", "optax/empty.py": b"", "optax/data.txt": b"t\n"}
    install(site, "optax", files)
    corpus = load_corpus("pysource")
    assert [document.name for document in corpus.splits["train"]] == ["optax/a.py", "optax/b.py"]
    held_out = corpus.splits["validation"] + corpus.splits["test"]
    assert {document.name for document in held_out} == {f"scipy/m{n}.py" for n in range(20)}
    assert len(held_out) == 20
    assert corpus.source == {"optax": "1.0", "scipy": "1.0"}


@pytest.mark.core
@pytest.mark.parametrize(
    ("record", "says"),
    [
        (lambda lines: [line.replace("sha256=", "sha256=x") for line in lines], "RECORD says sha256=x"),
        (lambda lines: [line.split(",")[0] + ",," for line in lines], "RECORD says nothing"),
        (lambda lines: [*lines, "optax/gone.py,sha256=x,1"], "No such file.*\n.*optax/gone.py"),
        (lambda lines: [*lines, "optax/b.py"], "has 1 columns"),
        (lambda lines: None, "has no RECORD"),
    ],
)
def test_a_file_that_differs_from_its_record_is_refused(site, record, says):
    install(site, "optax", {"optax/a.py": b"a\n"}, record)
    with pytest.raises(DataError, match=says) as caught:
        load_corpus("pysource")
    assert "optax" in str(caught.value)


@pytest.mark.core
def test_a_changed_file_is_refused(site):
    install(site, "optax", {"optax/a.py": b"a\n"})
    (site / "optax/a.py").write_bytes(b"b\n")
    with pytest.raises(DataError, match=r"of optax is not what was installed.*\n.*optax/a.py.*\n.*Reinstall"):
        load_corpus("pysource")


@pytest.mark.core
def test_too_few_packages_are_refused(site):
    with pytest.raises(DataError, match="no Python source for train"):
        load_corpus("pysource")


def test_the_installed_packages_match_their_records():
    corpus = load_corpus("pysource")
    assert {"jax", "numpy", "scipy"} <= corpus.source.keys() <= {*pysource.TRAIN, pysource.HELD_OUT}
    assert corpus.source["jax"] == importlib.metadata.version("jax")
    names = {split: [d.name for d in documents] for split, documents in corpus.splits.items()}
    assert not any(name.startswith("scipy/") for name in names["train"])
    assert all(name.startswith("scipy/") for name in names["validation"] + names["test"])
    assert not set(names["validation"]) & set(names["test"])
    assert corpus.num_bytes("train") > 20_000_000
