"""Daemons on a cluster: their files, what the topics hold afterwards, and how they are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

import aiokafka
import aiokafka.admin

from scripts import kafka
from tests import process

STREAMS = """\
version: 1
seed: 7
profiles:
  development: {speed: 1, kafka: {partitions: 4, replication: 1}}
streams:
  KEYED:
    topic: test.keyed
    event: keyed-update
    interval: 50ms
    batch_size: 5
    key: "K{{ seq % 7 }}"
    fields: {n: "{{ seq }}", text: "{{ 'x' * 100 }}"}
    alert: {when: "{{ seq % 20 == 0 }}", severity: WARNING, message: "{{ seq }}"}
  FREQUENT:
    topic: test.shared
    event: frequent-update
    interval: 100ms
    batch_size: 10
    fields: {n: "{{ seq }}"}
  RARE:
    topic: test.shared
    event: rare-update
    schedule: "0 3 29 2 *"
    fields: {n: "{{ seq }}"}
"""
TOPICS = ("test.keyed", "test.shared", "reginsight.alerts")
NAMES = ("KEYED", "FREQUENT", "RARE", "ALERTS")

Position = tuple[str, int]


def write(folder: pathlib.Path, text: str = STREAMS) -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    (folder / "streams.yaml").write_text(text)
    return folder


def start(folder: pathlib.Path, servers: str, **env: str) -> process.Daemon:
    """A daemon on the files of ``folder``, which keeps its spool there too."""
    return process.Daemon(write(folder), KAFKA_BROKER=servers, **env)


@contextlib.contextmanager
def running(folder: pathlib.Path, servers: str, **env: str) -> Iterator[process.Daemon]:
    """A daemon that must stop in order and in time, and have nothing to complain of."""
    daemon = start(folder, servers, **env)
    try:
        yield daemon
    finally:
        end(daemon)


def end(daemon: process.Daemon) -> None:
    """Stop a daemon: in order, within 5 seconds, and without a complaint."""
    code = daemon.stop(seconds=5)
    assert (code, daemon.complaints) == (0, []), daemon.log.read_text()


def broker(daemon: process.Daemon) -> dict[str, Any]:
    """What ``/health`` says of the broker."""
    return dict(daemon.get("/health")["kafka"])


def until(daemon: process.Daemon, state: str, seconds: float = 40) -> dict[str, Any]:
    """The broker as it is once it is in that state."""

    def now() -> dict[str, Any] | None:
        found = broker(daemon)
        return found if found["state"] == state else None

    return dict(process.eventually(now, seconds, f"broker {state}"))


def positions(daemon: process.Daemon) -> dict[str, Position]:
    return {one["name"]: (one["epoch"], one["seq"]) for one in daemon.streams()}


async def _read(cluster: kafka.Cluster, topics: tuple[str, ...]) -> list[Any]:
    found: list[Any] = []
    admin = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap, auto_offset_reset="earliest")
    async with asyncio.timeout(60), consumer:
        await admin.start()
        there = await admin.describe_topics(list(topics))
        await admin.close()
        tps = [aiokafka.TopicPartition(one["topic"], n) for one in there for n in range(len(one["partitions"]))]
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        await consumer.seek_to_beginning(*tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for messages in (await consumer.getmany(timeout_ms=200)).values():
                found += messages
    return found


def read(cluster: kafka.Cluster, topics: tuple[str, ...] = TOPICS) -> dict[str, list[Any]]:
    """The events on the topics by stream, those of each partition in their order."""
    by_stream: dict[str, list[Any]] = {}
    for one in asyncio.run(_read(cluster, topics)):
        by_stream.setdefault(json.loads(one.value)["subject"], []).append(one)
    return by_stream


def check(messages: list[Any]) -> dict[str, int]:
    """Every number of every epoch is there, each partition's in order, none twice; gives the last of each epoch."""
    seqs: dict[str, list[int]] = {}
    ways: dict[Any, list[Position]] = {}
    for one in messages:
        event = json.loads(one.value)
        seqs.setdefault(event["epoch"], []).append(event["seq"])
        ways.setdefault((one.topic, one.partition), []).append((event["epoch"], event["seq"]))
    for way in ways.values():
        assert way == sorted(way)
    for numbers in seqs.values():
        assert sorted(numbers) == list(range(1, len(numbers) + 1))
    return {epoch: len(numbers) for epoch, numbers in seqs.items()}


def check_shown(reader: process.Reader, stream: str) -> list[int]:
    """A client saw each event once and in order, in one epoch; gives their numbers."""
    shown = reader.events(stream)
    numbers = [event["seq"] for event in shown]
    assert len({event["epoch"] for event in shown}) == 1
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), stream
    return numbers


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """An address that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def last(messages: list[Any]) -> int:
    """The highest number in the newest epoch."""
    events = [json.loads(one.value) for one in messages]
    return int(max((event["epoch"], event["seq"]) for event in events)[1])


def check_in_doubt(messages: list[Any]) -> dict[str, int]:
    """As ``check``, but a message that was under way when the broker went may be there twice; gives how many differ."""
    seen: dict[Position, bytes] = {}
    kept = []
    for one in messages:
        event = json.loads(one.value)
        position = event["epoch"], event["seq"]
        assert seen.setdefault(position, one.value) == one.value
        kept += [one] if seen[position] is one.value else []
    return check(kept)
