"""Events onto their partitions, whole batches at a time; what the cluster refuses is told apart event by event."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import operator
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import aiokafka
import aiokafka.codec
import aiokafka.errors
import aiokafka.partitioner
import aiokafka.record.default_records

from regstream import broker, model, quiet
from regstream.broker import message
from regstream.broker.kafka import connection, faults

HEADERS = [("content-type", b"application/cloudevents+json")]
_TOO_LARGE = (aiokafka.errors.MessageSizeTooLargeError, aiokafka.errors.RecordListTooLargeError)
_DENIED = aiokafka.errors.TopicAuthorizationFailedError
_refusals = logging.getLogger(f"{__name__}.refused")


class Sent(NamedTuple):
    """What was not acknowledged: ``unsure`` may be on the topic or not, ``never`` is not and never will be.

    ``reasons`` say why, each once.
    """

    unsure: tuple[model.Event, ...]
    never: tuple[model.Event, ...]
    reasons: tuple[str, ...]


def compress_fast() -> None:
    """Have lz4 at its fast level.

    The library takes level 9, which is four times the CPU of the rest of a batch for a fifth fewer bytes, and has no
    setting for it. One that no longer looks here would compress as it likes; nothing else would change.
    """
    module = sys.modules[aiokafka.record.default_records.DefaultRecordBatchBuilder.__module__]
    vars(module)["lz4_encode"] = functools.partial(aiokafka.codec.lz4_encode, level=1)


class Sender:
    """Sends through one producer, each message with ``headers``.

    ``acknowledged`` says how far, as the offset behind the last, in each partition. At most ``batch_bytes`` of
    events are sent to one at once, or one event that is larger.
    """

    def __init__(self, reach: connection.Connection, headers: Sequence[tuple[str, bytes]] = HEADERS) -> None:
        self._servers = reach.servers
        self._headers = headers
        self.producer: Any = aiokafka.AIOKafkaProducer(
            **reach.options(),
            acks="all",
            enable_idempotence=True,
            compression_type="lz4",
            max_batch_size=model.MAX_BATCH_BYTES,
        )
        self.batch_bytes = model.MAX_BATCH_BYTES
        self.acknowledged: dict[connection.Place, int] = {}
        self._ended = False
        quiet.begin(_refusals.name)
        compress_fast()

    def end(self) -> None:
        """From now on a send that is cancelled is one that was not acknowledged, and not one that nobody wants."""
        self._ended = True

    async def send(self, events: Sequence[model.Event], partitions: Mapping[str, int]) -> Sent:
        """Send events, each partition's in their order, whose topics have so many partitions; never raises for them.

        Of a partition nothing is sent behind the first event that is unsure.
        """
        groups = _grouped(events, partitions)
        results = await asyncio.gather(*(self._send(place, group) for place, group in groups.items()))
        return Sent(
            tuple(event for one in results for event in one.unsure),
            tuple(event for one in results for event in one.never),
            tuple(dict.fromkeys(reason for one in results for reason in one.reasons)),
        )

    async def _send(self, place: connection.Place, events: list[model.Event]) -> Sent:
        done, most = 0, len(events)
        never: list[model.Event] = []
        reasons: list[str] = []
        try:
            while done < len(events):
                batch, taken = self._batch(events[done : done + most])
                try:
                    end = await self._acknowledge(batch, place, taken)
                except _TOO_LARGE as error:
                    # One of them is too large, or all together; the others must not suffer for it
                    most = max(1, taken // 2)
                    if taken == 1:
                        never.append(_too_large(events[done], error))
                        reasons.append(f"topic {place[0]} takes no message of that size")
                        done, most = done + 1, len(events)
                else:
                    done += taken
                    self.acknowledged[place] = end
        except _DENIED as error:
            never += _denied(events[done:], error)
            return Sent((), tuple(never), (*reasons, f"topic {place[0]} may not be written to"))
        except (*faults.FAULTS, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not self._ended:
                raise
            reasons = [faults.why(error, self._servers)]
        return Sent(tuple(events[done:]), tuple(never), tuple(reasons))

    async def _acknowledge(self, batch: Any, place: connection.Place, count: int) -> int:
        """Send a batch; gives the offset behind its last message."""
        sent = await self.producer.send_batch(batch, place[0], partition=place[1])
        try:
            return int((await sent).offset) + count
        except (*_TOO_LARGE, _DENIED):
            # The library has counted the messages of a batch that is refused, and the cluster has not: the next one
            # would be out of sequence
            partition = aiokafka.TopicPartition(*place)
            self.producer._txn_manager.increment_sequence_number(partition, -count)
            raise

    def _batch(self, events: list[model.Event]) -> tuple[Any, int]:
        batch, taken, room = self.producer.create_batch(), 0, self.batch_bytes
        append, headers = batch.append, self._headers
        head: model.Head | None = None
        stamp, traced = 0, False
        for event in events:
            if event.head is not head:
                head, stamp = event.head, message.milliseconds(event.head.time)
                traced, headers = message.traceparent(event.value) is not None, self._headers
            if traced:
                headers = [*self._headers, ("traceparent", message.traceparent(event.value) or b"")]
            room -= len(event.value)
            if room < 0 and taken:
                break
            key = None if event.key is None else event.key.encode(*broker.KEYS)
            if append(timestamp=stamp, key=key, value=event.value, headers=headers) is None:
                break
            taken += 1
        batch.close()
        return batch, taken


def _too_large(event: model.Event, error: Exception) -> model.Event:
    _refusals.error(
        "an event is refused and not on its topic: %s of %d bytes, %s: %s",
        *(event.id, len(event.value), event.head.topic, type(error).__name__),
    )
    return event


def _denied(events: list[model.Event], error: Exception) -> list[model.Event]:
    _refusals.error(
        "events are refused and not on their topic, which may not be written to: %d from %s on, %s: %s",
        *(len(events), events[0].id, events[0].head.topic, type(error).__name__),
    )
    return events


def _grouped(events: Iterable[model.Event], partitions: Mapping[str, int]) -> dict[connection.Place, list[model.Event]]:
    """The events of each partition, in order; what has no key goes where its stream's name leads."""
    groups: dict[connection.Place, list[model.Event]] = {}
    for head, alike in itertools.groupby(events, operator.attrgetter("head")):
        count = partitions[head.topic]
        if count == 1:
            groups.setdefault((head.topic, 0), []).extend(alike)
            continue
        for event in alike:
            number = _partition(head.stream if event.key is None else event.key, count)
            groups.setdefault((head.topic, number), []).append(event)
    return groups


# The library's hash is plain Python and takes longer than all else that is done with an event; keys come back
@functools.lru_cache(maxsize=10_000)
def _partition(key: str, count: int) -> int:
    """Where every Kafka client puts a key."""
    everyone = list(range(count))
    return int(aiokafka.partitioner.DefaultPartitioner()(key.encode(*broker.KEYS), everyone, everyone))
