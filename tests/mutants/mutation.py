"""A planted mistake: the correct source of one module with one small change, loaded beside the real one."""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import griffin_eqx
from griffin_eqx.verify import SCAN_LAWS, ScoreBoard, check_block, verify_block, verify_scan
from griffin_eqx.verify.scan_subject import ScanSubject
from tests.kernels import rg_lru_laws, unit_laws
from tests.meshes import over_mesh

BLOCKS = {
    "rg_lru": "griffin_plugins.rg_lru:RGLRUBlock",
    "cg_lru": "griffin_plugins.cg_lru:CGLRUBlock",
    "local_mqa": "griffin_plugins.local_mqa:LocalMQABlock",
    "global_mqa": "griffin_plugins.global_mqa:GlobalMQABlock",
}
SCAN = "griffin_kernels.linear_scan:linear_scan"
UNITS = {
    "rg_lru": "griffin_kernels.rg_lru:rg_lru_scan",
    "gated_rg_lru": "griffin_kernels.gated_rg_lru:gated_rg_lru",
    "cg_lru": "griffin_kernels.cg_lru:cg_lru_scan",
}
SHARDED_SCAN = "griffin_kernels.linear_scan:sharded_linear_scan"

_RELOADED = ("griffin_kernels", "griffin_plugins", "griffin_eqx.nn")
# The kit hands its own Planar pairs to a scan, which must know them as such.
_SHARED = "griffin_kernels.linear_scan.planar"


@dataclass(frozen=True)
class Mutant:
    """One mistake, and the law that must notice it.

    Attributes:
      name: What the tests call it.
      law: The law that catches it, or several that all do.
      module: The module that is edited.
      old: What is replaced; it stands in the source exactly once.
      new: What takes its place.
      why: The real mistake that this is.
      block: The built-in block that is judged, when it is one.
      scan: The implementation of `linear_scan` that is judged, when it is one.
      unit: The implementation of a fused unit that is judged, when it is one.
      family: Which unit.
      mesh: (data, sequence, model), where the scan is judged over a mesh.
      options: Of the block, where its defaults and the small ones of the kit do not show the mistake.
      traps: The rows of the list of real mistakes that it stands for.
    """

    name: str
    law: str | tuple[str, ...]
    module: str
    old: str
    new: str
    why: str
    block: str | None = None
    scan: str | None = None
    unit: str | None = None
    family: str = "rg_lru"
    mesh: tuple[int, int, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    traps: tuple[int, ...] = ()

    @property
    def laws(self) -> tuple[str, ...]:
        """The laws that must catch it."""
        return (self.law,) if isinstance(self.law, str) else self.law

    def source(self) -> str:
        """The edited source of the module.

        Raises:
          ValueError: If `old` does not stand in it exactly once: the mutant must follow the code.
        """
        spec = find_spec(self.module)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).read_text(encoding="utf-8")
        if (count := source.count(self.old)) != 1:
            raise ValueError(
                f"mutant {self.name}: {self.module} holds its text {count} times, expected once. "
                f"The code has changed; change the mutant with it:\n{self.old}"
            )
        return source.replace(self.old, self.new)

    def load(self) -> Any:
        """The class of the block, or the function, with the mistake in it."""
        edited = {self.module: (self.name, self.source())}
        if self.mesh:
            return over_mesh(load(SHARDED_SCAN, edited), self.mesh)
        return load(BLOCKS[self.block] if self.block else UNITS[self.family] if self.unit else SCAN, edited)

    def verify(self, seed: int) -> ScoreBoard:
        """Holds the mutant to the laws that must catch it as `griffin verify` does, smallest case included."""
        subject = self.load()
        if self.block:
            return verify_block(subject, options=self.options or None, laws=self.laws, seed=seed)
        if self.unit and self.family == "rg_lru":
            return rg_lru_laws.verify_unit(subject, self.unit, laws=self.laws, seed=seed)
        if self.unit:
            unit = unit_laws.Unit(self.family, subject, self.unit)
            return unit_laws.verify_unit(unit, laws=self.laws, seed=seed)
        scan = partial(subject, implementation=self.scan, interpret=True)
        return verify_scan(scan, complex=True, reverse=True, laws=self.laws, seed=seed)

    def hold(self, law: str) -> None:
        """Holds the mutant to one law.

        Raises:
          AssertionError: If the law notices.
        """
        judged = {"block": self.block, "scan": self.scan, "unit": self.unit, "family": self.family}
        hold(self.load(), law, **judged, options=self.options)


def hold(
    subject: Any,
    law: str,
    *,
    block: str | None = None,
    scan: str | None = None,
    unit: str | None = None,
    family: str = "rg_lru",
    options: Mapping[str, Any] | None = None,
) -> None:
    """Holds a loaded class or function to one law."""
    if block is not None:
        check_block(subject, law, options=options or None)
    elif unit is not None and family == "rg_lru":
        rg_lru_laws.LAWS[law].hold(rg_lru_laws.Unit(subject, unit))
    elif unit is not None:
        unit_laws.LAWS[law].hold(unit_laws.Unit(family, subject, unit))
    else:
        SCAN_LAWS[law].hold(ScanSubject(partial(subject, implementation=scan, interpret=True)))


def load(target: str, edited: Mapping[str, tuple[str, str]]) -> Any:
    """Imports `module:name` anew, with everything that it is built from.

    Args:
      target: What to import.
      edited: For an edited module the name of the edit, and the source in place of its own.
    """
    module, _, name = target.partition(":")
    with _aside(keep=() if _SHARED in edited else (_SHARED,)):
        finder = _Finder(edited)
        sys.meta_path.insert(0, finder)
        try:
            return getattr(importlib.import_module(module), name)
        finally:
            sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    """Comes before jaxtyping's import hook: mutants run without type checks, as they do for users."""

    def __init__(self, edited: Mapping[str, tuple[str, str]]):
        self.edited = edited

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if not _reloaded(fullname):
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or fullname not in self.edited:
            return spec
        edit, source = self.edited[fullname]
        loader = _Source(source)
        return spec_from_file_location(fullname, f"{spec.origin} ({edit})", loader=loader)


class _Source(Loader):
    """Runs a source that no file holds; tracebacks show its lines."""

    def __init__(self, source: str):
        self.source = source

    def exec_module(self, module: ModuleType) -> None:
        assert module.__file__ is not None
        exec(compile(self.source, module.__file__, "exec"), vars(module))

    def get_source(self, fullname: str) -> str:
        return self.source


def _reloaded(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _RELOADED)


@contextmanager
def _aside(keep: tuple[str, ...]) -> Iterator[None]:
    """Takes the real modules away, and puts them back."""
    real = {name: module for name, module in sys.modules.items() if _reloaded(name)}
    # Importing a module sets it on its parent, and this is the only parent that stays.
    attributes = {"nn": vars(griffin_eqx)["nn"]} if "nn" in vars(griffin_eqx) else {}
    for name in real.keys() - set(keep):
        del sys.modules[name]
    try:
        yield
    finally:
        for name in [name for name in sys.modules if _reloaded(name)]:
            del sys.modules[name]
        sys.modules.update(real)
        if "nn" in vars(griffin_eqx):
            delattr(griffin_eqx, "nn")
        for name, value in attributes.items():
            setattr(griffin_eqx, name, value)
