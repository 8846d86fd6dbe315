"""History over HTTP: order, cursor, times."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstream import errors
from regstream.server import cursors, timestamps
from tests.server.test_routes import BASE, is_problem


async def _burst(live: Any, count: int) -> None:
    body = {"streamType": "SYSTEM_METRICS", "count": count}
    made = (await live.client.post(f"{BASE}/burst", json=body)).json()
    await live.until(lambda: _last(live) >= made["lastSeq"])


def _last(live: Any) -> int:
    return max((entry.seq for entry in live.services.hub.events(["SYSTEM_METRICS"])), default=0)


async def test_a_cursor_walks_through_everything_once(live: Any) -> None:
    await _burst(live, 1)
    page = await live.get("/events?stream=SYSTEM_METRICS&limit=1")
    assert page["more"] is False
    await _burst(live, 25)
    seen, pages = [], 0
    while True:
        page = await live.get(f"/events?stream=SYSTEM_METRICS&limit=10&after={page['cursor']}")
        seen += [event["seq"] for event in page["events"]]
        pages += 1
        if not page["more"]:
            break
    assert (pages, seen) == (3, list(range(2, 27)))
    last = await live.get(f"/events?stream=SYSTEM_METRICS&after={page['cursor']}")
    assert last == {"events": [], "cursor": page["cursor"], "more": False}


async def test_without_a_cursor_come_the_newest(live: Any) -> None:
    await _burst(live, 30)
    page = await live.get("/events?stream=SYSTEM_METRICS&limit=10")
    assert [event["seq"] for event in page["events"]] == list(range(21, 31))
    assert page["more"] is False


async def test_times_bound_what_is_shown(live: Any) -> None:
    await _burst(live, 2)
    events = (await live.get("/events?stream=SYSTEM_METRICS"))["events"]
    time = events[0]["time"]
    assert (await live.get(f"/events?stream=SYSTEM_METRICS&since={time}"))["events"] == events
    assert (await live.get(f"/events?stream=SYSTEM_METRICS&until={time}"))["events"] == []
    for bound in ("since=9999-12-31T23:59:60-23:59", "since=999999999999999", "until=0001-01-01T00:00:00%2B14:00"):
        assert (await live.get(f"/events?stream=SYSTEM_METRICS&{bound}"))["events"] == []


async def test_an_event_is_the_bytes_of_the_broker(live: Any) -> None:
    await _burst(live, 1)
    entry = live.services.hub.events(["SYSTEM_METRICS"])[-1]
    response = await live.client.get(f"{BASE}/events?stream=SYSTEM_METRICS&limit=1")
    assert entry.value in response.content


async def test_a_cursor_of_another_life_is_refused(live: Any) -> None:
    foreign = cursors.write(live.services.engine.started_at - 5, 3)
    is_problem(await live.client.get(f"{BASE}/events?after={foreign}"), 409)


def test_cursors_go_round() -> None:
    assert cursors.read(1234.5, cursors.write(1234.5, 99)) == 99
    for bad in ("", "1", "-1", "1-", "1-2-3", "g-1", "1--1", "1-٣"):
        with pytest.raises(errors.BadValue):
            cursors.read(1234.5, bad)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("0", 0.0),
        ("1700000000123", 1700000000.123),
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01t00:00:01.5z", 1.5),
        ("1970-01-01 01:00:00+01:00", 0.0),
        ("1970-01-01T01:00:00 01:00", 0.0),
        ("1969-12-31T23:00:00-01:00", 0.0),
        ("2016-12-31T23:59:60Z", 1483228800.0),
    ],
)
def test_times_that_are_understood(written: str, seconds: float) -> None:
    assert timestamps.parse(written) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    "written", ["", "-1", "1.5", "9" * 16, "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "٣", None, 5]
)
def test_times_that_are_not(written: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        timestamps.parse(written)


@given(st.integers(min_value=0, max_value=4_102_444_800_000))
def test_what_is_written_is_read_back(milliseconds: int) -> None:
    text = timestamps.text(milliseconds / 1000)
    assert abs(timestamps.parse(text) * 1000 - milliseconds) <= 1
