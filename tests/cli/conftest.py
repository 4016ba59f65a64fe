"""Commands run in this process: exit code, standard output, standard error."""

from typing import NamedTuple

import pytest

from griffin_eqx import registry
from griffin_eqx.cli import main


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def griffin(capsys, monkeypatch, tmp_path):
    """`griffin("info", "--json")`, in an empty folder; what it adds to the registry is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    before = registry.default._added

    def run(*argv: str) -> Answer:
        capsys.readouterr()
        code = main(list(argv))
        return Answer(code, *capsys.readouterr())

    yield run
    registry.default._added = before
