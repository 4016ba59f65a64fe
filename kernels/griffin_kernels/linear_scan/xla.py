"""The fastest plain-JAX path we know on CPU: `jax.lax.scan`, one step a turn.

Unrolling only hurts there and `associative_scan` moves the data log2(seq_len) times; what makes this path
fast is the hand-written derivative around it (`vjp.py`), which saves nothing but `a` and `h`.
"""

from griffin_kernels.linear_scan.reference import scan as scan
