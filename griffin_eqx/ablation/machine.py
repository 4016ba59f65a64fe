"""How many workers a machine gets, and how many threads each. Imports no JAX."""

import importlib.metadata
import importlib.util
import os
from pathlib import Path

from griffin_eqx.ablation.worker import usable_cores

_DEVICES = ("/dev/nvidia0", "/dev/kfd", "/dev/accel0", "/dev/vfio/0")
"""What a GPU of NVIDIA or AMD, or a TPU, is to Linux."""


def usual(workers: int | None = None, threads: int | None = None) -> tuple[int, int]:
    """Workers, and threads of each, where the user leaves one or both open.

    One worker a core, of one thread. It is no slower than one process of all cores (`experiments/workers/`), and each
    run sees one core, however many there are, which keeps its bits. On an accelerator one worker, of all cores: JAX
    takes nearly all of the device's memory for a process.
    """
    cores = usable_cores()
    if workers is None and accelerated():
        workers = 1
        threads = threads or cores
    if threads is None:
        threads = max(1, cores // workers) if workers else 1
    if workers is None:
        workers = max(1, cores // threads)
    return workers, threads


def accelerated() -> bool:
    """Whether JAX would use something else than the CPU here; said without starting it."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return False
    plugins = any(importlib.metadata.entry_points(group="jax_plugins")) or importlib.util.find_spec("libtpu")
    return bool(plugins) and any(Path(device).exists() for device in _DEVICES)
