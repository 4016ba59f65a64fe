"""The convolution against the loop in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_kernels.causal_conv import causal_conv
from griffin_kernels.causal_conv.oracle import causal_conv_oracle
from hypothesis import given
from hypothesis import strategies as st

from griffin_eqx.verify import assert_close, tolerance

pytestmark = pytest.mark.core

WIDTH = 3


@given(
    seq_len=st.sampled_from([0, 1, 2, 7]),
    conv_width=st.sampled_from([1, 2, 4]),
    before=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_convolution_equals_the_loop_in_float64(seq_len, conv_width, before, bias, seed):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    arguments = (
        draw(seq_len, WIDTH),
        draw(conv_width, WIDTH),
        draw(WIDTH) if bias else None,
        rng.integers(0, conv_width + 1, seq_len).astype(np.int32),
        draw(conv_width - 1, WIDTH) if before else None,
    )
    got = jax.jit(causal_conv)(*arguments)
    assert_close(got, causal_conv_oracle(*arguments), "y", tol=tolerance(np.float32))


def test_its_weights_are_cast_to_the_dtype_of_its_inputs():
    x = jnp.ones((4, WIDTH), jnp.bfloat16)
    y = causal_conv(x, jnp.ones((2, WIDTH)), jnp.ones(WIDTH), jnp.arange(4), jnp.ones((1, WIDTH)))
    assert y.dtype == jnp.bfloat16
