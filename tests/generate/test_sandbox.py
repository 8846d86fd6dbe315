"""Templates that mean harm, or cost too much: refused at load or stopped at once, in bounded memory, and named."""

# ruff: noqa: E501 - a template reads best on one line

from __future__ import annotations

import resource
import time

import pytest

from regstream.functions import limits
from regstream.generator import stream
from tests.generate import support

SECONDS = 2.0
MEGABYTES = 80

# What a template may not reach, by every road; what is refused is said in part
REACH = {
    "attribute": ("{{ ''.__class__ }}", "'__class__' is not allowed"),
    "attribute of a name": ("{{ now.__class__ }}", "'__class__' is not allowed"),
    "item": ("{{ ''['__class__'] }}", "'__class__' is not allowed"),
    "item made of two": ("{{ ''['__cla' ~ 'ss__'] }}", "'__class__' is not allowed"),
    "item made at run time": ("{{ ''['__cla%s__' % ('ss' if seq else '')] }}", "unsafe"),
    "filter": ("{{ ''|attr('__class__') }}", "'__class__' is not allowed"),
    "filter made at run time": ("{{ ''|attr('__cla%s__' % ('ss' if seq else '')) }}", "unsafe"),
    "map": ("{{ ['']|map(attribute='__class__')|list }}", "unsafe"),
    "map of a filter": ("{{ ['']|map('attr', '__class__')|list }}", "unsafe"),
    "sort": ("{{ ['', '']|sort(attribute='__class__.__name__') }}", "unsafe"),
    "groupby": ("{{ ['']|groupby('__class__') }}", "unsafe"),
    "selectattr": ("{{ ['']|selectattr('__class__') }}", "unsafe"),
    "sum": ("{{ ['']|sum('__class__') }}", "unsafe"),
    "format": ("{{ '{0.__class__}'.format('') }}", "unsafe"),
    "format_map": ("{{ '{a.__class__}'.format_map({'a': ''}) }}", "unsafe"),
    "format by item": ("{{ '{0.__class__}'['format']('') }}", "unsafe"),
    "format by filter": ("{{ ('{0.__class__}'|attr('format'))('') }}", "unsafe"),
    "format by map": ("{{ (['{0.__class__}']|map(attribute='format')|first)('') }}", "not a value"),
    "format kept": ("{% set f = '{0.__class__}'.format %}{{ f('') }}", "unsafe"),
    "format of safe text": ("{{ ('{0.__class__}'|safe).format('') }}", "unsafe"),
    "percent": ("{{ '%(a)s'|format(a=''.__class__) }}", "'__class__' is not allowed"),
    "self": ("{% if 1 %}{{ self }}{% endif %}", "'self' is not available"),
    "self in an expression": ("{{ self }}", "'self' is undefined"),
    "block": ("{% block a %}{{ self.a() }}{% endblock %}", "'self' is not available"),
    "cycler": ("{{ cycler }}", "'cycler' is undefined"),
    "joiner": ("{% if 1 %}{{ joiner.__init__ }}{% endif %}", "'__init__' is not allowed"),
    "lipsum": ("{{ lipsum(9) }}", "'lipsum' is undefined"),
    "namespace": ("{% set n = namespace() %}{{ n.__init__ }}", "'__init__' is not allowed"),
    "namespace in an expression": ("{{ namespace(a=1) }}", "'namespace' is undefined"),
    "globals of a function": ("{% if 1 %}{{ uuid.__globals__ }}{% endif %}", "'__globals__' is not allowed"),
    "a function as a value": ("{% if 1 %}{{ uuid }}{% endif %}", "uuid is a function"),
    "a function in an expression": ("{{ uuid }}", "uuid is a function"),
    "a function under another name": ("{% set f = uuid %}{{ f() }}", "uuid is a function"),
    "a class": ("{% if 1 %}{{ dict.mro() }}{% endif %}", "dict is a function"),
    "a macro's function": ("{% macro m() %}{% endmacro %}{{ m._func }}", "'_func' is not allowed"),
    "a generator's frame": ("{{ ([1]|map('string')).gi_frame }}", "no attribute 'gi_frame'"),
    "a loop's values": ("{% for i in [1] %}{{ loop|attr('_iter' ~ 'able') }}{% endfor %}", "is not allowed"),
    "a list to append to": ("{{ [1].append(2) }}", "unsafe"),
    "a mapping to update": ("{{ {}.update({'a': 1}) }}", "unsafe"),
    "a mapping to pop from": ("{% set d = {'a': 1} %}{{ d.pop('a') }}", "unsafe"),
    "bytes": ("{{ 'a'.encode() }}", "unsafe"),
    "bytes of a number": ("{{ (1).to_bytes(999999999, 'big') }}", "unsafe"),
    "the clock": ("{{ now.now() }}", "a time has no 'now' here"),
    "the clock by another name": ("{{ now.today() }}", "a time has no 'today' here"),
    "the clock by item": ("{{ now['utcnow']() }}", "unsafe"),
    "the clock in statements": ("{% if 1 %}{{ now.now() }}{% endif %}", "unsafe"),
    "the clock by its date": ("{{ now.date().today() }}", "unsafe"),
    "the machine's time zone": ("{{ now.astimezone() }}", "a time has no 'astimezone' here"),
    "chance that is not ours": ("{{ [1, 2]|random }}", "no filter named 'random'"),
    "a module": ("{% import 'os' as os %}{{ os }}", "no template file 'os'"),
    "a file": ("{% from '../../etc/passwd' import x %}", "no template file"),
    "any file": ("{% include seq %}", "must be a text"),
    "a statement to run": ("{% do [].append(1) %}", "unknown tag 'do'"),
    "a debugger": ("{% debug %}", "unknown tag 'debug'"),
    "a provider's internals": ("{{ fake('__class__') }}", "no provider"),
}  # fmt: skip


def outcome(fields: dict, **rest) -> str:
    """What is said of such a stream, at load or when it makes an event; nothing when it makes one."""
    found = support.faults(fields, **rest)
    if found:
        return "; ".join(one.message for one in found)
    batch = support.build(fields, **rest).next_batch(support.NOW, 1)
    assert (batch.error is None) == bool(batch.events)
    return str(batch.error or "")


@pytest.mark.parametrize("name", REACH)
def test_nothing_is_in_reach_but_values(name):
    template, message = REACH[name]
    assert message in outcome({"x": template})


BIG = "{{ 'x' * 60000 }}"
LONG = "{% set x = 'ab ' * 60000 %}"
MANY = "{% set x = range(30000) | list %}"
DOUBLE = "{% set n = namespace(x=1, y=1) %}{% for i in range(60) %}"
# What would take for ever or all memory; "" where it is harmless and is made
COST = {
    "range": "{{ range(10**9) | list }}", "range of a sum": "{{ range(10**9) | sum }}",
    "range downwards": "{{ range(0, -10**9, -1) | list }}", "loop": "{% for i in range(10**9) %}x{% endfor %}",
    "loop of a field": "{% for i in range(seq * 10**9) %}x{% endfor %}",
    "nested loops": "{% for i in range(1000) %}{% for j in range(1000) %}{% for k in range(1000) %}x{% endfor %}{% endfor %}{% endfor %}",
    "many nested loops": "{% for a in [1] %}" * 25 + "{% endfor %}" * 25,
    "recursive loop": "{% for i in range(2) recursive %}{{ loop(range(90000)) }}{% endfor %}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "exponential macro": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(40) }}",
    "doubling macro": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% else %}" + "x" * 999 + "{% endif %}{% endmacro %}{{ m(16) }}",
    "text doubled": DOUBLE + "{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x | length }}",
    "text added": "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x | length }}",
    "list of lists": DOUBLE + "{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "list of lists as JSON": DOUBLE + "{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson | length }}",
    "tuples": DOUBLE + "{% set n.x = (n.x, n.x) %}{% endfor %}{{ n.x | string | length }}",
    "mappings": DOUBLE + "{% set n.x = dict(a=n.x, b=n.x) %}{% endfor %}{{ n.x | length }}",
    "mappings written out": DOUBLE + "{% set n.x = {'a': n.x, 'b': n.x} %}{% endfor %}{{ n.x | length }}",
    "lists compared": DOUBLE + "{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}",
    "namespace in itself": "{% set n = namespace() %}{% set n.x = n %}{{ n }}",
    "blocks": "{% set x %}" + "x" * 999 + "{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 40 + "{{ x | length }}",
    "slow filter in a loop": LONG + "{% for i in range(50000) %}{{ x | title | length }}{% endfor %}",
    "sort in a loop": MANY + "{% for i in range(50000) %}{{ x | sort | length }}{% endfor %}",
    "search in a loop": MANY + "{% for i in range(50000) %}{{ -1 in x }}{% endfor %}",
    "filtered loop": MANY + "{% for i in range(50000) if i in x and false %}{% endfor %}",
    "comparison in a loop": MANY + "{% for i in range(50000) %}{{ x == x[:] }}{% endfor %}",
    "test in a loop": MANY + "{% for i in range(50000) %}{{ x is eq(x[:]) }}{% endfor %}",
    "method in a loop": LONG + "{% for i in range(50000) %}{{ x.count('b') }}{% endfor %}",
    "slice in a loop": LONG + "{% for i in range(90000) %}{% set y = x[::-1] %}{% endfor %}",
    "output in a loop": LONG + "{% for i in range(50000) %}{{ x }}{% endfor %}",
    "list shown in a macro": MANY + "{% macro m() %}{% for i in range(50000) %}{{ x }}{% endfor %}{% endmacro %}{{ m() }}",
    "concatenation in a loop": LONG + "{% for i in range(50000) %}{% set y = x ~ i %}{% endfor %}",
    "map in a loop": "{% for i in range(50000) %}{{ range(9000) | map('string') | list | length }}{% endfor %}",
    "many expressions": "{{ range(9000) | map('string') | join | length }}" * 1500,
    "power": "{{ 9**9**9 }}", "power of a field": "{{ (seq + 9) ** 999999999 }}", "negative power": "{{ 9**-999999999 }}",
    "power in a list": "{{ [9**9**9**9] }}", "product": "{{ " + "*".join(["seq", *["9007199254740991"] * 90]) + " }}",
    "repeated text": "{{ 'a' * 10**9 }}", "repeated list": "{{ [1] * 10**9 }}", "repeated lists": "{{ [[[[1]*999]*999]*999]*999 }}",
    "repeated by a condition": "{{ (999999999 if seq else 1.5) * 'abc' }}",
    "repeated sequence": "{{ sequence(seq ~ 'ab') * 900000000 }}",
    "join": "{{ (['x' * 60000] * 60000) | join | length }}", "join with": "{{ ('x' * 60000).join(['a'] * 60000) | length }}",
    "sum of lists": "{{ ([[1] * 99] * 999) | sum(start=[]) | length }}",
    "replace": "{{ ('a' * 60000) | replace('a', 'b' * 60000) }}", "replace method": "{{ ('a' * 60000).replace('', 'b' * 60000) }}",
    "translate": "{{ ('a' * 60000).translate({97: 'b' * 60000}) }}", "tabs": "{{ ('\\t' * 60000).expandtabs(9999) }}",
    "width": "{{ 'a' | center(999999999) }}", "width of a method": "{{ 'a'.ljust(999999999) }}", "zeros": "{{ '1'.zfill(999999999) }}",
    "indent": "{{ ('\\n' * 60000) | indent(9999) }}", "indent of JSON": "{{ [1] | tojson(indent=999999999) }}",
    "batch": "{{ [1] | batch(999999999, 1) | list }}", "slices": "{{ [1] | slice(999999999) | list }}",
    "wrapped": "{{ ('a' * 60000) | wordwrap(1, wrapstring='b' * 60000) }}",
    "filter block": "{% filter center(999999999) %}x{% endfilter %}", "mapped": "{{ ['a'] | map('center', 999999999) | list }}",
    "percent width": "{{ '%999999999d' % 1 }}", "percent star": "{{ '%*d' % (999999999, 1) }}", "percent dot": "{{ '%.999999999f' % 1 }}",
    "percent key": "{{ '%(a)999999999s' % {'a': 1} }}", "percent nested key": "{{ '%(a(b)c)999999999s' % {'a(b)c': 1} }}",
    "percent made": "{{ ('%' ~ 999999999 ~ 'd') % 1 }}", "percent many": "{{ ('%(a)s' * 20000) % {'a': 'x' * 60000} }}",
    "percent many written": "{{ '" + "%(a)s" * 9000 + "' % {'a': 'x' * 60000} }}", "format filter": "{{ '%(a)999999999s' | format(a=1) }}",
    "format width": "{{ '{:>999999999}'.format(1) }}", "format nested": "{{ '{:>{}}'.format(1, 999999999) }}",
    "format bracket": "{{ '{0[}]:>999999999}'.format({'}': 1}) }}", "format many": "{{ ('{0}' * 20000).format('x' * 60000) }}",
    "format map": "{{ '{a:>999999999}'.format_map({'a': 1}) }}",
    "round": "{{ 5 | round(-1000000000) }}", "round of a field": "{{ seq | round(0 - 10**9) }}", "round up": "{{ 1.5 | round(100000000, 'ceil') }}",
    "digits": "{{ digits(10**9) }}", "pattern": "{{ pattern('#' * 100000) }}", "ranks": "{{ zipf(seq * 10**9) }}",
    "filter of values": "{{ range(9000) | select('in', range(9000) | list) | list | length }}",
    "groups": "{{ range(60000) | groupby('real') | list | length }}", "keys": "{{ {}.fromkeys(range(60000), 'x' * 60000) }}",
    "printed": "{{ (range(9000) | list) | pprint }}{{ (range(9000) | list) | pprint }}",
    "number in base 16": "{{ ('f' * 60000) | int(0, 16) }}", "sum": "{{ " + "+".join(["seq"] * 20000) + " }}",
    "filters": "{{ seq" + "|string" * 9000 + " }}", "attributes": "{{ seq" + ".real" * 9000 + " }}",
    "sum in statements": "{% if 1 %}{{ " + "+".join(["seq"] * 20000) + " }}{% endif %}", "brackets": "{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}",
    "lists in lists": "{{ " + "[" * 9000 + "1" + "]" * 9000 + " }}", "negations": "{{ " + "not " * 9000 + "1 }}", "signs": "{{ " + "-" * 9000 + "1 }}",
    "conditions": "{{ " + "1 if seq else " * 3000 + "2 }}", "ifs": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "literal": "{{ 1" + "0" * 9000 + " }}", "infinite literal": "{{ 1e999 }}", "long text": "{{ 1 }}" + "x" * 200_000,
    "duplicate arguments": "{% macro m(a, a) %}{% endmacro %}", "duplicate keywords": "{{ dict(a=1, a=2) }}",
    "duplicate blocks": "{% block a %}{% endblock %}{% block a %}{% endblock %}",
}  # fmt: skip
FIELDS = {
    "texts": {"a": "{{ 'x' * 999 }}", **{f"b{n}": "{{ %s }}{{ %s }}" for n in range(60)}},
    "joined": {"a": "{{ 'x' * 999 }}", **{f"b{n}": "{{ %s ~ %s }}" for n in range(60)}},
    "lists": {"a": "{{ [1] }}", **{f"b{n}": "{{ [%s, %s] }}" for n in range(60)}},
    "declared lists": {"a": [1], **{f"b{n}": ["{{ %s }}", "{{ %s }}"] for n in range(60)}},
    "declared mappings": {"a": [1], **{f"b{n}": {"c": "{{ %s }}", "d": "{{ %s }}"} for n in range(60)}},
    "products": {"a": "{{ seq + 9 }}", **{f"b{n}": "{{ %s * %s }}" for n in range(60)}},
    "many": {"a": "{{ 'x' * 150000 }}", **{f"b{n}": "{{ a }}" for n in range(400)}},
    "some": {"a": "{{ 'x' * 150000 }}", **{f"b{n}": "{{ a }}" for n in range(9)}},
    "deep": {"a": "{{ [1] }}", **{f"b{n}": "{{ [%s] }}" for n in range(400)}},
}


def filled(value, before: str):
    if isinstance(value, str):
        return value.replace("%s", before)
    if isinstance(value, list):
        return [filled(one, before) for one in value]
    return {key: filled(one, before) for key, one in value.items()} if isinstance(value, dict) else value


def costs(fields: dict, **rest) -> str:
    """What is said of such a stream, in bounded time and memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    said = outcome(fields, **rest)
    assert time.process_time() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024
    return said


@pytest.mark.parametrize("name", COST)
def test_what_costs_too_much_is_refused_or_stopped_at_once(name):
    said = costs({"a": 1, "x": COST[name]})
    assert said
    assert "MemoryError" not in said


@pytest.mark.parametrize("name", FIELDS)
def test_fields_cannot_double_what_is_before_them(name):
    fields, before = {}, "a"
    for key, value in FIELDS[name].items():
        fields[key] = filled(value, before)
        before = key
    said = costs(fields)
    assert "S: fields" in said


@pytest.mark.parametrize(
    ("templates", "text"),
    [
        ({"a": "{% include 'a' %}"}, "{% include 'a' %}"),
        ({f"a{n}": f"{{% include 'a{n + 1}' %}}" * 2 for n in range(30)} | {"a30": "x"}, "{% include 'a0' %}"),
        ({"a": "{% from 'a' import m %}{% macro m() %}x{% endmacro %}"}, "{% from 'a' import m %}{{ m() }}"),
        ({"a": "{% from 'b' import m %}", "b": "{% from 'a' import m %}"}, "{% from 'a' import m %}{{ m() }}"),
        ({"a": "{% extends 'a' %}"}, "{% include 'a' %}"),
        ({"a": "{% macro m() %}{% include 'a' %}{{ m() }}{% endmacro %}{{ m() }}"}, "{% include 'a' %}"),
        ({"a": "{% set x = range(99999) | map('string') | join %}"}, "{% import 'a' as a %}{{ a.x }}"),
        ({"a": "{% set x = 'y' * 150000 %}"}, "{% import 'a' as a %}" + "{{ a.x }}" * 9),
    ],
)
def test_files_that_lead_to_themselves_or_grow_are_stopped(templates, text):
    assert costs({"x": text}, templates=templates)


@pytest.mark.parametrize("where", ["key", "when", "message", "with", "update"])
def test_every_template_of_a_stream_is_bounded(where):
    huge = "{{ range(10 ** 9) | sum }}"
    rest: dict = {
        "key": {"key": huge}, "with": {"with_": {"w": huge}}, "when": {"alert": {"when": huge, "message": "m"}},
        "message": {"alert": {"when": "{{ true }}", "message": huge}},
        "update": {"with_": {"p": "{{ pick('p') }}"}, "update": {"p.v": huge}},
    }[where]  # fmt: skip
    assert "CostError" in costs({"x": 1}, entities=(support.entity("p", {"id": "{{ index }}", "v": 0}),), **rest)


def test_one_event_does_not_pay_for_another():
    template = "{% for i in range(60000) %}{% endfor %}{{ seq }}"
    assert support.values(template, 20) == [str(n) for n in range(1, 21)]
    assert support.values("{{ range(9000) | map('string') | list | length }}", 20) == [9000] * 20


def test_a_sum_of_powers_works_for_as_long_as_the_stream_lives():
    made = support.build({"x": "{{ (-1) ** seq }}", "y": "{{ 1 ** (seq * 1000) }}"})
    made.seq = 1_000_000
    assert [one["data"]["x"] for one in support.events(made.next_batch(support.NOW, 2))] == [-1, 1]


def test_a_file_whose_own_statements_draw_is_refused():
    # All events would share the draw of whichever came first
    text = "{% from 'a' import t %}{{ t }}"
    for source in ("{% set t = uuid() %}", "{% macro m() %}{{ uuid() }}{% endmacro %}{% set t = m() %}"):
        assert "call it from within a macro" in outcome({"x": text}, templates={"a": source})
    inside = "{% macro m() %}{{ uuid() }}{% endmacro %}"
    assert len(set(support.values("{% from 'a' import m %}{{ m() }}", 50, templates={"a": inside}))) == 50


def test_a_stream_goes_on_after_it_was_stopped():
    made = support.build({"x": "{{ range(10 ** (9 if seq == 3 else 1)) | sum }}"})
    assert len(made.next_batch(support.NOW, 5).events) == 2
    assert made.next_batch(support.NOW, 2, {"x": 0}).error is None
    assert made.next_batch(support.NOW, 5).error is None


SIZES = [
    ("", 0), ("abc", 3), (1.5, 32), (None, 32), (True, 32), (12345, 6), (["ab", "cd"], 12), ({"a": [1]}, 13), (range(9), 11),
    ({"a": 1}.items(), None), (support.stream.Identity("ab", "c"), None), ("x" * limits.LIMIT, limits.LIMIT),
]  # fmt: skip


@pytest.mark.parametrize(("value", "size"), SIZES)
def test_sizes_are_about_the_length_of_the_text(value, size):
    found = limits.size(value)
    if size is not None:
        assert found == size
    assert len(str(value)) - 60 <= found <= 4 * len(str(value)) + 32


@pytest.mark.parametrize(
    "value",
    [
        "x" * (limits.LIMIT + 1),
        [0] * limits.LIMIT,
        {n: n for n in range(limits.LIMIT)},
        2**5000,
        [["x" * 1000] * 999],
        [[[]] * 999] * 99,
    ],
)
def test_large_values_have_no_size(value):
    with pytest.raises(limits.CostError):
        limits.size(value)


def test_a_workshop_with_no_templates():
    assert stream.GenerationContext(support.catalog(), 1, support.IDENTITY).box.files() == []
