"""Mistakes in linear scans and in their derivative rule."""

from functools import partial

from .mutation import Mutant

_adjoint = partial(Mutant, module="griffin_kernels.linear_scan.adjoint", scan="xla")
_api = partial(Mutant, module="griffin_kernels.linear_scan.api", scan="xla")
_loop = partial(Mutant, module="griffin_kernels.linear_scan.reference", scan="xla")
_gpu = partial(Mutant, module="griffin_kernels.linear_scan.pallas_gpu", scan="pallas_gpu")
_tree = partial(Mutant, module="griffin_kernels.linear_scan.associative", scan="associative")

_RUN = "h, h_last = scan(_wide(x), _wide(a), h0, reset, reverse=reverse)\n        return _like(h, x), h_last"
_BACK = "scan(_wide(dh), late_a, dh_last, late_reset, reverse=not reverse)"
_ENTERING = "entering = _wide(shift(h, h0, reverse=reverse))"
_LAST = "lambda z: z[..., 0 if reverse else -1, :]"

MUTANTS = (
    _adjoint(
        name="scan-state-in-the-dtype-of-its-input",
        law=("oracle", "long"),
        old=_RUN,
        new="h, h_last = scan(x, a, _like(h0, x), reset, reverse=reverse)\n"
        "        return _like(h, x), _like(h_last, h0)",
        why="the carry is bfloat16 where the input is",
    ),
    _adjoint(
        name="scan-last-state-rounded",
        law="oracle",
        old="return _like(h, x), h_last",
        new="return _like(h, x), _like(_like(h_last, x), h_last)",
        why="the last state is read from the outputs, in their dtype",
    ),
    _adjoint(
        name="scan-h0-without-cotangent",
        law="adjoint",
        old="_like(da, a), _like(dh0, h0)",
        new="_like(da, a), jax.tree.map(jnp.zeros_like, h0)",
        why="h0 gets no gradient",
    ),
    _adjoint(
        name="scan-last-cotangent-ignored",
        law="adjoint",
        old=_BACK,
        new=_BACK.replace("dh_last", "jax.tree.map(jnp.zeros_like, dh_last)"),
        why="the gradient of the final state is not asked for",
    ),
    _adjoint(
        name="scan-adjoint-decays-one-early",
        law="adjoint",
        old="late_a = shift(conj_a, ones, reverse=not reverse)",
        new="late_a = conj_a",
        why="the adjoint runs with a[t] in place of a[t + 1]",
    ),
    _adjoint(
        name="scan-adjoint-shifted-the-other-way",
        law="adjoint",
        old="late_a = shift(conj_a, ones, reverse=not reverse)",
        new="late_a = shift(conj_a, ones, reverse=reverse)",
        why="the adjoint runs with a[t - 1] in place of a[t + 1]",
    ),
    _adjoint(
        name="scan-decay-cotangent-of-the-state-behind",
        law="adjoint",
        old=_ENTERING,
        new="entering = _wide(h)",
        why="da takes h[t] in place of h[t - 1]",
    ),
    _adjoint(
        name="scan-decay-cotangent-without-h0",
        law="adjoint",
        old=_ENTERING,
        new="entering = _wide(shift(h, jax.tree.map(jnp.zeros_like, h0), reverse=reverse))",
        why="da at the first step forgets that a state was handed in",
    ),
    _adjoint(
        name="scan-decay-cotangent-not-conjugated",
        law="adjoint",
        old="dx * entering.conj() if",
        new="dx * entering if",
        why="da of a complex scan without the conjugate",
    ),
    _adjoint(
        name="scan-adjoint-decays-not-conjugated",
        law="adjoint",
        old="_wide(a).conj() if isinstance(a, Planar) else _wide(a)",
        new="_wide(a)",
        why="dx of a complex scan without the conjugate",
    ),
    _adjoint(
        name="scan-complex-unit-with-two-parts",
        law="adjoint",
        old="ones = Planar(ones.re, jnp.zeros_like(ones.im))",
        new="ones = Planar(ones.re, ones.im)",
        why="the unit of a complex product is taken to be 1 + i",
    ),
    _adjoint(
        name="scan-adjoint-without-resets",
        law=("adjoint", "resets"),
        old=_BACK,
        new="scan(_wide(dh), late_a, dh_last, None, reverse=not reverse)",
        why="the forward pass is reset and the backward pass is not",
    ),
    _adjoint(
        name="scan-adjoint-resets-one-late",
        law=("adjoint", "resets"),
        old="dh_last, late_reset, reverse=not reverse)",
        new="dh_last, reset, reverse=not reverse)",
        why="the adjoint is reset where the scan is, and not a step beside it",
    ),
    _adjoint(
        name="scan-adjoint-resets-turned-round",
        law="reverse",
        old="[first, reset[..., :-1]] if reverse else [reset[..., 1:], first]",
        new="[reset[..., 1:], first]",
        why="resets of the adjoint are shifted the same way in both directions",
    ),
    _adjoint(
        name="scan-decay-cotangent-at-a-reset",
        law="resets",
        old="da = jax.tree.map(lambda z: jnp.where(reset[..., None], 0, z), da)",
        new="pass",
        why="the decay at a border has a gradient, though nothing passes through it",
    ),
    _adjoint(
        name="scan-h0-cotangent-through-a-reset",
        law="resets",
        old="dh0 = jax.tree.map(lambda z: jnp.where(reset[..., end, None], 0, z), dh0)",
        new="pass",
        why="h0 has a gradient though the first step drops it",
    ),
    _adjoint(
        name="scan-decay-cotangent-masked-by-a-product",
        law="resets",
        old="jnp.where(reset[..., None], 0, z), da)",
        new="z * (1 - reset[..., None].astype(z.dtype)), da)",
        why="0 times NaN, in the backward pass",
    ),
    _api(
        name="scan-of-nothing-without-cotangent",
        law="empty",
        old="        return x, start\n",
        new="        return x, jax.lax.stop_gradient(start)\n",
        traps=(29,),
        why="no steps hand the state on, and its gradient as well",
    ),
    _api(
        name="scan-of-nothing-forgets",
        law="empty",
        old="        return x, start\n",
        new="        return x, jax.tree.map(jnp.zeros_like, start)\n",
        traps=(29,),
        why="no steps hand the state on as it is",
    ),
    _api(
        name="scan-last-state-in-the-dtype-of-its-input",
        law="oracle",
        old="    return differentiable_scan(x, a, start, reset, reverse, implementation, interpret)\n",
        new="    h, h_last = differentiable_scan(x, a, start, reset, reverse, implementation, interpret)\n"
        "    return h, jax.tree.map(lambda z: z.astype(leaf.dtype), h_last)\n",
        why="the state for the next chunk is as narrow as the outputs",
    ),
    _api(
        name="scan-h0-rounded",
        law="split",
        old="lambda z: z.astype(wide), h0)",
        new="lambda z: z.astype(leaf.dtype).astype(wide), h0)",
        traps=(28,),
        why="what is carried between chunks is cast to the dtype of the input",
    ),
    _api(
        name="scan-starts-from-ones",
        law="defaults",
        old="zeros = jnp.zeros(",
        new="zeros = jnp.ones(",
        why="no state is not the same as a state of zeros",
    ),
    _loop(
        name="scan-reset-masked-by-a-product",
        law="resets",
        old="jnp.where(reset_t[..., None], 0, c)",
        new="c * (1 - reset_t[..., None].astype(c.dtype))",
        why="0 times NaN lets a NaN cross the border",
    ),
    _loop(
        name="scan-reset-drops-the-token-too",
        law="oracle",
        old="        h = carried + x_t\n",
        new="        h = carried + x_t\n"
        "        if reset_t is not None:\n"
        "            h = jax.tree.map(lambda c: jnp.where(reset_t[..., None], 0, c), h)\n",
        why="the state behind the first token is cleared, and not the one in front of it",
    ),
    _loop(
        name="scan-always-forwards",
        law="reverse",
        old="(*time_major, reset), reverse=reverse)",
        new="(*time_major, reset))",
        why="the direction is accepted and ignored",
    ),
    _loop(
        name="scan-state-clipped",
        law="linear",
        old="h = carried + x_t\n",
        new="h = jax.tree.map(lambda z: jnp.clip(z, -2, 2), carried + x_t)\n",
        why="a guard against overflow makes a linear map into another one",
    ),
    _loop(
        name="scan-decay-kept-from-zero",
        law="extremes",
        old="carried = a_t * h\n",
        new="carried = jax.tree.map(lambda z: jnp.where(jnp.abs(z) < 1e-6, 1e-6, z), a_t) * h\n",
        traps=(33,),
        why="the logarithm of the decay is kept finite",
    ),
    _loop(
        name="scan-lanes-touch",
        law="independent",
        old="h = carried + x_t\n",
        new="h = carried + jax.tree.map(lambda z: z + 0 * z.sum(-1, keepdims=True), x_t)\n",
        why="unused lanes are masked by a product with 0",
    ),
    _tree(
        name="scan-pairs-reset-by-a-product",
        law="resets",
        old="jnp.where(reset_right, 0, c)",
        new="c * (1 - reset_right.astype(c.dtype))",
        why="0 times NaN, in every pair of a parallel prefix",
    ),
    _tree(
        name="scan-h0-behind-a-reset",
        law="resets",
        old="jax.tree.map(lambda c: jnp.where(had_reset, 0, c), decay * start)",
        new="decay * start",
        why="the product of decays is 0 behind a reset, and 0 times NaN is not",
    ),
    _tree(
        name="scan-exclusive-decay",
        law="oracle",
        old="carried, decay = a_right * h_left, a_right * a_left",
        new="carried, decay = a_left * h_left, a_right * a_left",
        traps=(33,),
        why="the state is carried by the decay in front of it and not by the one behind",
    ),
    _tree(
        name="scan-by-division",
        law=("oracle", "extremes"),
        old="h = jax.tree.map(lambda c: jnp.where(had_reset, 0, c), decay * start) + h",
        new="h = jax.tree.map(lambda c, a: jnp.where(had_reset, 0, c / a * a), decay * start, a) + h",
        traps=(33,),
        why="cumulative decays are divided by each other: 0 / 0 where one is strong",
    ),
    _tree(
        name="scan-last-state-of-the-other-end",
        law="oracle",
        old=_LAST,
        new="lambda z: z[..., -1, :]",
        why="the last state of a reversed scan is at token 0",
    ),
    _tree(
        name="scan-last-state-one-step-early",
        law="split",
        old=_LAST,
        new="lambda z: z[..., min(1, z.shape[-2] - 1) if reverse else -min(2, z.shape[-2]), :]",
        why="the state that enters the last step is handed on, and not the one that leaves it",
    ),
    _tree(
        name="scan-never-reset-in-reverse",
        law="resets",
        old="if reset is None:",
        new="if reset is None or reverse:",
        why="borders are known in one direction only",
    ),
    _tree(
        name="scan-over-a-numbered-axis",
        law="vmap",
        old="axis=leaf.ndim - 2",
        new="axis=min(1, leaf.ndim - 1)",
        why="time is axis 1, as long as there is a batch in front of it",
    ),
    _gpu(
        name="scan-gpu-last-group-skipped",
        law="oracle",
        old="self.left = self.seq_len - self.groups * self.ahead",
        new="self.left = self.seq_len % self.ahead",
        why="where the length is a multiple of a group's, nothing is thought to be left over",
    ),
    _gpu(
        name="scan-gpu-groups-start-anew",
        law="oracle",
        old="lambda i, s: group(i * grid.ahead, grid.ahead, s), state)",
        new="lambda i, s: group(i * grid.ahead, grid.ahead, state), state)",
        why="the state is carried within a group and not from one to the next",
    ),
    _gpu(
        name="scan-gpu-last-channel-masked",
        law="oracle",
        old="jnp.arange(self.channels) < self.width",
        new="jnp.arange(self.channels) < self.width - 1",
        traps=(30,),
        why="a width that is no multiple of the block's is off by one",
    ),
    _gpu(
        name="scan-gpu-state-in-the-dtype-of-its-output",
        law="long",
        old="state = _keep(reset_t, a_t * state) + x_t\n",
        new="state = _keep(reset_t, a_t * state) + x_t\n"
        "                state = jax.tree.map(lambda z, h: z.astype(h.dtype).astype(z.dtype), state, h)\n",
        why="the state in the registers is what is stored",
    ),
    _gpu(
        name="scan-gpu-reset-behind-the-token",
        law="oracle",
        old="state = _keep(reset_t, a_t * state) + x_t\n",
        new="state = _keep(reset_t, a_t * state + x_t)\n",
        why="the state behind the first token is cleared, and not the one in front of it",
    ),
    _gpu(
        name="scan-gpu-reset-by-a-product",
        law="resets",
        old="lambda z: jnp.where(reset, 0, z)",
        new="lambda z: z * (1 - reset.astype(z.dtype))",
        why="0 times NaN lets a NaN cross the border",
    ),
    _gpu(
        name="scan-gpu-decay-times-its-own-state",
        law="adjoint",
        old="_load(h, mask, grid.row(start + i + 1))",
        new="_load(h, mask, grid.row(start + i))",
        why="the cotangent of a decay takes the state behind the step, and not the one that enters it",
    ),
    _gpu(
        name="scan-gpu-decay-of-a-reset-step",
        law="adjoint",
        old="_keep(reset_t, dx_t * _conj(h_before))",
        new="dx_t * _conj(h_before)",
        why="a decay that was not used gets a gradient",
    ),
    _gpu(
        name="scan-gpu-adjoint-without-conjugate",
        law="adjoint",
        old="_keep(reset_t, dx_t * _conj(a_t))",
        new="_keep(reset_t, dx_t * a_t)",
        why="right for real decays alone",
    ),
)
