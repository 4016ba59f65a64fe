"""The train step of Griffin-100M with several implementations of the scan, alternating in one process.

    python experiments/cpu_scan/whole_step.py reference xla --batch_size 2 --seq_len 512

`reference`, with the general derivative, is what `xla` was before it wrote in place.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import msgspec
from griffin_kernels.linear_scan.implementations import BACKWARD, FORWARD

from griffin_eqx.benchmark.interleaved import interleave
from griffin_eqx.cpu_memory import keep_freed_memory, release_freed_memory
from griffin_eqx.presets import preset
from griffin_eqx.summary import with_vocabulary
from griffin_eqx.training.objective import TokenBatch
from griffin_eqx.training.step import init_state, make_step


def main() -> None:
    """Prints after each round the seconds of each so far, and their ratio to the first in the same round."""
    parser = argparse.ArgumentParser()
    parser.add_argument("implementations", nargs="+")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--seq_len", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    keep_freed_memory()
    config = with_vocabulary(preset("griffin-100m"))
    config = msgspec.structs.replace(
        config, train=msgspec.structs.replace(config.train, precision="p=f32,c=f32")
    )
    rows, seq_len = given.batch_size, given.seq_len
    box = [init_state(config, key=jax.random.key(0))]
    tokens = jax.random.randint(jax.random.key(0), (rows, seq_len), 0, box[0].model.embedding.vocab_size)
    positions = jnp.broadcast_to(jnp.arange(seq_len, dtype=jnp.int32), tokens.shape)
    batch = TokenBatch(tokens, jnp.roll(tokens, -1, axis=1), positions, jnp.full(rows, seq_len, jnp.int32))
    continues = jnp.zeros(rows, bool)

    def program(name):
        # The choice is made when the step is lowered.
        for operation in (FORWARD, BACKWARD):
            operation.preferred = {"": (name,)}
        step = make_step(config).compile(box[0], batch, continues)

        def run():
            started = time.process_time()
            box[0], metrics = step(box[0], batch, continues)
            jax.block_until_ready((box[0], metrics))
            cpu_seconds[name].append(time.process_time() - started)

        return run

    cpu_seconds: dict[str, list[float]] = {name: [] for name in given.implementations}
    programs = {name: program(name) for name in given.implementations}
    release_freed_memory()

    def tell(number, samples):
        first = samples[given.implementations[0]]
        for name, seconds in samples.items():
            ratios = [own / other for own, other in zip(seconds, first, strict=True)]
            print(
                f"{number}: {rows} x {seq_len} {name}: median {statistics.median(seconds):.3f} s, best "
                f"{min(seconds):.3f} s, {statistics.median(ratios):.3f} times {given.implementations[0]} (best over "
                f"best {min(seconds) / min(first):.3f}); {statistics.median(cpu_seconds[name]):.3f} CPU seconds, best "
                f"{min(cpu_seconds[name]):.3f}",
                flush=True,
            )

    interleave(programs, given.rounds, tell)


if __name__ == "__main__":
    main()
