"""What arrives on ``/ws`` without asking for more than a channel: six streams, whole and in order."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator

import pytest

from tests.process import Daemon

SHIPPED = {
    "BUDGET_UPDATES": "budget-update",
    "PROJECT_UPDATES": "project-status-update",
    "COMPLIANCE_ALERTS": "compliance-alert",
    "TRANSACTION_STREAM": "transaction-update",
    "RISK_EVENTS": "risk-event",
    "SYSTEM_METRICS": "production-metrics",
}
ULID = r"[0-9A-HJKMNP-TV-Z]{26}"


def test_something_is_there_within_seconds_and_every_stream_within_half_a_minute(daemon: Daemon) -> None:
    with daemon.reader("?channel=dashboard-updates&rewind=1000") as reader:
        reader.until(lambda frame: "specversion" in frame["data"], 10, "any event")
        reader.until(lambda _: {one["subject"] for one in reader.events()} >= set(SHIPPED), 30, "each stream")


def test_an_event_is_a_cloudevent(daemon: Daemon) -> None:
    with daemon.reader("?channel=dashboard-updates&rewind=100") as reader:
        reader.until(lambda _: len(reader.events()) >= 20)
        for frame in reader.frames:
            event = frame["data"]
            if "specversion" not in event:
                continue
            assert list(event) == [
                *("specversion", "id", "source", "type", "subject", "time", "datacontenttype"),
                *("epoch", "seq", "priority", "region", "data"),
            ]
            assert event["specversion"] == "1.0"
            assert event["id"] == f"{event['subject']}/{event['epoch']}/{event['seq']}"
            assert event["source"] == "/regstream/LATAM/VPS-DataStreamer"
            assert event["region"] == "LATAM"
            assert frame["event"] == event["type"] == {**SHIPPED, "ALERTS": "immediate-alert"}[event["subject"]]
            assert event["datacontenttype"] == "application/json"
            assert event["priority"] in ("CRITICAL", "HIGH", "NORMAL", "LOW")
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
            age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(event["time"])
            assert datetime.timedelta(seconds=-5) < age < datetime.timedelta(minutes=5)
            assert re.fullmatch(ULID, event["epoch"])
            assert isinstance(event["data"], dict) and event["data"]


def test_seq_rises_by_exactly_one(daemon: Daemon) -> None:
    with daemon.reader() as reader:
        begin = reader.subscribe("dashboard-updates")["streams"]
        assert set(begin) == {*SHIPPED, "ALERTS"}
        reader.until(lambda _: len(reader.events("TRANSACTION_STREAM")) >= 30)
        seen = {name: [event["seq"] for event in reader.events(name)] for name in begin}
    for name, numbers in seen.items():
        first = begin[name]["seq"] + 1
        assert numbers == list(range(first, first + len(numbers))), name


def test_welcome_comes_first_and_names_every_channel(daemon: Daemon) -> None:
    with daemon.reader() as reader:
        frame = reader.next()
        assert frame["event"] == "welcome"
        expected = {"dashboard-updates", "immediate-alert", "system", *SHIPPED, *SHIPPED.values()}
        assert expected <= set(frame["data"]["channels"])


@pytest.mark.parametrize("channel", ["TRANSACTION_STREAM", "transaction-update"])
def test_a_channel_carries_its_stream_and_nothing_else(daemon: Daemon, channel: str) -> None:
    with daemon.reader() as reader:
        data = reader.subscribe(channel)
        assert data["channels"] == [channel]
        assert list(data["streams"]) == ["TRANSACTION_STREAM"]
        reader.until(lambda _: len(reader.events()) >= 10)
        assert {event["subject"] for event in reader.events()} == {"TRANSACTION_STREAM"}


def test_two_channels_of_one_stream_show_an_event_once(daemon: Daemon) -> None:
    with daemon.reader() as reader:
        reader.subscribe("TRANSACTION_STREAM", "transaction-update", "dashboard-updates")
        reader.subscribe("TRANSACTION_STREAM")
        reader.until(lambda _: len(reader.events("TRANSACTION_STREAM")) >= 10)
        numbers = [event["seq"] for event in reader.events("TRANSACTION_STREAM")]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_ping_unsubscribe_and_errors_are_answered(daemon: Daemon) -> None:
    with daemon.reader() as reader:
        reader.send(action="ping")
        assert reader.until("pong")["data"]["time"]
        reader.subscribe("SYSTEM_METRICS", "system")
        reader.send(action="unsubscribe", channels=["SYSTEM_METRICS"])
        assert reader.until("unsubscribed")["data"]["channels"] == ["SYSTEM_METRICS"]
        reader.send(action="subscribe", channels=["TRANSACTION_STREAMS", "SYSTEM_METRICS"])
        error = reader.until("error")["data"]
        assert error["near"][0] == "TRANSACTION_STREAM" and "TRANSACTION_STREAMS" in error["message"]
        reader.send(action="subscrib", channels=["SYSTEM_METRICS"])
        assert "subscribe" in reader.until("error")["data"]["message"]
        after = len(reader.frames)
        daemon.burst("SYSTEM_METRICS", 2)
        reader.send(action="ping")
        reader.until("pong")
        assert [frame["event"] for frame in reader.frames[after:]] == ["pong"]


def test_a_ping_of_the_protocol_is_answered_and_disturbs_no_message(daemon: Daemon) -> None:
    with daemon.reader() as reader:
        reader.until("welcome")
        assert reader.socket.ping().wait(20)
        pongs = []

        def parts() -> Iterator[str]:
            yield '{"action": '
            pongs.append(reader.socket.ping())
            yield '"ping"}'

        reader.socket.send(parts())
        reader.until("pong")
        assert pongs[0].wait(20)


@pytest.mark.parametrize("text", ["not json", '["subscribe"]', b"\x00\x01"])
def test_what_is_no_message_is_closed_with_4009(daemon: Daemon, text: str | bytes) -> None:
    with daemon.reader() as reader:
        reader.until("welcome")
        reader.socket.send(text)
        assert reader.closed() == 4009


def test_a_message_that_is_too_large_is_closed_with_1009(daemon: Daemon) -> None:
    with daemon.reader() as reader:
        reader.until("welcome")
        reader.socket.send("x" * 200_000)
        assert reader.closed() == 1009


def test_a_fault_of_one_client_disturbs_no_other(daemon: Daemon) -> None:
    with daemon.reader() as steady, daemon.reader() as faulty:
        begin = steady.subscribe("TRANSACTION_STREAM")["streams"]["TRANSACTION_STREAM"]["seq"]
        faulty.socket.send("}")
        assert faulty.closed() == 4009
        steady.until(lambda _: len(steady.events()) >= 20)
        assert [event["seq"] for event in steady.events()][:20] == list(range(begin + 1, begin + 21))


def test_the_streams_can_be_joined_by_what_they_share(daemon: Daemon) -> None:
    streams = ("BUDGET_UPDATES", "PROJECT_UPDATES", "COMPLIANCE_ALERTS")
    for name in streams:
        daemon.burst(name, 20)
    stored = {name: daemon.get(f"/api/streaming/events?stream={name}&limit=1000")["events"] for name in streams}
    people = [{event["data"]["svpId"] for event in events} for events in stored.values()]
    assert people[0] & people[1] & people[2]
