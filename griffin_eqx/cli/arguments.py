"""Command-line arguments as dataclasses: fields are options, docstrings their help. Imports no JAX."""

import inspect
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

if TYPE_CHECKING:
    from griffin_eqx.mesh import MeshShape

Switches = TypeVar("Switches")

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
"""An option without a value: given or not."""

Text = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]
"""An option that may be left out, and its value."""

Number = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
"""A number that may be left out."""


def parse(
    switches: type[Switches],
    argv: list[str],
    *,
    prog: str,
    default: Switches | None = None,
    registry: Any = None,
) -> Switches:
    """Reads arguments into a dataclass; its docstring is the help.

    Args:
      switches: A dataclass with an `Attributes:` section.
      argv: The arguments.
      prog: The command as a user types it.
      default: Defaults other than those of the dataclass.
      registry: How to read types that tyro does not know.

    Raises:
      SystemExit: With 2, after the mistake and near misses were printed; with 0 after `--help`.
    """
    summary = inspect.cleandoc(switches.__doc__ or "").partition("Attributes:")[0].strip()
    given: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(
        switches,
        args=argv,
        prog=prog,
        description=summary,
        registry=registry,
        **given,
    )


def mesh_of(text: str | None) -> "MeshShape | None":
    """The mesh of `--mesh`, if this program has its devices; a CPU passes for as many as it takes. Starts JAX.

    Raises:
      MeshError: If it cannot be read, or there are fewer devices.
    """
    if text is None:
        return None
    from griffin_eqx.mesh import parse_mesh

    mesh = parse_mesh(text)
    from griffin_eqx.sharding import make_mesh, virtual_devices

    virtual_devices(mesh.num_devices)
    make_mesh(mesh)
    return mesh
