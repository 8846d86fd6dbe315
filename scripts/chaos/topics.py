"""The independent reader: what is on the topics, with a Kafka client and nothing of ours."""

from __future__ import annotations

import asyncio
import collections
import dataclasses

import aiokafka
import orjson

from scripts.chaos import setting

Key = tuple[str, str]


@dataclasses.dataclass
class Topics:
    """What was found: numbers by stream and epoch, and what is wrong with their order.

    ``twice`` has the time of the event (as it says itself) for each record that was there before. ``inverted`` records
    are behind a later one of their stream in one partition, ``strayed`` ones have the key of another partition.
    """

    seen: dict[Key, set[int]] = dataclasses.field(default_factory=lambda: collections.defaultdict(set))
    records: int = 0
    twice: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    inverted: list[str] = dataclasses.field(default_factory=list)
    strayed: list[str] = dataclasses.field(default_factory=list)
    foreign: int = 0


class _Judge:
    def __init__(self) -> None:
        self.found = Topics()
        self._newest: dict[tuple[str, int, str, str], int] = {}
        self._homes: dict[tuple[str, str, bytes | None], int] = {}

    def take(self, topic: str, partition: int, key: bytes | None, value: bytes) -> None:
        found = self.found
        found.records += 1
        event = orjson.loads(value)
        stream, epoch, seq = event["subject"], event["epoch"], event["seq"]
        name = f"{stream}/{epoch}/{seq}"
        seen = found.seen[stream, epoch]
        if self._homes.setdefault((topic, stream, key), partition) != partition:
            found.strayed.append(f"{name} with key {key!r} in {topic}-{partition}")
        if seq in seen:
            found.twice.append((name, event["time"]))
            return
        seen.add(seq)
        place = (topic, partition, stream, epoch)
        if seq < self._newest.get(place, 0):
            found.inverted.append(f"{name} behind {self._newest[place]} in {topic}-{partition}")
        self._newest[place] = max(seq, self._newest.get(place, 0))


async def read(bootstrap: str) -> Topics:
    """Everything on the topics of the load, from their beginnings to where they end now; bounded in time."""
    names = [f"chaos.{name.lower()}" for name, *_ in setting.STREAMS] + ["reginsight.alerts"]
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=2**22,
    )
    async with asyncio.timeout(120), consumer:
        judge = _Judge()
        tps = [aiokafka.TopicPartition(name, number) for name in names for number in range(setting.PARTITIONS)]
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        # Not seek_to_beginning: what the client asked for by itself, the end, may arrive after it
        for tp, begin in (await consumer.beginning_offsets(tps)).items():
            consumer.seek(tp, begin)
        left = set(tps)
        while left:
            for tp, messages in (await consumer.getmany(*left, timeout_ms=500)).items():
                for one in messages:
                    judge.take(tp.topic, tp.partition, one.key, one.value)
            left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
    return judge.found
