"""Every implementation of the linear scan, against a memory copy of the bytes that a scan cannot do without."""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from griffin_kernels.linear_scan import Planar, linear_scan
from griffin_kernels.linear_scan.implementations import BACKWARD, FORWARD

from griffin_eqx.benchmark.interleaved import Samples, interleave

FORWARD_WORDS = 3
"""An element's words: x and a are read, h is written."""

GRADIENT_WORDS = FORWARD_WORDS + 5
"""Those of the forward pass; then dh, a and h are read, dx and da are written."""

RESET_RATE = 0.01


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long one program takes.

    Attributes:
      compile_seconds: Tracing and compiling; not part of the others.
      median_seconds: Of the rounds.
      best_seconds: Of the rounds.
      worst_seconds: Of the rounds.
      times_copy: The median over rounds of this time over that of the copy in the same round: the machine's
        speed drifts, and both drift with it.
      best_times_copy: The fastest round over the fastest copy.
    """

    compile_seconds: float
    median_seconds: float
    best_seconds: float
    worst_seconds: float
    times_copy: float
    best_times_copy: float


@dataclasses.dataclass(frozen=True)
class Backend:
    """One implementation on this machine.

    Attributes:
      name: As in `implementation=`.
      default: Whether it runs forwards where none is named.
      default_backward: The same of the backward pass.
      forward: The states.
      gradient: The states and all three cotangents.
      not_timed: Why there are no times; empty where there are.
    """

    name: str
    default: bool
    default_backward: bool
    forward: Timing | None
    gradient: Timing | None
    not_timed: str = ""

    @property
    def default_of(self) -> str:
        """What it is the default of, in words."""
        if self.default and self.default_backward:
            return "default"
        passes = {"default forward": self.default, "default backward": self.default_backward}
        return ", ".join(name for name, chosen in passes.items() if chosen)


@dataclasses.dataclass(frozen=True)
class ScanBenchmark:
    """What `griffin bench scan` reports of one shape.

    Attributes:
      shape: `[batch, seq_len, width]`.
      dtype: Of x and a.
      complex: Whether they are `Planar` pairs.
      reset: Whether documents start inside the rows.
      device: Where it ran.
      cores: That this process may use.
      rounds: How often each program was timed, one after the other in each round.
      forward_bytes: The least that a forward pass moves.
      gradient_bytes: The same of both passes.
      choice: What runs forwards where no implementation is named.
      why: The reason, in words.
      choice_backward: What runs backwards.
      why_backward: The reason.
      copy_forward: A pass that moves `forward_bytes` and does nothing else.
      copy_gradient: The same for `gradient_bytes`.
      one_thread_forward: `copy_forward` by NumPy, which has one thread; None where nothing runs on CPU.
      one_thread_gradient: The same for `copy_gradient`.
      backends: All implementations.
      bound: What keeps the chosen one from being faster, in words.
    """

    shape: tuple[int, int, int]
    dtype: str
    complex: bool
    reset: bool
    device: str
    cores: int
    rounds: int
    forward_bytes: int
    gradient_bytes: int
    choice: str
    why: str
    choice_backward: str
    why_backward: str
    copy_forward: Timing
    copy_gradient: Timing
    one_thread_forward: Timing | None
    one_thread_gradient: Timing | None
    backends: tuple[Backend, ...]
    bound: str

    def backend(self, name: str) -> Backend | None:
        """The implementation of that name; None if it was not asked for."""
        return next((backend for backend in self.backends if backend.name == name), None)


def bench_scan(
    shape: tuple[int, int, int],
    *,
    dtype: str = "float32",
    implementations: Sequence[str] | None = None,
    complex: bool = False,
    reset: bool = False,
    rounds: int = 15,
    say: Callable[[str], None] = lambda _: None,
    tell: Callable[[ScanBenchmark], None] = lambda _: None,
) -> ScanBenchmark:
    """Times implementations of `linear_scan`, interleaved with memory copies of the same bytes.

    Args:
      shape: `[batch, seq_len, width]`.
      dtype: Of x and a.
      implementations: Their names; all when None. One that cannot run here is listed with the reason.
      complex: Scans `Planar` pairs.
      reset: Lets a document start at one token in a hundred.
      rounds: How often each program is timed.
      say: Called with what is going on.
      tell: Called with what is known after each round.
    """
    platform = jax.default_backend()
    x, a, h0, starts, dh, dh_last = inputs = _inputs(shape, dtype, complex, reset)
    choice = FORWARD.choose(platform, x, a, h0, starts, reverse=False)
    choice_backward = BACKWARD.choose(platform, dh, dh_last, a, x, h0, starts, reverse=False)
    reasons = {
        name: _cannot_run(name, platform, inputs)
        for name in implementations or tuple(FORWARD.implementations)
    }

    programs: dict[tuple[str, str], Callable[[], Any]] = {}
    compile_seconds: dict[tuple[str, str], float] = {}

    def add(kind: str, name: str, function: Callable[..., Any], *arguments: Any) -> None:
        say(f"compiling {name}, {kind}")
        started = time.perf_counter()
        compiled = jax.jit(function).lower(*arguments).compile()
        compile_seconds[kind, name] = time.perf_counter() - started
        programs[kind, name] = lambda: jax.block_until_ready(compiled(*arguments))

    add("forward", "copy", _move_forward, x, a)
    add("gradient", "copy", _move_both, x, a, dh)
    if platform == "cpu":
        programs["forward", "one thread"] = _one_thread(1, x)
        programs["gradient", "one thread"] = _one_thread(2, x)
    for name in (name for name, reason in reasons.items() if not reason):
        add("forward", name, _forward(name), x, a, h0, starts)
        add("gradient", name, _gradient(name), x, a, h0, starts, dh, dh_last)

    device = jax.devices()[0]
    leaf = jax.tree.leaves(x)[0]
    words = leaf.size * leaf.dtype.itemsize * len(jax.tree.leaves(x))

    def summary(samples: Samples) -> ScanBenchmark:
        def timing(kind: str, name: str) -> Timing | None:
            if (kind, name) not in samples:
                return None
            seconds, copy = samples[kind, name], samples[kind, "copy"]
            return Timing(
                compile_seconds=compile_seconds.get((kind, name), 0.0),
                median_seconds=statistics.median(seconds),
                best_seconds=min(seconds),
                worst_seconds=max(seconds),
                times_copy=statistics.median(own / other for own, other in zip(seconds, copy, strict=True)),
                best_times_copy=min(seconds) / min(copy),
            )

        def measured(kind: str, name: str) -> Timing:
            found = timing(kind, name)
            assert found is not None
            return found

        result = ScanBenchmark(
            shape=shape,
            dtype=dtype,
            complex=complex,
            reset=reset,
            device=" ".join(dict.fromkeys((device.platform, device.device_kind))),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            rounds=len(samples["forward", "copy"]),
            forward_bytes=FORWARD_WORDS * words,
            gradient_bytes=GRADIENT_WORDS * words,
            choice=choice.name,
            why=choice.reason,
            choice_backward=choice_backward.name,
            why_backward=choice_backward.reason,
            copy_forward=measured("forward", "copy"),
            copy_gradient=measured("gradient", "copy"),
            one_thread_forward=timing("forward", "one thread"),
            one_thread_gradient=timing("gradient", "one thread"),
            backends=tuple(
                Backend(
                    name,
                    default=name == choice.name,
                    default_backward=name == choice_backward.name,
                    forward=timing("forward", name),
                    gradient=timing("gradient", name),
                    not_timed=reason,
                )
                for name, reason in reasons.items()
            ),
            bound="",
        )
        return dataclasses.replace(result, bound=_bound(result))

    def after_round(number: int, samples: Samples) -> None:
        say(f"round {number} of {rounds}")
        tell(summary(samples))

    say("warming up")
    return summary(interleave(programs, rounds, after_round))


def _inputs(shape, dtype, complex, reset):
    """`(x, a, h0, reset, dh, dh_last)` with decays between 0.9 and 1."""
    keys = iter(jax.random.split(jax.random.key(0), 11))
    batch, seq_len, width = shape

    def normal(shape, dtype):
        def one():
            return jax.random.normal(next(keys), shape, jnp.float32).astype(dtype)

        return Planar(one(), one()) if complex else one()

    a: Any = jax.random.uniform(next(keys), shape, jnp.float32, 0.9, 1.0)
    if complex:
        angle = jax.random.uniform(next(keys), shape, jnp.float32, 0.0, 0.1)
        a = Planar(a * jnp.cos(angle), a * jnp.sin(angle))
    a = jax.tree.map(lambda z: z.astype(dtype), a)
    starts = jax.random.bernoulli(next(keys), RESET_RATE, (batch, seq_len)) if reset else None
    state = (batch, width)
    return jax.block_until_ready(
        (
            normal(shape, dtype),
            a,
            normal(state, "float32"),
            starts,
            normal(shape, dtype),
            normal(state, "float32"),
        )
    )


def _cannot_run(name: str, platform: str, inputs) -> str:
    """Why an implementation cannot be timed here; empty if it can."""
    x, a, h0, starts, dh, dh_last = inputs
    implementation = FORWARD.implementations[name]
    if implementation.platforms and platform not in implementation.platforms:
        return f"runs on {' and '.join(implementation.platforms)}, and this is {platform}"
    refusal = implementation.refuses(x, a, h0, starts, reverse=False)
    refusal = refusal or BACKWARD.implementations[name].refuses(dh, dh_last, a, x, h0, starts, reverse=False)
    return f"refuses: {refusal}" if refusal else ""


def _forward(name: str) -> Callable[..., Any]:
    return lambda x, a, h0, starts: linear_scan(x, a, h0, starts, implementation=name)


def _gradient(name: str) -> Callable[..., Any]:
    def gradient(x, a, h0, starts, dh, dh_last):
        states, pull_back = jax.vjp(lambda x, a, h0: _forward(name)(x, a, h0, starts), x, a, h0)
        return states, pull_back((dh, dh_last))

    return gradient


def _move_forward(x, a):
    """Reads two words an element and writes one."""
    return jax.tree.map(jnp.add, x, a)


def _move_both(x, a, dh):
    """Reads five words an element and writes three, no array twice in one pass.

    XLA would fuse sums of the same array; the barrier makes the second half read `a` and `h` from memory again.
    """
    h = jax.tree.map(jnp.add, x, a)
    h, a = jax.lax.optimization_barrier((h, a))
    return h, jax.tree.map(jnp.negative, dh), jax.tree.map(jnp.subtract, a, h)


def _one_thread(passes: int, x) -> Callable[[], None]:
    """The same bytes by one thread of NumPy: three words an element, or three, two and three."""
    leaves = jax.tree.leaves(x)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) // 4
    first, second, third, fourth = (np.ones(size, np.float32) for _ in range(4))

    def forward():
        np.add(first, second, out=third)

    def both():
        np.add(first, second, out=third)
        np.negative(first, out=fourth)
        np.subtract(second, third, out=fourth)

    return forward if passes == 1 else both


def _bound(result: ScanBenchmark) -> str:
    """What keeps the default implementation from being faster, forwards and with the gradient."""
    chosen = result.backend(result.choice)
    if chosen is None or chosen.forward is None or chosen.gradient is None:
        return ""
    forward = _bound_of(chosen.forward, result.copy_forward, result.one_thread_forward, result.shape[1])
    gradient = _bound_of(
        chosen.gradient, result.copy_gradient, result.one_thread_gradient, 2 * result.shape[1]
    )
    if forward == gradient:
        return f"{chosen.name} is bound by {forward}"
    return f"{chosen.name} is bound forwards by {forward}; with the gradient by {gradient}"


CALL_SECONDS = 50e-6
"""What takes less says little but how long it takes to start a program."""

NEAR = 1.5
"""Times closer than this count as equal."""


def _bound_of(timing: Timing, copy: Timing, one_thread: Timing | None, turns: int) -> str:
    """The accounting of the fastest round: what the bytes take, and what is left over."""
    seconds, bytes_alone = timing.best_seconds, copy.best_seconds
    if seconds < CALL_SECONDS:
        return "its call: the arrays are too small to time"
    if seconds < NEAR * bytes_alone:
        return "memory: it takes about as long as the copy"
    if one_thread is None:
        return f"more than memory: it takes {seconds / bytes_alone:.1f} times what the bytes take"
    if one_thread.best_seconds > NEAR * bytes_alone:
        if seconds < NEAR * one_thread.best_seconds:
            return "what one thread can move: XLA runs the turns of a loop on one"
        bytes_alone = one_thread.best_seconds
    return (
        f"its turns: the bytes take {bytes_alone * 1e3:.1f} of {seconds * 1e3:.1f} ms, and each of {turns} turns "
        f"{(seconds - bytes_alone) / turns * 1e6:.1f} us beside them"
    )
