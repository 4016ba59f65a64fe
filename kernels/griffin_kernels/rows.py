"""The products of linear layers, dense and block-diagonal, as primitives that know rows from columns.

Blocks act on one sequence and batches are `jax.vmap`. Left to themselves, the products that come out of that
contract over two axes at once, or have a batch axis in the middle, and XLA on CPU transposes its largest
operands first: in a train step of Griffin-100M that took almost half of the time. Lowered for CPU, these
products fold all leading axes into one, and x is cut into its diagonal blocks first, so that each is one of two plain
matrices or of a batch of them. Elsewhere, and over a mesh, the axes stay as they are: for the partitioner, which could
not split rows of two axes in one.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Int8

from griffin_kernels.mesh import mesh_in_effect

_matmul = Primitive("rows_matmul")
_outer = Primitive("rows_outer")
_block_matmul = Primitive("block_matmul")
_block_outer = Primitive("block_outer")
_narrow_matmul = Primitive("narrow_matmul")

DENSE_PRODUCT = _matmul
"""For `jax.checkpoint` policies that save products. Block-diagonal ones cost little to run again."""

_WIDENED = 2**20
"""Entries of 8 bits that are widened at once."""

_VECTOR = 4095
"""Inputs of a matrix-vector product into which XLA on CPU takes the widening, and needs no memory for it: it does so
up to 16 kB of them."""


def rows_matmul(
    x: Float[Array, "*rows in_features"], weight: Float[Array, "in_features out_features"]
) -> Float[Array, "*rows out_features"]:
    """`x @ weight` for one matrix and rows with any leading axes, both of one dtype."""
    return _matmul.bind(x, weight, **_how())


def rows_outer(
    x: Float[Array, "*rows in_features"], y: Float[Array, "*rows out_features"]
) -> Float[Array, "in_features out_features"]:
    """The sum over all rows of the outer product of x and y: the gradient of `rows_matmul`'s matrix."""
    return _outer.bind(x, y, **_how())


def block_matmul(
    x: Float[Array, "*rows in_features"], weight: Float[Array, "gate_blocks block_in block_out"]
) -> Float[Array, "*rows out_features"]:
    """`x` times the block-diagonal matrix with these blocks, both of one dtype."""
    return _block_matmul.bind(x, weight, blocks=weight.shape[0], **_how())


def block_outer(
    x: Float[Array, "*rows in_features"], y: Float[Array, "*rows out_features"], blocks: int
) -> Float[Array, "gate_blocks block_in block_out"]:
    """The diagonal blocks of `rows_outer(x, y)`: the gradient of `block_matmul`'s blocks."""
    return _block_outer.bind(x, y, blocks=blocks, **_how())


def _how():
    return {"folds": mesh_in_effect() is None}


def narrow_matmul(
    x: Float[Array, "*rows in_features"], values: Int8[Array, "out_features in_features"]
) -> Float[Array, "*rows out_features"]:
    """`x @ values.T` for integers of 8 bits, in `promote_types(x.dtype, float32)`, without widening all of them.

    On CPU one row is one pass over the integers (a third of the time of float32's product, which memory limits), and
    more rows take them a block at a time. It has a derivative in x alone.
    """
    return _narrow_matmul.bind(x, values, **_how())


def _split(z, blocks):
    return z.reshape(*z.shape[:-1], blocks, z.shape[-1] // blocks)


def _join(z):
    return z.reshape(*z.shape[:-2], z.shape[-2] * z.shape[-1])


def _fold(z):
    return z.reshape(math.prod(z.shape[:-1]), z.shape[-1])


def _turns(z, blocks):
    """The columns of each block as a matrix of its own, blocks first."""
    return jnp.moveaxis(_split(_fold(z), blocks), 1, 0)


def _plain_matmul(x, weight):
    return lax.dot_general(x, weight, (((x.ndim - 1,), (0,)), ((), ())))


def _plain_outer(x, y):
    rows = tuple(range(x.ndim - 1))
    return lax.dot_general(x, y, ((rows, rows), ((), ())))


def _plain_block_matmul(x, weight, *, blocks):
    return _join(jnp.einsum("...gi,gio->...go", _split(x, blocks), weight))


def _plain_block_outer(x, y, *, blocks):
    return jnp.einsum("...gi,...go->gio", _split(x, blocks), _split(y, blocks))


def _folded_matmul(x, weight):
    return _plain_matmul(_fold(x), weight).reshape(*x.shape[:-1], weight.shape[1])


def _folded_outer(x, y):
    return _plain_outer(_fold(x), _fold(y))


def _folded_block_matmul(x, weight, *, blocks):
    y = lax.dot_general(_turns(x, blocks), weight, (((2,), (1,)), ((0,), (0,))))
    return _join(jnp.moveaxis(y, 0, 1)).reshape(*x.shape[:-1], blocks * weight.shape[2])


def _folded_block_outer(x, y, *, blocks):
    return _plain_block_outer(_fold(x), _fold(y), blocks=blocks)


def _wide(x):
    return np.promote_types(x.dtype, jnp.float32)


def _plain_narrow(x, values):
    contracted = (((x.ndim - 1,), (1,)), ((), ()))
    return lax.dot_general(x, values.astype(x.dtype), contracted, preferred_element_type=_wide(x))


def _folded_narrow(x, values):
    wide = _wide(x)
    # The barrier keeps XLA from widening the matrices of all layers once, ahead of a loop over tokens.
    values, rows = lax.optimization_barrier((values, _fold(x).astype(wide)))
    channels, inputs = values.shape
    if len(rows) == 1:
        parts = -(-inputs // _VECTOR)
        edges = [inputs * i // parts for i in range(1, parts)]
        pairs = zip(jnp.split(rows, edges, axis=1), jnp.split(values, edges, axis=1), strict=True)
        y = functools.reduce(jnp.add, [part @ narrow.astype(wide).T for part, narrow in pairs])
    else:
        y = _blockwise(rows, values)
    return y.reshape(*x.shape[:-1], channels)


def _blockwise(rows, values):
    """A loop over blocks of channels, the last one of which may overlap its neighbour.

    Never without a loop: XLA widens matrices that stand in the open all at once, long before they are needed.
    """
    channels, inputs = values.shape
    blocks = max(2, -(-channels * inputs // _WIDENED))
    size = -(-channels // blocks)

    def one(i, y):
        start = jnp.minimum(i * size, channels - size)
        block = lax.dynamic_slice_in_dim(values, start, size).astype(rows.dtype)
        return lax.dynamic_update_slice_in_dim(y, block @ rows.T, start, 0)

    return lax.fori_loop(0, blocks, one, jnp.zeros((channels, len(rows)), rows.dtype)).T


def _define(
    primitive: Primitive, plain: Callable, folded: Callable, transposes: tuple, by_rows: Callable | None
):
    """Gives a bilinear primitive its meaning: `plain` everywhere, `folded` on CPU.

    `by_rows` is the product itself where a batch of x is only more rows, and None where it is not.
    """

    def batch(arguments, axes, **params):
        if by_rows is not None and axes[1] is None:
            x, weight = arguments
            return by_rows(jnp.moveaxis(x, axes[0], 0), weight), 0
        return jax.vmap(lambda x, y: product(x, y, **params), in_axes=axes)(*arguments), 0

    def product(x, y, *, folds, **params):
        del folds
        return plain(x, y, **params)

    def product_on_cpu(x, y, *, folds, **params):
        return (folded if folds else plain)(x, y, **params)

    def transposed(transpose):
        return lambda ct, x, y, folds, **params: transpose(ct, x, y, **params)

    def abstract(x, y, **params):
        out = jax.eval_shape(lambda x, y: product(x, y, **params), _struct(x), _struct(y))
        return x.update(shape=out.shape, dtype=out.dtype, weak_type=False)

    @functools.cache
    def jitted(**params):
        return jax.jit(functools.partial(primitive.bind, **params))

    primitive.def_impl(lambda x, y, **params: jitted(**params)(x, y))
    primitive.def_abstract_eval(abstract)
    ad.defbilinear(primitive, *map(transposed, transposes))
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(product, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(product_on_cpu, multiple_results=False), platform="cpu")


def _struct(aval):
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


_define(
    _matmul,
    _plain_matmul,
    _folded_matmul,
    (lambda ct, x, w: rows_matmul(ct, w.T), lambda ct, x, w: rows_outer(x, ct)),
    rows_matmul,
)
_define(
    _outer,
    _plain_outer,
    _folded_outer,
    (lambda ct, x, y: rows_matmul(y, ct.T), lambda ct, x, y: rows_matmul(x, ct)),
    None,
)
_define(
    _block_matmul,
    _plain_block_matmul,
    _folded_block_matmul,
    (
        lambda ct, x, w, blocks: block_matmul(ct, jnp.swapaxes(w, 1, 2)),
        lambda ct, x, w, blocks: block_outer(x, ct, blocks),
    ),
    block_matmul,
)
_define(
    _block_outer,
    _plain_block_outer,
    _folded_block_outer,
    (
        lambda ct, x, y, blocks: block_matmul(y, jnp.swapaxes(ct, 1, 2)),
        lambda ct, x, y, blocks: block_matmul(x, ct),
    ),
    None,
)
_define(
    _narrow_matmul,
    _plain_narrow,
    _folded_narrow,
    (lambda ct, x, values: (ct @ values.astype(ct.dtype)).astype(x.aval.dtype), None),
    narrow_matmul,
)
