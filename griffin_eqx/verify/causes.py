"""What usually stands behind a broken law, chosen by what was compared and by the smallest case.

Shrinking takes away whatever does not matter, so what is left of a case says a lot: where one chunk was left,
chunk borders have nothing to do with it; where padding was left, padding has.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from griffin_eqx.verify.comparison import Difference
from griffin_eqx.verify.strategies import Case
from griffin_eqx.verify.subject import Subject, empty_cache
from griffin_eqx.verify.verdict import Counterexample

MOST = 3
"""Causes that are named at most."""


@dataclasses.dataclass(frozen=True)
class Clues:
    """What is left of a counterexample, as yes and no.

    Attributes:
      law: The law's name.
      what: What was compared, or the message of whatever was raised.
      raised: The block raised something of its own.
      flaky: The same case gave two results.
      nan: The wrong value is NaN or infinite.
      zero: The wrong value is 0.
      chunks: More than one chunk.
      one_token: Some chunk has one token.
      padded: Some chunk has padding behind its tokens, or there is no border of chunks to blame.
      documents: More than one document.
      complex: Complex arrays, or a cache with a field `im`, `h_im` or the like.
      resets: There are resets.
      ring: The cache grows with the document, as one of keys and values does.
    """

    law: str
    what: str
    raised: bool
    flaky: bool
    nan: bool
    zero: bool
    chunks: bool
    one_token: bool
    padded: bool
    documents: bool
    complex: bool
    resets: bool
    ring: bool


def clues(found: Counterexample) -> Clues:
    """Reads a counterexample."""
    case, error = found.case, found.error
    row = case[0] if isinstance(case, tuple) else case
    is_row = isinstance(row, Case)
    chunks = row.chunks if is_row else ()
    got = complex(error.got) if isinstance(error, Difference) else 1.0
    return Clues(
        law=found.law.name,
        what=f"{error.what} {error.place}"
        if isinstance(error, Difference)
        else f"{type(error).__name__}: {error}",
        raised=not isinstance(error, AssertionError),
        flaky=found.flaky,
        nan=not abs(got) < float("inf"),
        zero=got == 0,
        chunks=len(chunks) > 1,
        one_token=any(part.tokens == 1 for part in chunks),
        # A single chunk is compared with one pass over the same tokens and more padding.
        padded=is_row and (len(chunks) < 2 or any(0 < part.tokens < part.bucket for part in chunks)),
        documents=is_row and len(row.row.documents) > 1,
        complex=bool(getattr(case, "planar", False)) or _has_imaginary_part(found.subject),
        resets=bool(getattr(case, "resets", False)),
        ring=isinstance(found.subject, Subject) and found.subject.Block.cache_growth != "constant",
    )


def _has_imaginary_part(subject: Any) -> bool:
    if not isinstance(subject, Subject):
        return False
    cache = eqx.filter_eval_shape(lambda: empty_cache(subject.fresh))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(cache)]
    return any(re.search(r"(_|\.|^)(im|imag)$", path) for path in paths)


@dataclasses.dataclass(frozen=True)
class _Cause:
    law: str  # or `_ANY`
    text: str
    fits: Callable[[Clues], Any] = lambda c: True


_ANY = ""

_CAUSES = (
    _Cause(
        _ANY,
        "a block is called as block(x, layout, cache), the last two None by default, and returns (y, cache)",
        lambda c: c.raised and ("argument" in c.what or "unpack" in c.what),
    ),
    _Cause(
        _ANY,
        "a derivative that is infinite or 0 / 0 at padding or at a border (root, log, norm, division): select its "
        "argument with jnp.where before the operation, not its result after it",
        lambda c: c.nan and "gradient" in c.what,
    ),
    _Cause(
        "streaming",
        "what a new document must not see is not reset where it begins; the law `packing` says more",
        lambda c: c.documents,
    ),
    _Cause(
        "long",
        "a tile or block of time that loses its carry, or a ring that is too short: long rows only",
    ),
    _Cause(
        "oracle",
        "h in another dtype than x, or h_last narrower than float32",
        lambda c: "inputs is" in c.what,
    ),
    _Cause("oracle", "resets are ignored, come one step late, or do not drop h0", lambda c: c.resets),
    _Cause("oracle", "the decay of another step: a[t-1] or a[t+1] where a[t] is due", lambda c: not c.resets),
    _Cause("split", "a decay or input of another step, which the border of chunks brings to light"),
    _Cause("empty", "an index into an array without elements; return (x, h0) where there are no steps"),
    _Cause(
        _ANY,
        "hidden state: a module-level variable, a counter or a cached array survives from call to call",
        lambda c: c.flaky,
    ),
    _Cause(
        "transforms",
        "Python control flow or NumPy on a traced value; use jnp.where, jax.lax.cond or a static field",
        lambda c: c.raised,
    ),
    _Cause(
        _ANY,
        "a shape that is only right for some lengths: a chunk of one token, an empty one, one shorter than "
        "the window",
        lambda c: c.raised and "argument" not in c.what,
    ),
    _Cause(
        "causal",
        "a mask or a maximum by multiplication: 0 times a large or NaN future is not 0; select with "
        "jnp.where",
        lambda c: c.nan,
    ),
    _Cause(
        "causal",
        "a convolution or window that reaches one token too far to the right",
        lambda c: not c.raised,
    ),
    _Cause(
        "causal",
        "a mean, norm or softmax over the time axis, or an attention mask with `<=` where `<` is due",
        lambda c: not c.raised,
    ),
    _Cause(
        "streaming",
        "the path with a cache differs from the path without: a window off by one in decoding, or "
        "empty slots that count as tokens",
        lambda c: "empty cache" in c.what,
    ),
    _Cause(
        "streaming",
        "half of a complex state is lost on its way through the cache: the imaginary part is dropped (a cast to a "
        "real dtype), or the two parts change places",
        lambda c: c.complex,
    ),
    _Cause(
        "streaming",
        "what a chunk hands on depends on its padding: take the state, the conv's last inputs and the "
        "ring's next slot at `length`, not at the end of the array",
        lambda c: c.padded,
    ),
    _Cause(
        "streaming",
        "the ring of keys forgets earlier chunks: it is replaced by the last one, or written at the wrong slot",
        lambda c: c.ring,
    ),
    _Cause(
        "streaming",
        "a convolution that starts from zeros in every chunk, or a history cut to the chunk's own length",
        lambda c: c.chunks and not c.ring,
    ),
    _Cause(
        "streaming",
        "positions counted from the start of the chunk (rotation, masks) and not from `layout.positions`",
        lambda c: c.chunks and c.ring,
    ),
    _Cause(
        "streaming",
        "a chunk of one token takes a path of its own (a decoding step) that differs",
        lambda c: c.one_token and c.chunks,
    ),
    _Cause(
        "streaming",
        "the cache holds something in another form than the next call reads it: before against after "
        "the convolution or rotation, or rounded to a narrower dtype",
    ),
    _Cause(
        "packing",
        "nothing resets what the cache brings in (convolution history, state, keys) when a new document "
        "begins in a later chunk",
        lambda c: c.chunks and c.documents,
    ),
    _Cause(
        "packing",
        "a border that is only softened (a strong decay, a large negative bias): select with jnp.where on "
        "`layout.reset`",
        lambda c: "change" in c.what or "gradient" in c.what,
    ),
    _Cause(
        "packing",
        "the convolution, window or attention looks further back than `positions[t]` tokens",
        lambda c: c.documents,
    ),
    _Cause(
        "packing",
        "the state is reset at the wrong token: `layout.reset` is True at the first token of a document",
        lambda c: c.documents,
    ),
    _Cause(
        "packing",
        "what is handed on depends on padding: take the state, the conv's last inputs and the ring's next "
        "slot at `length`, not at the end of the array",
        lambda c: "continuation" in c.what and not c.documents,
    ),
    _Cause(
        "packing",
        "the cache that is left belongs in part to an earlier document (a short last document)",
        lambda c: "continuation" in c.what,
    ),
    _Cause(
        "packing",
        "rotation or masks by the index in the row and not by `layout.positions`",
        lambda c: c.documents,
    ),
    _Cause(
        "padding",
        "padding is masked by multiplying with 0: huge values give infinity or NaN; select with jnp.where "
        "before anything is computed from them",
        lambda c: c.nan,
    ),
    _Cause(
        "padding",
        "the cache takes its last inputs, keys or count from the end of the array and not from `length`",
        lambda c: "probe" in c.what or "gradient" in c.what,
    ),
    _Cause(
        "padding",
        "the state goes on over padding: decay 1 and input 0 are needed there, both",
        lambda c: "probe" in c.what or "gradient" in c.what,
    ),
    _Cause("padding", "a mean or norm over time that counts padding", lambda c: not c.raised),
    _Cause(
        "independent_rows",
        "something reduces over an axis that becomes the batch, or a batching rule of a custom "
        "primitive mixes rows",
        lambda c: not c.raised,
    ),
    _Cause(
        "independent_rows",
        "a callback or a module-level list that sees all rows",
        lambda c: c.flaky or c.raised,
    ),
    _Cause(
        "bounded_cache",
        "`cache_growth` does not say what `init_cache` does, or the ring is not "
        "min(window_size, max_seq_len) long",
        lambda c: "cache_growth" in c.what,
    ),
    _Cause(
        "bounded_cache",
        "documents beyond max_seq_len are answered from a ring that has forgotten: call "
        "refuse_positions_beyond(max_seq_len, layout, y)",
        lambda c: "max_seq_len" in c.what,
    ),
    _Cause(
        "bounded_cache",
        "the bound counts all tokens fed and not those of one document",
        lambda c: c.documents,
    ),
    _Cause(
        "gradients",
        "a square root, log, norm or division at 0: its derivative is infinite; bound it, or select the "
        "argument before the operation, not after",
        lambda c: "finite" in c.what,
    ),
    _Cause(
        "gradients",
        "a custom derivative (custom_vjp, custom_jvp) that does not belong to the values: an index off by "
        "one, a cotangent left out, a missing conjugate",
        lambda c: "derivative" in c.what,
    ),
    _Cause(
        "gradients",
        "stop_gradient, or a round trip through NumPy or integers, on the way to an argument",
        lambda c: "derivative" in c.what or c.zero,
    ),
    _Cause(
        "gradients",
        "a sum or a difference of nearly equal numbers in a narrow dtype",
        lambda c: "float64" in c.what and "derivative" not in c.what,
    ),
    _Cause(
        "precision",
        "the recurrent state is kept in bfloat16, in the cache or in the scan",
        lambda c: "state" in c.what or "grows" in c.what,
    ),
    _Cause(
        "precision",
        "the decay, its gate or 1 - a**2 is computed in bfloat16: near a = 1 it has no digits left; use "
        "float32 and expm1",
        lambda c: "error" in c.what,
    ),
    _Cause(
        "precision",
        "a constant or parameter of another dtype widens the result: cast back to x.dtype",
        lambda c: "out" in c.what and "gave" in c.what,
    ),
    _Cause(
        "transforms",
        "a cache that changes its dtype, shape or weak type from call to call, so that every step "
        "compiles again",
        lambda c: "weak types" in c.what,
    ),
    _Cause(
        "transforms",
        "the same array stands in the cache twice, and a donated buffer can be given only once",
        lambda c: "donat" in c.what,
    ),
    _Cause(
        "transforms",
        "a static field that holds an array, or randomness inside of the block",
        lambda c: not c.raised,
    ),
    _Cause(
        "placement",
        "a jax.shard_map of the block's own whose gradient is not summed over the shards, or summed twice",
        lambda c: "gradients" in c.what and not c.raised,
    ),
    _Cause(
        "placement",
        "a shard that is not sent enough of its past: a halo one token short, a state or a reset that is not handed on",
        lambda c: not c.raised,
    ),
    _Cause(
        "placement",
        "an axis that is annotated as split and that the block reshapes or cuts; leave its name out, or keep it whole",
        lambda c: c.raised,
    ),
    _Cause(
        "options", "__post_init__ changes a value, or Options compares by identity", lambda c: not c.raised
    ),
    _Cause(
        "options", "__post_init__ raises something else than OptionError(field, message)", lambda c: c.raised
    ),
    _Cause(
        "oracle",
        "the imaginary part is lost where h0 is given: a real accumulation dtype is chosen for complex arrays",
        lambda c: c.complex,
    ),
    _Cause(
        "oracle",
        "the last state is taken at the wrong step, from the rounded h, or from a padded tile",
        lambda c: True,
    ),
    _Cause("oracle", "a tail is skipped: lengths that are no multiple of the tile", lambda c: not c.resets),
    _Cause(
        "adjoint",
        "dx runs with a[t] where a[t+1] is due, or da takes h[t] where h[t-1] is due",
        lambda c: "h0" not in c.what,
    ),
    _Cause("adjoint", "the cotangent of h_last is left out", lambda c: "h_last alone" in c.what),
    _Cause("adjoint", "h0 gets no gradient, or one that misses the first decay", lambda c: "of h0" in c.what),
    _Cause(
        "adjoint",
        "a missing conjugate: complex cotangents flow back through conj(a) and conj(h)",
        lambda c: c.complex,
    ),
    _Cause(
        "adjoint",
        "resets are not taken into the backward pass, or stand one step late there",
        lambda c: c.resets,
    ),
    _Cause(
        "split",
        "h0 is added to the first state without its decay, or h_last is not in float32",
        lambda c: True,
    ),
    _Cause(
        "linear",
        "something in the scan is not linear in x and h0: a clip, a norm, an epsilon",
        lambda c: True,
    ),
    _Cause(
        "reverse",
        "the reversed path starts at the wrong end, or its resets act on the wrong side",
        lambda c: True,
    ),
    _Cause(
        "resets", "a border by multiplication: 0 times NaN is NaN; select with jnp.where", lambda c: c.nan
    ),
    _Cause("resets", "the decay of the step itself, or h0, still enters behind a reset", lambda c: True),
    _Cause(
        "independent", "channels or rows are mixed, or a mask by multiplication spreads a NaN", lambda c: True
    ),
    _Cause(
        "extremes",
        "decays are taken through a logarithm or a cumulative product: a = 0 gives -inf or 0 / 0",
        lambda c: True,
    ),
    _Cause(
        "long",
        "the state is rounded to bfloat16 at each step, or a cumulative product underflows",
        lambda c: True,
    ),
    _Cause("defaults", "h0=None or reset=None is not the same as zeros", lambda c: True),
    _Cause("vmap", "a custom batching rule that folds the batch into the wrong axis", lambda c: True),
)


def likely_causes(found: Counterexample) -> list[str]:
    """The likeliest mistakes, most telling first."""
    seen = clues(found)
    return [cause.text for cause in _CAUSES if cause.law in (_ANY, seen.law) and cause.fits(seen)][:MOST]
