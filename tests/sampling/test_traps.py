"""Mistakes that public implementations of these layers make when they decode, by number; none may be ours.

The numbers are those of docs/sampling.md, which says who makes them. Each is tried on models of the blocks that it
concerns, against the same model run over the whole text at once.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from griffin_kernels.linear_scan import linear_scan, sharded_linear_scan
from jax.sharding import PartitionSpec as P

from griffin_eqx.block import SequenceLayout
from griffin_eqx.sampling import Engine, Sampling
from tests.meshes import make_mesh
from tests.sampling.models import VOCABULARY, Oracle, oracle, small

TEXT = [5, 1, 2, 19, 3, 3, 8, 0, 22, 7, 6, 11, 4, 13, 2, 9]
OTHER = [21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11]
GREEDY = Sampling(temperature=0)


def _close(got, expected):
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, atol=2e-4)


def _log_p(session):
    return np.asarray(jax.nn.log_softmax(session.state.logits, axis=-1))


def _in_chunks(pattern, chunk):
    """The engine that reads in chunks agrees with one pass, at the end of the prompt and at every token behind."""
    engine = Engine(small(pattern), prefill_chunk=chunk)
    session = engine.start([TEXT], room=48)
    _close(_log_p(session)[0], oracle(pattern).log_probabilities(TEXT)[-1])
    written = engine.write(session, 6, GREEDY)
    assert written.tokens[0] == oracle(pattern).greedy(TEXT, 6)
    _close(written.log_probabilities[0], oracle(pattern).score(TEXT, written.tokens[0]))


def _packed(pattern, documents, chunk):
    """Log-probabilities behind the last token of documents fed in one row, with the cache handed on."""
    model = small(pattern)
    tokens = np.concatenate(documents).astype(np.int32)
    positions = np.concatenate([np.arange(len(document)) for document in documents]).astype(np.int32)
    cache, logits = model.init_cache(64), jnp.zeros(VOCABULARY)
    run = jax.jit(lambda tokens, layout, cache: model(tokens, layout, cache))
    for start in range(0, len(tokens), chunk):
        own = slice(start, start + chunk)
        count = len(tokens[own])
        filled = [np.pad(z[own], (0, chunk - count)) for z in (tokens, positions)]
        layout = SequenceLayout(jnp.asarray(filled[1]), jnp.asarray(count, jnp.int32))
        all_logits, cache = run(jnp.asarray(filled[0]), layout, cache)
        logits = all_logits[count - 1]
    return np.asarray(jax.nn.log_softmax(logits)), model, cache


def _alone(pattern, document):
    return oracle(pattern).log_probabilities(document)[-1]


@pytest.mark.parametrize("chunk", [2, 5])
def test_trap_04_the_convolution_takes_several_tokens_once_there_is_a_cache(chunk):
    _in_chunks("rg_lru", chunk)


@pytest.mark.parametrize("chunk", [2, 5, 7])
def test_trap_05_a_chunk_joins_the_ring_of_keys_and_does_not_replace_it(chunk):
    _in_chunks("local_mqa[window_size=5]", chunk)


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_trap_06_a_chunk_goes_on_with_the_convolutions_inputs_as_with_the_state(chunk):
    _in_chunks("rg_lru cg_lru", chunk)


@pytest.mark.parametrize("pattern", ["rg_lru", "cg_lru", "local_mqa[window_size=5]"])
def test_trap_07_left_padding_does_not_leak_through_the_convolution(pattern):
    engine = Engine(small(pattern), prefill_chunk=16)
    array = np.array([[22] * 9 + TEXT[:3], [*OTHER[:11], 4]])
    mask = np.ones(array.shape, bool)
    mask[0, :9] = False
    batch = engine.start(array, mask=mask, room=48)
    _close(_log_p(batch)[0], _alone(pattern, TEXT[:3]))
    assert engine.write(batch, 6, GREEDY).tokens[0] == oracle(pattern).greedy(TEXT[:3], 6)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_trap_08_what_the_convolution_keeps_holds_no_padding_and_no_other_document(length):
    pattern = "rg_lru"
    engine = Engine(small(pattern), prefill_chunk=16)
    array = np.array([[22] * (8 - length) + TEXT[:length]])
    session = engine.start(array, mask=np.arange(8)[None] >= 8 - length, room=56)
    assert engine.write(session, 6, GREEDY).tokens[0] == oracle(pattern).greedy(TEXT[:length], 6)
    # A packed row whose last document is short, and then one token more.
    got, model, cache = _packed(pattern, [OTHER, TEXT[:length]], 16)
    _close(got, _alone(pattern, TEXT[:length]))
    layout = SequenceLayout(jnp.asarray([length]), jnp.asarray(1))
    logits, _ = jax.jit(lambda *arguments: model(*arguments))(jnp.asarray([7]), layout, cache)
    _close(jax.nn.log_softmax(logits[0]), _alone(pattern, [*TEXT[:length], 7]))


@pytest.mark.parametrize("pattern", ["rg_lru", "cg_lru", "local_mqa[window_size=5]", "global_mqa"])
def test_trap_09_position_0_forgets_state_convolution_and_keys_of_a_live_cache(pattern):
    # The chunk ends with the first document, so that the second begins on a live cache.
    got, *_ = _packed(pattern, [OTHER, TEXT[:4]], len(OTHER))
    _close(got, _alone(pattern, TEXT[:4]))


@pytest.mark.parametrize("short", [1, 2, 3])
def test_trap_10_packed_documents_do_not_leak_through_the_convolution_or_the_mask(short):
    for pattern in ("rg_lru", "local_mqa[window_size=5]"):
        got, *_ = _packed(pattern, [OTHER, TEXT[:5], TEXT[:short]], 32)
        _close(got, _alone(pattern, TEXT[:short]))


@pytest.mark.parametrize("pattern", ["rg_lru", "cg_lru", "global_mqa"])
def test_trap_11_packed_documents_do_not_leak_through_the_state(pattern):
    first, *_ = _packed(pattern, [OTHER, TEXT[:6]], 32)
    second, *_ = _packed(pattern, [TEXT[6:], TEXT[:6]], 32)
    _close(first, second)


@pytest.mark.parametrize("pattern", ["rg_lru", "cg_lru", "local_mqa[window_size=5]", "global_mqa"])
def test_trap_12_a_border_between_documents_leaks_nothing_at_all(pattern):
    # Not little, nothing: the same bits whatever stood before.
    first, *_ = _packed(pattern, [OTHER, TEXT[:6]], 32)
    second, *_ = _packed(pattern, [TEXT[:11], TEXT[:6]], 32)
    np.testing.assert_array_equal(first, second)


def test_trap_13_a_complex_state_that_is_handed_on_keeps_its_imaginary_part():
    _in_chunks("cg_lru", 1)
    _in_chunks("cg_lru", 7)


def test_trap_14_no_request_sees_the_one_before_and_a_beams_score_is_that_of_its_text():
    pattern = "rg_lru local_mqa[window_size=5] cg_lru"
    engine = Engine(small(pattern), prefill_chunk=16)
    engine.write(engine.start([OTHER], room=48), 6, GREEDY)
    session = engine.start([[7]], room=56)
    _close(_log_p(session)[0], _alone(pattern, [7]))
    (found,) = engine.beam_search(session, 12, beams=6, length_penalty=0)
    for text, total in zip(found.tokens, found.totals, strict=True):
        _close(total, oracle(pattern).score([7], text).sum())


def test_trap_22_what_the_convolution_keeps_are_its_inputs_and_not_its_outputs():
    engine = Engine(small("rg_lru"), prefill_chunk=16)
    session = engine.start([TEXT[:6]], room=56)
    for token in TEXT[6:]:
        session = engine.extend(session, [[token]])
    _close(_log_p(session)[0], _alone("rg_lru", TEXT))


@pytest.mark.parametrize("conv_width", [1, 2, 6])
def test_trap_23_the_convolutions_width_is_an_option_and_prompts_may_be_shorter(conv_width):
    model = small("rg_lru", conv_width=conv_width)
    scores = Oracle(model)
    engine = Engine(model, prefill_chunk=16)
    for prompt in (TEXT[:1], TEXT[:2], TEXT[:7]):
        session = engine.start([prompt], room=56)
        assert engine.write(session, 6, GREEDY).tokens[0] == scores.greedy(prompt, 6)


@pytest.mark.parametrize("seq_len", [32, 31])
def test_trap_28_a_split_scan_corrects_its_shards_in_float32_and_takes_lengths_that_do_not_divide(seq_len):
    key = jax.random.key(0)
    x = jax.random.normal(key, (seq_len, 4)).astype(jnp.bfloat16)
    a = jnp.full((seq_len, 4), 0.999, jnp.bfloat16)
    mesh = make_mesh((1, 4, 1))
    split, last = jax.jit(lambda x, a: sharded_linear_scan(x, a, mesh=mesh, spec=P("sequence", None)))(x, a)
    whole, expected = linear_scan(x, a)
    # One rounding to bfloat16 apart at most; a correction in bfloat16 would be several.
    np.testing.assert_allclose(last, expected, rtol=1e-5, atol=1e-5)
    error = np.abs(np.asarray(split - whole, np.float64))
    assert np.all(error <= 2**-7 * np.maximum(np.abs(np.asarray(whole, np.float64)), 1e-2))
