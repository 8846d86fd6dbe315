"""A whole daemon that replays: over HTTP and the command line, onto every way out, and into Kafka."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests import databases, process
from tests.kafka import clusters
from tests.store import making

BASE = "/api/streaming"
QUIET = """streams:
  QUIET:
    schedule: "0 0 29 2 *"
    topic: t.quiet
    fields: {n: "{{ seq }}", who: "{{ choice(['a', 'b']) }}"}
    key: "{{ who }}"
  OTHER:
    schedule: "0 0 29 2 *"
    topic: t.other
    fields: {n: "{{ seq }}"}
    alert: {when: "{{ seq == 3 }}", severity: WARNING, message: "three"}
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "streams.yaml").write_text(QUIET)
    return tmp_path


@pytest.fixture
def daemon(folder: pathlib.Path, database_url: str) -> Iterator[process.Daemon]:
    one = process.Daemon(folder, DATABASE_URL=database_url)
    yield one
    assert one.stop() == 0


def made(daemon: process.Daemon, **counts: int) -> dict[str, str]:
    """Events at once; gives the time that all of them are in."""
    since = making_time(-1)
    for stream, count in counts.items():
        daemon.post("burst", {"streamType": stream, "count": count})
    return {"from": since, "to": making_time(+1)}


def making_time(ahead: float) -> str:
    return making.stamp(time.time() + ahead - making.SECOND)


def ended(daemon: process.Daemon, run: dict[str, Any], state: str = "completed") -> dict[str, Any]:
    def look() -> dict[str, Any]:
        return daemon.get(f"{BASE}/replay/{run['runId']}")

    process.eventually(lambda: look()["ended"], making.BOUND, "the end of the replay")
    found = look()
    assert found["state"] == state, found
    return found


def test_dashboards_get_marked_events_and_their_positions_stay(daemon: process.Daemon) -> None:
    span = made(daemon, QUIET=5, OTHER=4)
    with daemon.reader() as reader:
        before = reader.subscribe("dashboard-updates")["streams"]
        run = daemon.post("replay", {**span, "speed": "max"}, 202)
        frames = [replayed(reader) for _ in range(10)]
        ended(daemon, run)
        assert sorted((one["data"]["subject"], one["data"]["seq"]) for one in frames) == [
            ("ALERTS", 1), *(("OTHER", n) for n in (1, 2, 3, 4)), *(("QUIET", n) for n in (1, 2, 3, 4, 5)),
        ]  # fmt: skip
        assert all(one["replay"] is True and one["data"]["replay"] is True for one in frames)
        assert all(one["event"] == one["data"]["type"] for one in frames)
        daemon.post("burst", {"streamType": "QUIET", "count": 1})
        live = json.loads(reader.socket.recv(timeout=process.SECONDS))
        while live["event"] == "system":
            live = json.loads(reader.socket.recv(timeout=process.SECONDS))
        assert "replay" not in live and "replay" not in live["data"]
        assert (live["data"]["seq"], before["QUIET"]["seq"]) == (6, 5)
    # A reader that comes later stands where it stood
    with daemon.reader() as reader:
        answer = reader.subscribe("QUIET", after={"QUIET": {"epoch": before["QUIET"]["epoch"], "seq": 5}})
        assert answer["streams"]["QUIET"] == {**answer["streams"]["QUIET"], "recovered": True, "replayed": 1, "seq": 6}
    # They are no second time in the database, nor in the rings
    page = daemon.get(f"{BASE}/events?stream=QUIET")
    assert [one["seq"] for one in page["events"]] == [1, 2, 3, 4, 5, 6]


def replayed(reader: process.Reader) -> dict[str, Any]:
    while True:
        frame: dict[str, Any] = json.loads(reader.socket.recv(timeout=process.SECONDS))
        if frame["event"] not in ("system", "welcome", "subscribed"):
            return frame


def test_server_sent_events_are_marked_and_their_id_does_not_move(daemon: process.Daemon) -> None:
    span = made(daemon, QUIET=3)
    with httpx.stream("GET", f"{daemon.url}{BASE}/stream?channel=QUIET&rewind=3", timeout=process.SECONDS) as answer:
        lines = answer.iter_lines()
        before = [one for one in take_events(lines, 4) if one["event"] != "subscribed"]
        daemon.post("replay", {**span, "streams": ["QUIET"], "speed": "max"}, 202)
        again = take_events(lines, 3)
    assert [json.loads(one["data"])["seq"] for one in again] == [1, 2, 3]
    assert all(json.loads(one["data"])["replay"] for one in again)
    assert {one["id"] for one in again} == {before[-1]["id"]}


def take_events(lines: Iterator[str], count: int) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    one: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            one[name] = value
        elif one.get("data"):
            found.append(one)
            one = {}
            if len(found) == count:
                break
    return found


def test_runs_are_paused_resumed_and_cancelled_by_their_id(daemon: process.Daemon, database_url: str) -> None:
    for _ in range(4):
        made(daemon, QUIET=1)
        time.sleep(0.25)
    databases.rows(database_url, "SELECT 1")
    span = {"from": making_time(-60), "to": making_time(1)}
    assert daemon.get(f"{BASE}/events?stream=QUIET")["events"]
    run = daemon.post("replay", {**span, "speed": 0.1}, 202)
    where = f"replay/{run['runId']}"
    process.eventually(lambda: daemon.get(f"{BASE}/{where}")["sent"] >= 1)
    assert daemon.post(f"{where}/pause", {})["state"] == "paused"
    assert daemon.post(f"{where}/resume", {})["state"] == "running"
    assert httpx.delete(f"{daemon.url}{BASE}/{where}").json()["state"] == "cancelled"
    assert httpx.post(f"{daemon.url}{BASE}/{where}/pause").status_code == 409
    assert [one["runId"] for one in daemon.get(f"{BASE}/replay")["replays"]] == [run["runId"]]
    calls = daemon.get(f"{BASE}/audit")["calls"]
    assert [one["action"] for one in calls if "replay" in one["action"]] == [
        "replay_events", "pause_replay", "resume_replay", "cancel_replay", "pause_replay",
    ]  # fmt: skip


REFUSED: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({"from": "2026-11-26T13:00:00Z", "to": "2026-11-26T12:00:00Z"}, 400, "before to"),
    ({"from": "yesterday", "to": "2026-11-26T12:00:00Z"}, 400, "not a time"),
    ({"to": "2026-11-26T12:00:00Z"}, 400, "from"),
    ({"from": 0, "to": 1000, "speed": 0}, 400, "not a speed"),
    ({"from": 0, "to": 1000, "speed": "fast"}, 400, "not a speed"),
    ({"from": 0, "to": 1000, "streams": ["NOBODY"]}, 404, "NOBODY"),
    ({"from": 0, "to": 1000, "streams": ["x' OR 1=1"]}, 400, "streams"),
    ({"from": 0, "to": 1000, "topic": "t.quiet"}, 409, "that of a stream"),
    ({"from": 0, "to": 1000, "topic": "reginsight.alerts"}, 409, "that of a stream"),
    ({"from": 0, "to": 1000, "topic": "copy", "topics": {"QUIET": "x"}}, 400, "not both"),
    ({"from": 0, "to": 1000, "streams": ["QUIET", "OTHER"], "topics": {"QUIET": "x"}}, 400, "no topic for OTHER"),
    ({"from": 0, "to": 1000, "topic": "copy"}, 409, "KAFKA_BROKER"),
)


def test_what_cannot_be_replayed_is_refused_with_its_cause(daemon: process.Daemon) -> None:
    for body, status, words in REFUSED:
        answer = httpx.post(f"{daemon.url}{BASE}/replay", json=body)
        assert answer.status_code == status, (body, answer.text)
        assert words in answer.text, body
    assert daemon.get(f"{BASE}/replay")["replays"] == []


def test_without_a_database_it_says_so(folder: pathlib.Path) -> None:
    daemon = process.Daemon(folder)
    answer = httpx.post(f"{daemon.url}{BASE}/replay", json={"from": 0, "to": 1000})
    assert (answer.status_code, "DATABASE_URL" in answer.text) == (409, True)
    assert daemon.get(f"{BASE}/replay") == {"replays": []}
    assert httpx.get(f"{daemon.url}{BASE}/replay/x").status_code == 404
    assert daemon.stop() == 0


class TestTheCommand:
    def test_follows_a_replay_to_its_end(self, daemon: process.Daemon) -> None:
        span = made(daemon, QUIET=40)
        done = process.run("replay", "--from", span["from"], "--to", span["to"], "--speed", "max", "--url", daemon.url)
        assert (done.returncode, done.stdout) == (0, "completed, 40 events sent again\n"), done.stderr

    def test_ctrl_c_cancels_it(self, daemon: process.Daemon) -> None:
        made(daemon, QUIET=1)
        time.sleep(0.5)
        span = made(daemon, QUIET=1)
        command = process.command("replay", "--from", making_time(-30), "--to", span["to"], "--speed", "0.001")
        running = subprocess.Popen(
            [*command, "--url", daemon.url], env=process.environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        process.eventually(lambda: [one for one in daemon.get(f"{BASE}/replay")["replays"] if one["sent"]])
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=process.SECONDS)
        assert (running.returncode, output) == (1, "cancelled, 1 events sent again\n")
        assert daemon.get(f"{BASE}/replay")["replays"][0]["state"] == "cancelled"

    def test_says_what_is_wrong(self, daemon: process.Daemon) -> None:
        for arguments, code, words in (
            (("--from", "x", "--to", "y"), 1, "not a time"),
            (("--from", "0", "--to", "1", "--speed", "fast"), 2, "neither a number nor max"),
            (("--from", "0", "--to", "1", "--url", "http://127.0.0.1:9"), 1, "is the daemon running?"),
            (("--from", "0"), 2, "--to"),
        ):
            done = process.run("replay", "--url", daemon.url, *arguments)
            assert done.returncode == code and words in done.stderr, done


def test_tail_shows_what_is_replayed_as_such(daemon: process.Daemon) -> None:
    span = made(daemon, QUIET=2)
    tail = subprocess.Popen(
        process.command("tail", "--url", daemon.url, "-c", "QUIET", "-n", "3", "--rewind", "1"),
        env=process.environment(NO_COLOR="1"), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert tail.stdout is not None
    first = tail.stdout.readline()
    assert " QUIET #2 " in first and not first.startswith("replay")
    daemon.post("replay", {**span, "speed": "max"}, 202)
    rest = tail.communicate(timeout=process.SECONDS)[0].splitlines()
    assert [line.split(" ")[0] for line in rest] == ["replay", "replay"] and "#1" in rest[0]


class TestKafka:
    @pytest.fixture(autouse=True)
    def _need(self, request: pytest.FixtureRequest) -> None:
        clusters.need(request.node.nodeid)

    def test_topics_of_ones_own_get_what_was_recorded_from_topics(
        self, folder: pathlib.Path, database_url: str, shared_cluster: Any
    ) -> None:
        daemon = process.Daemon(folder, DATABASE_URL=database_url, KAFKA_BROKER=shared_cluster.bootstrap)
        process.eventually(lambda: daemon.get("/health")["kafka"]["connected"], making.BOUND)
        span = made(daemon, QUIET=300, OTHER=3)
        recorded = "SELECT value, key FROM regstream.events WHERE stream = 'QUIET' ORDER BY seq"
        rows = process.eventually(
            lambda: len(found := databases.rows(database_url, recorded)) == 300 and found, making.BOUND
        )
        body = {**span, "speed": "max", "topics": {"QUIET": "copy.quiet"}}
        assert ended(daemon, daemon.post("replay", body, 202))["sent"] == 300
        found = read(shared_cluster.bootstrap, "copy.quiet", 300)
        assert sorted(one[:2] for one in found) == sorted((value.encode(), key.encode()) for value, key in rows)
        assert all(("replay", b"true") in one[2] for one in found)
        # What was sent again is not shown, nor recorded
        assert databases.rows(database_url, "SELECT count(*) FROM regstream.events WHERE stream = 'QUIET'") == [(300,)]
        refused = httpx.post(f"{daemon.url}{BASE}/replay", json={**span, "topic": "t.quiet"})
        assert refused.status_code == 409
        assert daemon.stop() == 0


def read(servers: str, topic: str, count: int) -> list[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    """What is on a topic, by a client of its own."""
    import asyncio

    import aiokafka

    async def work() -> list[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
        consumer = aiokafka.AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")
        await consumer.start()
        try:
            found = []
            async with asyncio.timeout(making.BOUND):
                while len(found) < count:
                    one = await consumer.getone()
                    found.append((one.value, one.key, list(one.headers)))
            return found
        finally:
            await consumer.stop()

    return asyncio.run(work())
