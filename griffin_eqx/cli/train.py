"""`griffin train`: trains a model; the same command again goes on with it."""

import dataclasses
import sys

from griffin_eqx.cli import INTERRUPTED
from griffin_eqx.cli.arguments import Flag, Number, Text
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
      processes: Train together with other processes, started in the same way: auto, where SLURM, Open MPI, GKE or a TPU
        pod has started them, or their number.
      coordinator: With a number of processes: where process 0 can be reached by all, HOST:PORT.
      process_index: With a number of processes: which of them this is, from 0.
      join_seconds: How long to wait for the other processes; 25, in a cluster 300.
    """

    run_dir: Text = None
    name: Text = None
    quiet: Flag = False
    debug_nan: Flag = False
    profile: Flag = False
    mesh: Text = None
    processes: Text = None
    coordinator: Text = None
    process_index: Number = None
    join_seconds: Number = None


INIT_FROM = "--init-from"


def run(argv: list[str]) -> int:
    """Runs the command."""
    config, switches = configure(spelt_out(argv), Train, prog="griffin train")
    from griffin_eqx.mesh import parse_mesh

    mesh = None if switches.mesh is None else parse_mesh(switches.mesh)
    count = _joined(switches)
    if mesh is not None:
        from griffin_eqx.sharding import virtual_devices

        virtual_devices(-(-mesh.num_devices // count))
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


def _joined(switches: Train) -> int:
    """How many processes train, this one included, after joining them."""
    from griffin_eqx.processes import AUTO, ProcessError

    by_hand = {"--coordinator": switches.coordinator, "--process-index": switches.process_index}
    given = [name for name, value in by_hand.items() if value is not None]
    meant = [*given, *(["--join-seconds"] if switches.join_seconds is not None else [])]
    text = switches.processes
    if text is None and not meant:
        return 1
    number = text is not None and text.isascii() and text.isdecimal() and 0 < len(text) <= 6
    if (text != AUTO and not number) or (text == AUTO and given):
        raise ProcessError(
            f"--processes is auto or a number: got {' and '.join(['nothing' if text is None else repr(text), *meant])}."
            "\n  griffin train\n"
            "  Write --processes 2 --coordinator HOST:PORT --process-index 0, or --processes auto in a cluster."
        )
    from griffin_eqx.processes import join

    return join(
        switches.coordinator,
        int(text) if text and number else None,
        switches.process_index,
        seconds=switches.join_seconds,
    ).count


def spelt_out(argv: list[str]) -> list[str]:
    """The arguments with `--init-from` as the key that it is short for."""

    def whole(argument: str) -> str:
        option, equals, value = argument.partition("=")
        return f"--train.init_from{equals}{value}" if option == INIT_FROM else argument

    return list(map(whole, argv))
