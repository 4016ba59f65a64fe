"""What a sequence keeps, against the sizes that follow from the paper's shapes (section 5, appendix F.4)."""

import equinox as eqx
import jax
import pytest

import griffin_eqx as gx
from griffin_eqx.benchmark.decode import cache_bytes
from griffin_eqx.nn import Policy
from griffin_eqx.summary import with_vocabulary

# Decimal megabytes; keys, values and the convolution's inputs in bfloat16, states in float32, a window of 1024.
MEGABYTES = {
    "mqa-1.3b": {512: 6.29, 1024: 12.58, 2048: 25.17, 4096: 50.33, 8192: 100.7, 32768: 402.7, 131072: 1610.6},
    "griffin-1.3b": {512: 2.51, 1024: 4.60, 2048: 4.60, 131072: 4.60},
    "hawk-1.3b": {512: 0.614, 131072: 0.614},
    "mqa-7b": {512: 8.39, 1024: 16.78, 32768: 536.9, 131072: 2147.5},
    "griffin-7b": {512: 3.86, 1024: 6.48, 131072: 6.48},
    "hawk-7b": {512: 1.80, 131072: 1.80},
}


@pytest.mark.parametrize("name", MEGABYTES)
def test_a_sequence_keeps_what_the_papers_shapes_say(name):
    config = with_vocabulary(gx.preset(name))
    policy = Policy.parse("p=bf16,c=bf16")
    model = eqx.filter_eval_shape(gx.LanguageModel.init, config.model, policy=policy, key=jax.random.key(0))
    for tokens, megabytes in MEGABYTES[name].items():
        assert cache_bytes(model, tokens) / 1e6 == pytest.approx(megabytes, rel=2e-3)
