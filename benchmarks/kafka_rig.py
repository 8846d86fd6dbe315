"""What the rows with Kafka stand on: a real broker on loopback, our brokers on it, and the bare client beside them."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import pathlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import aiokafka

from benchmarks import generation
from regstream import broker
from regstream.broker import failover, spool
from regstream.broker import kafka as ours
from regstream.event import Event
from scripts import kafka

# Its warnings about topics that are just being made tell nothing here
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
HEADERS = [("content-type", b"application/cloudevents+json")]
BATCH = 100


@contextlib.contextmanager
def cluster() -> Iterator[kafka.Cluster]:
    """One broker of real Kafka, with nothing in it, gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, kafka.Cluster(pathlib.Path(folder)) as one:
        yield one


def reference(topic: str) -> Callable[[], list[Event]]:
    """Gives the next batch of the reference stream, its events bound for ``topic``."""
    declared = generation.catalog()
    spec = declared.streams["REFERENCE"].model_copy(update={"topic": topic})
    stream = generation.source(declared._replace(streams={"REFERENCE": spec}))
    return lambda: stream.next_batch(time.time(), BATCH).events


class Deaf(ours.KafkaBroker):
    """Publishes and reads nothing back, so that publishing is seen alone."""

    async def consume(self) -> AsyncIterator[list[broker.Record]]:
        """Nothing, for ever."""
        await asyncio.Event().wait()
        yield []


@contextlib.asynccontextmanager
async def direct(servers: str, topic: str, partitions: int) -> AsyncIterator[ours.KafkaBroker]:
    """A connection that is live."""
    one = ours.KafkaBroker(ours.Connection(servers))
    await one.start()
    await one.declare({topic: partitions})
    try:
        yield one
    finally:
        await one.abandon()


@contextlib.asynccontextmanager
async def outliving(
    servers: str, topic: str, partitions: int, kind: type[ours.KafkaBroker] = Deaf
) -> AsyncIterator[failover.FailoverBroker]:
    """The broker that the daemon has, live, with a spool of its own."""
    with tempfile.TemporaryDirectory() as folder:
        one = failover.FailoverBroker(
            lambda starts: kind(ours.Connection(servers), starts),
            spool.Spool(pathlib.Path(folder, "spool")),
            time.monotonic,
            lambda *_: None,
        )
        if kind is Deaf:
            # Nothing is expected back: after a while it would be shown without having come
            one._showing._awaited = collections.deque(maxlen=0)
        await one.start()
        await one.declare({topic: partitions})
        while one.status.state != "live":
            await asyncio.sleep(0.02)
        try:
            yield one
        finally:
            await one.close()


@contextlib.asynccontextmanager
async def bare(servers: str, compression: str | None = "lz4") -> AsyncIterator[Any]:
    """The client library's own producer, as it is."""
    one = aiokafka.AIOKafkaProducer(
        bootstrap_servers=servers, acks="all", enable_idempotence=True, max_batch_size=128 * 1024,
        compression_type=compression,
    )  # fmt: skip
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


async def send(producer: Any, topic: str, events: Sequence[Event], partition: int | None = 0) -> None:
    """The plain loop: the same values, keys and headers; returns when all are acknowledged."""
    for event in events:
        await producer.send(topic, event.value, key=(event.key or "").encode(), partition=partition, headers=HEADERS)
    await producer.flush()


async def emptied(one: failover.FailoverBroker) -> None:
    """Returns when everything that was published is acknowledged."""
    while one.status.waiting:
        await asyncio.sleep(0.005)
