"""A score-board and its counterexamples for people: in words, as a picture, and as a test to paste."""

from collections.abc import Iterable, Iterator
from typing import Any

from griffin_eqx.mesh import MeshShape
from griffin_eqx.verify.causes import likely_causes
from griffin_eqx.verify.comparison import Difference, number, raised_at
from griffin_eqx.verify.regression import regression_test
from griffin_eqx.verify.scan_subject import ScanCase
from griffin_eqx.verify.strategies import Case, MeshCase
from griffin_eqx.verify.verdict import Counterexample, ScoreBoard, Verdict

SIGNS = {"holds": "✓", "broken": "✗", "not applicable": "-"}


def seq_len(case: Any) -> int | None:
    """The number of tokens of a case; of the longest row where there are several; None without tokens."""
    if isinstance(case, tuple):
        return max(row.row.tokens for row in case)
    if isinstance(case, Case):
        return case.row.tokens
    return case.seq_len if isinstance(case, ScanCase) else None


def in_words(case: Any) -> str:
    """A case as a sentence: lengths, borders, splits, padding, seed."""
    if isinstance(case, tuple):
        rows = "; ".join(f"row {i}: {_row_in_words(one)}" for i, one in enumerate(case))
        return f"three rows, seed {case[0].seed}. {rows}"
    if isinstance(case, Case):
        return f"{_row_in_words(case)}, seed {case.seed}"
    if isinstance(case, ScanCase):
        kind = f"{'complex' if case.planar else 'real'}, {case.dtype}, {'backward' if case.reverse else 'forward'}"
        resets = "resets at random" if case.resets else "no resets"
        return f"{_count(case.seq_len, 'step')}, step {case.pick} picked, {kind}, {resets}, seed {case.seed}"
    if isinstance(case, MeshCase):
        rows = "rows that go on from a cache, on uneven shards" if case.carried else "rows that start anew"
        return f"the mesh {MeshShape(*case.mesh)}, {rows}, seed {case.seed}"
    if isinstance(case, dict):
        return f"options {', '.join(f'{name}={value!r}' for name, value in case.items()) or 'none'}"
    return f"seed {case}"


def _row_in_words(case: Case) -> str:
    parts = [_count(case.row.tokens, "token")]
    if len(case.row.documents) > 1:
        parts.append(f"documents of {_list(case.row.documents)}")
    if case.row.start:
        parts.append(f"the first at position {case.row.start}")
    if case.chunks:
        fed = [
            str(part.tokens) if part.tokens == part.bucket else f"{part.tokens} (padded to {part.bucket})"
            for part in case.chunks
        ]
        parts.append(f"fed in chunks of {_list(fed)}")
    if case.padding:
        parts.append(f"padding of scale {case.padding:g}")
    return ", ".join(parts)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _list(items: Iterable[Any]) -> str:
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last


def picture(case: Any, error: BaseException) -> list[str]:
    """Tokens, documents, chunks and wrong values under one another; empty where there is nothing to draw."""
    if not isinstance(case, Case) or not case.row.tokens:
        return []
    tokens = range(case.row.tokens)
    lines = {"token": [str(t) for t in tokens]}
    if len(case.row.documents) > 1:
        lines["document"] = [chr(ord("A") + d) for d, n in enumerate(case.row.documents) for _ in range(n)]
    if len(case.row.documents) > 1 or case.row.start:
        lines["position"] = [str(p) for p in case.row.positions]
    if len(case.chunks) > 1:
        lines["chunk"] = [str(c) for c, part in enumerate(case.chunks) for _ in range(part.tokens)]
    if isinstance(error, Difference) and error.tokens:
        lines["wrong"] = ["✗" if t in error.tokens else "·" for t in tokens]
    if len(lines) == 1:
        return []
    return [f"{name:<9}{''.join(f'{cell:>3}' for cell in cells)}" for name, cells in lines.items()]


def difference(error: BaseException) -> list[str]:
    """What was compared, where, what came out and what should have."""
    if isinstance(error, Difference):
        return [
            f"{error.what}: {error.wrong} of {error.size} values differ, most at {error.place}",
            f"got {number(error.got)}, expected {number(error.expected)}, allowed difference {error.allowed:.3g}",
        ]
    if isinstance(error, AssertionError):
        return [str(error)]
    where = raised_at(error)
    return [f"{type(error).__name__}: {error}".strip(), *([f"raised at {where}"] if where else [])]


def explanation(found: Counterexample) -> Iterator[tuple[str, list[str]]]:
    """Titles and lines of all there is to say about a counterexample."""
    yield "law", [found.law.statement]
    smallest = [in_words(found.case)]
    if changed := getattr(found.subject, "changed", None):
        smallest.append("options " + ", ".join(f"{name}={value}" for name, value in changed.items()))
    yield "smallest counterexample", smallest + picture(found.case, found.error)
    yield "found", difference(found.error)
    if causes := likely_causes(found):
        yield "likely causes", causes
    yield "a test that fails until it is mended", regression_test(found).rstrip().splitlines()


def explanations(board: ScoreBoard) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """Each broken law and what there is to say about it; an exception that breaks several is told once."""
    told: dict[str, str] = {}
    for verdict in board.broken:
        assert verdict.counterexample
        error = verdict.counterexample.error
        same = "\n".join(difference(error))
        if same in told and not isinstance(error, AssertionError):
            yield verdict.law.name, [("found", [f"the same as for {told[same]}: {type(error).__name__}"])]
            continue
        told.setdefault(same, verdict.law.name)
        yield verdict.law.name, list(explanation(verdict.counterexample))


def as_text(board: ScoreBoard) -> str:
    """The whole score-board as plain text."""
    lines = [f"{board.subject}: {'; '.join(board.kinds)}; seed {board.seed}"]
    lines += [_line(verdict) for verdict in board.verdicts]
    for name, text in explanations(board):
        lines.append(f"\n{name} is broken")
        for title, told in text:
            lines.append(f"{title}:")
            lines += [f"  {line}" for line in told]
    return "\n".join([*lines, "", summary(board)])


def _line(verdict: Verdict) -> str:
    return f"  {SIGNS[verdict.status]} {verdict.law.name:<17} {note(verdict)}"


def note(verdict: Verdict) -> str:
    """What stands behind a law's name on the board."""
    if verdict.status == "not applicable":
        return f"does not apply: {verdict.reason}"
    cases = f"{verdict.cases:>4} cases {verdict.seconds:5.1f} s, {verdict.compile_seconds:4.1f} s compiling"
    if verdict.counterexample is None:
        return cases
    length = seq_len(verdict.counterexample.case)
    return f"{cases}; broken" + ("" if length is None else f" with {_count(length, 'token')}")


def summary(board: ScoreBoard) -> str:
    """How many laws hold, and where the time went."""
    tried = [verdict for verdict in board.verdicts if verdict.status != "not applicable"]
    holding = sum(verdict.status == "holds" for verdict in tried)
    compiling = sum(verdict.compile_seconds for verdict in tried)
    programs = sum(verdict.programs for verdict in tried)
    apart = len(board.verdicts) - len(tried)
    return (
        f"{holding} of {_count(len(tried), 'law')} hold"
        + (f", {apart} not applicable" if apart else "")
        + f". {board.seconds:.1f} s, of which {compiling:.1f} s went into compiling {programs} programs"
    )


def as_dict(board: ScoreBoard) -> dict[str, Any]:
    """The score-board as numbers and strings, for JSON."""
    return {
        "subject": board.subject,
        "ok": board.ok,
        "kinds": list(board.kinds),
        "seed": board.seed,
        "seconds": board.seconds,
        "laws": [_verdict_as_dict(verdict) for verdict in board.verdicts],
    }


def _verdict_as_dict(verdict: Verdict) -> dict[str, Any]:
    found = verdict.counterexample
    row = {
        "law": verdict.law.name,
        "status": verdict.status,
        "reason": verdict.reason,
        "statement": verdict.law.statement,
        "tolerance": verdict.law.tolerance,
        "cases": verdict.cases,
        "seconds": verdict.seconds,
        "compile_seconds": verdict.compile_seconds,
        "programs": verdict.programs,
        "counterexample": None,
    }
    if found:
        row["counterexample"] = {
            "case": repr(found.case),
            "words": in_words(found.case),
            "seq_len": seq_len(found.case),
            "found": "\n".join(difference(found.error)),
            "likely_causes": likely_causes(found),
            "test": regression_test(found),
        }
    return row
