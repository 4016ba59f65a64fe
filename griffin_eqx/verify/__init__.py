"""The verification kit: laws of blocks and scans as property tests. Needs Hypothesis, the extra `verify`.

from griffin_eqx.verify import law_tests
test_my_block = law_tests(MyBlock)
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "hypothesis":
        raise
    raise ImportError("griffin_eqx.verify needs Hypothesis: pip install griffin_eqx[verify]") from _error

from griffin_eqx.verify.block_laws import BLOCK_LAWS, check_block, law_tests
from griffin_eqx.verify.comparison import assert_close, assert_finite, tolerance
from griffin_eqx.verify.law import Law
from griffin_eqx.verify.scan_laws import SCAN_LAWS, scan_law_tests

__all__ = [
    "BLOCK_LAWS",
    "SCAN_LAWS",
    "Law",
    "assert_close",
    "assert_finite",
    "check_block",
    "law_tests",
    "scan_law_tests",
    "tolerance",
]
