"""`griffin train`: trains a model; the same command again goes on with it."""

import dataclasses
import sys

from griffin_eqx.cli import INTERRUPTED
from griffin_eqx.cli.arguments import Flag, Text
from griffin_eqx.cli.configure import ModelSwitches, configure


@dataclasses.dataclass(frozen=True)
class Train(ModelSwitches):
    """Train a model. The same command goes on where it stopped; Ctrl-C saves and stops, twice stops now.

    Attributes:
      run_dir: The run directory; runs/NAME when left out.
      name: The run's name under runs/; preset and digest of the configuration when left out.
      quiet: Print nothing.
      debug_nan: Stop at the first loss that is not finite, and name the layer that it comes from.
      profile: Record a few steps with JAX's profiler, in profile/ of the run directory.
      mesh: Devices to train over, such as data=2,model=4. Without an accelerator they are virtual ones of this CPU,
        which show that it works and not how fast.
    """

    run_dir: Text = None
    name: Text = None
    quiet: Flag = False
    debug_nan: Flag = False
    profile: Flag = False
    mesh: Text = None


INIT_FROM = "--init-from"


def run(argv: list[str]) -> int:
    """Runs the command."""
    config, switches = configure(spelt_out(argv), Train, prog="griffin train")
    from griffin_eqx.mesh import parse_mesh

    mesh = None if switches.mesh is None else parse_mesh(switches.mesh)
    if mesh is not None:
        from griffin_eqx.sharding import virtual_devices

        virtual_devices(mesh.num_devices)
    from griffin_eqx.training.loop import train

    result = train(
        config,
        run_dir=switches.run_dir,
        name=switches.name,
        quiet=switches.quiet,
        debug_nan=switches.debug_nan,
        profile=switches.profile,
        mesh=mesh,
    )
    sys.stdout.flush()
    return 0 if result.finished else INTERRUPTED


def spelt_out(argv: list[str]) -> list[str]:
    """The arguments with `--init-from` as the key that it is short for."""

    def whole(argument: str) -> str:
        option, equals, value = argument.partition("=")
        return f"--train.init_from{equals}{value}" if option == INIT_FROM else argument

    return list(map(whole, argv))
