"""What the compiled kernels may cost at [8, 2048, 2560], measured with the compiler pinned in griffin_eqx/aot."""

TARGETS = ("v3", "v5e", "v5p", "v6e")
DTYPES = ("float32", "bfloat16")

WORDS_TOLERANCE = 0.02
"""States, resets and parameters of gates come on top of the words of the big arrays."""

TEMPORARY_WORDS = 0.02
"""Of an array. A state laid out anew is 0.0005; a copy of one array would be 1."""

BUNDLE_TARGETS = ("v5e", "v6e")
"""v3 has no cheap strided load, and v5p schedules as v5e does."""

BUNDLES = {
    ("linear_scan", "forward"): 60,
    ("linear_scan", "backward"): 100,
    ("linear_scan[reset]", "forward"): 80,
    ("linear_scan[complex]", "forward"): 105,
}
"""Bundles of a turn of the innermost loop (8 steps of 2,560 channels), by kernel and direction."""

CONTEXT_WORDS = 12.0
"""Words an element that a forward pass with its gates and its output product may move."""
