"""The training loop: batches in, a run directory out; stopped and taken up again without a trace."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import msgspec

from griffin_eqx import presets, tasks
from griffin_eqx.config import Config
from griffin_eqx.cpu_memory import keep_freed_memory, peak_memory, release_freed_memory
from griffin_eqx.data import Tokenizer
from griffin_eqx.errors import DivergedError
from griffin_eqx.mesh import MeshShape
from griffin_eqx.model import LanguageModel, count_parameters
from griffin_eqx.processes import Group, ProcessError, current
from griffin_eqx.sampling import generate
from griffin_eqx.task import HIGHER_IS_BETTER, EvalSet, Metric, Split
from griffin_eqx.training import checkpoints
from griffin_eqx.training import run_directory as layout
from griffin_eqx.training.checkpoints import Checkpoints, Standing
from griffin_eqx.training.claim import claimed
from griffin_eqx.training.diagnose import first_not_finite
from griffin_eqx.training.environment import environment
from griffin_eqx.training.evaluation import evaluate
from griffin_eqx.training.freezing import frozen_parts
from griffin_eqx.training.metrics import MetricsWriter
from griffin_eqx.training.on_mesh import OnMesh
from griffin_eqx.training.optimizer import schedule
from griffin_eqx.training.outcome import RunOutcome, SetOutcome, read_outcome, write_outcome
from griffin_eqx.training.profiling import Profiler
from griffin_eqx.training.progress import Clock, Progress
from griffin_eqx.training.resolve import resolve
from griffin_eqx.training.result import Result, number, said, tell
from griffin_eqx.training.run_data import RunData
from griffin_eqx.training.start import Start, read_start, started
from griffin_eqx.training.step import Metrics, TrainState, init_state, make_step
from griffin_eqx.training.stopping import asked_to_stop

_SAMPLE_TOKENS, _SAMPLE_TEMPERATURE = 400, 0.8

Watch = Callable[[int, float, float], None]
"""Told how training goes: steps done, loss in nats a target, tokens a second."""

_WATCH_SECONDS = 0.2


def train(
    config: Config | None = None,
    *,
    run_dir: str | Path | None = None,
    name: str | None = None,
    quiet: bool = False,
    debug_nan: bool = False,
    profile: bool = False,
    mesh: MeshShape | None = None,
    stop: Callable[[int], bool] | None = None,
    watch: Watch | None = None,
) -> Result:
    """Trains a model, or goes on where the same call stopped.

    On one version of everything and one kind of machine the weights, the optimizer and the metrics are the
    same bits whether a run was interrupted or not. The first SIGINT or SIGTERM finishes the step and saves.

    Args:
      config: The run; the default preset when None.
      run_dir: Its directory; `runs/NAME` when None.
      name: Its name under `runs/`; the preset's and the configuration's digest when None.
      quiet: Print nothing.
      debug_nan: Stop at the first loss that is not finite and say which layer it comes from.
      profile: Record a few steps with JAX's profiler, into `profile/` of the run directory.
      mesh: The devices that it runs on, as a mesh; one device when None, or the rows of a batch over all devices
        where several processes have been joined (`griffin_eqx.processes.join`). A run may go on over another mesh: its
        state is the same to the bit, what comes of it differs in the last digits.
      stop: Asked before the first step and after every one, with the number of steps done; True saves and
        returns.
      watch: Told how training goes, at most five times a second: steps done, loss, tokens a second.

    Returns:
      The result; of a finished run, without training.

    Raises:
      ConfigError, PatternError: If the configuration is wrong, or `train.freeze` names nothing.
      DataError: If the data is missing or too short.
      RunError: If the run directory cannot be used: taken, of another configuration, not writable.
      MeshError: If there are not as many devices, or the mesh cannot divide the model or a batch.
      CheckpointError: If a checkpoint is damaged or cannot be written, or `train.init_from` is another model.
      DivergedError: If too many updates in a row were skipped because loss or gradient were not finite.
      LostProcessError: If another of several processes has ended.
    """
    group = current()
    with group.together():
        if jax.default_backend() == "cpu":
            keep_freed_memory()
        if jax.process_count() != group.count:
            raise ProcessError(
                f"JAX has {jax.process_count()} processes, and this training knows of {group.count}.\n"
                f"  process {jax.process_index()}\n"
                "  Join them: --processes auto, or griffin_eqx.processes.join in place of jax.distributed.initialize."
            )
        if group.is_several:
            mesh = mesh or MeshShape(data=jax.device_count())
        config = config or presets.preset(presets.DEFAULT)
        at_hand = config.data
        if run_dir is not None or name is not None:
            at_hand = layout.with_tokenizer_at_hand(at_hand, layout.place(config, run_dir=run_dir, name=name))
        task = tasks.init(config.data.task, at_hand)
        config = resolve(config, task)
        path = layout.place(config, run_dir=run_dir, name=name)
        frozen = frozen_parts(config)
        fresh = group.told(group.is_first and not checkpoints.steps(path / layout.CHECKPOINTS))
        start = read_start(config) if fresh and config.train.init_from is not None else None
        on_mesh = OnMesh(mesh, config)
        data = RunData(config, task, task.tokenizer(tasks.choose(config.data.task).options, at_hand), on_mesh)
        with (
            asked_to_stop() as asked,
            claimed(
                group,
                path,
                config,
                environment(config, task, mesh) | ({} if start is None else {"init_from": start.facts()}),
                data.tokenizer and data.tokenizer.file,
            ),
            Progress(config.train.steps, quiet=quiet or not group.is_first) as progress,
            Checkpoints(path / layout.CHECKPOINTS, keep=config.train.keep_checkpoints, group=group) as saved,
            on_mesh.in_effect(),
        ):
            run = _Run(
                config, path, data, saved, progress, watch, on_mesh, group, start=start, debug_nan=debug_nan
            )
            for part in frozen:
                progress.say(f"frozen by {part.path}: {len(part.names)} arrays, {part.size:,} parameters")
            if start is not None:
                progress.say(
                    f"from the weights of {start.source}" + (f", step {start.step:,}" if start.step else "")
                )
            profiler = Profiler(path / layout.PROFILE if profile and group.is_first else None)

            def stopping(step: int) -> bool:
                return group.any(asked() or (stop is not None and stop(step)))

            return run.go(profiler, stopping)


class _Pending(NamedTuple):
    """A step that the device may still be at."""

    step: int
    metrics: Metrics
    num_bytes: int


class _Run:
    """One session with a run directory."""

    def __init__(
        self,
        config: Config,
        path: Path,
        data: RunData,
        saved: Checkpoints,
        progress: Progress,
        watch: Watch | None,
        on_mesh: OnMesh,
        group: Group,
        *,
        start: Start | None,
        debug_nan: bool,
    ):
        self.start = start
        self.config = config
        self.on_mesh = on_mesh
        self.group = group
        self.path = path
        self.data = data
        self.saved = saved
        self.progress = progress
        self.watch = watch
        self.next_watch = 0.0
        self.metric: Metric = data.task.metric
        self.max_skipped = 0 if debug_nan else config.train.max_skipped
        self.step, self.standing = self.stands()
        self.first_step = self.step
        self.skipped_in_a_row = 0
        self.compile_seconds = 0.0
        self.clock = Clock()
        self.seconds = 0.0
        self.logged = (self.step, 0.0)
        """Step and clock at the last line of metrics."""
        self.tokens_a_step = config.data.batch_size * config.data.seq_len
        self.schedule = jax.jit(schedule(config.optimizer, config.train.steps))

    def stands(self) -> tuple[int, Standing]:
        """Where the run directory stands, as the first process sees it."""
        step, standing = 0, Standing()
        if self.group.is_first and (there := checkpoints.steps(self.saved.directory)):
            step = there[-1]
            standing = checkpoints.describe(self.saved.directory, step).standing
        step, standing = self.group.told([step, msgspec.to_builtins(standing)])
        return step, msgspec.convert(standing, Standing)

    def go(self, profiler: Profiler, stop: Callable[[int], bool]) -> Result:
        """Trains from where the directory stands until the end, or until `stop`."""
        steps = self.config.train.steps
        sample = self.path / layout.SAMPLES / f"{steps}.txt"
        self.progress.say(f"{self.path}: step {self.step:,} of {steps:,}")
        model = None
        if self.step < steps:
            state = self.restored()
            self.skipped_in_a_row = int(state.skipped)
            metrics = self.path / layout.METRICS if self.group.is_first else None
            with MetricsWriter(metrics, step=self.step) as self.metrics, profiler:
                model = self.trained(state, profiler, stop)
            self.saved.wait()
            self.group.told()  # no other process goes before all is written
        finished = self.step == steps
        if finished:
            self.finish(sample, model)
        trained = self.step - self.first_step
        result = Result(
            self.path,
            self.step,
            finished,
            self.metric,
            self.standing.best,
            self.standing.last,
            trained * self.tokens_a_step / self.seconds if trained else None,
            self.compile_seconds,
        )
        tell(
            self.progress.say,
            result,
            steps=steps,
            best_step=self.standing.best_step,
            sample=None if self.data.tokenizer is None else sample,
        )
        return result

    def finish(self, sample: Path, model: LanguageModel | None) -> None:
        """Writes what a finished run leaves, where it is not there yet; its outcome last.

        Args:
          sample: The file of text.
          model: The last weights; None where they are in the checkpoint only.
        """
        # Text is written by one process: `generate` is no program of several.
        tokenizer = None if self.group.is_several else self.data.tokenizer
        wants_sample = tokenizer is not None and not sample.exists()
        wants_outcome = self.config.train.final_test and self.group.told(
            self.group.is_first and read_outcome(self.path) is None
        )
        if not (wants_sample or wants_outcome):
            return
        model = model or self.restored().model
        if tokenizer is not None and wants_sample:
            layout.replace_file(sample, self.sampled(model, tokenizer).encode())
        if wants_outcome:
            self.progress.say("judging the last weights on the validation and the test split ...")
            judged = (
                *(self.judged(model, examined, "validation") for examined in self.data.validation),
                *(self.judged(model, examined, "test") for examined in self.data.test),
            )
            if self.group.is_first:
                write_outcome(self.path, judged, self.run_outcome(model))

    def run_outcome(self, model: LanguageModel) -> RunOutcome:
        """What the run itself came to."""
        timed: dict[str, float] = {"peak_bytes": peak_memory()}
        if trained := self.step - self.first_step:
            timed |= {
                "seconds": self.seconds,
                "tokens_per_second": trained * self.tokens_a_step / self.seconds,
                "compile_seconds": self.compile_seconds,
            }
        return RunOutcome(
            steps=self.step,
            skipped=self.standing.skipped,
            tokens=self.step * self.tokens_a_step,
            parameters=count_parameters(model)[0],
            time=timed,
        )

    def judged(self, model: LanguageModel, examined: EvalSet, split: Split) -> SetOutcome:
        """A model on a set."""
        return evaluate(
            model,
            examined,
            split=split,
            num_bytes=self.data.task.num_bytes,
            carry_max_seq_len=self.config.data.carry_max_seq_len,
            put=self.on_mesh.any_batch,
        )

    def restored(self) -> TrainState:
        """The state of the newest checkpoint, or a fresh one."""
        train = self.config.train
        key = jax.random.key(train.seed if train.init_seed is None else train.init_seed)
        if self.step == 0:
            state = self.on_mesh.built(lambda: init_state(self.config, key=key))
            if self.start is None:
                return state
            model = started(state.model, self.start)
            return self.on_mesh.lay(eqx.tree_at(lambda s: s.model, state, model))
        template = eqx.filter_eval_shape(lambda: init_state(self.config, key=key))
        restored = checkpoints.read(self.saved.directory, self.step, template, self.config.model)
        return self.on_mesh.lay(restored)

    def trained(self, state: TrainState, profiler: Profiler, stop: Callable[[int], bool]) -> LanguageModel:
        """Steps, evaluations and saves."""
        config = self.config.train
        if self.data.tokenizer is not None and self.data.tokenizer.file is not None:
            self.progress.say("cutting the text into tokens ...")
        batch, continues, size = self.data.batch(self.step)
        self.progress.say("compiling the training step ...")
        started = time.monotonic()
        step = make_step(self.config, lay=self.on_mesh.lay).compile(state, batch, continues)
        release_freed_memory()
        self.schedule(0)
        self.compile_seconds = time.monotonic() - started
        self.progress.say(f"... took {self.compile_seconds:.1f} s")
        self.clock = Clock()
        pending: list[_Pending] = []
        stopping = stop(self.step)
        while self.step < config.steps and not stopping:
            profiler.before(self.step - self.first_step)
            state, metrics = step(state, batch, continues)
            self.step += 1
            pending.append(_Pending(self.step, metrics, size))
            last = self.step == config.steps
            if not last:  # cut the next batch while the device computes
                batch, continues, size = self.data.batch(self.step)
            stopping = stop(self.step)
            evaluating = last or _due(config.eval_every, self.step)
            saving = last or stopping or _due(config.checkpoint_every, self.step)
            # The host stays one step behind: enough to keep the device busy, and a signal is heard after a
            # step. But where one more skip ends the run it waits, for no other step may hide that skip or
            # change the weights that it happened with.
            while len(pending) > (not (evaluating or saving or self.skipped_in_a_row >= self.max_skipped)):
                self.settle(pending.pop(0))
            if self.skipped_in_a_row > self.max_skipped:
                raise self.diverged(state)
            if evaluating or saving:
                with self.clock.paused():
                    better = evaluating and self.evaluated(state.model) and config.keep_best
                    if saving or better:
                        self.saved.save(state, self.config, self.standing)
            self.saved.check()
        self.seconds = self.clock.seconds
        return state.model

    def settle(self, pending: _Pending) -> None:
        """Waits for a step and writes down what it reports."""
        step, config = pending.step, self.config
        metrics: Metrics = jax.device_get(pending.metrics)
        loss = float(metrics.nll) / max(int(metrics.targets), 1)
        grad_norm = float(metrics.grad_norm)
        bits = float(metrics.nll) / math.log(2) / pending.num_bytes if pending.num_bytes else None
        updates = step - 1 - self.standing.skipped
        if metrics.finite:
            self.skipped_in_a_row = 0
        else:
            self.skipped_in_a_row += 1
            self.standing = msgspec.structs.replace(self.standing, skipped=self.standing.skipped + 1)
            self.metrics.write("skipped", step, {"batch": step - 1, "loss": loss, "grad_norm": grad_norm})
            self.progress.say(f"step {step:,}: loss or gradient is not finite, update skipped")
        seconds = self.clock.seconds
        logged_step, logged_seconds = self.logged
        speed = (step - logged_step) * self.tokens_a_step / max(seconds - logged_seconds, 1e-9)
        if step == config.train.steps or _due(config.train.log_every, step):
            self.logged = (step, seconds)
            self.metrics.write(
                "train",
                step,
                {
                    "loss": loss,
                    "bits_per_byte": bits,
                    "grad_norm": grad_norm,
                    "learning_rate": self.config.optimizer.learning_rate * float(self.schedule(updates)),
                    "skipped": self.standing.skipped,
                    "tokens": step * self.tokens_a_step,
                    "epoch": self.data.task.epoch(step),
                },
                time={"seconds": seconds, "tokens_per_second": speed},
            )
        if self.watch is not None and time.monotonic() >= self.next_watch:
            self.next_watch = time.monotonic() + _WATCH_SECONDS
            self.watch(step, loss, speed)
        if self.progress.due():
            left = (config.train.steps - step) * self.tokens_a_step / speed
            self.progress.update(step, loss, bits, speed, left)

    def evaluated(self, model: LanguageModel) -> bool:
        """Evaluates; whether the model is the best so far."""
        found = self.judged(model, self.data.validation[0], "validation")
        value, best = getattr(found, self.metric), self.standing.best
        self.metrics.write(
            "validation",
            self.step,
            {name: getattr(found, name) for name in _VALIDATION},
            time={"seconds": found.time["seconds"]},
        )
        better = value is not None and (best is None or _is_better(self.metric, value, best))
        self.standing = msgspec.structs.replace(
            self.standing,
            last=value,
            best=value if better else best,
            best_step=self.step if better else self.standing.best_step,
        )
        self.progress.say(
            f"step {self.step:,}: validation loss {number(found.loss)}, {said(self.metric, value)}"
            + (", the best so far" if better and best is not None else "")
        )
        return better

    def diverged(self, state: TrainState) -> DivergedError:
        """The error that ends the run, with where it went wrong."""
        batch, _, _ = self.data.batch(self.step - 1)
        many = f"{self.skipped_in_a_row} updates in a row" if self.skipped_in_a_row > 1 else "an update"
        there = checkpoints.steps(self.saved.directory)
        kept = f"the checkpoint of step {there[-1]} is whole" if there else "there is no checkpoint yet"
        return DivergedError(
            f"Training stopped being finite: {many} had to be skipped, up to step {self.step} (data batch "
            f"{self.step - 1}).\n  {self.path}: {first_not_finite(state.model, batch)}.\n"
            f"  A lower optimizer.learning_rate or a longer optimizer.warmup_steps often helps; {kept}."
        )

    def sampled(self, model: LanguageModel, tokenizer: Tokenizer) -> str:
        """Text from the model, from the beginning of a document on."""
        (tokens,) = generate(
            model,
            [[tokenizer.document]],
            max_new_tokens=_SAMPLE_TOKENS,
            temperature=_SAMPLE_TEMPERATURE,
            stop=tokenizer.document,
            seed=self.config.train.seed,
        )
        # The model's vocabulary may be larger than the tokenizer's.
        return tokenizer.decode([token for token in tokens if token < tokenizer.vocab_size])


_VALIDATION = ("loss", "bits_per_byte", "accuracy", "exact", "targets", "bytes")


def _is_better(metric: Metric, value: float, than: float) -> bool:
    return value > than if HIGHER_IS_BETTER[metric] else value < than


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0
