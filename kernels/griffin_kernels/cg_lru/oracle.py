"""The CG-LRU and its adjoint as complex128 loops in NumPy. Imports NumPy alone."""

import numpy as np


def cg_lru_oracle(x, recurrence_gate, input_gate, a_param, theta, h0=None, reset=None, valid=None, *, c=8.0):
    """Runs the CG-LRU step by step; see `cg_lru_scan`. `x` and `h0` are complex arrays.

    Returns:
      `(h, h_last)`, complex128.
    """
    h, h_last, _ = _run(x, recurrence_gate, input_gate, a_param, theta, h0, reset, valid, c)
    return h, h_last


def cg_lru_vjp_oracle(
    x,
    recurrence_gate,
    input_gate,
    a_param,
    theta,
    h0,
    reset,
    valid,
    dh,
    dh_last,
    *,
    c=8.0,
    bound=1000.0,
):
    """The cotangents of `(x, recurrence_gate, input_gate, a_param, theta, h0)` by the reverse loop.

    A complex cotangent holds that of the real part in its real part, and that of the imaginary part in its imaginary
    part. `bound` is the largest derivative of the square root that is passed on.
    """
    _, _, steps = _run(x, recurrence_gate, input_gate, a_param, theta, h0, reset, valid, c)
    L, angle = np.asarray(a_param, np.float64), np.asarray(theta, np.float64)
    dx = np.zeros(np.shape(x), np.complex128)
    drg, dig = np.zeros(np.shape(x)), np.zeros(np.shape(x))
    dL, dtheta = np.zeros_like(L), np.zeros_like(L)
    g = np.array(dh_last, np.complex128)
    for t in range(len(steps) - 1, -1, -1):
        before, a, r, i, u, root, starts, counts = steps[t]
        g = g + dh[..., t, :]
        alive = counts & ~starts
        scale = np.where(starts, 1.0, root)
        # <g, z> = Re(conj(g) z) is the pairing of cotangent and tangent.
        along = np.real(np.conj(g) * u)
        dx[..., t, :] = np.where(counts, g * scale * i, 0)
        dig[..., t, :] = np.where(counts, along * scale * i * (1 - i), 0)
        with np.errstate(divide="ignore"):
            slope = np.minimum(0.5 / root, bound)
        kept = np.conj(g) * a * before
        d_log_a = np.where(alive, np.real(kept) + along * i * slope * (-2 * np.abs(a) ** 2), 0)
        d_phase = np.where(alive, np.real(1j * kept), 0)
        drg[..., t, :] = c * (d_log_a * -np.logaddexp(0, -L) + d_phase * angle) * r * (1 - r)
        dL += (d_log_a * c * r).reshape(-1, L.shape[-1]).sum(0) / (1 + np.exp(L))
        dtheta += (d_phase * c * r).reshape(-1, L.shape[-1]).sum(0)
        g = np.where(counts, np.where(starts, 0, g * np.conj(a)), g)
    return dx, drg, dig, dL, dtheta, g


def _run(x, recurrence_gate, input_gate, a_param, theta, h0, reset, valid, c):
    x = np.asarray(x, np.complex128)
    rg, ig, L, angle = (np.asarray(z, np.float64) for z in (recurrence_gate, input_gate, a_param, theta))
    state = np.zeros(x.shape[:-2] + x.shape[-1:]) if h0 is None else np.array(h0, np.complex128)
    never, always = np.zeros(x.shape[:-1], bool), np.ones(x.shape[:-1], bool)
    reset = never if reset is None else np.asarray(reset)
    valid = always if valid is None else np.asarray(valid)
    h, steps = np.empty_like(x), []
    for t in range(x.shape[-2]):
        r, i = 1 / (1 + np.exp(-rg[..., t, :])), 1 / (1 + np.exp(-ig[..., t, :]))
        # log(sigmoid(L)) without overflow, and 1 - |a|**2 without cancellation.
        log_a = c * r * -np.logaddexp(0, -L)
        a, root = np.exp(log_a + 1j * c * r * angle), np.sqrt(-np.expm1(2 * log_a))
        starts, counts, u = reset[..., t, None], valid[..., t, None], x[..., t, :]
        steps.append((state, a, r, i, u, root, starts, counts))
        new = np.where(starts, i * u, a * state + root * i * u)
        state = np.where(counts, new, state)
        h[..., t, :] = state
    return h, state, steps
