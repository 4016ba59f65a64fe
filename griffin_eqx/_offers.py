"""Names and the classes behind them, found without importing anyone: what blocks and tasks have in common.

Classes come in through two doors: an entry-point group of any installed distribution, one line a name, and `add`
for a class at hand. A plugin is imported when its name is first used, so a broken one breaks nothing else.
"""

import abc
import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import types
from pathlib import Path
from typing import Any, Generic, TypeVar

from griffin_eqx.errors import RegistryError
from griffin_eqx.pattern import fold_name, nearest

Class = TypeVar("Class", bound=type)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One class on offer.

    Attributes:
      name: The canonical name: the longest of its names.
      aliases: Its other names, folded.
      distribution: Who offers it, `name version`, or where an added class was defined.
      target: `module:Class`.
    """

    name: str
    aliases: tuple[str, ...]
    distribution: str
    target: str


class Offers(abc.ABC, Generic[Class]):
    """Names and the classes behind them.

    Attributes:
      noun: What one of them is called in errors.
      door: The function that adds a class, as a user writes it.
    """

    noun: str
    door: str

    def __init__(self, group: str):
        self._group = group
        self._added: dict[str, Class] = {}

    @abc.abstractmethod
    def _check(self, found: Any, origin: str) -> None:
        """Raises `RegistryError` where a class does not keep its contract's form; `origin` says whose it is."""

    @abc.abstractmethod
    def _base(self) -> type:
        """The abstract class that all of them extend, imported now."""

    @functools.cached_property
    def _found(self) -> tuple[Entry, ...]:
        """One entry for each object that an installed distribution offers."""
        names: dict[tuple[str, str], set[str]] = {}
        for point in importlib.metadata.entry_points(group=self._group):
            owner = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"
            names.setdefault((owner, point.value.replace(" ", "")), set()).add(fold_name(point.name))
        return tuple(_entry(offered, owner, target) for (owner, target), offered in sorted(names.items()))

    def entries(self) -> tuple[Entry, ...]:
        """Every class on offer, by name, without importing any."""
        added = {
            id(offered): _entry(_names(offered), self._where(offered), _target(offered))
            for offered in self._added.values()
        }
        return tuple(sorted((*self._found, *added.values()), key=lambda e: (e.name, e.distribution)))

    def refresh(self) -> None:
        """Looks at the installed distributions again."""
        vars(self).pop("_found", None)
        importlib.invalidate_caches()

    def add(self, offered: Class) -> Class:
        """Registers a class under its `name` and `aliases`, for this process. Usable as a decorator.

        Adding a class of the same module and name again, as a notebook does, replaces it.

        Raises:
          RegistryError: If it does not keep the contract's form, or a name is taken.
        """
        self._check(offered, "")
        names = _names(offered)
        kept = {n: other for n, other in self._added.items() if _target(other) != _target(offered)}
        for entry in self._found:
            if taken := names & {entry.name, *entry.aliases}:
                raise self._clash(taken.pop(), [entry.distribution, self._where(offered)])
        if taken := names & kept.keys():
            name = taken.pop()
            raise self._clash(name, [self._where(kept[name]), self._where(offered)])
        self._added = kept | dict.fromkeys(names, offered)
        return offered

    def add_file(self, path: str | Path) -> list[Class]:
        """Runs a Python file and registers every concrete class of this kind that is defined in it.

        Raises:
          RegistryError: If the file is missing, fails to run, or defines none.
        """
        added = self.add_module(run_file(path))
        if not added:
            raise RegistryError(
                f"--plugin {path}: it defines no concrete {self.noun}.\n"
                f"A {self.noun} is a subclass of griffin_eqx.{self._base().__name__} with a name and every method "
                "of the contract."
            )
        return added

    def add_module(self, module: types.ModuleType) -> list[Class]:
        """Registers every concrete class of this kind that a module defines; what it imports is not its own."""
        base = self._base()
        found: list[Any] = [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, base)
            and value.__module__ == module.__name__
            and not inspect.isabstract(value)
            and hasattr(value, "name")
        ]
        return [self.add(offered) for offered in found]

    def is_added(self, entry: Entry) -> bool:
        """Whether it was added in this process, by `add` or from a file."""
        return entry.name in self._added

    def find(self, name: str) -> Entry:
        """The entry behind a name or alias.

        Raises:
          RegistryError: If nobody offers it, with the nearest name, or two distributions do.
        """
        folded = fold_name(name)
        offers = [entry for entry in self.entries() if folded in (entry.name, *entry.aliases)]
        if len(offers) > 1:
            raise self._clash(folded, [entry.distribution for entry in offers])
        if offers:
            return offers[0]
        raise RegistryError(f"there is no {self.noun} named {name!r}.\n{self._advice(folded)}")

    def load(self, name: str) -> Class:
        """The class behind a name or alias, imported now.

        Raises:
          RegistryError: As `find`; also if importing it fails or it does not keep the contract's form.
        """
        entry = self.find(name)
        if entry.name in self._added:
            return self._added[entry.name]
        module, _, attribute = entry.target.partition(":")
        try:
            found: Any = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
        except Exception as error:
            raise RegistryError(
                f"{self.noun} {entry.name!r} of {entry.distribution} cannot be imported from {entry.target}.\n"
                f"{type(error).__name__}: {error}\n"
                f"Mend or uninstall that distribution; other {self.noun}s work."
            ) from error
        self._check(found, f" ({entry.target} of {entry.distribution})")
        return found

    def _advice(self, folded: str) -> str:
        known = sorted({name for entry in self.entries() for name in (entry.name, *entry.aliases)})
        if not known:
            return f"No {self.noun} is installed: griffin_eqx itself must be installed (pip install -e .)."
        close = nearest(folded, known)
        guess = f"Did you mean {close!r}? " if close else ""
        return f"{guess}Known: {', '.join(known)}. After installing a plugin or editing entry points, re-install it."

    def _where(self, offered: type) -> str:
        return f"{self.door} of {_target(offered)}"

    def _clash(self, name: str, owners: list[str]) -> RegistryError:
        return RegistryError(
            f"the {self.noun} name {name!r} is offered by {' and by '.join(owners)}.\n"
            "Uninstall one, or rename it: none wins."
        )


def run_file(path: str | Path) -> types.ModuleType:
    """Runs a Python file as a module of its own.

    Raises:
      RegistryError: If the file is missing, no Python file, or fails to run.
    """
    path = Path(path)
    if not path.is_file():
        raise RegistryError(f"--plugin {path}: there is no such file.")
    name = f"griffin_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RegistryError(f"--plugin {path}: not a Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RegistryError(
            f"--plugin {path}: running it failed.\n{type(error).__name__}: {error}"
        ) from error
    return module


def _names(offered: Any) -> set[str]:
    return {fold_name(name) for name in (offered.name, *offered.aliases)}


def _entry(names: set[str], distribution: str, target: str) -> Entry:
    ordered = sorted(names, key=lambda name: (-len(name), name))
    return Entry(ordered[0], tuple(ordered[1:]), distribution, target)


def _target(offered: type) -> str:
    return f"{offered.__module__}:{offered.__qualname__}"
