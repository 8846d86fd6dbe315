"""Reconnects: all that was missed, in order, or an honest no."""

from __future__ import annotations

from typing import Any

import pytest

from tests.process import Daemon

STREAM = "TRANSACTION_STREAM"


def position(event: dict[str, Any]) -> dict[str, Any]:
    return {"epoch": event["epoch"], "seq": event["seq"]}


def test_what_was_missed_comes_whole_and_in_order(daemon: Daemon) -> None:
    with daemon.reader() as reader:
        reader.subscribe("dashboard-updates")
        reader.until(lambda _: len(reader.events()) >= 20)
        seen = {name: reader.events(name) for name in {event["subject"] for event in reader.events()}}
    after = {name: position(events[-1]) for name, events in seen.items()}
    for name in (STREAM, "SYSTEM_METRICS", "RISK_EVENTS"):
        daemon.burst(name, 40)
    with daemon.reader() as reader:
        answer = reader.subscribe("dashboard-updates", after=after)["streams"]
        assert len(reader.events()) == 0, "the answer comes before what is replayed"
        for name in after:
            assert answer[name]["recovered"] is True
            assert answer[name]["replayed"] == answer[name]["seq"] - after[name]["seq"]
        assert answer[STREAM]["replayed"] >= 40
        reader.event(STREAM, answer[STREAM]["seq"] + 20)
        for name, events in seen.items():
            numbers = [event["seq"] for event in events + reader.events(name)]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), name


def test_many_short_connections_miss_nothing(daemon: Daemon) -> None:
    events: list[dict[str, Any]] = []
    after: dict[str, Any] = {}
    for _ in range(6):
        with daemon.reader() as reader:
            answer = reader.subscribe(STREAM, after=after)["streams"][STREAM]
            assert answer["recovered"] is bool(after)
            wanted = answer["replayed"] + 4
            reader.until(lambda _, reader=reader, wanted=wanted: len(reader.events()) >= wanted)
            events += reader.events()
        after = {STREAM: position(events[-1])}
    numbers = [event["seq"] for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.parametrize(
    "wrong",
    [{"epoch": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}, {"seq": 10**9}],
    ids=["unknown epoch", "a number that is not there yet"],
)
def test_a_position_that_does_not_exist_is_not_recovered(daemon: Daemon, wrong: dict[str, Any]) -> None:
    with daemon.reader() as reader:
        known = reader.subscribe(STREAM)["streams"][STREAM]
    after = {STREAM: {"epoch": known["epoch"], "seq": known["seq"], **wrong}}
    with daemon.reader() as reader:
        answer = reader.subscribe(STREAM, after=after)["streams"][STREAM]
        assert answer["recovered"] is False and answer["replayed"] == 0
        assert answer["epoch"] == known["epoch"]
        assert reader.event(STREAM)["seq"] == answer["seq"] + 1, "it goes on live"


def test_a_gap_that_is_no_longer_held_is_not_recovered_in_part(daemon: Daemon) -> None:
    with daemon.reader() as reader:
        reader.subscribe("PROJECT_UPDATES")
        daemon.burst("PROJECT_UPDATES", 1)
        after = {"PROJECT_UPDATES": position(reader.event("PROJECT_UPDATES"))}
        _, last = daemon.burst("PROJECT_UPDATES", 8000)
        reader.event("PROJECT_UPDATES", last)
    with daemon.reader() as reader:
        answer = reader.subscribe("PROJECT_UPDATES", after=after)["streams"]["PROJECT_UPDATES"]
        assert answer["recovered"] is False and answer["replayed"] == 0
        first, _ = daemon.burst("PROJECT_UPDATES", 1)
        assert reader.event("PROJECT_UPDATES")["seq"] == answer["seq"] + 1 <= first


def test_rewind_shows_the_newest(daemon: Daemon) -> None:
    with daemon.reader() as reader:
        reader.subscribe("COMPLIANCE_ALERTS")
        _, last = daemon.burst("COMPLIANCE_ALERTS", 20)
        reader.event("COMPLIANCE_ALERTS", last)
    with daemon.reader() as reader:
        answer = reader.subscribe("compliance-alert", rewind=7)["streams"]["COMPLIANCE_ALERTS"]
        assert answer["replayed"] == 7
        reader.event("COMPLIANCE_ALERTS", answer["seq"])
        assert [event["seq"] for event in reader.events()] == list(range(answer["seq"] - 6, answer["seq"] + 1))


def test_the_query_form_does_what_a_message_does(daemon: Daemon) -> None:
    daemon.burst("COMPLIANCE_ALERTS", 5)
    with daemon.reader("?channel=COMPLIANCE_ALERTS&channel=system&rewind=3") as reader:
        assert reader.until("subscribed")["data"]["channels"] == ["COMPLIANCE_ALERTS", "system"]
        reader.until(lambda _: len(reader.events()) >= 3)
    with daemon.reader("?channel=COMPLIANCE_ALERT") as reader:
        assert reader.until("error")["data"]["near"]


def test_each_client_has_its_own_subscription(daemon: Daemon) -> None:
    with daemon.reader("?channel=COMPLIANCE_ALERTS") as one, daemon.reader("?channel=RISK_EVENTS") as other:
        one.until("subscribed")
        other.until("subscribed")
        daemon.burst("RISK_EVENTS", 2)
        daemon.burst("COMPLIANCE_ALERTS", 2)
        one.event("COMPLIANCE_ALERTS")
        other.event("RISK_EVENTS")
        assert {event["subject"] for event in one.events()} == {"COMPLIANCE_ALERTS"}
        assert {event["subject"] for event in other.events()} == {"RISK_EVENTS"}
