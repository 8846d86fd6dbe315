"""The process: what it needs to start, how it stops, and what it does not mind."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import resource
import signal
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests import process
from tests.process import Daemon, eventually


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with process.running(tmp_path_factory.mktemp("idle"), ENABLE_STREAMING="false", STREAMING_PORT="0") as daemon:
        yield daemon


def test_stopped_under_load_it_ends_in_order(tmp_path: pathlib.Path) -> None:
    daemon = Daemon(process.copy_files(tmp_path))
    with contextlib.ExitStack() as stack:
        stack.callback(daemon.stop)
        readers = [stack.enter_context(daemon.reader()) for _ in range(3)]
        begins = [reader.subscribe("dashboard-updates", "system")["streams"] for reader in readers]
        deaf = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
        deaf.sendall(
            b"GET /ws?channel=dashboard-updates HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        idle = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
        idle.sendall(b"GET /hea")
        address = "/api/streaming/streams/TRANSACTION_STREAM"
        daemon.http.patch(address, json={"interval": 20, "batchSize": 10})
        daemon.post("simulate", {"scenario": "BUDGET_CRISIS"}, 202)
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor())
        pool.submit(burst, daemon.url)
        collected = [pool.submit(reader.closed) for reader in readers]
        eventually(lambda: len(readers[0].events()) > 500)
        began = time.monotonic()
        assert daemon.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 5
        assert [one.result(10) for one in collected] == [1001] * 3
        for reader, begin in zip(readers, begins, strict=True):
            ends = [frame["data"] for frame in reader.frames if frame["event"] == "system"]
            assert "scenario-ended" in [data["kind"] for data in ends]
            numbers = [event["seq"] for event in reader.events("TRANSACTION_STREAM")]
            first = begin["TRANSACTION_STREAM"]["seq"] + 1
            assert numbers == list(range(first, first + len(numbers)))
    assert daemon.complaints == []


def burst(url: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        for _ in range(20):
            httpx.post(f"{url}/api/streaming/burst", json={"streamType": "RISK_EVENTS", "count": 200}, timeout=10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_while_it_is_idle(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    daemon = Daemon(process.copy_files(tmp_path), ENABLE_STREAMING="false", STREAMING_PORT="0")
    assert daemon.stop(number) == 0
    assert daemon.complaints == []


def test_told_to_generate_nothing_it_serves_all_the_same(tmp_path: pathlib.Path) -> None:
    with process.running(tmp_path, ENABLE_STREAMING="false", VPS_SERVER_NAME="mx-1", VPS_REGION="MX") as daemon:
        assert "nothing" in daemon.summary
        assert daemon.get("/health")["status"] == "ok"
        status = daemon.get("/api/streaming/status")
        assert status["dataStreamer"] | {"uptime": 0} == {
            "isStreaming": False,
            "activeStreams": 0,
            "totalMessagesSent": 0,
            "uptime": 0,
        }
        assert daemon.http.get("/").status_code == 200
        for action, body in (
            ("start", {}),
            ("burst", {"streamType": "RISK_EVENTS", "count": 1}),
            ("simulate", {"scenario": "BUDGET_CRISIS"}),
        ):
            assert daemon.http.post(f"/api/streaming/{action}", json=body).status_code == 409, action
        with daemon.reader() as reader:
            reader.until("welcome")
            assert reader.frames[0]["data"]["server"] == "mx-1" and reader.frames[0]["data"]["region"] == "MX"
            assert reader.subscribe("dashboard-updates")["streams"]["RISK_EVENTS"]["seq"] == 0
            reader.send(action="ping")
            reader.until("pong")
            assert reader.events() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STREAMING_PORT", "many"),
        ("STREAMING_PORT", "70000"),
        ("STREAMING_HOST", "not a host"),
        ("ENABLE_STREAMING", "maybe"),
        ("REGSTREAM_ENV", "../x"),
        ("NODE_ENV", "../x"),
        ("CORS_ORIGINS", "somewhere"),
        ("RATE_LIMIT", "often"),
        ("DEBUG", "streaming:brokr"),
        ("VPS_REGION", "x" * 100),
        ("REGSTREAM_TOKENS", "root:sesame"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(tmp_path: pathlib.Path, name: str, value: str) -> None:
    done = process.run("run", cwd=process.copy_files(tmp_path), **{"STREAMING_PORT": "0", name: value})
    assert done.returncode == 78
    assert name in done.stderr and "Traceback" not in done.stderr
    assert "sesame" not in done.stderr + done.stdout


def test_bad_files_are_all_told_of_before_anything_starts(tmp_path: pathlib.Path) -> None:
    process.copy_files(tmp_path)
    with (tmp_path / "streams.yaml").open("a") as file:
        file.write("  X: {interval: soon, fields: {a: '{{ b }}'}}\n")
    (tmp_path / "scenarios" / "bad.yaml").write_text("name: BAD\nsteps:\n  - wait: long\n")
    done = process.run("run", "--port", "0", cwd=tmp_path)
    assert done.returncode == 78 and done.stdout == ""
    assert "streams.yaml:" in done.stderr and "scenarios/bad.yaml:3:11: " in done.stderr
    assert "3 problems" in done.stderr and "Traceback" not in done.stderr


def test_two_daemons_cannot_have_one_port(tmp_path: pathlib.Path) -> None:
    with process.running(tmp_path) as first:
        began = time.monotonic()
        done = process.run("run", "--port", first.port, cwd=tmp_path)
        assert done.returncode == 1 and time.monotonic() - began < 20
        assert f"127.0.0.1:{first.port}" in done.stderr and "in use" in done.stderr and "--port" in done.stderr
        assert "Traceback" not in done.stderr and "ERROR" not in done.stderr
        assert first.get("/health")["status"] == "ok"
        first.burst("RISK_EVENTS", 3)
        assert first.complaints == []


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /hea",
        b"POST /api/streaming/burst HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /ws HTTP/1.1\r\n",
    ],
)
def test_a_client_that_leaves_in_the_middle_is_no_error(idle: Daemon, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", idle.port)) as connection:
        connection.sendall(sent)
        time.sleep(0.1)
    assert idle.get("/health")["status"] == "ok"
    time.sleep(0.1)
    assert idle.complaints == []


def test_the_production_profile_is_slower(tmp_path: pathlib.Path) -> None:
    with process.running(tmp_path, REGSTREAM_ENV="production") as daemon:
        assert daemon.stream("BUDGET_UPDATES")["interval"] == 300_000
        assert daemon.get("/api/streaming/config")["profile"]["kafka"]["partitions"] == 6


def test_a_second_signal_ends_it_at_once(tmp_path: pathlib.Path) -> None:
    daemon = Daemon(process.copy_files(tmp_path))
    daemon.post("burst", {"streamType": "RISK_EVENTS", "count": 10})
    began = time.monotonic()
    for _ in range(5):
        with contextlib.suppress(ProcessLookupError):
            daemon.tell(signal.SIGTERM)
    daemon.stop()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_are_not_let_in_without_tokens(tmp_path: pathlib.Path, host: str) -> None:
    done = process.run("run", "--host", host, "--port", "0", cwd=process.copy_files(tmp_path))
    assert done.returncode == 78
    assert "REGSTREAM_TOKENS" in done.stderr and "--insecure" in done.stderr and "Traceback" not in done.stderr


def test_it_answers_beside_streams_whose_events_take_almost_as_long_as_they_may(tmp_path: pathlib.Path) -> None:
    text = "{% for i in range(14000) %}{{ 'ab'[i % 2] }}{% endfor %}"
    stream = f'interval: 10ms, batch_size: 5, fields: {{x: "{text}"}}'
    streams = "".join(f"  S{number}: {{{stream}}}\n" for number in range(4))
    (tmp_path / "streams.yaml").write_text(f"streams:\n{streams}")
    daemon = Daemon(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(daemon.stop)
        stat = pathlib.Path(f"/proc/{daemon.process.pid}/stat")

        def spent() -> float:
            """The processor time of the daemon; what others take meanwhile is not its fault."""
            user, system = stat.read_text().rpartition(")")[2].split()[11:13]
            return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

        eventually(lambda: all(stream["seq"] for stream in daemon.streams()))
        waited = []
        for _ in range(40):
            before = spent()
            assert daemon.get("/health/live")["status"] == "ok"
            waited.append(spent() - before)
        assert max(waited) < 0.2, waited
        assert not any(stream["errors"] for stream in daemon.streams())


def test_a_process_without_descriptors_says_so_now_and_then(tmp_path: pathlib.Path) -> None:
    with process.running(tmp_path) as daemon, contextlib.ExitStack() as stack:
        used = len(list(pathlib.Path(f"/proc/{daemon.process.pid}/fd").iterdir()))
        soft, hard = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (used + 5, hard))
        for _ in range(60):
            stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
        eventually(lambda: "Too many open files" in daemon.log.read_text())
        # It tries again each second
        time.sleep(3)
        assert daemon.log.read_text().count("Too many open files") == 1
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        stack.close()
        eventually(lambda: daemon.get("/health")["status"])
