"""Late, twice, never: event time apart from the time at which events are made."""

from __future__ import annotations

import datetime
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from regstream.generator import stream
from tests import profiles
from tests.generate import support

FIELDS = {"at": "{{ now }}", "n": "{{ seq }}", "id": "{{ uuid() }}", "i": "{{ index }}"}
ROWS = (support.entity("accounts", {"id": "{{ index }}", "balance": 0}, 3),)
CHANGING = {"with": {"a": "{{ pick('accounts') }}"}, "update": {"a.balance": "{{ a.balance + 1 }}"}, "entities": ROWS}


def seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def build(arrival: dict[str, Any], fields: dict[str, Any] | None = None, **rest: Any) -> stream.Stream:
    return support.build(fields or FIELDS, arrival=arrival, **rest)


def test_the_time_of_an_event_is_when_it_happened_and_not_when_it_was_made():
    made = build({"late": "{{ exponential(30) }}"}).next_batch(support.NOW, 2000)
    events = support.events(made)
    ages = [seconds(one["recordedtime"]) - seconds(one["time"]) for one in events]
    assert {one["recordedtime"] for one in events} == {"2026-11-23T12:00:00.123Z"}
    assert min(ages) >= 0 and 28 < sum(ages) / len(ages) < 32
    assert [one["data"]["at"] for one in events] == [one["time"] for one in events]
    assert [one.head.time for one in made.events] == [one["time"] for one in events]
    times = [one["time"] for one in events]
    assert times != sorted(times)
    assert list(events[0])[5:7] == ["time", "recordedtime"]


def test_a_part_is_late_and_by_a_fixed_time():
    events = support.events(build({"late": 90, "late_share": "25%"}).next_batch(support.NOW, 4000))
    ages = [round(seconds(one["recordedtime"]) - seconds(one["time"]), 3) for one in events]
    assert set(ages) == {0.0, 90.0}
    assert abs(ages.count(90.0) / 4000 - 0.25) < 0.03


def test_a_duplicate_is_the_event_before_with_a_number_of_its_own():
    made = build({"duplicates": "20%", "late": "{{ uniform(0, 9) }}"}, key="{{ id }}").next_batch(support.NOW, 4000)
    events = support.events(made)
    assert [one["seq"] for one in events] == list(range(1, 4001))
    assert [one["id"] for one in events] == [f"S/epoch/{number}" for number in range(1, 4001)]
    twice = 0
    for before, event, pair in zip(events, events[1:], itertools.pairwise(made.events), strict=False):
        if event["data"]["id"] == before["data"]["id"]:
            twice += 1
            assert (event["data"], event["time"]) == (before["data"], before["time"])
            assert pair[0].key == pair[1].key and pair[1].head.time == event["time"]
        else:
            assert event["data"]["n"] == event["seq"]
    assert abs(twice / 4000 - 0.2) < 0.03


def test_rows_change_once_and_alerts_are_raised_once_for_a_duplicate():
    alert = {"when": "{{ true }}", "severity": "INFO", "message": "{{ n }}"}
    made = build({"duplicates": "30%"}, {"n": "{{ seq }}", "b": "{{ a.balance }}"}, alert=alert, **CHANGING)
    batch = made.next_batch(support.NOW, 1000)
    whole = {one["data"]["n"] for one in support.events(batch)}
    assert 600 < len(whole) < 800
    assert sum(row["balance"] for row in made.workshop.pools["accounts"]) == len(whole) == len(batch.signals)
    assert len(batch.touched) == len(whole)


def test_what_is_lost_changes_rows_and_is_no_event():
    made = build({"loss": "25%"}, {"b": "{{ a.balance }}"}, **CHANGING)
    batches = [made.next_batch(support.NOW, 10, losing=True) for _ in range(200)]
    events = [one for batch in batches for one in batch.events]
    lost = sum(batch.lost for batch in batches)
    assert len(events) + lost == 2000 and abs(lost / 2000 - 0.25) < 0.04
    assert [one.seq for one in events] == list(range(1, len(events) + 1))
    assert sum(row["balance"] for row in made.workshop.pools["accounts"]) == 2000
    # A burst is as long as was asked for
    assert len(made.next_batch(support.NOW, 100).events) == 100


ARRIVALS = [
    {"late": "{{ exponential(30) }}", "late_share": "50%"},
    {"duplicates": "30%"},
    {"loss": "30%"},
    {"late": "{{ seq % 5 }}", "duplicates": "20%", "loss": "20%"},
]


@pytest.mark.parametrize("arrival", ARRIVALS)
@settings(max_examples=profiles.examples(20))
@given(some.lists(some.integers(1, 30), min_size=1, max_size=6))
def test_neither_batches_nor_speed_change_it(arrival, counts):
    fields = {"id": "{{ uuid() }}", "b": "{{ a.balance }}", "x": "{{ 10 // randint(0, 9) }}"}
    one, two, three = (build(arrival, fields, **CHANGING) for _ in range(3))
    ticks = [stream.Tick(support.NOW, count) for count in counts]
    together = one.next_ticks(ticks)
    apart = [two.next_batch(*tick, losing=True) for tick in ticks]
    assert [event.value for event in together.events] == [event.value for each in apart for event in each.events]
    assert together.counts == [len(each.events) for each in apart]
    assert together.lost == sum(each.lost for each in apart)
    whole = three.next_batch(support.NOW, sum(counts), losing=True)
    assert [event.value for event in whole.events] == [event.value for event in together.events]


def test_an_event_that_fails_leaves_nothing_behind():
    made = build({"late": "{{ seq }}"}, {"x": "{{ 1 // (seq - 6) }}", "n": "{{ seq }}"})
    batch = made.next_batch(support.NOW, 10)
    assert len(batch.events) == 5 and batch.error is not None
    assert [one.head.time for one in batch.events] == [one["time"] for one in support.events(batch)]
    again = made.next_batch(support.NOW, 10)
    assert len(again.events) == len(again.counts) - 1 == 0


@pytest.mark.parametrize("late", ["{{ 0 - 1 }}", "{{ 'soon' }}", "{{ 10 ** 12 }}", True])
def test_a_lateness_that_is_none_is_a_fault_of_its_place(late):
    batch = build({"late": late}).next_batch(support.NOW, 1)
    assert batch.error.field == "arrival.late"
    assert "is not a number of seconds" in batch.error.cause


def test_it_cannot_ask_for_what_follows_from_it():
    for late in ("{{ now }}", "{{ n }}", "{{ a.balance }}"):
        found = support.faults(FIELDS, arrival={"late": late}, entities=ROWS, **{"with": CHANGING["with"]})
        assert [(one.path, "undefined" in one.message) for one in found] == [(("arrival", "late"), True)]


def test_without_it_nothing_is_different():
    plain = json.loads(support.build(FIELDS).next_batch(support.NOW, 1).events[0].value)
    assert "recordedtime" not in plain
