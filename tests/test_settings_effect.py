"""Each environment variable changes something that can be seen from outside: what it is without it, and with it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import json
import pathlib
import ssl
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import httpx
import pytest
import websockets

from regstream import daemon, settings
from scripts import kafka
from tests import databases, otlp, process
from tests.engine.world import stream, until
from tests.test_daemon import collected, running

__all__ = ["collected"]
STREAMS: dict[str, Any] = {
    "seed": 7,
    "profiles": {"development": {"speed": 1}, "production": {"speed": 2}},
    "streams": {"A": stream("5ms"), "B": stream()},
}
TOKEN = "t-0123456789abcdef"
BEARER = {"authorization": f"Bearer {TOKEN}"}
ALLOWED = "https://page.example"


@dataclasses.dataclass(frozen=True)
class World:
    """What an observation may use besides the environment: a folder with streams, which is the current one."""

    folder: pathlib.Path
    request: pytest.FixtureRequest


Observe = Callable[[Mapping[str, str], World], Awaitable[Any]]


@pytest.fixture
def world(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> World:
    (tmp_path / "streams.yaml").write_text(json.dumps(STREAMS))
    (tmp_path / "tokens").write_text(f"admin:{TOKEN}\n")
    monkeypatch.chdir(tmp_path)
    return World(tmp_path, request)


@contextlib.asynccontextmanager
async def serving(environ: Mapping[str, str], port: int | None = 0) -> AsyncIterator[tuple[daemon.Components, Any]]:
    """A daemon with that environment in this process, and a client of it."""
    async with running(environ, port=port) as (parts, _):
        base = f"http://{parts.settings.host}:{parts.server.port}"
        async with httpx.AsyncClient(base_url=base, timeout=20) as client:
            yield parts, client


def asking(question: Callable[[daemon.Components, Any], Awaitable[Any]]) -> Observe:
    """An observation of a daemon that runs."""

    async def observe(environ: Mapping[str, str], _: World) -> Any:
        async with serving(environ) as (parts, client):
            return await question(parts, client)

    return observe


@asking
async def generates(parts: daemon.Components, client: httpx.AsyncClient) -> bool:
    return bool((await client.get("/health")).json()["streaming"]["isStreaming"])


@asking
async def listens(parts: daemon.Components, client: httpx.AsyncClient) -> str:
    return str(parts.server._socket.getsockname()[0])


async def port(environ: Mapping[str, str], _: World) -> int:
    chosen = settings.load(environ)
    return daemon.build(chosen).server.port


@asking
async def speed(parts: daemon.Components, client: httpx.AsyncClient) -> float:
    return float(parts.door.receipt.generation and parts.engine.catalog.profile.speed)


@asking
async def source(parts: daemon.Components, client: httpx.AsyncClient) -> str:
    await until(lambda: parts.engine.totals.events)
    events = (await client.get("/api/streaming/events", params={"stream": "A", "limit": 1})).json()["events"]
    return str(events[0]["source"])


@asking
async def frames_gather(parts: daemon.Components, client: httpx.AsyncClient) -> bool:
    """Whether a flush that cost 50 ms is followed by a rest of more than 200 ms."""
    written: list[float] = []

    class Costly:
        def write(self, now: float) -> None:
            written.append(now)
            time.sleep(0.05)

    outlets, costly = parts.sockets.outlets, Costly()
    outlets.wake(costly)  # type: ignore[arg-type]
    await until(lambda: written)
    outlets.wake(costly)  # type: ignore[arg-type]
    await until(lambda: len(written) > 1)
    return written[1] - written[0] > 0.25


@asking
async def asks_for_a_token(parts: daemon.Components, client: httpx.AsyncClient) -> bool:
    answers = [await client.get("/health"), await client.get("/health", headers=BEARER)]
    return [one.status_code for one in answers] == [401, 200]


@asking
async def lets_a_page_in(parts: daemon.Components, client: httpx.AsyncClient) -> bool:
    answer = await client.get("/health", headers={"origin": ALLOWED})
    return bool(answer.headers.get("access-control-allow-origin") == ALLOWED)


async def _paused(client: httpx.AsyncClient, address: str) -> int:
    answer = await client.post("/api/streaming/streams/B/pause", headers={"x-forwarded-for": address})
    return int(answer.status_code)


@asking
async def refuses_the_second_call(parts: daemon.Components, client: httpx.AsyncClient) -> bool:
    return [await _paused(client, "192.0.2.1") for _ in range(2)] == [200, 429]


@asking
async def tells_clients_of_a_proxy_apart(parts: daemon.Components, client: httpx.AsyncClient) -> bool:
    return [await _paused(client, f"192.0.2.{number}") for number in range(2)] == [200, 200]


@asking
async def serves_on_each_transport(parts: daemon.Components, client: httpx.AsyncClient) -> dict[str, int]:
    """How many of five clients are served, by transport; those before have gone."""
    served = {}
    # A session on polls holds no connection: only its transport can bound how many there are
    polls = [await client.get("/socket.io/?EIO=4&transport=polling") for _ in range(5)]
    served["polling"] = [one.status_code for one in polls].count(200)
    await client.aclose()
    address = f"127.0.0.1:{parts.server.port}"
    for name, connect in (("websocket", _on_websocket), ("sse", _on_sse)):
        await until(lambda: parts.server.connections == 0)
        async with contextlib.AsyncExitStack() as stack:
            served[name] = sum([await connect(address, stack) for _ in range(5)])
    return served


async def _on_websocket(address: str, stack: contextlib.AsyncExitStack) -> bool:
    try:
        await stack.enter_async_context(websockets.connect(f"ws://{address}/ws"))
    except websockets.InvalidStatus:
        return False
    return True


async def _on_sse(address: str, stack: contextlib.AsyncExitStack) -> bool:
    client = await stack.enter_async_context(httpx.AsyncClient(timeout=20))
    stream = client.stream("GET", f"http://{address}/api/streaming/stream?channel=A")
    return (await stack.enter_async_context(stream)).status_code == 200


async def _served_from(address: str, count: int, parts: daemon.Components) -> int:
    served, writers = 0, []
    for _ in range(count):
        pair = await asyncio.open_connection("127.0.0.1", parts.server.port, local_addr=(address, 0))
        writers.append(pair[1])
        with contextlib.suppress(ConnectionError):
            pair[1].write(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
            served += b"200" in await asyncio.wait_for(pair[0].readline(), 20)
    for one in writers:
        one.transport.abort()
    return served


@asking
async def serves_two_addresses(parts: daemon.Components, client: httpx.AsyncClient) -> list[int]:
    return [await _served_from(address, 3, parts) for address in ("127.0.0.1", "127.0.0.2")]


async def traces(environ: Mapping[str, str], _: World) -> bool:
    """Whether what is done gets a name in a trace; the collector is OpenTelemetry's to choose."""
    collector = otlp.Collector()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        parts = daemon.build(settings.load(environ, port=0))
        span = parts.traces.begin("test", {})
        span.end()
        collector.server_close()
        await parts.traces.close()
    return bool(span.traceparent)


async def keeps_what_waits(environ: Mapping[str, str], world: World) -> bool:
    """Whether the spool for a cluster that is away is in the folder ``kept``."""
    async with serving({"KAFKA_BROKER": "127.0.0.1:9", **environ}) as (parts, _):
        await until(lambda: parts.broker.status.waiting)
        return bool(list((world.folder / "kept").rglob("*")))


async def log(environ: Mapping[str, str], world: World) -> dict[str, bool]:
    """What form its log has, and whether it goes into detail."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=world.folder))
    (folder / "streams.yaml").write_text(json.dumps(STREAMS))
    running = process.Daemon(folder, **environ)
    assert running.stop() == 0
    lines = running.log.read_text().splitlines()
    return {"json": all(one.startswith("{") for one in lines), "debug": any("DEBUG" in one for one in lines)}


async def connects_to_a_database(environ: Mapping[str, str], _: World) -> bool:
    """Whether somebody who calls themselves ``somebody`` asks for the database ``kept`` (the start-up message)."""
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not heard.done():
            (size,) = struct.unpack("!I", await reader.readexactly(4))
            message = await reader.readexactly(size - 4)
            if message.startswith(struct.pack("!I", 80877103)):
                # It asks for TLS first
                writer.write(b"N")
            else:
                heard.set_result(message)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        place = server.sockets[0].getsockname()[1]
        given = {name: value.replace(":1/", f":{place}/") for name, value in environ.items()}
        async with serving(given) as (parts, _client):
            if parts.store is None:
                return False
            message = await asyncio.wait_for(heard, 20)
    return b"user\0somebody\0" in message and b"database\0kept\0" in message


async def drops_old_days(environ: Mapping[str, str], world: World) -> bool:
    """Whether a day of 2020 is dropped, when today's has been made."""
    url = world.request.getfixturevalue("database_url")
    days = "SELECT relname FROM pg_class WHERE relname ~ '^events_2' AND relkind = 'r'"
    old = "events_20200101"
    databases.rows(url, f"CREATE TABLE IF NOT EXISTS regstream.{old} (LIKE regstream.events INCLUDING ALL)")
    with contextlib.suppress(Exception):
        databases.rows(
            url,
            f"ALTER TABLE regstream.events ATTACH PARTITION regstream.{old} "
            "FOR VALUES FROM ('2020-01-01T00:00:00Z') TO ('2020-01-02T00:00:00Z')",
        )
    today = f"events_{datetime.datetime.now(datetime.UTC):%Y%m%d}"
    async with serving({**environ, "DATABASE_URL": url}):
        await until(lambda: (today,) in databases.rows(url, days), 60)
        # It is dropped beside the recording, so what comes after the first commit is after it
        with contextlib.suppress(TimeoutError):
            await until(lambda: (old,) not in databases.rows(url, days), 60 if environ else 0.3)
    return (old,) not in databases.rows(url, days)


class Login:
    """A Kafka server as far as the log-in by PLAIN: it keeps what it hears, and answers no further."""

    def __init__(self) -> None:
        self.heard: dict[str, Any] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard["asked"] = True
        if tls := writer.get_extra_info("ssl_object"):
            subject = dict(one for (one,) in (tls.getpeercert() or {}).get("subject", ()))
            self.heard |= {"tls": True, "certificate": subject.get("commonName")}
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while "password" not in self.heard:
                (size,) = struct.unpack("!i", await reader.readexactly(4))
                self._hear(writer, await reader.readexactly(size))
        writer.close()

    def _hear(self, writer: asyncio.StreamWriter, message: bytes) -> None:
        if "mechanism" in self.heard:
            # After the hand-shake of version 0 the credentials come without a head
            _, self.heard["username"], self.heard["password"] = message.decode().split("\0")
            return
        key, _, number, length = struct.unpack("!hhih", message[:10])
        body = message[10 + max(length, 0) :]
        if key == 18:
            answer = struct.pack("!hi", 0, 3) + b"".join(struct.pack("!hhh", one, 0, 0) for one in (18, 17, 36))
        else:
            self.heard["mechanism"] = body[2:].decode()
            answer = struct.pack("!hi", 0, 1) + body
        writer.write(struct.pack("!ii", len(answer) + 4, number) + answer)


CLUSTER = {"KAFKA_BROKER": "127.0.0.1:1"}
TLS = {**CLUSTER, "KAFKA_SECURITY_PROTOCOL": "SSL"}
SASL = {**CLUSTER, "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_USERNAME": "u", "KAFKA_SASL_PASSWORD": "p"}


def logging_in(what: str, besides: Mapping[str, str], *, tls: bool = False) -> Observe:
    """What of a log-in a server hears; ``besides`` is set too, and the values of the files are those of a CA."""

    async def observe(environ: Mapping[str, str], world: World) -> Any:
        files = kafka.certificates(world.folder / "certificates") if tls else None
        context = None
        if files is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files.ca))
            context.load_cert_chain(files.server)
            context.verify_mode = ssl.CERT_OPTIONAL
        login = Login()
        async with await asyncio.start_server(login.serve, "127.0.0.1", 0, ssl=context) as server:
            place = server.sockets[0].getsockname()[1]
            given = {name: str(getattr(files, value, value)) for name, value in {**besides, **environ}.items()}
            if "KAFKA_BROKER" in given:
                given["KAFKA_BROKER"] = f"127.0.0.1:{place}"
            async with serving(given) as (parts, _):
                status = lambda: parts.broker.status  # noqa: E731
                await until(lambda: what in login.heard or status().reason, 20)
        return login.heard.get(what)

    return observe


@dataclasses.dataclass(frozen=True)
class Effect:
    """What is observed with ``value``; without the variable it must be something else."""

    value: str
    observe: Observe
    expected: Any


PORT = "39147"
EFFECTS: dict[str, Effect] = {
    "ENABLE_STREAMING": Effect("false", generates, False),
    "STREAMING_HOST": Effect("127.0.0.9", listens, "127.0.0.9"),
    "STREAMING_PORT": Effect(PORT, port, int(PORT)),
    "KAFKA_BROKER": Effect("127.0.0.1:1", logging_in("asked", {}), True),
    "KAFKA_SECURITY_PROTOCOL": Effect("SSL", logging_in("tls", {**CLUSTER, "KAFKA_SSL_CA": "ca"}, tls=True), True),
    "KAFKA_SASL_MECHANISM": Effect("SCRAM-SHA-512", logging_in("mechanism", SASL), "SCRAM-SHA-512"),
    "KAFKA_SASL_USERNAME": Effect("somebody", logging_in("username", SASL), "somebody"),
    "KAFKA_SASL_PASSWORD": Effect("secret", logging_in("password", SASL), "secret"),
    "KAFKA_SSL_CA": Effect("ca", logging_in("tls", TLS, tls=True), True),
    "KAFKA_SSL_CERT": Effect(
        "client_cert",
        logging_in("certificate", {**TLS, "KAFKA_SSL_CA": "ca", "KAFKA_SSL_KEY": "client_key"}, tls=True),
        "client",
    ),
    "KAFKA_SSL_KEY": Effect(
        "client_key",
        logging_in("certificate", {**TLS, "KAFKA_SSL_CA": "ca", "KAFKA_SSL_CERT": "client_cert"}, tls=True),
        "client",
    ),
    "REGSTREAM_STATE": Effect("kept", keeps_what_waits, True),
    "DELIVERY_WINDOW": Effect("1000", frames_gather, True),
    "DATABASE_URL": Effect("postgresql://somebody:x@127.0.0.1:1/kept", connects_to_a_database, True),
    "RETENTION": Effect("2d", drops_old_days, True),
    "VPS_SERVER_NAME": Effect("here", source, "/regstream/LATAM/here"),
    "VPS_REGION": Effect("EU", source, "/regstream/EU/VPS-DataStreamer"),
    "REGSTREAM_ENV": Effect("production", speed, 2),
    "DEBUG": Effect("streaming:*", log, {"json": False, "debug": True}),
    "REGSTREAM_LOG": Effect("json", log, {"json": True, "debug": False}),
    "OTEL_TRACES_EXPORTER": Effect("otlp", traces, True),
    "REGSTREAM_TOKENS": Effect(f"admin:{TOKEN}", asks_for_a_token, True),
    "REGSTREAM_TOKENS_FILE": Effect("tokens", asks_for_a_token, True),
    "CORS_ORIGINS": Effect(ALLOWED, lets_a_page_in, True),
    "RATE_LIMIT": Effect("1/hour", refuses_the_second_call, True),
    "STREAMING_PROXIES": Effect("1", tells_clients_of_a_proxy_apart, True),
    "STREAMING_MAX_CONNECTIONS": Effect("3", serves_on_each_transport, {"polling": 3, "websocket": 3, "sse": 3}),
    "STREAMING_MAX_PER_ADDRESS": Effect("2", serves_two_addresses, [2, 2]),
}
BESIDES = {"STREAMING_PROXIES": {"RATE_LIMIT": "1/hour"}}
"""What must be set for a variable to have an effect."""


def test_every_variable_is_observed() -> None:
    assert set(EFFECTS) == {one.name for one in settings.VARIABLES}


@pytest.mark.parametrize("name", EFFECTS)
async def test_it_takes_effect(name: str, world: World) -> None:
    effect, besides = EFFECTS[name], BESIDES.get(name, {})
    assert await effect.observe(besides, world) != effect.expected
    assert await effect.observe({**besides, name: effect.value}, world) == effect.expected
