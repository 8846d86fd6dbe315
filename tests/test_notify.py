"""What a supervisor hears: over real sockets, from a daemon that starts, reloads, gets stuck and stops."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from regstream import sdnotify
from tests import process


class Ear:
    """A supervisor's socket, and everything that was said to it."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(process.SECONDS)

    def hear(self, seconds: float = process.SECONDS) -> dict[str, str]:
        """The next thing that is said."""
        self._socket.settimeout(seconds)
        return dict(line.split("=", 1) for line in self._socket.recv(65536).decode().splitlines())

    def until(self, name: str, part: str = "") -> dict[str, str]:
        """The first thing from now on that says ``name``, with ``part`` in it."""
        deadline = time.monotonic() + process.SECONDS
        while True:
            said = self.hear(max(0.01, deadline - time.monotonic()))
            if name in said and part in said[name]:
                return said

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def address(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def ear(address: str) -> Iterator[Ear]:
    one = Ear(address)
    yield one
    one.close()


def test_what_is_said(ear: Ear, address: str) -> None:
    supervisor = sdnotify.Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"}, 1)
    supervisor.ready("all\nis   well")
    assert ear.hear() == {"READY": "1", "STATUS": "all is well"}
    supervisor.reloading(1234)
    assert ear.hear() == {"RELOADING": "1", "MONOTONIC_USEC": "1234"}
    supervisor.alive("all is well")
    assert ear.hear() == {"WATCHDOG": "1"}
    supervisor.alive("x" * 1000)
    assert ear.hear() == {"WATCHDOG": "1", "STATUS": "x" * (sdnotify.LONGEST - 1) + "…"}
    supervisor.stopping()
    assert ear.hear()["STOPPING"] == "1"


def test_without_a_watchdog_only_news_are_told(ear: Ear, address: str) -> None:
    supervisor = sdnotify.Notifier({"NOTIFY_SOCKET": address}, 1)
    for status in ("one", "one", "one", "two"):
        supervisor.alive(status)
    assert [ear.hear(), ear.hear()] == [{"STATUS": "one"}, {"STATUS": "two"}]
    with pytest.raises(TimeoutError):
        ear.hear(0.05)


def test_a_name_without_a_file() -> None:
    ear = Ear(f"\0regstream-{os.getpid()}")
    with contextlib.closing(ear):
        sdnotify.Notifier({"NOTIFY_SOCKET": f"@regstream-{os.getpid()}"}, 1).ready("here")
        assert ear.hear()["READY"] == "1"


@pytest.mark.parametrize("name", ["", "relative", "/no/such/socket", "vsock:2:1234"])
def test_where_nobody_listens_nothing_happens(name: str) -> None:
    supervisor = sdnotify.Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000"}, 1)
    supervisor.ready("here")
    supervisor.alive("here")
    supervisor.stopping()
    assert supervisor.listens is name.startswith("/")


def test_a_supervisor_that_does_not_read_is_not_waited_for(ear: Ear, address: str) -> None:
    supervisor = sdnotify.Notifier({"NOTIFY_SOCKET": address}, 1)
    for number in range(5000):
        supervisor.alive(str(number))
    assert ear.hear() == {"STATUS": "0"}


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [({"WATCHDOG_USEC": "30000000"}, 30.0), ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
     ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None), ({"WATCHDOG_USEC": "0"}, None),
     ({"WATCHDOG_USEC": "soon"}, None), ({}, None)],
)  # fmt: skip
def test_the_watchdog_is_meant_for_this_process(environ: dict[str, str], seconds: float | None) -> None:
    assert sdnotify.Notifier({"NOTIFY_SOCKET": "/x", **environ}, 7).watchdog == seconds
    assert sdnotify.Notifier(environ, 7).watchdog is None


class TestADaemon:
    def test_says_when_it_is_ready_and_when_it_stops(self, ear: Ear, address: str, tmp_path: pathlib.Path) -> None:
        with process.running(tmp_path, NOTIFY_SOCKET=address) as daemon:
            said = ear.until("READY")
            assert daemon.http.get("/health/ready").status_code == 200
            assert "6 streams run in simulation, generation 1 since 20" in said["STATUS"]
        assert ear.until("STOPPING")

    def test_says_that_it_reloads_and_what_is_wrong_with_the_files(
        self, ear: Ear, address: str, tmp_path: pathlib.Path
    ) -> None:
        with process.running(tmp_path, NOTIFY_SOCKET=address) as daemon:
            ear.until("READY")
            path = daemon.folder / "streams.yaml"
            good = path.read_text()
            path.write_text(good.replace("priority: HIGH", "priority: HIHG", 1))
            daemon.tell(signal.SIGHUP)
            assert int(ear.until("RELOADING")["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            refused = ear.until("READY")["STATUS"]
            assert refused.startswith("files refused: streams.yaml:") and "HIHG" in refused
            assert "generation 1 since" in refused
            path.write_text(good.replace("priority: HIGH", "priority: LOW", 1))
            daemon.tell(signal.SIGHUP)
            ear.until("RELOADING")
            assert "refused" not in ear.until("READY")["STATUS"]

    def test_tells_of_files_that_it_found_changed_by_itself(
        self, ear: Ear, address: str, tmp_path: pathlib.Path
    ) -> None:
        with process.running(tmp_path, NOTIFY_SOCKET=address) as daemon:
            ear.until("READY")
            path = daemon.folder / "streams.yaml"
            path.write_text(path.read_text().replace("priority: HIGH", "priority: HIHG", 1))
            ear.until("STATUS", "files refused: streams.yaml:")

    def test_gives_signs_of_life_until_its_loop_is_stuck(self, ear: Ear, address: str, tmp_path: pathlib.Path) -> None:
        with process.running(tmp_path, NOTIFY_SOCKET=address, WATCHDOG_USEC="900000") as daemon:
            for _ in range(3):
                ear.until("WATCHDOG")
            daemon.tell(signal.SIGSTOP)
            with pytest.raises(TimeoutError):
                while True:
                    ear.hear(3.0)
            daemon.tell(signal.SIGCONT)
            ear.until("WATCHDOG")
