"""`gx.ablate`: from a plan to a report, in as many sessions as it takes."""

import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from griffin_eqx import registry, tasks
from griffin_eqx.ablation import folder as disk
from griffin_eqx.ablation import machine
from griffin_eqx.ablation.board import Board
from griffin_eqx.ablation.campaign import Campaign
from griffin_eqx.ablation.plan import Plan
from griffin_eqx.ablation.pool import Pool
from griffin_eqx.ablation.schedule import Broken, Done
from griffin_eqx.ablation.timing import MEASURED, StepTimer
from griffin_eqx.errors import RunError
from griffin_eqx.training.run_directory import RUNS
from griffin_eqx.training.stopping import asked_to_stop


class Ablation(NamedTuple):
    """What an ablation came to.

    Attributes:
      folder: Its folder.
      finished: Whether every run has ended; otherwise the same call goes on with it.
      done: Runs that have an outcome.
      failed: Runs that have none and will get none, by their path in the folder, and why.
      report: The report as a page, or as Markdown without the extra `report`; None where it was stopped before,
        or no run is done.
    """

    folder: Path
    finished: bool
    done: int
    failed: dict[Path, str]
    report: Path | None


def ablate(
    plan: Plan | str | Path,
    *,
    folder: str | Path | None = None,
    workers: int | None = None,
    threads: int | None = None,
    quiet: bool = False,
    retry: bool = False,
    slurm: Mapping[str, Any] | None = None,
) -> Ablation:
    """Runs an ablation, or goes on where the same call stopped, and writes its report.

    Each run trains in a process with its own share of the processor. A run's numbers are the same bits whatever
    runs beside it, and whether it was interrupted or not; they depend, in their last digits, on `threads`.
    The first SIGINT or SIGTERM lets the runs under way save, and returns; the second ends them at once, and
    costs what they did since their last checkpoint.

    Args:
      plan: The plan, or its file.
      folder: Where everything goes; `runs/NAME` when None.
      workers: Runs at once; one a core when None.
      threads: Cores of each run; settled when the ablation begins.
      quiet: Print nothing.
      retry: Try failed runs again, those that diverged left out.
      slurm: Submit the runs to a SLURM cluster, with these options of submitit's `update_parameters`, such as
        `{"slurm_partition": "gpu", "timeout_min": 60}`; needs the extra `cluster`, and a folder that its machines
        share.

    Returns:
      What came of it.

    Raises:
      PlanError: If the plan is wrong.
      RunError: If the folder cannot be used: another process runs it, or it has begun with another configuration.
      GriffinError: If runs cannot be submitted.
    """
    from griffin_eqx.ablation.load import load_plan
    from griffin_eqx.ablation.work_out import work_out

    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None and value < 1:
            raise RunError(
                f"{name}={value}: there must be at least one.\nLeave it out for what suits this machine."
            )
    if not isinstance(plan, Plan):
        plan = load_plan(plan)
    folder = Path(folder) if folder is not None else place(plan)
    design = work_out(plan, timer=timer_of(folder, workers, threads))
    with asked_to_stop() as asked, disk.locked(folder) as lock, Board(quiet=quiet) as board:
        disk.take_design(folder, design)
        disk.keep_plan(folder, design.plan)
        if retry and (again := disk.forgive(folder, design)):
            board.say(f"{_many(again, 'failed run')} to be tried again")
        workers, threads = machine.usual(
            workers, disk.settle_threads(folder, threads, machine.usual(workers)[1])
        )
        plugins = plugin_files()
        where = "on the cluster" if slurm is not None else f"{workers} at once"
        board.say(f"{folder}: {_many(threads, 'thread')} a run, {where}")
        if slurm is not None:
            from griffin_eqx.ablation.slurm import Cluster

            executor = Cluster(folder, threads=threads, options=slurm, plugins=plugins)
        else:
            executor = Pool(folder, workers=workers, threads=threads, plugins=plugins, inherited=[lock])
        with closing(executor):
            return run(Campaign(folder, design, executor), board, asked)


def place(plan: Plan) -> Path:
    """Where a plan's results go."""
    return RUNS / (plan.name or "ablation")


def timer_of(folder: Path, workers: int | None, threads: int | None) -> StepTimer:
    """Measures the speed of steps as runs will have it, once for a folder."""
    cores = disk.threads_of(folder) or machine.usual(workers, threads)[1]
    return StepTimer(folder / MEASURED, threads=cores, plugins=plugin_files(), cache=folder / disk.COMPILED)


def run(campaign: Campaign, board: Board, stop: Callable[[], bool]) -> Ablation:
    """Runs a campaign, and tells and reports what came of it."""
    folder = campaign.folder
    board.watch(campaign)
    finished = campaign.go(stop, board.heard)
    board.close()
    failed = {path: end for path, end in campaign.ends.items() if isinstance(end, Broken)}
    done = sum(isinstance(end, Done) for end in campaign.ends.values())
    for path, end in failed.items():
        board.say(f"failed: {folder / path}\n  {end.kind}: {end.reason}", style="red")
    report = tell(folder, board) if done and finished else None
    if not finished:
        ended, total = campaign.counts
        board.say(f"stopped with {ended} of {total} runs done; to go on:\n  {again(folder)}")
        if done:
            board.say(f"to see what is there so far:\n  {shlex.join(['griffin', 'report', str(folder)])}")
    elif any(end.kind != "diverged" for end in failed.values()):
        board.say(f"to try failed runs again:\n  {again(folder)} --retry")
    if report is not None:
        board.say(f"report: {report}")
    return Ablation(folder, finished, done, {path: end.reason for path, end in failed.items()}, report)


def tell(folder: Path, board: Board) -> Path:
    """Writes the reports, shows what they say, and gives the place of the first."""
    from griffin_eqx.ablation.report import write_reports  # after the runs: importing it takes a while
    from griffin_eqx.ablation.terminal import show

    written = write_reports(folder)
    board.say("")
    show(written.analysis, board.console)
    board.say("")
    if written.left_out:
        board.say(written.left_out)
    return written.paths[0]


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def again(folder: Path) -> str:
    """The command that goes on with an ablation."""
    plugins = (word for file in plugin_files() for word in ("--plugin", str(file)))
    return shlex.join(["griffin", "ablate", str(folder), *plugins])


def plugin_files() -> list[Path]:
    """The files that `--plugin` has added blocks and tasks from, in this process.

    Raises:
      RunError: If a block or task is known to this process alone.
    """
    files = []
    for offers in (registry.default, tasks.default):
        for entry in filter(offers.is_added, offers.entries()):
            module = entry.target.partition(":")[0]
            file = getattr(sys.modules.get(module), "__file__", None)
            if file is None:
                raise RunError(
                    f"The {offers.noun} {entry.name!r} was added to this process alone ({entry.target}), and each run "
                    "has a process of its own.\nPut it into a file, and add that with --plugin FILE or "
                    "griffin_eqx.plugin_file.add_plugin."
                )
            files.append(Path(file))
    return list(dict.fromkeys(files))
