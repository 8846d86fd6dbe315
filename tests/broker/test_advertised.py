"""A server that answers, and says that the cluster is where nobody can reach it."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

import pytest

from regstream import errors
from regstream.broker import kafka
from regstream.broker.kafka import consumer
from regstream.broker.kafka import errors as kafka_errors
from tests.kafka import daemons

API_VERSIONS, METADATA = 18, 3


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


class Server:
    """As much of a Kafka broker as says where the brokers are: ApiVersions and Metadata, version 0 of both."""

    def __init__(self, brokers: list[tuple[str, int]]) -> None:
        versions = b"".join(struct.pack(">hhh", key, 0, 0) for key in (API_VERSIONS, METADATA))
        named = b"".join(
            struct.pack(">i", node) + text(host) + struct.pack(">i", port) for node, (host, port) in enumerate(brokers)
        )
        self._answers = {
            API_VERSIONS: struct.pack(">hi", 0, 2) + versions,
            METADATA: struct.pack(">i", len(brokers)) + named + struct.pack(">i", 0),
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                request = await reader.readexactly(size)
                key, _, correlation = struct.unpack(">hhi", request[:8])
                answer = struct.pack(">i", correlation) + self._answers[key]
                writer.write(struct.pack(">i", len(answer)) + answer)
        writer.close()


@contextlib.asynccontextmanager
async def serving(*brokers: tuple[str, int]) -> AsyncIterator[kafka.Connection]:
    async with await asyncio.start_server(Server(list(brokers)).serve, "127.0.0.1", 0) as server:
        yield kafka.Connection(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")


@pytest.mark.parametrize(
    ("brokers", "named", "cause"),
    [
        ([("kafka.invalid", 9092)], "kafka.invalid:9092", "known"),
        ([("127.0.0.1", 1)], "127.0.0.1:1", "refused"),
        ([("127.0.0.1", 1), ("kafka.invalid", 9092)], "127.0.0.1:1, kafka.invalid:9092", ""),
        ([("::1", 1)], "[::1]:1", ""),
    ],
)
@pytest.mark.parametrize("form", ["broker", "log"])
async def test_it_is_named_with_the_cure(brokers: list[tuple[str, int]], named: str, cause: str, form: str) -> None:
    async with serving(*brokers) as reach:
        one = kafka.KafkaBroker(reach) if form == "broker" else consumer.TopicReader(reach, {})
        with pytest.raises(errors.BrokerError) as caught:
            await one.start()
    said = caught.value.reason
    assert said.startswith(f"{reach.servers} answers, but {named}, where") and "advertised.listeners" in said
    assert cause in said and "Error" not in said


async def test_one_of_them_that_can_be_reached_is_enough() -> None:
    with daemons.silent() as other:
        host, _, port = other.rpartition(":")
        async with serving(("127.0.0.1", 1), (host, int(port))) as reach:
            assert await kafka_errors.probe(reach, 3) == reach


async def test_that_names_itself_is_asked_nothing_more() -> None:
    with daemons.silent() as other:
        host, _, port = other.rpartition(":")
        server = Server([(host, int(port))])
        async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
            own = listening.sockets[0].getsockname()[1]
            server._answers[METADATA] = Server([("127.0.0.1", own)])._answers[METADATA]
            assert (await kafka_errors.probe(kafka.Connection(f"127.0.0.1:{own}"), 3)).servers == f"127.0.0.1:{own}"
