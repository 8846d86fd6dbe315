"""The wire below the library's client: what no decent client does, and who is refused."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import websockets

from regstream import hub, spec
from regstream.event import Event, Head, Position
from regstream.server.transports import socketio, websocket, writer
from regstream.server.transports.socketio import adapter, polling, session
from tests.sio import world
from tests.sio.world import BOUND, Server, until

HANDSHAKE = "/socket.io/?EIO=4&transport=polling"
SOCKET = "/socket.io/?EIO=4&transport=websocket"
FOREIGN = {"Origin": "http://evil.example"}


class Poller:
    """A session that polls, by hand."""

    def __init__(self, http: httpx.AsyncClient, sid: str) -> None:
        self.http, self.path = http, f"{HANDSHAKE}&sid={sid}"
        self.sid = sid

    async def post(self, *packets: str) -> int:
        return (await self.http.post(self.path, content="\x1e".join(packets))).status_code

    async def poll(self) -> list[str]:
        answer = await self.http.get(self.path)
        assert answer.status_code == 200, answer.text
        return answer.text.split("\x1e")

    async def join(self, channel: str = "ONE", *options: Any) -> dict[str, Any]:
        assert await self.post("420" + json.dumps(["join-streaming", channel, *options])) == 200
        packets = await self.poll()
        assert packets[0].startswith("430["), packets
        return dict(json.loads(packets[0][3:])[0])


@contextlib.asynccontextmanager
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=BOUND) as client:
        yield client


@contextlib.asynccontextmanager
async def poller(server: Server) -> AsyncIterator[Poller]:
    """A session that is connected to the namespace."""
    async with http(server) as client:
        opened = json.loads((await client.get(HANDSHAKE)).text[1:])
        assert opened["maxPayload"] == websocket.MAX_MESSAGE and opened["upgrades"] == ["websocket"]
        one = Poller(client, opened["sid"])
        assert await one.post("40") == 200
        assert (await one.poll())[0].startswith('40{"sid":"')
        yield one


@contextlib.asynccontextmanager
async def on_websocket(server: Server, sid: str = "", **options: Any) -> AsyncIterator[Any]:
    """A WebSocket of a session: of a new one, which is then connected to the namespace, or of one that polls."""
    uri = f"ws://127.0.0.1:{server.port}{SOCKET}{f'&sid={sid}' if sid else ''}"
    async with websockets.connect(uri, compression=None, max_queue=None, **options) as one:
        if not sid:
            assert (await said(one)).startswith('0{"sid":"')
            await one.send("40")
            assert (await said(one)).startswith('40{"sid":"')
        yield one


async def said(one: Any) -> str:
    text = await asyncio.wait_for(one.recv(), BOUND)
    assert isinstance(text, str)
    return text


async def code(one: Any) -> int | None:
    """The code with which a WebSocket ends."""
    with contextlib.suppress(websockets.ConnectionClosed):
        async with asyncio.timeout(BOUND):
            while True:
                await one.recv()
    return one.close_code


class TestBytes:
    async def test_the_value_is_not_encoded_again(self, server: Server) -> None:
        value = '{"a" : 1.50, "b":"ñ"}'
        head = Head("ONE", "E1", "one-type", "t", spec.Priority.LOW, "2026", "LATAM")
        wanted = [f'42["streaming-update",{value}]', f'42["one-type",{value}]']
        async with on_websocket(server) as one, poller(server) as other:
            await one.send('420["join-streaming","ONE"]')
            await said(one)
            await other.join()
            server.hub.broadcast(Event(head, 1, None, value.encode()))
            assert [await said(one), await said(one)] == wanted
            assert await other.poll() == wanted

    @pytest.mark.parametrize("size", [0, 50, 90, 200, 65_000, 66_000, 300_000])
    async def test_frames_of_every_length(self, server: Server, size: int) -> None:
        async with on_websocket(server) as one:
            await one.send('420["join-streaming","ONE"]')
            await said(one)
            server.show("ONE", 2, size)
            for seq, name in itertools.product((1, 2), ("streaming-update", "one-type")):
                event, data = json.loads((await said(one))[2:])
                assert (event, data["seq"], len(data["pad"])) == (name, seq, size)

    def test_the_same_for_all_is_made_once(self) -> None:
        sessions = socketio.Sessions(writer.TransportContext(hub=hub.Hub(lambda: 0.0), max_connections=1))
        entries = [hub.reply("system", {"kind": "x"})]
        assert sessions.join(entries) is sessions.join(list(entries))
        assert sessions.join(entries) == b'\x81\x1642["system",{"kind":"x"}]'.replace(b"\x16", bytes([25]))

    async def test_what_comes_in_one_go_is_answered_in_order(self, server: Server) -> None:
        """The acknowledgement neither overtakes the answer to the connect nor is overtaken by an event."""
        server.show("ONE", 3)
        uri = f"ws://127.0.0.1:{server.port}{SOCKET}"
        async with websockets.connect(uri, compression=None) as one:
            for text in ("40", '427["join-streaming","ONE",{"rewind":3}]', '428["leave-streaming","ONE"]'):
                await one.send(text)
            packets = [(await said(one))[:3] for _ in range(10)]
        assert packets == ['0{"', "40{", "437", *["42["] * 6, "438"]


class TestRefused:
    async def test_foreign_pages(self, server: Server) -> None:
        async with http(server) as client:
            answer = await client.get(HANDSHAKE, headers=FOREIGN)
            assert answer.status_code == 403
            assert answer.headers["content-type"] == "application/problem+json"
            assert "access-control-allow-origin" not in answer.headers
            assert (await client.post(HANDSHAKE, headers=FOREIGN)).status_code == 403
            assert (await client.get(HANDSHAKE, headers={"Origin": "null"})).status_code == 403
            with pytest.raises(websockets.InvalidStatus) as caught:
                async with on_websocket(server, origin="http://evil.example"):
                    pass
            assert caught.value.response.status_code == 403
        assert server.sessions.connections == 0

    async def test_pages_that_may(self, server: Server) -> None:
        async with http(server) as client:
            for origin in ("http://localhost:5173", f"http://127.0.0.1:{server.port}"):
                answer = await client.get(HANDSHAKE, headers={"Origin": origin})
                assert answer.status_code == 200
            answer = await client.get(HANDSHAKE, headers={"Origin": "http://localhost:5173"})
            assert answer.headers.get_list("access-control-allow-origin") == ["http://localhost:5173"]
            assert answer.headers.get_list("vary") == ["Origin"]
            assert answer.headers["cache-control"] == "no-store"
            asked = {"Origin": "http://localhost:5173", "Access-Control-Request-Method": "POST"}
            assert (await client.options(HANDSHAKE, headers=asked)).status_code == 204
        async with on_websocket(server, origin="http://localhost:5173"):
            assert server.sessions.connections == 4

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/socket.io", 400),
            ("GET", "/socket.io/", 400),
            ("GET", "/socket.io/?EIO=3&transport=polling", 400),
            ("GET", "/socket.io/?EIO=4&transport=flash", 400),
            ("GET", "/socket.io/?EIO=4&transport=websocket", 400),
            ("GET", f"{HANDSHAKE}&j=0", 400),
            ("GET", f"{HANDSHAKE}&sid=none", 400),
            ("POST", f"{HANDSHAKE}&sid=none", 400),
            ("POST", HANDSHAKE, 400),
            ("GET", "/socket.io//", 404),
            ("GET", "/socket.io/x", 404),
            ("GET", "//socket.io/", 404),
            ("PUT", HANDSHAKE, 405),
            ("DELETE", "/socket.io", 405),
            ("OPTIONS", "/socket.io/", 204),
        ],
    )
    async def test_requests_that_are_none(self, server: Server, method: str, path: str, status: int) -> None:
        async with http(server) as client:
            answer = await client.request(method, path)
        assert answer.status_code == status, answer.text
        if status in (204, 405):
            assert set(answer.headers["allow"].split(", ")) == {"GET", "OPTIONS", "POST"}
        assert server.sessions.connections == 0

    async def test_hosts_that_are_none(self, server: Server) -> None:
        async with http(server) as client:
            for host in ("[", "a b", "", "x" * 1000):
                assert (await client.get(HANDSHAKE, headers={"Host": host})).status_code < 500

    async def test_a_websocket_without_its_key(self, server: Server) -> None:
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
        async with http(server) as client, poller(server) as other:
            assert (await client.get(SOCKET, headers=headers)).status_code == 400
            assert (await client.get(f"{SOCKET}&sid={other.sid}", headers=headers)).status_code == 400
            assert (await other.join())["channels"] == ["ONE"]
            assert server.sessions.connections == 1

    async def test_too_many(self) -> None:
        async with world.serving(max_connections=2) as server, poller(server), on_websocket(server):
            async with http(server) as client:
                assert (await client.get(HANDSHAKE)).status_code == 503
            with pytest.raises(websockets.InvalidStatus) as caught:
                async with on_websocket(server):
                    pass
            assert caught.value.response.status_code == 503


WRONG = [
    "9",
    "x",
    "0",
    "2",
    "6",
    "4",
    "4x",
    '4{"a":1}',
    "47",
    "42",
    "42{}",
    "42[]",
    "42[7]",
    '42[["join-streaming"]]',
    "42nope",
    '42["join-streaming",NaN]',
    '42["join-streaming","\\ud800"]',
    "42" + "[" * 30_000,
    "42" + "9" * 200 + "[]",
    '451-["x",{"_placeholder":true,"num":0}]',
    "431[]",
    "bAAAA",
    "b%%%",
]


class TestMalformed:
    @pytest.mark.parametrize("packet", [*WRONG, "", "5x"])
    async def test_on_a_websocket(self, server: Server, packet: str) -> None:
        async with on_websocket(server) as one:
            await one.send(packet)
            assert await code(one) == websocket.BAD_MESSAGE
        await until(lambda: server.sessions.connections == 0)

    @pytest.mark.parametrize("packet", [*WRONG, "", "5", "d=4", "40\x1e", "\x1e".join(["3"] * 1100)])
    async def test_in_a_post(self, server: Server, packet: str) -> None:
        async with poller(server) as one:
            await one.post(packet)
            await until(lambda: server.sessions.connections == 0)
            assert (await one.http.get(one.path)).status_code == 400
            assert await one.post("3") == 400

    async def test_bytes_that_are_no_text(self, server: Server) -> None:
        async with on_websocket(server) as one, poller(server) as other:
            await one.send(b"\xff\xfe")
            assert await code(one) == websocket.BAD_MESSAGE
            assert (await other.http.post(other.path, content=b"\xff\xfe")).status_code == 400
        await until(lambda: server.sessions.connections == 0)

    async def test_too_large(self, server: Server) -> None:
        async with on_websocket(server) as one, poller(server) as other:
            await one.send("x" * (websocket.MAX_MESSAGE + 1))
            assert await code(one) == 1009
            assert await other.post('42["join-streaming","' + "x" * websocket.MAX_MESSAGE + '"]') == 400
        await until(lambda: server.sessions.connections == 0)

    async def test_what_is_harmless(self, server: Server) -> None:
        """Another namespace, a second connect, words for nobody: the session goes on."""
        async with poller(server) as one:
            assert (
                await one.post("40/admin,", "40", '42/admin,["join-streaming","ONE"]', "3", '42["join-streaming"]')
                == 200
            )
            packets = await one.poll()
            assert [packet[:2] for packet in packets] == ["44", "44"]
            assert (await one.poll())[0].startswith('42["error"')
            assert (await one.join())["channels"] == ["ONE"]

    async def test_events_before_the_connect_are_not_heard(self, server: Server) -> None:
        async with websockets.connect(f"ws://127.0.0.1:{server.port}{SOCKET}", compression=None) as one:
            await one.send('420["join-streaming","ONE"]')
            await one.send("40")
            assert [(await said(one))[:3] for _ in range(2)] == ['0{"', "40{"]
            assert server.hub.subscribers == 0

    async def test_many_packets_in_one_post(self, server: Server) -> None:
        async with poller(server) as one:
            assert await one.post(*(f'42{number}["join-streaming","ONE"]' for number in range(200))) == 200
            assert len(await one.poll()) == 200

    async def test_a_fault_of_ours_closes_and_is_logged(
        self, server: Server, monkeypatch: pytest.MonkeyPatch, complaints: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: Any) -> None:
            raise KeyError("x")

        monkeypatch.setattr(session, "_subscription", fail)
        async with on_websocket(server) as one:
            await one.send('420["join-streaming","ONE"]')
            assert await code(one) == websocket.INTERNAL_ERROR
        assert [one.name for one in complaints.records if one.levelname == "ERROR"] == ["regstream.server.sio"]
        complaints.clear()


class TestUpgrade:
    async def test_the_steps(self, server: Server) -> None:
        async with poller(server) as one:
            await one.join()
            waiting = asyncio.create_task(one.poll())
            async with on_websocket(server, one.sid) as wire:
                await wire.send("2probe")
                assert await said(wire) == "3probe"
                assert await waiting == ["6"], "the poll under way is ended"
                server.show("ONE", 2)
                assert await one.poll() == ["6"], "what is to be sent waits"
                await wire.send("5")
                packets = [await said(wire) for _ in range(4)]
                assert [json.loads(packet[2:])[1]["seq"] for packet in packets] == [1, 1, 2, 2]
                assert (await one.http.get(one.path)).status_code == 400

    @pytest.mark.parametrize("text", ["2", "5", "40", '42["join-streaming","ONE"]'])
    async def test_what_is_no_probe(self, server: Server, text: str) -> None:
        async with poller(server) as one:
            await one.join()
            async with on_websocket(server, one.sid) as wire:
                await wire.send(text)
                assert await code(wire) == websocket.BAD_MESSAGE
            server.show("ONE")
            assert len(await one.poll()) == 2

    async def test_one_that_is_broken_off_can_be_tried_again(self, server: Server) -> None:
        async with poller(server) as one:
            await one.join()
            async with on_websocket(server, one.sid) as wire:
                await wire.send("2probe")
                assert await said(wire) == "3probe"
                server.show("ONE", 3)
            await until(lambda: not server.sessions.client(one.sid).upgrading)  # type: ignore[union-attr]
            assert len(await one.poll()) == 6
            async with on_websocket(server, one.sid) as wire:
                for text in ("2probe", "5"):
                    await wire.send(text)
                assert await said(wire) == "3probe"
                server.show("ONE")
                assert '"seq":4' in await said(wire)

    async def test_one_at_a_time(self, server: Server) -> None:
        async with poller(server) as one, on_websocket(server, one.sid):
            with pytest.raises(websockets.InvalidStatus) as caught:
                async with on_websocket(server, one.sid):
                    pass
            assert caught.value.response.status_code == 400

    async def test_one_that_says_nothing_is_ended(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(polling, "UPGRADE_SECONDS", 0.05)
        async with poller(server) as one, on_websocket(server, one.sid) as wire:
            assert await code(wire) in (1006, None)
            assert (await one.join())["channels"] == ["ONE"]


class TestBounds:
    async def stalled(self, server: Server, packets: list[str]) -> socket.socket:
        """A WebSocket that says so much and never reads."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        lines = [f"GET {SOCKET} HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13", "", ""]
        await loop.sock_sendall(sock, "\r\n".join(lines).encode())
        await until(lambda: server.sessions.connections == 1)
        frames = [b"\x81" + bytes([0x80 | len(one)]) + b"\0\0\0\0" + one.encode() for one in packets]
        for frame in frames:
            with contextlib.suppress(OSError):
                await asyncio.wait_for(loop.sock_sendall(sock, frame), BOUND)
        return sock

    @pytest.mark.parametrize("packet", ['420["leave-streaming","ONE"]', '42["x"]'], ids=["answers", "errors"])
    async def test_who_asks_and_never_reads_the_answers(
        self, complaints: pytest.LogCaptureFixture, packet: str
    ) -> None:
        async with world.serving(subscriber_limits={"limit": 200}) as server:
            channel = "x" * 90
            wordy = packet.replace("x", channel)[:125]
            with contextlib.closing(await self.stalled(server, ["40", *[wordy] * 20_000])):
                await until(lambda: server.sessions.connections == 0)

    async def test_who_makes_the_library_talk(self, server: Server) -> None:
        refused = "40/" + "x" * 100 + ","
        with contextlib.closing(await self.stalled(server, ["40", *[refused] * 20_000])):
            await until(lambda: server.sessions.connections == 0)

    async def test_who_makes_the_library_talk_and_never_polls(self, server: Server) -> None:
        async with poller(server) as one:
            for _ in range(5):
                await one.post(*["40/x,"] * 50)
            await until(lambda: server.sessions.connections == 0)

    async def test_who_joins_and_never_polls(self, complaints: pytest.LogCaptureFixture) -> None:
        async with world.serving(subscriber_limits={"limit": 100}) as server, poller(server) as one:
            await one.join()
            server.show("ONE", 99)
            assert len(await one.poll()) == 198
            server.show("ONE", 101)
            await until(lambda: server.sessions.connections == 0)
            assert server.hub.counts.slow == 1
            assert (await one.http.get(one.path)).status_code == 400, "it comes back by itself"

    async def test_one_that_never_reads_disturbs_nobody(self, complaints: pytest.LogCaptureFixture) -> None:
        async with world.serving(subscriber_limits={"limit": 200}) as server:
            with contextlib.closing(await self.stalled(server, ["40", '42["join-streaming","ONE"]'])):
                await until(lambda: server.hub.subscribers == 1)
                async with on_websocket(server) as good:
                    await good.send('420["join-streaming","ONE"]')
                    await said(good)
                    for _ in range(100):
                        server.show("ONE", 10, size=2000)
                        for _ in range(20):
                            await said(good)
                    await until(lambda: server.hub.counts.slow == 1)
                    await until(lambda: server.sessions.connections == 1)

    async def test_two_polls_at_once_end_the_session(self, server: Server) -> None:
        async with poller(server) as one:
            waiting = asyncio.create_task(one.poll())
            client = server.sessions.client(one.sid)
            assert client is not None
            await until(lambda: client.outbox.asked)
            assert (await one.http.get(one.path)).status_code == 400
            assert await waiting == ["1"]
        await until(lambda: server.sessions.connections == 0)

    async def test_silence_ends_a_session(
        self, complaints: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adapter, "PING_INTERVAL", 0.5)
        monkeypatch.setattr(adapter, "PING_TIMEOUT", 2)
        async with world.serving() as server, poller(server) as one, on_websocket(server) as other:
            await one.join()
            await other.send('42["join-streaming","ONE"]')
            assert await said(other) == "2"
            await other.send("3")
            assert await said(other) == "2", "whoever answers is asked again"
            await until(lambda: server.sessions.connections == server.hub.subscribers == 0)

    async def test_nothing_is_left_of_those_who_went(self, server: Server) -> None:
        def sizes() -> list[int]:
            library = server.sessions._library
            kept = [library.environ, library.eio.sockets, library._binary_packet, library.manager.rooms.get("/", {})]
            return [len(one) for one in kept]

        for _ in range(5):
            async with on_websocket(server) as one, poller(server) as other:
                await one.send('420["join-streaming","ONE"]')
                await said(one)
                await other.join()
                await other.post("1")
            await until(lambda: server.sessions.connections == 0)
        await until(lambda: server.left() in ([], [one for one in server.left() if "_service_task" in one]))
        gc.collect()
        left = [one for one in gc.get_objects() if isinstance(one, session.Session)]
        assert [one for one in left if one._sessions is server.sessions] == []
        assert sizes() == [0, 0, 0, 0]


class TestHistory:
    async def test_what_the_ring_does_not_hold(self, complaints: pytest.LogCaptureFixture) -> None:
        let = asyncio.Event()

        async def history(stream: str, after: Position, before: int) -> list[Event]:
            await let.wait()
            head = Head(stream, after.epoch, "one-type", "t", spec.Priority.LOW, "2026", "LATAM")
            return [Event(head, seq, None, b'{"seq":%d}' % seq) for seq in range(after.seq + 1, before + 1)]

        async with world.serving(ring_events=20, history=history) as server, on_websocket(server) as one:
            server.show("ONE", 100)
            await one.send('421["join-streaming","ONE",{"after":{"ONE":{"epoch":"E1","seq":10}}}]')
            await one.send('422["leave-streaming","TWO"]')
            await until(lambda: server.sessions.tasks)
            server.show("ONE", 1)
            let.set()
            assert '"recovered":true,"replayed":91' in await said(one)
            packets = [await said(one) for _ in range(182)]
            assert [json.loads(packet[2:])[1]["seq"] for packet in packets[::2]] == list(range(11, 102))
            assert (await said(one)).startswith("432"), "what was said meanwhile is answered then"

    async def test_too_much_said_meanwhile(self, complaints: pytest.LogCaptureFixture) -> None:
        async def history(*_: Any) -> None:
            await asyncio.Event().wait()

        async with world.serving(ring_events=5, history=history) as server, on_websocket(server) as one:
            server.show("ONE", 100)
            await one.send('421["join-streaming","ONE",{"after":{"ONE":{"epoch":"E1","seq":10}}}]')
            for _ in range(session.MAX_HELD + 1):
                await one.send('42["leave-streaming","TWO"]')
            assert await code(one) == websocket.BAD_MESSAGE


class TestEnd:
    async def test_what_is_queued_goes_before_the_end(self, complaints: pytest.LogCaptureFixture) -> None:
        async with world.serving() as server, on_websocket(server) as one, poller(server) as other:
            await one.send('420["join-streaming","ONE"]')
            await said(one)
            await other.join()
            waiting = asyncio.create_task(other.poll())
            client = server.sessions.client(other.sid)
            assert client is not None
            await until(lambda: client.outbox.asked)
            server.show("ONE", 500)
            closing = asyncio.create_task(server.sessions.close_all(BOUND))
            assert len([await said(one) for _ in range(1000)]) == 1000
            assert await code(one) == websocket.GOING_AWAY
            assert len(await waiting) == 1000
            await asyncio.wait_for(closing, BOUND)
            assert (await other.http.get(HANDSHAKE)).status_code == 503

    async def test_a_poll_under_way_is_told(self, complaints: pytest.LogCaptureFixture) -> None:
        async with world.serving() as server, poller(server) as one:
            waiting = asyncio.create_task(one.poll())
            client = server.sessions.client(one.sid)
            assert client is not None
            await until(lambda: client.outbox.asked)
            await server.sessions.close_all(1.0)
            assert await waiting == ["1"]

    async def test_it_does_not_wait_for_one_that_never_reads(self, complaints: pytest.LogCaptureFixture) -> None:
        async with world.serving() as server:
            with contextlib.closing(await TestBounds().stalled(server, ["40", '42["join-streaming","ONE"]'])):
                await until(lambda: server.hub.subscribers == 1)
                for _ in range(200):
                    server.show("ONE", 10, size=1000)
                    await asyncio.sleep(0)
                await asyncio.wait_for(server.sessions.close_all(0.5), BOUND)
                assert server.sessions.connections == 0
