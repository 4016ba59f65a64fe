"""What the tests of kernels share."""

import jaxtyping
import pytest


@pytest.fixture
def unchecked():
    """Without the type checker of the tests, which would answer first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
