"""Which mesh of a machine a job should take: those that may fit are compiled and ranked."""

import math
from collections.abc import Callable

from griffin_eqx.config import Config
from griffin_eqx.errors import GriffinError
from griffin_eqx.mesh import MeshError, MeshShape
from griffin_eqx.planning.plan import Job, Planner, check, possible
from griffin_eqx.planning.targets import Target
from griffin_eqx.planning.verdict import Plan
from griffin_eqx.summary import with_vocabulary

MOST = 6
"""Meshes that are compiled: each takes as long as one plan."""


def search(
    planner: Planner,
    config: Config,
    *,
    job: Job = "train",
    model: str | None = None,
    most: int = MOST,
    begin: Callable[[str], None] = lambda what: None,
) -> list[Plan]:
    """Plans a job over the meshes of a machine.

    Meshes whose parameters and optimizer alone are too large are left out. Of the others those are compiled that
    split the sequence least and the model into parts nearest to the square root of what is left: rows cost a chip
    one exchange of parameters a step, channels one of activations a layer, and neither should be everything.

    Args:
      planner: Of the machine.
      config: What is run.
      job: As in `Planner.plan`.
      model: What it is called.
      most: How many meshes are compiled.
      begin: Told what is compiled next.

    Returns:
      Those that fit first, the fastest before slower ones. A mesh that does not compile is left out, unless all
      of them are.

    Raises:
      MeshError: If no mesh divides the model and the batch.
      GriffinError: If none compiles.
    """
    config = with_vocabulary(config)
    meshes = candidates(planner.target, config, job)
    if not meshes:
        raise MeshError(
            f"No mesh of {planner.target.num_devices} devices divides this model and batch, or holds its parameters.\n"
            f"  --target {planner.target} --search\n  Take another slice, or another --batch."
        )
    plans, refused = [], None
    for index, mesh in enumerate(meshes[:most], 1):
        begin(f"{mesh} ({index} of {min(most, len(meshes))})")
        try:
            plans.append(planner.plan(config, mesh, job=job, model=model, layers=False))
        except GriffinError as error:
            refused = error
    if refused is not None and not plans:
        raise refused
    return sorted(plans, key=rank)


def rank(plan: Plan) -> tuple[bool, float, int]:
    """What plans are sorted by: whether they fit, then the least time, then memory."""
    return plan.fits is False, plan.seconds or math.inf, plan.needed_bytes


def candidates(target: Target, config: Config, job: Job) -> list[MeshShape]:
    """The meshes that may fit, the likeliest first."""
    chip = target.chip
    found = [
        mesh
        for mesh in possible(config, target)
        if chip is None or sum(check(config, mesh, target, job=job).values()) < chip.memory_bytes
    ]
    middle = math.sqrt(target.num_devices) / 2

    def likelihood(mesh: MeshShape) -> tuple[int, float]:
        return mesh.sequence, abs(math.log(mesh.model / max(1.0, middle)))

    return sorted(found, key=likelihood)
