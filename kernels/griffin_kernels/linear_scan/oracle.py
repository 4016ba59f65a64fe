"""The sequential float64 loop in NumPy that judges every other implementation. Imports NumPy alone."""

import numpy as np


def linear_scan_oracle(x, a, h0=None, reset=None, *, reverse=False):
    """Computes `h_t = a_t * h_{t-1} + x_t` step by step in float64 or complex128.

    Args:
      x: `[..., seq_len, width]`, real or complex.
      a: As `x`.
      h0: `[..., width]`, the state before the first step in the running direction. Zeros when None.
      reset: Bool `[..., seq_len]`: the state entering that step is dropped. Never when None.
      reverse: Run from the last step to the first.

    Returns:
      `(h, h_last)`, float64 or complex128.
    """
    x, a = np.asarray(x), np.asarray(a)
    is_complex = any(np.iscomplexobj(z) for z in (x, a, h0) if z is not None)
    wide = np.complex128 if is_complex else np.float64
    x, a = x.astype(wide), a.astype(wide)
    state = np.zeros(x.shape[:-2] + x.shape[-1:], wide) if h0 is None else np.array(h0, wide)
    h = np.empty_like(x)
    steps = range(x.shape[-2])
    for t in reversed(steps) if reverse else steps:
        if reset is not None:
            drop = np.asarray(reset)[..., t, None]
            state = np.where(drop, 0.0, state)
            state = np.where(drop, x[..., t, :], a[..., t, :] * state + x[..., t, :])
        else:
            state = a[..., t, :] * state + x[..., t, :]
        h[..., t, :] = state
    return h, state


def linear_scan_vjp_oracle(x, a, h0, reset, dh, dh_last, *, reverse=False):
    """Computes the cotangents of `(x, a, h0)` by the reverse loop, in float64 or complex128.

    For complex arrays a cotangent is `dL/dre + i dL/dim`, the gradient of a real loss by the two parts.

    Returns:
      `(dx, da, dh0)`.
    """
    x, a = np.asarray(x), np.asarray(a)
    wide = np.complex128 if np.iscomplexobj(x) else np.float64
    x, a, dh = x.astype(wide), a.astype(wide), np.asarray(dh).astype(wide)
    start = np.zeros(x.shape[:-2] + x.shape[-1:], wide) if h0 is None else np.array(h0, wide)
    h, _ = linear_scan_oracle(x, a, start, reset, reverse=reverse)
    dx, da = np.zeros_like(x), np.zeros_like(x)
    carried = np.array(dh_last, wide)
    order = list(range(x.shape[-2]))
    if reverse:
        order.reverse()
    for i in range(len(order) - 1, -1, -1):
        t = order[i]
        before = start if i == 0 else h[..., order[i - 1], :]
        carried = carried + dh[..., t, :]
        dx[..., t, :] = carried
        drop = False if reset is None else np.asarray(reset)[..., t, None]
        da[..., t, :] = np.where(drop, 0.0, carried * np.conj(before))
        carried = np.where(drop, 0.0, carried * np.conj(a[..., t, :]))
    return dx, da, carried
