"""The products of linear layers, dense and block-diagonal, as primitives that know rows from columns.

Blocks act on one sequence and batches are `jax.vmap`. Left to themselves, the products that come out of that
contract over two axes at once, or have a batch axis in the middle, and XLA on CPU transposes its largest
operands first: in a train step of Griffin-100M that took almost half of the time. Lowered for CPU, these
products fold all leading axes into one and take the diagonal blocks in turn, so that each is one of two plain
matrices. Elsewhere the axes stay as they are, for the partitioner.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

_matmul = Primitive("rows_matmul")
_outer = Primitive("rows_outer")
_block_matmul = Primitive("block_matmul")
_block_outer = Primitive("block_outer")

DENSE_PRODUCT = _matmul
"""For `jax.checkpoint` policies that save products. Block-diagonal ones cost little to run again."""

_FEW_ROWS = 32
"""Up to so many rows, as in decoding, a loop over the diagonal blocks costs more than their products."""


def rows_matmul(
    x: Float[Array, "*rows in_features"], weight: Float[Array, "in_features out_features"]
) -> Float[Array, "*rows out_features"]:
    """`x @ weight` for one matrix and rows with any leading axes, both of one dtype."""
    return _matmul.bind(x, weight)


def rows_outer(
    x: Float[Array, "*rows in_features"], y: Float[Array, "*rows out_features"]
) -> Float[Array, "in_features out_features"]:
    """The sum over all rows of the outer product of x and y: the gradient of `rows_matmul`'s matrix."""
    return _outer.bind(x, y)


def block_matmul(
    x: Float[Array, "*rows in_features"], weight: Float[Array, "gate_blocks block_in block_out"]
) -> Float[Array, "*rows out_features"]:
    """`x` times the block-diagonal matrix with these blocks, both of one dtype."""
    return _block_matmul.bind(x, weight, blocks=weight.shape[0])


def block_outer(
    x: Float[Array, "*rows in_features"], y: Float[Array, "*rows out_features"], blocks: int
) -> Float[Array, "gate_blocks block_in block_out"]:
    """The diagonal blocks of `rows_outer(x, y)`: the gradient of `block_matmul`'s blocks."""
    return _block_outer.bind(x, y, blocks=blocks)


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
    if math.prod(x.shape[:-1]) <= _FEW_ROWS:
        y = lax.dot_general(_turns(x, blocks), weight, (((2,), (1,)), ((0,), (0,))))
    else:
        y = lax.map(lambda block: _plain_matmul(*block), (_turns(x, blocks), weight))
    return _join(jnp.moveaxis(y, 0, 1)).reshape(*x.shape[:-1], blocks * weight.shape[2])


def _folded_block_outer(x, y, *, blocks):
    return lax.map(lambda block: _plain_outer(*block), (_turns(x, blocks), _turns(y, blocks)))


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
        return jax.vmap(lambda x, y: plain(x, y, **params), in_axes=axes)(*arguments), 0

    def abstract(x, y, **params):
        out = jax.eval_shape(lambda x, y: plain(x, y, **params), _struct(x), _struct(y))
        return x.update(shape=out.shape, weak_type=False)

    @functools.cache
    def jitted(**params):
        return jax.jit(functools.partial(primitive.bind, **params))

    primitive.def_impl(lambda x, y, **params: jitted(**params)(x, y))
    primitive.def_abstract_eval(abstract)
    ad.defbilinear(primitive, *transposes)
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(plain, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(folded, multiple_results=False), platform="cpu")


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
