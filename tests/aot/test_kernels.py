"""Every TPU kernel, compiled by the real compiler for four generations, keeps to its budget."""

import pytest

from .budgets import (
    BUNDLE_TARGETS,
    BUNDLES,
    CONTEXT_WORDS,
    MEGACYCLES,
    TEMPORARY_WORDS,
    WEIGHTS_MB,
    WORDS,
    WORDS_TOLERANCE,
    budget,
)
from .conftest import ragged_jobs, session_jobs

pytestmark = pytest.mark.xdist_group("aot")


@pytest.mark.parametrize("job", session_jobs(), ids=lambda job: job.name.replace(" ", "-"))
def test_the_compiled_kernel_keeps_to_its_budget(results, job):
    result = results[job]
    assert result.error is None, result.error
    complaints = list(
        _complaints(result) if not job.case.startswith("context") else _complaints_in_context(result)
    )
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("job", ragged_jobs(), ids=lambda job: job.name.replace(" ", "-"))
def test_copies_do_not_go_unnoticed(results, job):
    """The counter-test: filling up a length costs copies, and temporaries, and these readings show them."""
    result = results[job]
    assert result.error is None, result.error
    assert len(list(_complaints(result))) >= 3, result.reading
    assert result.reading.relayouts
    assert result.words > 2 * job.limit_words


def _complaints(result):
    job, reading = result.job, result.reading
    if reading.relayouts:
        yield f"big arrays are copied or laid out anew: {', '.join(reading.relayouts)}"
    size = job.elements * job.word_bytes
    weights = (budget(WEIGHTS_MB, job) or {}).get(job.target, 0) * 1e6 / size
    if result.temporary_words > TEMPORARY_WORDS + weights:
        yield f"{reading.temporary_bytes:,} bytes of temporaries"
    if not reading.kernels:
        yield "no Pallas kernel in it"
    for kernel in reading.kernels:
        moved, declared = ((n or 0) / size for n in (kernel.moved_bytes, kernel.declared_bytes))
        if abs(declared - moved) > WORDS_TOLERANCE * moved:
            yield f"{kernel.name} declares {declared:.3f} words an element and its blocks move {moved:.3f}"
    most = (budget(WORDS, job) or job.limit_words * (1 + WORDS_TOLERANCE)) + weights
    if not job.limit_words <= result.words <= most:
        yield f"{result.words:.3f} words an element; the limit is {job.limit_words} and the budget {most:.2f}"
    bundles, most_bundles = result.inner_bundles, budget(BUNDLES, job)
    if job.target in BUNDLE_TARGETS and (bundles is None or most_bundles is None or bundles > most_bundles):
        yield f"{bundles} bundles a turn of the innermost loop; the budget is {most_bundles}"
    megacycles = (budget(MEGACYCLES, job) or {}).get(job.target)
    issued = sum(kernel.cycles or 0 for kernel in reading.kernels) / 1e6
    if megacycles is not None and issued > megacycles:
        yield f"{issued:.2f} million bundles in all; the budget is {megacycles}"


def _complaints_in_context(result):
    if result.words > CONTEXT_WORDS[result.job.case]:
        yield f"{result.words:.2f} words an element, relayouts {', '.join(result.reading.relayouts) or 'none'}"
