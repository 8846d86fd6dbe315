"""What happens when a template fails while events are made: other draws, no gap, no half event, and a name for it."""

from __future__ import annotations

import json

import pytest

from regstream import errors
from regstream.generator import alerts, stream
from tests.generate import support

SOMETIMES = "{{ 10 // randint(0, 3) }}"


def test_an_event_that_fails_is_made_with_other_draws():
    made = support.build({"x": SOMETIMES, "n": "{{ seq }}", "u": "{{ uniform(0, 1) }}"})
    batch = made.next_batch(support.NOW, 500)
    assert batch.error is None
    data = [json.loads(event.value)["data"] for event in batch.events]
    assert [event.seq for event in batch.events] == [one["n"] for one in data] == list(range(1, 501))
    assert {one["x"] for one in data} == {10, 5, 3}
    assert made.position == ("epoch", 500)


@pytest.mark.parametrize("template", [SOMETIMES, "{% if true %}{{ 10 // randint(0, 3) }}{% endif %}"])
def test_what_is_made_instead_does_not_depend_on_the_batch_size(template):
    whole, parts = support.build({"x": template}), support.build({"x": template})
    expected = [event.value for event in whole.next_batch(support.NOW, 300).events]
    assert [event.value for _ in range(100) for event in parts.next_batch(support.NOW, 3).events] == expected
    assert len(expected) == 300


def test_an_event_that_always_fails_ends_the_batch_and_keeps_its_number():
    made = support.build({"a": 1, "x": "{{ 1 // (seq - 4) }}"})
    for _ in range(3):
        batch = made.next_batch(support.NOW, 10)
        assert (batch.error.stream, batch.error.field) == ("S", "fields.x")
        assert batch.error.cause == "ZeroDivisionError: integer division or modulo by zero"
        assert str(batch.error).startswith("S: fields.x: ZeroDivisionError")
        assert made.seq == 3
    assert batch.events == []


def test_the_first_fault_is_the_one_that_is_told():
    made = support.build({"x": "{{ 1 // (index - 1) }}", "y": "{{ {}[seq] }}"})
    assert made.next_batch(support.NOW, 3).error.field == "fields.y"


def test_another_stream_goes_on():
    specs = [
        support.stream_spec({"x": template}, name) for name, template in (("S", "{{ 1 / 0 }}"), ("T", "{{ seq }}"))
    ]
    shop = support.workshop(*specs)
    broken, sound = (stream.Stream(spec, shop, "e") for spec in specs)
    assert broken.next_batch(support.NOW, 2).error is not None
    assert len(sound.next_batch(support.NOW, 2).events) == 2


PLACES = [
    ({"fields": {"a": 1, "x": "{{ 1 / 0 }}"}}, "fields.x"),
    ({"fields": {"a": {"b": ["{{ 1 }}", {"c": "{{ 1 / 0 }}"}]}}}, "fields.a.b.1.c"),
    ({"fields": {"a": {"b": ["{{ 1 / 0 }}"]}}}, "fields.a.b"),
    ({"fields": {"x": "{% if 1 / 0 %}{% endif %}"}}, "fields.x"),
    ({"fields": {"x": "{{ seq }} {{ 'a' + 1 }}"}}, "fields.x"),
    ({"fields": {"a": 1, "x": "{{ {}.nothing }}"}}, "fields.x"),
    ({"fields": {"a": 1, "x": "{{ 2 ** 70 }}"}}, "fields.x"),
    ({"fields": {"a": 1, "x": {"y": "{{ {seq: 1} }}"}}}, "fields.x.y"),
    ({"fields": {"x": 1}, "key": "{{ 1 / 0 }}"}, "key"),
    ({"fields": {"x": 1}, "with": {"w": "{{ 1 / 0 }}"}}, "with.w"),
    ({"fields": {"x": 1}, "alert": {"when": "{{ 1 / 0 }}", "message": "m"}}, "alert.when"),
    ({"fields": {"x": 1}, "alert": {"when": "{{ true }}", "message": "{{ 1 / 0 }}"}}, "alert.message"),
    ({"fields": {"x": 1}, "with": {"p": "{{ pick('p') }}"}, "update": {"p.v": "{{ 1 / 0 }}"}}, "update.p.v"),
]  # fmt: skip


@pytest.mark.parametrize(("declared", "place"), PLACES, ids=[place for _, place in PLACES])
def test_the_error_names_the_template(declared, place):
    made = support.build(declared["fields"], entities=(support.entity("p", {"id": "{{ index }}", "v": 0}),),
                         **{key: value for key, value in declared.items() if key != "fields"})  # fmt: skip
    batch = made.next_batch(support.NOW, 3)
    assert batch.events == []
    assert batch.signals == []
    assert batch.error.field == place


def test_a_template_file_that_gives_no_object_is_an_error_with_its_place():
    for text, cause in (
        ("{{ [seq] }}", "must render a JSON object"),
        ("[{{ seq }}]", "must render a JSON object"),
        ("{{ seq }} {", "JSONDecodeError"),
    ):
        made = support.build(None, template="t.j2", templates={"t.j2": text}).next_batch(support.NOW)
        assert made.error.field == "template"
        assert cause in made.error.cause


def test_a_template_file_is_the_data():
    for text in (
        '{"n": {{ seq }}, "a": "{{ a }}"}',
        "{{ {'n': seq, 'a': a} }}",
        '{% if 1 %}{"n": 1, "a": "x"}{% endif %}',
    ):
        made = support.data(None, template="t.j2", templates={"t.j2": text}, with_={"a": "x"}, key="{{ data.n }}")
        assert made == [{"n": 1, "a": "x"}]


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        ("{{ 'nan' | float }}", "nan is not a number that an event can carry"),
        ("{{ '-inf' | float }}", "-inf is not a number"),
        ("{{ 1e300 * 1e300 * seq }}", "inf is not a number"),
        ("{{ 1e300 * 1e300 * seq - 1e300 * 1e300 * seq }}", "nan is not a number"),
        ("{{ 2 ** 64 }}", "64-bit"),
        ("{{ -(2 ** 63) - 1 }}", "64-bit"),
        ("{{ {seq: 1} }}", "Dict key must be str"),
        ("{{ '\\ud800' }}", "surrogates"),
        ("{{ 'x'.upper }}", "upper is a function, write upper(…)"),
        ("{{ now - now }}", "a timedelta cannot be written as JSON"),
        ("{{ {[1]: 2} }}", "unhashable type"),
        ("{{ 'a' if seq > 5 }}", "there is no else"),
    ],
)
def test_what_json_cannot_carry_is_an_error_and_never_null(template, cause):
    batch = support.build({"ok": 1.5, "x": template}).next_batch(support.NOW)
    assert batch.error.field == "fields.x"
    assert cause in batch.error.cause


HALF = "half {{ '\\ud800' if seq % 3 == 0 else 'ñ' }}"


@pytest.mark.parametrize(
    ("declared", "field"),
    [({"key": HALF}, "key"), ({"alert": {"when": "{{ true }}", "severity": "INFO", "message": HALF}}, "alert.message")],
    ids=["key", "alert"],
)
def test_half_a_character_in_a_key_or_an_alert_fails_its_event_alone(declared, field):
    batch = support.build({"n": "{{ seq }}"}, **declared).next_batch(support.NOW, 5)
    assert [event.seq for event in batch.events] == [1, 2]
    assert batch.error.field == field and "surrogates not allowed" in batch.error.cause
    assert batch.error.stream == "S"


def test_half_a_character_in_a_text_is_an_error():
    with pytest.raises(errors.RenderError, match="surrogates not allowed"):
        alerts.text(support.workshop(support.stream_spec({"n": 1})), "{{ '\\ud800' }}", support.NOW, "a run")


def test_null_is_a_value_like_any_other():
    assert support.data({"x": "{{ none }}", "y": "{{ uniform(0, 1) }}", "z": None})[0]["x"] is None


def test_sums_that_are_too_large_are_no_fault_of_their_parts():
    assert support.data(dict.fromkeys("abcd", "{{ 1e308 * seq }}"))[0]["d"] == 1e308


def test_many_numbers_in_one_event():
    made = support.data({f"f{n}": {"a": "{{ uniform(0, 1) }}", "b": "{{ normal(0, 1) }}"} for n in range(500)}, 2)
    assert len(made[1]) == 500


def test_alerts_are_raised_by_the_events_that_were_made():
    rule = {"when": "{{ x == 5 }}", "severity": "CRITICAL", "message": "event {{ seq }} of {{ stream }} has {{ x }}"}
    made = support.build({"x": SOMETIMES}, alert=rule)
    batch = made.next_batch(support.NOW, 100)
    fives = [event.seq for event in batch.events if json.loads(event.value)["data"]["x"] == 5]
    assert [(one.seq, one.severity, one.message) for one in batch.signals] == [
        (seq, "CRITICAL", f"event {seq} of S has 5") for seq in fives
    ]
    assert fives


def test_overlays_draw_alike_and_leave_the_stream_as_it_was():
    plain, laid = (
        support.build({"x": "{{ randint(1, 9) }}", "y": 1}),
        support.build({"x": "{{ randint(1, 9) }}", "y": 1}),
    )
    expected = support.events(plain.next_batch(support.NOW, 6))
    first = support.events(laid.next_batch(support.NOW, 2, {"y": "{{ x * 100 }}", "z": 3}))
    rest = support.events(laid.next_batch(support.NOW, 4))
    assert [one["data"]["x"] for one in first + rest] == [one["data"]["x"] for one in expected]
    assert first[0]["data"] == {"x": expected[0]["data"]["x"], "y": 100 * expected[0]["data"]["x"], "z": 3}
    assert rest[0]["data"]["y"] == 1


def test_an_overlay_that_cannot_be_compiled_is_an_error():
    batch = support.build({"x": 1}).next_batch(support.NOW, 1, {"x": "{{ nobody }}"})
    assert "'nobody' is undefined" in batch.error.cause


def test_many_overlays_do_not_pile_up():
    made = support.build({"x": 1})
    for number in range(200):
        made.next_batch(support.NOW, 1, {"x": number})
    assert len(made._variants) < 50
    assert made.seq == 200


def test_a_batch_may_be_made_in_several_calls():
    made = support.build({"i": "{{ index }}"})
    first = made.next_batch(support.NOW, 2)
    rest = made.next_batch(support.NOW, 2, base=first.events[0].seq)
    again = made.next_batch(support.NOW, 1)
    assert [one["data"]["i"] for batch in (first, rest, again) for one in support.events(batch)] == [0, 1, 2, 3, 0]


def test_a_batch_of_none():
    batch = support.build({"x": 1}).next_batch(support.NOW, 0)
    assert batch == ([], [], None, [], [0], 0)


def test_a_text_by_itself():
    shop = support.workshop()
    assert alerts.text(shop, "at {{ now }} {{ randint(1, 9) }}", support.NOW, "run").startswith(
        "at 2026-11-23T12:00:00.123Z "
    )
    assert alerts.text(shop, "{{ uuid() }}", support.NOW, "a") != alerts.text(shop, "{{ uuid() }}", support.NOW, "b")
    with pytest.raises(stream.errors.RenderError, match="ZeroDivisionError"):
        alerts.text(shop, "{{ 1 / 0 }}", support.NOW, "run")
