"""Continuing prompts: each as if alone, as the model itself would choose, until the token that ends it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import griffin_eqx as gx
from griffin_eqx.config import ModelConfig
from griffin_eqx.model import LanguageModel

pytestmark = pytest.mark.core

VOCABULARY = 23
PROMPTS = [[5, 1, 2, 3], [7], list(range(14)), [5, 1, 2, 3]]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    config = ModelConfig(
        pattern="rg_lru[mlp=none] local_mqa[window_size=5,mlp=none]",
        width=16,
        lru_width=16,
        vocab_size=VOCABULARY,
        blocks={"rg_lru": {"gate_blocks": 2}, "local_mqa": {"head_dim": 8}},
    )
    model = jax.jit(lambda: LanguageModel.init(config, key=jax.random.key(1)))()
    return jax.tree.map(lambda z: 3 * z if z.ndim > 1 else z, model)  # far from ties


def test_greedy_takes_what_a_full_pass_scores_highest(model):
    score = jax.jit(lambda tokens, last: jnp.argmax(model(tokens)[0][last]))
    for prompt, written in zip(
        PROMPTS, gx.generate(model, PROMPTS, max_new_tokens=9, temperature=0.0), strict=True
    ):
        assert len(written) == 9
        for i, token in enumerate(written):
            # The future changes nothing, so filler behind the text keeps the shape.
            text = (prompt + written[:i] + [0] * 40)[:40]
            assert token == int(score(jnp.asarray(text), len(prompt) + i - 1))


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"temperature": 0.7, "top_k": 5}])
def test_a_prompt_in_a_batch_is_continued_as_if_alone(model, settings):
    together = gx.generate(model, PROMPTS, max_new_tokens=9, seed=3, **settings)
    for i, prompt in enumerate(PROMPTS):
        assert gx.generate(model, [prompt], max_new_tokens=9, seed=3 + i, **settings) == [together[i]]


def test_a_seed_repeats_and_another_does_not(model):
    first, second = (gx.generate(model, PROMPTS, max_new_tokens=9, seed=seed) for seed in (0, 100))
    assert gx.generate(model, PROMPTS, max_new_tokens=9, seed=0) == first != second
    assert first[0] != first[3]  # equal prompts, each with its own seed


def test_fewer_new_tokens_are_the_first_of_more(model):
    more = gx.generate(model, PROMPTS, max_new_tokens=12)
    assert gx.generate(model, PROMPTS, max_new_tokens=4) == [written[:4] for written in more]


def test_the_stop_token_ends_a_continuation_and_is_not_part_of_it(model):
    free = gx.generate(model, PROMPTS, max_new_tokens=12)
    stop = free[0][4]
    stopped = gx.generate(model, PROMPTS, max_new_tokens=12, stop=stop)
    for written, whole in zip(stopped, free, strict=True):
        assert written == (whole[: whole.index(stop)] if stop in whole else whole)


def test_only_the_likeliest_are_drawn_with_top_k(model):
    score = jax.jit(lambda tokens: model(tokens)[0][-1])
    best = set(np.argsort(score(jnp.asarray(PROMPTS[0])))[-5:].tolist())
    drawn = [
        gx.generate(model, [PROMPTS[0]] * 4, max_new_tokens=1, top_k=5, temperature=5.0, seed=seed)
        for seed in range(0, 200, 4)
    ]
    assert {tokens[0] for batch in drawn for tokens in batch} == best


def test_draws_follow_the_models_probabilities(model):
    probabilities = jax.nn.softmax(jax.jit(lambda tokens: model(tokens)[0][-1])(jnp.asarray([7])) / 2)
    drawn = [
        gx.generate(model, [[7]] * 4, max_new_tokens=1, temperature=2.0, seed=seed)
        for seed in range(0, 2000, 4)
    ]
    counts = np.bincount([tokens[0] for batch in drawn for tokens in batch], minlength=VOCABULARY)
    # Five standard deviations of a count of 2000 draws.
    assert np.all(np.abs(counts / 2000 - probabilities) < 5 * np.sqrt(probabilities / 2000) + 1 / 2000)


def test_new_lengths_do_not_compile_again(model, monkeypatch):
    traced = []
    hidden = LanguageModel.hidden
    monkeypatch.setattr(
        LanguageModel, "hidden", lambda *args, **options: traced.append(1) or hidden(*args, **options)
    )
    gx.generate(model, [[1, 2, 3]] * 2, max_new_tokens=3)
    once = len(traced)
    for length, new, temperature in ((1, 2, 0.0), (9, 16, 0.5), (16, 5, 1.0)):
        gx.generate(model, [[1] * length] * 2, max_new_tokens=new, temperature=temperature, stop=2)
    assert len(traced) == once > 0


def test_nothing_asked_is_nothing_written(model):
    assert gx.generate(model, [], max_new_tokens=3) == []
    assert gx.generate(model, PROMPTS, max_new_tokens=0) == [[], [], [], []]


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[1], []], {}, "prompt 1 is empty: begin it with the tokenizer's `document`."),
        ([[VOCABULARY]], {}, "prompt 0 holds ids outside of 0 to 22: is it another tokenizer's?"),
        ([[-1]], {}, "prompt 0 holds ids outside of 0 to 22"),
        ([[1]], {"max_new_tokens": -1}, "max_new_tokens=-1 must not be negative."),
        ([[1]], {"temperature": -0.5}, "temperature=-0.5 must be 0 or a positive number."),
        ([[1]], {"temperature": float("nan")}, "temperature=nan must be 0 or a positive number."),
        ([[1]], {"top_k": 0}, "top_k=0 must be at least 1."),
    ],
)
def test_a_wrong_argument_is_named(model, prompts, options, message):
    with pytest.raises(ValueError, match=r"prompt|must") as caught:
        gx.generate(model, prompts, **options)
    assert str(caught.value).startswith(message)
