"""What the client asks for when it comes back, and which events are news, without a connection."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from regstream.client import wire
from regstream.event import Position

KNOWN = {"dashboard-updates", "system", *(f"STREAM_{n:04d}" for n in range(1000))}
EVENTS = st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from(["E1", "E2", "E3"]), st.integers(1, 9)), max_size=60)


def told(seq: int, **more: Any) -> dict[str, Any]:
    return {"epoch": "E1", "seq": seq, "recovered": False, "replayed": 0, **more}


def after(count: int) -> dict[str, Position]:
    return {f"STREAM_{n:04d}": Position("01ARZ3NDEKTSV4RRFFQ69G5FAV", 10**9 + n) for n in range(count)}


def event(stream: str, epoch: str, seq: int) -> dict[str, Any]:
    return {"subject": stream, "epoch": epoch, "seq": seq}


def test_many_streams_are_asked_for_in_messages_that_a_daemon_takes() -> None:
    many = wire.Following(("dashboard-updates",), after(1000), 5, {"policy": "conflate"})
    messages = many.requests(KNOWN)
    assert len(messages) == 8 == many.unanswered
    assert all(len(json.dumps(one)) < 64 * 1024 and len(one["channels"]) <= 100 for one in messages)
    assert {name: place for one in messages for name, place in one["after"].items()} == {
        name: place._asdict() for name, place in after(1000).items()
    }
    assert all(one["channels"] == list(one["after"]) and "rewind" not in one for one in messages[:-1])
    assert (messages[-1]["channels"], messages[-1]["rewind"]) == (["dashboard-updates"], 5)
    assert {one["policy"] for one in messages} == {"conflate"}


def test_streams_that_the_daemon_does_not_have_are_not_asked_for_by_name() -> None:
    many = wire.Following(("dashboard-updates",), after(1000), 0, {})
    (message,) = many.requests({"dashboard-updates"})
    assert len(message["after"]) == 300


def test_places_off_the_channels_make_nobody_follow_more() -> None:
    some = wire.Following(("STREAM_0999", "STREAM_0998"), after(1000), 0, {})
    (message,) = some.requests(KNOWN)
    assert message["channels"] == ["STREAM_0999", "STREAM_0998"]
    assert {"STREAM_0999", "STREAM_0998"} < set(message["after"])


def test_a_later_answer_on_a_connection_does_not_move_what_an_earlier_one_spoke_of() -> None:
    all_ = wire.Following(("dashboard-updates",), after(1), 0, {})
    all_.requests(KNOWN)
    assert all_.answer({"streams": {"A": told(5)}})["streams"] == {"A": told(5)}
    assert all_.answer({"streams": {"A": told(9), "B": told(2)}})["streams"] == {"B": told(2)}
    assert all_.positions["A"] == ("E1", 5)
    all_.requests(KNOWN)
    all_.answer({"streams": {"A": told(9)}})
    assert all_.positions["A"] == ("E1", 9)


def test_a_daemon_that_is_behind_does_not_take_anyone_back() -> None:
    one = wire.Following(("A",), {"A": Position("E1", 50)}, 0, {})
    one.requests({"A"})
    one.answer({"streams": {"A": told(40)}})
    assert [one.advance(event("A", "E1", seq)) for seq in (41, 50, 51)] == [False, False, True]


def test_a_snapshot_is_asked_for_again_in_place_of_a_rewind() -> None:
    one = wire.Following(("A",), {}, 0, {"snapshot": True})
    one.requests({"A"})
    one.answer({"streams": {"A": told(40, snapshot=2), "B": told(3, snapshot=0)}})
    (message,) = one.requests({"A"})
    assert message == {
        "action": "subscribe",
        "channels": ["A"],
        "snapshot": True,
        "rewind": 0,
        "after": {"B": {"epoch": "E1", "seq": 3}},
    }


def test_a_long_row_of_epochs_is_not_remembered_for_ever() -> None:
    places = wire.Places({})
    for number in range(100):
        assert places.advance("A", f"E{number}", 1)
    assert places.positions == {"A": ("E99", 1)}
    assert not places.advance("A", "E95", 1)
    assert len(places._epochs["A"]) == wire.KEPT_EPOCHS


@given(EVENTS)
def test_each_event_is_news_once_and_numbers_only_rise(events: list[tuple[str, str, int]]) -> None:
    places = wire.Places({})
    given_out = [one for one in events if places.advance(*one)]
    assert len(set(given_out)) == len(given_out)
    for stream, epoch in {one[:2] for one in given_out}:
        numbers = [seq for name, where, seq in given_out if (name, where) == (stream, epoch)]
        assert numbers == sorted(numbers)
        assert numbers[-1] == max(seq for name, where, seq in events if (name, where) == (stream, epoch))
    for stream, position in places.positions.items():
        assert [one[1:] for one in given_out if one[0] == stream][-1] == position
