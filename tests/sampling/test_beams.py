"""Beam search against all texts there are, and against the same search with every text scored anew; best of n."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_eqx.sampling import Engine, Sampling
from tests.sampling.models import EVERY_KIND, oracle, small

TINY = 3  # tokens there are
prompts = st.lists(st.integers(0, TINY - 1), min_size=1, max_size=9)
penalties = st.sampled_from([0.0, 0.5, 1.0])


def _score(prompt, text, stop):
    """`(log-probability, length)` of a text, its stop token included where it has one."""
    return oracle(EVERY_KIND, TINY).score(prompt, text).sum(), len(text)


def _all_texts(new, stop):
    """Every text of `new` tokens, and every shorter one that ends in the stop token."""
    for length in range(1, new + 1):
        for text in itertools.product(range(TINY), repeat=length):
            if stop not in text[:-1] and (length == new or text[-1] == stop):
                yield text


def _searched(prompt, new, beams, stop, penalty):
    """The same search, each text scored by the whole model."""
    texts: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for _ in range(new):
        candidates = []
        for text, total in texts:
            if text and text[-1] == stop:
                candidates.append((text, total))
                continue
            log_p = oracle(EVERY_KIND, TINY).log_probabilities([*prompt, *text])[-1]
            candidates += [((*text, token), total + log_p[token]) for token in range(TINY)]
        texts = sorted(candidates, key=lambda item: -item[1] / len(item[0]) ** penalty)[:beams]
    return texts


def _bare(text, stop):
    return [token for token in text if token != stop]


@given(prompts, st.sampled_from([None, 1]), penalties)
@settings(max_examples=8)
def test_with_room_for_every_text_the_best_one_is_found(prompt, stop, penalty):
    engine = Engine(small(EVERY_KIND, TINY), prefill_chunk=16)
    (found,) = engine.beam_search(engine.start([prompt], room=44), 3, 27, stop=stop, length_penalty=penalty)
    texts = list(_all_texts(3, stop))
    scores = [_score(prompt, text, stop) for text in texts]
    ranks = [total / length**penalty for total, length in scores]
    order = np.argsort(ranks)[::-1]
    assert len(found.tokens) == len(texts)
    np.testing.assert_allclose(found.totals, [scores[i][0] for i in order], atol=2e-4)
    assert found.tokens[0] == _bare(texts[order[0]], stop)


@given(prompts, st.sampled_from([None, 0]), penalties, st.sampled_from([1, 4]))
@settings(max_examples=8)
def test_the_texts_are_those_of_a_search_that_scores_each_anew(prompt, stop, penalty, beams):
    engine = Engine(small(EVERY_KIND, TINY), prefill_chunk=16)
    session = engine.start([prompt], room=44)
    (found,) = engine.beam_search(session, 6, beams, stop=stop, length_penalty=penalty)
    expected = _searched(prompt, 6, beams, stop, penalty)
    assert found.tokens == [_bare(text, stop) for text, _ in expected]
    np.testing.assert_allclose(found.totals, [total for _, total in expected], atol=5e-4)
    assert found.finished == [stop is not None and text[-1] == stop for text, _ in expected]
    # And each can be gone on with.
    more = engine.write(found.session, 4, Sampling(temperature=0))
    for text, tokens in zip(found.tokens, more.tokens, strict=True):
        assert tokens == oracle(EVERY_KIND, TINY).greedy([*prompt, *text], 4)


def test_one_beam_is_greedy_and_rows_are_searched_apart():
    engine = Engine(small(EVERY_KIND, TINY), prefill_chunk=16)
    session = engine.start([[0, 1], [2, 2, 1, 0]], room=44)
    greedy = engine.write(session, 6, Sampling(temperature=0))
    assert [found.tokens[0] for found in engine.beam_search(session, 6, 1)] == greedy.tokens


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_best_of_n_is_the_best_of_the_texts_that_are_written(penalty):
    engine = Engine(small(EVERY_KIND, TINY), prefill_chunk=16)
    session = engine.start([[0, 1], [2]], room=44)
    best = engine.best_of(session, 4, 6, stop=0, seed=3, length_penalty=penalty)
    for row in range(2):
        seeds = [3 + 4 * row + i for i in range(4)]
        forks = engine.write(session.take([row] * 4), 6, stop=0, seed=seeds)
        lengths = np.array(
            [len(text) + done for text, done in zip(forks.tokens, forks.finished, strict=True)]
        )
        winner = int(np.argmax(np.array(forks.totals) / np.maximum(lengths, 1) ** penalty))
        assert best.tokens[row] == forks.tokens[winner]
        assert best.session.tokens[row].tolist() == forks.session.tokens[winner].tolist()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda engine, session: engine.beam_search(session, beams=0), "beams=0 must be at least 1."),
        (lambda engine, session: engine.beam_search(session, -1), "max_new_tokens=-1 must not be negative."),
        (lambda engine, session: engine.best_of(session, 0), "n=0 must be at least 1."),
    ],
)
def test_a_number_out_of_range_is_named(ask, message):
    engine = Engine(small("global_mqa"))
    with pytest.raises(ValueError, match=r"must") as caught:
        ask(engine, engine.start([[1]]))
    assert str(caught.value) == message
