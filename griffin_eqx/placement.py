"""Where the arrays of a training would lie on a mesh, told without devices: no weights are allocated."""

import dataclasses

import equinox as eqx
import jax

from griffin_eqx.config import Config
from griffin_eqx.mesh import MeshError, MeshShape
from griffin_eqx.model import template
from griffin_eqx.sharding import Placed, place
from griffin_eqx.summary import with_vocabulary
from griffin_eqx.training.step import init_state


@dataclasses.dataclass(frozen=True)
class PlacementSummary:
    """Where a training's arrays lie on a mesh.

    Attributes:
      mesh: The mesh.
      arrays: The model's parameters, one entry an array; layers of one kind are one array.
      parameter_bytes: Parameters, a device. Gradients take as much while a step runs.
      optimizer_bytes: Moments of the optimizer, a device; what `train.freeze` names has none.
      rows: Rows of a batch, a device.
      tokens: Tokens of a row, a device; the last device may hold fewer.
    """

    mesh: MeshShape
    arrays: tuple[Placed, ...]
    parameter_bytes: int
    optimizer_bytes: int
    rows: int
    tokens: int


def describe_placement(config: Config, mesh: MeshShape) -> PlacementSummary:
    """Tells where the arrays of a training would lie on a mesh; allocates nothing and needs no devices.

    Raises:
      MeshError: If the mesh cannot divide a parameter or the rows of a batch; it names nearest ones that work.
      PatternError: If a block or option of the pattern is wrong.
    """
    config = with_vocabulary(config)
    state = eqx.filter_eval_shape(lambda: init_state(config, key=jax.random.key(0)))
    arrays = place(template(config), mesh)
    check_batch(config, mesh)
    return PlacementSummary(
        mesh=mesh,
        arrays=tuple(arrays),
        parameter_bytes=sum(each.bytes_per_device for each in arrays),
        optimizer_bytes=sum(each.bytes_per_device for each in place(state.optimizer, mesh)),
        rows=config.data.batch_size // mesh.data,
        tokens=-(-config.data.seq_len // mesh.sequence),
    )


def check_batch(config: Config, mesh: MeshShape) -> None:
    """Checks that a mesh divides the rows of a batch, and of each part that it is cut into.

    Raises:
      MeshError: If it does not.
    """
    check_rows(config.data.batch_size, mesh, parts=config.optimizer.accumulation)


def check_rows(rows: int, mesh: MeshShape, *, parts: int = 1) -> None:
    """`check_batch` for a batch of so many rows that is cut into parts.

    Raises:
      MeshError: If the mesh does not divide them.
    """
    if rows % (parts * mesh.data):
        cut = f" in {parts} parts (optimizer.accumulation)" if parts > 1 else ""
        raise MeshError(
            f"The mesh {mesh} cannot divide a batch: data.batch_size={rows}{cut} over data={mesh.data}.\n"
            f"  Take --data.batch_size {-(-rows // (parts * mesh.data)) * parts * mesh.data}, or fewer devices "
            "along data."
        )
