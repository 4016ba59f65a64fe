"""The RG-LRU and its derivative as float64 loops in NumPy. Imports NumPy alone."""

import numpy as np


def rg_lru_oracle(x, recurrence_gate, input_gate, a_param, h0=None, reset=None, valid=None, *, c=8.0):
    """Runs the RG-LRU step by step in float64; see `rg_lru_scan` for the arguments.

    Returns:
      `(h, h_last)`, float64.
    """
    h, h_last, _ = _run(x, recurrence_gate, input_gate, a_param, h0, reset, valid, c)
    return h, h_last


def rg_lru_vjp_oracle(
    x, recurrence_gate, input_gate, a_param, h0, reset, valid, dh, dh_last, *, c=8.0, bound=1000.0
):
    """The cotangents of `(x, recurrence_gate, input_gate, a_param, h0)` by the reverse loop, in float64.

    `bound` is the largest derivative of the square root that is passed on.
    """
    _, _, steps = _run(x, recurrence_gate, input_gate, a_param, h0, reset, valid, c)
    L = np.asarray(a_param, np.float64)
    log_a_of_L = -np.logaddexp(0, -L)
    dx, drg, dig = (np.zeros(np.shape(x)) for _ in range(3))
    dL = np.zeros_like(L)
    g = np.array(dh_last, np.float64)
    for t in range(len(steps) - 1, -1, -1):
        before, a, r, i, u, root, starts, counts = steps[t]
        g = g + np.asarray(dh, np.float64)[..., t, :]
        alive = counts & ~starts
        # h = a * before + root * i * u, with root = 1 at a start and where(counts, ..., before) around it.
        scale = np.where(starts, 1.0, root)
        dx[..., t, :] = np.where(counts, g * scale * i, 0)
        dig[..., t, :] = np.where(counts, g * scale * u * i * (1 - i), 0)
        with np.errstate(divide="ignore"):
            slope = np.minimum(0.5 / root, bound)
        d_log_a = np.where(alive, g * before * a + g * i * u * slope * (-2 * a * a), 0)
        drg[..., t, :] = d_log_a * c * log_a_of_L * r * (1 - r)
        dL += (d_log_a * c * r).reshape(-1, L.shape[-1]).sum(0) / (1 + np.exp(L))
        g = np.where(counts, np.where(starts, 0, g * a), g)
    return dx, drg, dig, dL, g


def gated_rg_lru_oracle(x, recurrence_gate, input_gate, a_param, h0=None, reset=None, valid=None, *, c=8.0):
    """`(h, h_last)` in float64; see `gated_rg_lru`."""
    gates = _product(x, *recurrence_gate), _product(x, *input_gate)
    return rg_lru_oracle(x, *gates, a_param, h0, reset, valid, c=c)


def gated_rg_lru_vjp_oracle(x, recurrence_gate, input_gate, a_param, h0, reset, valid, dh, dh_last, *, c=8.0):
    """The cotangents of `(x, recurrence_gate, input_gate, a_param, h0)` in float64."""
    gates = _product(x, *recurrence_gate), _product(x, *input_gate)
    dx, *dgates, da_param, dh0 = rg_lru_vjp_oracle(x, *gates, a_param, h0, reset, valid, dh, dh_last, c=c)
    pulled = []
    for (weight, bias), dz in zip((recurrence_gate, input_gate), dgates, strict=True):
        side = weight.shape[-1]
        dweight, dbias = np.zeros(weight.shape), np.zeros(bias.shape)
        for block in range(weight.shape[0]):
            at = slice(block * side, (block + 1) * side)
            rows, here = np.reshape(x[..., at], (-1, side)), np.reshape(dz[..., at], (-1, side))
            dweight[block], dbias[block] = rows.T @ here, here.sum(axis=0)
            dx[..., at] += dz[..., at] @ np.asarray(weight[block], np.float64).T
        pulled.append((dweight, dbias))
    return dx, *pulled, da_param, dh0


def _run(x, recurrence_gate, input_gate, a_param, h0, reset, valid, c):
    x, rg, ig, L = (np.asarray(z, np.float64) for z in (x, recurrence_gate, input_gate, a_param))
    state = np.zeros(x.shape[:-2] + x.shape[-1:]) if h0 is None else np.array(h0, np.float64)
    never, always = np.zeros(x.shape[:-1], bool), np.ones(x.shape[:-1], bool)
    reset = never if reset is None else np.asarray(reset)
    valid = always if valid is None else np.asarray(valid)
    h, steps = np.empty_like(x), []
    for t in range(x.shape[-2]):
        r, i = 1 / (1 + np.exp(-rg[..., t, :])), 1 / (1 + np.exp(-ig[..., t, :]))
        # log(sigmoid(L)) without overflow, and 1 - a**2 without cancellation.
        log_a = c * r * -np.logaddexp(0, -L)
        a, root = np.exp(log_a), np.sqrt(-np.expm1(2 * log_a))
        starts, counts, u = reset[..., t, None], valid[..., t, None], x[..., t, :]
        steps.append((state, a, r, i, u, root, starts, counts))
        new = np.where(starts, i * u, a * state + root * i * u)
        state = np.where(counts, new, state)
        h[..., t, :] = state
    return h, state, steps


def _product(x, weight, bias):
    x, weight, bias = (np.asarray(z, np.float64) for z in (x, weight, bias))
    side = weight.shape[-1]
    parts = [
        x[..., block * side : (block + 1) * side] @ weight[block] + bias[block]
        for block in range(weight.shape[0])
    ]
    return np.concatenate(parts, axis=-1)
