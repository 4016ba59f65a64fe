"""Every TPU kernel, compiled by the real compiler for four generations, keeps to its budget."""

import pytest

from .budgets import (
    BUNDLE_TARGETS,
    BUNDLES,
    CONTEXT_WORDS,
    TEMPORARY_WORDS,
    WORDS_TOLERANCE,
)
from .conftest import session_jobs

pytestmark = pytest.mark.xdist_group("aot")


@pytest.mark.parametrize("job", session_jobs(), ids=lambda job: job.name.replace(" ", "-"))
def test_the_compiled_kernel_keeps_to_its_budget(results, job):
    result = results[job]
    assert result.error is None, result.error
    complaints = list(_complaints(result) if job.case != "context" else _complaints_in_context(result))
    assert not complaints, "\n".join(complaints)


def _complaints(result):
    job, reading = result.job, result.reading
    if reading.relayouts:
        yield f"big arrays are copied or laid out anew: {', '.join(reading.relayouts)}"
    if result.temporary_words > TEMPORARY_WORDS:
        yield f"{reading.temporary_bytes:,} bytes of temporaries"
    if not reading.kernels:
        yield "no Pallas kernel in it"
    size = job.elements * job.word_bytes
    for kernel in reading.kernels:
        moved, declared = ((n or 0) / size for n in (kernel.moved_bytes, kernel.declared_bytes))
        if abs(declared - moved) > WORDS_TOLERANCE * moved:
            yield f"{kernel.name} declares {declared:.3f} words an element and its blocks move {moved:.3f}"
    if abs(result.ratio - 1) > WORDS_TOLERANCE:
        yield f"{result.words:.3f} words an element where {job.limit_words} is the limit"
    budget = BUNDLES.get((job.case, job.direction))
    if budget and job.target in BUNDLE_TARGETS and (result.inner_bundles or 10**9) > budget:
        yield f"{result.inner_bundles} bundles a turn of the innermost loop; the budget is {budget}"


def _complaints_in_context(result):
    if result.words > CONTEXT_WORDS:
        yield f"{result.words:.2f} words an element, relayouts {', '.join(result.reading.relayouts) or 'none'}"
