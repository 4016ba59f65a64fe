"""The fastest plain-JAX path we know on CPU: `jax.lax.scan`, one step a turn.

Unrolling only hurts there, `associative_scan` moves the data log2(seq_len) times, and chunks of time that
advance side by side (two passes of sqrt(seq_len) steps) were between as fast and three times slower on shapes
from [8, 256, 192] to [1, 16384, 256]: with freed memory kept (`griffin_eqx.cpu_memory`) a step takes under a
microsecond. What makes this path fast is the hand-written derivative around it (`vjp.py`), which saves
nothing but `a` and `h`.
"""

from griffin_kernels.linear_scan.reference import scan as scan
