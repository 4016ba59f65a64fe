"""The built-in blocks keep the laws, with options that change how they look back."""

import subprocess
import sys
from collections.abc import Mapping
from typing import ClassVar

import pytest
from griffin_plugins.cg_lru import CGLRUBlock
from griffin_plugins.global_mqa import GlobalMQABlock
from griffin_plugins.local_mqa import LocalMQABlock
from griffin_plugins.rg_lru import RGLRUBlock

from griffin_eqx.laws import LAWS
from griffin_eqx.verify import law_tests

pytestmark = pytest.mark.core

# What further options change is how far a block looks back, and what it carries.
LOOKING_BACK = ("streaming", "packing", "padding", "bounded_cache")

test_rg_lru = law_tests(RGLRUBlock, options={"gate_blocks": 2})
test_rg_lru_without_convolution = law_tests(
    RGLRUBlock, options={"gate_blocks": 4, "conv_width": 1}, laws=LOOKING_BACK
)
test_cg_lru = law_tests(CGLRUBlock, options={"gate_blocks": 2, "conv_width": 2})
test_local_mqa = law_tests(
    LocalMQABlock, options={"window_size": 3, "head_dim": 4, "kv_heads": 2, "rope_fraction": 0.5}
)
test_local_mqa_of_one_key = law_tests(
    LocalMQABlock, options={"window_size": 1, "head_dim": 4}, laws=LOOKING_BACK
)
test_local_mqa_wider_than_the_row = law_tests(
    LocalMQABlock,
    options={"window_size": 64, "head_dim": 4, "kv_heads": 4, "rope": False},
    laws=LOOKING_BACK,
)
test_global_mqa = law_tests(GlobalMQABlock, options={"head_dim": 4})
test_global_mqa_without_rope = law_tests(
    GlobalMQABlock, options={"head_dim": 8, "kv_heads": 2, "rope": False}, laws=LOOKING_BACK
)


class Bidirectional(LocalMQABlock):
    name = "bidirectional"
    not_applicable: ClassVar[Mapping[str, str]] = {"causal": "bidirectional"}


def test_a_law_that_does_not_apply_is_skipped_with_its_reason():
    with pytest.raises(pytest.skip.Exception, match=r"^bidirectional: causal does not apply: bidirectional$"):
        law_tests(Bidirectional)("causal")


def test_there_is_one_test_for_each_law():
    (mark,) = vars(law_tests(LocalMQABlock))["pytestmark"]
    assert mark.args == ("law", list(LAWS))


def test_the_kit_without_hypothesis_says_what_to_install():
    code = "import sys; sys.modules['hypothesis'] = None; import griffin_eqx.verify"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    message = "ImportError: griffin_eqx.verify needs Hypothesis: pip install griffin_eqx[verify]"
    assert done.stderr.splitlines()[-1] == message
