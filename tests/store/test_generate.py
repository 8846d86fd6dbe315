"""A past in the database: written once, gone on with after a kill -9, and then lived on from."""

from __future__ import annotations

import collections
import datetime
import json
import pathlib
import signal
import time
from typing import Any

import pytest

from tests import databases, process
from tests.cli.test_generate import STREAMS
from tests.store import making

ROWS = 'SELECT stream, epoch, seq, "time", value FROM regstream.events ORDER BY stream, epoch, seq'


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    # Neither reader of the shared rows can be passed over; APART can
    (tmp_path / "streams.yaml").write_text(
        STREAMS + '  APART: {interval: 300ms, batch_size: 3, fields: {id: "{{ uuid() }}", i: "{{ index }}"}}\n'
    )
    return tmp_path


def rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    found = collections.defaultdict(list)
    for row in databases.rows(url, ROWS):
        found[row[0]].append(row)
    return found


def made(folder: pathlib.Path, *arguments: str) -> dict[str, list[str]]:
    done = process.run("generate", *arguments, "--out", "out.jsonl", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = collections.defaultdict(list)
    for line in (folder / "out.jsonl").read_text().splitlines():
        found[json.loads(line)["subject"]].append(line)
    return found


def check(found: dict[str, list[tuple[Any, ...]]], expected: dict[str, list[str]], timed: bool = True) -> None:
    """Whether the rows are these events, byte by byte, in the numbers that both have, without a gap."""
    for stream, some in found.items():
        assert [row[2] for row in some] == list(range(1, len(some) + 1)), stream
        for row, line in zip(some, expected[stream], strict=False):
            if timed:
                assert row[4] == line
            else:
                assert json.loads(row[4])["data"]["id"] == json.loads(line)["data"]["id"]


def test_it_is_written_once_whatever_is_asked_how_often(folder: pathlib.Path, database_url: str) -> None:
    wanted = ["--from", "2026-01-01", "--duration", "10m"]
    expected = made(folder, *wanted)
    command = ["generate", *wanted, "--out", "postgres"]
    env = {"DATABASE_URL": database_url}
    # A first part, the whole, and the whole again
    for arguments in ([*command, "--duration", "4m"], command, command):
        done = process.run(*arguments, cwd=folder, **env)
        assert done.returncode == 0, done.stderr
    assert "0 events of" in done.stderr
    found = rows(database_url)
    assert {name: len(some) for name, some in found.items()} == {name: len(some) for name, some in expected.items()}
    check(found, expected)
    other = process.run(*command, "--seed", "8", cwd=folder, **env)
    assert other.returncode == 1
    assert "that did not begin so" in other.stderr


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_as_if_nothing_had_been(folder: pathlib.Path, database_url: str) -> None:
    begin = datetime.datetime.fromtimestamp(int(time.time()) - 1200, datetime.UTC).isoformat()
    daemon = process.Daemon(folder, "--port", "0", "--from", begin, DATABASE_URL=database_url)
    try:
        process.eventually(lambda: sum(map(len, rows(database_url).values())) > 4000, making.BOUND)
        assert daemon.get("/api/streaming/status")["dataStreamer"]["history"]["done"] < 1
        daemon.stop(signal.SIGKILL)
        daemon.start()
        process.eventually(
            lambda: daemon.get("/api/streaming/status")["dataStreamer"].get("history") is None, making.BOUND
        )
        seam = daemon.stream("PAID")["seq"]
        process.eventually(lambda: len(rows(database_url)["PAID"]) > seam + 3, making.BOUND)
        # And in the middle of what is live
        daemon.stop(signal.SIGKILL)
        daemon.start()
        process.eventually(lambda: len(rows(database_url)["PAID"]) > seam + 10, making.BOUND)
        missed = sum(one["missed"] for one in daemon.streams())
    finally:
        daemon.stop()
    found = rows(database_url)
    ages = [row[3].timestamp() for some in found.values() for row in some]
    assert max(ages) <= time.time()
    # The alerts of what is live are numbered as they come, which is for the streams themselves to tell
    alerts = found.pop("ALERTS")
    assert [row[2] for row in alerts] == list(range(1, len(alerts) + 1))
    check(found, made(folder, "--from", begin, "--duration", "40m"), timed=not missed)
