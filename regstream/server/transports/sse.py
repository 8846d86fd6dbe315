"""Server-Sent Events (the HTML standard, section 9.2): for ``curl``, and where a firewall lets nothing else through.

A stream of them is an HTTP answer that does not end. Its head is the server's; what follows goes straight to the
transport, in chunks (RFC 9112, section 7.1), several events in one write, and waits for no reader.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from sanic.request import Request

from regstream import hub
from regstream.event import Position
from regstream.server import resume
from regstream.server.security import admission
from regstream.server.transports import messages, writer
from regstream.server.transports.writer import TransportContext

MOST = 100
"""A reader of more streams gets no ids: they would be longer than its events."""
_LENGTH = 8
_LONGEST = MOST * 32


@functools.lru_cache(maxsize=10_000)
def _name(stream: str, epoch: str) -> bytes:
    digest = hashlib.blake2b(f"{stream}/{epoch}".encode(), digest_size=6).digest()
    return base64.urlsafe_b64encode(digest)


class EventIds:
    """The marks of one reader; it begins with what a subscription was answered with.

    A stream that was not recovered has no mark until all that was sent of it before live has gone out: a reader that is
    cut off before that begins with it anew.
    """

    def __init__(self, answer: Mapping[str, hub.Subscribed]) -> None:
        self._marks: dict[str, bytes] = {}
        self._coming: dict[str, int] = {}
        for stream, one in answer.items():
            before = one.replayed + (one.snapshot or 0)
            if one.recovered or not before:
                self._set(stream, one.epoch, one.seq - one.replayed if one.recovered else one.seq)
            else:
                self._coming[stream] = before

    def _set(self, stream: str, epoch: str, seq: int) -> None:
        self._marks[stream] = b"%b%x" % (_name(stream, epoch), seq)

    def after(self, entry: hub.Entry) -> bytes:
        """The id of an event, which is thereby sent; empty when there is none.

        What is no event of a stream has one too: a reader may be cut off before the first event comes. One that was
        stored and is sent again moves nothing.
        """
        if entry.head is not None and not entry.replay:
            self._stand(entry, entry.head.stream)
        return b".".join(self._marks.values()) if len(self._marks) <= MOST else b""

    def _stand(self, entry: hub.Entry, stream: str) -> None:
        left = self._coming.get(stream, 0)
        if left > 1:
            self._coming[stream] = left - 1
        else:
            if left:
                del self._coming[stream]
            self._set(stream, *entry.position)


def positions(text: str, known: Iterable[tuple[str, Position]]) -> dict[str, Position]:
    """What ``Last-Event-ID`` says of the streams in ``known``, each with the position where it stands now."""
    marks = dict(_mark(one) for one in text.split(".")) if len(text) <= _LONGEST else {}
    found = {}
    for stream, now in known:
        seq = marks.get(_name(stream, now.epoch))
        if seq is not None:
            found[stream] = Position(now.epoch, seq)
    return found


def _mark(text: str) -> tuple[bytes, int | None]:
    if not text[_LENGTH:].isalnum():
        # A number may have a sign and more, elsewhere
        return b"", None
    try:
        return text[:_LENGTH].encode("ascii"), int(text[_LENGTH:], 16)
    except ValueError:
        return b"", None


MEDIA = "text/event-stream"
BEAT = 15.0
"""A comment as often as this: proxies close what is silent, and a reader that is gone is noticed."""
RETRY = 1000
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
_LAST = "last-event-id"


class EventStreams:
    """All readers of Server-Sent Events."""

    def __init__(self, context: TransportContext) -> None:
        self._hub, self._outlets, self._history = context.hub, context.outlets, context.history
        self._limits = context.subscriber_limits
        self._readers: set[EventStream] = set()
        self._gate = admission.Admission(self._readers, context.max_connections)

    @property
    def connections(self) -> int:
        """How many readers are connected."""
        return len(self._readers)

    async def serve(self, request: Request[Any, Any], wanted: hub.SubscriptionRequest) -> None:
        """Answer ``request`` with what is ``wanted``, until the reader goes or the server stops.

        ``Last-Event-ID`` stands in for its positions. Raises UnknownName and BadValue before anything is answered.
        """
        self._gate.check()
        last = request.headers.get(_LAST)
        if last:
            wanted = wanted._replace(after=positions(last, self._hub.positions))
        reader = EventStream(self._outlets, self._limits, request)
        self._readers.add(reader)
        try:
            await self._join(reader, wanted)
            await reader.last()
        finally:
            reader.end()
            self._hub.remove(reader.subscriber)
            self._readers.discard(reader)

    async def _join(self, reader: EventStream, wanted: hub.SubscriptionRequest) -> None:
        def confirm(streams: Mapping[str, hub.Subscribed]) -> None:
            reader.marks = EventIds(streams)
            reader.subscriber.offer(hub.reply("subscribed", messages.subscribed(wanted.channels, streams)))

        await resume.join(self._hub, self._history, reader.subscriber, wanted, confirm)

    async def close_all(self, within: float) -> None:
        """Write out what is queued and end every answer, for ``within`` seconds at most; take no new readers."""
        self._gate.shut()
        end = asyncio.get_running_loop().time() + within
        await admission.until(lambda: not any(one.pending for one in self._readers), end)
        for reader in tuple(self._readers):
            reader.end()


class EventStream(writer.BufferedWriter):
    """One answer that does not end."""

    __slots__ = ("_ended", "_request", "_took", "_transport", "_writing", "marks")

    def __init__(self, outlets: writer.FlushScheduler, limits: Mapping[str, int], request: Request[Any, Any]) -> None:
        super().__init__(outlets, limits)
        transport: Any = request.transport
        self._request, self._transport = request, transport
        self._writing, self._ended = False, asyncio.Event()
        self._took = False
        self.marks = EventIds({})
        writer.tune(self._transport.get_extra_info("socket"))

    @property
    def is_open(self) -> bool:
        """Whether the head of the answer is out and its end is not."""
        return self._writing and not self._ended.is_set() and not self._transport.is_closing()

    @property
    def has_room(self) -> bool:
        """Whether the transport's buffer is not full."""
        return bool(self._transport.get_write_buffer_size() <= writer.BUFFER_BYTES)

    def send(self, entries: list[hub.Entry]) -> None:
        """Write ``entries`` as events, all in one chunk."""
        text = b"".join(map(self._event, entries))
        self._transport.write(b"%x\r\n%b\r\n" % (len(text), text))
        self._took = True

    def _event(self, entry: hub.Entry) -> bytes:
        mark = self.marks.after(entry)
        value = entry.value
        if b"\n" in value or b"\r" in value:
            # Between the tokens of JSON only; such bytes come from others who write to the topic
            value = b"\ndata: ".join(value.splitlines())
        name = entry.name.encode()
        if mark:
            return b"event: %b\nid: %b\ndata: %b\n\n" % (name, mark, value)
        return b"event: %b\ndata: %b\n\n" % (name, value)

    def too_slow(self) -> None:
        """Cut the connection: a reader that takes nothing would not see an end either."""
        self._ended.set()
        self._transport.abort()

    async def last(self) -> None:
        """Write the head, and comments from time to time, until the end."""
        response = await self._request.respond(headers=_HEADERS, content_type=MEDIA)
        assert response is not None  # noqa: S101 - there was no answer before
        await response.send(f"retry: {RETRY}\n\n")
        self._writing = True
        self._outlets.wake(self)
        while not self._ended.is_set():
            try:
                async with asyncio.timeout(BEAT):
                    await self._ended.wait()
            except TimeoutError:
                self._beat()

    def _beat(self) -> None:
        # Not through the server: it waits until the transport is almost empty, and at a slow reader it never is
        if self.is_open and self.has_room:
            self._transport.write(b"3\r\n:\n\n\r\n")
            self._took = True
        if self._took:
            # It ends an answer in which it saw nothing sent for a minute, and of what is sent like that it sees nothing
            self._took, self._transport.get_protocol()._time = False, asyncio.get_running_loop().time()

    def end(self) -> None:
        """Write what can still be written, and end the answer."""
        if self.is_open:
            self.write_out()
        self._ended.set()
        self.forget_timer()
