"""A hundred thousand frames of what no client should send: the daemon lives on, does not grow, and does not talk."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import random
import re
import socket
import struct
from collections.abc import Callable

import pytest

from tests import process

pytestmark = pytest.mark.slow
FRAMES = 100_000
A_CONNECTION = 60
ROUND, ROUNDS, SETTLED = 50_000, 12, 0.03
LINES = 40
GROWTH = 0.10


def frame(opcode: int, data: bytes, *, fin: bool = True, masked: bool = True, reserved: int = 0) -> bytes:
    """A frame (RFC 6455, section 5.2), right or wrong."""
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    mask = 0x80 if masked else 0
    if len(data) < 126:
        head = bytes([first, mask | len(data)])
    elif len(data) < 65536:
        head = struct.pack("!BBH", first, mask | 126, len(data))
    else:
        head = struct.pack("!BBQ", first, mask | 127, len(data))
    # A mask of zeros is one
    return head + (b"\0\0\0\0" if masked else b"") + data


def text(value: object) -> bytes:
    return frame(1, json.dumps(value).encode())


def _random(chance: random.Random, most: int) -> bytes:
    return chance.randbytes(chance.randrange(most))


# What closes a connection, and what does not
HARMLESS: list[Callable[[random.Random], bytes]] = [
    lambda _: text({"action": "ping"}),
    lambda _: text({"action": "auth", "token": "x"}),
    lambda chance: frame(9, _random(chance, 120)),
    lambda chance: frame(10, _random(chance, 120)),
    lambda _: text({"action": "subscribe", "channels": ["dashboard-updates"], "rewind": 1}),
    lambda _: text({"action": "unsubscribe", "channels": ["dashboard-updates"]}),
    lambda _: text(
        {"action": "subscribe", "channels": ["RISK_EVENTS"], "after": {"RISK_EVENTS": {"epoch": "x", "seq": 1}}}
    ),
]
BAD: list[Callable[[random.Random], bytes]] = [
    lambda chance: text({"action": "subscribe", "channels": [chance.choice(["nope", "", "x" * 200, "\0"])]}),
    lambda chance: text(
        {"action": "subscribe", "channels": ["RISK_EVENTS"], "rewind": chance.choice([-1, 10**9, "x"])}
    ),
    lambda chance: text({"action": chance.choice(["", "drop", None, 7, ["subscribe"], {"a": 1}])}),
    lambda chance: text(
        {"action": "subscribe", "channels": ["RISK_EVENTS"], "after": {"RISK_EVENTS": chance.choice([1, {}])}}
    ),
    lambda _: text({"action": "auth", "token": "x" * 10_000}),
]
HOPELESS: list[Callable[[random.Random], bytes]] = [
    lambda _: text([1, 2, 3]),
    lambda chance: frame(1, _random(chance, 300)),
    lambda chance: frame(2, _random(chance, 300)),
    lambda _: frame(1, b"[" * 30_000),
    lambda _: frame(1, b'{"action":' * 5_000),
    lambda _: frame(1, b"\xff\xfe\xfd"),
    lambda _: frame(1, b"x", masked=False),
    lambda chance: frame(chance.choice([3, 4, 7, 11, 15]), b"x"),
    lambda chance: frame(1, b"x", reserved=chance.randrange(1, 8)),
    lambda _: frame(9, b"x" * 200),
    lambda _: frame(8, b"\x03"),
    lambda _: frame(8, struct.pack("!H", 1005)),
    lambda _: frame(0, b"no beginning"),
    lambda _: frame(1, b"a", fin=False) + frame(1, b"b"),
    lambda _: struct.pack("!BBQ", 0x81, 0xFF, 2**63 - 1),
    lambda _: frame(1, b"x" * 70_000),
    lambda chance: _random(chance, 500),
]


def hostile(port: int, chance: random.Random) -> int:
    """One connection and what is sent over it; gives how many frames, and fails for an answer of 5xx."""
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    head = f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n"
    frames = [
        chance.choice(chance.choices([HARMLESS, BAD, HOPELESS], [60, 15, 1 if number < A_CONNECTION - 1 else 900])[0])(
            chance
        )
        for number in range(A_CONNECTION)
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=process.SECONDS) as one:
        one.sendall(head.encode())
        status = one.recv(4096).split(b" ", 2)[1]
        assert status == b"101", status
        try:
            one.sendall(b"".join(frames))
            one.shutdown(socket.SHUT_WR)
            while one.recv(65536):
                pass
        except OSError as error:
            # It was closed on us, as it should: what that raises depends on which call meets it
            if not isinstance(error, ConnectionError) and error.errno != errno.ENOTCONN:
                raise
    return len(frames)


def _send(port: int, chance: random.Random, frames: int) -> None:
    while frames > 0:
        frames -= hostile(port, chance)


def _settled(daemon: process.Daemon, chance: random.Random) -> int:
    """How large it is when another round does not make it larger.

    The library keeps a connection that is over until a timer has fired, so it grows at first; a leak would make it grow
    by as much each time.
    """
    sizes = [resident(daemon.process.pid)]
    for _ in range(ROUNDS):
        _send(daemon.port, chance, ROUND)
        sizes.append(resident(daemon.process.pid))
        if sizes[-1] < (1 + SETTLED) * sizes[-2]:
            return sizes[-1]
    raise AssertionError(f"it grows and grows: {sizes}")


def resident(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


def test_a_hundred_thousand_hostile_frames(tmp_path: pathlib.Path) -> None:
    chance = random.Random(int(os.environ.get("SEED", "1846")))
    with process.running(tmp_path) as daemon:
        before = _settled(daemon, chance)
        _send(daemon.port, chance, FRAMES)
        process.eventually(lambda: daemon.get("/api/streaming/status")["subscribers"] == 0)
        grown = resident(daemon.process.pid) / before - 1
        assert grown < GROWTH, f"it grew by {grown:.0%}"
        health = daemon.get("/health")
        figures = daemon.http.get("/metrics").text
        with daemon.reader() as reader:
            reader.subscribe("RISK_EVENTS")
            reader.event("RISK_EVENTS", daemon.burst("RISK_EVENTS", 3)[1])
    assert health["status"] == "ok"
    refused = re.search(r'^regstream_refusals_total\{reason="message"\} (\S+)$', figures, re.MULTILINE)
    assert refused is not None and float(refused[1]) > 100
    lines = daemon.log.read_text().splitlines()
    assert daemon.complaints == [] and len(lines) < LINES, lines[-LINES:]
