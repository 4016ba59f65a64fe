"""What processes agree upon is the same in all of them, and an error in one ends all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_eqx.errors import ConfigError
from griffin_eqx.processes import ALONE, Group, LostProcessError
from tests.processes.together import Together


@settings(max_examples=10)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), max_size=5))
def test_all_get_the_same_answers(rounds):
    together = Together(3)

    def ask(group):
        mine = [flags[group.index] for flags in rounds]
        return [(group.any(flag), group.told(["first", flag]), group.decided(flag, sum)) for flag in mine]

    answers = [(any(flags), ["first", flags[0]], sum(flags)) for flags in rounds]
    assert together.each(ask) == [answers] * 3
    together.each(Group.leave)
    together.close()


def test_alone_a_process_answers_itself():
    assert ALONE.any(True)
    assert not ALONE.any(False)
    assert ALONE.told(3) == 3
    assert ALONE.decided(3, sum) == 3
    assert (ALONE.is_first, ALONE.is_several, ALONE.count) == (True, False, 1)
    ALONE.leave()


@pytest.mark.parametrize("fails", [0, 1])
def test_an_error_in_one_ends_all_with_its_reason(fails):
    together = Together(3)

    def work(group):
        try:
            with group.together():
                group.any(False)
                if group.index == fails:
                    raise ConfigError("train.steps is too small.\nTake more.")
                group.any(False)
        except (LostProcessError, ConfigError) as error:
            return error

    errors = together.each(work)
    for index, error in enumerate(errors):
        if index == fails:
            assert isinstance(error, ConfigError)
        else:
            assert str(error) == (
                f"Process {fails} of this training is gone, so process {index} ends as well.\n"
                "  it stopped by an error: ConfigError: train.steps is too small.\n"
                "  Mend what it says; then the same command for all goes on from the last complete checkpoint."
            )
            assert isinstance(error, LostProcessError)
            assert error.exit_code == 6
    together.close()


def test_a_failed_computation_is_told_as_the_process_that_it_misses():
    together = Together(2)

    def work(group):
        try:
            with group.together():
                raise KeyboardInterrupt if group.index else RuntimeError("Gloo: connection closed by peer")
        except (LostProcessError, KeyboardInterrupt) as error:
            return error

    lost, _ = together.each(work)
    assert "it stopped by an error: KeyboardInterrupt\n" in str(lost)
    assert isinstance(lost.__cause__, RuntimeError)
    together.close()
