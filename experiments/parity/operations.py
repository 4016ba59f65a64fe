"""The operations that bfloat16 is taken apart by, and the RG-LRU in those steps, for both programs and for ours.

An operation in float32 takes what comes and hands on float32; one in bfloat16 rounds what it takes and what it gives.
"""

from collections.abc import Callable
from typing import Any

OPERATIONS = {
    "norms": "RMSNorm",
    "gates": "the products of both gates and their sigmoids",
    "decay": "softplus, `log a` and `a`",
    "multiplier": "`sqrt(1 - a^2)` from `log a`",
    "gated input": "x times its gate times the multiplier, what enters the scan",
    "frequencies": "the constants of RoPE",
    "rotation": "sine, cosine and turning of RoPE",
    "attention": "scores, softmax and the sum of values",
    "convolution": "products, sum and bias",
    "GeLU": "GeLU and the product of the two branches, in the recurrent block and the MLP",
    "embedding": "times sqrt(width)",
    "logits": "the product with the embedding, and the soft cap",
    "products": "what the other matrix products hand on",
    "residual": "both sums of a layer, and the stream between layers",
}

RG_LRU = ("gates", "decay", "multiplier", "gated input")


def rg_lru(
    take: Callable[..., tuple], xp: Any, x: Any, gates: tuple[Callable, Callable], decay: Any, reset: Any
) -> tuple[Any, Any]:
    """`(a, x)` of the scan, as both programs write it.

    Args:
      take: Casts what an operation is given: `take(name, *arrays)`.
      xp: Has `sigmoid`, `softplus`, `exp`, `sqrt` and `where`.
      x: What enters the block's recurrence.
      gates: The products of the recurrence gate and of the input gate, in the dtype that they are given.
      decay: The parameter, `a = exp(-softplus(decay))`.
      reset: True at the first token.
    """
    (u,) = take("gates", x)
    recurrence, into = (xp.sigmoid(product(u)) for product in gates)
    recurrence, decay = take("decay", recurrence, decay)
    log_a = -8.0 * recurrence * xp.softplus(decay)
    a = xp.where(reset, 0, xp.exp(log_a))
    (log_a,) = take("multiplier", log_a)
    multiplier = xp.where(reset, 1, xp.sqrt(1 - xp.exp(2 * log_a)))
    x, into, multiplier = take("gated input", x, into, multiplier)
    return a, x * into * multiplier
