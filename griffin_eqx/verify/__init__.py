"""The verification kit: laws of blocks and scans as property tests. Needs Hypothesis, the extra `verify`.

from griffin_eqx.verify import law_tests, verify_block
test_my_block = law_tests(MyBlock)  # one test a law
print(verify_block(MyBlock))        # the score-board, with the smallest counterexample of a broken law
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "hypothesis":
        raise
    raise ImportError("griffin_eqx.verify needs Hypothesis: pip install griffin_eqx[verify]") from _error

from griffin_eqx.verify.block_laws import BLOCK_LAWS, check_block, law_tests, verify_block
from griffin_eqx.verify.comparison import Difference, assert_close, assert_finite, tolerance
from griffin_eqx.verify.law import Law
from griffin_eqx.verify.regression import check_block_case, check_scan_case
from griffin_eqx.verify.scan_laws import SCAN_LAWS, scan_law_tests, verify_scan
from griffin_eqx.verify.scan_subject import ScanCase
from griffin_eqx.verify.strategies import Case, Chunk, MeshCase, Row
from griffin_eqx.verify.verdict import Counterexample, ScoreBoard, Verdict

__all__ = [
    "BLOCK_LAWS",
    "SCAN_LAWS",
    "Case",
    "Chunk",
    "Counterexample",
    "Difference",
    "Law",
    "MeshCase",
    "Row",
    "ScanCase",
    "ScoreBoard",
    "Verdict",
    "assert_close",
    "assert_finite",
    "check_block",
    "check_block_case",
    "check_scan_case",
    "law_tests",
    "scan_law_tests",
    "tolerance",
    "verify_block",
    "verify_scan",
]
