"""The engine against a model run over the whole text for each token: whatever the chunks, neighbours and padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_eqx.model import LanguageModel
from griffin_eqx.sampling import Engine, Sampling
from griffin_eqx.sampling.decoding_model import unstacked
from tests.sampling.models import EVERY_KIND, REPEATED, VOCABULARY, oracle, small

pytestmark = pytest.mark.core

GREEDY = Sampling(temperature=0)
ROWS = 3
MOST = 20  # tokens of a prompt
ROOM = 44  # so that all sessions have one shape

prompts = st.lists(
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=MOST), min_size=ROWS, max_size=ROWS
)
chunks = st.sampled_from([1, 3, 16])


def _close(scores, expected):
    np.testing.assert_allclose(np.asarray(scores), expected, atol=2e-4)


@given(prompts, chunks, st.integers(0, 9))
def test_what_is_written_is_what_the_whole_model_scores_highest(prompts, chunk, new):
    engine = Engine(small(EVERY_KIND), prefill_chunk=chunk)
    written = engine.write(engine.start(prompts, room=ROOM), new, GREEDY)
    for prompt, tokens, scores in zip(prompts, written.tokens, written.log_probabilities, strict=True):
        assert tokens == oracle(EVERY_KIND).greedy(prompt, new)
        _close(scores, oracle(EVERY_KIND).score(prompt, tokens))


@given(prompts, st.permutations(range(ROWS)), st.booleans(), st.integers(0, 3))
def test_neighbours_their_order_and_the_side_of_padding_change_nothing(prompts, order, left, seed):
    engine = Engine(small(EVERY_KIND), prefill_chunk=16)
    settings = Sampling(temperature=0.8, top_p=0.9)
    seeds = [seed + i for i in range(ROWS)]
    written = engine.write(engine.start(prompts, room=ROOM), 8, settings, seed=seeds)
    array = np.full((ROWS, MOST + 2), 7)
    mask = np.zeros(array.shape, bool)
    for row, i in enumerate(order):
        n = len(prompts[i])
        here = slice(MOST + 2 - n, None) if left else slice(0, n)
        array[row, here], mask[row, here] = prompts[i], True
    other = engine.start(array, mask=mask, room=ROOM)
    again = engine.write(other, 8, settings, seed=[seeds[i] for i in order])
    assert again.tokens == [written.tokens[i] for i in order]
    _close(other.state.logits, engine.start([prompts[i] for i in order], room=ROOM).state.logits)


@given(prompts, st.integers(0, 8), chunks)
def test_to_write_in_two_goes_is_to_write_in_one_and_as_good_as_having_read_it(prompts, first, chunk):
    engine = Engine(small(EVERY_KIND), prefill_chunk=chunk)
    settings = Sampling(temperature=0.9, min_p=0.02, repetition_penalty=1.2)
    session = engine.start(prompts, room=ROOM)
    whole = engine.write(session, 8, settings, seed=5)
    one = engine.write(session, first, settings, seed=5)
    two = engine.write(one.session, 8 - first, settings, seed=5)
    assert [a + b for a, b in zip(one.tokens, two.tokens, strict=True)] == whole.tokens
    assert [row.tolist() for row in two.session.tokens] == [
        prompt + new for prompt, new in zip(prompts, whole.tokens, strict=True)
    ]
    reread = engine.start([row.tolist() for row in whole.session.tokens], room=ROOM)
    _close(whole.session.state.logits, reread.state.logits)
    _close(engine.extend(session, whole.tokens).state.logits, reread.state.logits)


@given(prompts, st.sets(st.integers(0, VOCABULARY - 1), max_size=4))
def test_any_of_several_stop_tokens_ends_a_row_and_is_neither_written_nor_read(prompts, stops):
    engine = Engine(small(EVERY_KIND), prefill_chunk=16)
    session = engine.start(prompts, room=ROOM)
    written = engine.write(session, 9, GREEDY, stop=sorted(stops))
    for prompt, tokens, finished in zip(prompts, written.tokens, written.finished, strict=True):
        assert tokens == oracle(EVERY_KIND).greedy(prompt, 9, stop=stops)
        assert finished == (len(tokens) < 9)
    # What comes behind a stop token is what would have come, had nobody looked for one.
    missing = [9 - len(tokens) for tokens in written.tokens]
    more = engine.write(written.session, max(missing), GREEDY)
    free = engine.write(session, 9, GREEDY)
    for head, tail, left, whole in zip(written.tokens, more.tokens, missing, free.tokens, strict=True):
        assert head + tail[:left] == whole


@given(prompts, st.lists(st.integers(1, 4), min_size=1, max_size=9))
def test_pieces_of_any_pace_are_the_whole(prompts, paces):
    engine = Engine(small(EVERY_KIND), prefill_chunk=16)
    session = engine.start(prompts, room=ROOM)
    whole = engine.write(session, 9, Sampling(), stop=3, seed=8)
    rest = iter(paces)
    pieces = list(engine.stream(session, 9, Sampling(), stop=3, seed=8, pace=lambda: next(rest, 2)))
    for row in range(ROWS):
        assert [token for piece in pieces for token in piece.tokens[row]] == whole.tokens[row]
        scores = [score for piece in pieces for score in piece.log_probabilities[row]]
        assert scores == whole.log_probabilities[row]
    assert pieces[-1].finished == whole.finished


@given(prompts, st.lists(st.integers(-ROWS, ROWS - 1), min_size=ROWS, max_size=ROWS))
@settings(max_examples=5)
def test_a_fork_goes_on_from_where_it_was_taken_and_leaves_the_original(prompts, rows):
    engine = Engine(small(EVERY_KIND), prefill_chunk=16)
    session = engine.start(prompts, room=ROOM)
    forked = engine.write(session.take(rows), 6, Sampling(), seed=[7] * ROWS)
    whole = engine.write(session, 6, Sampling(), seed=[7] * ROWS)
    assert forked.tokens == [whole.tokens[row] for row in rows]


def test_apart_layers_compute_what_stacked_ones_do():
    model = small(REPEATED)
    apart = unstacked(model)
    assert set(apart.stack.repeats) == {1} != set(model.stack.repeats)
    assert unstacked(apart) is apart
    tokens = jnp.arange(12) % VOCABULARY
    run = jax.jit(lambda model, tokens: model(tokens)[0])
    np.testing.assert_allclose(run(apart, tokens), run(model, tokens), atol=1e-4)
    engine = Engine(model)
    (written,) = engine.write(engine.start([[5, 1, 2]]), 20, GREEDY).tokens
    assert written == oracle(REPEATED).greedy([5, 1, 2], 20)


def test_a_cache_that_does_not_grow_has_room_for_any_length():
    engine = Engine(small("rg_lru local_mqa[window_size=5]"), prefill_chunk=16)
    session = engine.start([[1, 2, 3]], room=1)
    assert len(engine.write(session, 60, GREEDY).tokens[0]) == 60


def test_a_document_that_outgrows_its_cache_is_refused():
    engine = Engine(small("global_mqa"), prefill_chunk=16)
    session = engine.start([[1, 2, 3], [1]], room=5)
    for ask in (lambda: engine.write(session, 20), lambda: engine.extend(session, [[], [1] * 16])):
        with pytest.raises(
            ValueError, match="This session has room for documents of 16 tokens, and one would"
        ):
            ask()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda engine: engine.start([[1], []]),
            "prompt 1 is empty: begin it with the tokenizer's `document`.",
        ),
        (lambda engine: engine.start([[VOCABULARY]]), "prompt 0 holds ids outside of 0 to 22"),
        (
            lambda engine: engine.start([[1, 2, 3]], mask=[[True, False, True]]),
            "prompt 0 has padding between its tokens; its mask must be one piece.",
        ),
        (lambda engine: engine.start([[1, 2]], mask=[[True]]), "A mask is for an array of its shape"),
        (lambda engine: engine.write(engine.start([[1]]), seed=[1, 2]), "2 seeds for 1 rows"),
        (
            lambda engine: engine.extend(engine.start([[1]]), [[1], [2]]),
            "2 rows of tokens for a session of 1.",
        ),
        (lambda engine: Engine(engine.model, prefill_chunk=0), "prefill_chunk=0 must be at least 1."),
    ],
)
def test_a_wrong_argument_is_named(ask, message):
    with pytest.raises(ValueError, match=r".") as caught:
        ask(Engine(small("global_mqa")))
    assert str(caught.value).startswith(message)


def test_a_program_that_is_compiled_is_told_and_one_that_is_there_is_not():
    told = []
    engine = Engine(small("rg_lru", 29), tell=told.append)
    engine.write(engine.start([[1, 2, 3]], room=9), 4)
    assert [line.split(" in ")[0] for line in told] == ["compiled prefill 1 x 16", "compiled decode 1 rows"]
    engine.write(engine.start([[1] * 7], room=8), 9, Sampling(temperature=0.5), stop=4)
    assert len(told) == 2


@pytest.mark.parametrize("pattern", ["rg_lru", "rg_lru rg_lru local_mqa[window_size=16]"])
def test_a_context_of_64k_runs_the_program_of_a_short_one(pattern, monkeypatch):
    engine = Engine(small(pattern), prefill_chunk=4096)
    short = engine.start([[1] * 4096], room=1)
    engine.write(short, 2, GREEDY)
    traced = []
    hidden = LanguageModel.hidden
    monkeypatch.setattr(
        LanguageModel, "hidden", lambda *args, **options: traced.append(1) or hidden(*args, **options)
    )
    long = engine.start([np.arange(2**16) % VOCABULARY], room=1024)
    engine.write(long, 2, GREEDY)
    assert not traced
    assert [z.shape for z in jax.tree.leaves(long.state)] == [z.shape for z in jax.tree.leaves(short.state)]
