"""The recurrence over a mesh of devices, under `jax.shard_map`.

Batch and channels are independent: split over those, nothing is communicated. Split over the sequence, each shard
reads its x and a once and folds them into one pair, the product of its decays and its last state from zero
(`fold.py`). The pairs are gathered, `[*batch, width]` each and at least float32, with one bool a row where there
are resets; every shard folds those of the shards before it, which gives it the state that enters it and all of
them the last state; then the ordinary kernel runs. 5 words an element are moved where one device moves 3.

The derivative rule stands outside of the `shard_map`: the backward pass is a second one that runs the other way
and gathers one pair again. The states that entered the shards are kept, so no shard asks its neighbour for a row.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float

from griffin_kernels.linear_scan.checks import check_arguments
from griffin_kernels.linear_scan.fold import BACKWARD_FOLD, FORWARD_FOLD
from griffin_kernels.linear_scan.implementations import BACKWARD, FORWARD
from griffin_kernels.linear_scan.planar import Planar
from griffin_kernels.mesh import axes_of, check_spec, shard_map, shards_of, splits_channels, splits_time


def sharded_linear_scan(
    x: Float[Array, "*batch seq_len width"] | Planar,
    a: Float[Array, "*batch seq_len width"] | Planar,
    h0: Float[Array, "*batch width"] | Planar | None = None,
    reset: Bool[Array, "*batch seq_len"] | None = None,
    *,
    mesh: Mesh | AbstractMesh | None = None,
    spec: PartitionSpec,
    reverse: bool = False,
    implementation: str | None = None,
    interpret: Any = False,
) -> tuple[Array | Planar, Array | Planar]:
    """Runs `linear_scan` with its arrays split over a mesh: the same values and gradients.

    A block acts on one sequence: call it inside of `jax.vmap(..., spmd_axis_name="data")`, with a `spec` of the one
    sequence, and the batch is split over `data`.

    Args:
      x: As in `linear_scan`.
      a: As in `linear_scan`.
      h0: As in `linear_scan`; placed like `x` without its sequence axis, whole on every shard of the sequence.
      reset: As in `linear_scan`; placed like `x` without its width.
      mesh: The mesh; None takes that of `jax.set_mesh`.
      spec: How `x` lies, one entry for each of its axes, such as `P("data", "sequence", "model")`.
      reverse: As in `linear_scan`.
      implementation: As in `linear_scan`, run on every shard.
      interpret: As in `linear_scan`.

    Returns:
      `(h, h_last)` as `linear_scan`: h placed like `x`, h_last like `h0`. A length that is no multiple of the
      sequence's shards is padded with steps that do nothing, which costs a copy.

    Raises:
      TypeError: As `linear_scan`.
      ValueError: As `linear_scan`, or if `spec` does not fit `x` and the mesh.
      NotImplementedError: As `linear_scan`.

    >>> mesh = jax.make_mesh((1,), ("sequence",), axis_types=(jax.sharding.AxisType.Auto,))
    >>> ones, half = jnp.ones((3, 1)), jnp.full((3, 1), 0.5)
    >>> h, h_last = sharded_linear_scan(ones, half, mesh=mesh, spec=jax.P("sequence", None))
    >>> h[:, 0].tolist(), h_last.tolist()
    ([1.0, 1.5, 1.75], [1.75])
    """
    leaf = check_arguments("sharded_linear_scan", x, a, h0, reset, implementation)
    mesh = check_spec("sharded_linear_scan", mesh, spec, "x", leaf.shape, uneven=(leaf.ndim - 2,))
    if h0 is not None:
        h0 = jax.tree.map(lambda z: z.astype(np.promote_types(leaf.dtype, jnp.float32)), h0)
    if leaf.size == 0:
        return x, _zero_state(x) if h0 is None else h0
    length = leaf.shape[-2]
    missing = -length % shards_of(mesh, spec[-2])
    if missing:
        x, a, reset = _with_idle_steps(x, a, reset, missing)
    how = _How(mesh, spec, h0 is None, reverse, implementation, interpret)
    answer: Any = _scan(x, a, h0, reset, how)
    h, h_last = answer
    return jax.tree.map(lambda z: z[..., :length, :], h) if missing else h, h_last


def scan_over_mesh(
    mesh: Any, x: Any, a: Any, h0: Any = None, reset: Array | None = None, **how: Any
) -> tuple[Any, Any]:
    """`sharded_linear_scan` with time and channels split where the mesh can, and any leading axes whole."""
    leaf = jax.tree.leaves(x)[0]
    *batch, seq_len, width = leaf.shape
    spec = PartitionSpec(*[None] * len(batch), splits_time(mesh, seq_len), splits_channels(mesh, width))
    return sharded_linear_scan(x, a, h0, reset, mesh=mesh, spec=spec, **how)


def _with_idle_steps(x, a, reset, count):
    """Steps with decay 1 and input 0 behind the last one; they hand on what enters them in either direction."""

    def pad(z, value, axis):
        width = [(0, 0)] * z.ndim
        width[axis] = (0, count)
        return jnp.pad(z, width, constant_values=value)

    x = jax.tree.map(lambda z: pad(z, 0, -2), x)
    a = Planar(pad(a.re, 1, -2), pad(a.im, 0, -2)) if isinstance(a, Planar) else pad(a, 1, -2)
    return x, a, None if reset is None else pad(reset, False, -1)


@dataclasses.dataclass(frozen=True)
class _How:
    """All that is no array."""

    mesh: Any
    spec: PartitionSpec
    from_zero: bool
    reverse: bool
    implementation: str | None
    interpret: Any

    @property
    def axes(self) -> tuple[str, ...]:
        """The mesh axes that the sequence is split over; empty where it is whole."""
        return axes_of(self.spec[-2]) if shards_of(self.mesh, self.spec[-2]) > 1 else ()

    @property
    def state(self) -> PartitionSpec:
        """How a state lies: like x without its time."""
        return PartitionSpec(*self.spec[:-2], self.spec[-1])

    @property
    def entering(self) -> PartitionSpec:
        """How the states that enter the shards lie: one a shard, in front."""
        return PartitionSpec(self.spec[-2], *self.state)

    @property
    def reset(self) -> PartitionSpec:
        """How resets lie: like x without its width."""
        return PartitionSpec(*self.spec[:-1])

    @property
    def options(self) -> dict[str, Any]:
        """What the kernels take."""
        return {
            "reverse": self.reverse,
            "implementation": self.implementation,
            "interpret": self.interpret,
        }

    def shard_map(self, body, in_specs, out_specs):
        """What every shard folds from the same pairs is the same on all."""
        return shard_map(body, self.mesh, in_specs, out_specs)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _scan(x, a, h0, reset, how):
    return _run(x, a, h0, reset, how)[:2]


def _run(x, a, h0, reset, how):
    """`(h, h_last, the state that enters each shard)`."""

    def body(x, a, h0, reset):
        zeros = _zero_state(x)
        start = zeros if how.from_zero else h0
        if not how.axes:
            return *FORWARD(x, a, start, reset, **how.options), _as_one_shard(start)
        pair = FORWARD_FOLD(x, a, zeros, reset, **how.options)
        entering, h_last = _fold_shards(start, pair, reset, how.axes, reverse=how.reverse)
        h, _ = FORWARD(x, a, entering, reset, **how.options)
        return h, h_last, _as_one_shard(entering)

    in_specs = (how.spec, how.spec, how.state, how.reset)
    return how.shard_map(body, in_specs, (how.spec, how.state, how.entering))(x, a, h0, reset)


def _forward(x, a, h0, reset, how):
    h, h_last, entering = _run(x, a, h0, reset, how)
    # Named, as in `vjp.py`: a `jax.checkpoint` policy that keeps them neither scans nor communicates again.
    h, entering = jax.tree.map(lambda z: checkpoint_name(z, "linear_scan"), (h, entering))
    return (h, h_last), (a, h, entering, reset)


def _backward(how, residuals, cotangents):
    a, h, entering, reset = residuals

    def body(dh, dh_last, a, h, entering, reset):
        entering = jax.tree.map(lambda z: z[0], entering)
        if not how.axes:
            return BACKWARD(dh, dh_last, a, h, entering, reset, **how.options)
        zeros = _zero_state(dh)
        pair = BACKWARD_FOLD(dh, zeros, a, h, zeros, reset, **how.options)
        dh_end, dh0 = _fold_shards(dh_last, pair, reset, how.axes, reverse=not how.reverse)
        dx, da, _ = BACKWARD(dh, dh_end, a, h, entering, reset, **how.options)
        return dx, da, dh0

    in_specs = (how.spec, how.state, how.spec, how.spec, how.entering, how.reset)
    run = how.shard_map(body, in_specs, (how.spec, how.spec, how.state))
    dx, da, dh0 = run(*cotangents, a, h, entering, reset)
    return dx, da, None if how.from_zero else dh0, None


_scan.defvjp(_forward, _backward)


def _fold_shards(start, pair, reset, axes, *, reverse):
    """`(the state that enters this shard, the state behind the last one)`, from the pairs of all shards."""
    leaves, tree = jax.tree.flatten(pair)
    # Stacked, so that it is one collective.
    gathered = jax.lax.all_gather(jnp.stack(leaves), axes)
    pairs = jax.tree.unflatten(tree, [gathered[:, i] for i in range(len(leaves))])
    had_reset = None if reset is None else jax.lax.all_gather(reset.any(-1), axes)[..., None]

    def step(state, shard):
        (product, h), had_reset = shard
        after = product * state + h
        if had_reset is not None:
            # By selection: 0 * NaN would carry a NaN into a document that starts behind it.
            after = jax.tree.map(lambda h, after: jnp.where(had_reset, h, after), h, after)
        return after, state

    last, entering = jax.lax.scan(step, start, (pairs, had_reset), reverse=reverse)
    return jax.tree.map(lambda z: z[jax.lax.axis_index(axes)], entering), last


def _zero_state(x):
    return jax.tree.map(
        lambda z: jnp.zeros(z.shape[:-2] + z.shape[-1:], np.promote_types(z.dtype, jnp.float32)), x
    )


def _as_one_shard(state):
    return jax.tree.map(lambda z: z[None], state)
