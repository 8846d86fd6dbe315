"""`GET /api/streaming/stream`: Server-Sent Events over real HTTP, read as a browser reads them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from regstream import hub, spec
from regstream.event import Event, Head, Position
from regstream.server.transports import sse, writer
from tests.server.conftest import Live

BOUND = 60.0
FOLLOW = "/api/streaming/stream"


class Reader:
    """What a browser's EventSource makes of an answer: fields up to an empty line are an event."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()
        self.id = ""

    async def next(self) -> tuple[str, Any]:
        """Name and data of the next event."""
        name, data = "message", []
        async with asyncio.timeout(BOUND):
            async for line in self._lines:
                key, _, value = line.partition(": ")
                if not line and data:
                    return name, json.loads("\n".join(data))
                if key == "event":
                    name = value
                elif key == "id":
                    self.id = value
                elif key == "data":
                    data.append(value)
        raise EOFError

    async def until(self, wanted: str) -> Any:
        while True:
            name, data = await self.next()
            if name == wanted:
                return data

    async def events(self, stream: str, last: int) -> list[int]:
        """The numbers of a stream's events up to ``last``."""
        seqs: list[int] = []
        while not seqs or seqs[-1] < last:
            _, data = await self.next()
            if data.get("subject") == stream:
                seqs.append(data["seq"])
        return seqs


@contextlib.asynccontextmanager
async def follow(live: Live, query: str, last: str = "", **headers: str) -> AsyncIterator[Reader]:
    headers = {**headers, **({"last-event-id": last} if last else {})}
    async with live.client.stream("GET", f"{FOLLOW}?{query}", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        yield Reader(response)


async def burst(live: Live, count: int) -> int:
    _, last = await live.services.engine.burst("SYSTEM_METRICS", count)
    return last


async def test_events_as_they_are_made(live: Live) -> None:
    async with follow(live, "channel=SYSTEM_METRICS&channel=immediate-alert") as reader:
        assert reader.response.headers["content-type"] == "text/event-stream"
        assert reader.response.headers["cache-control"] == "no-store"
        name, data = await reader.next()
        assert name == "subscribed"
        assert set(data["streams"]) == {"SYSTEM_METRICS", "ALERTS"}
        await burst(live, 2)
        for seq in (1, 2):
            name, data = await reader.next()
            assert (name, data["seq"], data["specversion"]) == ("production-metrics", seq, "1.0")
        assert live.services.readers.connections == 1
    await live.until(lambda: live.services.hub.subscribers == 0 and live.services.readers.connections == 0)


async def test_last_event_id_brings_what_was_missed_of_every_stream(live: Live) -> None:
    async with follow(live, "channel=dashboard-updates") as reader:
        await reader.until("subscribed")
        await burst(live, 3)
        await reader.events("SYSTEM_METRICS", 3)
        _, payment = await reader.next()
        while payment["subject"] != "TRANSACTION_STREAM":
            _, payment = await reader.next()
        last = reader.id
    await burst(live, 5)
    async with follow(live, "channel=dashboard-updates", last) as reader:
        streams = (await reader.until("subscribed"))["streams"]
        assert all(streams[name]["recovered"] for name in ("SYSTEM_METRICS", "TRANSACTION_STREAM", "ALERTS"))
        assert streams["SYSTEM_METRICS"]["replayed"] == 5
        seen: dict[str, list[int]] = {"SYSTEM_METRICS": [], "TRANSACTION_STREAM": []}
        while len(seen["SYSTEM_METRICS"]) < 5 or len(seen["TRANSACTION_STREAM"]) < 5:
            _, data = await reader.next()
            seen[data["subject"]].append(data["seq"])
        assert seen["SYSTEM_METRICS"] == [4, 5, 6, 7, 8]
        first = payment["seq"] + 1
        assert seen["TRANSACTION_STREAM"] == list(range(first, first + len(seen["TRANSACTION_STREAM"])))


async def test_cut_at_any_event_it_goes_on_with_the_next(live: Live) -> None:
    """Each reader takes three events and is gone; together they have everything once."""
    last, seqs = "", []
    await burst(live, 1)
    for _ in range(8):
        async with follow(live, "channel=SYSTEM_METRICS&rewind=1", last) as reader:
            await reader.until("subscribed")
            await burst(live, 4)
            for _ in range(3):
                seqs.append((await reader.next())[1]["seq"])
            last = reader.id
    assert seqs == list(range(1, 25))


async def test_cut_before_the_first_event_it_misses_none(live: Live) -> None:
    async with follow(live, "channel=SYSTEM_METRICS&channel=system") as reader:
        await reader.until("subscribed")
    await burst(live, 3)
    async with follow(live, "channel=SYSTEM_METRICS&channel=system", reader.id) as again:
        assert (await again.until("subscribed"))["streams"]["SYSTEM_METRICS"]["recovered"]
        assert await again.events("SYSTEM_METRICS", 3) == [1, 2, 3]


async def test_an_epoch_that_is_gone_is_not_recovered_and_gets_a_snapshot(live: Live) -> None:
    await burst(live, 3)
    old = sse.EventIds({"SYSTEM_METRICS": hub.Subscribed("gone", 2, True, 0)})
    entry = hub.Entry("x", b"{", b"}", 1, _event("SYSTEM_METRICS", "gone", 2))
    async with follow(live, "channel=SYSTEM_METRICS&snapshot=true", old.after(entry).decode()) as reader:
        answer = (await reader.until("subscribed"))["streams"]["SYSTEM_METRICS"]
        assert (answer["recovered"], answer["snapshot"], answer["seq"]) == (False, 1, 3)
        assert (await reader.next())[1]["seq"] == 3


async def test_positions_in_the_query_and_policies(live: Live) -> None:
    await burst(live, 9)
    epoch = (await live.get("/streams/SYSTEM_METRICS"))["epoch"]
    after = json.dumps({"SYSTEM_METRICS": {"epoch": epoch, "seq": 7}})
    async with follow(live, f"channel=SYSTEM_METRICS&after={after}&policy=conflate&maxRate=4") as reader:
        answer = (await reader.until("subscribed"))["streams"]["SYSTEM_METRICS"]
        assert (answer["recovered"], answer["replayed"]) == (True, 2)
        assert [(await reader.next())[1]["seq"] for _ in range(2)] == [8, 9]
        await burst(live, 20)
        seqs = await reader.events("SYSTEM_METRICS", 29)
        assert len(seqs) < 20


async def test_system_and_lagging_come_too(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.services.readers, "_limits", {"limit_lane": 5})
    async with follow(live, "channel=SYSTEM_METRICS&channel=system&policy=dropOldest") as reader:
        await reader.until("subscribed")
        await burst(live, 1000)
        dropped = (await reader.until("lagging"))["dropped"]
        assert dropped["SYSTEM_METRICS"] > 0
        live.services.engine.pause("NIGHTLY")
        assert (await reader.until("system"))["kind"] == "stream-changed"


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("", 400, "channel"),
        ("channel=NOPE", 404, "NOPE"),
        ("channel=SYSTEM_METRIC", 404, "SYSTEM_METRICS"),
        ("channel=system&rewind=x", 400, "rewind"),
        ("channel=system&rewind=1001", 400, "rewind"),
        ("channel=system&after=%7B", 400, "after"),
        ("channel=system&policy=drop", 400, "policy"),
        ("channel=system&maxRate=0", 400, "maxRate"),
        ("channel=system&maxRate=nan", 400, "maxRate"),
        ("channel=system&snapshot=1", 400, "snapshot"),
        ("channel=system&chanel=x", 400, "chanel"),
        ("channel=" + "x" * 200, 400, "channel"),
    ],
)
async def test_what_cannot_be_followed(live: Live, query: str, status: int, word: str) -> None:
    response = await live.client.get(f"{FOLLOW}?{query}")
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert word in response.text
    assert live.services.hub.subscribers == 0


@pytest.mark.parametrize("last", ["x", "." * 4000, "12345678zz", "12345678-5", "a" * 500])
async def test_an_id_that_is_none_of_ours_means_nothing(live: Live, last: str) -> None:
    async with follow(live, "channel=SYSTEM_METRICS", last) as reader:
        answer = (await reader.until("subscribed"))["streams"]["SYSTEM_METRICS"]
        assert (answer["recovered"], answer["replayed"]) == (False, 0)


async def test_head_and_foreign_pages(live: Live) -> None:
    answer = await live.client.head(f"{FOLLOW}?channel=system")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    async with follow(live, "channel=system", origin="http://localhost:5173") as reader:
        assert reader.response.headers["access-control-allow-origin"] == "http://localhost:5173"
    async with follow(live, "channel=system", origin="http://evil.example") as reader:
        assert "access-control-allow-origin" not in reader.response.headers


async def test_a_silent_channel_has_comments(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regstream.server.transports.sse.BEAT", 0.05)
    async with live.client.stream("GET", f"{FOLLOW}?channel=system") as response:
        found, lines = 0, response.aiter_lines()
        async with asyncio.timeout(BOUND):
            while found < 3:
                found += await anext(lines) == ":"


async def test_one_that_reads_slowly_is_not_taken_for_one_that_is_gone(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transport is never empty, which is what the server waits for before it sends anything by itself."""
    monkeypatch.setattr("regstream.server.transports.sse.BEAT", 0.1)
    monkeypatch.setattr(writer, "SEND_BUFFER_BYTES", 4096)
    monkeypatch.setitem(live.server._app.config, "RESPONSE_TIMEOUT", 2)
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", live.server.port))
        sock.setblocking(False)
        channel = "channel=SYSTEM_METRICS&policy=dropOldest"
        await loop.sock_sendall(sock, f"GET {FOLLOW}?{channel} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        await live.until(lambda: live.services.hub.subscribers == 1)
        await burst(live, 3000)
        (reader,) = live.services.readers._readers
        begin = loop.time()
        while loop.time() < begin + 5:
            while reader.is_open and reader.has_room:
                await burst(live, 50)
            assert await asyncio.wait_for(loop.sock_recv(sock, 65536), BOUND), "cut off"
            await asyncio.sleep(0.05)
        assert live.services.readers.connections == 1


async def test_one_that_never_reads_is_cut_off(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.services.readers, "_limits", {"limit": 100})
    monkeypatch.setattr(writer, "BUFFER_BYTES", 1000)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", live.server.port))
        sock.sendall(f"GET {FOLLOW}?channel=SYSTEM_METRICS HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        await live.until(lambda: live.services.hub.subscribers == 1)
        for _ in range(40):
            await burst(live, 200)
            if live.services.hub.counts.slow:
                break
        await live.until(lambda: live.services.hub.counts.slow == 1 and live.services.readers.connections == 0)


async def test_the_end_of_the_server_is_the_end_of_the_answer(live: Live) -> None:
    async with follow(live, "channel=SYSTEM_METRICS") as reader:
        await reader.until("subscribed")
        await burst(live, 3)
        await live.services.readers.close_all(5)
        assert await reader.events("SYSTEM_METRICS", 3) == [1, 2, 3]
        with pytest.raises(EOFError):
            await reader.next()
    assert (await live.client.get(f"{FOLLOW}?channel=system")).status_code == 503


def _event(stream: str, epoch: str, seq: int) -> Event:
    head = Head(stream, epoch, "t", "t", spec.Priority.LOW, "2026", "LATAM")
    return Event(head, seq, None, b"{}")


class TestMarks:
    KNOWN = (("ONE", Position("E1", 99)), ("TWO", Position("E1", 99)))

    def sent(self, given: sse.EventIds, stream: str, seq: int) -> dict[str, int]:
        mark = given.after(hub.Entry("t", b"{", b"}", 1, _event(stream, "E1", seq))).decode()
        return {name: at.seq for name, at in sse.positions(mark, self.KNOWN).items()}

    def test_every_stream_is_in_every_id(self) -> None:
        given = sse.EventIds({"ONE": hub.Subscribed("E1", 8, True, 3), "TWO": hub.Subscribed("E1", 40, False, 0)})
        assert self.sent(given, "ONE", 6) == {"ONE": 6, "TWO": 40}
        assert self.sent(given, "TWO", 41) == {"ONE": 6, "TWO": 41}

    def test_a_stream_has_none_while_it_is_sent_in_part(self) -> None:
        given = sse.EventIds({"ONE": hub.Subscribed("E1", 8, False, 0, 2), "TWO": hub.Subscribed("E1", 4, True, 0)})
        assert self.sent(given, "ONE", 3) == {"TWO": 4}
        assert self.sent(given, "TWO", 5) == {"TWO": 5}
        assert self.sent(given, "ONE", 8) == {"ONE": 8, "TWO": 5}

    @pytest.mark.parametrize("number", ["-1", "+1", "1_0", " 1", ""])
    def test_a_number_that_no_id_has_means_nothing(self, number: str) -> None:
        id_ = sse.EventIds({"ONE": hub.Subscribed("E1", 1, True, 0)}).after(hub.reply("subscribed", {})).decode()
        assert sse.positions(id_, self.KNOWN)["ONE"].seq == 1
        assert sse.positions(id_[:-1] + number, self.KNOWN) == {}

    def test_of_too_many_streams_there_is_none(self) -> None:
        streams = {f"S{n}": hub.Subscribed("E1", 1, True, 0) for n in range(sse.MOST + 1)}
        entry = hub.Entry("t", b"{", b"}", 1, _event("S1", "E1", 2))
        assert sse.EventIds(streams).after(entry) == b""
        streams.popitem()
        assert len(sse.EventIds(streams).after(entry)) < sse.MOST * 11

    def test_data_of_several_lines_stays_one_event(self) -> None:
        assert hub.reply("system", {"a": "b\nc"}).value == b'{"a":"b\\nc"}'


async def test_what_was_dropped_is_on_the_metrics(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.services.readers, "_limits", {"limit_lane": 5})
    async with follow(live, "channel=SYSTEM_METRICS&policy=dropOldest") as reader:
        await reader.until("subscribed")
        await burst(live, 1000)
        total = (await reader.until("lagging"))["total"]
        lines = (await live.client.get("/metrics")).text.splitlines()
    figures = dict(line.split(" ") for line in lines if line.startswith("regstream_") and "{" not in line)
    assert float(figures["regstream_deliveries_dropped_total"]) >= total > 0
    assert float(figures["regstream_events_shown_total"]) >= 1000
    assert float(figures["regstream_subscribers_slow_total"]) == 0
