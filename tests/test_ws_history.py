"""What `/ws` does while something with a longer memory than the rings is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from regstream import hub, spec
from regstream.event import Event, Head, Position
from regstream.server import resume
from regstream.server.transports import websocket
from tests.test_ws import serving, until

AFTER = {"ONE": {"epoch": "E1", "seq": 10}}


class Memory:
    """Answers when it is let, with ``more`` than was asked for; ``fault`` is raised in place of an answer.

    With ``once`` it has nothing for whoever asks again.
    """

    def __init__(self, fault: Exception | None = None, *, more: int = 10, once: bool = False) -> None:
        self.let = asyncio.Event()
        self.asked: list[tuple[str, Position, int]] = []
        self.fault, self.more, self.once = fault, more, once

    async def __call__(self, stream: str, after: Position, before: int) -> Sequence[Event] | None:
        self.asked.append((stream, after, before))
        await self.let.wait()
        if self.fault is not None:
            raise self.fault
        if self.once and len(self.asked) > 1:
            return None
        head = Head(stream, after.epoch, "one-type", "t", spec.Priority.LOW, "2026", "LATAM")
        value = b'{"subject":"%b","seq":%d}'
        numbers = range(after.seq + 1, before + self.more)
        return [Event(head, seq, None, value % (stream.encode(), seq)) for seq in numbers]


async def test_the_gap_comes_whole_and_what_was_shown_meanwhile_after_it() -> None:
    memory = Memory()
    async with serving(ring_events=20, history=memory) as server, server.client() as client:
        server.show("ONE", 100)
        await client.say(action="subscribe", channels=["ONE"], after=AFTER)
        await until(lambda: memory.asked)
        assert memory.asked[0][:2] == ("ONE", Position("E1", 10))
        # An answer to this must not overtake the first
        await client.say(action="ping")
        server.show("ONE", 5)
        memory.let.set()
        streams = (await client.one("subscribed"))["streams"]
        assert streams == {"ONE": {"epoch": "E1", "seq": 105, "recovered": True, "replayed": 95}}
        assert await client.seqs(95) == [("ONE", seq) for seq in range(11, 106)]
        await client.one("pong")
        server.show("ONE")
        assert await client.seqs(1) == [("ONE", 106)]


@pytest.mark.parametrize("shown", [30, 100, 500])
async def test_a_ring_that_would_have_moved_on_meanwhile_joins_on_to_what_was_read(shown: int) -> None:
    # Twice its bound, five times, and more than a pinned one may hold: it is read on
    memory = Memory(more=0)
    async with serving(ring_events=20, history=memory) as server, server.client() as client:
        server.show("ONE", 100)
        await client.say(action="subscribe", channels=["ONE"], after=AFTER)
        await until(lambda: memory.asked)
        server.show("ONE", shown)
        memory.let.set()
        streams = (await client.one("subscribed"))["streams"]
        assert (streams["ONE"]["recovered"], streams["ONE"]["replayed"]) == (True, 90 + shown)
        assert await client.seqs(90 + shown) == [("ONE", seq) for seq in range(11, 101 + shown)]
        assert len(memory.asked) == (1 if shown <= 100 else 2)
        assert server.hub.missing(
            hub.Subscriber(lambda: None), hub.SubscriptionRequest(["ONE"], {"ONE": Position("E1", 79 + shown)})
        )


async def test_what_the_ring_has_moved_on_from_meanwhile_is_not_recovered_in_part() -> None:
    memory = Memory(once=True)
    async with serving(ring_events=20, history=memory) as server, server.client() as client:
        server.show("ONE", 100)
        await client.say(action="subscribe", channels=["ONE"], after=AFTER)
        await until(lambda: memory.asked)
        server.show("ONE", 500)
        memory.let.set()
        streams = (await client.one("subscribed"))["streams"]
        assert (streams["ONE"]["recovered"], streams["ONE"]["replayed"]) == (False, 0)
        server.show("ONE")
        assert await client.seqs(1) == [("ONE", 601)]


@pytest.mark.parametrize("fault", [OSError("gone"), RuntimeError("a bug")], ids=str)
async def test_a_memory_that_fails_leaves_nobody_waiting(
    fault: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    monkeypatch.setattr(resume.log, "exception", lambda text, *args, **_: told.append(text % args))
    memory = Memory(fault)
    memory.let.set()
    async with serving(ring_events=20, history=memory) as server, server.client() as client:
        server.show("ONE", 100)
        streams = await client.subscribe("ONE", after=AFTER)
        assert (streams["ONE"]["recovered"], streams["ONE"]["replayed"]) == (False, 0)
        await client.say(action="ping")
        await client.one("pong")
    assert told == ["the history of ONE could not be read"]


async def test_a_client_that_goes_on_talking_is_bounded() -> None:
    memory = Memory()
    async with serving(ring_events=20, history=memory) as server, server.client() as client:
        server.show("ONE", 100)
        await client.say(action="subscribe", channels=["ONE"], after=AFTER)
        await until(lambda: memory.asked)
        for _ in range(websocket.MAX_HELD + 1):
            await client.say(action="ping")
        assert await client.closed() == websocket.BAD_MESSAGE
        memory.let.set()


async def test_a_client_that_leaves_meanwhile_is_forgotten() -> None:
    memory = Memory()
    async with serving(ring_events=20, history=memory) as server:
        server.show("ONE", 100)
        async with server.client() as client:
            await client.say(action="subscribe", channels=["ONE"], after=AFTER)
            await until(lambda: memory.asked)
        await until(lambda: server.sockets.connections == 0)
        memory.let.set()
        await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name() == "ws-history"])
        assert server.hub.subscribers == 0


async def test_closing_waits_for_no_memory() -> None:
    memory = Memory()
    async with serving(ring_events=20, history=memory) as server, server.client() as client:
        server.show("ONE", 100)
        await client.say(action="subscribe", channels=["ONE"], after=AFTER)
        await until(lambda: memory.asked)
        async with asyncio.timeout(5):
            await server.sockets.close_all(0.5)
        assert await client.closed() == websocket.GOING_AWAY
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "ws-history"]
