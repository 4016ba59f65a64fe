import copy
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin_eqx._runs import segments
from griffin_eqx.pattern import (
    MAX_DEPTH,
    MAX_TEXT,
    LayerSpec,
    Pattern,
    PatternError,
    fold_name,
    nearest,
)

pytestmark = pytest.mark.core

# Patterns as trees: (name, options) or a list of subtrees, with a suffix sign and a count.

words = st.sampled_from(["gated", "none", "f32", "a.b-c_d"])
values = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, 512]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    words,
)
options = st.dictionaries(st.sampled_from(["window_size", "mlp", "k2"]), values, max_size=2)
blocks = st.tuples(st.sampled_from(["rg_lru", "local_mqa", "r", "l"]), options)
suffixes = st.sampled_from([None, ("*", 1), ("*", 2), ("*", 3), ("@", 1), ("@", 5), ("@", 8)])
trees = st.recursive(
    st.tuples(blocks, suffixes),
    lambda inner: st.tuples(st.lists(inner, min_size=1, max_size=3), suffixes),
    max_leaves=6,
)
few_symbols = st.lists(st.integers(0, 2), min_size=1, max_size=14)


def expanded(tree) -> list[LayerSpec]:
    part, suffix = tree
    if isinstance(part, tuple):
        name, options = part
        layers = [LayerSpec(name, tuple(options.items()))]
    else:
        layers = [layer for child in part for layer in expanded(child)]
    if suffix is None:
        return layers
    sign, n = suffix
    return layers * n if sign == "*" else (layers * n)[:n]


def written(tree, draw) -> str:
    """The tree as text, with every freedom that the grammar leaves taken at random."""

    def space() -> str:
        return draw(st.sampled_from(["", "", " ", "\n\t"]))

    def cased(name: str) -> str:
        return draw(st.sampled_from([name, name.upper(), name.replace("_", "-")]))

    def value(v) -> str:
        return draw(st.sampled_from([str(v), str(v).upper()])) if isinstance(v, bool) else str(v)

    part, suffix = tree
    if isinstance(part, tuple):
        name, options = part
        text = cased(name)
        if options:
            pairs = draw(st.permutations(list(options.items())))
            inside = ",".join(f"{space()}{cased(k)}{space()}={space()}{value(v)}{space()}" for k, v in pairs)
            text += f"{space()}[{inside}]"
    else:
        items = [written(child, draw) for child in part]
        separators = [draw(st.sampled_from([" ", ",", " , ", "\r\n"])) for _ in items[1:]] + [""]
        text = f"({space()}{''.join(i + s for i, s in zip(items, separators, strict=True))}{space()})"
    if suffix:
        text += f"{space()}{suffix[0]}{space()}{suffix[1]}"
    return text


def from_symbols(symbols) -> Pattern:
    return Pattern.parse(" ".join("abcd"[s] for s in symbols))


@given(trees, st.data())
def test_a_pattern_means_the_layers_of_its_tree(tree, data):
    assert list(Pattern.parse(written(tree, data.draw)).layers) == expanded(tree)


@given(trees, st.data())
def test_a_pattern_survives_printing_and_parsing(tree, data):
    pattern = Pattern.parse(written(tree, data.draw))
    printed = Pattern.parse(str(pattern))
    assert printed == pattern
    assert hash(printed) == hash(pattern)
    assert str(printed) == str(pattern)
    assert repr(pattern) == f"Pattern.parse({str(pattern)!r})"


@given(trees, trees)
def test_patterns_are_equal_and_print_alike_exactly_when_their_layers_are_equal(one, other):
    one, other = (Pattern.parse(" ".join(map(str, expanded(tree)))) for tree in (one, other))
    same = list(map(str, one.layers)) == list(map(str, other.layers))
    assert (one == other) == same
    assert (str(one) == str(other)) == same


@given(few_symbols, st.integers(1, 40))
def test_printing_depends_on_the_layers_alone(symbols, depth):
    cycled = Pattern.parse(f"({from_symbols(symbols)})@{depth}")
    plain = Pattern.parse(" ".join(map(str, cycled.layers)))
    assert str(cycled) == str(plain)
    assert cycled.runs == plain.runs


@given(trees, st.data())
def test_spans_point_at_names_and_options(tree, data):
    pattern = Pattern.parse(written(tree, data.draw))
    for layer in pattern.layers:
        assert fold_name(pattern.text[slice(*layer.span)]) == layer.name
        assert set(layer.option_spans) == {key for key, _ in layer.options}
        for key, span in layer.option_spans.items():
            again = Pattern.parse(f"a[{pattern.text[slice(*span)]}]").layers[0]
            assert again == LayerSpec("a", ((key, dict(layer.options)[key]),))


def brute_force_cut(symbols, count_cost: int, cut_cycles: bool):
    """Every way to cut, by its total cost, its number of segments, and its ends; the least of all."""

    def ways(start: int):
        yield start + 1, 0, 2  # end, period, cost; longer written-out segments follow below
        for end in range(start + 2, len(symbols) + 1):
            yield end, 0, 2 * (end - start)
            for period in range(1, (end - start) // 2 + 1):
                repeats = all(symbols[i] == symbols[i - period] for i in range(start + period, end))
                if repeats and (cut_cycles or (end - start) % period == 0):
                    yield end, period, 2 * period + count_cost

    @cache
    def best(start: int):
        if start == len(symbols):
            return 0, 0, ()
        plans = []
        for end, period, cost in ways(start):
            rest_cost, rest_count, rest = best(end)
            plans.append((cost + rest_cost, 1 + rest_count, ((-end, period), *rest)))
        return min(plans)

    return best(0)


@given(few_symbols, st.sampled_from([(0, False), (1, True), (2, True)]))
def test_cuts_are_the_best_of_all_cuts(symbols, costs):
    count_cost, cut_cycles = costs
    found = segments(symbols, count_cost=count_cost, cut_cycles=cut_cycles)
    _, _, expected = brute_force_cut(symbols, count_cost, cut_cycles)
    assert [(-s.end, s.period) for s in found] == list(expected)


def every_run_sum(layers) -> int:
    """The fewest layers in units, by trying all cuts into runs outright."""
    n = len(layers)
    if n == 0:
        return 0
    return min(
        unit + every_run_sum(layers[unit * repeats :])
        for unit in range(1, n + 1)
        for repeats in range(1, n // unit + 1)
        if layers[: unit * repeats] == layers[:unit] * repeats
    )


@given(st.lists(st.integers(0, 2), min_size=1, max_size=9))
def test_runs_concatenate_to_the_layers_and_trace_the_fewest(symbols):
    pattern = from_symbols(symbols)
    assert sum((run.unit * run.repeats for run in pattern.runs), ()) == pattern.layers
    assert sum(len(run.unit) for run in pattern.runs) == every_run_sum(tuple(symbols))


odd_characters = st.sampled_from(" \n\0\ud800\u0663\xb2")
tokens = st.sampled_from(
    [
        "rg_lru",
        "L",
        "a-b",
        "0",
        "2",
        "12",
        "99999999999",
        "1e-3",
        "1e999",
        "true",
        "nan",
        "[k=1]",
        "*3",
        "@7",
        "(",
        ")",
        "[",
        "]",
        "=",
        ",",
        "*",
        "@",
        "((",
        "-",
        ".",
    ]
)


def check_error(error: PatternError, text: str) -> None:
    assert 0 <= error.start <= error.end <= len(text)
    _, _, carets, hint = lines = str(error).split("\n")
    assert hint
    assert set(carets) == {" ", "^"}
    assert all(line.isascii() and line.isprintable() for line in lines)


@settings(settings.get_profile("fuzz"))
@given(st.lists(st.one_of(tokens, tokens, odd_characters, st.text(max_size=3)), max_size=24).map("".join))
def test_any_string_parses_or_is_a_pattern_error(text):
    started = time.process_time()
    try:
        pattern = Pattern.parse(text)
        assert Pattern.parse(str(pattern)) == pattern
    except PatternError as error:
        check_error(error, text)
    assert time.process_time() - started < 1


GOLDEN = {
    "rg_lru*2 local_mqa[window_size=512": """\
'[' is never closed
  rg_lru*2 local_mqa[window_size=512
                    ^
add ']' after the last option""",
    "(rg_lru rg_lru local_mqa@26": """\
'(' is never closed
  (rg_lru rg_lru local_mqa@26
  ^
add ')' after the last item of the group""",
    "(rg_lru local_mqa)@0": """\
a depth is a whole number from 1 up: got '0'
  (rg_lru local_mqa)@0
                     ^
write a whole number from 1 to 10000: rg_lru@12""",
    "rg_lru@12*2": """\
an item takes one count or depth
  rg_lru@12*2
           ^
bracket what comes before it: (rg_lru@12)*2""",
    "rg_lru*٣": """\
unexpected character U+0663 ARABIC-INDIC DIGIT THREE
  rg_lru*\\u0663
         ^^^^^^
did you mean '3'?""",
    "rg_lru\t\0 local_mqa": """\
unexpected character U+0000
  rg_lru\\t\\x00 local_mqa
          ^^^^
separate blocks by white space or commas, all in ASCII""",
    "local_mqa[Window-Size=512, window_size=1]": """\
'window_size' is given twice
  local_mqa[Window-Size=512, window_size=1]
                             ^^^^^^^^^^^
keep one of the two""",
    "rg_lru " * 30 + "2*rg_lru " + "local_mqa " * 30: """\
a name begins with a letter: got '2'
  ...rg_lru rg_lru rg_lru rg_lru rg_lru 2*rg_lru local_mqa local_mqa local_...
                                        ^
a count goes after a block or a group: rg_lru*2""",
    "(rg_lru local_mqa)*5001": """\
a pattern has at most 10,000 layers: this makes it 10,002
  (rg_lru local_mqa)*5001
                    ^^^^^
repeat less""",
}


@pytest.mark.parametrize("text", GOLDEN, ids=range(len(GOLDEN)))
def test_errors_say_what_where_and_what_to_do(text):
    with pytest.raises(PatternError) as caught:
        Pattern.parse(text)
    assert str(caught.value) == GOLDEN[text]


# The bad part is between two ¦, which are taken out.
BAD = """
¦¦ | ¦ ¦ | ¦,¦ | ¦,¦a | a¦,¦ | a,¦,¦b | a ,¦,¦ b | (¦,¦a) | (a¦,¦) | ¦()¦ | a ¦( )¦ | ¦(¦ | ¦(¦a
¦(¦a (b) | ¦)¦ | a¦)¦ | (a)¦)¦ | a¦]¦ | ¦[¦k=1] | ¦{¦a} | ¦"¦a" | ¦=¦ | a¦=¦3 | ¦_¦a | ¦-¦a | ¦3¦
¦2¦*a | ¦12.5¦ | a¦;¦b | ¦*¦ | ¦*¦2 | ¦@¦3 | a¦*¦ | a * ¦b¦ | a*¦b¦ | a*¦0¦ | a*¦000¦ | a@¦0¦ | a*¦-1¦
a*¦+2¦ | a*¦1.5¦ | a*¦1e3¦ | a*¦1_000¦ | a*¦2b¦ | a*¦0x10¦ | a¦*¦*2 | a*2¦*¦3 | a*2 ¦@¦3 | a¦*¦ )b | (a)@2¦*¦2
a¦*10001¦ | a¦@10001¦ | (a*5000)¦*3¦ | a*10000 ¦b¦ | a*9999 ¦(b b)¦ | (a¦*20000¦)@1
a¦@999999999999999999999999¦ | a¦(¦b) | (a)¦b¦ | (a)¦(¦b) | a[k=1]¦b¦ | a[k=1]¦[¦k=2] | a¦[¦ | a¦[¦k
a¦[¦k=1 | a¦[¦k=1, | a[¦]¦ | a[¦,¦k=1] | a[k=1,¦]¦ | a[k=1,¦,¦j=2] | a[¦512¦] | a[¦k¦] | a[¦=¦1]
a[k=¦]¦ | a[k=¦=¦1] | a[k=1 ¦j¦=2] | a[k=1¦)¦ | a[k=¦(¦1)] | a[k=¦[¦1]] | a[¦1k¦=2] | a[k=1,¦K¦=2]
a[k-k=1,¦K_K¦=2] | a[k=¦nan¦] | a[k=¦-inf¦] | a[k=¦Infinity¦] | a[k=¦1e999¦] | a[k=¦-1e999¦]
a[k=¦9223372036854775808¦] | a[k=¦-9223372036854775809¦] | a[k=¦1_000¦] | a[k=¦0x10¦] | a[k=¦1..2¦]
a[k=¦+¦] | a[k=¦-x¦] | a[k=¦"x"¦] | a[k=¦2*3¦] | a[k=¦.¦] | a[k=¦1e¦] | a[k=¦_x¦]
""".strip().replace("\n", " | ")
BAD_CASES = [
    *BAD.split(" | "),
    "a*¦\N{ARABIC-INDIC DIGIT THREE}¦",
    "a¦\N{SUPERSCRIPT TWO}¦",
    "a*2¦\N{SUPERSCRIPT TWO}¦",
    "a[k=¦\N{ARABIC-INDIC DIGIT THREE}¦]",
    "¦\N{CYRILLIC SMALL LETTER A}¦",
    "a¦\N{CYRILLIC SMALL LETTER A}¦",
    "¦\N{FULLWIDTH LATIN SMALL LETTER R}¦g",
    "a¦\N{MULTIPLICATION SIGN}¦2",
    "a¦\N{FULLWIDTH ASTERISK}¦2",
    "a¦\N{EN DASH}¦b",
    "a[k=1¦\N{ARABIC DECIMAL SEPARATOR}¦5]",
    "a[k=¦\N{MINUS SIGN}¦1]",
    "¦\N{LATIN SMALL LETTER E WITH ACUTE}¦",
    "¦\N{EAGLE}¦",
    "a[¦\N{CYRILLIC SMALL LETTER KA}\N{CYRILLIC SMALL LETTER EL}¦=1]",
    "a¦\0¦b",
    "a*\n2 ¦*¦3",
    "a¦*¦\n",
    "a ¦\u00a0¦ b",
    "a¦\u2028¦b",
    "¦\ud800¦",
    "a[k=¦\udfff¦]",
    "a[k=1¦\0¦]",
    "a*¦" + "0" * 9000 + "¦",
    "a¦*" + "9" * 9000 + "¦",
    "a[k=¦" + "9" * 9000 + "¦]",
    "a[k=¦1." + "0" * 9000 + "¦]",
    "a¦*" + "0" * 9000 + "10001¦",
    "(" * MAX_DEPTH + "¦(¦" + "(" * 9000,
    "a" * MAX_TEXT + "¦b¦",
    "(" * MAX_TEXT + "¦" + "(" * 1_000_000 + "¦",
    "a " * 99 + "a*9901 ¦a¦ a",
]


@pytest.mark.parametrize("marked", BAD_CASES, ids=range(len(BAD_CASES)))
def test_bad_patterns_are_refused_at_the_bad_place(marked):
    before, bad, after = marked.split("¦")
    if not (bad.isascii() and bad.isprintable()) and len(bad) > 1:
        bad, after = bad[0], bad[1:] + after  # the first strange character is pointed at
    with pytest.raises(PatternError) as caught:
        Pattern.parse(before + bad + after)
    error = caught.value
    assert (error.start, error.end) == (len(before), len(before + bad))
    assert error.hint
    check_error(error, before + bad + after)
    assert max(map(len, str(error).split("\n"))) <= 120


@pytest.mark.parametrize(
    ("text", "printed"),
    {
        "rg_lru@12": "rg_lru*12",
        "rg_lru*12": "rg_lru*12",
        "rg_lru*1": "rg_lru",
        "(rg_lru rg_lru local_mqa)@26": "(rg_lru rg_lru local_mqa)@26",
        "(rg_lru*2 local_mqa)@5": "rg_lru*2 local_mqa rg_lru*2",
        "rg_lru*2 local_mqa[window_size=512] rg_lru*2": "rg_lru*2 local_mqa[window_size=512] rg_lru*2",
        "((a*3 b)*2 c)*4": "((a*3 b)*2 c)*4",
        "(a b)@24 c": "(a b)*12 c",
        "A-b[K-k=TRUE, j = +007]*2": "a_b[j=7,k_k=true]*2",
        "a[x=1e-3,y=1e16,z=-.5,w=2.]": "a[w=2.0,x=0.001,y=1e+16,z=-0.5]",
        "a" + "*" + "0" * 9000 + "3": "a*3",
        "(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH: "a",
    }.items(),
    ids=str,
)
def test_printing_is_short_and_canonical(text, printed):
    assert str(Pattern.parse(text)) == printed


def test_runs_of_recurrentgemma_2b():
    pattern = Pattern.parse("(rg_lru rg_lru local_mqa)@26")
    r, l = LayerSpec("rg_lru"), LayerSpec("local_mqa")  # noqa: E741
    assert pattern.runs == (((r, r, l), 8), ((r,), 2))
    assert len(pattern) == 26


def test_values_of_different_types_are_different_layers():
    spelled = ["1", "1.0", "true", "0", "0.0", "-0.0", "false", "one"]
    layers = Pattern.parse(" ".join(f"a[k={value}]" for value in spelled)).layers
    assert len(set(layers)) == len(spelled)
    assert [str(layer) for layer in layers] == [f"a[k={value}]" for value in spelled]
    assert LayerSpec("a", (("k", 1),), span=(3, 4)) == layers[0] != "a[k=1]"
    assert Pattern.parse("a") != "a"


@pytest.mark.parametrize(
    "options",
    [
        *((("k", value),) for value in (float("nan"), 2**63, "two words", "true", "Inf", "1", "")),
        (("k", 1), ("K", 2)),
        (("", 1),),
        (("\xe9", 1),),
    ],
    ids=str,
)
def test_a_layer_that_cannot_be_written_cannot_be_made(options):
    with pytest.raises(PatternError, match=r"\^"):
        LayerSpec("a", options)


@pytest.mark.parametrize("name", ["", "1a", "a b", "\N{KELVIN SIGN}", "a\n"])
def test_a_name_that_cannot_be_written_cannot_be_made(name):
    with pytest.raises(PatternError, match="cannot hold this name"):
        LayerSpec(name)


def test_map_rewrites_each_distinct_layer_once():
    seen = []

    def spell_out(layer: LayerSpec) -> LayerSpec:
        seen.append(layer)
        return replace(layer, name={"r": "rg_lru", "l": "local_mqa"}[layer.name])

    source = Pattern.parse("(R r L[w=1])@26")
    mapped = source.map(spell_out)
    assert [(str(layer), layer.span) for layer in seen] == [("r", (1, 2)), ("l[w=1]", (5, 6))]
    assert str(mapped) == "(rg_lru rg_lru local_mqa[w=1])@26"
    assert mapped.text == source.text
    assert mapped.layers[2].span == (5, 6)


def test_a_pattern_that_would_not_parse_back_is_refused():
    word = "w" * (MAX_TEXT // 4)
    text = f"(a[k={word}] b[k={word}] c[k={word}])@5"  # five long layers, and no unit that stands twice
    with pytest.raises(PatternError, match="written out, the pattern is longer than 100,000 characters"):
        Pattern.parse(text)
    with pytest.raises(PatternError, match="written out"):
        Pattern.parse("a b c d e").map(lambda layer: LayerSpec(layer.name + word))


def test_patterns_and_errors_survive_copying_and_pickling():
    pattern = Pattern.parse("(R R L[w=1])@26")
    assert str(pattern.runs)
    with pytest.raises(PatternError) as caught:
        Pattern.parse("a \ud800")
    for clone in (copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        assert clone(pattern) == pattern
        assert hash(clone(pattern)) == hash(pattern)
        error = clone(caught.value)
        assert type(error) is PatternError
        assert vars(error) == vars(caught.value)
        assert str(error) == str(caught.value)


def test_an_error_without_a_hint_has_three_lines():
    assert str(PatternError("no such block", "a b", 2, 3)) == "no such block\n  a b\n    ^"
    assert str(PatternError("it ends", "a b", 3, 3)) == "it ends\n  a b\n     ^"


@pytest.mark.parametrize("length", [0, 1, 69, 70, 71, 140, 500])
def test_the_caret_stands_under_the_place(length):
    text = "".join(chr(ord("a") + i % 26) if i % 7 else "\n" for i in range(length))
    for start in range(length):
        _, shown, carets = str(PatternError("m", text, start, start + 1)).split("\n")
        place = text[start].replace("\n", "\\n")
        assert shown[carets.index("^") : carets.rindex("^") + 1] == place
        assert len(shown) <= 2 + 70 + 6


def run_alone(program: str) -> list[str]:
    """Runs a program without the type checker of the test run, which refuses some calls and slows all."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_huge_patterns_take_less_than_a_second():
    program = """
import time
from griffin_eqx.pattern import MAX_LAYERS, Pattern

fibonacci = "a", "b"
while len(fibonacci[1]) < MAX_LAYERS:
    fibonacci = fibonacci[1], fibonacci[1] + fibonacci[0]
state, noise = 1, []
for _ in range(MAX_LAYERS):
    state = state * 16807 % (2**31 - 1)
    noise.append("abcd"[state >> 8 & 3])
for text in (
    "a*10000",
    "a*5000 b*5000",
    " ".join(fibonacci[1][:MAX_LAYERS]),
    " ".join(noise),
    " ".join(f"a{i}" for i in range(MAX_LAYERS)),
    "(a*10000)@1 " * 8000,
    ("(" * 60 + "a*10000" + ")" * 60 + "@1 ") * 700,
):
    started = time.process_time()
    pattern = Pattern.parse(text)
    assert sum((run.unit * run.repeats for run in pattern.runs), ()) == pattern.layers
    printed = str(pattern)
    assert time.process_time() - started < 1, (text[:30], time.process_time() - started)
    assert Pattern.parse(printed) == pattern
"""
    assert run_alone(program) == []


def test_names_fold_and_the_nearest_is_found():
    assert fold_name("Local-MQA") == "local_mqa"
    known = ["rg_lru", "R", "cg_lru", "local_mqa", "global_mqa"]
    assert nearest("RGLRU", known) == "rg_lru"
    assert nearest("local-mqaa", known) == "local_mqa"
    assert nearest("mamba", known) is None
    assert nearest("r" * 1_000_000, known) is None
    assert nearest("a", []) is None


def test_patterns_need_the_standard_library_alone_and_refuse_what_is_no_string():
    program = """
import sys
from griffin_eqx.pattern import Pattern, PatternError
assert not {"jax", "numpy", "msgspec", "equinox"} & set(sys.modules)
for value in (None, 3, b"rg_lru", ["rg_lru"], object()):
    try:
        Pattern.parse(value)
    except PatternError as error:
        assert 0 <= error.start < error.end <= len(error.text)
        print(error.message)
"""
    assert run_alone(program) == [
        f"a pattern is a string: got {name}" for name in ("NoneType", "int", "bytes", "list", "object")
    ]
