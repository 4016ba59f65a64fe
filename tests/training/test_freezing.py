"""What is frozen stays bit for bit and has no moments; the rest learns as if nothing had been cut."""

import doctest

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_eqx.errors import ConfigError
from griffin_eqx.training import freezing
from griffin_eqx.training.freezing import apart, frozen_parts, matched
from griffin_eqx.training.naming import flatten, specs
from griffin_eqx.training.step import init_state, make_step

FRESH = jnp.zeros(4, bool)
PATHS = ("embedding", "layers.0-1.temporal", "layers.3", "layers.*.mlp_norm")


def is_frozen(name):
    """By hand, for `PATHS`."""
    parts = name.removeprefix("model.").split(".")
    layer = int(parts[1]) if parts[0] == "layers" else None
    return (
        parts[0] == "embedding"
        or layer == 3
        or (layer in (0, 1) and parts[2] == "temporal")
        or (layer is not None and parts[2] == "mlp_norm")
    )


@pytest.mark.core
def test_what_is_frozen_stays_and_has_no_moments(make_config, make_batch):
    config = make_config(pattern="rg_lru*4", warmup_steps=0, freeze=PATHS, accumulation=2)
    state = init_state(config, key=jax.random.key(0))
    before = flatten(state)
    after, _ = make_step(config)(state, make_batch(config), FRESH)
    after = flatten(after)
    model = [name for name in before if name.startswith("model.")]
    assert {name for name in model if np.array_equal(before[name], after[name])} == set(
        filter(is_frozen, model)
    )
    moments = {name.partition(".mu.")[2] for name in before if ".mu." in name}
    assert moments == {name.removeprefix("model.") for name in model if not is_frozen(name)}


@pytest.mark.core
def test_the_rest_learns_as_it_would_with_nothing_frozen(make_config, make_batch):
    # No clipping: its norm is that of what is trained. Decay and moments go by parameter.
    results = []
    for freeze in ((), PATHS):
        one = make_config(pattern="rg_lru*4", warmup_steps=0, freeze=freeze, clip_norm=0.0, eps=1.0)
        state = init_state(one, key=jax.random.key(0))
        results.append(flatten(make_step(one)(state, make_batch(one), FRESH)[0]))
    free, bound = results
    for name in filter(lambda n: n.startswith("model.") and not is_frozen(n), free):
        # Other groups of layers are other programs: float32, some units in the last place.
        np.testing.assert_allclose(bound[name], free[name], rtol=1e-5, atol=1e-7, err_msg=name)


@settings(max_examples=8)
@given(
    st.sampled_from([1, 4]),
    st.lists(
        st.sampled_from(
            ["embedding", "layers.0", "layers.2-3", "layers.*.mlp", "layers.1.temporal", "final_norm"]
        )
    ),
)
def test_cutting_a_stack_changes_no_name_and_no_array(make_config, layers, paths):
    config = make_config(pattern=f"rg_lru*{layers}")
    model = eqx.filter_eval_shape(lambda: init_state(config, key=jax.random.key(0)).model)
    cut = eqx.filter_eval_shape(lambda: apart(init_state(config, key=jax.random.key(0)).model, tuple(paths)))
    assert specs(cut) == specs(model)
    assert sum(cut.stack.repeats) == layers


def test_cut_layers_compute_the_same(make_config):
    config = make_config(pattern="rg_lru*3")
    model = init_state(config, key=jax.random.key(0)).model
    cut = apart(model, ("layers.2.temporal", "embedding"))
    assert cut.stack.repeats == (2, 1)
    scores = eqx.filter_jit(lambda model: model(jnp.arange(9))[0])
    np.testing.assert_allclose(scores(cut), scores(model), rtol=1e-5, atol=1e-6)


@pytest.mark.core
def test_a_path_that_names_nothing_is_an_error_that_lists_what_there_is(make_config):
    with pytest.raises(ConfigError) as caught:
        frozen_parts(make_config(freeze=("embedding", "layer.0", "layers.7")))
    what, where, hint = str(caught.value).splitlines()
    assert what == "train.freeze: no parameter is named 'layer.0', 'layers.7'."
    assert "embedding.weight, final_norm.scale, layers.*.mlp." in where
    assert "layers.0-3" in hint
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        frozen_parts(make_config(freeze=("*",)))


@pytest.mark.core
def test_what_is_frozen_is_told_by_path(make_config):
    parts = frozen_parts(make_config(pattern="rg_lru*2", freeze=("embedding", "layers.1.mlp_norm")))
    assert [(part.path, part.names) for part in parts] == [
        ("embedding", ("embedding.weight",)),
        ("layers.1.mlp_norm", ("layers.1.mlp_norm.scale",)),
    ]
    assert [part.size for part in parts] == [384 * 16, 16]


def test_paths():
    assert doctest.testmod(freezing).failed == 0
    assert matched("layers.1", ["layers.1.a", "layers.10.a"]) == ("layers.1.a",)
    assert matched("layers.9-10.a", ["layers.1.a", "layers.10.a", "layers.10.b"]) == ("layers.10.a",)
