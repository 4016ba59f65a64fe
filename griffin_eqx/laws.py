"""The names of the laws that every block keeps, each with one line of what it says. Imports nothing.

The checks are in `griffin_eqx.verify`; the names stand apart so that a block can be registered without them.
"""

LAWS: dict[str, str] = {
    "causal": "the future never changes the past, in values and gradients",
    "streaming": "any split into chunks, the cache handed on, gives the same outputs and an equal cache",
    "long": "the same over 2,100 tokens, where tiles and rings have borders",
    "packing": "documents packed in a row behave as if alone",
    "padding": "padding after a chunk's tokens changes no valid output, no cache, no gradient",
    "independent_rows": "rows of a batch do not touch each other; a NaN stays in its row",
    "bounded_cache": "the cache grows as the block declares, and a document beyond its bound is refused",
    "gradients": "gradients are finite and equal those in float64, through the cache too",
    "precision": "bfloat16 in, bfloat16 out, states at least float32, error bounded at every length",
    "transforms": "jit, vmap and remat change nothing, and equal shapes compile once",
    "placement": "over a mesh of devices the block is what it is on one, in values and gradients",
    "options": "options survive being printed into a pattern and read back",
}
