"""Joining: the one thing that must happen before JAX looks for devices."""

import atexit
import os
from typing import Any

from griffin_eqx.processes.group import ALONE, Group
from griffin_eqx.processes.meeting import Place, ProcessError, meet

AUTO = "auto"
"""What a command takes for the processes that a cluster has started."""

_SECONDS, _CLUSTER_SECONDS = 25.0, 300.0
# JAX's own connection comes after everybody has been met.
_JAX_SECONDS = 60

_joined: Group = ALONE


def current() -> Group:
    """The processes that this one has joined; itself alone where it has not."""
    return _joined


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_index: int | None = None,
    *,
    seconds: float | int | None = None,
) -> Group:
    """Joins the other processes of a training, before anything in JAX asks for devices.

    Without arguments JAX finds them: SLURM, Open MPI, Kubernetes (GKE), TPU pods. With all three it is told.
    Then `jax.devices()` are those of all, and `griffin_eqx.train` trains over them.

    Args:
      coordinator: Where process 0 can be reached, HOST:PORT.
      num_processes: How many there are.
      process_index: Which one this is, from 0.
      seconds: How long to wait for the others; 25 by hand, 300 in a cluster, whose machines come one by one.

    Returns:
      The group, which `current` gives from now on.

    Raises:
      ProcessError: If they cannot train together: one is missing, comes twice or counts otherwise, nobody answers, the
        port is in use, there is no cluster, or JAX has looked for devices already.
    """
    global _joined
    import jax

    if jax.distributed.is_initialized():
        raise ProcessError(
            "This process has joined others already.\n  jax.distributed is initialised.\n"
            "  Call griffin_eqx.processes.join once, in place of jax.distributed.initialize."
        )
    place, local_devices = _place(coordinator, num_processes, process_index, seconds or _CLUSTER_SECONDS)
    by_hand = coordinator is not None
    place.checked()
    if place.count == 1:
        return _joined
    lines = meet(place, seconds or (_SECONDS if by_hand else _CLUSTER_SECONDS))
    group = Group(place.index, place.count, lines)
    atexit.register(group.leave)  # before what JAX does at exit, for that was registered earlier
    with group.together():
        # Signals are for `griffin_eqx.training.stopping`, and for all processes at once.
        jax.config.update("jax_enable_preemption_service", False)
        host, port = place.coordinator.rsplit(":", 1)
        try:
            jax.distributed.initialize(
                place.coordinator,
                place.count,
                place.index,
                local_devices,
                cluster_detection_method="deactivate" if by_hand else None,
                initialization_timeout=_JAX_SECONDS,
                coordinator_bind_address=f"{host}:{port}" if place.is_local else None,
            )
        except (RuntimeError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise ProcessError(
                f"JAX could not connect the processes: {first[:300]}\n"
                f"  {place.coordinator}, process {place.index} of {place.count}\n"
                "  Join before anything asks for devices, and give it a port that is free."
            ) from error
    _joined = group
    return group


def _place(
    coordinator: str | None, num_processes: int | None, process_index: int | None, seconds: float | int
) -> tuple[Place, Any]:
    """`(place, local devices)`; None for the devices leaves them to JAX."""
    if coordinator is not None and num_processes is not None and process_index is not None:
        return Place(coordinator, num_processes, process_index), None
    if (coordinator, num_processes, process_index) != (None, None, None):
        given = {"coordinator": coordinator, "processes": num_processes, "process index": process_index}
        missing = [name for name, value in given.items() if value is None]
        raise ProcessError(
            f"To join by hand all three must be given; missing: {', '.join(missing)}.\n"
            "  where process 0 can be reached, how many processes there are, and which one this is\n"
            "  Write --processes 2 --coordinator HOST:PORT --process-index 0, or --processes auto in a cluster."
        )
    return detect(seconds)


def detect(seconds: float | int = 0) -> tuple[Place, Any]:
    """Where JAX's own detection puts this process, and which devices it gives it (None: all); joins nothing.

    Args:
      seconds: How long to wait until the coordinator's name is known, in Kubernetes.

    Raises:
      ProcessError: If JAX sees no cluster.
    """
    # The one entry that detects and connects nothing; `initialize()` without arguments does both in one.
    from jax._src.clusters import ClusterEnv

    reason, found = "it sees none of them", (None, None, None, None)
    # JAX's own variables come before what it detects, as in `initialize`.
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    try:
        found = ClusterEnv.auto_detect_unset_distributed_params(address, None, None, None, None, int(seconds))
    except Exception as error:  # whatever a cluster's library raises
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
    coordinator, count, index, local_devices = found
    if coordinator is None or count is None or index is None:
        raise ProcessError(
            f"JAX finds no cluster here: {reason}.\n  SLURM, Open MPI, Kubernetes (with jax[k8s]), TPU pods\n"
            "  Start it with the cluster's launcher, such as srun, or give --processes N --coordinator HOST:PORT "
            "--process-index I."
        )
    return Place(coordinator, count, index), None if "JAX_LOCAL_DEVICE_IDS" in os.environ else local_devices
