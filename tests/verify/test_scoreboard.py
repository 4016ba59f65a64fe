"""What the kit says about a block or a scan: verdicts, the smallest counterexample, a test that fails."""

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import pytest
from griffin_kernels.linear_scan import linear_scan
from griffin_plugins.global_mqa import GlobalMQABlock
from griffin_plugins.local_mqa import LocalMQABlock
from griffin_plugins.rg_lru import RGLRUBlock

import griffin_eqx as gx
from griffin_eqx.verify import (
    BLOCK_LAWS,
    SCAN_LAWS,
    Counterexample,
    Difference,
    check_block_case,
    verify_block,
    verify_scan,
)
from griffin_eqx.verify.kinds import kinds_of, small_options
from griffin_eqx.verify.regression import regression_test
from griffin_eqx.verify.report import as_dict, seq_len
from griffin_eqx.verify.subject import Subject

pytestmark = pytest.mark.core


class LeakyBlock(RGLRUBlock):
    """Takes every row for one document, so that nothing is reset."""

    name = "leaky"

    def __call__(self, x, layout=None, cache=None):
        layout = gx.resolve_layout(x.shape[0], layout, cache)
        seen = layout.positions[0] + jnp.arange(x.shape[0], dtype=jnp.int32)
        return super().__call__(x, gx.SequenceLayout(seen, layout.length), cache)


class ForgetfulBlock(RGLRUBlock):
    """Gives another answer at every call."""

    name = "forgetful"
    calls: ClassVar[itertools.count] = itertools.count(1)

    def __call__(self, x, layout=None, cache=None):
        y, cache = super().__call__(x, layout, cache)
        times = jax.pure_callback(
            lambda: jnp.float32(next(self.calls)), jax.ShapeDtypeStruct((), jnp.float32)
        )
        return y * jnp.asarray(times, y.dtype), cache


class ClumsyBlock(RGLRUBlock):
    """Cannot take a chunk of one token."""

    name = "clumsy"

    def __call__(self, x, layout=None, cache=None):
        if x.shape[0] == 1 and cache is not None:
            raise IndexError("no second token")
        return super().__call__(x, layout, cache)


class ForwardAndBackBlock(RGLRUBlock):
    name = "forward_and_back"
    not_applicable: ClassVar[Mapping[str, str]] = {"causal": "bidirectional"}


def counterexample(verdict) -> Any:
    assert verdict.counterexample is not None
    return verdict.counterexample


@pytest.fixture(scope="module")
def leaky():
    return verify_block(LeakyBlock, options={"gate_blocks": 2}, laws=["causal", "packing"])


def test_a_broken_law_comes_with_a_small_counterexample(leaky):
    causal, packing = leaky.verdicts
    assert (causal.status, packing.status, leaky.ok) == ("holds", "broken", False)
    found = counterexample(packing)
    assert isinstance(found.error, Difference)
    assert seq_len(found.case) == 2
    assert found.case.row.documents == (1, 1)


def test_the_report_names_tokens_values_and_causes(leaky):
    text = str(leaky)
    assert "2 tokens, documents of 1 and 1" in text
    assert "token      0  1" in text
    assert "document   A  B" in text
    assert "wrong      ·  ✗" in text
    assert "most at token 1, channel " in text
    assert "got " in text
    assert "expected " in text
    assert "the state is reset at the wrong token" in text
    assert "1 of 2 laws hold" in text
    row = as_dict(leaky)["laws"][1]
    assert row["counterexample"]["seq_len"] == 2
    assert row["counterexample"]["likely_causes"]


def test_the_pasted_test_fails_until_the_block_is_mended(leaky, monkeypatch):
    source = as_dict(leaky)["laws"][1]["counterexample"]["test"]
    assert f"from {__name__} import LeakyBlock" in source
    # The module that pytest made of this file has a name that only pytest can import.
    space: dict = {"LeakyBlock": LeakyBlock}
    exec(
        "\n".join(line for line in source.splitlines() if "LeakyBlock" not in line or "import" not in line),
        space,
    )
    with pytest.raises(AssertionError, match="outputs of document 1 in the row against alone"):
        space["test_leaky_keeps_the_law_packing"]()
    space["LeakyBlock"] = RGLRUBlock
    space["test_leaky_keeps_the_law_packing"]()


def test_a_seed_gives_the_same_verdict_and_counterexample_again(leaky):
    again = verify_block(LeakyBlock, options={"gate_blocks": 2}, laws=["packing"])
    assert counterexample(again.verdicts[0]).case == counterexample(leaky.verdicts[1]).case
    assert again.verdicts[0].cases == leaky.verdicts[1].cases


def test_hidden_state_is_called_so():
    board = verify_block(ForgetfulBlock, options={"gate_blocks": 2}, laws=["streaming"], max_examples=5)
    assert counterexample(board.verdicts[0]).flaky
    assert "likely causes:\n  hidden state: " in str(board)


def test_an_exception_breaks_a_law_and_says_where_it_came_from():
    board = verify_block(ClumsyBlock, options={"gate_blocks": 2}, laws=["streaming"])
    text = str(board)
    assert "IndexError: no second token" in text
    assert f"raised at {__file__}" in text


def test_a_law_that_does_not_apply_stands_on_the_board_with_its_reason():
    board = verify_block(ForwardAndBackBlock, laws=["causal", "options"])
    assert board.ok
    assert board.verdicts[0].status == "not applicable"
    assert "causal            does not apply: bidirectional" in str(board)
    assert "1 of 1 law hold, 1 not applicable" in str(board)


def test_options_that_no_row_would_reach_are_made_small():
    assert small_options(LocalMQABlock) == {"window_size": 4, "head_dim": 4}
    assert small_options(GlobalMQABlock) == {"head_dim": 4}
    assert small_options(RGLRUBlock) == {}
    board = verify_block(LocalMQABlock, laws=["options"], options={"window_size": 7})
    assert board.kinds == ("window_size=7, head_dim=4", "window_size=7")


def test_options_that_fit_only_as_they_are_stay_so():
    class Fussy(LocalMQABlock):
        name = "fussy"

        @classmethod
        def init(cls, options, dims, *, key):
            if options.head_dim % 8:
                raise gx.OptionError("head_dim", "must be a multiple of 8")
            return super().init(options, dims, key=key)

    assert [kind.words for kind in kinds_of(Fussy)] == ["default options"]
    with pytest.raises(gx.OptionError, match=r"^head_dim: must be a multiple of 8"):
        kinds_of(Fussy, {"head_dim": 12})


def test_each_verdict_is_told_when_it_is_known():
    told = []
    # Options of its own: programs that other tests have compiled would not be compiled again.
    options = {"gate_blocks": 8, "conv_width": 3}
    laws = ["options", "bounded_cache"]
    board = verify_block(RGLRUBlock, options=options, laws=laws, tell=told.append, max_examples=2)
    assert tuple(told) == board.verdicts
    assert all(0 <= verdict.compile_seconds <= verdict.seconds for verdict in told)
    assert told[1].programs > 0


def test_a_case_can_be_tried_alone():
    check_block_case(RGLRUBlock, "options", {"conv_width": 2})


def test_a_scan_is_held_to_what_it_is_for():
    def only_sums(x, a, h0):
        return linear_scan(x, a, h0)

    board = verify_scan(only_sums, dtypes=("float32",), max_examples=3)
    by_name = {verdict.law.name: verdict for verdict in board.verdicts}
    assert board.ok
    assert list(by_name) == list(SCAN_LAWS)
    assert {name: v.reason for name, v in by_name.items() if v.status == "not applicable"} == {
        "resets": "the function takes no resets",
        "reverse": "reverse was not asked for",
        "defaults": "h0 has no default",
    }
    with pytest.raises(TypeError, match="A scan is called as scan"):
        verify_scan(lambda x: x)
    with pytest.raises(TypeError, match="reverse"):
        verify_scan(only_sums, reverse=True)


def test_a_scan_of_bfloat16_alone_is_not_held_to_exact_sums():
    board = verify_scan(linear_scan, dtypes=("bfloat16",), laws=["linear", "split"], max_examples=3)
    assert [verdict.status for verdict in board.verdicts] == ["not applicable", "holds"]


def test_the_pasted_test_finds_its_block_among_several_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(gx.registry.default, "_added", {})
    file = tmp_path / "two.py"
    body = "class {0}(RGLRUBlock):\n    name = '{1}'\n    aliases = ()\n"
    source = "from griffin_plugins.rg_lru import RGLRUBlock\n"
    file.write_text(source + body.format("First", "first") + body.format("Second", "second"))
    second = gx.registry.add_file(file)[1]
    found = Counterexample(BLOCK_LAWS["options"], Subject(second, second.Options()), {}, AssertionError())
    space: dict = {}
    exec(regression_test(found), space)
    assert space["Second"].name == "second"
    space["test_second_keeps_the_law_options"]()


def test_a_scan_of_another_form_is_told_so_at_once():
    def of_one_row(x, a, h0, reset=None):
        return x, h0[0]

    message = r"answered with \(h, h_last\) of shapes \(2, 8, 3\) and \(3,\).\n.*expected are \(2, 8, 3\) and \(2, 3\)"
    with pytest.raises(TypeError, match=message):
        verify_scan(of_one_row)


def test_an_exception_that_breaks_several_laws_is_told_once():
    class Uncallable(RGLRUBlock):
        name = "uncallable"

        def __call__(self, x):  # pyright: ignore[reportIncompatibleMethodOverride]: what is tested
            return x

    board = verify_block(Uncallable, options={"gate_blocks": 2}, laws=["causal", "streaming"])
    text = str(board)
    assert text.count("a block is called as block(x, layout, cache)") == 1
    assert "the same as for causal: TypeError" in text


def test_a_block_that_cannot_be_built_says_where():
    class Unfinished(RGLRUBlock):
        name = "unfinished"

        @classmethod
        def init(cls, options, dims, *, key):
            raise RuntimeError("not yet")

    with pytest.raises(
        gx.GriffinError, match=r"^Unfinished.init raised RuntimeError: not yet\nat .*test_scoreboard"
    ):
        verify_block(Unfinished)


def test_float32_where_float64_is_judged_is_named():
    class Narrow(RGLRUBlock):
        name = "narrow"

        def __call__(self, x, layout=None, cache=None):
            y, cache = super().__call__(x, layout, cache)
            return y.astype(jnp.float32).astype(x.dtype), cache

    board = verify_block(Narrow, options={"gate_blocks": 2}, laws=["gradients"])
    assert "write promote_types(x.dtype, float32) where it says float32" in str(board)


def test_a_wrong_scan_is_caught_on_a_short_sequence():
    def off_by_one(x, a, h0=None, reset=None):
        return linear_scan(x, jnp.roll(a, 1, axis=-2), h0, reset)

    board = verify_scan(off_by_one, laws=["oracle"])
    found = counterexample(board.verdicts[0])
    assert found.case.seq_len == 2
    assert "step" in str(board)
