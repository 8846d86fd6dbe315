"""Several ticks made at once are the ticks made one after the other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from regstream.generator import stream
from tests import profiles
from tests.generate import support

FIELDS = {
    "at": "{{ now }}",
    "day": "{{ now.weekday() }}",
    "place": "{{ index }}",
    "n": "{{ seq }}",
    "u": "{{ uniform(0, 1) }}",
    "who": "{{ fake('name') }}",
}
# What fails: nothing; now and then, so that other draws mend it; for good at one number; all of an hour
FAULTS = [
    "1",
    "{{ 10 // randint(0, 3) }}",
    "{{ 1 // (seq - 7) }}",
    "{{ 1 // (now.minute // 30) }}",
]
TICKS = some.lists(some.tuples(some.integers(0, 7200), some.integers(0, 6)), max_size=12)


@pytest.mark.parametrize("template", FAULTS)
@settings(max_examples=profiles.examples(40))
@given(ticks=TICKS)
def test_many_at_once_are_the_same_as_one_by_one(template, ticks):
    fields = {**FIELDS, "x": template}
    alert = {"when": "{{ u > 0.5 }}", "severity": "INFO", "message": "{{ n }}"}
    together, apart = (support.build(fields, alert=alert) for _ in range(2))
    wanted = [stream.Tick(support.NOW + after, count) for after, count in sorted(ticks)]
    whole = together.next_ticks(wanted)
    each = [apart.next_batch(*tick) for tick in wanted]
    assert whole.events == [event for batch in each for event in batch.events]
    assert whole.signals == [signal for batch in each for signal in batch.signals]
    assert whole.counts == [len(batch.events) for batch in each]
    assert together.position == apart.position
    first = next((batch.error for batch in each if batch.error), None)
    assert str(whole.error) == str(first)


@pytest.mark.parametrize("loss", ["0%", "20%"])
def test_one_that_is_strict_ends_at_the_first_fault(loss):
    fields = {"n": "{{ seq }}", "x": "{{ 1 // (now.minute // 30) }}"}
    ticks = [stream.Tick(support.NOW + 1_800 - support.NOW % 3_600 + second, 1) for second in range(1_700, 1_900)]
    first, second = (support.build(fields, arrival={"loss": loss}) for _ in range(2))
    strict, patient = first.next_ticks(ticks, strict=True), second.next_ticks(ticks)
    assert str(strict.error) == str(patient.error) != "None"
    # What is lost cannot fail
    assert 101 <= len(strict.counts) <= (101 if loss == "0%" else 120) and len(patient.counts) == 200
    assert strict.events == patient.events[: len(strict.events)] != []


def test_the_time_of_a_tick_is_that_of_its_events():
    made = support.build(FIELDS)
    batch = made.next_ticks([stream.Tick(0.0, 2), stream.Tick(86_400.5, 1)])
    found = [
        (one["time"], one["data"]["at"], one["data"]["day"], one["data"]["place"]) for one in support.events(batch)
    ]
    first, second = "1970-01-01T00:00:00.000Z", "1970-01-02T00:00:00.500Z"
    assert found == [(first, first, 3, 0), (first, first, 3, 1), (second, second, 4, 0)]
    assert [event.head.time for event in batch.events] == [first, first, second]


ACCOUNT = support.entity("accounts", {"id": "{{ index }}", "balance": 10})
OWNER = support.entity("owners", {"id": "{{ index }}", "account": "{{ pick('accounts') }}"})
CITY = support.entity("cities", {"id": "{{ index }}", "name": "x"})
READS = {"with": {"a": "{{ pick('accounts') }}"}}
CHANGES = {**READS, "update": {"a.balance": "{{ a.balance + 1 }}"}}
TOGETHER = [
    ([{}, {}], ["S0", "S1"]),
    ([READS, READS], ["S0", "S1"]),
    ([READS, CHANGES, {}], ["S2", "S0 S1"]),
    ([CHANGES, {}, CHANGES], ["S1", "S0 S2"]),
    # Through a row of an owner, and through statements, whose picks are only known when they run
    ([CHANGES, {"fields": {"x": "{{ pick('owners').account.balance }}"}}], ["S0 S1"]),
    ([CHANGES, {"fields": {"x": "{% if seq %}{{ pick('acc' ~ 'ounts').balance }}{% endif %}"}}], ["S0 S1"]),
    ([CHANGES, {"fields": {"x": "{% if seq %}1{% endif %}"}}], ["S0", "S1"]),
    ([CHANGES, {"fields": {"x": "{{ pick('cities').name }}"}}], ["S0", "S1"]),
    (
        [
            {"with": {"c": "{{ pick('cities') }}"}, "update": {"c.name": "y"}},
            CHANGES,
            {"fields": {"x": "{{ pick('cities').name }}{{ pick('accounts').balance }}"}},
        ],
        ["S0 S1 S2"],
    ),
]


@pytest.mark.parametrize(("declared", "expected"), TOGETHER)
def test_streams_belong_together_that_share_rows_that_change(declared, expected):
    specs = [
        support.stream_spec(rest.pop("fields", {"n": 1}), f"S{n}", **rest) for n, rest in enumerate(map(dict, declared))
    ]
    shop = support.workshop(*specs, entities=(ACCOUNT, OWNER, CITY))
    found = stream.partition_by_shared_rows(stream.Stream(spec, shop, "e") for spec in specs)
    assert sorted(map(" ".join, found)) == sorted(expected)


def test_a_row_that_holds_itself_is_a_fault_and_no_end():
    changing = {"with": {"a": "{{ pick('accounts') }}"}, "update": {"a.balance": "{{ a }}"}}
    one = support.build(
        {"a": "{{ a }}"}, entities=(support.entity("accounts", {"id": 1, "balance": 1}, 1),), **changing
    )
    batch = one.next_batch(support.NOW, 3)
    assert len(batch.events) == 1
    assert batch.error.field == "fields.a"
    assert "ecursion" in batch.error.cause
