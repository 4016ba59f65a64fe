"""Checkpoints of several processes: who writes what, and that it comes back whole or not at all."""

import shutil
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.errors import CheckpointError
from griffin_eqx.processes import Group
from griffin_eqx.training import checkpoints, parts
from griffin_eqx.training.checkpoints import Checkpoints, Standing
from griffin_eqx.training.naming import flatten
from griffin_eqx.training.step import init_state

pytestmark = pytest.mark.core

COUNT = 3


class OneOf(Group):
    """One of several processes that all agree, for tests without any other."""

    @property
    def is_several(self):
        return True

    def __init__(self, index):
        super().__init__(index, COUNT, [])

    def told(self, value=None):
        return True


@pytest.fixture(scope="module")
def config(make_config):
    return make_config(pattern="rg_lru*3", carry=True, vocab_size=257)


@pytest.fixture(scope="module")
def state(config):
    made = init_state(config, key=jax.random.key(0))
    return eqx.tree_at(lambda s: s.step, made, jnp.asarray(7, jnp.int32))


@pytest.fixture
def saved(tmp_path, config, state):
    with Checkpoints(tmp_path, keep=2, group=OneOf(0)) as first:
        first.save(state, config, Standing())  # waits in the background for the others
        for index in range(1, COUNT):
            with Checkpoints(tmp_path, keep=2, group=OneOf(index)) as other:
                other.save(state, config, Standing())
    return tmp_path


def template(config):
    return eqx.filter_eval_shape(lambda: init_state(config, key=jax.random.key(0)))


@given(
    st.dictionaries(st.text(max_size=3), st.integers(0, 10**9), min_size=1, max_size=30), st.integers(1, 9)
)
def test_all_is_written_once_and_nobody_has_much_more_than_another(sizes, count):
    owner = parts.owners(sizes, count)
    assert owner.keys() == sizes.keys()
    loads = [sum(sizes[name] for name in sizes if owner[name] == index) for index in range(count)]
    assert max(loads) - min(loads) <= max(sizes.values())
    assert max(sizes.values()) in (sizes[name] for name in sizes if owner[name] == 0)


def test_what_several_wrote_comes_back(saved, config, state):
    back = flatten(checkpoints.restore(saved, 7, template(config), config.model))
    before = flatten(state)
    assert back.keys() == before.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)
    assert {*checkpoints.describe(saved, 7).parts.values()} == {1, 2}
    assert not list((saved / parts.STAGED).iterdir())
    model = checkpoints.restore(saved, 7, {"model": template(config).model}, config.model)["model"]
    assert flatten({"model": model}).keys() == {name for name in before if name.startswith("model.")}


def test_a_part_that_is_damaged_or_gone_is_named(saved, config):
    part = saved / "7" / "parts" / "2"
    content = bytearray((part / "arrays.npz").read_bytes())
    content[len(content) // 2] ^= 1
    for damage in (content, content[: len(content) // 2], None):
        if damage is None:
            shutil.rmtree(part)
        else:
            (part / "arrays.npz").write_bytes(damage)
        with pytest.raises(CheckpointError, match=r"damaged[\s\S]*parts/2"):
            checkpoints.read(saved, 7, template(config), config.model)


def test_the_first_process_does_not_wait_for_one_that_is_gone(tmp_path, config, state):
    started = time.monotonic()
    manager = Checkpoints(tmp_path, keep=2, group=OneOf(0))

    def lost():
        with manager:
            manager.save(state, config, Standing())
            raise RuntimeError("another one is gone")

    with pytest.raises(RuntimeError, match="another one is gone"):
        lost()
    assert time.monotonic() - started < 60
    assert checkpoints.steps(tmp_path) == []
    with pytest.raises(CheckpointError, match="The save of step 7 was given up"):
        manager.wait()


def test_parts_that_were_left_are_removed(tmp_path):
    (tmp_path / parts.STAGED / "4-1").mkdir(parents=True)
    with Checkpoints(tmp_path, keep=2, group=OneOf(0)):
        assert not (tmp_path / parts.STAGED).exists()
