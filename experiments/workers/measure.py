"""One process of all cores, or one of each core? Trains both ways in turns, and prints the ratio of their speeds.

    python experiments/workers/measure.py             # both sizes, some minutes
    python experiments/workers/measure.py --table     # what results.jsonl says

All processes are there all of the time, and wait but when it is their turn: so whatever else the machine does meets
both ways alike.
"""

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).with_name("results.jsonl")
STEPS = {"tiny": 20, "griffin-tiny": 4}
"""Steps of a turn: a second or two."""


def config(size, steps):
    import msgspec

    from griffin_eqx.presets import preset

    base = preset("griffin-tiny")
    replace = msgspec.structs.replace
    train = replace(
        base.train, steps=steps, eval_every=0, checkpoint_every=0, log_every=steps, eval_tokens=4096
    )
    base = replace(base, train=train)
    if size == "griffin-tiny":
        return base
    model = replace(base.model, pattern="rg_lru rg_lru", width=64, lru_width=64)
    return replace(base, model=model, data=replace(base.data, seq_len=64, batch_size=64))


def child(size: str, cores: str) -> None:
    """Trains, a turn at a time: a line in, a turn, its seconds out."""
    from griffin_eqx.ablation.worker import take_share

    take_share([int(core) for core in cores.split(",")])
    from griffin_eqx.training.loop import train

    began = 0.0

    def turn(step: int) -> bool:
        nonlocal began
        if step % STEPS[size]:
            return False
        print(time.monotonic() - began, flush=True)
        asked = sys.stdin.readline()
        began = time.monotonic()
        return not asked

    with tempfile.TemporaryDirectory() as folder:
        train(config(size, 10**6), run_dir=folder, quiet=True, stop=turn)


class Child:
    def __init__(self, size: str, cores: list[int]):
        command = [sys.executable, __file__, "--child", size, "--cores", ",".join(map(str, cores))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.wait()

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def wait(self) -> float:
        assert self.process.stdout is not None
        return float(self.process.stdout.readline())


def measure(size: str, rounds: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    wide, narrow = Child(size, cores), [Child(size, [core]) for core in cores]
    for one in (wide, *narrow):  # the first turns fill caches
        one.begin()
        one.wait()
    for number in range(rounds):
        wide.begin()
        seconds_wide = wide.wait()
        for one in narrow:
            one.begin()
        seconds_narrow = [one.wait() for one in narrow]
        narrow[0].begin()
        seconds_alone = narrow[0].wait()
        line = {
            "size": size,
            "cores": len(cores),
            "steps": STEPS[size],
            "wide": seconds_wide,
            "narrow": seconds_narrow,
            "alone": seconds_alone,
        }
        with open(RESULTS, "a") as file:
            file.write(json.dumps(line) + "\n")
        print(number, ratio(line), flush=True)
    for one in (wide, *narrow):
        one.process.kill()
        one.process.wait()


PLAN = """
base = "griffin-tiny"
seeds = 3
config.model = {width = 64, lru_width = 64}
config.data = {seq_len = 64, batch_size = 64}
budget.steps = 300
[variants.hawk]
pattern = "rg_lru rg_lru"
[variants.griffin]
pattern = "rg_lru local_mqa"
[tasks.induction_heads]
"""


def whole(rounds: int) -> None:
    """A small ablation from nothing to its end, both ways in turns: starting, compiling and evaluating as well."""
    cores = len(os.sched_getaffinity(0))
    for number in range(rounds):
        seconds, cpu_seconds = {}, {}
        for workers, threads in ((1, cores), (cores, 1)):
            with tempfile.TemporaryDirectory() as folder:
                plan = Path(folder) / "plan.toml"
                plan.write_text(PLAN)
                command = [
                    sys.executable,
                    "-m",
                    "griffin_eqx",
                    "ablate",
                    str(plan),
                    "--folder",
                    f"{folder}/it",
                ]
                began, cpu_began = time.monotonic(), children_seconds()
                subprocess.run(
                    [*command, "--workers", str(workers), "--threads", str(threads), "--quiet"], check=True
                )
                seconds[workers] = time.monotonic() - began
                cpu_seconds[workers] = children_seconds() - cpu_began
        line = {"size": "whole", "cores": cores, "wide": seconds[1], "narrow": seconds[cores]}
        line |= {"cpu_wide": cpu_seconds[1], "cpu_narrow": cpu_seconds[cores]}
        with open(RESULTS, "a") as file:
            file.write(json.dumps(line) + "\n")
        print(number, seconds, cpu_seconds, flush=True)


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ratio(line) -> float:
    """Steps a second of one process a core, all of them at once, over those of one process of all cores."""
    return sum(line["wide"] / seconds for seconds in line["narrow"])


def table() -> None:
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    print(
        "| size | rounds | one each / one of all | quartiles | one core alone / of all | each slowed by the others |"
    )
    print("| --- | ---: | ---: | --- | ---: | ---: |")
    for size in STEPS:
        mine = [line for line in lines if line["size"] == size]
        if not mine:
            continue
        ratios = [ratio(line) for line in mine]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        alone = statistics.median(line["wide"] / line["alone"] for line in mine)
        slowed = statistics.median(
            math.prod(line["narrow"]) ** (1 / len(line["narrow"])) / line["alone"] for line in mine
        )
        print(
            f"| {size} | {len(mine)} | {middle:.2f} | {low:.2f} to {high:.2f} | {alone:.2f} | {slowed:.2f} |"
        )

    ratios = [line["wide"] / line["narrow"] for line in lines if line["size"] == "whole"]
    if ratios:
        busy = statistics.median(
            line["cpu_narrow"] / line["cpu_wide"] for line in lines if line["size"] == "whole"
        )
        print(
            f"\nA whole ablation: {statistics.median(ratios):.2f} times as fast with one each, "
            f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds; "
            f"for {busy:.2f} times the CPU time"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--size", choices=STEPS, action="append")
    parser.add_argument("--whole", action="store_true", help="a small ablation from nothing to its end")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--child", choices=STEPS)
    parser.add_argument("--cores", default="")
    given = parser.parse_args()
    if given.child:
        child(given.child, given.cores)
        return
    if given.whole:
        whole(given.rounds)
    elif not given.table:
        for size in given.size or STEPS:
            measure(size, given.rounds)
    table()


if __name__ == "__main__":
    main()
