"""The queue between the library and one client."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable
from typing import Any, Protocol

from engineio import packet

# What the library has to say to one client: a handshake, pings, refusals
MAX_WAITING = 100


class Writer(Protocol):
    """A WebSocket, as far as the queue knows it."""

    @property
    def is_overrun(self) -> bool:
        """Whether much more waits than should."""

    def write_packet(self, item: Any) -> None:
        """Write a packet, or several that were ready for a poll."""


class Ready:
    """Packets that are encoded already, for one answer to a poll."""

    def __init__(self, text: str) -> None:
        self._text = text

    def encode(self, b64: bool = False) -> str:
        """All of them, as an answer has them."""
        return self._text


class Outbox:
    """The queue of a session, in the shape in which the library knows it: of ``asyncio.Queue``.

    Until the session is on WebSocket, packets wait for a poll; ``asked`` says that one waits for packets, and ``wake``
    is called when one comes and finds none. From then on they are written at once. ``overrun`` is called for a client
    that makes the library say more than it reads; ``ping`` is what the library waits with for the next one.
    """

    __slots__ = ("_ended", "_packets", "_poll", "_wire", "overrun", "ping", "wake")

    def __init__(self) -> None:
        self._packets: collections.deque[Any] = collections.deque()
        self._poll: asyncio.Future[None] | None = None
        self._wire: Writer | None = None
        self._ended = False
        self.wake: Callable[[], None] | None = None
        self.overrun: Callable[[], None] | None = None
        self.ping: asyncio.Task[Any] | None = None

    @property
    def asked(self) -> bool:
        """Whether a poll waits, and nothing was given to it yet."""
        return self._poll is not None and not self._poll.done()

    def qsize(self) -> int:
        """How many packets wait."""
        return len(self._packets)

    async def put(self, item: Any) -> None:
        """See ``put_nowait``."""
        self.put_nowait(item)

    def put_nowait(self, item: Any) -> None:
        """Take a packet; None, with which the library ends its own writer, means nothing here."""
        if item is None or self._ended:
            return
        if self._wire is not None:
            self._wire.write_packet(item)
        else:
            self._packets.append(item)
            self._answer()
        if self.overrun and (self.qsize() > MAX_WAITING or (self._wire and self._wire.is_overrun)):
            self.overrun()

    async def get(self) -> Any:
        """The next packet for a poll, when there is one. Raises TimeoutError for a second poll, as for one in vain."""
        if self._poll is not None:
            raise TimeoutError
        while not self._packets:
            self._poll = asyncio.get_running_loop().create_future()
            if self.wake:
                self.wake()
            try:
                await self._poll
            finally:
                self._poll = None
        return self._packets.popleft()

    def get_nowait(self) -> Any:
        """The next packet. Raises ``asyncio.QueueEmpty``."""
        if not self._packets:
            raise asyncio.QueueEmpty
        return self._packets.popleft()

    def task_done(self) -> None:
        """Nobody waits for that."""

    async def join(self) -> None:
        """Nobody has to wait for a client that may never ask."""

    def _answer(self) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)

    def release(self) -> None:
        """Answer the poll that waits, if there is one, with nothing."""
        if self.asked:
            self.put_nowait(packet.Packet(packet.NOOP))

    def end(self) -> None:
        """The session has ended: a poll that waits is told so, and nothing is taken any more."""
        if self.asked:
            self.put_nowait(packet.Packet(packet.CLOSE))
        self._ended = True
        # The library keeps a session for a while yet
        self.wake = self.overrun = None
        if self.ping is not None:
            self.ping.cancel()

    def leave_by(self, wire: Writer) -> None:
        """From now on, and with what waits, write to ``wire``."""
        self._wire = wire
        while self._packets:
            wire.write_packet(self._packets.popleft())
