"""The products of linear layers equal einsum, whatever transforms surround them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_kernels.rows import block_matmul, block_outer, narrow_matmul, rows_matmul, rows_outer

pytestmark = pytest.mark.core

PRODUCTS = {
    "rows_matmul": (rows_matmul, lambda x, w: jnp.einsum("...i,io->...o", x, w), (3, 4, 6), (6, 5)),
    "rows_outer": (rows_outer, lambda x, y: jnp.einsum("ti,to->io", x, y), (4, 6), (4, 5)),
    "block_matmul": (
        block_matmul,
        lambda x, w: jnp.einsum("...gi,gio->...go", x.reshape(*x.shape[:-1], 2, 3), w).reshape(
            *x.shape[:-1], 10
        ),
        (3, 4, 6),
        (2, 3, 5),
    ),
    "block_outer": (
        lambda x, y: block_outer(x, y, 2),
        lambda x, y: jnp.einsum("tgi,tgo->gio", x.reshape(-1, 2, 3), y.reshape(-1, 2, 5)),
        (4, 6),
        (4, 10),
    ),
}


def _close(actual, expected):
    # Sums of at most 12 products of numbers of size 1, in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), actual, expected)


@pytest.fixture(params=PRODUCTS)
def case(request):
    product, plain, x_shape, y_shape = PRODUCTS[request.param]
    x_key, y_key = jax.random.split(jax.random.key(0))
    return product, plain, jax.random.normal(x_key, x_shape), jax.random.normal(y_key, y_shape)


def test_values_and_gradients_equal_einsum(case):
    product, plain, x, y = case

    def summed(function):
        return lambda x, y: jnp.sin(function(x, y)).sum()

    _close(product(x, y), plain(x, y))
    _close(jax.jit(product)(x, y), plain(x, y))
    _close(jax.grad(summed(product), (0, 1))(x, y), jax.grad(summed(plain), (0, 1))(x, y))


def test_second_derivatives_equal_einsum(case):
    product, plain, x, y = case

    def slope(function):
        return lambda x, y: jnp.sin(jax.grad(lambda y: jnp.sin(function(x, y)).sum())(y)).sum()

    _close(jax.grad(slope(product), (0, 1))(x, y), jax.grad(slope(plain), (0, 1))(x, y))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, None)])
def test_vmap_equals_stacking_and_commutes_with_grad(case, axes):
    product, plain, x, y = case
    xs = x if axes[0] is None else jnp.stack([x, 2 * x], axes[0])
    ys = y if axes[1] is None else jnp.stack([y, y + 1], axes[1])

    def batched(function):
        return lambda x, y: jnp.sin(jax.vmap(function, in_axes=axes)(x, y)).sum()

    _close(jax.vmap(product, in_axes=axes)(xs, ys), jax.vmap(plain, in_axes=axes)(xs, ys))
    _close(jax.grad(batched(product), (0, 1))(xs, ys), jax.grad(batched(plain), (0, 1))(xs, ys))
    each = jax.vmap(jax.grad(lambda y, x: jnp.sin(product(x, y)).sum()), in_axes=axes[::-1])(ys, xs)
    expected = jax.vmap(jax.grad(lambda y, x: jnp.sin(plain(x, y)).sum()), in_axes=axes[::-1])(ys, xs)
    _close(each, expected)


def test_no_rows_give_empty_rows_and_a_zero_gradient():
    assert rows_matmul(jnp.zeros((0, 6)), jnp.ones((6, 2))).shape == (0, 2)
    np.testing.assert_array_equal(rows_outer(jnp.zeros((0, 6)), jnp.zeros((0, 2))), jnp.zeros((6, 2)))
    assert block_matmul(jnp.zeros((0, 6)), jnp.ones((2, 3, 2))).shape == (0, 4)


def test_on_cpu_the_batch_is_folded_into_the_rows():
    """The compiled gradient holds no transposed copy of the batch: see the module's docstring."""

    def loss(w, x):
        return jnp.sin(jax.vmap(lambda row: rows_matmul(row, w))(x)).sum()

    text = jax.jit(jax.grad(loss)).lower(jnp.ones((24, 40)), jnp.ones((3, 16, 24))).compile().as_text()
    assert text is not None
    assert "f32[48,24]" in text  # 3 * 16 rows
    assert "f32[24,48]" not in text
    assert "f32[40,48]" not in text


@pytest.mark.parametrize("channels", [1, 7, 1024])
@pytest.mark.parametrize("inputs", [1, 5, 4095, 9001])
@pytest.mark.parametrize("leading", [(), (1,), (1, 1), (3,), (2, 3), (0,)])
def test_narrow_products_are_those_of_the_widened_matrix(channels, inputs, leading):
    """One row, few and none; more inputs than one pass takes, more channels than one block, a prime number of them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((*leading, inputs)).astype(np.float32)
    values = rng.integers(-127, 128, (channels, inputs), dtype=np.int8)
    exact = x.astype(np.float64) @ values.T.astype(np.float64)
    bound = 1e-6 * (np.abs(x).astype(np.float64) @ np.abs(values.T.astype(np.float64))) + 1e-6
    for found in (narrow_matmul(jnp.asarray(x), jnp.asarray(values)), jax.jit(narrow_matmul)(x, values)):
        assert found.dtype == jnp.float32
        assert found.shape == exact.shape
        assert (np.abs(np.asarray(found, np.float64) - exact) <= bound).all()


def test_narrow_products_know_batches_and_the_derivative_in_x():
    x = (
        jax.random.normal(jax.random.key(0), (4, 3, 6)) / 16
    )  # so that sums are of size 1, as their sines' arguments
    values = jnp.arange(-15, 15, dtype=jnp.int8).reshape(5, 6)
    wide = values.astype(jnp.float32)
    _close(jax.vmap(lambda x: narrow_matmul(x, values))(x), x @ wide.T)
    _close(jax.vmap(jax.vmap(lambda x: narrow_matmul(x[None], values)))(x)[:, :, 0], x @ wide.T)
    per_row = jnp.stack([values, -values, values, values])
    _close(jax.vmap(narrow_matmul)(x, per_row), jnp.einsum("bti,boi->bto", x, per_row.astype(jnp.float32)))
    got = jax.grad(lambda x: jnp.sin(narrow_matmul(x, values)).sum())(x)
    _close(got, jax.grad(lambda x: jnp.sin(x @ wide.T).sum())(x))
    assert narrow_matmul(x.astype(jnp.bfloat16), values).dtype == jnp.float32


@pytest.mark.parametrize("rows", [1, 8])
def test_a_loop_over_tokens_never_holds_the_widened_matrices(rows):
    """Which XLA would gladly widen once, ahead of the loop: then nothing is gained by storing them narrow."""
    matrices = [jnp.ones((512, 512), jnp.int8) for _ in range(16)]

    def run(x, matrices):
        def step(x, _):
            for values in matrices:
                x = jnp.tanh(narrow_matmul(x, values))
            return x, None

        return jax.lax.scan(step, x, None, length=5)[0]

    compiled = jax.jit(run).lower(jnp.ones((rows, 512)), matrices).compile()
    widened = 4 * sum(matrix.size for matrix in matrices)
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < widened / 4
