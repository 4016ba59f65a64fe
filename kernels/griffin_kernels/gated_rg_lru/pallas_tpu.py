"""The RG-LRU and the products of its gates on TPU, one pass each way: 2 words an element forward and 4 backward.

grid      (channel blocks, rows, time blocks); a channel block is made of whole gate blocks, so that it is a unit of
          its own, and its weights come once.
products  of a block of tokens at once: for each group of 128 channels the window of inputs that its gates see, times
          both gates' weights side by side, accumulated in float32.
gates     elementwise on the tiles `[tokens, 128]` that the products leave, into float32 scratch that holds 8 steps of
          a group in 8 rows.
scan      over that scratch: the rows of one step are 8 apart, so a strided load fills a register with 8 groups.

Backward computes gates and products again, and keeps the weights' cotangents on the chip until the last token.

Operands of products are float32, because the matrix unit of a v3 takes nothing else; at JAX's default precision it
rounds them to bfloat16, as it does for the same products in XLA.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from griffin_kernels.gated_rg_lru.plan import Plan, window_bytes
from griffin_kernels.gated_rg_lru.windows import Windows
from griffin_kernels.linear_scan import pallas_tpu as scan
from griffin_kernels.operation import array_like
from griffin_kernels.rg_lru.flags import RESET, SKIP
from griffin_kernels.rg_lru.tpu_math import decay, half, normaliser, open_gate, pulled_back, rate_of
from griffin_kernels.tpu_tiles import LANES, STEPS

_IN_ORDER = ("parallel", "parallel", "arbitrary")
_SUMMED = ("parallel", "arbitrary", "arbitrary")


def forward(x, recurrence_gate, input_gate, a_param, h0, reset, valid, *, c, interpret: Any = False):
    """`(h, h_last)`; see `composed.forward`."""
    plan = _plan_forward(x, recurrence_gate)
    assert plan is not None  # `refuses` was asked.
    parameters = _parameters(plan.windows, recurrence_gate, input_gate, a_param, c)
    flags, rows = plan.flags(reset, valid), plan.filled(x)
    out, last = pl.pallas_call(
        partial(_forward_kernel, plan),
        grid=plan.grid,
        in_specs=(
            plan.rows,
            tuple(plan.resident(z) for z in parameters),
            plan.state,
            None if flags is None else plan.marks,
        ),
        out_specs=(plan.rows, plan.state),
        out_shape=(
            array_like(x, rows.shape, x.dtype),
            array_like(x, plan.split(h0).shape, jnp.float32),
        ),
        scratch_shapes=(
            plan.scratch,
            plan.scratch,
            pltpu.VMEM((plan.groups, LANES), jnp.float32),
            None if flags is None else pltpu.VMEM((plan.tokens, LANES), jnp.int32),
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=_IN_ORDER),
        cost_estimate=plan.cost(
            moved=2 * rows.nbytes + _bytes(parameters), flops=18, transcendentals=5, products=1
        ),
        interpret=interpret,
        name="gated_rg_lru",
    )(rows, parameters, plan.split(h0), flags)
    return plan.emptied(out, x), last.reshape(h0.shape)


def _forward_kernel(plan, x, parameters, h0, flags, out, last, decays, states, carry, marks):
    turn = pl.program_id(2)

    @pl.when(turn == 0)
    def _():
        carry[...] = h0[0, 0]

    flag = _spread(flags, marks)
    for group in range(plan.groups):
        gates = _gates(plan, x, parameters, group)
        rate = parameters[2][group]
        r, i = half(gates[:, :LANES]), open_gate(half(gates[:, LANES:]))
        a = decay(r, rate)
        root = normaliser(r, a, rate)[0]
        new = i * _natural(x, group)
        if flag is not None:
            # A reset drops the state by selection, in the scan: 0 * NaN would let a NaN cross the border.
            root = jnp.where(flag == RESET, 1.0, root)
            a, new = jnp.where(flag == SKIP, 1.0, a), jnp.where(flag == SKIP, 0.0, new)
        _store(decays, group, a)
        _store(states, group, root * new)

    def step(at, a, h, reset):
        h = _unless(reset, a * h) + states[at]
        states[at] = h
        return h

    _scan(plan, step, decays, carry, flags)
    for group in range(plan.groups):
        out[0, :, _lanes(group)] = _load(states, group).astype(out.dtype)

    @pl.when(turn == plan.grid[2] - 1)
    def _():
        last[0, 0] = carry[...]


def backward(
    dh, dh_last, x, recurrence_gate, input_gate, a_param, h, h0, reset, valid, *, c, interpret: Any = False
):
    """The cotangents `(dx, drecurrence_gate, dinput_gate, da_param, dh0)`; see `composed.backward`."""
    plan = _plan_backward(x, recurrence_gate)
    assert plan is not None  # `refuses_backward` was asked.
    parameters = _parameters(plan.windows, recurrence_gate, input_gate, a_param, c)
    flags = plan.flags(reset, valid)
    rows = tuple(plan.filled(z) for z in (x, dh, h))
    cuts, groups = parameters[0], parameters[0].shape[0]
    sums = jax.ShapeDtypeStruct((groups, 3, STEPS, LANES), jnp.float32)
    moved = sum(z.nbytes for z in rows) + rows[0].nbytes + rows[2].nbytes // plan.tiles
    dx, dcuts, sums, dh0 = pl.pallas_call(
        partial(_backward_kernel, plan),
        grid=plan.grid,
        in_specs=(
            (plan.rows,) * 3,
            plan.rows_before,
            tuple(plan.resident(z) for z in parameters),
            (plan.state,) * 2,
            None if flags is None else plan.marks,
        ),
        out_specs=(
            plan.rows,
            plan.resident(cuts, fetched=False),
            plan.resident(sums, fetched=False),
            plan.state,
        ),
        out_shape=(
            array_like(x, rows[0].shape, x.dtype),
            array_like(x, cuts.shape, jnp.float32),
            array_like(x, sums.shape, jnp.float32),
            array_like(x, plan.split(h0).shape, jnp.float32),
        ),
        scratch_shapes=(
            *(plan.scratch,) * 4,
            pltpu.VMEM((plan.groups, LANES), jnp.float32),
            None if flags is None else pltpu.VMEM((plan.tokens, LANES), jnp.int32),
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=_SUMMED),
        cost_estimate=plan.cost(
            moved=moved + _bytes(parameters) + cuts.nbytes, flops=40, transcendentals=5, products=3
        ),
        interpret=interpret,
        name="gated_rg_lru_backward",
    )(rows, rows[2], parameters, (plan.split(h0), plan.split(dh_last)), flags)
    d_rate, *dbias = jnp.moveaxis(sums.sum(axis=2), 1, 0).reshape(3, -1)
    pulled = []
    for (weight, bias), dcut, db in zip(
        (recurrence_gate, input_gate), jnp.split(dcuts, 2, axis=-1), dbias, strict=True
    ):
        like = jax.ShapeDtypeStruct(weight.shape, jnp.float32)
        (dweight,) = jax.linear_transpose(plan.windows.cut, like)(dcut)
        pulled.append((dweight.astype(weight.dtype), db.reshape(bias.shape).astype(bias.dtype)))
    # d log(sigmoid(L)) / dL = sigmoid(-L).
    da_param = -c * d_rate * jax.nn.sigmoid(-a_param)
    return plan.emptied(dx, x), *pulled, da_param, dh0.reshape(h0.shape)


def _backward_kernel(
    plan,
    rows,
    h_before,
    parameters,
    ends,
    flags,
    dx,
    dcuts,
    sums,
    dh0,
    decays,
    cotangents,
    halves,
    openings,
    carry,
    marks,
):
    (x, dh, h), (h0, dh_last) = rows, ends
    cuts, _, rates = parameters
    row, turn = pl.program_id(1), pl.program_id(2)

    @pl.when(turn == 0)
    def _():
        carry[...] = dh_last[0, 0]

    @pl.when((turn == 0) & (row == 0))
    def _():
        dcuts[...] = jnp.zeros_like(dcuts)
        sums[...] = jnp.zeros_like(sums)

    flag = _spread(flags, marks)
    for group in range(plan.groups):
        gates = _gates(plan, x, parameters, group)
        r, i = half(gates[:, :LANES]), open_gate(half(gates[:, LANES:]))
        a = decay(r, rates[group])
        _store(decays, group, a if flag is None else jnp.where(flag == SKIP, 1.0, a))
        _store(cotangents, group, _natural(dh, group))
        _store(halves, group, r)
        _store(openings, group, i)

    def step(at, a, g, reset):
        g = g + cotangents[at]
        cotangents[at] = g
        return _unless(reset, a * g)

    _scan(plan, step, decays, carry, flags)

    first = jax.lax.broadcasted_iota(jnp.int32, (plan.tokens, LANES), 0) == 0
    is_first = turn == plan.grid[2] - 1
    for period in range(0, plan.groups, plan.windows.period):
        through = [jnp.zeros((plan.tokens, LANES), jnp.float32)] * plan.windows.period
        for group in range(period, period + plan.windows.period):
            before = h_before[0, :, _lanes(group)].astype(jnp.float32)[STEPS - 1 :]
            before = jnp.where(is_first, h0[0, 0, group : group + 1], before)
            entering = jnp.where(first, before, pltpu.roll(_natural(h, group), 1, 0))
            rate, seen = rates[group], _natural(x, group)
            r, i, a, g = (_load(ref, group) for ref in (halves, openings, decays, cotangents))
            direct, dr, di, d_rate = pulled_back(g, entering, seen, r, i, a, rate, flag)
            for place, z in enumerate((d_rate, dr, di)):
                sums[group, place] += z.reshape(plan.tiles, STEPS, LANES).sum(axis=0)
            through[group - period] += direct
            dgates = jnp.concatenate([dr, di], axis=1)
            window = x[0, :, _window(plan, group)].astype(jnp.float32)
            dcuts[group] += _dot(window, dgates, 0, 0)
            behind = _dot(dgates, cuts[group], 1, 1)
            for n in range(plan.windows.size):
                through[plan.windows.start(group) - period + n] += behind[:, _lanes(n)]
        for n, z in enumerate(through):
            dx[0, :, _lanes(period + n)] = z.astype(dx.dtype)

    @pl.when(is_first)
    def _():
        dh0[0, 0] = carry[...]


def refuses(x, recurrence_gate, *arguments, **options) -> str:
    """Why the forward kernel cannot compute these arguments, or ""."""
    return _refuses(_plan_forward, x, recurrence_gate, *arguments)


def refuses_backward(dh, dh_last, x, recurrence_gate, *arguments, **options) -> str:
    """Why the backward kernel cannot, or ""."""
    return _refuses(_plan_backward, x, recurrence_gate, dh, *arguments)


def _refuses(plan, x, recurrence_gate, *arguments):
    width, side = x.shape[-1], recurrence_gate[0].shape[-1]
    if width % LANES:
        return f"the width must be a multiple of {LANES}, and {width} is not"
    return scan.refuses(x, recurrence_gate, *arguments) or (
        "" if plan(x, recurrence_gate) else f"no block of whole gates of side {side} fits on the chip"
    )


def _plan_forward(x, recurrence_gate) -> Plan | None:
    windows = Windows.of(recurrence_gate[0].shape[-1])
    size = x.dtype.itemsize
    return Plan.make(
        x.shape,
        windows.side,
        of_group=window_bytes(windows),
        # x and h, double-buffered, and two arrays of scratch.
        of_token=LANES * (2 * 2 * size + 2 * 4),
        reverse=False,
        long=False,
    )


def _plan_backward(x, recurrence_gate) -> Plan | None:
    windows = Windows.of(recurrence_gate[0].shape[-1])
    size = x.dtype.itemsize
    return Plan.make(
        x.shape,
        windows.side,
        # The weights once, their cotangents twice.
        of_group=3 * window_bytes(windows),
        # x, dh, h and dx, double-buffered, and four arrays of scratch.
        of_token=LANES * (2 * 4 * size + 4 * 4),
        reverse=True,
        long=True,
    )


def _parameters(windows, recurrence_gate, input_gate, a_param, c):
    """Both gates' weights and biases side by side, and the rate: `[groups, ...]` each, float32."""
    (wr, br), (wi, bi) = jax.tree.map(lambda z: z.astype(jnp.float32), (recurrence_gate, input_gate))
    cuts = jnp.concatenate([windows.cut(wr), windows.cut(wi)], axis=-1)
    bias = jnp.concatenate([br.reshape(-1, 1, LANES), bi.reshape(-1, 1, LANES)], axis=-1)
    return cuts, bias, rate_of(a_param, c).reshape(-1, 1, LANES)


def _gates(plan, x, parameters, group):
    """Both gates of a group before their sigmoid, side by side: `[tokens, 256]`."""
    cuts, bias, _ = parameters
    return _dot(x[0, :, _window(plan, group)].astype(jnp.float32), cuts[group], 1, 0) + bias[group]


def _dot(one, other, axis, other_axis):
    dimensions = (((axis,), (other_axis,)), ((), ()))
    return jax.lax.dot_general(one, other, dimensions, preferred_element_type=jnp.float32)


def _scan(plan, step, decays, carry, flags):
    """Runs `state = step(place, a, state, reset)` over a block; `place` is where the scratch holds that step."""

    def tile(turn, states):
        states, turn = list(states), plan.tiles - 1 - turn if plan.reverse else turn
        for row in range(STEPS)[:: -1 if plan.reverse else 1]:
            reset = None if flags is None else flags[0, 0, 0, turn * STEPS + row] == RESET
            for i, (first, groups) in enumerate(plan.chunks):
                at = turn, pl.ds(first * STEPS + row, groups, stride=STEPS), slice(None)
                states[i] = step(at, decays[at], states[i], reset)
        return tuple(states)

    begin = tuple(carry[pl.ds(*cut), :] for cut in plan.chunks)
    for state, cut in zip(jax.lax.fori_loop(0, plan.tiles, tile, begin), plan.chunks, strict=True):
        carry[pl.ds(*cut), :] = state


def _spread(flags, marks):
    """Scalars to `[tokens, 128]`, one row a token; None if there are none."""
    if flags is None:
        return None
    rows = jax.lax.broadcasted_iota(jnp.int32, (STEPS, LANES), 0)

    def tile(turn, carry):
        spread = jnp.zeros((STEPS, LANES), jnp.int32)
        for row in range(STEPS):
            spread = jnp.where(rows == row, flags[0, 0, 0, turn * STEPS + row], spread)
        marks[pl.ds(pl.multiple_of(turn * STEPS, STEPS), STEPS), :] = spread
        return carry

    jax.lax.fori_loop(0, marks.shape[0] // STEPS, tile, 0)
    return marks[...]


def _unless(reset, z):
    return z if reset is None else jnp.where(reset, 0.0, z)


def _lanes(group):
    return slice(group * LANES, (group + 1) * LANES)


def _window(plan, group):
    start = plan.windows.start(group)
    return slice(start * LANES, (start + plan.windows.size) * LANES)


def _natural(ref, group):
    """A group of a block `[1, tokens, channels]` in float32."""
    return ref[0, :, _lanes(group)].astype(jnp.float32)


def _store(ref, group, z):
    """Puts `[tokens, 128]` into scratch."""
    ref[:, group * STEPS : (group + 1) * STEPS, :] = z.reshape(-1, STEPS, LANES)


def _load(ref, group):
    """Takes `[tokens, 128]` out of it."""
    return ref[:, group * STEPS : (group + 1) * STEPS, :].reshape(-1, LANES)


def _bytes(arrays):
    return sum(z.nbytes for z in arrays)
