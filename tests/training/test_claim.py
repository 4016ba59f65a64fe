"""One run directory for several processes: all want the same, the first writes, the others see it."""

import pytest

from griffin_eqx.errors import RunError
from griffin_eqx.processes import LostProcessError
from griffin_eqx.training import claim
from tests.processes.together import Together

FACTS = {"packages": {"jax": "1"}, "data": {"digest": "d"}, "platform": "here"}


@pytest.fixture
def together():
    groups = Together(3)
    yield groups
    groups.close()


def claimed(together, path_of, config_of, facts_of):
    """What `claimed` comes to in each process: None, or its error."""

    def work(group):
        try:
            with (
                group.together(),
                claim.claimed(
                    group, path_of(group.index), config_of(group.index), facts_of(group.index), None
                ),
            ):
                group.any(False)  # none leaves before all have come in
        except (RunError, LostProcessError) as error:
            return error
        group.leave()  # or the end of its line would end this process
        return None

    return together.each(work)


def test_the_first_process_writes_and_the_others_see_it(together, make_config, tmp_path):
    config = make_config()
    facts = [FACTS | {"platform": str(index)} for index in range(3)]  # machines may differ
    assert claimed(together, lambda _: tmp_path, lambda _: config, facts.__getitem__) == [None] * 3
    assert (tmp_path / "config.toml").exists()


@pytest.mark.parametrize(
    ("other", "line"),
    [
        ({"facts": {"data": {"digest": "e"}}}, "data.digest: d in process 0, e there"),
        ({"facts": {"packages": {"jax": "2"}}}, "packages.jax: 1 in process 0, 2 there"),
        ({"config": {"steps": 99}}, "configuration: "),
    ],
)
def test_a_process_that_wants_something_else_is_named_in_all(together, make_config, tmp_path, other, line):
    configs = [make_config(), make_config(**other.get("config", {})), make_config()]
    facts = [FACTS, FACTS | other.get("facts", {}), FACTS]
    errors = claimed(together, lambda _: tmp_path / "run", configs.__getitem__, facts.__getitem__)
    for error in errors:
        assert "Process 1 was started for something else than process 0.\n" in str(error)
    assert any(line in str(error) for error in errors)
    assert not (tmp_path / "run").exists()


def test_a_process_that_does_not_see_the_folder_is_told_to_share_it(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "_SHOWN_SECONDS", 0.2)
    lock = tmp_path / ".lock"
    for content in (None, "process 1\n"):  # a folder of its own, empty or of an older session
        if content is not None:
            lock.write_text(content)
        with pytest.raises(RunError, match="does not see what process 0 writes") as caught:
            claim._wait_to_see(lock, "process 2\n")
        assert str(tmp_path) in str(caught.value)
    lock.write_text("process 2\n")
    claim._wait_to_see(lock, "process 2\n")
