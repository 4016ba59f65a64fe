"""What compiled kernels may cost at [8, 2048, 2560], by the compiler that griffin_eqx/aot/requirements.txt pins."""

TARGETS = ("v3", "v5e", "v5p", "v6e")
DTYPES = ("float32", "bfloat16")

RAGGED = (8, 2047, 2560)
"""A length that fills no tile: every array is copied, and the suite must notice."""

_TWO = {("v5e", "float32"), ("v6e", "bfloat16")}

ONLY_ON = {
    # The same kernels as without: what `jax.vmap` adds for one generation or dtype, it adds for all.
    "linear_scan[vmap]": _TWO,
    "linear_scan[reverse]": _TWO,
    "rg_lru[vmap]": _TWO,
    # Seconds each, most of them for the product.
    "context": _TWO,
    "context[rg_lru]": _TWO,
    "gated_rg_lru[vmap]": _TWO,
    "context[gated_rg_lru]": _TWO,
}
"""Kernels that are not compiled for every generation and dtype."""

WORDS_TOLERANCE = 0.02
"""States, resets and parameters of gates come on top of the words of the big arrays."""

WORDS = {
    # A step of the adjoint needs the state one step ahead of it, so each block of 8 or 16 tiles fetches a tile of
    # the next block of states as well.
    ("linear_scan[complex]", "backward"): 10.3,
    ("cg_lru", "backward"): 12.6,
}
"""Words an element where a kernel cannot reach the limit of its case, by kernel (or its family) and direction."""

TEMPORARY_WORDS = 0.02
"""Of an array. A state laid out anew is up to 0.007; a copy of one array would be 1."""

WEIGHTS_MB = {
    ("gated_rg_lru", "forward"): {"v3": 125, "v5p": 35, "v5e": 6, "v6e": 6},
    ("gated_rg_lru", "backward"): {"v3": 220, "v5p": 65, "v5e": 18, "v6e": 18},
}
"""Megabytes beside the words, moved and temporary, whatever the tokens: weights in windows, and their cotangents.

Both gates' windows are 7.9 MB. Where they fit on the chip beside a kernel's blocks, they never go to memory.
"""

BUNDLE_TARGETS = ("v5e", "v6e")
"""v3 has no cheap strided load, and v5p schedules as v5e does."""

BUNDLES = {
    ("linear_scan", "forward"): 60,
    ("linear_scan", "backward"): 100,
    ("linear_scan[reset]", "forward"): 80,
    ("linear_scan[complex]", "forward"): 105,
    ("linear_scan[complex]", "backward"): 185,
    ("rg_lru", "forward"): 220,
    ("rg_lru[vmap]", "forward"): 255,
    ("rg_lru", "backward"): 440,
    ("cg_lru", "forward"): 560,
    ("cg_lru", "backward"): 900,
    # The scan alone; products and gates stand in the loop around it.
    ("gated_rg_lru", "forward"): 60,
    ("gated_rg_lru", "backward"): 60,
}
"""Bundles of a turn of the innermost loop (8 steps of 2,560 channels), by kernel (or its family) and direction."""

MEGACYCLES = {
    ("gated_rg_lru", "forward"): {"v5e": 0.77, "v6e": 0.6},
    ("gated_rg_lru", "backward"): {"v5e": 2.65, "v6e": 1.9},
}
"""Bundles of all loops together, in millions, where the innermost is not what counts."""

CONTEXT_WORDS = {"context": 12.0, "context[rg_lru]": 12.0, "context[gated_rg_lru]": 8.0}
"""Words an element that a forward pass with what stands around it and its output product may move."""


def budget(table, job):
    """The entry of a job's kernel, or of its family if the kernel has none of its own; else None."""
    family = job.case.partition("[")[0]
    return table.get((job.case, job.direction), table.get((family, job.direction)))
