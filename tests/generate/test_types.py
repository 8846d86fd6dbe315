"""What a template gives: the types of lone expressions, texts, names and what shadows them."""

from __future__ import annotations

import pathlib

import pytest
import ruamel.yaml

from regstream import spec
from regstream.generator import check, stream
from tests.generate import support

LONE = [
    ("{{ 1 }}", 1),
    ("{{ 1.5 }}", 1.5),
    ("{{ 7 / 2 }}", 3.5),
    ("{{ true }}", True),
    ("{{ none }}", None),
    ("{{ [1, 'a', [none]] }}", [1, "a", [None]]),
    ("{{ (1, 2) }}", [1, 2]),
    ("{{ {'a': [seq], 'b': {}} }}", {"a": [1], "b": {}}),
    ("{{ dict(a=1, b=none) }}", {"a": 1, "b": None}),
    ("{{ 'text' }}", "text"),
    ("{{ '1' }}", "1"),
    ("{{ seq }}", 1),
    ("{{ stream }}", "S"),
    ("{{ range(3) }}", [0, 1, 2]),
    ("{{ range(3) | list }}", [0, 1, 2]),
    ("{{ [1, 2] | map('string') }}", ["1", "2"]),
    ("{{ [1, 2] | reverse }}", [2, 1]),
    ("{{ {'a': 1}.keys() }}", ["a"]),
    ("{{ {'a': 1}.items() }}", [["a", 1]]),
    ("{{ ['a', 'b'] | groupby(0) }}", [["a", ["a"]], ["b", ["b"]]]),
    ("{{ now }}", "2026-11-23T12:00:00.123Z"),
    ("{{ [now] }}", ["2026-11-23T12:00:00.123Z"]),
    ("{{ now.year }}", 2026),
    ("{{ now.strftime('%d.%m.%Y') }}", "23.11.2026"),
    ("{{ now.isoformat() }}", "2026-11-23T12:00:00.123000+00:00"),
    ("{{ now.weekday() }}", 0),
    ("  {{ 1 }}\n", 1),
    ("\n\n{{ [1] }}\n\n", [1]),
    ("{# why #}{{ 1 }}{# because #}", 1),
]
TEXTS = [
    ("{{ 1 }}!", "1!"),
    ("{{ 1 }}{{ 2 }}", "12"),
    ("{{ 1 }} {{ 2 }}", "1 2"),
    ("{{ none }}.", "None."),
    ("{{ [1, 'a'] }}.", "[1, 'a']."),
    ("{{ {'a': 1} }}.", "{'a': 1}."),
    ("at {{ now }}", "at 2026-11-23T12:00:00.123Z"),
    ("{{ 'a' ~ now }}", "a2026-11-23T12:00:00.123Z"),
    ("plain", "plain"),
    ("a }} b", "a }} b"),
    ("", ""),
    ("{# nothing #}", ""),
    ("line 1\n{{ 2 }}\n\"three\" 'four' {five} \\six\t", "line 1\n2\n\"three\" 'four' {five} \\six\t"),
    ("ñ €  {{ 'é \U0001f600' }}", "ñ €  é \U0001f600"),
    ('""" {{ "\'" }} """ {{ \'"""\' }}', '""" \' """ """'),
    ("{{ 'a\\nb' }}#{{ '#' }}", "a\nb##"),
    ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
    ("{% if seq == 1 %}one{% else %}many{% endif %}", "one"),
    ("{% for i in [1, 2] %}{{ loop.index }}/{{ loop.length }} {% endfor %}", "1/2 2/2 "),
    ("{% set a = 5 %}{{ a }}", "5"),
    ("{% macro m(x, y=2) %}<{{ x }}{{ y }}>{% endmacro %}{{ m(1) }}{{ m(y=3, x=0) }}", "<12><03>"),
    ("{% set n = namespace(x=0) %}{% for i in range(4) %}{% set n.x = n.x + i %}{% endfor %}{{ n.x }}", "6"),
    ("{% if now.year == 2026 %}{{ now }}{% endif %}", "2026-11-23T12:00:00.123Z"),
]


@pytest.mark.parametrize(("template", "expected"), LONE)
def test_a_lone_expression_keeps_its_type(template, expected):
    made = support.value(template)
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(("template", "expected"), TEXTS)
def test_text_around_or_statements_make_text(template, expected):
    assert support.value(template) == expected


@pytest.mark.parametrize("value", [1, 1.5, True, None, [], {}, [1, {"a": None}], {"a": {"b": [1, "x"]}}, 2**63])
def test_values_that_are_no_text_stay_as_they_are(value):
    assert support.value(value) == value


def test_nested_fields_and_lists_are_templates_and_see_their_elders():
    fields = {
        "a": "{{ 2 }}",
        "deep": {"b": "{{ a + 1 }}", "c": ["{{ b * 2 }}", {"d": "{{ b }}-{{ a }}"}], "a": "{{ 10 }}", "e": "{{ a }}"},
        "after": "{{ a + deep.b + deep['c'][0] }}",
    }
    deep = {"b": 3, "c": [6, {"d": "3-2"}], "a": 10, "e": 10}
    assert support.data(fields)[0] == {"a": 2, "deep": deep, "after": 11}


def test_what_is_nested_is_no_name_outside():
    faults = support.faults({"deep": {"b": "{{ 1 }}"}, "x": "{{ b }}"})
    assert [(one.path, one.message) for one in faults] == [(("fields", "x"), "'b' is undefined")]


def test_a_later_field_is_no_name_yet():
    assert "'b' is undefined" in [one.message for one in support.faults({"a": "{{ b }}", "b": "{{ 1 }}"})]


def test_fields_shadow_names_but_calls_mean_the_vocabulary():
    fields = {
        "date": "{{ date('0d') }}",
        "later": "{{ date('1d') }}",
        "same": "{{ date }}",
        "spoken": "{% if date %}{{ date }}{% endif %}",
        "index": "{{ index + 10 }}",
        "next": "{{ index + 1 }}",
        "now": "{{ now.year }}",
        "age": "{{ now - 2000 }}",
        "today": "{% if true %}{{ date('0d') }}{% endif %}",
        "seq": "{{ 'number %d' % seq }}",
        "step": "{% if true %}{{ sequence(5, 5) }}{% endif %}",
        "stream": "{{ 'the ' ~ stream }}",
        "said": "{{ stream }} {{ seq }}",
    }
    assert support.data(fields, count=2)[1] == {
        "date": "2026-11-23", "later": "2026-11-24", "same": "2026-11-23", "spoken": "2026-11-23", "index": 11,
        "next": 12, "now": 2026, "age": 26, "today": "2026-11-23", "seq": "number 2", "step": "10",
        "stream": "the S", "said": "the S number 2",
    }  # fmt: skip


def test_a_field_may_shadow_the_row_that_it_came_from():
    p = support.entity("p", {"id": "P{{ index }}"}, count=1)
    fields = {"p": "{{ p.id }}", "note": "{{ p }}!"}
    assert support.data(fields, entities=(p,), with_={"p": "{{ pick('p') }}"})[0] == {"p": "P0", "note": "P0!"}


def test_the_reference_stream_is_made():
    text = (pathlib.Path(__file__).parents[2] / "benchmarks" / "reference.yaml").read_text()
    tree = ruamel.yaml.YAML(typ="safe").load(text)
    for part in ("entities", "streams"):
        tree[part] = {name: {**value, "name": name} for name, value in tree[part].items()}
    file = spec.StreamsFile.model_validate(tree)
    catalog = spec.Catalog(7, file.profiles.get("x", spec.Profile()), file.entities, file.streams, {}, {}, "")
    assert not [one for spec in file.streams.values() for one in check.check_stream(spec, file.entities, {})]
    shop = stream.GenerationContext(catalog, 7, support.IDENTITY)
    shop.fill(support.NOW)
    for declaration in file.streams.values():
        made = stream.Stream(declaration, shop, "e").next_batch(support.NOW, 50)
        assert made.error is None
        for event, whole in zip(made.events, support.events(made), strict=True):
            data = whole["data"]
            assert event.key == data["project"]
            assert data["note"] == f"{data['svp']} budget at {data['utilization']}% in {data['region']}"
            assert data["n"] == whole["seq"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ [1, 2, 3][seq] }}", 2),
        ("{{ [1, 2, 3][-seq] }}", 3),
        ("{{ [1][5] | default('none') }}", "none"),
        ("{{ {'a': 1}['b'] | default(0) }}", 0),
        ("{{ {'a': 1}['a'] }}", 1),
        ("{{ {'items': 1}['items'] }}", 1),
        ("{{ {'items': 1}.items }}", 1),
        ("{{ {2: 'b', 1: 'a'}[seq] }}", "a"),
        ("{{ 'abcdef'[1:4] }}", "bcd"),
        ("{{ [1, 2, 3][::-1] }}", [3, 2, 1]),
        ("{{ 'a' if false }}", None),
    ],
)
def test_indexing_follows_jinja(template, expected):
    if expected is None:
        error = support.build({"x": template}).next_batch(support.NOW).error
        assert "there is no else" in error.cause
    else:
        assert support.value(template) == expected
