"""The step of ``regstream check`` for the end: a daemon of its own, which is asked to stop while a client listens.

The one that is being checked has to go on; what stops is one of the same installation, with one stream, in simulation.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import websockets.asyncio.client
import websockets.exceptions

from regstream.cli import common
from regstream.client import subscription

SHUTDOWN_SECONDS = 20.0
GOING_AWAY = 1001
_STREAMS = """\
version: 1
streams:
  CHECK:
    interval: 50ms
    fields: {number: "{{ seq }}"}
"""
_PASSED = ("PATH", "HOME", "LANG", "TZ", "PYTHONPATH", "VIRTUAL_ENV")


class ShutdownError(Exception):
    """It did not stop as it should; the text says how it did."""


def check_shutdown() -> str:
    """Start it, follow it, stop it, and see it say goodbye. Gives what to say of it. Raises Broken."""
    with tempfile.TemporaryDirectory(prefix="regstream-check-") as name:
        folder = pathlib.Path(name)
        (folder / "streams.yaml").write_text(_STREAMS)
        with _running(folder) as child:
            code, seconds = asyncio.run(_follow(child, _address(child, folder / "out")))
            ended = child.wait(SHUTDOWN_SECONDS)
    if (code, ended) != (GOING_AWAY, 0):
        raise ShutdownError(f"the client was closed with {code}, the process ended with {ended}")
    return f"clients are told, exit code 0, {seconds:.1f} s"


@contextlib.contextmanager
def _running(folder: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    environ = {key: os.environ[key] for key in _PASSED if key in os.environ}
    with (folder / "out").open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "regstream", "run", "--port", "0"],
            cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
        try:
            yield child
        finally:
            child.kill()
            child.wait()


async def _follow(child: subprocess.Popen[bytes], address: str) -> tuple[int | None, float]:
    """The code with which a client that follows it is closed after SIGTERM, and in how many seconds."""
    async with asyncio.timeout(SHUTDOWN_SECONDS), subscription.connect(address, compression=None) as socket:
        await _event(socket)
        child.send_signal(signal.SIGTERM)
        began = time.monotonic()
        try:
            while True:
                await socket.recv()
        except websockets.exceptions.ConnectionClosed as error:
            return (error.rcvd.code if error.rcvd else None), time.monotonic() - began


async def _event(socket: websockets.asyncio.client.ClientConnection) -> None:
    while '"specversion"' not in str(await socket.recv()):
        pass


def _address(child: subprocess.Popen[bytes], out: pathlib.Path) -> str:
    deadline = time.monotonic() + SHUTDOWN_SECONDS
    while (found := re.search(r"http://(\S+)", out.read_text(errors="replace"))) is None:
        if child.poll() is not None or time.monotonic() > deadline:
            raise ShutdownError(f"a daemon of its own did not start: {out.read_text(errors='replace')[-300:]}")
        time.sleep(0.05)
    return f"ws://{found[1]}/ws?channel=CHECK"


SOCKETIO_SECONDS = 10.0
_BETWEEN = "\x1e"
_EVERY = "streaming-update"


class SocketIOError(Exception):
    """The server did not answer as it should; the text says how it did."""


class PollingSession:
    """Engine.IO 4 and Socket.IO 5 over polls, as far as it takes to follow a channel."""

    def __init__(self, base: str) -> None:
        self._url = f"{base}/socket.io/?EIO=4&transport=polling"
        self._packets: collections.deque[str] = collections.deque()
        self._url += f"&sid={json.loads(self._expect('0'))['sid']}"
        self._say("40")
        self._expect("40")

    def ask(self, event: str, *arguments: Any) -> Any:
        """Emit an event, and give what its acknowledgement carries."""
        self._say(f"421{json.dumps([event, *arguments])}")
        answer = json.loads(self._expect("431"))[0]
        if "error" in answer:
            raise SocketIOError(f"{event} answered {answer['error'].get('message')}")
        return answer

    def event(self) -> tuple[str, Any]:
        """The next event: its name and what came with it."""
        name, data = json.loads(self._expect("42"))
        return name, data

    def close(self) -> None:
        """End the session."""
        self._say("1")

    def _expect(self, kind: str) -> str:
        """What the next packet carries, which must be of that kind; pings are answered."""
        deadline = time.monotonic() + SOCKETIO_SECONDS
        while time.monotonic() < deadline:
            if not self._packets:
                self._packets.extend(self._send(None).split(_BETWEEN))
            packet = self._packets.popleft()
            if packet == "2":
                self._say("3")
            elif packet.startswith(kind):
                return packet[len(kind) :]
            else:
                raise SocketIOError(f"{packet[:100]!r} came where {kind} was due")
        raise SocketIOError(f"no packet {kind} came within {SOCKETIO_SECONDS:g} s")

    def _say(self, packet: str) -> None:
        self._send(packet.encode())

    def _send(self, body: bytes | None) -> str:
        headers = common.headers("text/plain")
        request = urllib.request.Request(self._url, body, headers)  # noqa: S310 - the address is the operator's own
        try:
            with subscription.request(request, SOCKETIO_SECONDS) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            raise SocketIOError(
                f"/socket.io/ answered {error.code}: {error.read().decode(errors='replace')[:200]}"
            ) from error
        except OSError as error:
            raise SocketIOError(f"/socket.io/ did not answer: {error}") from error


def check_socketio(base: str, stream: str, burst: Callable[[], dict[str, Any]]) -> str:
    """Join ``stream``, let ``burst`` make events, and receive them whole and in order, each under both its names.

    Gives what to say of it. Raises Broken.
    """
    session = PollingSession(base)
    joined = session.ask("join-streaming", stream)
    made = burst()
    expected = joined["streams"][stream]["seq"] + 1
    while expected <= made["lastSeq"]:
        both = dict(session.event() for _ in range(2))
        own = next(iter(both.values()))["type"]
        seqs = [data["seq"] for data in both.values()]
        if seqs != [expected, expected] or list(both) != [_EVERY, own]:
            raise SocketIOError(f"{list(both)} {seqs} came where {_EVERY}, {own} {expected} were due")
        expected += 1
    session.ask("leave-streaming", stream)
    session.close()
    return f"{stream} {made['firstSeq']} to {made['lastSeq']}, each as {_EVERY} and {own}"
