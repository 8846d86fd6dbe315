"""What a real cluster refuses, and lines that are slow: neither is a lost connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import time
from collections.abc import AsyncIterator, Iterable

import aiokafka.client
import aiokafka.conn
import pytest

from regstream.broker import failover, kafka, spool
from regstream.broker.kafka import errors as kafka_errors
from regstream.event import Event
from scripts import kafka as clusters
from tests import process
from tests.kafka import clusters as needs
from tests.kafka import daemons
from tests.kafka.test_wire import make_topic
from tests.test_broker import events

OTHER = "refusals.other"
# What a topic may forbid, and what is said of it
KINDS = {
    "compacted": ({"cleanup.policy": "compact"}, "INVALID_RECORD"),
    "timed": ({"message.timestamp.before.max.ms": "1", "message.timestamp.after.max.ms": "1"}, "INVALID_TIMESTAMP"),
    "narrow": ({"max.message.bytes": "100"}, "takes no message of that size"),
}


class Life:
    """A broker with its fallback, and what it showed; it must not leave the cluster."""

    def __init__(self, servers: str, folder: pathlib.Path) -> None:
        self.changes: list[str] = []
        self.shown: list[tuple[str, int]] = []
        self.broker = failover.FailoverBroker(
            lambda starts: kafka.KafkaBroker(kafka.Connection(servers), starts),
            spool.Spool(folder / "spool"),
            time.monotonic,
            lambda _, after, why: self.changes.append(after),
        )

    async def show(self) -> None:
        async for records in self.broker.consume():
            self.shown += [(record.event.head.stream, record.event.seq) for record in records]

    async def sent(self, count: int, seconds: float = 60) -> None:
        """Return when nothing waits, and so many events were shown."""
        async with asyncio.timeout(seconds):
            while self.broker.status.waiting or len(self.shown) < count:
                await asyncio.sleep(0.01)
        assert self.changes == ["draining", "live"]


@contextlib.asynccontextmanager
async def live(servers: str, folder: pathlib.Path, topics: Iterable[str]) -> AsyncIterator[Life]:
    one = Life(servers, folder)
    await one.broker.start()
    showing = asyncio.create_task(one.show())
    try:
        await one.broker.declare(dict.fromkeys(topics, 1), 1)
        async with asyncio.timeout(30):
            while one.broker.status.state != "live":
                await asyncio.sleep(0.01)
        yield one
    finally:
        await one.broker.close()
        await showing


def found(cluster: clusters.Cluster, topic: str) -> dict[str, list[int]]:
    """The numbers on a topic, by stream."""
    read = daemons.read(cluster, (topic,))
    return {
        stream: [int(one.value.rpartition(b'"n":')[2].strip(b"}")) for one in some] for stream, some in read.items()
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_a_topic_that_forbids_its_events_holds_up_no_other(
    tmp_path: pathlib.Path, shared_cluster: clusters.Cluster, kind: str
) -> None:
    topic, (settings, why) = f"refusals.{kind}", KINDS[kind]
    await needs.forget(shared_cluster.bootstrap, [topic, OTHER])
    await make_topic(shared_cluster, topic, **settings)
    async with live(shared_cluster.bootstrap, tmp_path, [topic, OTHER]) as one:
        for turn in range(2):
            first = 20 * turn + 1
            await one.broker.publish(events(20, stream="BAD", topic=topic, first=first))
            await one.broker.publish(events(20, stream="GOOD", topic=OTHER, first=first))
        # What is refused is shown as well
        await one.sent(80)
        status = one.broker.status
        assert (status.errors, status.state, status.skipped) == (40, "live", 0)
        assert topic in status.reason and why in status.reason and OTHER not in status.reason
        assert sum(one.broker.refused.values()) == 40
        assert [seq for stream, seq in one.shown if stream == "GOOD"] == list(range(1, 41))
    assert await asyncio.to_thread(found, shared_cluster, OTHER) == {"GOOD": list(range(1, 41))}
    assert await asyncio.to_thread(found, shared_cluster, topic) == {}


async def test_only_the_events_that_are_forbidden_are_refused(
    tmp_path: pathlib.Path, shared_cluster: clusters.Cluster
) -> None:
    await needs.forget(shared_cluster.bootstrap, ["refusals.mixed"])
    await make_topic(shared_cluster, "refusals.mixed", **{"cleanup.policy": "compact"})
    sent = [
        event._replace(key=f"k{event.seq}" if event.seq % 3 else None) for event in events(90, topic="refusals.mixed")
    ]
    async with live(shared_cluster.bootstrap, tmp_path, ["refusals.mixed"]) as one:
        await one.broker.publish(sent)
        await one.sent(90)
        assert one.broker.status.errors == 30
    kept = [event.seq for event in sent if event.key is not None]
    assert await asyncio.to_thread(found, shared_cluster, "refusals.mixed") == {"ONE": kept}


async def test_a_code_that_nobody_knows_is_the_topics_when_it_is_repeated(
    tmp_path: pathlib.Path, shared_cluster: clusters.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        kafka_errors, "CODES", {number: one for number, one in kafka_errors.CODES.items() if number != 87}
    )
    await needs.forget(shared_cluster.bootstrap, ["refusals.unknown", OTHER])
    await make_topic(shared_cluster, "refusals.unknown", **{"cleanup.policy": "compact"})
    async with live(shared_cluster.bootstrap, tmp_path, ["refusals.unknown", OTHER]) as one:
        await one.broker.publish([*events(50, stream="BAD", topic="refusals.unknown"), *events(20, topic=OTHER)])
        await one.sent(70)
        assert one.broker.status.errors == 50 and "code 87" in one.broker.status.reason
    assert await asyncio.to_thread(found, shared_cluster, OTHER) == {"ONE": list(range(1, 21))}


class Line:
    """Carries connections to a port on loopback, so many bytes a second in each direction of each."""

    def __init__(self, target: int, rate: float) -> None:
        self._target, self._rate = target, rate

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        with contextlib.suppress(OSError):
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        for end in (writer, back):
            end.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        free = 0.0
        while data := await reader.read(4096):
            now = asyncio.get_running_loop().time()
            free = max(free, now) + len(data) / self._rate
            await asyncio.sleep(free - now)
            writer.write(data)
        writer.close()


async def test_a_slow_line_is_no_lost_connection(
    tmp_path: pathlib.Path, shared_cluster: clusters.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await needs.forget(shared_cluster.bootstrap, ["refusals.slow"])
    port = int(shared_cluster.bootstrap.rpartition(":")[2])
    line = Line(port, 16_000)
    server = await asyncio.start_server(line.carry, "127.0.0.1", 0)
    slow = server.sockets[0].getsockname()[1]
    connect = aiokafka.conn.create_conn

    async def by_the_line(host: str, to: int, **options: object) -> object:
        # The cluster names its own port, whichever way one came
        return await connect(host, slow if to == port else to, **options)

    monkeypatch.setattr(aiokafka.client, "create_conn", by_the_line)
    monkeypatch.setattr(aiokafka.conn, "create_conn", by_the_line)
    sent = padded(events(80, topic="refusals.slow"))
    async with server, live(shared_cluster.bootstrap, tmp_path, ["refusals.slow"]) as one:
        # At 16 kB a second it takes more than five seconds until the last one is acknowledged
        await one.broker.publish(sent)
        await one.sent(80)
        assert one.broker.status.errors == 0
        monkeypatch.undo()
    assert await asyncio.to_thread(found, shared_cluster, "refusals.slow") == {"ONE": list(range(1, 81))}


def padded(sent: list[Event]) -> list[Event]:
    """The same with a kilobyte that cannot be compressed much."""
    return [
        event._replace(value=event.value[:-2] + b',"t":"%s","n":%d}}' % (os.urandom(600).hex().encode(), event.seq))
        for event in sent
    ]


def test_generate_claims_no_more_than_was_acknowledged(
    tmp_path: pathlib.Path, shared_cluster: clusters.Cluster
) -> None:
    # The alerts of other tests would be a past that began otherwise
    topics = ["refusals.past", "refusals.fine", "reginsight.alerts"]
    asyncio.run(needs.forget(shared_cluster.bootstrap, topics))
    asyncio.run(make_topic(shared_cluster, "refusals.past", **KINDS["timed"][0]))
    text = "version: 1\nseed: 1\nstreams:\n"
    for name, topic in (("PAST", topics[0]), ("FINE", topics[1])):
        text += f"  {name}:\n    topic: {topic}\n    interval: 10m\n    fields: {{n: '{{{{ seq }}}}'}}\n"
    (tmp_path / "streams.yaml").write_text(text)
    done = process.run(
        *("generate", "--from", "2026-01-01", "--duration", "1d", "--out", "kafka"),
        cwd=tmp_path,
        KAFKA_BROKER=shared_cluster.bootstrap,
    )
    assert done.returncode == 1
    assert "144 of 288 events of" in done.stderr
    assert "144 of 288 events were refused: topic refusals.past refuses events: INVALID_TIMESTAMP" in done.stderr
    assert len(found(shared_cluster, "refusals.fine")["FINE"]) == 144
