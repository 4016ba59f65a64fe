"""What a run's result depends on beside its configuration, for `env.json`."""

import platform
import subprocess
from importlib.metadata import version
from typing import Any

import jax

from griffin_eqx import registry, tasks
from griffin_eqx.config import Config
from griffin_eqx.mesh import MeshShape
from griffin_eqx.pattern import Pattern
from griffin_eqx.task import AbstractTask

_PACKAGES = ("griffin_eqx", "jax", "jaxlib", "equinox", "optax", "orbax-checkpoint", "grain", "numpy")


def environment(config: Config, task: AbstractTask, mesh: MeshShape | None = None) -> dict[str, Any]:
    """Versions, devices, commit and digests. Chosen facts only: environment variables may hold secrets."""
    device = jax.devices()[0]
    blocks = sorted({layer.name for layer in Pattern.parse(config.model.pattern).layers})
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "blocks": {name: registry.find(name).distribution for name in blocks},
        "platform": platform.platform(),
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "processes": jax.process_count(),
        "mesh": None if mesh is None else mesh._asdict(),
        "commit": _commit(),
        "task": {"name": config.data.task, "distribution": tasks.find(task.name).distribution},
        "data": {"digest": task.digest, **task.facts()},
    }


def _commit() -> str | None:
    """The commit of the folder that the run was started in, with `+` where files differ from it."""
    try:
        git = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        done = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
