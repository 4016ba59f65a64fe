"""Questions in text against a loop over the model's logits, written here in NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from griffin_eqx.config import ModelConfig
from griffin_eqx.data import ByteTokenizer, open_tokenizer
from griffin_eqx.evaluation import scorer
from griffin_eqx.evaluation.scorer import Scorer
from griffin_eqx.model import LanguageModel
from griffin_eqx.sampling import Sampling
from tests import tokenizer_files

pytestmark = pytest.mark.core

TEXT = "It was a long night. " * 3


@pytest.fixture(scope="module", params=["bytes", "sub-words"])
def asked(request, tmp_path_factory):
    if request.param == "bytes":
        tokenizer = ByteTokenizer()
    else:
        tokenizer = open_tokenizer(tokenizer_files.byte_fallback(tmp_path_factory.mktemp("tokenizer")))
    config = ModelConfig(
        pattern="rg_lru local_mqa",
        width=16,
        lru_width=16,
        vocab_size=tokenizer.vocab_size,
        blocks={"rg_lru": {"gate_blocks": 2}, "local_mqa": {"head_dim": 8, "window_size": 8}},
    )
    model = LanguageModel.init(config, key=jax.random.key(0))
    # Fresh scores lie close together; apart, the likeliest token is the same in every order of summation.
    model = eqx.tree_at(lambda m: m.embedding.weight, model, replace_fn=lambda w: w * 4)
    return Scorer(model, tokenizer), model, tokenizer


def by_hand(model, tokenizer, context, continuation):
    """The continuation's log-likelihood, token by token, in float64."""
    known = tokenizer.encode(context)
    tokens = np.array([tokenizer.document, *tokenizer.encode(context + continuation)], np.int32)
    logits = np.asarray(jax.jit(lambda t: model(t)[0])(jnp.asarray(tokens)), np.float64)
    scores = [row[token] - np.log(np.exp(row).sum()) for row, token in zip(logits, tokens[1:], strict=False)]
    hits = [row.argmax() == token for row, token in zip(logits, tokens[1:], strict=False)]
    return sum(scores[len(known) :]), all(hits[len(known) :])


def test_continuations_are_judged_as_by_hand(asked):
    asks, model, tokenizer = asked
    pairs = [
        ("To be", " or not"),
        ("", "x"),
        (TEXT.strip(), " So it goes.\n"),
        ("né", "é"),
        ("a", ""),
        ("b", "c"),
    ] * 2
    for found, (context, continuation) in zip(asks.continuations(pairs), pairs, strict=True):
        nats, greedy = by_hand(model, tokenizer, context, continuation)
        # float32 scores of some tens of tokens.
        assert found.nats == pytest.approx(nats, rel=1e-5, abs=1e-5)
        assert found.greedy == greedy


def test_white_space_at_a_contexts_end_belongs_to_the_continuation(asked):
    asks, *_ = asked
    (left, right) = asks.continuations([("To be ", "or"), ("To be", " or")])
    assert left == right


def test_a_text_longer_than_a_chunk_is_read_whole(asked, monkeypatch):
    asks, model, tokenizer = asked
    monkeypatch.setattr(scorer, "CHUNK", 16)
    (found,) = asks.texts([TEXT])
    assert found.nats == pytest.approx(by_hand(model, tokenizer, "", TEXT)[0], rel=1e-5)


@pytest.mark.parametrize("asked", ["bytes"], indirect=True)  # its text has one way to be cut into tokens
def test_what_it_writes_greedily_is_what_it_calls_greedy(asked):
    asks, *_ = asked
    prompts = ["To be", "And then", "x", "q", "(", "And"]
    written = zip(prompts, asks.write(prompts, max_new_tokens=5), strict=True)
    # Bytes that are no text cannot be asked for again.
    found = asks.continuations([pair for pair in written if "\ufffd" not in pair[1]])
    assert found
    assert all(one.greedy for one in found)


def test_writing_stops_before_the_first_of_the_words(asked):
    asks, *_ = asked
    hot = Sampling(1.0)
    (whole,) = asks.write(["To be"], max_new_tokens=40, sampling=hot, seed=3)
    assert len(whole) > 4
    words = [whole[9:11], whole[3:5]]
    (cut,) = asks.write(["To be"], until=words, max_new_tokens=40, sampling=hot, seed=3)
    first = min(place for word in words if word and (place := whole.find(word)) >= 0)
    assert cut == whole[:first]


def test_nothing_is_asked(asked):
    asks, *_ = asked
    assert (asks.continuations([]), asks.texts([]), asks.write([])) == ([], [], [])
