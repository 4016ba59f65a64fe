"""Mistakes in the products of linear layers, which see a batch where a block sees one sequence."""

from functools import partial

from .mutation import Mutant

_rows = partial(Mutant, module="griffin_kernels.rows", block="rg_lru")

_BATCHED = "by_rows(jnp.moveaxis(x, axes[0], 0), weight)"

MUTANTS = (
    _rows(
        name="rows-of-a-batch-reversed",
        law="independent_rows",
        old=_BATCHED,
        new="by_rows(jnp.moveaxis(x, axes[0], 0)[::-1], weight)",
        why="the rows of a batch come out in another order",
    ),
    _rows(
        name="rows-of-a-batch-shifted",
        law=("independent_rows", "transforms"),
        old=_BATCHED,
        new="by_rows(jnp.roll(jnp.moveaxis(x, axes[0], 0), 1, axis=0), weight)",
        why="every row gets its neighbour's result, which a cyclic permutation does not notice",
    ),
    _rows(
        name="nan-crosses-rows",
        law="independent_rows",
        old=_BATCHED,
        new="by_rows(jnp.moveaxis(x, axes[0], 0) + 0 * x.sum(axes[0])[None], weight)",
        why="a mask of zeros is multiplied with what it hides: 0 times NaN",
    ),
    Mutant(
        name="work-spared-if-one-row-may",
        module="griffin_kernels.any_row",
        block="local_mqa",
        law="independent_rows",
        old="arguments[0].any(axis=axes[0])",
        new="arguments[0].all(axis=axes[0])",
        why="a row that begins beside others makes them forget what they have cached",
    ),
    Mutant(
        name="work-spared-as-the-first-row-may",
        module="griffin_kernels.any_row",
        block="local_mqa",
        law="independent_rows",
        old="arguments[0].any(axis=axes[0])",
        new="arguments[0].take(0, axis=axes[0])",
        why="the first row of a batch decides for all whether the cache is looked at",
    ),
    _rows(
        name="weight-gradient-of-a-batch",
        law="transforms",
        old="return _plain_outer(_fold(x), _fold(y))",
        new="return _plain_outer(_fold(x), _fold(jnp.swapaxes(y, 0, -2)))",
        traps=(34,),
        why="the gradient of the weights pairs rows of different sequences; one sequence is right",
    ),
    _rows(
        name="block-gradient-of-a-batch",
        law="transforms",
        old="_plain_block_outer(_fold(x), _fold(y), blocks=blocks)",
        new="_plain_block_outer(_fold(x), _fold(y[:1] + 0 * y), blocks=blocks)",
        traps=(34,),
        why="the gradient of the gates' blocks takes the first sequence for all; one sequence is right",
    ),
    _rows(
        name="block-gradient-transposed",
        law="gradients",
        old="lambda ct, x, w, blocks: block_outer(x, ct, blocks)",
        new="lambda ct, x, w, blocks: block_outer(ct, x, blocks)",
        why="square blocks hide that inputs and outputs have changed places",
    ),
    _rows(
        name="block-not-transposed",
        law="gradients",
        old="block_matmul(ct, jnp.swapaxes(w, 1, 2))",
        new="block_matmul(ct, w)",
        why="square blocks hide that the derivative uses them as they are",
    ),
    _rows(
        name="blocks-in-another-order",
        law="gradients",
        old="_split(_fold(z), blocks), 1, 0)",
        new="_split(_fold(z), blocks), 1, 0)[::-1]",
        why="the diagonal is walked from its other end, in values but not in the gradients that jit sees",
    ),
)
