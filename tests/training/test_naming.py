import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from griffin_eqx.training.naming import flatten, specs, unflatten
from griffin_eqx.training.step import init_state

pytestmark = pytest.mark.core

PATTERNS = [
    "rg_lru",
    "rg_lru*3",
    "(rg_lru local_mqa)*2 rg_lru",
    "local_mqa (rg_lru rg_lru)*2",
    "local_mqa rg_lru*2",
]


def shapes(config):
    return eqx.filter_eval_shape(lambda: init_state(config, key=jax.random.key(0)))


def filled(template):
    """Every leaf different from every other."""
    numbers = iter(range(10**6))

    def fill(spec):
        if not isinstance(spec, jax.ShapeDtypeStruct):
            return spec
        return jnp.asarray(
            (np.arange(np.prod(spec.shape)).reshape(spec.shape) + 1000 * next(numbers)), spec.dtype
        )

    return jax.tree.map(fill, template)


@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_names_and_back_changes_nothing(make_config, pattern, carry):
    template = shapes(make_config(pattern=pattern, carry=carry))
    state = filled(template)
    named = flatten(state)
    assert {n: (a.shape, a.dtype) for n, a in named.items()} == {
        n: (s.shape, s.dtype) for n, s in specs(template).items()
    }
    back = unflatten(template, named)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_layer_is_named_by_its_index(make_config, pattern):
    state = filled(shapes(make_config(pattern=pattern, carry=True)))
    named = flatten(state)
    for index, layer in enumerate(state.model.stack.layers()):
        assert np.array_equal(named[f"model.layers.{index}.mlp.up.weight"], layer.mlp.up.weight)
    moments = next(part for part in state.optimizer if hasattr(part, "mu"))
    for index, layer in enumerate(moments.nu.stack.layers()):
        assert np.array_equal(named[f"optimizer.1.nu.layers.{index}.mlp.up.weight"], layer.mlp.up.weight)
    for row in range(4):
        cache = jax.tree.map(lambda z, row=row: z[row], state.cache)
        for index, held in enumerate(state.model.stack.unstack(cache)):
            for key, value in vars(held).items():
                assert np.array_equal(named[f"cache.layers.{index}.{key}"][row], value)


def test_names_do_not_depend_on_how_layers_are_stacked(make_config):
    stacked = shapes(make_config(pattern="rg_lru local_mqa rg_lru local_mqa", carry=True))
    # Layers of one shape, but each with options of its own, so that none repeats.
    apart = shapes(make_config(pattern="rg_lru local_mqa rg_lru[c=7.0] local_mqa[rope_base=5.0]", carry=True))
    assert stacked.model.stack.repeats == (2,)
    assert apart.model.stack.repeats == (1,)
    assert specs(stacked) == specs(apart)


def test_named_arrays_are_copies(make_config):
    state = filled(shapes(make_config(pattern="rg_lru")))
    assert not any(np.shares_memory(np.asarray(state.step), array) for array in flatten(state).values())
