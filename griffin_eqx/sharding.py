"""Where arrays lie on a mesh: the axis names of shape annotations, and one table from them to mesh axes.

A field `weight: Float[Array, "width lru_width"]` is placed by the names in its annotation, a stranger's block as
ours; optimizer state, which repeats the model's modules, lies as the parameters do (ZeRO).
"""

import contextlib
import inspect
import math
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import equinox as eqx
import jax
from griffin_kernels.mesh import mesh_in_effect
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from griffin_eqx.mesh import AXES, MeshError, MeshShape, meshes

MESH_AXIS: dict[str, str] = {
    "batch": "data",
    "width": "data",
    "seq_len": "sequence",
    "lru_width": "model",
    "lru_half": "model",
    "mlp_width": "model",
    "num_heads": "model",
    "gate_blocks": "model",
    "vocab_rows": "model",
    "vocab_size": "model",
}
"""Logical axis to mesh axis. With both `width` and a wide axis split, parameters are spread over all devices."""

NEVER_SPLIT = frozenset(
    {
        "head_dim",
        "kv_heads",
        "conv_width",
        "conv_history",
        "block_in",
        "block_out",
        "window_size",
        "slots",
        "max_seq_len",
        "num_layers",
    }
)
"""Logical axes that every device holds whole."""


class Placed(NamedTuple):
    """How one array lies on a mesh.

    Attributes:
      path: The field, as Python reaches it: `.stack.units[0][1].temporal.out.weight`.
      shape: Of the whole array.
      dtype: Its dtype.
      axes: Logical names of its axes; None where there is no annotation to read.
      spec: For each axis the mesh axis that splits it, or None.
      parts: Pieces that it is split into; every device holds one.
      bytes_per_device: Size of a piece.
    """

    path: str
    shape: tuple[int, ...]
    dtype: Any
    axes: tuple[str, ...] | None
    spec: tuple[str | None, ...]
    parts: int
    bytes_per_device: int

    @property
    def unknown(self) -> tuple[str, ...]:
        """Logical names that stand in neither table: those axes are not split."""
        return tuple(name for name in self.axes or () if name not in MESH_AXIS and name not in NEVER_SPLIT)


def place(tree: Any, shape: MeshShape, *, leading: tuple[str, ...] = ("num_layers",)) -> list[Placed]:
    """Says where every array of a tree lies; allocates nothing.

    Args:
      tree: A model, optimizer state or cache; its arrays may be `jax.ShapeDtypeStruct`s.
      shape: The mesh.
      leading: Names of the axes in front of the annotated ones, outermost first: layers of one kind are stacked,
        caches have a row of the batch each.

    Returns:
      One entry an array, in the order of `jax.tree.leaves`.

    Raises:
      MeshError: If an axis cannot be divided; the message names field, axis and mesh, and the nearest meshes of as
        many devices that work.
    """
    found = list(_place(tree, shape, leading))
    if wrong := [problem for _, problem in found if problem]:
        raise MeshError(refusal(wrong, shape, lambda other: fits(tree, other, leading=leading)))
    return [placed for placed, _ in found]


def fits(tree: Any, shape: MeshShape, *, leading: tuple[str, ...] = ("num_layers",)) -> bool:
    """Whether a mesh divides every array of a tree."""
    return not any(problem for _, problem in _place(tree, shape, leading))


def shardings(tree: Any, mesh: Mesh, *, leading: tuple[str, ...] = ("num_layers",)) -> Any:
    """The tree with a `NamedSharding` in place of each array, for `jax.device_put` and `jax.jit`.

    Raises:
      MeshError: As `place`.
    """
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), _specs(tree, _shape_of(mesh), leading))


def lay(tree: Any, mesh: Mesh, *, leading: tuple[str, ...] = ("num_layers",), rows: int = 0) -> Any:
    """The tree with its arrays in their places, wherever they lay before; a device is sent its own part alone.

    Args:
      tree: As in `place`.
      mesh: The mesh.
      leading: As in `place`.
      rows: Of the batch that a cache is of. Where `data` does not divide them, it splits nothing.

    Raises:
      MeshError: As `place`.
    """
    arrays, static = eqx.partition(tree, eqx.is_array)
    specs = _specs(arrays, rows_shape(_shape_of(mesh), rows), leading)
    placed = jax.tree.map(lambda z, spec: jax.device_put(z, NamedSharding(mesh, spec)), arrays, specs)
    return eqx.combine(placed, static)


def hold(tree: Any, *, leading: tuple[str, ...] = ("num_layers",), rows: int = 0) -> Any:
    """`lay` in a program, on the mesh that `jax.set_mesh` has put into effect; the tree itself where there is none."""
    mesh = mesh_in_effect()
    if mesh is None:
        return tree
    arrays, static = eqx.partition(tree, eqx.is_array)
    specs = _specs(arrays, rows_shape(_shape_of(mesh), rows), leading)
    return eqx.combine(jax.tree.map(jax.lax.with_sharding_constraint, arrays, specs), static)


def make_mesh(shape: MeshShape, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of that shape over this program's devices, the first of them where there are more.

    Args:
      shape: The mesh.
      devices: Those to take instead, as those of a machine that is only compiled for.

    Raises:
      MeshError: If there are fewer.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if count < shape.num_devices:
        like = sorted(meshes(count), key=_distance(shape))[:3]
        raise MeshError(
            f"The mesh {shape} has {shape.num_devices} devices and this program {count}.\n  --mesh {shape}\n"
            f"  Meshes of {count}: {'  '.join(map(str, like))}"
        )
    kinds = (AxisType.Auto,) * len(AXES)
    devices = devices[: shape.num_devices]
    try:
        return jax.make_mesh(tuple(shape), AXES, axis_types=kinds, devices=devices)
    except NotImplementedError:
        # No axis of the torus is that long, as for data=8,model=2 on 4x4 chips: one of its axes serves two of the mesh.
        laid = create_device_mesh(tuple(shape), devices, allow_split_physical_axes=True)
        return Mesh(laid, AXES, axis_types=kinds)


def constrain(x: Array, *axes: str | None) -> Array:
    """Says how an intermediate value lies on the mesh that `jax.set_mesh` has put into effect.

    For the body of a block, which sees one sequence: rows of a batch are split by the `jax.vmap` around it
    (`rows_axis`). Without a mesh it is the value itself.

    Args:
      x: The value.
      axes: The logical name of each of its axes, as in annotations; None leaves the choice to the compiler. Names that
        the table does not know are whole on every device, and so is `width`, for rows are what `data` splits.

    >>> constrain(jnp.ones((4, 8)), "seq_len", "lru_width").shape
    (4, 8)
    """
    mesh = mesh_in_effect()
    if mesh is None:
        return x

    def entry(name, size):
        onto = MESH_AXIS.get(name) if name != "width" else None
        if name is not None and onto is None:
            return None
        divides = onto in mesh.shape and size % mesh.shape[onto] == 0
        return onto if divides else PartitionSpec.UNCONSTRAINED

    return jax.lax.with_sharding_constraint(x, PartitionSpec(*map(entry, axes, x.shape)))


def divided(shape: Sequence[int], axes: Sequence[str], mesh: Mesh) -> NamedSharding:
    """How an array lies whose first axes these of the mesh split, but for those that they do not divide.

    Args:
      shape: Of the array.
      axes: An axis of the mesh for each of its own, from the first; those left over are not asked for.
      mesh: The mesh.
    """
    pairs = zip(axes, shape, strict=False)
    return NamedSharding(
        mesh, PartitionSpec(*(a if size % mesh.shape[a] == 0 else None for a, size in pairs))
    )


def rows_shape(shape: MeshShape, rows: int) -> MeshShape:
    """The mesh as so many rows see it: without `data` where that does not divide them."""
    return shape._replace(data=1) if rows % shape.data else shape


def rows_axis(rows: int) -> str | None:
    """The mesh axis for `jax.vmap(..., spmd_axis_name=...)` over so many rows; None where none divides them."""
    mesh = mesh_in_effect()
    if mesh is None:
        return None
    axis = MESH_AXIS["batch"]
    return axis if mesh.shape.get(axis, 1) > 1 and rows % mesh.shape[axis] == 0 else None


def refusal(problems: list[str], shape: MeshShape, works: Callable[[MeshShape], bool]) -> str:
    """The text of a `MeshError`: what a mesh cannot divide, a line each, and the nearest meshes that work."""
    shown = [f"  {problem}" for problem in problems[:4]]
    if len(problems) > len(shown):
        shown.append(f"  and {len(problems) - len(shown)} more")
    near = [other for other in sorted(meshes(shape.num_devices), key=_distance(shape)) if works(other)][:3]
    advice = (
        f"Meshes of {shape.num_devices} devices that work: {'  '.join(map(str, near))}"
        if near
        else f"No mesh of {shape.num_devices} devices works: take another number, or other sizes."
    )
    return "\n".join([f"The mesh {shape} cannot divide these axes:", *shown, advice])


def in_host_memory() -> AbstractContextManager[Any]:
    """Where a model is read that goes to a mesh: new arrays lie in the host's memory, and on no accelerator.

    Without a CPU among JAX's platforms (`JAX_PLATFORMS=cuda`) it changes nothing.
    """
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()


def virtual_devices(count: int) -> None:
    """Lets this CPU pass for that many devices at least, where there is no accelerator and JAX has not started yet."""
    count = max(count, jax.config.jax_num_cpu_devices)  # pyright: ignore[reportAttributeAccessIssue]
    with contextlib.suppress(RuntimeError):  # it has started: what there is, is all there is
        jax.config.update("jax_num_cpu_devices", count)


def _place(tree, shape: MeshShape, leading) -> Iterator[tuple[Placed, str | None]]:
    sizes: dict[str, int] = shape._asdict()
    for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(tree, _is_array)):
        axes, units = _logical_axes(tree, path, len(leaf.shape), leading)
        spec: list[str | None] = []
        problem = None
        for size, unit, axis in zip(leaf.shape, units, axes or [""] * len(leaf.shape), strict=True):
            onto = MESH_AXIS.get(axis)
            # Two axes for one mesh axis: the leftmost has it.
            if onto is None or sizes[onto] == 1 or onto in spec:
                spec.append(None)
                continue
            spec.append(onto)
            if size // unit % sizes[onto]:
                count = f"{size // unit}" + (f" ({size} channels)" if unit > 1 else "")
                problem = problem or f"{_written(path)}: {axis} = {count} over {onto}={sizes[onto]}"
        parts = math.prod(sizes[onto] for onto in spec if onto)
        held = math.prod(leaf.shape) * leaf.dtype.itemsize // parts
        yield Placed(_written(path), tuple(leaf.shape), leaf.dtype, axes, tuple(spec), parts, held), problem


def _specs(tree, shape: MeshShape, leading) -> Any:
    arrays = eqx.filter(tree, _is_array)
    placed = place(tree, shape, leading=leading)
    return jax.tree.unflatten(jax.tree.structure(arrays), [PartitionSpec(*each.spec) for each in placed])


def _shape_of(mesh: Any) -> MeshShape:
    return MeshShape(*(mesh.shape.get(axis, 1) for axis in AXES))


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _logical_axes(tree, path, ndim, leading) -> tuple[tuple[str, ...] | None, list[int]]:
    """`(names, units)` of an array's axes; a unit is how many entries must stay together, such as a head's."""
    owners = [tree]
    for key in path:
        owners.append(_follow(owners[-1], key))
    owner = owners[-2] if path else None
    names = None
    if isinstance(owner, eqx.Module) and isinstance(path[-1], jax.tree_util.GetAttrKey):
        names = _annotated(type(owner), path[-1].name)
    if names is None or len(names) > ndim or ndim - len(names) > len(leading):
        return None, [1] * ndim
    renamed = _own_names(owner)
    names = (*leading[: ndim - len(names)], *(renamed.get(name, name) for name in names))
    head_dim = next((each.head_dim for each in reversed(owners) if hasattr(each, "head_dim")), 1)
    return names, [head_dim if name == "num_heads" else 1 for name in names]


def _follow(node, key):
    if isinstance(key, jax.tree_util.GetAttrKey):
        return getattr(node, key.name)
    if isinstance(key, jax.tree_util.SequenceKey):
        return node[key.idx]
    if isinstance(key, jax.tree_util.DictKey):
        return node[key.key]
    return None


def _own_names(module) -> dict[str, str]:
    """Names that a shared layer is given by its field `axes`: `in_features` of a `Linear` is somebody's `width`."""
    given = getattr(module, "axes", None)
    if not isinstance(given, tuple):
        return {}
    for field in type(module).__dataclass_fields__:
        names = _annotated(type(module), field)
        if names is not None and len(names) == len(given):
            return dict(zip(names, given, strict=True))
    return {}


def _annotated(owner: type, field: str) -> tuple[str, ...] | None:
    """The axis names of a field's shape annotation; None where there is none that can be read."""
    for base in owner.__mro__:
        hint = inspect.get_annotations(base).get(field)
        if hint is None:
            continue
        if isinstance(hint, str):
            hint = _resolved(hint, base.__module__)
        for option in (hint, *typing.get_args(hint)):
            dims = getattr(option, "dim_str", None)
            if isinstance(dims, str):
                names = tuple(dims.split())
                return names if all(name.isidentifier() for name in names) else None
        return None
    return None


def _resolved(hint: str, module: str) -> Any:
    """An annotation that is written as a string; None where its names cannot be found."""
    holder = type("_", (), {"__annotations__": {"field": hint}, "__module__": module})
    try:
        return typing.get_type_hints(holder)["field"]
    except Exception:  # whatever a foreign annotation raises, its array is replicated and listed
        return None


def _written(path) -> str:
    return jax.tree_util.keystr(path) or "the array"


def _distance(shape: MeshShape) -> Callable[[MeshShape], float]:
    """How far other meshes are, in factors."""

    def distance(other: MeshShape) -> float:
        return sum(abs(math.log(mine / its)) for mine, its in zip(shape, other, strict=True))

    return distance
