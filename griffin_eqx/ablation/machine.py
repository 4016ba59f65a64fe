"""How many workers a machine gets, and how many threads each. Imports no JAX."""

from griffin_eqx.ablation.worker import usable_cores


def usual(workers: int | None = None, threads: int | None = None) -> tuple[int, int]:
    """Workers, and threads of each, where the user leaves one or both open.

    One worker a core.
    """
    cores = usable_cores()
    if threads is None:
        threads = max(1, cores // workers) if workers else 1
    if workers is None:
        workers = max(1, cores // threads)
    return workers, threads
