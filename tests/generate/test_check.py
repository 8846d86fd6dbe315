"""What is found before anything runs: each fault with its path, its line, what is wrong and what to do."""

# ruff: noqa: E501 - a case reads best on one line

from __future__ import annotations

import pytest

from regstream.generator import check
from tests.generate import support

P = support.entity("person", {"id": "{{ index }}", "name": "N", "spent": 0})
BOUND = {"with_": {"p": "{{ pick('person') }}"}, "entities": (P,)}

# Template, line, message, hint
TEXTS = [
    ("{{ 1 + }}", 1, "unexpected 'end of print statement'", ""),
    ("{{ 1", 1, "unexpected end of template", ""),
    ("a\nb {{ 1 ++ 2 }}\n{{ }}", 3, "Expected an expression", ""),
    ("\n{% if 1 %}\n\n", 2, "Unexpected end of template", ""),
    ("{% fi %}", 1, "unknown tag 'fi'", ""),
    ("{{ sq }}", 1, "'sq' is undefined", "did you mean seq?"),
    ("\n\n{{ 1 }}\n{{ strem }}", 4, "'strem' is undefined", "did you mean stream?"),
    ("{{ unifrom(1, 2) }}", 1, "'unifrom' is undefined", "did you mean uniform?"),
    ("{{ uniform }}", 1, "uniform is a function", "write uniform(…)"),
    ("{{ 1 | rond }}", 1, "no filter named 'rond'", "did you mean round?"),
    ("{{ [1] | random }}", 1, "no filter named 'random'", "it is not reproducible, use choice(…)"),
    ("{{ 1 is evn }}", 1, "no test named 'evn'", "did you mean even?"),
    ("{{ p.nmae }}", 1, "entity 'person' has no field 'nmae'", "did you mean name?"),
    ("{{ p['nmae'] }}", 1, "entity 'person' has no field 'nmae'", "did you mean name?"),
    ("{{ pick('persn') }}", 1, "unknown entity 'persn'", "did you mean person?"),
    ("{{ pick('persn').x }}", 1, "unknown entity 'persn'", "did you mean person?"),
    ("{{ now.yaer }}", 1, "a time has no 'yaer' here", "did you mean year?"),
    ("{{ ''.__class__ }}", 1, "'__class__' is not allowed in a template", "private names are out of reach"),
    ("{{ '%9999d' % seq }}", 1, "formats to a width above 999", ""),
    ("{{ uniform(1) }}", 1, "uniform: missing a required argument: 'high'", ""),
    ("{{ {1: 2} }}", 1, "Dict key must be str", ""),
    ("{{ 18446744073709551616 }}", 1, "64-bit", ""),
    ("{{ dict(a=1, a=2) }}", 1, "keyword argument repeated", ""),
    ("{{ namespace(a=1) }}", 1, "'namespace' is undefined", "a namespace works between {% and %}"),
    ("{% if x %}\n{{ y }}{% endif %}", None, "", ""),
    ("{% for i in range(10 ** 9) %}{% endfor %}", 1, "ranges over more than 100000 numbers", ""),
    ("{% for i in range(1) %}\n{{ i | rond }}{% endfor %}", 2, "no filter named 'rond'", "did you mean round?"),
    ("{% if 1 is evn %}{% endif %}", 1, "no test named 'evn'", "did you mean even?"),
    ("{% if 1 %}{{ p.nmae }}{% endif %}", 1, "entity 'person' has no field 'nmae'", "did you mean name?"),
    ("{% if 1 %}\n{{ pick('persn') }}{% endif %}", 2, "unknown entity 'persn'", "did you mean person?"),
    ("{% if 1 %}\n{{ choice() }}{% endif %}", 2, "choice: missing a required argument: 'values'", ""),
    ("{% if 1 %}\n{{ uuid }}{% endif %}", 2, "uuid is a function", "write uuid(…)"),
    ("{% if 1 %}\n{{ sq }}{% endif %}", 2, "'sq' is undefined", "did you mean seq?"),
    ("\n{% from 'bnk.j2' import money %}", 2, "no template file 'bnk.j2'", "did you mean bank.j2?"),
    ("{% from 'bank.j2' import mony %}", 1, "'bank.j2' has no macro 'mony'", "did you mean money?"),
    ("{% from 'bank.j2' import mony as m %}", 1, "'bank.j2' has no macro 'mony'", "did you mean money?"),
    ("{% include 'nothing' %}", 1, "no template file 'nothing'", ""),
    ("{% import seq as x %}", 1, "the name of an imported template must be a text", ""),
    ("{% from 'late.j2' import x %}", 1, "'late.j2' cannot be imported: uuid is called while its file is imported", ""),
    ("{% macro m(a, a) %}{% endmacro %}", 1, "duplicate argument", ""),
    ("{% for i in [1] recursive %}{% endfor %}", 1, "recursive loops are not supported", ""),
]
FILES = {
    "bank.j2": "{% macro money(x) %}{{ x }} {{ digits(2) }}{% endmacro %}{% set rate = 5 %}",
    "late.j2": "{% set x = uuid() %}",
}  # fmt: skip


@pytest.mark.parametrize(("template", "line", "message", "hint"), TEXTS)
def test_faults_say_where_what_and_what_to_do(template, line, message, hint):
    found = support.faults({"a": 1, "x": {"y": [template]}}, templates=FILES, **BOUND)
    if line is None:
        assert [one.message for one in found] == ["'x' is undefined", "'y' is undefined"]
        return
    assert len(found) == 1, found
    assert found[0].path in {("fields", "x", "y", "0"), ("fields", "x", "y"), ("fields", "x")}
    assert found[0].line == line
    assert message in found[0].message
    assert found[0].hint == hint


def test_all_faults_of_a_text_are_told():
    text = "{{ one }}\n{{ two | tow }} {{ seq }}\n{{ p.three }} {{ uniform() }}"
    found = [(one.line, one.message.partition(":")[0]) for one in support.faults({"x": text}, **BOUND)]
    assert found == [
        (1, "'one' is undefined"), (2, "'two' is undefined"), (2, "no filter named 'tow'"),
        (3, "entity 'person' has no field 'three'"), (3, "uniform"),
    ]  # fmt: skip
    inside = [(one.line, one.message) for one in support.faults({"x": f"{{% if 1 %}}{text}{{% endif %}}"}, **BOUND)]
    assert len(inside) == 5
    assert {line for line, _ in inside} == {1, 2, 3}


def test_all_faults_of_a_stream_are_told_with_their_paths():
    found = support.faults(
        {"a": "{{ n1 }}", "b": {"c": ["{{ 1 }}", {"d": "{{ n2 }}"}]}},
        key="{{ n3 }}",
        alert={"when": "{{ n4 }}", "message": "{{ n5 }}"},
        update={"p.spent": "{{ n6 }}", "p.nothing": 1, "p.id": 2, "q.x": 3, "p": 4, "w.x": 5},
        **{**BOUND, "with_": {**BOUND["with_"], "w": "{{ n7 }}"}},
    )
    assert {one.path: one.message for one in found} == {
        ("with", "w"): "'n7' is undefined",
        ("fields", "a"): "'n1' is undefined",
        ("fields", "b", "c", "1", "d"): "'n2' is undefined",
        ("key",): "'n3' is undefined",
        ("update", "p.spent"): "'n6' is undefined",
        ("update", "p.nothing"): "entity 'person' has no field 'nothing'",
        ("update", "p.id"): "'p.id' is the key of entity 'person' and cannot change",
        ("update", "q.x"): "'q.x' is not a field of a bound row",
        ("update", "p"): "'p' is not a field of a bound row",
        ("update", "w.x"): "'w' is not an entity row",
        ("alert", "when"): "'n4' is undefined",
        ("alert", "message"): "'n5' is undefined",
    }


def test_a_fault_hides_no_other_and_a_sound_stream_has_none():
    found = support.faults({"a": "{{ nobody }}", "b": "{{ a + 1 }}", "c": "{{ a.x | round }}"})
    assert [one.path for one in found] == [("fields", "a")]
    assert support.faults({"a": "{{ p.name }}", "b": "{{ a ~ p.spent }}"}, templates=FILES, **BOUND) == []


def test_a_file_as_data():
    found = support.faults(None, template="data.j2", templates={"data.j2": '{"a":\n{{ nobody }}}'})
    assert [(one.path, one.line, one.message) for one in found] == [
        (("templates", "data.j2"), 2, "'nobody' is undefined")
    ]
    missing = support.faults(None, template="dta.j2", templates={"data.j2": "{}"})
    assert missing == [check.Fault(("template",), 1, "no template file 'dta.j2'", "did you mean data.j2?")]


def test_entities():
    before = {"person": P}
    broken = support.entity("q", {"id": "{{ index }}", "a": "{{ nobody }}", "b": "{{ pick('q').id }}"})
    assert [(one.path, one.message) for one in check.check_entity(broken, {}, before)] == [
        (("fields", "a"), "'nobody' is undefined"), (("fields", "b"), "unknown entity 'q'"),
    ]  # fmt: skip
    assert check.check_entity(support.entity("q", {"id": "{{ pick('person').name }}"}), {}, before) == []


def test_a_text_by_itself():
    assert check.check_text("at {{ now }} {{ uniform(1, 2) | round }}", {}) == []
    assert check.check_text("at\n{{ nwo }}", {}) == [
        check.Fault(("message",), 2, "'nwo' is undefined", "did you mean now?")
    ]


IN_FILES = [
    ("{% macro m(x) %}\n{{ y }}{% endmacro %}", 2, "'y' is undefined in macro 'm'", "pass it to the macro as an argument"),
    ("{% macro m(price) %}{{ prise }}{% endmacro %}", 1, "'prise' is undefined in macro 'm'", "pass it to the macro as an argument"),
    ("{% set rates = 1 %}{% macro m() %}{{ rate }}{% endmacro %}", 1, "'rate' is undefined in macro 'm'", "did you mean rates or date or range?"),
    ("\n\n{% macro m() %}{{ 1 | rond }}{% endmacro %}", 3, "no filter named 'rond'", "did you mean round?"),
    ("{% macro m() %}{{ uniform(1) }}{% endmacro %}", 1, "uniform: missing a required argument: 'high'", ""),
    ("{% macro m() %}", 1, "Unexpected end of template", ""),
    ("{% from 'b.j2' import x %}", 1, "no template file 'b.j2'", "did you mean a.j2?"),
    ("{% macro m(a, a) %}{% endmacro %}", 1, "duplicate argument", ""),
    ("{{ ''.__class__ }}", 1, "'__class__' is not allowed in a template", "private names are out of reach"),
    ("{% macro m() %}{{ uuid }}{% endmacro %}", 1, "uuid is a function", "write uuid(…)"),
    ("{% block a %}{% endblock %}\n{% block a %}{% endblock %}", 2, "block 'a' defined twice", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "message", "hint"), IN_FILES)
def test_files(text, line, message, hint):
    found = check.check_templates({"a.j2": text, "fine.j2": "{% macro m() %}x{% endmacro %}"})
    assert len(found) == 1, found
    assert (found[0].path, found[0].line, found[0].hint) == (("a.j2",), line, hint)
    assert message in found[0].message


def test_sound_files():
    files = {
        **FILES,
        "m.j2": "{% from 'bank.j2' import money as m, rate %}{% set a, b = 1, 2 %}{% set t %}x{% endset %}"
        "{% macro n(x, y=a) %}{{ m(x) }}{{ rate }}{{ b }}{{ t }}{{ caller() }}{{ varargs }}{{ kwargs }}{{ n }}{% endmacro %}",
        "i.j2": "{% import 'm.j2' as m %}{% macro o(date) %}{{ m.n(1) }}{{ date }}{% endmacro %}",
        "data.j2": '{"a": {{ any_field }}, "b": {% include "part.j2" %}}',
        "part.j2": "{{ other_field }}",
    }
    assert check.check_templates(files) == []


def test_references_are_followed():
    files = {
        "a.j2": "{% from 'b.j2' import x %}", "b.j2": "{% import 'c.j2' as c %}", "c.j2": "{% include 'a.j2' %}{% include 'gone' %}",
        "d.j2": "plain", "broken.j2": "{% from 'd.j2' import",
    }  # fmt: skip
    assert check.references(["{% from 'a.j2' import x %}"], files) == {"a.j2", "b.j2", "c.j2", "gone"}
    assert check.references(["{% include 'd.j2' %}", "{% include 'broken.j2' %}"], files) == {"d.j2", "broken.j2"}
    assert check.references(["plain", "{{ 1 }}", "{% if"], files) == frozenset()


def test_macros_of_files_are_used_in_any_text():
    text = "{% from 'bank.j2' import money, rate %}{{ money(7) }} {{ rate }}"
    assert support.value(text, templates=FILES).startswith("7 ")
    assert support.value("{% import 'bank.j2' as b %}{{ b.rate }}", templates=FILES) == "5"
