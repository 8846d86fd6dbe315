"""What all ways to a reader have in common: when something is written, how much of it, and what a full one means.

A flush serves every outlet for which something has come. After one that cost much the next has to rest, for a few
milliseconds at most: what comes meanwhile leaves in one write a reader, and the system call is what a delivery costs,
not the frame. A flush for a few readers costs next to nothing and does not delay the next one.
"""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import functools
import logging
import socket
from collections.abc import Callable, Mapping, Sequence

from regstream import hub
from regstream.server import resume
from regstream.server.security import auth

WINDOW = 0.005
# Of the time in which outlets are served, flushes take one part in so many
RESTS = 8
# The loop's timers are no finer
FINEST = 0.001
WRITE_FRAMES, WRITE_BYTES = 256, 64 * 1024
BUFFER_BYTES = 256 * 1024
SEND_BUFFER_BYTES = 256 * 1024
LOOK_AGAIN = 0.02

log = logging.getLogger("regstream.server")


class FlushScheduler:
    """The flush of all outlets of a server; ``window`` is the longest rest in seconds, 0 for none."""

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._rest_until = 0.0
        self._ready: list[BufferedWriter] = []
        self._feeds: list[hub.Feed] = []
        # Each once, however often it was woken while its transport was full
        self._stalled: dict[BufferedWriter, None] = {}

    def wake(self, outlet: BufferedWriter) -> None:
        """Let ``outlet`` write with the next flush."""
        if not self._ready and not self._feeds:
            self._begin()
        self._ready.append(outlet)

    def share(self, feed: hub.Feed) -> None:
        """Let all who share in ``feed`` write with the next flush."""
        if not self._ready and not self._feeds:
            self._begin()
        self._feeds.append(feed)

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        wait = self._rest_until - loop.time()
        if wait > 0:
            loop.call_later(wait, self._flush)
        else:
            loop.call_soon(self._flush)

    def look_again(self, outlet: BufferedWriter) -> None:
        """Let ``outlet`` write a little later, when its transport may have room."""
        if not self._stalled:
            asyncio.get_running_loop().call_later(LOOK_AGAIN, self._unstall)
        self._stalled[outlet] = None

    def _unstall(self) -> None:
        stalled, self._stalled = self._stalled, {}
        for outlet in stalled:
            self.wake(outlet)

    def _flush(self) -> None:
        time = asyncio.get_running_loop().time
        begin = time()
        feeds, ready = self._feeds, self._ready
        self._feeds, self._ready = [], []
        for feed in feeds:
            self._serve(feed)
        for outlet in ready:
            try:
                outlet.write(begin)
            except Exception:
                self._fault(outlet)
        end = time()
        rest = min(self._window, (end - begin) * RESTS)
        self._rest_until = end + rest if rest >= FINEST else 0.0

    @staticmethod
    def _fault(outlet: BufferedWriter) -> None:
        # The others must be served all the same, because nothing would wake them again
        log.exception("a reader could not be written to")
        if not outlet.subscriber.slow:
            outlet.subscriber.give_up()

    def _serve(self, feed: hub.Feed) -> None:
        entries = feed.log
        for one in tuple(feed.sharing) if entries else ():
            reader: BufferedWriter = one.reader
            if not (reader.is_open and reader.has_room):
                feed.part(one)
                continue
            try:
                reader.send(entries)
            except Exception:
                self._fault(reader)
        feed.clear()


class EncodedCache:
    """The bytes of entries by ``frames``, made once when, as mostly, the next reader has the same to write."""

    __slots__ = ("_bytes", "_entries", "_frames")

    def __init__(self, frames: Callable[[list[hub.Entry]], bytes]) -> None:
        self._frames = frames
        self._entries: list[hub.Entry] = []
        self._bytes = b""

    def __call__(self, entries: list[hub.Entry]) -> bytes:
        """What to write for ``entries``."""
        if entries != self._entries:
            self._entries, self._bytes = entries, self._frames(entries)
        return self._bytes


class BufferedWriter(abc.ABC):
    """One reader: its queue in the hub, and the way to it."""

    __slots__ = ("_later", "_later_at", "_outlets", "subscriber")

    def __init__(self, outlets: FlushScheduler, limits: Mapping[str, int]) -> None:
        self._outlets = outlets
        # Bound once and without a frame of its own: it is called for each delivery
        self.subscriber = hub.Subscriber(
            functools.partial(outlets.wake, self), share=outlets.share, reader=self, **limits
        )
        self._later: asyncio.TimerHandle | None = None
        self._later_at = 0.0

    def _wake(self) -> None:
        self._outlets.wake(self)

    @property
    def shares(self) -> bool:
        """Whether ``send`` takes what it is given as it is, so that others may be given the same."""
        return True

    @property
    @abc.abstractmethod
    def is_open(self) -> bool:
        """Whether anything can still be written."""

    @property
    @abc.abstractmethod
    def has_room(self) -> bool:
        """Whether the reader has taken most of what was written."""

    @abc.abstractmethod
    def send(self, entries: list[hub.Entry]) -> None:
        """Write ``entries``, of which there is at least one."""

    @abc.abstractmethod
    def too_slow(self) -> None:
        """The queue was full: part with the reader."""

    @property
    def pending(self) -> bool:
        """Whether something waits to be written that can be."""
        return self.subscriber.pending and self.is_open

    def write(self, now: float) -> None:
        """Write a part of what waits, unless the reader takes nothing; come back for the rest when it can be taken."""
        if self.subscriber.slow:
            self.too_slow()
        elif not self.is_open:
            return
        elif not self.has_room:
            if self.subscriber.pending:
                self._outlets.look_again(self)
        else:
            entries = self.subscriber.take(WRITE_FRAMES, WRITE_BYTES, now)
            if entries:
                self.send(entries)
            wait = self.subscriber.wait(now)
            if wait is not None:
                self._come_back(now, wait)
            if self.shares:
                self.subscriber.settle_in()

    def write_out(self) -> None:
        """Write what waits and can be taken now, as far as there is room."""
        now = asyncio.get_running_loop().time()
        while self.is_open and self.has_room:
            entries = self.subscriber.take(WRITE_FRAMES, WRITE_BYTES, now)
            if not entries:
                return
            self.send(entries)

    def _come_back(self, now: float, wait: float) -> None:
        if wait <= 0:
            self._wake()
        elif self._later is None or now + wait < self._later_at:
            self.forget_timer()
            self._later_at = now + wait
            self._later = asyncio.get_running_loop().call_later(wait, self._on_time)

    def _on_time(self) -> None:
        self._later = None
        self._wake()

    def forget_timer(self) -> None:
        """Come back for nothing that waits for its time."""
        if self._later is not None:
            self._later.cancel()
            self._later = None


def tune(sock: socket.socket) -> None:
    """Set up an accepted connection for frames that must not wait."""
    # Unset, the kernel lets it grow to some 4 MB for a client that never reads.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    # asyncio sets it, but not on what a listening socket accepts that was made without naming the protocol; each frame
    # then waits up to 40 ms for the acknowledgement of the last one.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TransportContext:
    """The one argument of every transport.

    ``max_connections`` is how many clients a transport serves at once. ``origins`` are the patterns that an ``Origin``
    header must match when there is one. ``subscriber_limits`` are keywords of ``hub.Subscriber``. ``history`` is asked
    for what the rings do not hold any more. ``outlets`` flushes what waits. ``guard`` knows the tokens.
    """

    hub: hub.Hub
    max_connections: int
    origins: Sequence[str] = ()
    subscriber_limits: Mapping[str, int] = dataclasses.field(default_factory=dict)
    history: resume.History | None = None
    outlets: FlushScheduler = dataclasses.field(default_factory=FlushScheduler)
    guard: auth.Authenticator = dataclasses.field(default_factory=auth.Authenticator)
