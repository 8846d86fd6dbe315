"""The CloudEvent: its fields and their order, its time, its escapes, and the bytes that all readers get."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from regstream import spec
from regstream.event import Head, Position
from regstream.generator import alerts, stream
from regstream.generator import batch as batches
from tests.generate import support

ORDER = [
    "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "epoch", "seq", "priority",
    "region", "data",
]  # fmt: skip


def test_the_fields_stand_in_the_order_of_the_contract():
    made = support.build({"a": 1}, name="BUDGET", event="budget-update", priority="HIGH")
    event = made.next_batch(support.NOW, 1).events[0]
    assert event.value == (
        b'{"specversion":"1.0","id":"BUDGET/epoch/1","source":"/regstream/LATAM/test","type":"budget-update",'
        b'"subject":"BUDGET","time":"2026-11-23T12:00:00.123Z","datacontenttype":"application/json","epoch":"epoch",'
        b'"seq":1,"priority":"HIGH","region":"LATAM","data":{"a":1}}'
    )
    assert list(json.loads(event.value)) == ORDER


def test_the_event_says_what_its_bytes_say():
    made = support.build({"a": "{{ seq }}"}, key="k{{ seq }}", topic="t.x", event="e-x")
    made.seq = 1249
    event = made.next_batch(support.NOW, 2).events[1]
    whole = json.loads(event.value)
    assert (event.id, event.seq, event.head.time) == (whole["id"], whole["seq"], whole["time"])
    assert event.position == Position(whole["epoch"], 1251) == made.position
    assert (event.key, event.head.topic, event.head.type, event.head.stream) == ("k1251", "t.x", "e-x", "S")


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (0.9999, "1970-01-01T00:00:00.999Z"),
        (1_795_435_200.0, "2026-11-23T12:00:00.000Z"),
        (1_795_435_200.0405, "2026-11-23T12:00:00.040Z"),
        (4_102_444_799.999, "2099-12-31T23:59:59.999Z"),
    ],
)
def test_the_time_has_milliseconds_and_z(now, text):
    event = support.build({"x": "{{ now }}"}).next_batch(now, 1).events[0]
    assert json.loads(event.value)["time"] == event.head.time == json.loads(event.value)["data"]["x"] == text


@given(some.text(max_size=20), some.text(max_size=20), some.text(max_size=20), some.integers(1, 2**63))
def test_any_name_source_and_region_are_escaped(name, source, region, seq):
    head = Head("S" + name, "e" + name, "t" + name, "topic", spec.Priority.LOW, "time", region)
    before, between, after = batches.envelope(head, source)
    number = b"%d" % seq
    whole = json.loads(b"".join((before, number, between, number, after, b"{}", b"}")))
    assert list(whole) == ORDER
    assert whole["id"] == f"S{name}/e{name}/{seq}"
    assert (whole["subject"], whole["source"], whole["region"]) == ("S" + name, source, region)


@pytest.mark.parametrize("odd", ['"', "\\", "\n\r\t\0\x1f", "ñandú", "日本", "\U0001f600", "</script>", "a\u2028b"])
def test_odd_characters_in_identity_and_data(odd):
    spec = support.stream_spec({odd: odd, "t": "{{ x }}{{ stream }}"}, with_={"x": odd}, key=odd)
    shop = stream.GenerationContext(support.catalog(spec), 7, stream.Identity(f"/{odd}", odd))
    event = stream.Stream(spec, shop, "e").next_batch(support.NOW, 1).events[0]
    whole = json.loads(event.value)
    assert (whole["source"], whole["region"]) == (f"/{odd}", odd)
    assert whole["data"] == {odd: odd, "t": f"{odd}S"}
    assert event.key == odd


@given(some.recursive(
    some.one_of(some.none(), some.booleans(), some.integers(-(2**63), 2**64 - 1), some.text(),
                some.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: some.one_of(some.lists(inner, max_size=3), some.dictionaries(some.text(), inner, max_size=3)),
    max_leaves=6,
).filter(lambda value: not any(mark in repr(value) for mark in ("{{", "{%", "{#"))))  # fmt: skip
def test_data_carries_any_json(value):
    assert support.data({"x": value})[0]["x"] == value


@pytest.mark.parametrize("value", [math.nan, math.inf, [1, {"a": -math.inf}], 2**64, "\ud800", ["\ud800"]])
def test_what_json_cannot_carry_is_a_fault_at_load(value):
    found = support.faults({"x": value})
    assert [one.path[:2] for one in found] == [("fields", "x")]


@pytest.mark.parametrize(
    ("key", "expected"),
    [("", None), ("plain", "plain"), ("{{ seq }}", "1"), ("{{ none }}", None), ("{{ [1] }}", "[1]"), ("{{ x }}", "X"),
     ("{{ now }}", "2026-11-23T12:00:00.123Z"), ("{{ 'a' | upper }}", "A"), ("{{ ('<' | escape) }}", "&lt;")],
)  # fmt: skip
def test_keys_are_text_or_none(key, expected):
    event = support.build({"x": "X"}, key=key).next_batch(support.NOW, 1).events[0]
    assert event.key == expected
    assert type(event.key) in (str, type(None))


def test_a_priority_may_be_given_for_a_batch():
    made = support.build({"x": 1}, priority="LOW")
    said = [
        support.events(made.next_batch(support.NOW, 1, priority=one))[0]["priority"]
        for one in (None, spec.Priority.CRITICAL, None)
    ]
    assert said == ["LOW", "CRITICAL", "LOW"]


def test_alerts_are_events_of_their_own_stream():
    spec = support.stream_spec({"x": 1}, "ALERTS")
    source = stream.Stream(spec, support.workshop(spec), "e")
    source.seq = 5
    data = [
        {"severity": "WARNING", "message": "a \"b\"", "stream": "S", "causeSeq": 3, "scenario": None, "runId": None},
        {"severity": "INFO", "message": "c", "stream": None, "causeSeq": None, "scenario": "CRISIS", "runId": "r"},
    ]  # fmt: skip
    made = alerts.batch(source, [alerts.Raised(support.NOW, one) for one in data])
    whole = [json.loads(one.value) for one in made]
    assert [list(one) for one in whole] == [ORDER, ORDER]
    assert [one["data"] for one in whole] == data
    assert [(one["id"], one["seq"]) for one in whole] == [("ALERTS/e/6", 6), ("ALERTS/e/7", 7)]
    assert {(one["type"], one["priority"]) for one in whole} == {("immediate-alert", "CRITICAL")}
    assert [one.key for one in made] == ["S", "CRISIS"]
    assert {one.head.topic for one in made} == {"reginsight.alerts"}
    assert source.position == ("e", 7)


def test_an_event_larger_than_a_broker_takes_is_an_error():
    made = support.build({f"f{n}": "{{ 'x' * 190000 }}" for n in range(6)}).next_batch(support.NOW, 1)
    assert made.events == []
    assert "the limit is 1000000" in made.error.cause
    assert support.data({f"f{n}": "{{ 'x' * 190000 }}" for n in range(5)})
