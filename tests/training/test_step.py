import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from griffin_eqx.training.naming import flatten
from griffin_eqx.training.step import init_state, make_step

FRESH = jnp.zeros(4, bool)


def fresh(config):
    return init_state(config, key=jax.random.key(0))


def differing(before, after):
    return {
        n for n in before if not np.array_equal(before[n], after[n], equal_nan=before[n].dtype.kind == "f")
    }


def test_accumulation_equals_the_full_batch(make_config, make_batch):
    results = []
    for parts in (1, 2):
        config = make_config(accumulation=parts, warmup_steps=0, eps=1.0, pattern="rg_lru", carry=True)
        batch = make_batch(config)
        # Rows with different numbers of targets: the mean is over all of them, not over the parts' means.
        batch = batch._replace(targets=batch.targets.at[0].set(-1).at[1, 3:].set(-1))
        state, metrics = make_step(config)(fresh(config), batch, FRESH)
        results.append((flatten(state), metrics))
    (one, one_metrics), (two, two_metrics) = results
    assert int(one_metrics.targets) == int(two_metrics.targets) == 2 * 16 + 3
    # Sums in another order, float32: some units in the last place. (eps=1 keeps AdamW from dividing noise
    # by noise where a gradient is almost zero.)
    np.testing.assert_allclose(one_metrics.nll, two_metrics.nll, rtol=1e-6)
    np.testing.assert_allclose(one_metrics.grad_norm, two_metrics.grad_norm, rtol=1e-5)
    for name, array in one.items():
        np.testing.assert_allclose(array, two[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_bfloat16_computes_and_float32_learns(make_config, make_batch):
    config = make_config(precision="p=f32,c=bf16,o=f32,s=f32", warmup_steps=0, pattern="rg_lru")
    step, batch, state = make_step(config), make_batch(config), fresh(config)
    losses = []
    for _ in range(8):
        state, metrics = step(state, batch, FRESH)
        assert metrics.finite
        losses.append(float(metrics.nll) / int(metrics.targets))
    assert losses[-1] < losses[0] - 0.1
    assert {array.dtype for array in flatten({"model": state.model}).values()} == {np.dtype("float32")}


@pytest.mark.core
def test_a_batch_that_is_not_finite_changes_nothing_and_is_counted(make_config, make_batch):
    config = make_config(carry=True, warmup_steps=0, pattern="rg_lru")
    step = make_step(config)
    good = make_batch(config)
    state, _ = step(fresh(config), good, FRESH)
    poisoned = eqx.tree_at(
        lambda s: s.model.final_norm.scale, state, replace_fn=lambda z: z.at[3].set(jnp.nan)
    )
    before = flatten(poisoned)
    after_state, metrics = step(poisoned, good, ~FRESH)
    after = flatten(after_state)
    assert not metrics.finite
    changed = differing(before, after)
    assert {name for name in changed if not name.startswith("cache.")} == {"step", "skipped"}
    assert (int(after_state.step), int(after_state.skipped)) == (2, 1)
    # The cache starts anew: what the bad batch left in it may be bad too.
    assert all((array == 0).all() for name, array in after.items() if name.startswith("cache."))
    state, _ = step(after_state, good, FRESH)
    assert int(state.skipped) == 2
    healed = eqx.tree_at(lambda s: s.model.final_norm.scale, state, replace_fn=lambda z: z.at[3].set(1.0))
    state, metrics = step(healed, good, FRESH)
    assert metrics.finite
    assert (int(state.step), int(state.skipped)) == (4, 0)


def test_a_carried_cache_is_dropped_where_a_row_does_not_go_on(make_config, make_batch):
    config = make_config(carry=True, learning_rate=0.0, pattern="rg_lru")
    step, batch = make_step(config), make_batch(config)
    goes_on = jnp.array([True, False, False, True])
    first, _ = step(fresh(config), batch, FRESH)
    held = {name: array for name, array in flatten(first).items() if name.startswith("cache.")}
    # Positions count on, or the recurrence would restart by itself.
    later = batch._replace(positions=batch.positions + 16)
    second, _ = step(first, later, goes_on)
    alone, _ = step(fresh(config), later, FRESH)
    a, b = flatten(second), flatten(alone)
    for name in held:
        same = [np.array_equal(a[name][row], b[name][row]) for row in range(4)]
        if name.endswith(".h"):
            assert same == [False, True, True, False]
