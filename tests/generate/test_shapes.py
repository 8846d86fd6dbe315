"""Schemas of events: exact where the declaration proves it, and never wrong about an event that is made."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from regstream import config, schema, spec
from regstream.event import Event
from regstream.generator import alerts, stream
from tests import profiles
from tests import support as paths
from tests.generate import support, test_expressions

pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")


def schemas(*streams: spec.StreamSpec, scenarios: tuple[spec.ScenarioSpec, ...] = (), **rest: Any) -> schema.Schemas:
    declared = support.catalog(*streams, **rest)._replace(scenarios={one.name: one for one in scenarios})
    return schema.Schemas(declared)


def of(template: Any, before: Mapping[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    """The schema of one field, after others; ``entities`` and ``templates`` go to its catalog."""
    shared = {key: rest.pop(key) for key in ("entities", "templates") if key in rest}
    one = support.stream_spec({**(before or {}), "x": template}, **rest)
    found: dict[str, Any] = schemas(one, **shared).data("S")["properties"]["x"]
    return found


WORDS = "'A' if chance(0.5) else weighted({'B': 1, 'C': 2, 'never': 0})"


@pytest.mark.parametrize(
    ("template", "schema"),
    [
        (5, {"type": "integer", "const": 5}),
        ("plain", {"type": "string", "const": "plain"}),
        (None, {"type": "null"}),
        ([1, "{{ seq }}"], {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2}),
        ("{{ choice(['A', 'B', 'A']) }}", {"type": "string", "enum": ["A", "B"]}),
        ("{{ choice([1, none, 'A']) }}", {"type": ["integer", "null", "string"], "enum": [1, None, "A"]}),
        ("{{ weighted({1: 2, 3: 4}) }}", {"type": "integer", "enum": [1, 3]}),
        (f"{{{{ {WORDS} }}}}", {"type": "string", "enum": ["A", "B", "C"]}),
        (f"{{{{ ({WORDS}) | lower }}}}", {"type": "string", "enum": ["a", "b", "c"]}),
        ("{{ {'A': 1, 'B': 2.5}[choice(['A', 'B'])] }}", {"type": "number", "enum": [1, 2.5]}),
        ("{{ uniform(1, 2.26) | round(1) }}", {"type": "number", "minimum": 1, "maximum": 2.3}),
        ("{{ randint(1, 6) }}", {"type": "integer", "minimum": 1, "maximum": 6}),
        ("{{ randint(1, 6) * 2 - 1 }}", {"type": "integer", "minimum": 1, "maximum": 11}),
        ("{{ triangular(5, 250) | round(-2) }}", {"type": "number", "minimum": 0, "maximum": 200}),
        ("{{ pareto(1.2, 10) }}", {"type": "number", "minimum": 10}),
        ("{{ marginal(seq, 'uniform', 2, 5) }}", {"type": "number", "minimum": 2, "maximum": 5}),
        ("{{ marginal(z=seq, name='randint', low=2, high=5) }}", {"type": "integer", "minimum": 2, "maximum": 5}),
        ("{{ marginal(correlated(0.5)[1], 'weighted', {'A': 1, 'B': 2}) }}", {"type": "string", "enum": ["A", "B"]}),
        ("{{ marginal(1, choice(['normal', 'uniform']), 2, 3) }}", {}),
        ("{{ mixture([[1, 'A'], [seq, 'B'], [0, 5]]) }}", {"type": "string", "enum": ["A", "B"]}),
        ("{{ mixture([[1, 'A'], [2, 'B'], [0, 5]]) }}", {"type": "string", "enum": ["A", "B"]}),
        (
            "{{ mixture([[0.9, uniform(1, 5)], (0.1, uniform(20, 30)), [0, none]]) }}",
            {"type": "number", "minimum": 1, "maximum": 30},
        ),
        ("{{ mixture(parts=[[0.9, 1], [0.1, 2]]) }}", {"type": "integer", "enum": [1, 2]}),
        ("{{ mixture([[1, 'A']] + [[1, 'B']]) }}", {"type": "string", "enum": ["A", "B"]}),
        ("{{ mixture([[1, seq]] + [[1, 'B']]) }}", {}),
        ("{{ mixture([[1, seq], choice([[1, 'B']])]) }}", {}),
        ("{{ zipf(40) }}", {"type": "integer", "minimum": 1, "maximum": 40}),
        ("{{ lognormal(2, 1) | int }}", {"type": "integer", "minimum": 0}),
        ("{{ [[normal(4, 2), 0] | max, 100] | min }}", {"type": "number", "minimum": 0, "maximum": 100}),
        ("{{ normal(0, 1) / 2 }}", {"type": "number"}),
        ("{{ seq % 4 }}", {"type": "integer", "minimum": 0, "maximum": 3}),
        ("{{ sequence(100, 5) }}", {"type": "integer", "minimum": 100}),
        ("{{ chance(0.1) }}", {"type": "boolean"}),
        ("{{ seq > 3 and index == 0 }}", {"type": "boolean"}),
        ("{{ 1.5 if chance(0.1) else none }}", {"type": ["number", "null"], "enum": [1.5, None]}),
        ("{{ normal(1, 2) if chance(0.1) else none }}", {"type": ["number", "null"]}),
        ("{{ 'none' if chance(0.1) else seq }}",
         {"anyOf": [{"type": "string", "const": "none"}, {"type": "integer", "minimum": 1}]}),
        ("{{ uuid() }}", {"type": "string", "format": "uuid"}),
        ("{{ now }}", {"type": "string", "format": "date-time"}),
        ("{{ date('-5d', '+2w') }}", {"type": "string", "format": "date"}),
        ("{{ date('-5d', format='%d') }}", {"type": "string"}),
        ("{{ digits(0) if chance(0.5) else 'none' }}",
         {"anyOf": [{"type": "string", "const": "none"}, {"type": "string", "pattern": "^$"}]}),
        ("{{ choice([[{1: 2}], []]) }}", {"type": "array", "const": []}),
        ("{{ digits(4) }}", {"type": "string", "pattern": "^[0-9]{4}$"}),
        ("{{ pattern('+#?-\\\\#*') }}", {"type": "string", "pattern": "^\\+[0-9][A-Z]-#[0-9A-Z]$"}),
        ("****{{ digits(4) }}", {"type": "string", "pattern": "^\\*\\*\\*\\*[0-9]{4}$"}),
        ("RSK-{{ '%06d' % seq }}", {"type": "string", "pattern": "^RSK-[0-9]{6,}$"}),
        ("{{ now.year }}-Q{{ (now.month + 2) // 3 }}", {"type": "string", "pattern": "^[0-9]{1,4}-Q(1|2|3|4)$"}),
        ("Q{{ randint(1, 2) }}", {"type": "string", "enum": ["Q1", "Q2"]}),
        ("{{ normal(1, 2) }} %", {"type": "string"}),
        ("{% if seq %}a{% endif %}", {"type": "string"}),
        ("{{ now.strftime('%H') }}", {"type": "string"}),
        ("{{ fake('name') }}", {"type": "string"}),
        ("{{ fake('pyint') }}", {"type": "integer"}),
        ("{{ fake('words') }}", {}),
        ("{{ now.date() }}", {}),
        ("{{ (['A'] if chance(0.5) else []) + ['B'] }}", {"type": "array", "enum": [["A", "B"], ["B"]]}),
        ("{{ [uuid()] }}",
         {"type": "array", "items": {"type": "string", "format": "uuid"}, "minItems": 1, "maxItems": 1}),
        ("{{ range(randint(1, 3)) }}", {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2}}),
        ("{{ {'a': chance(0.5)} if chance(0.5) else {'a': none, 'b': 1} }}",
         {"type": "object", "properties": {"a": {"type": ["null", "boolean"]}, "b": {"type": "integer", "const": 1}},
          "required": ["a"], "additionalProperties": False}),
    ],
)  # fmt: skip
def test_what_a_template_shows_is_said(template, schema):
    found = of(template)
    assert found == schema
    jsonschema.Draft202012Validator.check_schema(found)
    for one in support.data({"x": template}, 100):
        jsonschema.validate(one["x"], found, jsonschema.Draft202012Validator)


ACCOUNT = support.entity(
    "account",
    {"id": "A{{ index }}", "kind": "{{ ['SAVINGS', 'CURRENT'][index % 2] }}", "balance": 0, "note": "new", "best": 5},
)
ROW = {"with": {"a": "{{ pick('account') }}"}, "entities": (ACCOUNT,)}


def test_a_row_has_what_it_was_made_of() -> None:
    assert of("{{ a.kind }}", **ROW) == {"type": "string", "enum": ["SAVINGS", "CURRENT"]}
    assert of("{{ a.id }}", **ROW) == {"type": "string", "enum": ["A0", "A1", "A2", "A3"]}
    assert of("{{ a }}", **ROW)["required"] == ["id", "kind", "balance", "note", "best"]


def test_a_row_has_what_any_stream_makes_of_it() -> None:
    update = {"a.balance": "{{ a.balance + randint(1, 5) }}", "a.best": "{{ [a.best, 9] | min }}", "a.note": None}
    writer = support.stream_spec({"n": "{{ seq }}"}, "W", update=update, **{"with": ROW["with"]})
    fields = {"balance": "{{ a.balance }}", "best": "{{ a.best }}", "note": "{{ a.note }}", "kind": "{{ a.kind }}"}
    reader = support.stream_spec(fields, **{"with": ROW["with"]})
    found = schemas(writer, reader, entities=(ACCOUNT,)).data("S")["properties"]
    assert found["balance"] == {"type": "integer", "minimum": 0}
    assert found["best"] == {"type": "integer", "const": 5}
    assert found["note"] == {"type": ["string", "null"], "enum": ["new", None]}
    assert found["kind"] == {"type": "string", "enum": ["SAVINGS", "CURRENT"]}


def test_what_grows_without_end_comes_to_an_end() -> None:
    update = {
        "a.note": "{{ a.note ~ 'x' }}",
        "a.best": "{{ [a.best, a.best] }}",
        "a.balance": "{{ -2 * a.balance - 1 }}",
    }
    found = of("{{ a }}", update=update, **ROW)["properties"]
    assert found["note"] == {"type": "string"}
    assert found["balance"] == {"type": "integer"}
    assert found["best"] == {} or found["best"]["type"] == ["array", "integer"]


def test_a_row_that_holds_itself_comes_to_an_end_too() -> None:
    update = {"a.best": "{{ {'p': a, 'q': a, 'r': [a, a.best]} }}", "a.note": "{{ {'p': a.best} }}"}
    assert of("{{ a.kind }}", update=update, **ROW) == {"type": "string", "enum": ["SAVINGS", "CURRENT"]}


def scenario(*steps: dict[str, Any]) -> spec.ScenarioSpec:
    return spec.ScenarioSpec.model_validate({"name": "RUN", "steps": list(steps)})


def test_overlays_of_scenarios_are_in_the_schema_one_by_one_and_together() -> None:
    spec = support.stream_spec(
        {"level": "{{ randint(1, 5) }}", "word": "{{ 'high' if level > 3 else 'low' }}", "twice": "{{ level * 2 }}"}
    )
    run = scenario(
        {"burst": {"stream": "S", "count": 3, "fields": {"level": "{{ randint(8, 9) }}"}}},
        {"repeat": {"times": 2, "steps": [{"set": {"stream": "S", "fields": {"word": None, "extra": "{{ twice }}"}}}]}},
        {"set": {"stream": "S", "interval": "2s"}},
    )
    found = schemas(spec, scenarios=(run,)).data("S")
    properties = found["properties"]
    assert properties["level"] == {"type": "integer", "minimum": 1, "maximum": 9}
    assert properties["word"] == {"type": ["string", "null"], "enum": ["high", "low", None]}
    assert properties["twice"] == properties["extra"] == {"type": "integer", "minimum": 2, "maximum": 18}
    assert found["required"] == ["level", "word", "twice"]


def test_a_name_that_only_an_overlay_brings_stands_for_what_it_was_as_well() -> None:
    spec = support.stream_spec({"n": 1}, update={"a.best": "{{ index }}"}, **{"with": ROW["with"]})
    run = scenario({"burst": {"stream": "S", "count": 3, "fields": {"index": "text"}}})
    reader = support.stream_spec({"best": "{{ a.best }}"}, "R", **{"with": ROW["with"]})
    found = schemas(spec, reader, entities=(ACCOUNT,), scenarios=(run,)).data("R")["properties"]
    assert found["best"] == {"anyOf": [{"type": "string", "const": "text"}, {"type": "integer", "minimum": 0}]}


def test_a_template_file_leaves_open_what_is_not_beside_it() -> None:
    spec = support.stream_spec({"x": "{{ data.a }}", "n": "{{ seq }}"}, template="s.j2")
    found = schemas(spec, templates={"s.j2": '{"a": 1}'}).data("S")
    assert found["properties"] == {"x": {}, "n": {"type": "integer", "minimum": 1}}
    assert found["required"] == ["x", "n"]
    assert "additionalProperties" not in found
    assert schemas(support.stream_spec(None, template="s.j2"), templates={"s.j2": "{}"}).data("S") == {
        "title": "data of S", "type": "object",
    }  # fmt: skip


def test_a_document_says_what_it_is_of() -> None:
    made = schemas(support.stream_spec({"n": "{{ seq }}"}, description="Numbers"))
    data, event = made.document("S"), made.document("S", whole=True)
    assert data["$schema"] == event["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert (data["$id"], event["$id"]) == ("urn:regstream:S:data", "urn:regstream:S:event")
    assert (data["title"], data["description"]) == ("data of S", "Numbers")
    assert event["properties"]["data"]["properties"] == data["properties"]
    with pytest.raises(KeyError):
        made.document("T")


def validate(schema: Mapping[str, Any], made: list[Event]) -> None:
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker(["date"]))
    for event in made:
        checker.validate(json.loads(event.value))


def files() -> Iterator[Any]:
    """The catalogs that are shipped."""
    for path, scenarios in (
        (paths.ROOT / "streams.yaml", "scenarios"),
        (paths.ROOT / "benchmarks/reference.yaml", "no"),
    ):
        yield pytest.param(config.load(path, paths.ROOT / scenarios, paths.ROOT / "templates", "test"), id=path.stem)


@pytest.mark.parametrize("catalog", list(files()))
def test_no_event_of_our_own_streams_is_another(catalog: spec.Catalog) -> None:
    workshop = stream.GenerationContext(catalog, 42, support.IDENTITY)
    workshop.fill(support.NOW)
    known = schema.Schemas(catalog)
    for name, declaration in catalog.streams.items():
        jsonschema.Draft202012Validator.check_schema(known.document(name, whole=True))
        overlays = [getattr(step, "burst", None) or getattr(step, "set", None)
                    for run in catalog.scenarios.values() for step in spec.walk(run.steps)]  # fmt: skip
        one = stream.Stream(declaration, workshop, "E")
        made = [one.next_batch(support.NOW, 400)]
        made += [one.next_batch(support.NOW, 40, it.fields) for it in overlays if it and it.stream == name]
        assert not [batch.error for batch in made if batch.error]
        validate(known.document(name, whole=True), list(itertools.chain(*(batch.events for batch in made))))


def test_alerts_have_a_schema_too() -> None:
    known = schemas(support.stream_spec({"n": 1}))
    assert known.names == ["S", spec.ALERTS]
    data = {"severity": "WARNING", "message": "m", "stream": "S", "causeSeq": 3, "scenario": None, "runId": None}
    others = data | {"stream": None, "causeSeq": None, "scenario": "RUN", "runId": "r"}
    made = alerts.batch(
        support.build({"message": ""}, name=spec.ALERTS),
        [alerts.Raised(support.NOW, data), alerts.Raised(support.NOW, others, TRACE)],
    )
    validate(known.document(spec.ALERTS, whole=True), made)


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DRAWN = {
    "w": "{{ uniform(-2, 3.3) | round(1) }}", "r": "{{ randint(-3, 12) }}", "c": "{{ choice(['a', 'B c', '%s']) }}",
    "m": "{{ choice([1, 2.5, none, true, 'x']) }}", "g": "{{ digits(3) }}",
    "o": "{{ normal(0, 9) if r > 4 else none }}", "z": "{{ [r, c] }}", "e": "{{ {'a': r, 'k': c, 'p': a} }}",
}  # fmt: skip
drawn = some.recursive(
    some.one_of(
        test_expressions.atoms,
        some.sampled_from([*DRAWN, "now", "a.kind", "a.best", "a.balance", "a", "pick('account').note"]),
        some.sampled_from(
            ["zipf(5)", "uuid()", "chance(0.5)", "pareto(2)", "date('1d')", "pattern('#?')", "sequence()"]
        ),
    ),
    lambda inner: some.one_of(
        test_expressions.grow(inner),
        some.tuples(inner, inner).map(lambda it: f"uniform({it[0]}, {it[1]})"),
        some.tuples(inner, inner).map(lambda it: f"randint({it[0]}, {it[1]})"),
        some.lists(inner, min_size=1, max_size=3).map(lambda it: f"choice([{', '.join(it)}])"),
        some.tuples(inner, inner).map(lambda it: f"weighted({{'u': {it[0]}, 'v': {it[1]}}})"),
        inner.map(lambda it: f"'%03d|%s' % ({it}, r)"),
        inner.map(lambda it: f"({it}).month"),
    ),
    max_leaves=8,
)


@settings(max_examples=profiles.examples(60))
@given(drawn, drawn, drawn)
def test_no_event_of_any_declaration_is_another(one: str, other: str, third: str) -> None:
    update = {"a.best": f"{{{{ {other} }}}}", "a.balance": "{{ a.balance * 2 + r }}", "a.note": f"{third}: {{{{ x }}}}"}
    fields = {
        **test_expressions.VALUES,
        **DRAWN,
        "x": f"{{{{ {one} }}}}",
        "y": f"<{{{{ {other} }}}}> {{{{ {third} }}}}",
    }
    spec = support.stream_spec(fields, update=update, **{"with": ROW["with"]})
    try:
        made = stream.Stream(spec, support.workshop(spec, entities=(ACCOUNT,)), "E").next_batch(support.NOW, 12)
    except (ValueError, RecursionError):
        # Not a declaration that loads, or a row that was put into itself and has no end
        return
    validate(schemas(spec, entities=(ACCOUNT,)).document("S", whole=True), made.events)


UNSAFE = {"format": "int64"}
LARGE = [
    ("{{ 1610521604143693812 + seq }}", {"type": "integer", "minimum": 1610521604143693813, **UNSAFE}),
    (9007199254740993, {"type": "integer", "const": 9007199254740993, **UNSAFE}),
    (-9007199254740992, {"type": "integer", "const": -9007199254740992, **UNSAFE}),
    ("{{ randint(0, 10**15) * 10 }}", {"type": "integer", "minimum": 0, "maximum": 10**16, **UNSAFE}),
    ("{{ choice([1, 2**60]) }}", {"type": "integer", "enum": [1, 2**60], **UNSAFE}),
    ("{{ 2**63 + randint(0, 5) }}", {"type": "integer", "minimum": 2**63, "maximum": 2**63 + 5, "format": "uint64"}),
    ("{{ [1, 9007199254740993] }}", {"type": "array", "const": [1, 9007199254740993], **UNSAFE}),
]
SAFE = [
    9007199254740991,
    "{{ seq }}",
    "{{ 1e18 }}",
    "{{ 9007199254740993 ~ '' }}",
    "{{ randint(0, 10**15) }}",
    "9007199254740993",
]


@pytest.mark.parametrize(("template", "json_schema"), LARGE)
def test_whole_numbers_that_javascript_changes_are_said_to_be_large(template, json_schema):
    made = schema.Schemas(support.catalog(support.stream_spec({"a": {"x": template}, "b": 1})))
    said = dict(made.data("S")["properties"]["a"]["properties"]["x"])
    assert "JavaScript" in said.pop("description")
    assert said == json_schema
    assert made.unsafe("S") == [("a", "x")]


@pytest.mark.parametrize("template", SAFE)
def test_what_javascript_keeps_is_not(template):
    made = schema.Schemas(support.catalog(support.stream_spec({"x": template})))
    assert "format" not in made.data("S")["properties"]["x"]
    assert made.unsafe("S") == []
