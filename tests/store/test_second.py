"""Two daemons that would generate into one database, without Kafka: one does, and the other one says which."""

from __future__ import annotations

import concurrent.futures
import pathlib
import signal

import httpx

from tests import databases, process

STREAMS = """seed: 5
streams:
  TICK:
    interval: 20ms
    topic: t.tick
    fields: {n: "{{ seq }}"}
"""
ROWS = "SELECT epoch, seq FROM regstream.events WHERE stream = 'TICK' ORDER BY time, seq"


def start(folder: pathlib.Path, url: str, **env: str) -> process.Daemon:
    folder.mkdir()
    (folder / "streams.yaml").write_text(STREAMS)
    return process.Daemon(folder, DATABASE_URL=url, **env)


def holders(url: str) -> int:
    return len(databases.rows(url, "SELECT pid FROM pg_locks WHERE locktype = 'advisory'"))


def generates(daemon: process.Daemon) -> bool:
    try:
        return bool(daemon.get("/health")["streaming"]["isStreaming"])
    except httpx.TransportError:
        # One that takes over does not listen for a moment
        return False


def test_one_generates_and_the_other_one_takes_over_when_it_is_gone(tmp_path: pathlib.Path, database_url: str) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        both = list(
            pool.map(lambda name: start(tmp_path / name, database_url, VPS_SERVER_NAME=name), ("alpha", "beta"))
        )
    # Where nothing is generated, nothing is kept from others
    idle = start(tmp_path / "idle", database_url, ENABLE_STREAMING="false")
    try:
        (maker,), (reader,) = ([one for one in both if generates(one) is is_maker] for is_maker in (True, False))
        health = reader.get("/health")
        reason = health["streaming"]["reason"]
        for part in (
            "another daemon generates into the database",
            maker.folder.name,
            "since 20",
            "another database here",
        ):
            assert part in reason
        assert (health["status"], reader.get("/api/streaming/status")["dataStreamer"]["reason"]) == ("degraded", reason)
        assert len(reader.complaints) == 1 and reason in reader.complaints[0]
        refused = reader.http.post("/api/streaming/burst", json={"streamType": "TICK", "count": 1})
        assert (refused.status_code, refused.json()["detail"]) == (409, reason)
        seq = maker.burst("TICK", 5)[1]
        process.eventually(
            lambda: (reader.get("/api/streaming/events?stream=TICK&limit=1")["events"] or [{"seq": 0}])[0]["seq"] >= seq
        )
        # Whose connection is lost has it again before any other one may
        databases.rows(database_url, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        process.eventually(lambda: holders(database_url) == 1)
        assert generates(maker) and not generates(reader) and maker.get("/health")["streaming"].get("reason") is None
        # It is known again at once
        maker.stop(signal.SIGKILL)
        maker.start()
        assert generates(maker) and not generates(reader)
        assert "reason" not in idle.get("/health")["streaming"]
        assert maker.stop() == 0
        made = len(databases.rows(database_url, ROWS))
        process.eventually(lambda: generates(reader), what="the other one takes over")
        assert (reader.get("/health")["status"], str(reader.get("/health")["streaming"].get("reason", ""))) == (
            "ok",
            "",
        )
        process.eventually(lambda: len(databases.rows(database_url, ROWS)) > made + 20)
    finally:
        codes = [one.stop(seconds=10) for one in (*both, idle) if one.process.poll() is None]
    assert set(codes) == {0}
    by_epoch: dict[str, list[int]] = {}
    for epoch, number in databases.rows(database_url, ROWS):
        by_epoch.setdefault(epoch, []).append(number)
    # What the other one may still have on disk cannot meet the same numbers
    assert len(by_epoch) == 2
    assert all(sorted(numbers) == list(range(1, len(numbers) + 1)) for numbers in by_epoch.values())
