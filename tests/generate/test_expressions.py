"""Compiled expressions are Jinja's: whatever the grammar allows gives what its native environment gives."""

from __future__ import annotations

import json
import math
from typing import Any

import jinja2
import jinja2.nativetypes
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as some

from regstream.functions import registry
from tests import profiles
from tests.generate import support

VALUES: dict[str, Any] = {
    "i": 7, "n": -3, "zero": 0, "f": 2.5, "s": "Straße 9", "t": "a,b,c", "empty": "", "yes": True, "no": False,
    "nil": None, "li": [3, 1, 2], "ls": ["b", "A", "c"], "d": {"a": 1, "k": "v"}, "deep": [{"x": [1, 2]}, {"x": []}],
}  # fmt: skip
# Not optimized, as ours: folding constants makes a slice of a number undefined, which otherwise is an error
NATIVE = jinja2.nativetypes.NativeEnvironment(undefined=jinja2.StrictUndefined, optimized=False)
JINJA = jinja2.Environment(undefined=jinja2.StrictUndefined, optimized=False)
STREAM = {**VALUES, "index": 0, "seq": 1, "stream": "S", "now": registry.Instant.at(support.NOW)}

pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")

literals = some.sampled_from(
    ["0", "1", "2", "-1", "1.5", "0.1", "true", "false", "none", "''", "'a'", "'%d'", "'b c'", "[]", "[1, 2]", "{}"]
)
names = some.sampled_from([*VALUES, "seq", "index", "stream"])
atoms = some.one_of(names, literals)
operators = some.sampled_from(["+", "-", "*", "/", "//", "%", "~", "and", "or"])
comparisons = some.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "not in"])
filters = some.sampled_from(
    ["upper", "lower", "length", "abs", "int", "float", "round", "round(1)", "round(-1)", "string", "first", "last",
     "join('-')", "sort", "list", "sum", "min", "max", "reverse | list", "default('d')", "replace('a', 'bb')", "trim",
     "title", "unique | list", "map('string') | list", "select('odd') | list", "tojson", "capitalize", "center(9)",
     "truncate(4)", "wordcount", "dictsort", "items | list", "batch(2) | list", "attr('upper')", "count",
     "round(2, 'floor')"]
)  # fmt: skip
tests = some.sampled_from(
    ["defined", "not defined", "none", "string", "number", "mapping", "sequence", "odd", "even", "divisibleby(3)",
     "eq(7)", "in([1, 7])", "sameas(none)", "iterable", "true", "not true", "gt(2)", "boolean", "integer",
     "float", "lower"]
)  # fmt: skip
ends = some.sampled_from(
    [".upper()", ".split(',')", ".a", ".k", "['a']", "['none here']", "[0]", "[-1]", "[5]", "[1:]", "[:2]", "[::-1]",
     ".items", ".replace('a', i ~ '')", ".x", ".startswith('a')", ".strip()", ".get('a', 5)", ".find('b')",
     "[i]", "[s]"]
)  # fmt: skip


def grow(inner: some.SearchStrategy[str]) -> some.SearchStrategy[str]:
    return some.one_of(
        some.tuples(inner, operators, inner).map(lambda it: f"({it[0]} {it[1]} {it[2]})"),
        some.tuples(inner, comparisons, inner).map(lambda it: f"({it[0]} {it[1]} {it[2]})"),
        some.tuples(inner, comparisons, inner, comparisons, inner).map(lambda it: f"({' '.join(it)})"),
        some.tuples(inner, inner, inner).map(lambda it: f"({it[0]} if {it[1]} else {it[2]})"),
        some.tuples(inner, filters).map(lambda it: f"({it[0]} | {it[1]})"),
        some.tuples(inner, tests).map(lambda it: f"({it[0]} is {it[1]})"),
        some.tuples(inner, ends).map(lambda it: f"{it[0]}{it[1]}"),
        some.tuples(some.sampled_from(["not ", "-", "+"]), inner).map(lambda it: f"({it[0]}{it[1]})"),
        some.tuples(inner, some.sampled_from(["2", "-1", "0.5", "i"])).map(lambda it: f"({it[0]} ** {it[1]})"),
        some.lists(inner, min_size=1, max_size=3).map(lambda it: f"[{', '.join(it)}]"),
        some.lists(inner, min_size=2, max_size=3).map(lambda it: f"[{', '.join(it)}] | max"),
        some.tuples(inner, inner).map(lambda it: f"{{'p': {it[0]}, 'q': {it[1]}}}"),
        some.tuples(inner, inner).map(lambda it: f"{{'a': {it[0]}, '7': {it[1]}}}[s]"),
        some.tuples(inner, inner).map(lambda it: f"[{it[0]}, {it[1]}][index]"),
        inner.map(lambda it: f"('<%s>' % ({it},))"),
        inner.map(lambda it: f"'{{0}}/{{0}}'.format({it})"),
    )


expressions = some.recursive(atoms, grow, max_leaves=8)


def plain(value: Any) -> Any:
    """A value as JSON shows it; what JSON cannot show raises TypeError."""
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError("not finite")
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        raise TypeError("too large")
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("key")
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(one) for one in value]
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    raise TypeError(type(value).__name__)


def jinjas(expression: str) -> Any:
    """What Jinja gives: rendering would lose its type at times, so the value is caught on its way out."""
    caught = []
    NATIVE.globals["keep"] = caught.append
    NATIVE.from_string(f"{{% set _ = keep({expression}) %}}").render(STREAM)
    if isinstance(caught[0], jinja2.Undefined):
        raise jinja2.UndefinedError
    return plain(caught[0])


def ours(expression: str) -> Any:
    made = support.build({**VALUES, "x": f"{{{{ {expression} }}}}"}).next_batch(support.NOW)
    if made.error:
        raise made.error
    return json.loads(made.events[0].value)["data"]["x"]


@settings(max_examples=profiles.examples(600))
@given(expressions)
@example("[1, 2][5]")
@example("{'a': 1}['b'] is defined")
@example("(1 if yes else 2.5) * 2")
@example("-yes")
@example("[i, f] | max")
@example("'%s %d' % (s, i)")
@example("1 < i < 9 != 3")
@example("i | round(1)")
@example("(i // 2) ** -1")
@example("{'p': 1}['p'] ~ [1][0]")
def test_a_compiled_expression_is_what_jinja_makes_of_it(expression):
    try:
        expected = jinjas(expression)
    except Exception:
        expected = None
        try:
            made = ours(expression)
        except Exception:
            return
        raise AssertionError(f"{expression} fails in Jinja and gives {made!r} here") from None
    # A method shows its address
    assume(" object at 0x" not in str(expected))
    assert ours(expression) == expected


@settings(max_examples=profiles.examples(300))
@given(some.lists(expressions, min_size=2, max_size=3), some.sampled_from(["", " ", "{", "}}", '"', "\\", "\n", "'''"]))
def test_expressions_in_a_text_too(parts, between):
    template = between.join(["", *(f"{{{{ {part} }}}}" for part in parts), "."])
    try:
        expected = JINJA.from_string(template).render(STREAM)
    except Exception:
        assume(False)
    assume("object at" not in expected)
    assert support.data({**VALUES, "x": template})[0]["x"] == expected


@settings(max_examples=profiles.examples(300))
@given(expressions)
def test_statements_say_what_jinja_says(expression):
    template = f"{{% if true %}}{{{{ {expression} }}}}{{% endif %}}"
    try:
        expected = JINJA.from_string(template).render(STREAM)
    except Exception:
        assume(False)
    assume("object at" not in expected)
    assert support.data({**VALUES, "x": template})[0]["x"] == expected


numbers = some.one_of(some.integers(-(2**53), 2**53), some.floats(allow_nan=False, allow_infinity=False))


@settings(deadline=None)
@given(some.integers(-24, 24), some.data())
def test_rounding_is_pythons(places, more):
    halves = some.integers(-(10**13), 10**13).map(lambda number: (number + 0.5) * 10.0**-places)
    near = some.tuples(halves, some.integers(-3, 3)).map(lambda one: one[0] + one[1] * math.ulp(one[0]))
    small = some.floats(-(10.0 ** (3 - places)), 10.0 ** (3 - places))
    values = more.draw(some.lists(some.one_of(near, small, numbers), min_size=1, max_size=30))
    try:
        expected = [repr(round(value, places)) for value in values]
    except OverflowError:
        assume(False)
    fields = {f"x{place}": f"{{{{ ({value!r}) | round({places}) }}}}" for place, value in enumerate(values)}
    assert list(map(repr, support.data(fields)[0].values())) == expected


@pytest.mark.parametrize("places", [0, 2, 4, -3])
def test_rounding_is_pythons_where_draws_are(places):
    for low, high in ((0, 1), (-2, 2), (0.001, 5_000_000), (9e14, 9e15)):
        made = support.data({"x": f"{{{{ uniform({low}, {high}) }}}}", "y": f"{{{{ x | round({places}) }}}}"}, 3_000)
        assert [repr(one["y"]) for one in made] == [repr(round(one["x"], places)) for one in made]


@settings(deadline=None)
@given(some.lists(some.one_of(numbers, some.sampled_from([0, 0.0, -0.0, 1, 1.0])), min_size=2, max_size=5))
def test_the_least_and_the_greatest_are_pythons(values):
    written = ", ".join(map(repr, values))
    found = support.data({"least": f"{{{{ [{written}] | min }}}}", "greatest": f"{{{{ [{written}] | max }}}}"})[0]
    assert (repr(found["least"]), repr(found["greatest"])) == (repr(min(values)), repr(max(values)))
