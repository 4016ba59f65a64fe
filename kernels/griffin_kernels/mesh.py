"""The mesh that a program is traced for; meshes and specs that a function over a mesh is given, and their mistakes.

With `jax.set_mesh(mesh)` in effect the public functions of all families split their work themselves: time over the
mesh's axis `sequence`, channels and heads over `model`, and over `data` what a `jax.vmap(..., spmd_axis_name="data")`
around them batches. The compiler could not: it knows no halo, and cannot cut a Pallas kernel at all.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec

DATA, SEQUENCE, MODEL = "data", "sequence", "model"
"""The axes of a mesh that functions look for: over rows of a batch, over time, over channels and heads."""


def mesh_in_effect() -> Any:
    """The mesh that the compiler spreads arrays over; None where there is none, or where it is none of ours.

    None as well in the body of a `jax.shard_map`, whose arrays are one device's, on a mesh with axes of other names,
    and with explicit axes, whose arrays say themselves how they lie.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or any(kind != AxisType.Auto for kind in mesh.axis_types):
        return None
    ours = all(size == 1 or name in (DATA, SEQUENCE, MODEL) for name, size in mesh.shape.items())
    return mesh if ours else None


def splits_time(mesh: Any, seq_len: int) -> str | None:
    """The axis that time is split over: none where some shard would have no token, as in decoding."""
    shards = mesh.shape.get(SEQUENCE, 1)
    return SEQUENCE if 1 < shards <= seq_len else None


def splits_channels(mesh: Any, *sizes: int) -> str | None:
    """The axis that channels are split over, if it divides all of these sizes."""
    shards = mesh.shape.get(MODEL, 1)
    return MODEL if shards > 1 and all(size % shards == 0 for size in sizes) else None


def unit_specs(batch_axes: int, channels: str | None) -> tuple[PartitionSpec, PartitionSpec, PartitionSpec]:
    """How a recurrent unit's arrays lie that is split over channels alone.

    Args:
      batch_axes: Leading axes, which stay whole here.
      channels: The mesh axis of the channels, or None.

    Returns:
      The specs of sequences `[*batch, seq_len, width]`, states `[*batch, width]` and tokens `[*batch, seq_len]`.
    """
    whole = [None] * batch_axes
    sequences = PartitionSpec(*whole, None, channels)
    return sequences, PartitionSpec(*whole, channels), PartitionSpec(*whole, None)


def shard_map(run: Callable[..., Any], mesh: Any, in_specs: Any, out_specs: Any) -> Any:
    """`jax.shard_map` that believes us about what is the same on all shards.

    JAX cannot check a body that is batched with `spmd_axis_name`: its constants do not vary over that axis.
    """
    return jax.shard_map(run, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def axes_of(entry: Any) -> tuple[str, ...]:
    """The mesh axes of one entry of a spec: none, one or several."""
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def shards_of(mesh: Any, entry: Any) -> int:
    """How many parts one entry of a spec cuts an axis into."""
    return math.prod(mesh.shape[name] for name in axes_of(entry))


def check_spec(
    function: str,
    mesh: Any,
    spec: PartitionSpec,
    name: str,
    shape: tuple[int, ...],
    *,
    uneven: tuple[int, ...] = (),
) -> Any:
    """Raises for a spec that does not place an array of this shape on the mesh.

    Args:
      function: Whose argument the spec is, for the message.
      mesh: None for the one of `jax.set_mesh`.
      spec: One entry for each axis.
      name: Of the array.
      shape: Of the array.
      uneven: Axes that need not divide.

    Returns:
      The mesh.

    Raises:
      ValueError: If there is no mesh, or the spec does not fit.
    """
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    if mesh.empty:
        raise ValueError(f"{function} needs a mesh: pass mesh=, or call it under `with jax.set_mesh(mesh)`.")
    if len(spec) != len(shape):
        raise ValueError(
            f"{function} needs a spec with one entry for each axis of {name}: got {spec} for {name} of shape {shape}. "
            "Write None for an axis that is not split."
        )
    for axis, (entry, size) in enumerate(zip(spec, shape, strict=True)):
        for mesh_axis in axes_of(entry):
            if mesh_axis not in mesh.shape:
                raise ValueError(
                    f"{function} got {spec}, and the mesh has no axis {mesh_axis!r}: its axes are "
                    f"{', '.join(map(repr, mesh.shape))}."
                )
        shards = shards_of(mesh, entry)
        if axis not in uneven and size % shards:
            raise ValueError(
                f"{function} splits axis {axis} of {name} over {shards} shards, and its size {size} is no multiple of "
                f"that: got {spec} for {name} of shape {shape}. Pad the axis, or leave it whole with None."
            )
    return mesh
