"""Where a command may draw: what would fail at the end is said before anything is measured."""

import importlib.util
from pathlib import Path

from griffin_eqx.errors import GriffinError


def plot_file(name: str | None) -> Path | None:
    """The file behind `--plot`.

    Raises:
      GriffinError: If Matplotlib is missing, the format is unknown, or there is no such folder.
    """
    if name is None:
        return None
    if importlib.util.find_spec("matplotlib") is None:
        raise GriffinError(
            f"--plot {name}: needs Matplotlib, which is not installed.\n"
            "Install it: pip install 'griffin_eqx[report]'."
        )
    path = Path(name)
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise GriffinError(f"--plot {name}: cannot draw that format.\nEnd the name in .svg, .png or .pdf.")
    if not path.absolute().parent.is_dir():
        raise GriffinError(f"--plot {name}: there is no folder {path.parent}.\nMake it, or name another.")
    return path
