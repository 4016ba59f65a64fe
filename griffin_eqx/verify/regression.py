"""A counterexample as a test to paste, and the functions that such a test calls."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from griffin_eqx.block import AbstractBlock, Dims
from griffin_eqx.verify.scan_subject import ScanSubject
from griffin_eqx.verify.subject import DIMS, Subject
from griffin_eqx.verify.verdict import Counterexample


def check_block_case(
    block: type[AbstractBlock],
    law: str,
    case: Any,
    *,
    options: Mapping[str, Any] | None = None,
    dims: Dims = DIMS,
) -> None:
    """Tries a law on one case of a block, with no search.

    Args:
      block: The class.
      law: The law's name.
      case: The case, as `griffin verify` printed it.
      options: The options it was found with.
      dims: The model's sizes.

    Raises:
      AssertionError: If the case breaks the law.
    """
    from griffin_eqx.verify.block_laws import BLOCK_LAWS

    BLOCK_LAWS[law].check(Subject(block, block.Options(**(options or {})), dims), case)


def check_scan_case(
    scan: Callable[..., Any], law: str, case: Any, *, reverse: bool = False, resets: bool = True
) -> None:
    """Tries a law on one case of a scan, with no search.

    Args:
      scan: The function.
      law: The law's name.
      case: The case, as `griffin verify` printed it.
      reverse: The function takes `reverse=`.
      resets: The function takes resets.

    Raises:
      AssertionError: If the case breaks the law.
    """
    from griffin_eqx.verify.scan_laws import SCAN_LAWS

    SCAN_LAWS[law].check(ScanSubject(scan, both_ways=reverse, resets=resets), case)


def regression_test(found: Counterexample) -> str:
    """The source of a test that fails as long as the counterexample breaks its law."""
    subject, law = found.subject, found.law.name
    names = sorted({type(part).__name__ for part in _parts(found.case)})
    case = _short(found.case)
    if isinstance(subject, ScanSubject):
        imports, made, name = _import_of_function(subject.scan)
        checker = "check_scan_case"
        options = f", reverse={subject.both_ways}, resets={subject.resets}"
    else:
        imports, made, name = _import_of_class(subject.Block)
        checker = "check_block_case"
        options = f", options={subject.changed!r}" if subject.changed else ""
        if subject.dims != DIMS:
            options += f", dims={_short(subject.dims)}"
            names.append("Dims")
    kit = ", ".join(sorted({checker, *names} - {"Dims"}))
    more = ["from griffin_eqx import Dims"] if "Dims" in names else []
    return "\n".join(
        [
            *sorted([*more, f"from griffin_eqx.verify import {kit}", *imports]),
            *made,
            "",
            "",
            f"def test_{subject}_keeps_the_law_{law}():",
            f"    case = {case}",
            f'    {checker}({name}, "{law}", case{options})',
            "",
        ]
    )


def file_of(block: type) -> str:
    """The file that a block was run from, from where the user stands if it lies below."""
    path = Path(sys.modules[block.__module__].__file__ or "")
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _parts(case: Any) -> list[Any]:
    if dataclasses.is_dataclass(case):
        return [case, *(p for f in dataclasses.fields(case) for p in _parts(getattr(case, f.name)))]
    return [part for one in case for part in _parts(one)] if isinstance(case, tuple) else []


def _short(value: Any) -> str:
    """The value as Python, a dataclass without the fields that have their defaults."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_short, value))}{',' if len(value) == 1 else ''})"
    if not dataclasses.is_dataclass(value):
        return repr(value)
    shown = [
        (field.name, getattr(value, field.name))
        for field in dataclasses.fields(value)
        if field.default is dataclasses.MISSING or getattr(value, field.name) != field.default
    ]
    inner = [f"{name}={_short(inside)}" for name, inside in shown]
    return f"{type(value).__name__}({', '.join(inner)})"


def _import_of_class(block: type[AbstractBlock]) -> tuple[list[str], list[str], str]:
    """Lines that import the class, lines after them, and what it is called then."""
    module, name = block.__module__, block.__qualname__
    if module.startswith("griffin_plugin_"):  # the registry ran it from a file
        # By its name: a file may define several.
        added = [f'registry.add_file("{file_of(block)}")', f'{name} = registry.load("{block.name}")']
        return ["from griffin_eqx import registry"], ["", *added], name
    return [f"from {module} import {name}"], [], name


def _import_of_function(scan: Any) -> tuple[list[str], list[str], str]:
    inner = scan.func if isinstance(scan, functools.partial) else scan
    name = getattr(inner, "__name__", "scan")
    imports = [f"from {getattr(inner, '__module__', '__main__')} import {name}"]
    if isinstance(scan, functools.partial):
        given = ", ".join(f"{key}={value!r}" for key, value in scan.keywords.items())
        return ["from functools import partial", *imports], [], f"partial({name}, {given})"
    return imports, [], name
