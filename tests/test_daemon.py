"""The daemon's life: it starts, watches its tasks, obeys signals and stops in order, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pathlib
import re
import signal
import subprocess
import time
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping
from unittest import mock

import httpx
import pytest
import sanic
import websockets

from regstream import daemon, errors, reloader, settings
from tests import process
from tests.engine.world import file, stream, until

FILES = {"streams.yaml": file(A=stream("5ms", batch_size=5), B=stream("20ms"))}


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """The daemon freezes what exists; a test must not."""
    with mock.patch("gc.freeze"):
        yield


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(environ: Mapping[str, str] | None = None, **flags: object) -> daemon.Components:
    return daemon.build(settings.load(environ or {}, **{"port": 0, **flags}))


@contextlib.asynccontextmanager
async def running(
    environ: Mapping[str, str] | None = None, **flags: object
) -> AsyncIterator[tuple[daemon.Components, asyncio.Task[None]]]:
    """A daemon in this process, ready; nothing of it may be left behind it."""
    before = asyncio.all_tasks()
    parts, ready = build(environ, **flags), asyncio.Event()
    task = asyncio.create_task(daemon.Daemon(parts, lambda _: ready.set()).run())
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        yield parts, task
    finally:
        if not task.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait([task], timeout=60)
        assert task.done()
        await until(lambda: asyncio.all_tasks() <= before | {task, waiting})
        assert not [name for name in sanic.Sanic._app_registry if name == parts.server._app.name]


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def test_it_serves_and_stops_and_leaves_nothing_behind(folder, caplog):
    caplog.set_level(logging.INFO, "regstream")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        async with running() as (parts, task):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{parts.server.port}") as client:
                assert (await client.get("/health/ready")).status_code == 200
            await until(lambda: parts.engine.totals.events > 20)
        assert task.exception() is None
    assert not [one for one in warned if issubclass(one.category, ResourceWarning)]
    assert not errors_in(caplog) and caplog.messages[-1] == "stopped"
    assert parts.engine.totals.lost == 0
    assert parts.broker.status.consumed == parts.broker.status.produced == parts.engine.totals.events


async def test_under_load_it_says_goodbye_and_loses_nothing(folder, caplog):
    async with running() as (parts, task):
        url = f"ws://127.0.0.1:{parts.server.port}/ws?channel=dashboard-updates"
        clients = [await websockets.connect(url, compression=None, max_queue=None) for _ in range(5)]
        deaf = await asyncio.open_connection("127.0.0.1", parts.server.port)
        deaf[1].write(b"GET /ws?channel=dashboard-updates HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                      b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                      b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n")  # fmt: skip
        bursts = [asyncio.create_task(parts.engine.burst(name, 10_000)) for name in "AB" for _ in range(20)]
        await until(lambda: parts.engine.totals.events > 3_000)
        begun = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
        codes = await asyncio.gather(*(read(client) for client in clients))
        await asyncio.wait([task], timeout=60)
        took = time.monotonic() - begun
        ends = await asyncio.gather(*bursts, return_exceptions=True)
        deaf[1].close()
    assert task.exception() is None
    # Five seconds are for a process of its own; here the clients share its time
    assert took < 10
    assert codes == [1001] * 5
    assert all(isinstance(one, tuple | errors.Conflict) for one in ends)
    assert parts.engine.totals.lost == 0
    assert not errors_in(caplog)


async def read(client: websockets.ClientConnection) -> int | None:
    """Read to the end; the code that it was closed with."""
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            await client.recv()
    return client.close_code


async def test_a_task_that_dies_takes_the_daemon_with_it(folder, caplog):
    with mock.patch("regstream.hub.Hub.broadcast", side_effect=ZeroDivisionError("broken hub")):
        async with running() as (_, task):
            await asyncio.wait([task], timeout=60)
    assert isinstance(task.exception(), ZeroDivisionError)
    assert "pump died: ZeroDivisionError: broken hub" in errors_in(caplog)


async def test_the_cause_of_a_death_within_the_engine_is_named(folder, caplog):
    with mock.patch("regstream.engine.workers.TickExecutor._begin_tick", side_effect=ZeroDivisionError("broken work")):
        async with running() as (_, task):
            await asyncio.wait([task], timeout=60)
    assert isinstance(task.exception(), ZeroDivisionError)
    assert errors_in(caplog) == ["engine died: ZeroDivisionError: broken work"]


async def test_a_task_that_just_ends_is_a_death_too(folder, caplog):
    async def nothing(*_: object) -> None:
        await asyncio.sleep(0)

    with mock.patch.object(reloader, "watch", nothing):
        async with running() as (_, task):
            await asyncio.wait([task], timeout=60)
    assert isinstance(task.exception(), RuntimeError)
    assert any(one.startswith("watch died") for one in errors_in(caplog))


async def test_a_step_that_hangs_or_fails_does_not_keep_the_others_from_being_done(folder, caplog, monkeypatch):
    monkeypatch.setattr(daemon, "STEP_SECONDS", 0.1)
    with (
        mock.patch("regstream.engine.Engine.drain", lambda _: asyncio.sleep(60)),
        mock.patch("regstream.broker.simulated.SimulatedBroker.close", side_effect=ZeroDivisionError),
    ):
        async with running() as (_, task):
            pass
    assert task.exception() is None
    told = errors_in(caplog)
    assert told[:2] == ["could not finish ticks within 0.6 s", "could not close the broker"]


async def test_sighup_reloads_a_broken_file_is_refused_and_it_runs_on(folder, caplog):
    # Without the watch: the signal alone has to do it
    async def idle(*_: object) -> None:
        await asyncio.Event().wait()

    with mock.patch.object(reloader, "watch", idle):
        async with running() as (parts, task):
            (folder / "streams.yaml").write_text(file(A=stream("5ms"), C=stream()))
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: parts.door.receipt.generation == 2)
            assert parts.door.receipt.added == ("C",)
            (folder / "streams.yaml").write_text("streams: {A: {interval: 1x}}")
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: parts.door.error)
            events = parts.engine.totals.events
            await until(lambda: parts.engine.totals.events > events + 10)
            assert parts.door.receipt.generation == 2 and not task.done()
            # Held, so that none of them can be answered before all were sent, however slow the machine
            async with parts.door._lock:
                for _ in range(50):
                    os.kill(os.getpid(), signal.SIGHUP)
                    await asyncio.sleep(0)
            await until(lambda: parts.door.refused > 1)
    assert parts.door.refused < 10
    assert task.exception() is None
    assert any("reload refused (SIGHUP)" in one for one in errors_in(caplog))


async def test_stopped_in_the_middle_of_a_reload_it_changes_nothing_more(folder, caplog):
    async with running() as (parts, task):
        (folder / "streams.yaml").write_text(file(**{f"S{n}": stream("1ms") for n in range(200)}))
        asked = asyncio.create_task(parts.door.reload("api"))
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(errors.Conflict, match="stopping"):
            await asked
        await asyncio.wait([task], timeout=60)
    assert [one.name for one in parts.engine.streams()] == ["A", "B"]
    assert task.exception() is None and not errors_in(caplog)


async def test_switched_off_it_serves_and_generates_nothing(folder):
    parts = daemon.build(settings.load({"ENABLE_STREAMING": "false"}, port=0))
    ready = asyncio.Event()
    task = asyncio.create_task(daemon.Daemon(parts, lambda _: ready.set()).run())
    await asyncio.wait_for(ready.wait(), 20)
    assert not parts.engine.streaming and parts.engine.stream("A").next is None
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(task, 20)
    assert parts.engine.totals.events == 0


async def test_bad_files_end_the_start_and_nothing_stays_open(folder, caplog):
    (folder / "streams.yaml").write_text("streams: {A: {interval: 1x, fields: {a: '{{ b }}'}}}")
    async with running() as (_, task):
        await asyncio.wait([task], timeout=60)
    error = task.exception()
    assert isinstance(error, errors.ConfigError) and len(error.problems) == 2
    assert not caplog.records


async def test_a_port_in_use_ends_the_start_with_its_cure(folder, caplog):
    async with running() as (parts, _):
        other = daemon.build(settings.load({}, port=parts.server.port))
        with pytest.raises(errors.StartError, match="--port"):
            await daemon.Daemon(other, lambda _: None).run()
        # The handlers of signals are the process's: the second one took ours with it when it went
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: None)
        os.kill(os.getpid(), signal.SIGTERM)
        parts.server.refuse()
        next(task for task in asyncio.all_tasks() if task.get_name() == "pump").cancel()
    assert not [one for one in errors_in(caplog) if "pump" not in one]


def test_names_sort_by_time_and_never_repeat():
    names = [daemon.ulid(time.time() + step) for step in range(100)]
    assert names == sorted(set(names))
    assert all(re.fullmatch("[0-9A-HJKMNP-TV-Z]{26}", one) for one in names)
    assert daemon.ulid(1_469_918_176.385)[:10] == "01ARYZ6S41"


# As a process


def start(folder: pathlib.Path, *more: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*process.command("run", "--port", "0"), *more],
        cwd=folder, env=process.environment(**env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_as_a_process_it_leaves_no_warning_behind(folder):
    one = start(folder, PYTHONWARNINGS="always::ResourceWarning", PYTHONASYNCIODEBUG="1")
    line = one.stdout.readline()
    assert re.search(r"http://127\.0\.0\.1:\d+", line)
    url = re.search(r"http://[\d.:]+", line)[0]
    process.eventually(lambda: json.loads(httpx.get(f"{url}/api/streaming/status").text)["dataStreamer"])
    one.send_signal(signal.SIGTERM)
    _, told = one.communicate(timeout=60)
    assert one.returncode == 0
    assert "Warning" not in told and "Traceback" not in told and "never" not in told


def test_a_missing_file_is_told_with_its_cure(tmp_path):
    ended = process.run("run", "--port", "0", cwd=tmp_path)
    assert ended.returncode == 78
    assert "streams.yaml:1:1: there is no such file (write it, or name another with --streams)" in ended.stderr
    assert ended.stderr.count("there is no such file") == 1


def test_a_death_within_is_an_exit_code_that_is_not_zero(folder):
    code = """
import sys
from regstream import cli, hub
hub.Hub.broadcast = lambda *_: 1 // 0
sys.argv = ["regstream", "run", "--port", "0"]
cli.main()
"""
    (folder / "die.py").write_text(code)
    command = [process.command()[0], "die.py"]
    ended = subprocess.run(command, cwd=folder, env=process.environment(), capture_output=True, text=True, timeout=90)
    assert ended.returncode == 1
    assert "pump died: ZeroDivisionError" in ended.stderr


@pytest.mark.parametrize(("env", "warned"), [("production", True), ("development", False)])
async def test_a_profile_that_no_file_names_is_said_at_start(folder, caplog, env, warned):
    path = folder / "streams.yaml"
    path.write_text(json.dumps({**json.loads(path.read_text()), "profiles": {"staging": {}}}))
    async with running({"REGSTREAM_ENV": env}):
        assert any(f"none has the name '{env}'" in one for one in caplog.messages) is warned
