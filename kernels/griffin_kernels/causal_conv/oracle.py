"""The float64 loop in NumPy that judges the convolution. Imports NumPy alone."""

import numpy as np


def causal_conv_oracle(x, weight, bias, positions, before=None):
    """Computes `y_t = bias + sum_k weight[k] * x_{t-k}` token by token, for `k <= positions[t]`.

    Args:
      x: `[seq_len, width]`.
      weight: `[conv_width, width]`.
      bias: `[width]`, or None.
      positions: Int `[seq_len]`.
      before: `[conv_width - 1, width]`, the inputs before the first. Zeros when None.
    """
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    history = len(weight) - 1
    before = np.zeros((history, x.shape[1])) if before is None else np.asarray(before, np.float64)
    y = np.zeros_like(x)
    for t in range(len(x)):
        for k in range(min(history, int(positions[t])) + 1):
            y[t] += weight[k] * (x[t - k] if k <= t else before[history + t - k])
        if bias is not None:
            y[t] += np.asarray(bias, np.float64)
    return y
