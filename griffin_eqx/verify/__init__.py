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

from griffin_eqx.verify.block_laws import (
    BLOCK_LAWS as BLOCK_LAWS,
)
from griffin_eqx.verify.block_laws import (
    check_block as check_block,
)
from griffin_eqx.verify.block_laws import (
    law_tests as law_tests,
)
from griffin_eqx.verify.comparison import (
    assert_close as assert_close,
)
from griffin_eqx.verify.comparison import (
    assert_finite as assert_finite,
)
from griffin_eqx.verify.comparison import (
    tolerance as tolerance,
)
from griffin_eqx.verify.law import Law as Law
from griffin_eqx.verify.scan_laws import SCAN_LAWS as SCAN_LAWS
from griffin_eqx.verify.scan_laws import scan_law_tests as scan_law_tests
