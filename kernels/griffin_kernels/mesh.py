"""Meshes and specs that a function over a mesh is given, and their mistakes."""

import math
from typing import Any

import jax
from jax.sharding import PartitionSpec


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
