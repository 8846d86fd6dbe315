"""Declarations tried before they come into force: what is found, what it costs, and what is not tried."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from regstream import spec
from regstream.generator import check, trial
from tests.generate import support

CASE: dict[str, Any] = {
    "name": "case",
    "count": 5,
    "key": "id",
    "fields": {"id": "{{ index }}"},
    "states": {
        "OPEN": {"lasts": "1d", "then": {"WON": 1, "LOST": 1}},
        "WON": {"lasts": "1d", "then": {"OVER": 1}},
        "LOST": {"lasts": "1d", "then": {"OVER": 1}},
        "OVER": {"lasts": "1d"},
    },
}


def begun(**more: Any) -> trial.Trial:
    return trial.Trial({}, 7, support.NOW, time.thread_time, **more)


def tried(fields: dict[str, Any], *entities: spec.EntitySpec, within: trial.Trial | None = None, **rest: Any) -> Any:
    """What is found in a stream and its entities."""
    made = within or begun()
    found = [fault for one in entities for fault in check.check_entity(one, {}, None, made)]
    return found + check.check_stream(support.stream_spec(fields, **rest), {}, {}, made)


def described(faults: list[check.Fault]) -> list[str]:
    return [f"{one.severity} {'.'.join(one.path)}: {one.message}" for one in faults]


def test_events_and_rows_are_those_of_the_run():
    svp = support.entity("svp", {"id": "{{ digits(9) }}", "x": "{{ uniform(0, 1) }}"}, count=40)
    shop = support.workshop(support.stream_spec({"n": 1}), entities=(svp,))
    made = begun()
    assert check.check_entity(svp, {}, None, made) == []
    assert made._pools["svp"] == shop.pools["svp"]


def test_every_way_from_state_to_state_is_tried():
    case = spec.EntitySpec.model_validate(CASE)
    ways = [(None, "OPEN"), ("OPEN", "WON"), ("OPEN", "LOST"), ("WON", "OVER"), ("LOST", "OVER")]
    for was, state in ways:
        broken = f"{{{{ 1 // (0 if (was, state) == ({was!r}, '{state}') else 1) }}}}".replace("None", "none")
        (found,) = tried({"x": broken}, case, follow="case")
        assert found.path == ("fields", "x")
        assert found.message.endswith(f"comes into {state}" + (f" from {was}" if was else ""))
    assert tried({"x": "{{ row.id }} {{ row.since }} {{ row.state == state }}"}, case, follow="case") == []


def test_what_fails_in_another_month_is_a_warning():
    at = time.gmtime(support.NOW).tm_mon
    (found,) = tried({"x": f"{{{{ 1 // (1 if now.month == {at} else 0) }}}}"})
    assert described([found])[0].startswith("warning fields.x: x: ZeroDivisionError: ")
    assert tried({"x": "{{ [0, 1, 2, 3, 4, 5, 6][now.weekday()] }}", "y": "{{ now.hour / 24 }}"}) == []


def test_what_fails_for_some_draws_is_a_warning():
    (found,) = tried({"x": "{{ 10 // randint(0, 4) }}"})
    assert described([found]) == [
        "warning fields.x: x: ZeroDivisionError: integer division or modulo by zero, for some draws"
    ]


def test_a_key_that_is_in_rows_that_were_not_made_is_no_fault():
    account = support.entity("account", {"id": "ACC-{{ '%07d' % index }}", "n": 1}, count=1_000_000)
    made = begun()
    found = tried(
        {"x": "{{ find('account', 'ACC-0900001').n }}", "y": "{{ pick('account', zipf=1.1).id }}"}, account, within=made
    )
    assert found == []
    (note,) = made.notes
    assert note.path == ("entities", "account", "count")
    assert note.message.endswith(" of 1,000,000 rows were tried")


def test_the_last_row_is_tried_too():
    account = support.entity("account", {"id": "{{ index }}", "n": "{{ 1 // (index - 999999) }}"}, count=1_000_000)
    (found,) = tried({"n": 1}, account)
    assert found.message.endswith("in row 1000000")


def test_rows_are_in_blocks_that_do_not_overlap():
    for count in (1, 31, 512, 5_000, 5_001, 5_033, 20_000, 1_000_000):
        spans = list(trial._spans(count))
        numbers = [number for first, size in spans for number in range(first, first + size)]
        assert numbers == sorted(set(numbers)) and numbers[0] == 1
        assert numbers[-1] == count or (count > trial.ROWS and count - numbers[-1] < 2 * 32)
        assert len(numbers) == count or trial.ROWS <= len(numbers) <= trial.ROWS + 101 * 32


def test_the_time_is_bounded_and_what_was_left_out_is_said():
    ticks = itertools.count()
    # A clock by which each look takes a second
    made = trial.Trial({}, 7, support.NOW, lambda: float(next(ticks)))
    big = support.entity("big", {"id": "{{ index }}"}, count=5_000)
    assert tried({"x": "{{ pick('big').id }}"}, big, within=made) == []
    assert 1 <= len(made._pools["big"]) < 5_000
    assert tried({"x": "{{ 1 / 0 }}"}, within=made) == []
    assert [note.message for note in made.notes] == [
        "count: 1 of 5,000 rows were tried",
        "S: no event was tried, the time was up",
        "S: no event was tried, the time was up",
    ]


def test_an_overlay_leaves_the_rows_as_they_were():
    svp = support.entity("svp", {"id": "{{ index }}", "spent": 0})
    made = begun()
    declared: dict[str, Any] = {
        "with": {"svp": "{{ pick('svp') }}"}, "fields": {"spent": "{{ svp.spent + 1 }}"},
        "update": {"svp.spent": "{{ spent }}"},
    }  # fmt: skip
    check.check_entity(svp, {}, None, made)
    spec = support.stream_spec(**declared)
    assert check.check_stream(spec, {}, {}, made) == []
    before = [dict(row) for row in made._pools["svp"]]
    assert check.check_overlay(spec, {"spent": "many"}, made) == []
    assert [dict(row) for row in made._pools["svp"]] == before


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"x": "{{ {} | list }}"}, None),
        ({"x": "{{ 'x'.upper }}"}, "fields.x"),
        ({"x": {"y": "{{ 1e308 * uniform(10, 20) }}"}}, "fields.x.y"),
        ({"x": "{{ [1, 2][randint(2, 3)] }}"}, "fields.x"),
    ],
)
def test_what_json_cannot_carry_is_found_in_its_field(fields: dict[str, Any], place: str | None):
    assert [".".join(one.path) for one in tried(fields)] == ([place] if place else [])
