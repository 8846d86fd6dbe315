"""What one event may cost: everything that a template can call, in its dearest form, ends within the bound."""

# ruff: noqa: E501 - a template reads best on one line

from __future__ import annotations

import itertools
import time

import pytest

from regstream.functions import limits, registry
from tests.generate import support

# Steps alone must hold an event to this, by three times what a machine like ours takes for them
SECONDS = 0.3
LOOP = "{% for i in range(99000) %}{% set r = CALL %}{% endfor %}"
GIVEN = (
    "{% set x = 'ab ' * 400 %}{% set w = 'www.a.b <a> ' * 100 %}{% set l = range(250) | list %}{% set n = 3 ** 2000 %}"
    "{% set d = {}.fromkeys(l, 1) %}{% set q = ['ab', 'c'] * 90 %}{% set o = [{'a': 1}, {'a': 2}] * 30 %}"
)
FILTERS = {
    "abs": "n | abs", "attr": "x | attr('upper')", "batch": "[1] | batch(900, 1)", "capitalize": "x | capitalize", "center": "'a' | center(9000)", "count": "l | count",
    "d": "n | d(1)", "default": "n | default(1)", "dictsort": "d | dictsort(false, 'value')", "e": "w | e", "escape": "w | escape", "filesizeformat": "n | float | filesizeformat",
    "first": "l | first", "float": "('1' * 300) | float", "forceescape": "w | forceescape", "format": "'%999d%999d%999d' | format(3, 3, n)", "groupby": "l | groupby('real')",
    "indent": "('\\n' * 999) | indent(20, true, true)", "int": "('f' * 900) | int(0, 16)", "items": "d | items", "join": "o | join(',', attribute='a')", "last": "l | last", "length": "l | length",
    "list": "x | list", "lower": "x | lower", "map": "q | map('title')", "max": "o | max(attribute='a')", "min": "l | min", "pprint": "o | pprint", "reject": "l | reject('odd')",
    "rejectattr": "o | rejectattr('a')", "replace": "x | replace('', 'b')", "reverse": "x | reverse", "round": "1.5 | round(i % 300)", "safe": "x | safe", "select": "q | select('in', q)",
    "selectattr": "o | selectattr('a', 'eq', 1)", "slice": "[1] | slice(900)", "sort": "o | sort(attribute='a')", "string": "l | string", "striptags": "('<!--' * 99) | striptags", "sum": "o | sum(attribute='a')",
    "title": "('a b' * 99) | title", "tojson": "o | tojson(2)", "trim": "x | trim", "truncate": "x | truncate(900, true, '..', 0)", "unique": "q | unique(true)", "upper": "x | upper",
    "urlencode": "w | urlencode", "urlize": "w | urlize(10, true, 'x', 'y')", "wordcount": "('a b' * 99) | wordcount", "wordwrap": "x | wordwrap(1, true, 'bb')", "xmlattr": "{'a': x} | xmlattr",
}  # fmt: skip
TESTS = {
    "divisibleby": "n is divisibleby(3)", "eq": "l is eq(l[:])", "equalto": "l is equalto(l[:])", "ne": "l is ne(l[:])",
    "even": "n is even", "odd": "n is odd", "in": "-1 is in(l)", "filter": "x is filter", "test": "x is test",
} | {name: f"x is {name}(x)" for name in ("ge", "gt", "greaterthan", "lt", "lessthan", "le", "sameas")}  # fmt: skip
TEXTS = {
    "center": "x.center(9000)", "count": "('a' * 400).count('a' * 200 ~ 'b')", "endswith": "x.endswith('b')", "expandtabs": "('\\t' * 99).expandtabs(99)", "find": "('a' * 400).find('a' * 200 ~ 'b')",
    "format": "'{} {:>999}'.format(x, 1)", "format_map": "'{a}'.format_map({'a': x})", "index": "x.index('b')", "join": "x.join(q[:3])", "ljust": "x.ljust(9000)", "partition": "x.partition('q')",
    "removeprefix": "x.removeprefix('a')", "removesuffix": "x.removesuffix('a')", "replace": "x.replace('a', 'bb')", "rfind": "('a' * 400).rfind('b' ~ 'a' * 200)", "rindex": "x.rindex('b')", "rjust": "x.rjust(900)",
    "rpartition": "x.rpartition('q')", "rsplit": "x.rsplit('b')", "split": "x.split('b')", "startswith": "x.startswith('a')", "zfill": "x.zfill(900)",
}  # fmt: skip
OUT_OF_REACH = {"encode", "translate", "maketrans"}
OPERATORS = {
    "product": "n * n", "sum": "n + n", "power": "3 ** 2000", "power of a float": "1.1 ** (i % 900)", "remainder": "n % (n // 3 + 1)", "quotient": "n // (2 ** 2000)", "comparison": "x == x ~ ''", "of lists": "l == l[:]",
    "join": "x ~ x", "number as text": "n ~ n", "list as text": "l ~ l", "texts": "x + x", "lists": "l + l", "repeated text": "'a' * 190000", "repeated list": "[1] * 40000", "display": "[x, l, {'a': (x, n)}]",
    "slice": "x[::2]", "in": "'zz' in x", "in a list": "-1 in l", "width": "'%999d' % n", "many": "('%(a)s' * 99) % {'a': x}", "places": "'%.999f' % 1.5", "attribute": "n.real", "item": "d['a'] is defined",
    "part of a time": "now.year", "time as text": "now ~ x", "range": "range(9999) | list", "dict": "dict(a=x, b=i)", "namespace": "namespace(a=x)", "keys": "{}.fromkeys(l, x)", "copy": "l.copy()", "count": "l.count(-1)",
    "keys of two": "d.keys().isdisjoint(d.keys())", "ratio": "n.as_integer_ratio()", "count of a range": "range(9999).count(3)", "format of a time": "now.strftime('%A %B %c' * 20)", "time in parts": "now.timetuple()",
}  # fmt: skip
FUNCTIONS = {
    "choice": "choice(l)", "weighted": "weighted({'a': i + 1, 'b': 2})", "uniform": "uniform(1, i + 1)", "randint": "randint(1, i + 9)", "normal": "normal(1, i)", "lognormal": "lognormal(1, 2)",
    "exponential": "exponential(i + 1)", "triangular": "triangular(1, i + 3, 2)", "pareto": "pareto(2)", "zipf": "zipf(10000 - i % 5000, 1.1)", "chance": "chance(0.4)", "marginal": "marginal(0.4, 'zipf', 10000 - i % 5000, 1.1)",
    "uuid": "uuid()", "digits": "digits(1000)", "pattern": "pattern('#*' * 500)", "sequence": "sequence(n, n)", "date": "date('-5d', '9d', '%A %B %c ' ~ i)", "fake": "fake('text')", "mixture": "mixture([[1, x], [i + 1, l]])",
    "correlated": "correlated(0.7)", "walk": "walk(i, 2, low=0, high=1000)", "grow": "grow(i, 0.1, 0.1)", "revert": "revert(i, 1, 0.1, 0.2)", "seasonal": "seasonal('year', '12-15', 0.2, timezone='America/Lima')",
    "empirical": "empirical('a.csv', 'v', smooth=true)", "pick": "pick('p', zipf=1 + i / 100000).id", "find": "find('p', 1).id",
}  # fmt: skip
MORE = {
    "ranks of another exponent": "zipf(9999, 1.1 + i / 99999)", "a weight": "pick('p', weight='v').id", "another provider": "fake('json')", "words": "fake('get_words_list')",
    "providers": "fake(choice(['name', 'city', 'company', 'text', 'email', 'url', 'job']))", "locales": "fake('name', locale=choice(['es_MX', 'pt_BR', 'es_CO', 'es_CL', 'en_US', 'de_DE', 'fr_FR', 'it_IT', 'es_AR', 'es_ES']))",
    "zones": "seasonal('day', timezone=choice(['Etc/GMT' ~ ('+' if i % 2 else '-') ~ i % 12]))", "many zipfs": "zipf(300 + i % 90)", "cells": "mixture([[0.5, 1]] * 250)",
}  # fmt: skip
KINDS = {"filter": FILTERS, "test": TESTS, "text": TEXTS, "operator": OPERATORS, "function": FUNCTIONS, "more": MORE}


def spent(template: str, *, timed: bool = False, **rest) -> tuple[float, str]:
    """The CPU seconds of an event of which such is a field, and what is said of it; steps alone stop it, or time too."""
    made = support.build(
        {"x": template},
        entities=(support.entity("p", {"id": "{{ index }}", "v": "{{ index + 1 }}"}, count=500),) if "('p'" in template else (),
        templates={"a.csv": "v\n" + "\n".join(map(str, range(999)))},
        **rest,
    )  # fmt: skip
    if not timed:
        made.workshop.box.budget._clock = lambda: 0.0
    began = time.thread_time()
    batch = made.next_batch(support.NOW, 1)
    return time.thread_time() - began, str(batch.error or "")


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, cases in KINDS.items() for name in cases])
def test_whatever_a_template_calls_an_event_ends_within_its_steps(kind, name):
    seconds, said = spent(GIVEN + LOOP.replace("CALL", KINDS[kind][name]))
    # A first time, what is kept for all events is made: locales, tables
    if seconds >= SECONDS:
        seconds, said = spent(GIVEN + LOOP.replace("CALL", KINDS[kind][name]))
    assert seconds < SECONDS
    assert "fields.x: CostError: takes more than 100000 steps" in said or not said


def test_no_function_filter_or_test_is_left_out():
    box = support.box()
    assert set(FUNCTIONS) == set(registry.FUNCTIONS)
    assert set(FILTERS) == set(box.filters)
    assert set(TEXTS) <= {name for name in dir(str) if name[0] != "_"}
    # Those that are signs have names too
    plain = {name for name in box.tests if name.isidentifier() and name not in TESTS}
    for name in plain:
        assert spent(GIVEN + LOOP.replace("CALL", f"x is {name}"))[0] < SECONDS, name
    for name in {name for name in dir(str) if name[0] != "_"} - set(TEXTS) - OUT_OF_REACH:
        assert spent(GIVEN + LOOP.replace("CALL", f"x.{name}()"))[0] < SECONDS, name


MACRO = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}"


def test_a_macro_that_calls_itself_twice_ends():
    seconds, said = spent(MACRO)
    assert seconds < SECONDS
    assert "fields.x: CostError" in said


def test_attempts_of_an_event_share_what_it_may_cost():
    made = support.build({"x": "{% for i in range(9000) %}{% set r = i.real %}{% endfor %}{{ 1 // (seq * 0) }}"})
    account = made.workshop.box.budget
    assert "ZeroDivisionError" in str(made.next_batch(support.NOW, 1).error)
    assert account.left < 0
    assert made.next_batch(support.NOW, 1, {"x": "{{ seq | string }}"}).error is None
    assert account.left > 90_000


def long_row(call: str, count: int) -> str:
    return "{{ [" + ", ".join(call.replace("K", str(number)) for number in range(count)) + "] | length }}"


@pytest.mark.parametrize(
    ("call", "count"), [("zipf(10000 - K - seq, 1.1)", 400), ("fake(['text', 'name'][seq % 1])", 500), ("pattern('#' * (999 + seq % 1))", 250)]
)  # fmt: skip
def test_expressions_pay_for_what_they_call(call, count):
    seconds, said = spent(long_row(call, count))
    assert seconds < SECONDS
    assert "takes more than 100000 steps" in said


@pytest.mark.parametrize("comparison", ["-K in l", "-K not in l", "l == m", "l != m", "l <= m", "l > m"])
def test_an_expression_of_many_comparisons_pays_for_what_they_compare(comparison):
    lists = {"l": "{{ range(9999) | list }}", "m": "{{ range(9999) | list }}"}
    made = support.build({**lists, "x": long_row(comparison, 1500)})
    made.workshop.box.budget._clock = lambda: 0.0
    began = time.thread_time()
    error = made.next_batch(support.NOW, 1).error
    assert time.thread_time() - began < SECONDS
    assert "takes more than 100000 steps" in str(error)
    assert support.build({**lists, "x": long_row(comparison, 30)}).next_batch(support.NOW, 1).error is None


@pytest.mark.parametrize(("call", "count"), [("zipf(10000 - K, 1.1)", 60), ("fake('text')", 900)])
def test_what_is_known_to_cost_too_much_is_refused_when_it_is_loaded(call, count):
    assert "takes more than 100000 steps" in support.faults({"x": long_row(call, count)})[0].message
    assert support.faults({"x": long_row(call, 3)}) == []


def test_the_clock_stops_what_steps_do_not():
    now = itertools.count(0.0, 0.03)
    account = limits.Budget(lambda: next(now))
    with pytest.raises(limits.CostError, match="takes more than 100 ms"):
        for _ in range(limits.MAX_STEPS):
            account.spend(1)
    assert account.left > limits.MAX_STEPS - 20_000
    account.renew()
    account.spend(100)


def test_a_pause_of_the_machine_stops_no_event():
    now = iter([0.0, 30.0, *itertools.repeat(30.0, 100)])
    account = limits.Budget(lambda: next(now))
    for _ in range(limits.MAX_STEPS):
        account.spend(1)


def test_an_event_that_takes_few_steps_asks_no_clock():
    account = limits.Budget(lambda: pytest.fail("asked"))
    for _ in range(900):
        account.renew()
        account.spend(1_500)


def test_what_is_kept_is_paid_once_an_event():
    account = limits.Budget(lambda: 0.0)
    for number in [*range(20)] * 9:
        account.once(number, 1_000)
    assert account.left == limits.MAX_STEPS - 20_000
    with pytest.raises(limits.CostError):
        for number in [*range(limits.RECENT + 1)] * 9:
            account.once(number, 1_000)


SLOW = "{% for i in range(500) %}{% set r = i * i %}{% endfor %}{{ uuid() }}"


@pytest.mark.parametrize(
    "arrival", [{}, {"arrival": {"loss": "30%"}}, {"arrival": {"late": "{{ uniform(0, 9) }}", "duplicates": "20%"}}]
)
def test_a_batch_that_ends_early_goes_on_with_the_same_events(arrival):
    whole = support.build({"n": "{{ index }}", "x": SLOW}, **arrival).next_batch(support.NOW, 30, losing=True)
    made, parts, first, done = support.build({"n": "{{ index }}", "x": SLOW}, **arrival), [], None, 0
    while done < 30:
        calls = itertools.count(1)
        parts.append(
            made.next_batch(
                support.NOW, 30 - done, None, None, first, "", lambda calls=calls: next(calls) % 4 == 0, losing=True
            )
        )
        done += len(parts[-1].events) + parts[-1].lost
        first = first or next((event.seq for event in parts[-1].events), None)
    assert len(parts) > 5
    assert [event.value for part in parts for event in part.events] == [event.value for event in whole.events]


def test_a_batch_of_plain_expressions_is_never_cut():
    batch = support.build({"x": "{{ seq * 2 }}"}).next_batch(support.NOW, 200, enough=lambda: True)
    assert len(batch.events) == 200
