"""`/ws` on a real server under the test's own loop, with the real client of `websockets` and with bare sockets."""

import asyncio
import contextlib
import itertools
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest
import sanic
import websockets
from sanic.application.state import ApplicationServerInfo
from sanic.http import Http
from sanic.http.constants import HTTP
from websockets.asyncio.client import ClientConnection

from regstream import hub, spec
from regstream.event import Event, Head, Position
from regstream.server import problems
from regstream.server.transports import messages, websocket, writer

BOUND = 60.0
NOW = 1795348800.0
NAMES = itertools.count()


class Server:
    """Sanic with nothing but `/ws`, as the daemon would run it."""

    def __init__(self, **options: Any) -> None:
        ring = {name: options.pop(name) for name in ("ring_events", "ring_bytes") if name in options}
        self.hub = hub.Hub(now=lambda: NOW, **ring)
        self.seq = dict.fromkeys(("ONE", "TWO", "ALERTS"), 0)
        for stream, type_ in (("ONE", "one-type"), ("TWO", "two-type"), ("ALERTS", "immediate-alert")):
            self.hub.declare(stream, type_, Position("E1", 0))
        self.app: sanic.Sanic[Any, Any] = sanic.Sanic(
            f"test-ws-{next(NAMES)}", configure_logging=False, error_handler=problems.Handler()
        )
        self.app.config.AUTO_EXTEND = self.app.config.ACCESS_LOG = self.app.config.MOTD = False
        self.sockets = websocket.attach(
            self.app,
            writer.TransportContext(
                hub=self.hub, origins=("http://localhost:*",), **{"max_connections": 1000, **options}
            ),
            now=lambda: NOW,
            welcome={"server": "TEST"},
        )

    async def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        server = await self.app.create_server(
            sock=listener, return_asyncio_server=True, asyncio_server_kwargs={"start_serving": False}
        )
        assert server is not None
        # Sanic rewrites its own classes once a process, whoever starts first.
        self.app.config.TOUCHUP = not getattr(Http, "__touched__", False)
        self.app.state.server_info.append(ApplicationServerInfo(settings={"version": HTTP.VERSION_1}))
        self.server = server
        await server.startup()
        await server.before_start()
        await server.start_serving()
        await server.after_start()

    async def stop(self) -> None:
        await self.sockets.close_all(1.0)
        await self.server.before_stop()
        self.server.close()
        await self.server.wait_closed()
        await self.server.after_stop()
        await until(lambda: self.tasks() == [])

    @staticmethod
    def tasks() -> list[str]:
        """What a connection of the server left behind."""
        left = (str(one.get_coro()) for one in asyncio.all_tasks())
        return [one for one in left if "Websocket" in one or "HttpProtocol" in one or "Sockets" in one]

    def show(self, stream: str, count: int = 1, size: int = 0) -> None:
        head = Head(stream, "E1", self.hub._streams[stream].type, "t", spec.Priority.LOW, "2026", "LATAM")
        for _ in range(count):
            self.seq[stream] += 1
            value = b'{"subject":"%b","seq":%d,"pad":"%b"}' % (stream.encode(), self.seq[stream], b"x" * size)
            self.hub.broadcast(Event(head, self.seq[stream], None, value))

    @contextlib.asynccontextmanager
    async def client(self, query: str = "", **options: Any) -> AsyncIterator["Client"]:
        uri = f"ws://127.0.0.1:{self.port}/ws{query}"
        # Else a client that leaves with frames unread never reads the answer to its close frame.
        options = {"max_queue": None, "max_size": 2**24, **options}
        async with websockets.connect(uri, **options) as connection:
            client = Client(connection)
            client.welcome = await client.one("welcome")
            yield client


class Client:
    def __init__(self, connection: ClientConnection) -> None:
        self.ws = connection
        self.welcome: Any = None

    async def next(self) -> Any:
        text = await asyncio.wait_for(self.ws.recv(), BOUND)
        assert isinstance(text, str)
        return orjson.loads(text)

    async def one(self, event: str) -> Any:
        frame = await self.next()
        assert frame["event"] == event, frame
        return frame["data"]

    async def say(self, **message: Any) -> None:
        await self.ws.send(orjson.dumps(message).decode())

    async def subscribe(self, *channels: str, **more: Any) -> Any:
        await self.say(action="subscribe", channels=channels, **more)
        return (await self.one("subscribed"))["streams"]

    async def seqs(self, count: int) -> list[tuple[str, int]]:
        data = [(await self.next())["data"] for _ in range(count)]
        return [(one["subject"], one["seq"]) for one in data]

    async def closed(self) -> int | None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async with asyncio.timeout(BOUND):
                while True:
                    await self.ws.recv()
        return self.ws.close_code


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client does, nothing is an error of the server, and no task dies unseen."""
    with caplog.at_level(logging.WARNING):
        yield
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR] == []


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    one = Server()
    await one.start()
    yield one
    await one.stop()


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Server]:
    one = Server(**options)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


async def until(condition: Any) -> None:
    async with asyncio.timeout(BOUND):
        while not condition():
            await asyncio.sleep(0.005)


class TestActions:
    async def test_welcome(self, server: Server) -> None:
        async with server.client() as client:
            channels = [
                "dashboard-updates",
                "immediate-alert",
                "system",
                "ONE",
                "TWO",
                "ALERTS",
                "one-type",
                "two-type",
            ]
            assert client.welcome == {"server": "TEST", "role": "admin", "channels": channels}
            assert client.ws.protocol.extensions == []

    async def test_subscribe_receive_unsubscribe(self, server: Server) -> None:
        async with server.client() as client:
            await client.say(action="subscribe", channels=["ONE"])
            streams = {"ONE": {"epoch": "E1", "seq": 0, "recovered": False, "replayed": 0}}
            assert await client.one("subscribed") == {"channels": ["ONE"], "streams": streams}
            server.show("ONE")
            server.show("TWO")
            frame = await client.next()
            assert frame == {"event": "one-type", "data": {"subject": "ONE", "seq": 1, "pad": ""}}
            await client.say(action="unsubscribe", channels=["ONE"])
            assert await client.one("unsubscribed") == {"channels": ["ONE"]}
            server.show("ONE")
            await client.say(action="ping")
            assert await client.one("pong") == {"time": "2026-11-22T12:00:00.000Z"}

    async def test_the_bytes_are_the_brokers(self, server: Server) -> None:
        async with server.client() as client:
            await client.subscribe("ONE")
            value = '{"a" : 1.50, "b":"ñ"}'.encode()
            head = Head("ONE", "E1", "one-type", "t", spec.Priority.LOW, "2026", "LATAM")
            server.hub.broadcast(Event(head, 1, None, value))
            text = await asyncio.wait_for(client.ws.recv(), BOUND)
            assert text == '{"event":"one-type","data":' + value.decode() + "}"

    @pytest.mark.parametrize("size", [0, 50, 100, 200, 65_000, 66_000, 300_000])
    async def test_frames_of_every_length(self, server: Server, size: int) -> None:
        async with server.client() as client:
            await client.subscribe("ONE")
            server.show("ONE", 2, size)
            assert await client.seqs(2) == [("ONE", 1), ("ONE", 2)]

    async def test_query(self, server: Server) -> None:
        server.show("ONE", 3)
        async with server.client("?channel=ONE&channel=two-type&rewind=2") as client:
            data = await client.one("subscribed")
            assert data["channels"] == ["ONE", "two-type"]
            assert data["streams"]["ONE"] == {"epoch": "E1", "seq": 3, "recovered": False, "replayed": 2}
            assert await client.seqs(2) == [("ONE", 2), ("ONE", 3)]

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ("?channel=NOPE", "unknown_channel"),
            ("?channel=ONE&rewind=x", "bad_value"),
            ("?channel=ONE&rewind=1001", "bad_value"),
        ],
    )
    async def test_a_query_that_is_wrong_is_told(self, server: Server, query: str, code: str) -> None:
        async with server.client(query) as client:
            assert (await client.one("error"))["code"] == code
            assert (await client.subscribe("ONE"))["ONE"]["seq"] == 0

    async def test_several_channels_give_each_event_once(self, server: Server) -> None:
        async with server.client() as client:
            await client.subscribe("ONE", "dashboard-updates", "one-type")
            await client.subscribe("immediate-alert")
            server.show("ALERTS")
            server.show("ONE")
            assert await client.seqs(2) == [("ALERTS", 1), ("ONE", 1)]

    async def test_system(self, server: Server) -> None:
        async with server.client() as client:
            assert await client.subscribe("system") == {}
            server.hub.announce("reloaded", {"generation": 2})
            data = {"kind": "reloaded", "time": "2026-11-22T12:00:00.000Z", "generation": 2}
            assert await client.one("system") == data

    async def test_fragments_are_one_message(self, server: Server) -> None:
        async with server.client() as client:
            await client.ws.send(['{"action":', '"ping', '"}'])
            await client.one("pong")

    async def test_a_frame_does_not_wait_for_the_last_ones_acknowledgement(self, server: Server) -> None:
        async with server.client():
            (connection,) = server.sockets._connections
            sock = connection._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


class TestResume:
    async def test_after(self, server: Server) -> None:
        server.show("ONE", 5)
        async with server.client() as client:
            streams = await client.subscribe("dashboard-updates", after={"ONE": {"epoch": "E1", "seq": 3}})
            assert streams["ONE"] == {"epoch": "E1", "seq": 5, "recovered": True, "replayed": 2}
            server.show("ONE")
            assert await client.seqs(3) == [("ONE", 4), ("ONE", 5), ("ONE", 6)]

    async def test_nothing_missed(self, server: Server) -> None:
        server.show("ONE", 5)
        async with server.client() as client:
            streams = await client.subscribe("ONE", after={"ONE": {"epoch": "E1", "seq": 5}})
            assert streams["ONE"] == {"epoch": "E1", "seq": 5, "recovered": True, "replayed": 0}

    async def test_too_old_is_told_and_nothing_of_it_sent(self) -> None:
        async with serving(ring_events=10) as server, server.client() as client:
            server.show("ONE", 20)
            streams = await client.subscribe("ONE", after={"ONE": {"epoch": "E1", "seq": 9}}, rewind=3)
            assert streams["ONE"] == {"epoch": "E1", "seq": 20, "recovered": False, "replayed": 0}
            server.show("ONE")
            assert await client.seqs(1) == [("ONE", 21)]

    async def test_a_replay_larger_than_the_queue(self) -> None:
        async with serving(subscriber_limits={"limit": 10}) as server, server.client() as client:
            server.show("ONE", 900, size=1000)
            await client.say(action="subscribe", channels=["ONE"], after={"ONE": {"epoch": "E1", "seq": 0}})
            assert (await client.one("subscribed"))["streams"]["ONE"]["replayed"] == 900
            server.show("ONE")
            assert await client.seqs(901) == [("ONE", seq) for seq in range(1, 902)]

    async def test_clients_that_come_and_go_lose_and_double_nothing(self) -> None:
        async with serving(ring_events=10**6, ring_bytes=10**9) as server:
            await self.come_and_go(server)

    async def come_and_go(self, server: Server) -> None:
        done = asyncio.Event()

        async def publish() -> None:
            while not done.is_set():
                server.show("ONE", 7)
                server.show("TWO", 3)
                await asyncio.sleep(0.005)

        async def follow(number: int) -> None:
            at = {"ONE": 0, "TWO": 0}
            for turn in range(8):
                async with server.client() as client:
                    after = {stream: {"epoch": "E1", "seq": seq} for stream, seq in at.items()}
                    streams = await client.subscribe("dashboard-updates", after=after)
                    assert streams["ONE"]["recovered"] and streams["TWO"]["recovered"]
                    for _ in range(20 + 13 * number + turn):
                        ((stream, seq),) = await client.seqs(1)
                        assert seq == at[stream] + 1
                        at[stream] = seq

        publisher = asyncio.create_task(publish())
        await asyncio.wait_for(asyncio.gather(*(follow(number) for number in range(6))), 60)
        done.set()
        await publisher
        await until(lambda: server.sockets.connections == 0 and server.hub.subscribers == 0)


class TestMistakes:
    @pytest.mark.parametrize(
        ("message", "code", "text"),
        [
            ({"action": "subscribe", "channels": ["ONE", "two-tpye"]}, "unknown_channel", "two-tpye"),
            ({"action": "unsubscribe", "channels": ["NOPE"]}, "unknown_channel", "NOPE"),
            ({"action": "subscrib", "channels": ["ONE"]}, "unknown_action", "subscrib"),
            ({}, "bad_value", "action"),
            ({"action": 5}, "bad_value", "action"),
            ({"action": ["ping"]}, "bad_value", "action"),
            ({"action": "subscribe"}, "bad_value", "channels"),
            ({"action": "subscribe", "channels": []}, "bad_value", "channels"),
            ({"action": "subscribe", "channels": "ONE"}, "bad_value", "channels"),
            ({"action": "subscribe", "channels": ["ONE"] * 101}, "bad_value", "channels"),
            ({"action": "subscribe", "channels": [1]}, "bad_value", "channels.0"),
            ({"action": "subscribe", "channels": ["x" * 129]}, "bad_value", "channels.0"),
            ({"action": "subscribe", "channels": ["ONE"], "rewind": -1}, "bad_value", "rewind"),
            ({"action": "subscribe", "channels": ["ONE"], "rewind": 1001}, "bad_value", "rewind"),
            ({"action": "subscribe", "channels": ["ONE"], "rewind": "5"}, "bad_value", "rewind"),
            ({"action": "subscribe", "channels": ["ONE"], "rewind": True}, "bad_value", "rewind"),
            ({"action": "subscribe", "channels": ["ONE"], "after": {"ONE": 5}}, "bad_value", "after.ONE"),
            (
                {"action": "subscribe", "channels": ["ONE"], "after": {"ONE": {"seq": 5}}},
                "bad_value",
                "after.ONE.epoch",
            ),
            (
                {"action": "subscribe", "channels": ["ONE"], "after": {"ONE": {"epoch": "E1", "seq": -1}}},
                "bad_value",
                "after.ONE.seq",
            ),
            ({"action": "subscribe", "channels": ["ONE"], "afer": {}}, "bad_value", "afer"),
            ({"action": "ping", "channels": ["ONE"]}, "bad_value", "channels"),
        ],
    )
    async def test_told_and_nothing_changed(self, server: Server, message: Any, code: str, text: str) -> None:
        async with server.client() as client:
            await client.say(**message)
            error = await client.one("error")
            assert error["code"] == code
            assert text in error["message"]
            server.show("ONE")
            await client.say(action="ping")
            await client.one("pong")

    async def test_near_names(self, server: Server) -> None:
        async with server.client() as client:
            await client.say(action="subscribe", channels=["one_type"])
            assert (await client.one("error"))["near"][0] == "one-type"

    @pytest.mark.parametrize(
        "frame",
        [
            "hello",
            "",
            "[1]",
            "null",
            '"ping"',
            '{"action":"ping"',
            "{'action':'ping'}",
            "[" * 60_000,
            b'{"action":"ping"}',
            b"\x00\xff",
        ],
    )
    async def test_what_is_no_message_closes(self, server: Server, frame: str | bytes) -> None:
        async with server.client() as client, server.client() as other:
            await other.subscribe("ONE")
            await client.ws.send(frame)
            assert await client.closed() == 4009
            server.show("ONE")
            assert await other.seqs(1) == [("ONE", 1)]
        await until(lambda: server.sockets.connections == 0)

    async def test_text_that_is_not_utf8_closes(self, server: Server) -> None:
        async with server.client() as client:
            await client.ws.send(b'{"action":"\xff"}', text=True)
            assert await client.closed() == 4009

    @pytest.mark.parametrize("size", [70_000, 10_000_000])
    async def test_too_big_closes(self, server: Server, size: int) -> None:
        async with server.client() as other:
            await other.subscribe("ONE")
            # Not in a block: the library's own close stumbles (AttributeError) when the end comes while it sends.
            client = Client(await websockets.connect(f"ws://127.0.0.1:{server.port}/ws"))
            with contextlib.suppress(websockets.ConnectionClosed, AttributeError):
                await asyncio.wait_for(client.ws.send("x" * size), BOUND)
            assert await client.closed() == 1009
            server.show("ONE")
            assert await other.seqs(1) == [("ONE", 1)]

    async def test_too_many_mistakes_close(self, server: Server) -> None:
        async with server.client() as client:
            for _ in range(websocket.MAX_MISTAKES):
                await client.say(action="nope")
            for _ in range(websocket.MAX_MISTAKES):
                await client.one("error")
            assert await client.closed() == 4009

    async def test_more_after_the_close_is_not_heard(self, server: Server) -> None:
        async with server.client() as client:
            await client.ws.send("nope")
            with contextlib.suppress(websockets.ConnectionClosed):
                for _ in range(50):
                    await client.say(action="subscribe", channels=["ONE"])
            assert await client.closed() == 4009
        await until(lambda: server.hub.subscribers == 0)

    async def test_a_fault_of_ours_closes_and_is_logged(
        self, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(text: bytes) -> messages.Action:
            raise ZeroDivisionError

        async with server.client() as client:
            monkeypatch.setattr(messages, "parse", fail)
            await client.say(action="ping")
            assert await client.closed() == 1011
        assert [one.name for one in caplog.records if one.levelno >= logging.ERROR] == ["regstream.server.ws"]
        caplog.clear()


class TestHandshake:
    async def refused(self, server: Server, **headers: str) -> int:
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with server.client(additional_headers=headers):
                pass
        return caught.value.response.status_code

    async def test_origin(self, server: Server) -> None:
        assert await self.refused(server, Origin="http://evil.example") == 403
        assert await self.refused(server, Origin="null") == 403
        async with server.client(origin="http://localhost:5173") as client:
            assert client.welcome

    async def test_no_way_around_the_origin_check(self, server: Server) -> None:
        for path in ("/ws/", "/%77s", "//ws", "/ws?x=1"):
            lines = [
                f"GET {path} HTTP/1.1",
                "Host: x",
                "Upgrade: websocket",
                "Connection: Upgrade",
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
                "Sec-WebSocket-Version: 13",
                "Origin: http://evil.example",
            ]
            assert await self.raw(server, lines) in (403, 404)

    async def raw(self, server: Server, lines: list[str]) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write("\r\n".join([*lines, "", ""]).encode())
        answer = await asyncio.wait_for(reader.readline(), BOUND)
        writer.close()
        return int(answer.split()[1])

    async def test_not_a_websocket(self, server: Server) -> None:
        assert await self.raw(server, ["GET /ws HTTP/1.1", "Host: x"]) == 426
        assert await self.raw(server, ["POST /ws HTTP/1.1", "Host: x", "Content-Length: 0"]) == 405
        assert (
            await self.raw(server, ["GET /ws HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade"]) == 400
        )

    async def test_too_many(self) -> None:
        async with serving(max_connections=2) as server, server.client(), server.client():
            assert await self.refused(server) == 503

    async def test_compression_is_not_negotiated(self, server: Server) -> None:
        async with server.client(compression="deflate") as client:
            assert client.ws.protocol.extensions == []


class TestSlow:
    async def stalled(self, server: Server) -> socket.socket:
        """A client that subscribes and never reads."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        lines = ["GET /ws?channel=dashboard-updates HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13", "", ""]
        before = server.hub.subscribers
        await loop.sock_sendall(sock, "\r\n".join(lines).encode())
        await until(lambda: server.hub.subscribers == before + 1)
        return sock

    async def test_one_that_never_reads_is_cut_off_and_disturbs_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(websocket, "CLOSE_GRACE", 0.2)
        async with serving(subscriber_limits={"limit": 100}) as server, server.client() as good:
            await good.subscribe("dashboard-updates")
            with contextlib.closing(await self.stalled(server)):
                for _ in range(200):
                    server.show("ONE", 10, size=2000)
                    assert len(await good.seqs(10)) == 10
                await until(lambda: server.hub.counts.slow == 1)
                await until(lambda: server.sockets.connections == 1)
                server.show("ONE")
                assert await good.seqs(1) == [("ONE", 2001)]

    async def test_one_that_reads_late_is_told(self) -> None:
        async with serving(subscriber_limits={"limit": 100}) as server:
            sock = await self.stalled(server)
            while server.hub.counts.slow == 0:
                server.show("ONE", 10, size=2000)
                await asyncio.sleep(0)
            received, loop = b"", asyncio.get_running_loop()
            with contextlib.closing(sock):
                async with asyncio.timeout(BOUND):
                    while data := await loop.sock_recv(sock, 2**20):
                        received += data
            assert received.endswith(b"\x88\x0a\x0f\xa8too slow")

    async def test_one_that_pauses_shortly_gets_everything(self, server: Server) -> None:
        async with server.client(max_queue=4) as client:
            await client.subscribe("ONE")
            for _ in range(30):
                server.show("ONE", 100, size=500)
                await asyncio.sleep(0)
            assert await client.seqs(3000) == [("ONE", seq) for seq in range(1, 3001)]

    async def test_one_that_asks_and_never_reads_the_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(websocket, "CLOSE_GRACE", 0.2)
        async with serving(subscriber_limits={"limit": 100, "limit_replay": 500}) as server:
            server.show("ONE", 1000, size=1000)
            with contextlib.closing(await self.stalled(server)) as sock:
                await until(lambda: server.hub.subscribers == 1)
                text = b'{"action":"unsubscribe","channels":["dashboard-updates"]}'
                again = b'{"action":"subscribe","channels":["ONE"],"rewind":1000}'
                off = b'{"action":"unsubscribe","channels":["ONE"]}'
                masked = b"".join(b"\x81" + bytes([0x80 | len(one)]) + b"\0\0\0\0" + one for one in (text, again, off))
                with contextlib.suppress(OSError):
                    for _ in range(50):
                        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(sock, masked), BOUND)
                await until(lambda: server.sockets.connections == 0)


class TestEnds:
    async def test_a_client_that_leaves_is_noticed(self, server: Server) -> None:
        async with server.client() as client:
            await client.subscribe("ONE")
            assert (server.sockets.connections, server.hub.subscribers) == (1, 1)
            assert server.tasks()
        await until(lambda: server.sockets.connections == server.hub.subscribers == 0)
        server.show("ONE")

    async def test_a_client_that_is_cut_off_is_noticed(self, server: Server) -> None:
        async with server.client() as client:
            await client.subscribe("ONE")
            client.ws.transport.abort()
            await until(lambda: server.sockets.connections == server.hub.subscribers == 0)

    async def test_shutdown_writes_what_is_queued_then_1001(self, server: Server) -> None:
        async with server.client() as client, server.client() as idle:
            await client.subscribe("ONE")
            server.show("ONE", 2000, size=500)
            closing = asyncio.create_task(server.sockets.close_all(BOUND))
            assert await client.seqs(2000) == [("ONE", seq) for seq in range(1, 2001)]
            assert await client.closed() == 1001
            assert await idle.closed() == 1001
            await asyncio.wait_for(closing, BOUND)
            assert server.sockets.connections == 0
            assert await TestHandshake().refused(server) == 503

    async def test_shutdown_does_not_wait_for_one_that_never_reads(self, server: Server) -> None:
        with contextlib.closing(await TestSlow().stalled(server)):
            for _ in range(200):
                server.show("ONE", 10, size=1000)
                await asyncio.sleep(0)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            await asyncio.wait_for(server.sockets.close_all(0.5), BOUND)
            assert loop.time() - begun < BOUND / 2
            assert server.sockets.connections == 0


class TestDelivery:
    async def test_conflated_to_the_newest_at_a_rate(self, server: Server) -> None:
        async with server.client() as client, server.client() as other:
            await client.subscribe("ONE", policy="conflate", maxRate=5)
            await other.subscribe("ONE")
            server.show("ONE", 50)
            assert await client.seqs(1) == [("ONE", 50)]
            begun = asyncio.get_running_loop().time()
            server.show("ONE", 50)
            assert await client.seqs(1) == [("ONE", 100)]
            assert asyncio.get_running_loop().time() - begun > 0.15
            assert await other.seqs(100) == [("ONE", seq) for seq in range(1, 101)]

    async def test_the_oldest_goes_and_is_told_and_comes_back_with_after(self) -> None:
        async with serving(subscriber_limits={"limit_lane": 10}) as server, server.client() as client:
            await client.subscribe("ONE", policy="dropOldest")
            server.show("ONE", 30)
            lagging = await client.one("lagging")
            assert lagging == {"dropped": {"ONE": 20}, "total": 20}
            assert await client.seqs(10) == [("ONE", seq) for seq in range(21, 31)]
            await client.say(action="unsubscribe", channels=["ONE"])
            await client.one("unsubscribed")
            answer = await client.subscribe("ONE", after={"ONE": {"epoch": "E1", "seq": 0}})
            assert answer["ONE"]["recovered"]
            assert await client.seqs(30) == [("ONE", seq) for seq in range(1, 31)]

    async def test_a_snapshot_before_live(self, server: Server) -> None:
        server.show("ONE", 9)
        async with server.client("?channel=ONE&snapshot=true") as client:
            streams = (await client.one("subscribed"))["streams"]
            assert streams == {"ONE": {"epoch": "E1", "seq": 9, "recovered": False, "replayed": 0, "snapshot": 1}}
            server.show("ONE", 2)
            assert await client.seqs(3) == [("ONE", 9), ("ONE", 10), ("ONE", 11)]

    async def test_what_comes_while_a_flush_rests_leaves_in_one_write(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writer, "RESTS", 10**9)
        async with serving(outlets=writer.FlushScheduler(0.2)) as server, server.client() as client:
            await client.subscribe("ONE")
            writes: list[int] = []
            plain = writer.BufferedWriter.write
            monkeypatch.setattr(
                writer.BufferedWriter, "write", lambda self, now: (writes.append(1), plain(self, now))[1]
            )
            for _ in range(20):
                server.show("ONE")
                await asyncio.sleep(0.001)
            assert await client.seqs(20) == [("ONE", seq) for seq in range(1, 21)]
            assert len(writes) < 5

    async def test_without_a_window_nothing_rests(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writer, "RESTS", 10**9)
        async with serving(outlets=writer.FlushScheduler(0)) as server, server.client() as client:
            await client.subscribe("ONE")
            for seq in range(1, 6):
                server.show("ONE")
                assert await client.seqs(1) == [("ONE", seq)]
