"""The float64 loop in NumPy that judges the attention. Imports NumPy alone."""

import numpy as np


def local_attention_oracle(q, k, v, lookback):
    """Computes softmax attention of token t over keys `t - lookback[t] .. t`, one query at a time.

    Args:
      q: `[seq_len, num_heads, head_dim]`.
      k: `[seq_len, kv_heads, head_dim]`.
      v: As `k`.
      lookback: Int `[seq_len]`, how many earlier keys each query sees.

    Returns:
      `(out, lse)`: float64 `[seq_len, num_heads, head_dim]` and the log of the softmax denominator,
      `[seq_len, num_heads]`.
    """
    q, k, v = (np.asarray(z, np.float64) for z in (q, k, v))
    group = q.shape[1] // k.shape[1]
    out, lse = np.zeros_like(q), np.zeros(q.shape[:2])
    for t in range(q.shape[0]):
        first = max(0, t - int(lookback[t]))
        for head in range(q.shape[1]):
            keys, values = k[first : t + 1, head // group], v[first : t + 1, head // group]
            score = keys @ q[t, head] / np.sqrt(q.shape[2])
            lse[t, head] = score.max() + np.log(np.exp(score - score.max()).sum())
            out[t, head] = np.exp(score - lse[t, head]) @ values
    return out, lse
