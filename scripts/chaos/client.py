"""A WebSocket client that comes back with what it has, and judges every frame as it comes."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import time
from collections.abc import Callable
from typing import Any

import orjson
import websockets.asyncio.client
import websockets.exceptions

Key = tuple[str, str]


class Client:
    """Follows all streams. ``away`` tells whether Kafka is away, when nobody can be blamed for a past that is not told.

    ``seen`` holds the numbers by stream and epoch. ``twice`` and ``gaps`` are what must not be; ``untold`` counts
    subscriptions that said ``recovered: false`` for a stream while Kafka was there, ``excused`` those while it was not.
    """

    def __init__(self, address: str, name: str, away: Callable[[], bool]) -> None:
        self.name, self._address, self._away = name, address, away
        self.seen: dict[Key, set[int]] = collections.defaultdict(set)
        self.last: dict[str, tuple[str, int]] = {}
        self.twice: list[str] = []
        self.gaps: list[str] = []
        self.untold: list[str] = []
        self.excused = self.replayed = self.connections = self.frames = 0
        self._leave_until = 0.0
        self._socket: Any = None
        self._asked: dict[str, Any] = {}

    async def run(self) -> None:
        """Read until cancelled, and reconnect whenever the connection ends."""
        while True:
            await asyncio.sleep(max(0.05, self._leave_until - time.monotonic()))
            with contextlib.suppress(OSError, TimeoutError, websockets.exceptions.WebSocketException):
                await self._session()

    async def leave(self, seconds: float) -> None:
        """Go away for some time."""
        self._leave_until = time.monotonic() + seconds
        if self._socket is not None:
            await self._socket.close()

    async def wander(self, chance: random.Random, moments: list[float]) -> None:
        """Go away at these moments, for longer than the server's memory goes back or for shorter."""
        begin = time.monotonic()
        for moment in moments:
            await asyncio.sleep(max(0.0, begin + moment - time.monotonic()))
            await self.leave(chance.uniform(2, 12))

    async def _session(self) -> None:
        uri = f"ws://{self._address}/ws"
        async with websockets.asyncio.client.connect(uri, max_queue=None, compression=None, open_timeout=10) as socket:
            self._socket = socket
            self.connections += 1
            self._asked = {stream: {"epoch": epoch, "seq": seq} for stream, (epoch, seq) in self.last.items()}
            message = {"action": "subscribe", "channels": ["dashboard-updates"], "after": self._asked}
            await socket.send(orjson.dumps(message).decode())
            async for text in socket:
                self._take(orjson.loads(text))

    def _take(self, frame: dict[str, Any]) -> None:
        data = frame["data"]
        if frame["event"] == "subscribed":
            for stream, told in data["streams"].items():
                self._begin(stream, told)
        elif frame["event"] == "error":
            self.gaps.append(f"error frame {data}")
        elif "specversion" in data:
            self._event(data["subject"], data["epoch"], data["seq"])

    def _begin(self, stream: str, told: dict[str, Any]) -> None:
        self.replayed += told["replayed"]
        if told["recovered"]:
            return
        self.last[stream] = (told["epoch"], told["seq"] - told["replayed"])
        if stream in self._asked:
            if self._away():
                self.excused += 1
            else:
                self.untold.append(f"{stream}: asked for {self._asked[stream]}, told {told}")

    def _event(self, stream: str, epoch: str, seq: int) -> None:
        self.frames += 1
        before = self.last.get(stream, (epoch, seq - 1))
        seen = self.seen[stream, epoch]
        if seq in seen:
            self.twice.append(f"{stream}/{epoch}/{seq}")
        elif seq != (before[1] + 1 if before[0] == epoch else 1):
            self.gaps.append(f"{stream}: {epoch}/{seq} behind {before[0]}/{before[1]}")
        seen.add(seq)
        self.last[stream] = (epoch, seq)
