"""The step of ``regstream check`` for the end: a daemon of its own, which is asked to stop while a client listens.

The one that is being checked has to go on; what stops is one of the same installation, with one stream, in simulation.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import websockets.asyncio.client
import websockets.exceptions

from regstream.client import direct

SECONDS = 20.0
GOING_AWAY = 1001
_STREAMS = """\
version: 1
streams:
  CHECK:
    interval: 50ms
    fields: {number: "{{ seq }}"}
"""
_PASSED = ("PATH", "HOME", "LANG", "TZ", "PYTHONPATH", "VIRTUAL_ENV")


class Broken(Exception):
    """It did not stop as it should; the text says how it did."""


def exchange() -> str:
    """Start it, follow it, stop it, and see it say goodbye. Gives what to say of it. Raises Broken."""
    with tempfile.TemporaryDirectory(prefix="regstream-check-") as name:
        folder = pathlib.Path(name)
        (folder / "streams.yaml").write_text(_STREAMS)
        with _running(folder) as child:
            code, seconds = asyncio.run(_follow(child, _address(child, folder / "out")))
            ended = child.wait(SECONDS)
    if (code, ended) != (GOING_AWAY, 0):
        raise Broken(f"the client was closed with {code}, the process ended with {ended}")
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
    async with asyncio.timeout(SECONDS), direct.socket(address, compression=None) as socket:
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
    deadline = time.monotonic() + SECONDS
    while (found := re.search(r"http://(\S+)", out.read_text(errors="replace"))) is None:
        if child.poll() is not None or time.monotonic() > deadline:
            raise Broken(f"a daemon of its own did not start: {out.read_text(errors='replace')[-300:]}")
        time.sleep(0.05)
    return f"ws://{found[1]}/ws?channel=CHECK"
