"""Draws that several tasks need."""

import numpy as np
from jaxtyping import Int64


def distinct(
    rng: np.random.Generator, num_rows: int, count: int, below: int
) -> Int64[np.ndarray, "num_rows count"]:
    """Draws for each row `count` different integers from 0 to `below - 1`, in random order.

    By Floyd's algorithm (Bentley and Floyd 1987, Communications of the ACM 30(9)), so that it costs nothing that
    grows with `below`: step i draws from 0 to `below - count + i`, and takes that bound itself where the number
    drawn is in the set already.
    """
    bounds = np.arange(below - count, below)
    drawn = rng.integers(0, bounds + 1, (num_rows, count))
    for column, bound in enumerate(bounds):
        taken = (drawn[:, :column] == drawn[:, column, None]).any(axis=1)
        drawn[taken, column] = bound
    return rng.permuted(drawn, axis=1)
