"""The client against a daemon that does what a script says: cuts, garbage, silence, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import http
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import websockets.asyncio.server

from regstream import client, errors
from regstream.event import Position

Socket = websockets.asyncio.server.ServerConnection
SECONDS = 60.0


@dataclasses.dataclass
class Talk:
    """One connection of the client, from the side of the daemon."""

    socket: Socket
    asked: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    async def say(self, event: str, **data: Any) -> None:
        await self.socket.send(json.dumps({"event": event, "data": data}))

    async def welcome(self, *channels: str) -> dict[str, Any]:
        """Say what channels there are, and give what is asked for."""
        await self.say("welcome", channels=list(channels or ("A", "B", "dashboard-updates", "system")))
        return await self.heard()

    async def heard(self) -> dict[str, Any]:
        self.asked.append(json.loads(await self.socket.recv()))
        return self.asked[-1]

    async def begin(self, **streams: dict[str, Any]) -> dict[str, Any]:
        """Welcome, and confirm the subscription to these streams (A, at 0)."""
        asked = await self.welcome()
        await self.confirm(**streams)
        return asked

    async def confirm(self, **streams: dict[str, Any]) -> None:
        await self.say("subscribed", channels=[], streams=streams or {"A": at(0)})

    async def show(self, *seqs: int, stream: str = "A", epoch: str = "E1", size: int = 0, **more: Any) -> None:
        for seq in seqs:
            place = {"subject": stream, "epoch": epoch, "seq": seq, **more}
            await self.say("a-event", specversion="1.0", **place, data="x" * size)

    def cut(self) -> None:
        self.socket.transport.abort()


def at(seq: int, epoch: str = "E1", recovered: bool = False, replayed: int = 0, **more: int) -> dict[str, Any]:
    return {"epoch": epoch, "seq": seq, "recovered": recovered, "replayed": replayed, **more}


Act = Callable[[Talk], Awaitable[None]]


class Script:
    """A daemon that plays one act a connection, the last one for ever; an act's end leaves the connection open."""

    def __init__(self, acts: tuple[Act | int, ...]) -> None:
        self.acts = acts
        self.talks: list[Talk] = []
        self._turn = itertools.count()
        self._pending: list[Act] = []
        self.ended = asyncio.Event()
        self.url = ""

    async def reached(self, count: int) -> None:
        """Wait until so many connections have asked for something."""
        async with asyncio.timeout(SECONDS):
            while len([talk for talk in self.talks if talk.asked]) < count:
                await asyncio.sleep(0)

    async def refuse(self, socket: Socket, request: Any) -> Any:
        act = self.acts[min(next(self._turn), len(self.acts) - 1)]
        if isinstance(act, int):
            return socket.respond(http.HTTPStatus(act), "no\n")
        self._pending.append(act)
        return None

    async def play(self, socket: Socket) -> None:
        talk = Talk(socket)
        self.talks.append(talk)
        with contextlib.suppress(websockets.ConnectionClosed):
            await self._pending.pop(0)(talk)
        await socket.wait_closed()
        self.ended.set()


@contextlib.asynccontextmanager
async def playing(*acts: Act | int) -> AsyncIterator[tuple[str, Script]]:
    script = Script(acts)
    serve = websockets.asyncio.server.serve
    async with serve(
        script.play, "127.0.0.1", 0, process_request=script.refuse, close_timeout=0.2, write_limit=2**12
    ) as server:
        script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield script.url, script


class Heard:
    """What ``notice`` was told."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, data: dict[str, Any]) -> None:
        self.all.append((event, data))

    @property
    def names(self) -> list[str]:
        return [event for event, _ in self.all]

    def data(self, wanted: str) -> list[dict[str, Any]]:
        return [data for event, data in self.all if event == wanted]


class Pauses:
    """A clock that only pauses move."""

    def __init__(self) -> None:
        self.now, self.asked = 1000.0, list[float]()

    async def sleep(self, seconds: float) -> None:
        self.asked.append(round(seconds, 6))
        self.now += seconds
        await asyncio.sleep(0)

    def timing(self, **more: Any) -> client.Timing:
        return client.Timing(sleep=self.sleep, clock=lambda: self.now, **{"chance": lambda: 0.0, **more})


def subscribe(url: str, *channels: str, **more: Any) -> client.Subscription:
    return client.subscribe(url, channels or ["A"], **{"timing": Pauses().timing(), **more})


@contextlib.asynccontextmanager
async def reading(
    *acts: Act | int, channels: tuple[str, ...] = ("A",), **more: Any
) -> AsyncIterator[tuple[client.Subscription, Script]]:
    async with playing(*acts) as (url, script), subscribe(url, *channels, **more) as events:
        yield events, script


async def take(events: client.Subscription, count: int) -> list[int]:
    async with asyncio.timeout(SECONDS):
        return [(await anext(events))["seq"] for _ in range(count)]


async def nothing_is_left() -> None:
    """No task but this one, once what was cut off has been seen to."""
    async with asyncio.timeout(SECONDS):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)


def shows(*seqs: int, streams: dict[str, Any] | None = None, **more: Any) -> Act:
    """An act: confirm, show these, and cut the client off."""

    async def act(talk: Talk) -> None:
        await talk.begin(**(streams or {}))
        await talk.show(*seqs, **more)
        await (await talk.socket.ping())
        talk.cut()

    return act


def stays(*seqs: int, streams: dict[str, Any] | None = None, **more: Any) -> Act:
    """An act: confirm, show these, and stay."""

    async def act(talk: Talk) -> None:
        await talk.begin(**(streams or {}))
        await talk.show(*seqs, **more)

    return act


def closes(code: int, *seqs: int) -> Act:
    async def act(talk: Talk) -> None:
        await talk.begin()
        await talk.show(*seqs)
        await talk.socket.close(code, "so it is")

    return act


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:3001", "ws://127.0.0.1:3001/ws"),
        ("https://one.example/", "wss://one.example/ws"),
        ("ws://[::1]:80/ws", "ws://[::1]:80/ws"),
        ("wss://one.example/under/ws/", "wss://one.example/under/ws"),
    ],
)
def test_addresses(url: str, address: str) -> None:
    assert client.address(url) == address


@pytest.mark.parametrize("url", ["", "nonsense", "http://", "ftp://one", "http://one:99999", "http://one/ws?channel=A"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(errors.BadValue, match="is not an address"):
        client.subscribe(url, ["A"])


async def test_all_that_was_asked_for_is_said_once() -> None:
    asked = {
        "snapshot": True,
        "policy": "conflate",
        "max_rate": 0.5,
        "rewind": 3,
        "after": {"A": Position("E1", 3)},
    }
    async with reading(stays(4), channels=("A", "A"), **asked) as (events, script):
        assert await take(events, 1) == [4]
    assert script.talks[0].asked == [
        {
            "action": "subscribe",
            "channels": ["A"],
            "after": {"A": {"epoch": "E1", "seq": 3}},
            "rewind": 3,
            "snapshot": True,
            "policy": "conflate",
            "maxRate": 0.5,
        }
    ]


async def test_a_connection_cut_in_the_middle_is_continued() -> None:
    heard = Heard()
    resumed = stays(3, 4, 5, streams={"A": at(5, recovered=True, replayed=2)})
    async with reading(shows(1, 2, 3), resumed, notice=heard) as (events, script):
        assert await take(events, 5) == [1, 2, 3, 4, 5]
        assert events.positions == {"A": ("E1", 5)}
    assert script.talks[1].asked[0]["after"] == {"A": {"epoch": "E1", "seq": 3}}
    assert heard.names == ["welcome", "subscribed", "lost", "welcome", "subscribed"]
    assert heard.data("lost")[0]["reason"]


async def test_what_is_sent_again_is_given_out_and_moves_no_position() -> None:
    async def first(talk: Talk) -> None:
        await talk.begin()
        await talk.show(1, 2, 3)
        await talk.show(1, 2, replay=True)
        await talk.show(3)
        await (await talk.socket.ping())
        talk.cut()

    async with reading(first, stays(4, streams={"A": at(4, recovered=True, replayed=1)})) as (events, script):
        async with asyncio.timeout(SECONDS):
            found = [await anext(events) for _ in range(6)]
        assert [(one["seq"], one.get("replay", False)) for one in found] == [
            (1, False), (2, False), (3, False), (1, True), (2, True), (4, False),
        ]  # fmt: skip
    assert script.talks[1].asked[0]["after"] == {"A": {"epoch": "E1", "seq": 3}}


async def test_what_waits_in_the_client_is_given_out_before_it_comes_back() -> None:
    async with reading(shows(*range(1, 11)), stays(11)) as (events, script):
        assert await take(events, 3) == [1, 2, 3]
        await script.ended.wait()
        assert events.positions == {"A": ("E1", 3)}
        assert len(script.talks) == 1
        assert await take(events, 8) == [4, 5, 6, 7, 8, 9, 10, 11]
    assert script.talks[1].asked[0]["after"]["A"]["seq"] == 10


@pytest.mark.parametrize(("replayed", "seq"), [(0, 40), (7, 33)])
async def test_a_stream_of_which_nothing_came_yet_is_continued_too(replayed: int, seq: int) -> None:
    begun = shows(streams={"A": at(40, replayed=replayed)})
    async with reading(begun, stays(seq + 1), rewind=replayed) as (events, script):
        assert events.positions == {"A": ("E1", seq)}
        assert await take(events, 1) == [seq + 1]
    assert script.talks[1].asked[0]["after"] == {"A": {"epoch": "E1", "seq": seq}}


async def test_what_could_not_be_recovered_is_told_and_left() -> None:
    heard = Heard()
    unrecovered = shows(streams={"A": at(90)})
    async with reading(shows(1, 2), unrecovered, stays(80, 91), notice=heard) as (events, script):
        assert await take(events, 3) == [1, 2, 91]
    assert heard.data("subscribed")[1]["streams"] == {"A": at(90)}
    assert script.talks[2].asked[0]["after"] == {"A": {"epoch": "E1", "seq": 90}}


async def test_another_epoch_begins_anew_and_the_old_one_is_not_given_out_again() -> None:
    new = shows(1, 2, epoch="E2", streams={"A": at(0, "E2")})
    behind = shows(2, 3, 4, streams={"A": at(1)})
    ahead = stays(2, 3, epoch="E2", streams={"A": at(1, "E2")})
    async with reading(shows(1, 2, 3), new, behind, ahead) as (events, _):
        assert await take(events, 7) == [1, 2, 3, 1, 2, 4, 3]
        assert events.positions == {"A": ("E2", 3)}


async def test_gaps_are_no_matter_and_lagging_is_told() -> None:
    heard = Heard()

    async def conflating(talk: Talk) -> None:
        await talk.begin()
        await talk.show(1, 5)
        await talk.say("lagging", dropped={"A": 3}, total=3)
        await talk.show(9, 7, 9, 12)

    async with reading(conflating, policy="conflate", notice=heard) as (events, _):
        assert await take(events, 4) == [1, 5, 9, 12]
    assert heard.data("lagging") == [{"dropped": {"A": 3}, "total": 3}]


async def test_a_snapshot_that_was_cut_is_completed() -> None:
    begun = {"A": at(50, snapshot=3)}
    rest = stays(*range(31, 52), streams={"A": at(50, recovered=True, replayed=20)})
    async with reading(shows(streams=begun), shows(10, 30, streams=begun), rest, snapshot=True) as (events, script):
        assert await take(events, 23) == [10, 30, *range(31, 52)]
    assert [talk.asked[0]["after"] for talk in script.talks] == [{}, {}, {"A": {"epoch": "E1", "seq": 30}}]
    assert all(talk.asked[0]["snapshot"] for talk in script.talks)


GARBAGE = [
    "nonsense",
    "[]",
    "[" * 100_000,
    '{"event":"a-event"}',
    '{"event":5,"data":{}}',
    '{"event":"a-event","data":{"specversion":"1.0","subject":"A","epoch":"E1","seq":"9"}}',
    '{"event":"subscribed","data":{"streams":{"B":{"epoch":"E1"}}}}',
    '{"event":"subscribed","data":{"streams":null}}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_ends_a_connection_not_the_subscription(text: str | bytes) -> None:
    heard = Heard()

    async def garbage(talk: Talk) -> None:
        await talk.begin()
        await talk.show(1)
        await talk.socket.send(text)

    async with reading(garbage, stays(1, 2), notice=heard) as (events, _):
        assert await take(events, 2) == [1, 2]
    assert len(heard.data("lost")) == 1
    assert len(heard.data("lost")[0]["reason"]) < 250


@pytest.mark.parametrize(
    "frame", ["nonsense", '{"event":"welcome","data":{}}', '{"event":"x","data":{"specversion":"1.0"}}']
)
async def test_who_begins_with_garbage_is_no_daemon(frame: str) -> None:
    async def garbage(talk: Talk) -> None:
        await talk.socket.send(frame)

    async with playing(garbage) as (url, script):
        with pytest.raises(errors.StartError, match="is the daemon running"):
            await anext(subscribe(url))
        await asyncio.wait_for(script.ended.wait(), SECONDS)
    await nothing_is_left()


@pytest.mark.parametrize("code", [1000, 1001, 1011, 4008])
async def test_a_daemon_that_closes_is_come_back_to(code: int) -> None:
    heard = Heard()
    async with reading(closes(code, 1, 2), stays(3), notice=heard) as (events, _):
        assert await take(events, 3) == [1, 2, 3]
    assert str(code) in heard.data("lost")[0]["reason"]


@pytest.mark.parametrize(
    ("code", "error"), [(4001, errors.StartError), (4009, errors.BadValue), (1009, errors.BadValue)]
)
async def test_codes_that_coming_back_would_not_mend_are_raised(code: int, error: type[Exception]) -> None:
    async with playing(closes(code, 1)) as (url, script):
        events = subscribe(url)
        assert await take(events, 1) == [1]
        with pytest.raises(error, match="so it is"):
            await take(events, 1)
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    assert len(script.talks) == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_who_is_no_longer_let_in_is_told(status: int) -> None:
    async with reading(shows(1), status) as (events, _):
        with pytest.raises(errors.StartError, match=f"not allowed.*{status}"):
            await take(events, 2)


async def test_a_password_in_the_address_is_not_shown() -> None:
    async with playing(500) as (url, _):
        with pytest.raises(errors.StartError) as raised:
            await anext(subscribe(url.replace("//", "//me:secret@")))
    assert "secret" not in str(raised.value) and "127.0.0.1" in str(raised.value)


async def test_pauses_double_up_to_a_bound_and_begin_anew_behind_an_event() -> None:
    pauses = Pauses()
    acts = (shows(1), *[503] * 7, shows(2), stays(3))
    async with reading(*acts, timing=pauses.timing()) as (events, _):
        assert await take(events, 3) == [1, 2, 3]
    assert pauses.asked == [0.25, 0.5, 1, 2, 4, 8, 10, 10, 0.25]


async def test_a_connection_that_lasted_ends_a_row_of_failures() -> None:
    pauses = Pauses()

    async def lasting(talk: Talk) -> None:
        await talk.begin()
        await (await talk.socket.ping())
        pauses.now += 11
        talk.cut()

    async with reading(shows(), shows(), lasting, stays(1), timing=pauses.timing()) as (events, _):
        assert await take(events, 1) == [1]
    assert pauses.asked == [0.25, 0.5, 0.25]


def test_chance_takes_up_to_half_of_a_pause_away() -> None:
    timing = client.Timing(chance=iter([0.0, 0.5, 0.999]).__next__)
    assert [timing.pause(1), timing.pause(2), timing.pause(1000)] == pytest.approx([0.25, 0.375, 5.005])
    assert 0.125 <= client.Timing().pause(1) <= 0.25


async def test_a_silent_peer_is_noticed() -> None:
    heard = Heard()

    async def silent(talk: Talk) -> None:
        await talk.begin()
        await talk.show(1)
        talk.socket.transport.pause_reading()

    async with reading(silent, stays(2), notice=heard, timing=Pauses().timing(ping=0.5)) as (events, _):
        assert await take(events, 2) == [1, 2]
    assert "ping" in heard.data("lost")[0]["reason"]


async def mute(talk: Talk) -> None:
    await talk.welcome()


async def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    async with playing(mute) as (url, _):
        with pytest.raises(errors.StartError, match=r"no answer within 0\.1 s"):
            await anext(subscribe(url, timing=Pauses().timing(answer=0.1)))


async def test_a_port_that_accepts_and_stays_silent_is_no_daemon() -> None:
    async with await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(errors.StartError, match="timed out"):
            await anext(subscribe(f"ws://127.0.0.1:{port}", timing=Pauses().timing(open=0.1)))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (
            {"code": "unknown_channel", "message": "unknown channel 'AA', did you mean A?", "near": ["A"]},
            errors.UnknownName("channel", "AA", ("A",)),
        ),
        ({"code": "bad_value", "message": "rewind: must be small"}, errors.BadValue("rewind", "must be small")),
        ({"code": "other"}, errors.BadValue("subscription", "{'code': 'other'}")),
    ],
)
async def test_a_subscription_that_is_refused_raises_what_the_daemon_did(
    data: dict[str, Any], error: errors.RegstreamError
) -> None:
    async def refuses(talk: Talk) -> None:
        await talk.welcome()
        await talk.say("error", **data)

    async with playing(refuses) as (url, _):
        with pytest.raises(type(error)) as raised:
            async with subscribe(url, "AA"):
                pass
    assert vars(raised.value) == vars(error)


def without(*channels: str, then: int) -> Act:
    async def act(talk: Talk) -> None:
        await talk.welcome(*channels)
        await talk.confirm()
        await talk.show(then)

    return act


async def test_a_channel_that_is_gone_does_not_keep_the_others_back() -> None:
    heard = Heard()
    acts = (shows(1), without("A", then=2), stays(3))
    async with reading(*acts, channels=("A", "B"), notice=heard) as (events, script):
        assert await take(events, 2) == [1, 2]
        script.talks[1].cut()
        assert await take(events, 1) == [3]
    assert [talk.asked[0]["channels"] for talk in script.talks] == [["A", "B"], ["A"], ["A", "B"]]
    assert heard.data("error") == [{"code": "unknown_channel", "message": "unknown channel 'B'"}]


async def test_a_channel_that_goes_between_welcome_and_answer_is_left_out_the_next_time() -> None:
    async def late(talk: Talk) -> None:
        await talk.welcome()
        await talk.say("error", code="unknown_channel", message="unknown channel 'B'")

    async with reading(shows(1), late, without("A", then=2), channels=("A", "B")) as (events, _):
        assert await take(events, 2) == [1, 2]


async def test_when_no_channel_is_left_that_is_an_error() -> None:
    async with reading(shows(1), without("C", then=2), channels=("B", "A")) as (events, _):
        assert await take(events, 1) == [1]
        with pytest.raises(errors.UnknownName, match="'B'"):
            await take(events, 1)


async def test_system_is_not_rewound_and_new_streams_are() -> None:
    heard = Heard()

    async def resumed(talk: Talk) -> None:
        await talk.begin()
        await talk.heard()
        await talk.say("system", kind="reloaded")
        await talk.confirm(A=at(1, recovered=True), B=at(2, replayed=2))
        await talk.show(1, 2, stream="B")

    channels = ("dashboard-updates", "system")
    async with reading(shows(1), resumed, channels=channels, notice=heard, rewind=5) as (events, script):
        assert await take(events, 3) == [1, 1, 2]
    first, *others = [asked for talk in script.talks for asked in talk.asked]
    assert (first["channels"], first["rewind"]) == (["dashboard-updates", "system"], 5)
    assert others[0] == {"action": "subscribe", "channels": ["system"]}
    assert (others[1]["channels"], others[1]["rewind"]) == (["dashboard-updates"], 1000)
    assert heard.data("system") == [{"kind": "reloaded"}]


async def test_a_slow_reader_leaves_the_rest_in_the_socket() -> None:
    full = asyncio.Event()

    async def floods(talk: Talk) -> None:
        await talk.begin()
        for seq in range(1, 20_001):
            if talk.socket.transport.get_write_buffer_size():
                full.set()
            await talk.show(seq, size=2000)

    async with reading(floods) as (events, _):
        await asyncio.wait_for(full.wait(), SECONDS)
        assert await take(events, 20_000) == list(range(1, 20_001))


async def test_an_end_while_waiting_for_an_event_ends_the_iteration() -> None:
    async with playing(stays(1)) as (url, script):
        events = subscribe(url)
        assert await take(events, 1) == [1]
        waiting = asyncio.create_task(take(events, 1))
        await asyncio.sleep(0)
        with pytest.raises(errors.Conflict):
            await anext(events)
        await events.aclose()
        await events.aclose()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, SECONDS)
        await script.ended.wait()
    await nothing_is_left()


@pytest.mark.parametrize("acts", [(shows(1), mute), (shows(1), stays())], ids=["in an answer", "in silence"])
async def test_an_end_while_it_comes_back_ends_the_iteration(acts: tuple[Act, ...]) -> None:
    async with playing(*acts) as (url, script):
        events = subscribe(url)
        waiting = asyncio.create_task(take(events, 2))
        await script.reached(2)
        await events.aclose()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, SECONDS)
    await nothing_is_left()


async def test_an_end_in_a_pause_is_not_slept_through() -> None:
    paused = asyncio.Event()

    async def sleep(seconds: float) -> None:
        paused.set()
        await asyncio.Event().wait()

    async with playing(shows(1)) as (url, _):
        events = subscribe(url, timing=client.Timing(sleep=sleep))
        waiting = asyncio.create_task(take(events, 2))
        await asyncio.wait_for(paused.wait(), SECONDS)
        await events.aclose()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(waiting, SECONDS)
    await nothing_is_left()


@pytest.mark.parametrize("act", [mute, stays()], ids=["while it connects", "while it waits"])
async def test_a_cancelled_reader_leaves_nothing_behind_and_may_go_on(act: Act) -> None:
    async with playing(act, stays(1)) as (url, script):
        events = subscribe(url)
        reader = asyncio.create_task(take(events, 1))
        await script.reached(1)
        reader.cancel()
        await asyncio.wait([reader])
        assert reader.cancelled()
        await asyncio.wait_for(script.ended.wait(), SECONDS)
        assert await take(events, 1) == [1]
        await events.aclose()
    await nothing_is_left()


async def test_a_time_limit_within_a_context_keeps_the_connection() -> None:
    go = asyncio.Event()

    async def late(talk: Talk) -> None:
        await talk.begin()
        await go.wait()
        await talk.show(1)

    async with reading(late) as (events, script):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), 0.01)
        go.set()
        assert await take(events, 1) == [1]
    assert len(script.talks) == 1
    await nothing_is_left()


async def test_one_that_is_forgotten_lets_go_of_its_connection() -> None:
    async with playing(stays(1)) as (url, script):
        async for event in subscribe(url):
            assert event["seq"] == 1
            break
        gc.collect()
        await asyncio.wait_for(script.ended.wait(), SECONDS)
    await nothing_is_left()


async def test_what_notice_raises_is_not_taken_for_a_lost_connection() -> None:
    def full(event: str, data: dict[str, Any]) -> None:
        raise BrokenPipeError

    async with playing(stays(1)) as (url, script):
        with pytest.raises(BrokenPipeError):
            await anext(subscribe(url, notice=full))
        assert len(script.talks) == 1


async def test_what_notice_raises_takes_no_event_along() -> None:
    def full(event: str, data: dict[str, Any]) -> None:
        if event in ("subscribed", "welcome"):
            raise BrokenPipeError

    async with playing(stays(1, 2)) as (url, _), contextlib.aclosing(subscribe(url, notice=full)) as events:
        with pytest.raises(BrokenPipeError):
            await events.__aenter__()
        with pytest.raises(BrokenPipeError):
            await anext(events)
        assert await take(events, 2) == [1, 2]


async def test_several_read_side_by_side() -> None:
    three, rest = shows(1, 2, 3), stays(4, 5, 6)
    async with reading(three, three, rest, rest) as (one, script), subscribe(script.url) as two:
        both = await asyncio.gather(take(one, 6), take(two, 6))
    assert both == [[1, 2, 3, 4, 5, 6]] * 2


async def test_a_ping_is_answered_to_notice() -> None:
    heard = Heard()

    async def answers(talk: Talk) -> None:
        await talk.begin()
        assert await talk.heard() == {"action": "ping"}
        await talk.say("pong", time="now")
        await talk.show(1)

    async with reading(answers, notice=heard) as (events, _):
        await events.ping()
        assert await take(events, 1) == [1]
    await events.ping()
    assert heard.data("pong") == [{"time": "now"}]
