"""`griffin doctor`: whether this machine is fit to run griffin, checked piece by piece."""

import dataclasses
import importlib.metadata
import json
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from griffin_eqx import registry, tasks
from griffin_eqx.cli.arguments import Flag, parse
from griffin_eqx.errors import RegistryError

RUNS = Path("runs")
LEAST_FREE_BYTES = 1 << 30
PACKAGES = ("jax", "jaxlib", "equinox", "optax", "orbax-checkpoint", "grain", "numpy")


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Check versions, devices, blocks, tasks, scan kernel and run folder; the exit code is 1 if one is not well.

    Attributes:
      json: Print a JSON list.
    """

    json: Flag = False


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
      check: What was looked at.
      ok: Whether it is well.
      detail: What was found, and what to do where it is not well.
    """

    check: str
    ok: bool
    detail: str


def run(argv: list[str]) -> int:
    """Runs the command."""
    switches = parse(Doctor, argv, prog="griffin doctor")
    findings = list(examine())
    if switches.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    return int(not all(finding.ok for finding in findings))


def examine() -> Iterator[Finding]:
    """Every check, one after the other; a check that fails in any way is a finding, too."""
    yield from _guarded("python", python)
    yield from _guarded("packages", versions)
    yield from _guarded("devices", devices)
    yield from _guarded("processes", cluster)
    yield from _guarded("blocks", partial(offers, registry, "block"))
    yield from _guarded("tasks", partial(offers, tasks, "task"))
    yield from _guarded("scan", scan)
    yield from _guarded("rg_lru", recurrent_unit)
    yield from _guarded("run folder", run_folder)


def _guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:
        yield Finding(name, False, f"{type(error).__name__}: {error}")


def python() -> Iterator[Finding]:
    """The interpreter and the machine."""
    ok = sys.version_info >= (3, 11)
    yield Finding("python", ok, f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def versions() -> Iterator[Finding]:
    """Installed packages against the range that griffin_eqx was tested with."""
    yield Finding("griffin_eqx", True, importlib.metadata.version("griffin_eqx"))
    ranges = supported_ranges()
    for package in PACKAGES:
        wanted = ranges.get(package, "")
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(package, False, f"not installed; install {package}{wanted}")
            continue
        ok = in_range(found, wanted)
        advice = "" if ok else f"; tested is {wanted}: install that, or expect surprises"
        yield Finding(package, ok, found + advice)


def supported_ranges() -> dict[str, str]:
    """The version range of each dependency, as griffin_eqx's own metadata has it."""
    required = importlib.metadata.requires("griffin_eqx") or []
    plain = [line for line in required if ";" not in line]
    parts = [re.fullmatch(r"([\w.-]+)\s*(.*)", line) for line in plain]
    return {part[1].lower(): part[2] for part in parts if part}


def in_range(version: str, wanted: str) -> bool:
    """Whether a version lies in a range such as `>=0.10.2,<0.13`; anything after its numbers is ignored.

    >>> in_range("0.12.0.1", "<0.13,>=0.10.2"), in_range("0.13.0", "<0.13,>=0.10.2")
    (True, False)
    """

    def numbers(text: str) -> list[int]:
        found = re.match(r"\d+(\.\d+)*", text)
        parts = [int(part) for part in found[0].split(".")] if found else []
        return parts + [0] * (6 - len(parts))

    for bound in filter(None, (part.strip() for part in wanted.split(","))):
        sign = "<" if bound.startswith("<") else ">="
        limit = numbers(bound.lstrip("<>="))
        if (numbers(version) < limit) != (sign == "<"):
            return False
    return True


def devices() -> Iterator[Finding]:
    """What JAX computes on."""
    import jax

    found = jax.devices()
    kinds = sorted({device.device_kind for device in found})
    yield Finding("devices", True, f"{len(found)} x {', '.join(kinds)} ({jax.default_backend()})")


def cluster() -> Iterator[Finding]:
    """The processes that `griffin train --processes auto` would join."""
    from griffin_eqx.processes import ProcessError, detect

    try:
        place, _ = detect()
    except ProcessError as error:
        # What is wrong with a cluster matters to those alone who are in one, and they are told when they join.
        yield Finding("processes", True, f"one, on its own: {str(error).splitlines()[0]}")
    else:
        detail = f"{place.count}, this is {place.index}; they meet at {place.coordinator} (--processes auto)"
        yield Finding("processes", True, detail)


def offers(known: Any, noun: str) -> Iterator[Finding]:
    """Every installed block, or task, imported; `known` is the module that knows them."""
    entries = known.entries()
    if not entries:
        advice = "none is installed: install griffin_eqx itself (pip install -e .)"
        yield Finding(f"{noun}s", False, advice)
    for entry in entries:
        try:
            known.load(entry.name)
        except RegistryError as error:
            yield Finding(f"{noun} {entry.name}", False, str(error))
        else:
            yield Finding(f"{noun} {entry.name}", True, entry.distribution)


def scan() -> Iterator[Finding]:
    """The recurrence that blocks run, compiled and held against the sequential float64 loop."""
    import jax
    import numpy as np
    from griffin_kernels.linear_scan import IMPLEMENTATIONS, linear_scan
    from griffin_kernels.linear_scan.implementations import FORWARD
    from griffin_kernels.linear_scan.oracle import linear_scan_oracle

    rng = np.random.default_rng(0)
    x, a = rng.standard_normal((300, 65), np.float32), rng.uniform(0.5, 1, (300, 65)).astype(np.float32)
    h0, reset = rng.standard_normal(65, np.float32), rng.uniform(size=300) < 0.02
    start = time.perf_counter()
    h, h_last = jax.block_until_ready(jax.jit(linear_scan)(x, a, h0, reset))
    seconds = time.perf_counter() - start
    true, true_last = linear_scan_oracle(x, a, h0, reset)
    error = max(np.abs(np.asarray(h) - true).max(), np.abs(np.asarray(h_last) - true_last).max())
    # Float32 sums with states near 10: 1e-4 is far above rounding and far below a mistake.
    ok = bool(error < 1e-4)
    choice = FORWARD.choose(jax.default_backend(), x, a, h0, reset, reverse=False)
    yield Finding("scan kernel", True, f"{choice.name}, of {', '.join(IMPLEMENTATIONS)}: {choice.reason}")
    yield Finding("scan check", ok, f"{error:.1e} from the oracle; compiled and run in {seconds:.1f} s")


def recurrent_unit() -> Iterator[Finding]:
    """What the `rg_lru` block runs in place of the plain scan, at the width of a layer of 2 billion parameters."""
    import jax
    import jax.numpy as jnp
    from griffin_kernels import gated_rg_lru, rg_lru
    from griffin_kernels.gated_rg_lru import implementations as gated
    from griffin_kernels.rg_lru import implementations as plain

    seq_len, width, blocks = 2048, 2560, 16

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    x, state, flags = array(seq_len, width), array(width), jax.ShapeDtypeStruct((seq_len,), jnp.bool_)
    gate = array(blocks, width // blocks, width // blocks), array(blocks, width // blocks)
    platform, rest = jax.default_backend(), (state, state, flags, flags)
    choice = gated.FORWARD.choose(platform, x, gate, gate, *rest, c=8.0)
    told = f"gated_rg_lru, {choice.name}, of {', '.join(gated_rg_lru.IMPLEMENTATIONS)}: {choice.reason}"
    if choice.name == "composed":
        choice = plain.FORWARD.choose(platform, x, x, x, *rest, c=8.0)
        told += f"; in it rg_lru_scan, {choice.name}, of {', '.join(rg_lru.IMPLEMENTATIONS)}: {choice.reason}"
    yield Finding("rg_lru kernel", True, told)


def run_folder() -> Iterator[Finding]:
    """Whether runs can be written here, and how much room there is."""
    folder = next(path for path in (RUNS, *RUNS.absolute().parents) if path.is_dir())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        yield Finding("run folder", False, f"{folder} cannot be written ({error}); go to another folder")
    else:
        yield Finding("run folder", True, f"{RUNS}/ in {Path.cwd()} can be written")
    free = shutil.disk_usage(folder).free
    enough = free >= LEAST_FREE_BYTES
    yield Finding(
        "disk", enough, f"{free / 2**30:.1f} GiB free" + ("" if enough else "; checkpoints may not fit")
    )


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for finding in findings:
        mark = Text("ok", "green") if finding.ok else Text("FAIL", "bold red")
        table.add_row(mark, finding.check, Text(finding.detail))
    console = Console(highlight=False)
    console.print(table)
    bad = sum(not finding.ok for finding in findings)
    console.print(
        f"\n{bad} of {len(findings)} checks failed." if bad else f"\nAll {len(findings)} checks passed."
    )
