"""Edits of the files: in force a moment later, or refused as a whole."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.process import Daemon, Reader, eventually

VISITS = """
  BRANCH_VISITS:
    interval: 4s
    event: branch-visit
    fields: {branch: "{{ choice(['Centro', 'Norte']) }}", visitors: "{{ randint(1, 40) }}"}
"""
BROKEN = """
  BRANCH_VISITS:
    interval: 4 seconds
    fields: {branch: "{{ choise(['Centro', 'Norte']) }}"}
"""


class Files:
    """The streams file of the daemon, and how it was."""

    def __init__(self, daemon: Daemon) -> None:
        self.path = daemon.folder / "streams.yaml"
        self.shipped = self.path.read_text()

    def append(self, text: str) -> int:
        """Add text at the end; the number of the line before it."""
        self.write(self.shipped + text)
        return self.shipped.count("\n")

    def write(self, text: str) -> None:
        """Replace the file as editors do: another file is renamed over it."""
        beside = self.path.with_suffix(".tmp")
        beside.write_text(text)
        beside.replace(self.path)


@pytest.fixture
def files(daemon: Daemon) -> Iterator[Files]:
    files = Files(daemon)
    yield files
    files.path.write_text(files.shipped)
    daemon.post("reload")


def generation(daemon: Daemon) -> int:
    return int(daemon.get("/api/streaming/status")["config"]["generation"])


def untouched(reader: Reader, stream: str = "TRANSACTION_STREAM") -> None:
    """The stream went on without a gap or a new epoch, over whatever happened."""
    events = reader.events(stream)
    assert len(events) > 3
    assert len({event["epoch"] for event in events}) == 1
    assert [event["seq"] for event in events] == list(range(events[0]["seq"], events[0]["seq"] + len(events)))


def test_a_stream_that_is_added_is_heard_seconds_later_and_one_that_is_removed_falls_silent(
    daemon: Daemon, files: Files
) -> None:
    before = generation(daemon)
    with daemon.reader() as reader:
        reader.subscribe("dashboard-updates", "system")
        files.append(VISITS)
        told = reader.system("reloaded")
        assert told["added"] == ["BRANCH_VISITS"] and told["changed"] == told["removed"] == []
        assert told["generation"] == generation(daemon) == before + 1
        event = reader.event("BRANCH_VISITS")
        assert event["type"] == "branch-visit" and event["seq"] == 1
        assert event["data"]["branch"] in ("Centro", "Norte") and isinstance(event["data"]["visitors"], int)
        reader.subscribe("BRANCH_VISITS")
        files.write(files.shipped)
        assert reader.system("reloaded")["removed"] == ["BRANCH_VISITS"]
        assert daemon.http.get("/api/streaming/streams/BRANCH_VISITS").status_code == 404
        reader.send(action="subscribe", channels=["BRANCH_VISITS"])
        reader.until("error")
        untouched(reader)


def test_a_stream_that_is_changed_keeps_its_numbers(daemon: Daemon, files: Files) -> None:
    with daemon.reader() as reader:
        epoch = reader.subscribe("RISK_EVENTS", "system")["streams"]["RISK_EVENTS"]["epoch"]
        daemon.burst("RISK_EVENTS", 3)
        files.write(files.shipped.replace("interval: 3m", "interval: 4s"))
        assert reader.system("reloaded")["changed"] == ["RISK_EVENTS"]
        assert daemon.stream("RISK_EVENTS")["interval"] == 200
        reader.until(lambda _: len(reader.events()) >= 10)
        untouched(reader, "RISK_EVENTS")
        assert reader.events()[0]["epoch"] == epoch


def test_a_broken_edit_is_refused_with_every_problem_and_everything_goes_on(daemon: Daemon, files: Files) -> None:
    before = generation(daemon)
    with daemon.reader() as reader:
        reader.subscribe("system", "TRANSACTION_STREAM")
        lines = files.append(BROKEN)
        told = reader.system("reload-refused")
        assert [problem["line"] for problem in told["problems"]] == [lines + 3, lines + 4]
        health = daemon.get("/health")
        assert health["status"] == "degraded" and "2 problems" in health["config"]["error"]
        assert daemon.http.get("/health/ready").status_code == 200
        answer = daemon.http.post("/api/streaming/reload")
        assert answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json"
        first, second = answer.json()["problems"]
        assert (first["line"], second["line"]) == (lines + 3, lines + 4)
        assert first["file"].endswith("streams.yaml") and first["path"] == "streams.BRANCH_VISITS.interval"
        assert first["column"] == len("    interval: ") + 1
        assert "choise" in second["message"] and "choice" in second["hint"]
        assert generation(daemon) == before
        seen = len(reader.events())
        reader.until(lambda _: len(reader.events()) > seen + 5)
        files.write(files.shipped)
        assert reader.system("reloaded")["added"] == []
        health = daemon.get("/health")
        assert health["status"] == "ok" and health["config"]["error"] is None
        assert generation(daemon) == before + 1
        untouched(reader)


def test_a_dry_run_tells_and_changes_nothing(daemon: Daemon) -> None:
    receipt = daemon.post("reload?dryRun=true")
    assert receipt["dryRun"] is True and receipt["added"] == receipt["changed"] == receipt["removed"] == []
    assert len(receipt["unchanged"]) == 6
    assert receipt["generation"] == generation(daemon)


def test_sighup_and_post_go_through_the_same_door(daemon: Daemon) -> None:
    before = generation(daemon)
    with daemon.reader() as reader:
        reader.subscribe("system", "TRANSACTION_STREAM")
        daemon.tell(signal.SIGHUP)
        told = reader.system("reloaded")
        assert told["generation"] == before + 1 and told["reason"] == "SIGHUP"
        receipt = daemon.post("reload", {})
        assert receipt["generation"] == before + 2
        assert (receipt["added"], receipt["changed"], receipt["removed"]) == ([], [], [])
        assert reader.system("reloaded")["generation"] == before + 2
        seen = len(reader.events())
        reader.until(lambda _: len(reader.events()) > seen + 5)
        untouched(reader)


def test_a_scenario_that_is_added_can_be_simulated_and_one_that_is_removed_is_gone(daemon: Daemon) -> None:
    path = daemon.folder / "scenarios" / "quick.yaml"
    path.write_text("name: QUICK\nsteps:\n  - alert: {message: quick}\n")
    run = eventually(lambda: started(daemon, "QUICK"))
    eventually(lambda: daemon.get(f"/api/streaming/simulate/{run['runId']}")["state"] == "completed")
    path.unlink()
    names = lambda: {one["name"] for one in daemon.get("/api/streaming/scenarios")["scenarios"]}  # noqa: E731
    eventually(lambda: "QUICK" not in names())


def started(daemon: Daemon, scenario: str) -> Any:
    answer = daemon.http.post("/api/streaming/simulate", json={"scenario": scenario})
    return answer.json() if answer.status_code == 202 else None


@pytest.mark.parametrize("damage", ["gone", "empty", "binary", "folder"])
def test_a_file_that_cannot_be_read_stops_nothing(daemon: Daemon, files: Files, damage: str) -> None:
    files.path.unlink()
    if damage == "folder":
        files.path.mkdir()
    elif damage != "gone":
        files.path.write_bytes({"empty": b"", "binary": b"\x00\xff\xfe\x01" * 100}[damage])
    try:
        health = eventually(lambda: (one := daemon.get("/health"))["config"]["error"] and one)
        assert health["status"] == "degraded"
        assert daemon.http.post("/api/streaming/reload").status_code == 422
        first, last = daemon.burst("TRANSACTION_STREAM", 2)
        assert last == first + 1
    finally:
        if files.path.is_dir():
            files.path.rmdir()
