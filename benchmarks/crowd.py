"""Many WebSocket clients that cost next to nothing: bare sockets of this process, whose bytes are counted as they come.

A server that shows everybody the same writes everybody the same bytes. So a few clients keep what they read, and what
is found there afterwards, where each frame ends and what it says, holds for all.
"""

from __future__ import annotations

import bisect
import gc
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

ALL = "/ws?channel=dashboard-updates"
SOCKET_IO = "/socket.io/?EIO=4&transport=websocket"
_PIECE = 2**18
_UPGRADE = (
    "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TEXT, CLOSE, PING = 1, 8, 9


class Frame(NamedTuple):
    """One frame; ``end`` is the number of bytes from the beginning to behind it."""

    opcode: int
    payload: bytes
    end: int


def frames(data: bytes) -> Iterator[Frame]:
    """The whole frames at the beginning of what a server wrote."""
    at = 0
    while at + 2 <= len(data):
        size, head = data[at + 1], 2
        if size >= 126:
            head = 4 if size == 126 else 10
            size = int.from_bytes(data[at + 2 : at + head], "big")
        end = at + head + size
        if at + head > len(data) or end > len(data):
            return
        yield Frame(data[at] & 15, data[at + head : end], end)
        at = end


def masked(text: bytes) -> bytes:
    """A text frame as a client must write it; masked with zeros."""
    head = bytes([0x81, 0x80 | len(text)]) if len(text) < 126 else b"\x81\xfe" + len(text).to_bytes(2, "big")
    return head + bytes(4) + text


def many_files() -> int:
    """Let this process, and those that it starts, hold as many sockets as the machine lets them; gives how many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Reader:
    """One client. ``taken`` counts bytes since it subscribed, ``kept`` holds them and ``log`` says when they came."""

    __slots__ = ("kept", "log", "sock", "taken")

    def __init__(self, sock: socket.socket, rest: bytes, keeps: bool, logs: bool) -> None:
        self.sock, self.taken = sock, len(rest)
        self.kept: bytearray | None = bytearray(rest) if keeps else None
        self.log: list[tuple[float, int]] | None = [] if logs else None


def subscribed(port: int, target: str = ALL, buffer: int = 0) -> tuple[socket.socket, bytes]:
    """A client that was told that it has subscribed, and what came behind that; ``buffer`` bounds the kernel's."""
    sock = upgraded(port, target, buffer)
    return sock, _said(sock, b"", b'{"event":"subscribed"')


def joined(port: int, target: str = SOCKET_IO) -> tuple[socket.socket, bytes]:
    """A client of Socket.IO on a WebSocket that has joined, and what came behind the acknowledgement."""
    sock = upgraded(port, target)
    data = _said(sock, b"", b"0{")
    sock.sendall(masked(b"40"))
    data = _said(sock, data, b"40{")
    sock.sendall(masked(b'420["join-streaming","dashboard-updates"]'))
    return sock, _said(sock, data, b"430[")


def _said(sock: socket.socket, data: bytes, begin: bytes) -> bytes:
    """What came behind the first frame that begins so."""
    while True:
        for frame in frames(data):
            if frame.payload.startswith(begin):
                return data[frame.end :]
        data += _received(sock)


def upgraded(port: int, target: str, buffer: int = 0) -> socket.socket:
    """A WebSocket. Its answer is read to the byte, so that the frames behind it are not touched."""
    sock = socket.socket()
    sock.settimeout(20)
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.connect(("127.0.0.1", port))
    sock.sendall(_UPGRADE.format(target=target).encode())
    peeked = b""
    while b"\r\n\r\n" not in peeked:
        peeked = sock.recv(4096, socket.MSG_PEEK)
        if not peeked or not b"HTTP/1.1 101".startswith(peeked[:12]):
            raise RuntimeError(f"no WebSocket at {target}: {peeked[:80]!r}")
    sock.recv(peeked.index(b"\r\n\r\n") + 4)
    return sock


def _received(sock: socket.socket) -> bytes:
    data = sock.recv(_PIECE)
    if not data:
        raise RuntimeError("the server closed a connection")
    return data


class Crowd:
    """``count`` clients of a server; the first ``keep`` of them keep what they read, all note times when ``logs``."""

    def __init__(
        self,
        port: int,
        count: int,
        *,
        keep: int = 1,
        logs: bool = False,
        connect: Callable[[int], tuple[socket.socket, bytes]] = subscribed,
    ) -> None:
        many_files()
        self.readers: list[Reader] = []
        self._poll = select.epoll()
        self._of: dict[int, Reader] = {}
        for n in range(count):
            self._watch(Reader(*connect(port), n < keep, logs))

    def __len__(self) -> int:
        return len(self.readers)

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self._poll.close()
        for one in self.readers:
            one.sock.close()

    def add(self, port: int, count: int, target: str) -> list[Reader]:
        """So many more clients, who keep what they read and note times."""
        more = [Reader(*subscribed(port, target), True, True) for _ in range(count)]
        for one in more:
            self._watch(one)
        return more

    def _watch(self, one: Reader) -> None:
        one.sock.setblocking(False)
        self.readers.append(one)
        self._of[one.sock.fileno()] = one
        self._poll.register(one.sock.fileno(), select.EPOLLIN)

    def forget(self) -> None:
        """Count, keep and note from here on."""
        for one in self.readers:
            one.taken = 0
            if one.kept is not None:
                one.kept.clear()
            if one.log is not None:
                one.log.clear()

    @property
    def taken(self) -> int:
        """Bytes of all clients together."""
        return sum(one.taken for one in self.readers)

    def read(self, until: Callable[[], bool], within: float) -> bool:
        """Read until it is so, which is asked often; False when it was not in time."""
        buffer = bytearray(_PIECE)
        end = time.monotonic() + within
        # A collection here would be a delay of the clients' own making
        gc.disable()
        try:
            while not until():
                if time.monotonic() > end:
                    return False
                self._turn(buffer)
        finally:
            gc.enable()
        return True

    def _turn(self, buffer: bytearray) -> None:
        for number, _ in self._poll.poll(0.1):
            one = self._of[number]
            size = one.sock.recv_into(buffer)
            if not size:
                raise RuntimeError("the server closed a connection")
            one.taken += size
            if one.log is not None:
                one.log.append((time.time(), one.taken))
            if one.kept is not None:
                one.kept += memoryview(buffer)[:size]

    def reach(self, size: int, within: float) -> None:
        """Read until every client that is watched has ``size`` bytes. Raises RuntimeError when it takes too long."""
        behind = set(self._of.values())

        def reached() -> bool:
            # Whoever is there once stays there
            while behind and (one := next(iter(behind))).taken >= size:
                behind.discard(one)
            return not behind

        if not self.read(reached, within):
            raise RuntimeError(f"{len(behind)} clients have less than {size} bytes after {within:.0f} s")

    def rest(self, seconds: float = 0.3, within: float = 20) -> None:
        """Read until nothing has come for so long."""
        before, since = self.taken, time.monotonic()

        def quiet() -> bool:
            nonlocal before, since
            if time.monotonic() - since < seconds:
                return False
            changed, since, before = self.taken != before, time.monotonic(), self.taken
            return not changed

        self.read(quiet, within)


def delays(people: Sequence[Reader], ends: list[int], emitted: Sequence[float]) -> list[list[float]]:
    """For each event the seconds from its emission until each client had it, in the order of the events."""
    found: list[list[float]] = [[] for _ in emitted]
    for one in people:
        for number, at in arrivals(one, ends):
            found[number].append(at - emitted[number])
    return found


def arrivals(one: Reader, ends: list[int]) -> Iterator[tuple[int, float]]:
    """When (time.time) each frame was whole for a client, by its number; ``ends`` is where the frames end."""
    done = 0
    for at, taken in one.log or ():
        there = bisect.bisect_right(ends, taken, done)
        for number in range(done, there):
            yield number, at
        done = there
