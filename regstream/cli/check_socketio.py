"""The step of ``regstream check`` for Socket.IO: one session that polls, by hand.

Polling, because it goes through whatever lets HTTP through: what is wrong with WebSockets is what ``--ws`` shows.
"""

from __future__ import annotations

import collections
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from regstream.cli import calling
from regstream.client import direct

SECONDS = 10.0
_BETWEEN = "\x1e"
_EVERY = "streaming-update"


class Broken(Exception):
    """The server did not answer as it should; the text says how it did."""


class Session:
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
            raise Broken(f"{event} answered {answer['error'].get('message')}")
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
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if not self._packets:
                self._packets.extend(self._send(None).split(_BETWEEN))
            packet = self._packets.popleft()
            if packet == "2":
                self._say("3")
            elif packet.startswith(kind):
                return packet[len(kind) :]
            else:
                raise Broken(f"{packet[:100]!r} came where {kind} was due")
        raise Broken(f"no packet {kind} came within {SECONDS:g} s")

    def _say(self, packet: str) -> None:
        self._send(packet.encode())

    def _send(self, body: bytes | None) -> str:
        headers = calling.headers("text/plain")
        request = urllib.request.Request(self._url, body, headers)  # noqa: S310 - the address is the operator's own
        try:
            with direct.request(request, SECONDS) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            raise Broken(f"/socket.io/ answered {error.code}: {error.read().decode(errors='replace')[:200]}") from error
        except OSError as error:
            raise Broken(f"/socket.io/ did not answer: {error}") from error


def exchange(base: str, stream: str, burst: Callable[[], dict[str, Any]]) -> str:
    """Join ``stream``, let ``burst`` make events, and receive them whole and in order, each under both its names.

    Gives what to say of it. Raises Broken.
    """
    session = Session(base)
    joined = session.ask("join-streaming", stream)
    made = burst()
    expected = joined["streams"][stream]["seq"] + 1
    while expected <= made["lastSeq"]:
        both = dict(session.event() for _ in range(2))
        own = next(iter(both.values()))["type"]
        seqs = [data["seq"] for data in both.values()]
        if seqs != [expected, expected] or list(both) != [_EVERY, own]:
            raise Broken(f"{list(both)} {seqs} came where {_EVERY}, {own} {expected} were due")
        expected += 1
    session.ask("leave-streaming", stream)
    session.close()
    return f"{stream} {made['firstSeq']} to {made['lastSeq']}, each as {_EVERY} and {own}"
