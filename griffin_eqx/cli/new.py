"""`griffin new`: lays out a block of one's own."""

import dataclasses
import importlib.util
import keyword
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import tyro

from griffin_eqx import registry
from griffin_eqx.cli.arguments import parse
from griffin_eqx.errors import GriffinError
from griffin_eqx.pattern import PatternError, fold_name

LAYOUT = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "griffin_my_block/__init__.py": "init.py.txt",
    "griffin_my_block/my_block.py": "block.py.txt",
    "tests/test_my_block.py": "test.py.txt",
}
"""What is laid out, and the template of each file. `my_block` and `MyBlock` stand for the new name."""


@dataclasses.dataclass(frozen=True)
class New:
    """Lay out a block: a package with one file that works, its test and a README. Nothing is overwritten.

    Attributes:
      what: What to lay out.
      name: The block's name in patterns.
      dir: The folder in which the new folder NAME is made.
    """

    what: Annotated[Literal["block"], tyro.conf.Positional]
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path()


def run(argv: list[str]) -> int:
    """Runs the command."""
    switches = parse(New, argv, prog="griffin new")
    folder = lay_out(switches.name, switches.dir)
    name = folder.name
    print(
        f"{folder}: a block that works, to put your idea into.\n"
        f"  edit    {folder}/griffin_{name}/{name}.py\n"
        f"  look    griffin info {name}@6 --plugin {folder}/griffin_{name}/{name}.py\n"
        f"  install pip install -e '{folder}[test]'\n"
        f"  verify  pytest {folder}\n"
        f'  train   griffin train "({name} {name} local_mqa)@6"'
    )
    return 0


def lay_out(name: str, parent: Path) -> Path:
    """Writes the files of a new block.

    Args:
      name: The block's name, in any spelling of it.
      parent: Where its folder is made.

    Returns:
      The folder.

    Raises:
      GriffinError: If the name is none or is taken, or the folder exists or cannot be made.
    """
    name = check_name(name)
    folder = parent / name
    title = "".join(part.capitalize() for part in name.split("_"))
    spellings = {
        "MyBlock": title if title.endswith("Block") else f"{title}Block",
        "my_block": name,
        "my-block": name.replace("_", "-"),
    }
    templates = files("griffin_eqx.cli") / "templates"
    try:
        folder.mkdir(parents=True)
        for path, template in LAYOUT.items():
            target = folder / _spelt(path, spellings)
            target.parent.mkdir(exist_ok=True)
            target.write_text(_spelt((templates / template).read_text("utf-8"), spellings), "utf-8")
    except FileExistsError:
        raise GriffinError(
            f"{folder} exists already.\nChoose another name or --dir: nothing is overwritten."
        ) from None
    except OSError as error:
        raise GriffinError(f"{folder} cannot be written.\n{error}") from None
    return folder


def check_name(name: str) -> str:
    """The folded name.

    Raises:
      GriffinError: If no pattern could hold it, Python could not import it, or it is taken.
    """
    folded = fold_name(name)
    try:
        valid = str(registry.LayerSpec(folded)) == folded and not keyword.iskeyword(folded)
    except PatternError:
        valid = False
    if not valid or folded in ("true", "false"):
        raise GriffinError(
            f"{name!r} cannot be a block's name.\n"
            "Use a letter, then letters, digits, '_' or '-', and no Python keyword."
        )
    if importlib.util.find_spec(f"griffin_{folded}"):
        raise GriffinError(f"a package griffin_{folded} is installed already.\nChoose another name.")
    try:
        taken = registry.find(folded)
    except registry.RegistryError:
        return folded
    raise GriffinError(f"the block name {folded!r} is taken by {taken.distribution}.\nChoose another.")


def _spelt(text: str, spellings: dict[str, str]) -> str:
    for placeholder, spelling in spellings.items():
        text = text.replace(placeholder, spelling)
    return text
