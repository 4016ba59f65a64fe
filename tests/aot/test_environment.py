"""The compiler's environment is whole or not there, and no other environment is touched."""

from pathlib import Path

import pytest

from griffin_eqx.aot import environment
from griffin_eqx.aot.environment import EnvironmentMissing


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(environment.OVERRIDE, raising=False)
    monkeypatch.setattr(environment, "unsupported", lambda: None)
    return tmp_path


@pytest.fixture
def commands(monkeypatch):
    """Commands that would run; the one for `venv` leaves a Python behind."""
    ran = []

    def run(command, what, target):
        ran.append(what)
        if what == "venv":
            Path(target, "bin").mkdir(parents=True)
            Path(target, "bin", "python").touch()

    monkeypatch.setattr(environment, "_run", run)
    return ran


def test_a_second_setup_does_nothing(cache, commands):
    said = []
    first = environment.set_up(said.append)
    assert environment.python() == first / "bin" / "python"
    assert environment.set_up(said.append) == first
    assert commands == ["venv", "pip"]
    assert environment.SIZE in said[0]


def test_an_interrupted_setup_is_not_taken_for_a_finished_one(cache, commands, monkeypatch):
    whole = environment._run

    def interrupted(command, what, target):
        if what == "pip":
            raise KeyboardInterrupt
        whole(command, what, target)

    monkeypatch.setattr(environment, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        environment.set_up(lambda text: None)
    with pytest.raises(EnvironmentMissing):
        environment.python()
    monkeypatch.setattr(environment, "_run", whole)
    environment.set_up(lambda text: None)
    assert environment.python().exists()


def test_a_command_that_fails_leaves_nothing_and_says_what_it_said(cache, monkeypatch):
    monkeypatch.setattr(environment, "REQUIREMENTS", cache / "requirements.txt")
    (cache / "requirements.txt").write_text("jax==0\nlibtpu==0\n")
    monkeypatch.setattr(environment.sys, "executable", "/bin/false")
    with pytest.raises(EnvironmentMissing, match="could not be made: venv"):
        environment.set_up(lambda text: None)
    assert not environment.folder().exists()


def test_an_environment_that_is_missing_names_the_command(cache):
    with pytest.raises(EnvironmentMissing) as raised:
        environment.python()
    what, where, action = str(raised.value).splitlines()
    assert "missing" in what
    assert str(cache) in where
    assert environment.SETUP in action


def test_the_variable_names_another_folder(cache, commands, monkeypatch):
    monkeypatch.setenv(environment.OVERRIDE, str(cache / "mine"))
    assert environment.set_up(lambda text: None) == cache / "mine"
    assert environment.python() == cache / "mine" / "bin" / "python"


def test_a_folder_with_something_else_in_it_is_left_alone(cache, commands, monkeypatch):
    (cache / "mine").mkdir()
    (cache / "mine" / "thesis.tex").touch()
    monkeypatch.setenv(environment.OVERRIDE, str(cache / "mine"))
    with pytest.raises(EnvironmentMissing, match="something other"):
        environment.set_up(lambda text: None)
    assert (cache / "mine" / "thesis.tex").exists()
    assert not commands


def test_the_folder_changes_with_what_is_pinned(cache, monkeypatch):
    before = environment.folder()
    pinned = environment.pins()
    monkeypatch.setattr(environment, "pins", lambda: pinned | {"libtpu": "99"})
    assert environment.folder() != before


def test_no_compiler_on_other_machines(cache, monkeypatch):
    monkeypatch.setattr(environment, "unsupported", lambda: "libtpu is published for Linux on x86_64 alone")
    with pytest.raises(EnvironmentMissing, match="Use such a machine"):
        environment.python()
