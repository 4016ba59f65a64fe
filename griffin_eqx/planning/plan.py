"""Plans a job on a machine that is not here: checks it, has it compiled, puts the readings together."""

import importlib.util
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal

import msgspec

from griffin_eqx import registry
from griffin_eqx.aot import environment
from griffin_eqx.aot.session import PACKAGES, TPU_VARIABLES, Child, folder_of
from griffin_eqx.config import Config
from griffin_eqx.errors import GriffinError
from griffin_eqx.mesh import MeshError, MeshShape, meshes
from griffin_eqx.model import template
from griffin_eqx.pattern import Pattern
from griffin_eqx.planning.order import Offer, Order, Reading
from griffin_eqx.planning.programs import executed_flops, held_bytes
from griffin_eqx.planning.targets import Target
from griffin_eqx.planning.verdict import Layer, Plan
from griffin_eqx.sharding import fits, place
from griffin_eqx.summary import with_vocabulary

Job = Literal["train", "decode"]
SETUP = "griffin plan --setup"
SECONDS = 1800.0
"""The longest that one program may take to compile."""


class Planner:
    """Compiles plans for one machine, in one child process that starts with the first.

    Args:
      target: The machine.

    Raises:
      EnvironmentMissing: If it is a TPU and its compiler's environment is not there.
    """

    def __init__(self, target: Target):
        self.target = target
        self._python = Path(sys.executable) if target.chip is None else environment.python(setup=SETUP)
        self._folder = tempfile.TemporaryDirectory(prefix="griffin-plan-")
        self._child: Child | None = None

    def __enter__(self) -> "Planner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            self._child.stop()
        self._folder.cleanup()

    def plan(
        self,
        config: Config,
        mesh: MeshShape,
        *,
        job: Job = "train",
        model: str | None = None,
        layers: bool = True,
        begin: Callable[[str], None] = lambda what: None,
    ) -> Plan:
        """Plans one job.

        Args:
          config: What is run.
          mesh: Over which devices: all of the machine's.
          job: A training step, or one decoding step of rows whose caches hold `data.seq_len` tokens.
          model: What the model is called; its pattern when None.
          layers: Whether every kind of layer is compiled alone as well.
          begin: Told what is compiled next.

        Raises:
          MeshError: If the mesh cannot be; found before anything is compiled.
          GriffinError: If the program does not compile, or the compiler does not start.
        """
        config = with_vocabulary(config)
        held = check(config, mesh, self.target, job=job)
        pattern = registry.resolve(config.model.pattern)
        begin("the whole step")
        answer = self._ask(config, mesh, pattern, job)
        if "error" in answer:
            raise GriffinError(
                f"the program does not compile for {self.target}: {answer['error']}\n"
                f"It is the {job} step of {model or pattern} over {mesh}.\n"
                "Try another mesh, or `griffin plan ... --target cpu:8` to see whether it is the program."
            )
        reading = msgspec.convert(answer["reading"], Reading)
        found = []
        # What a layer communicates does not depend on whether all of them fit.
        for kind, (where, count) in _kinds(pattern).items() if layers else ():
            begin(f"one layer {kind}")
            own = self._ask(config, mesh, pattern, f"{job} {where}")
            if "error" in own:
                found.append(Layer(kind=kind, count=count, error=own["error"]))
            else:
                found.append(Layer(kind=kind, count=count, reading=msgspec.convert(own["reading"], Reading)))
        assert self._child is not None
        return Plan(
            model=model or str(pattern),
            pattern=str(pattern),
            job=job,
            target=str(self.target),
            mesh=(mesh.data, mesh.sequence, mesh.model),
            batch_size=config.data.batch_size,
            seq_len=config.data.seq_len,
            held_bytes=held,
            flops=executed_flops(config, job),
            reading=reading,
            layers=tuple(found),
            versions=self._child.versions,
        )

    def _ask(self, config: Config, mesh: MeshShape, pattern: Pattern, job: str) -> dict:
        blocks = tuple(offers(pattern))
        if self._child is None:
            self._child = self._started(blocks)
        order = Order(
            config=msgspec.to_builtins(config),
            mesh=(mesh.data, mesh.sequence, mesh.model),
            job=job,
            topology=str(self.target) if self.target.chip else None,
            blocks=blocks,
        )
        return self._child.ask(msgspec.to_builtins(order))

    def _started(self, blocks: tuple[Offer, ...]) -> Child:
        dump = Path(self._folder.name) / "dump"
        # The text of our programs alone, when they are finished.
        wanted = "--xla_dump_hlo_as_text=true --xla_dump_hlo_module_re=jit_(update|turn|step)"
        there = TPU_VARIABLES | {"XLA_FLAGS": f"--xla_dump_to={dump} {wanted}"}
        here = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(self.target.num_devices)}
        homes = {block.module.partition(".")[0] for block in blocks if block.file is None}
        packages = {name: folder_of(name) for name in dict.fromkeys((*PACKAGES, *sorted(homes)))}
        return Child(
            "griffin_eqx.planning.child:answer",
            python=self._python,
            variables=here if self.target.chip is None else there,
            packages=packages,
            dump=dump,
            seconds=SECONDS,
            setup=SETUP,
        )


def plan(
    config: Config, *, target: Target, mesh: MeshShape, job: Job = "train", model: str | None = None
) -> Plan:
    """Plans a job on a machine that is not here. `Planner` plans several at less cost.

    Raises:
      MeshError: If the mesh cannot be.
      EnvironmentMissing: If the TPU compiler's environment is not there.
      GriffinError: If the program does not compile.
    """
    with Planner(target) as planner:
        return planner.plan(config, mesh, job=job, model=model)


def check(config: Config, mesh: MeshShape, target: Target, *, job: Job = "train") -> dict[str, int]:
    """Checks that a mesh is the machine's, and divides the model and the batch.

    Returns:
      Bytes a device of what lies there between two runs, by kind.

    Raises:
      MeshError: If not; it names the nearest meshes of the machine that do.
    """
    config = with_vocabulary(config)
    if mesh.num_devices != target.num_devices:
        raise MeshError(
            f"The mesh {mesh} has {mesh.num_devices} devices and {target} has {target.num_devices}.\n"
            f"  --target {target} --mesh {mesh}\n  {_near(config, mesh, target)}"
        )
    parts = config.optimizer.accumulation if job == "train" else 1
    if config.data.batch_size % (parts * mesh.data):
        cut = f" in {parts} parts (optimizer.accumulation)" if parts > 1 else ""
        multiple = parts * mesh.data
        raise MeshError(
            f"The mesh {mesh} cannot divide {config.data.batch_size} rows{cut} over data={mesh.data}.\n"
            f"  Take --batch {math.ceil(config.data.batch_size / multiple) * multiple}.\n"
            f"  {_near(config, mesh, target)}"
        )
    place(template(config), mesh)
    return held_bytes(config, mesh, job)


def possible(config: Config, target: Target) -> list[MeshShape]:
    """The meshes of a machine that divide a model and its batch."""
    config = with_vocabulary(config)
    rows = config.data.batch_size
    model = template(config)
    parts = config.optimizer.accumulation
    return [
        mesh
        for mesh in meshes(target.num_devices)
        if rows % (parts * mesh.data) == 0 and mesh.sequence <= config.data.seq_len and fits(model, mesh)
    ]


def _near(config: Config, mesh: MeshShape, target: Target) -> str:
    def distance(other: MeshShape) -> float:
        return sum(abs(math.log(mine / its)) for mine, its in zip(mesh, other, strict=True))

    near = sorted(possible(config, target), key=distance)[:3]
    if not near:
        return f"No mesh of {target.num_devices} devices divides this model and batch: take other sizes."
    return f"Meshes of {target} that work: {'  '.join(map(str, near))}"


def offers(pattern: Pattern) -> Iterator[Offer]:
    """Where the blocks of a pattern come from, so that another process can find them.

    Raises:
      GriffinError: If one was defined where no other process can find it, as in a notebook.
    """
    for name in dict.fromkeys(layer.name for layer in pattern.layers):
        block = registry.load(name)
        module, file = block.__module__, None
        if module == "__main__" or not _is_importable(module.partition(".")[0]):
            file = getattr(sys.modules.get(module), "__file__", None)
            if file is None:
                raise GriffinError(
                    f"block {name!r} is defined in {module}, which another process cannot import.\n"
                    "Plans are compiled in a process of their own.\n"
                    "Put the block into a file and name it: --plugin FILE."
                )
            file = str(Path(file).resolve())
        yield Offer(name=name, module=module, attribute=block.__qualname__, file=file)


def _is_importable(package: str) -> bool:
    """Whether it is found by its name; the module of a file given by `--plugin` is not."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module that was made by hand
        return False


def _kinds(pattern: Pattern) -> dict[str, tuple[str, int]]:
    """Every kind of layer: where the first stands (run and place in its unit), and how many there are."""
    layers = list(map(str, pattern.layers))
    found: dict[str, tuple[str, int]] = {}
    for run, repeated in enumerate(pattern.runs):
        for offset, spec in enumerate(repeated.unit):
            found.setdefault(str(spec), (f"{run}.{offset}", layers.count(str(spec))))
    return found
