"""What the daemon logs, and how: for people, for the journal, for programs; and what each part says when asked to."""

from __future__ import annotations

import json
import logging
import os
import pathlib
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from regstream import logs, settings
from tests import process


@pytest.fixture
def record() -> Callable[..., logging.LogRecord]:
    def make(message: str, level: int = logging.INFO, **more: Any) -> logging.LogRecord:
        one = logging.LogRecord("regstream.engine", level, __file__, 1, message, None, more.pop("exc_info", None))
        one.created = 1_795_348_800.9996
        one.__dict__.update(more)
        return one

    return make


def test_json_says_when_what_and_of_what(record: Callable[..., logging.LogRecord]) -> None:
    line = logs.JsonFormatter().format(record('two "lines"\nof ü', stream="ONE", run="R1", event_id="ONE/E/7"))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-11-22T12:00:00.999Z", "level": "INFO", "logger": "regstream.engine",
        "message": 'two "lines"\nof ü', "stream": "ONE", "run": "R1", "eventId": "ONE/E/7",
    }  # fmt: skip


def test_json_holds_the_traceback(record: Callable[..., logging.LogRecord]) -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        line = json.loads(logs.JsonFormatter().format(record("x", logging.ERROR, exc_info=(ValueError, error, None))))
    assert line["error"] == "ValueError: broken" and "stream" not in line


@pytest.mark.parametrize(
    ("level", "mark"),
    [(logging.DEBUG, "<7>"), (logging.INFO, "<6>"), (logging.WARNING, "<4>"), (logging.ERROR, "<3>"),
     (logging.CRITICAL, "<2>")],
)  # fmt: skip
def test_the_journal_gets_the_level_of_each_line(
    record: Callable[..., logging.LogRecord], level: int, mark: str
) -> None:
    error = ValueError("broken\nin two")
    lines = (
        logs.JournalFormatter("%(message)s")
        .format(record("fir\nst", level, exc_info=(ValueError, error, None)))
        .splitlines()
    )
    assert lines == [f"{mark}fir\\nst", f"{mark}ValueError: broken", f"{mark}in two"]


def test_a_file_is_not_the_journal_whatever_the_environment_says(tmp_path: pathlib.Path) -> None:
    found = _first_line(tmp_path, JOURNAL_STREAM="1:2")
    assert re.match(r"\d\d:\d\d:\d\d INFO     regstream\.reload: generation 1 in force", found)


def test_what_the_environment_names_as_the_journal_is(tmp_path: pathlib.Path) -> None:
    # The same pipe as systemd would hand over, by device and inode
    read, write = os.pipe()
    stat = os.fstat(write)
    env = process.environment(JOURNAL_STREAM=f"{stat.st_dev}:{stat.st_ino}")
    folder = process.copy_files(tmp_path)
    child = subprocess.Popen(process.command("run", "--port", "0"), cwd=folder, env=env, stdout=-3, stderr=write)
    os.close(write)
    with os.fdopen(read) as lines:
        assert lines.readline().startswith("<6>INFO     regstream.reload: generation 1 in force")
        child.send_signal(signal.SIGTERM)
        lines.read()
    assert child.wait(process.SECONDS) == 0


def _first_line(folder: pathlib.Path, **env: str) -> str:
    with process.running(folder, **env) as daemon:
        return daemon.log.read_text().splitlines()[0]


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """The log of a daemon that says all it can, in JSON, after everything was asked of it."""
    folder = tmp_path_factory.mktemp("talking")
    with process.running(folder, REGSTREAM_LOG="json", DEBUG="streaming:*") as daemon:
        with daemon.reader() as reader:
            reader.subscribe("dashboard-updates", "system")
            daemon.burst("RISK_EVENTS", 3)
            run = daemon.post("simulate", {"scenario": "BUDGET_CRISIS"}, 202)["runId"]
            reader.system("scenario-step", runId=run)
            daemon.http.delete(f"/api/streaming/simulate/{run}")
            reader.system("scenario-ended", runId=run)
        path = daemon.folder / "streams.yaml"
        path.write_text(path.read_text().replace("priority: HIGH", "priority: LOW", 1))
        process.eventually(lambda: daemon.get("/health")["config"]["generation"] == 2)
    yield [json.loads(line) for line in daemon.log.read_text().splitlines()]


def test_every_line_is_an_object(talking: list[dict[str, Any]]) -> None:
    for line in talking:
        assert {"time", "level", "logger", "message"} <= set(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


@pytest.mark.parametrize("part", sorted(set(settings.PARTS) - {"broker", "store"}))
def test_each_part_says_what_it_does(talking: list[dict[str, Any]], part: str) -> None:
    own = [line for line in talking if f"{line['logger']}.".startswith(f"regstream.{part}.")]
    assert [line for line in own if line["level"] == "DEBUG"], f"{part} says nothing"


def test_lines_about_a_run_or_a_stream_say_of_which(talking: list[dict[str, Any]]) -> None:
    of_runs = [line for line in talking if line["logger"] == "regstream.scenario"]
    assert len({line["run"] for line in of_runs}) == 1
    assert of_runs[0]["message"] == "scenario BUDGET_CRISIS begins"
    assert of_runs[-1]["message"] == "scenario BUDGET_CRISIS cancelled"
    assert "RISK_EVENTS" in {line.get("stream") for line in talking}


def test_debug_of_one_part_is_not_that_of_others(tmp_path: pathlib.Path) -> None:
    with process.running(tmp_path, REGSTREAM_LOG="json", DEBUG="streaming:hub") as daemon, daemon.reader() as reader:
        reader.subscribe("dashboard-updates")
    lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    assert {line["logger"] for line in lines if line["level"] == "DEBUG"} == {"regstream.hub"}
