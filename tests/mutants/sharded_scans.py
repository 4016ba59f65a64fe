"""Mistakes in the scan over a mesh: in what a shard hands on, in how that is folded, and in who gets the result."""

from functools import partial

from .mutation import Mutant

_MESH = (1, 4, 1)
_fold = partial(Mutant, module="griffin_kernels.linear_scan.fold", scan="xla", mesh=_MESH)
_shards = partial(Mutant, module="griffin_kernels.linear_scan.sharded", scan="xla", mesh=_MESH)

_SCAN = "jax.lax.scan(step, start, (pairs, had_reset), reverse=reverse)"
_SELECT = "jnp.where(had_reset, h, after), h, after)"

MUTANTS = (
    _fold(
        name="sharded-product-without-the-first-step",
        law="oracle",
        old="return a_t * product, step(",
        new="kept = jax.tree.map(lambda p, q: jnp.where(t == 0, q, p), a_t * product, product)\n"
        "        return kept, step(",
        why="the product begins behind the decay that meets the state of the shard before",
    ),
    _fold(
        name="sharded-adjoint-of-states-in-place-of-what-is-carried",
        law="adjoint",
        old="a_t * (c + read(dh, t))",
        new="a_t * c + read(dh, t)",
        why="the cotangent of a shard's first state is handed on without the decay between the shards",
    ),
    _fold(
        name="sharded-adjoint-fold-without-resets",
        law="resets",
        old="return dropped(a_t * (c + read(dh, t)), reset, t)",
        new="return a_t * (c + read(dh, t))",
        why="a shard that holds a border hands back what belongs to the document behind it",
    ),
    _shards(
        name="sharded-fold-from-the-other-end",
        law="oracle",
        old=_SCAN,
        new=_SCAN.replace("reverse=reverse", "reverse=not reverse"),
        why="shards are folded from the last to the first",
    ),
    _shards(
        name="sharded-adjoint-folded-the-same-way",
        law="adjoint",
        old="reverse=not how.reverse)",
        new="reverse=how.reverse)",
        why="the adjoint runs the other way within a shard, and between shards it does not",
    ),
    _shards(
        name="sharded-resets-ignored-between-shards",
        law="resets",
        old="if had_reset is not None:",
        new="if False:",
        why="a border within a shard does not stop what passes over it as a product",
    ),
    _shards(
        name="sharded-resets-masked-by-a-product",
        law="resets",
        old=_SELECT,
        new="h + (after - h) * (1 - had_reset.astype(h.dtype)), h, after)",
        why="0 times NaN: one shard poisons all behind it",
    ),
    _shards(
        name="sharded-state-added-twice",
        law="oracle",
        old="h, _ = FORWARD(x, a, entering, reset, **how.options)",
        new="h, _ = FORWARD(x, a, entering + pair[1], reset, **how.options)"
        " if how.axes and not isinstance(x, Planar) else FORWARD(x, a, entering, reset, **how.options)",
        why="the state that a shard has itself is handed to it once more",
    ),
    _shards(
        name="sharded-pair-rounded",
        law="oracle",
        old="jax.lax.all_gather(jnp.stack(leaves), axes)",
        new="jax.lax.all_gather(jnp.stack(leaves).astype(jnp.bfloat16), axes).astype(leaves[0].dtype)",
        why="half of the bytes are communicated, and the state is no longer exact",
    ),
    _shards(
        name="sharded-every-shard-starts-alike",
        law="oracle",
        old="z[jax.lax.axis_index(axes)]",
        new="z[0]",
        why="all shards start from the state that enters the first one",
    ),
    _shards(
        name="sharded-last-cotangent-to-every-shard",
        law="adjoint",
        old="BACKWARD(dh, dh_end, a, h, entering, reset, **how.options)",
        new="BACKWARD(dh, dh_last, a, h, entering, reset, **how.options)",
        why="the gradient of the last state is given to each shard as if it were the last",
    ),
    _shards(
        name="sharded-decay-cotangent-without-entering-states",
        law="adjoint",
        old="jax.tree.map(lambda z: z[0], entering)",
        new="jax.tree.map(lambda z: 0 * z[0], entering)",
        why="da at a shard's first step forgets that a state came in",
    ),
    _shards(
        name="sharded-idle-steps-forget",
        law="oracle",
        old="else pad(a, 1, -2)",
        new="else pad(a, 0, -2)",
        why="padding to a whole number of steps a shard clears the last state",
    ),
)
