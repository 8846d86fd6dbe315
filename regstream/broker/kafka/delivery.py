"""Produce requests of the client library, with the answers judged by our table of codes.

The library repeats a batch for ever when it thinks that a code may pass, knows 80 of 135 codes, takes all others for
one, and drops what the broker says about single messages (KIP-467).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiokafka.errors
import aiokafka.producer.sender
import aiokafka.protocol.produce

from regstream.broker.kafka import errors as kafka_errors

FIRST = 64 * 1024
SLOWEST = 2 * 1024
"""Bytes a second that are expected before the first answer."""
LONGEST = 120.0
QUICK_SECONDS = 0.5
SLOW_SECONDS = 1.0


class SendWindow:
    """For one connection; sizes are bytes of events before compression. What is larger than the window goes alone.

    ``moves`` counts what was acknowledged or refused. Made and used inside a running event loop.
    """

    def __init__(self) -> None:
        self.size = FIRST
        self.moves = 0
        self._under_way = 0
        # What is longer than this is no latency, but a queue
        self._least = SLOW_SECONDS
        self._last: tuple[float, int] | None = None
        self._free_at = 0.0
        self._stalled = False
        self._room = asyncio.Event()
        self._patient: set[asyncio.Timeout] = set()
        self.now = asyncio.get_running_loop().time

    @contextlib.asynccontextmanager
    async def under_way(self, size: int) -> AsyncIterator[None]:
        """Waits until there is room for ``size`` bytes, and counts them as long as the block lasts.

        Raises TimeoutError when nothing has moved on this connection for too long, then and from then on, and when the
        window is closed.
        """
        while self._under_way and self._under_way + size > self.size and not self._stalled:
            self._room.clear()
            await self._room.wait()
        if self._stalled:
            raise TimeoutError
        self._under_way += size
        try:
            async with asyncio.timeout_at(self._deadline()) as patience:
                self._patient.add(patience)
                try:
                    yield
                finally:
                    self._patient.discard(patience)
        except TimeoutError:
            self._stalled = True
            raise
        finally:
            self._under_way -= size
            self._room.set()

    def moved(self) -> None:
        """Something was acknowledged or refused: whatever else is under way may take as long again."""
        self.moves += 1
        self._put_off()

    def _put_off(self) -> None:
        deadline = self._deadline()
        for one in self._patient:
            if not one.expired():
                one.reschedule(deadline)

    def _deadline(self) -> float:
        seconds, size = self._last or (FIRST / SLOWEST, FIRST)
        expected = seconds * self._under_way / size
        if self._last is not None:
            expected = max(seconds, expected)
        return max(self.now(), self._free_at) + min(LONGEST, expected) + kafka_errors.STALL_SECONDS

    async def unthrottled(self) -> bool:
        """Returns when the cluster does not throttle us any more; gives whether anybody still wants to send then."""
        wait = self._free_at - self.now()
        if wait <= 0:
            return True
        await asyncio.sleep(wait)
        return not self._stalled

    def close(self) -> None:
        """Nothing more is to be sent."""
        self._stalled = True
        self._room.set()

    def answered(self, since: float, throttled: float) -> None:
        """An answer came to what was sent at the time ``since``; the cluster wants us to wait ``throttled`` seconds."""
        seconds = self.now() - since
        self._least = min(self._least, seconds)
        self._last = seconds, max(1, self._under_way)
        if throttled > 0:
            self._free_at = self.now() + throttled
            self._put_off()
        late = seconds - self._least + throttled
        if late > SLOW_SECONDS:
            self.size = max(1, min(self.size, self._under_way) // 2)
        elif late < QUICK_SECONDS and 2 * self._under_way >= self.size:
            self.size *= 2


class ProduceRefusedError(aiokafka.errors.KafkaError):  # type: ignore[misc]
    """A batch was not taken: the cluster answered ``code``, and said ``text`` (empty: nothing) about it.

    ``culprits`` are the indices of the messages that it objects to; it may name none.
    """

    def __init__(self, code: kafka_errors.ErrorCode, text: str = "", culprits: tuple[int, ...] = ()) -> None:
        super().__init__(text or code.name)
        self.code = code
        self.text = text
        self.culprits = culprits


class Troubles:
    """What topics of one connection were answered last, as long as they take nothing."""

    def __init__(self) -> None:
        self.codes: dict[str, kafka_errors.ErrorCode] = {}
        self._since: dict[str, float] = {}
        self._lasting: set[str] = set()

    def settle(self, topic: str) -> None:
        """It took something."""
        if self.codes.pop(topic, None) is not None:
            del self._since[topic]
            self._lasting.discard(topic)

    def lasts(self, topic: str, code: kafka_errors.ErrorCode, now: float, in_sync: bool) -> bool:
        """Note a code that may pass; gives whether it will not: ``in_sync`` says that every copy is there already."""
        self.codes[topic] = code
        since = self._since.setdefault(topic, now)
        if code.action is not kafka_errors.ErrorAction.IN_SYNC or not in_sync:
            return False
        if now - since >= kafka_errors.STALL_SECONDS:
            # From now on each event finds out at its first answer
            self._lasting.add(topic)
        return topic in self._lasting


class ProduceHandler(aiokafka.producer.sender.SendProduceReqHandler):  # type: ignore[misc]
    """One produce request: batches to one broker."""

    def __init__(self, sender: Any, batches: Any, flow: SendWindow, troubles: Troubles) -> None:
        super().__init__(sender, batches)
        self._flow = flow
        self._troubles = troubles
        self._began = 0.0

    async def do(self, node_id: Any) -> None:
        """Send it; each batch is delivered, failed or to be repeated afterwards."""
        if await self._flow.unthrottled():
            self._began = self._flow.now()
            await super().do(node_id)
            return
        for batch in self._batches.values():
            batch.failure(aiokafka.errors.ProducerClosed())

    def create_request(self) -> Any:
        """The library's, in the version in which the cluster says which messages it objects to."""
        request = super().create_request()
        request._CLASSES = (*request._CLASSES, aiokafka.protocol.produce.ProduceRequest_v8)
        return request

    def handle_response(self, response: Any) -> None:
        """Judge each batch."""
        self._flow.answered(self._began, getattr(response, "throttle_time_ms", 0) / 1000)
        for topic, partitions in response.topics:
            for partition, number, offset, *rest in partitions:
                batch = self._batches.get(aiokafka.TopicPartition(topic, partition))
                if batch is not None:
                    self._judge(batch, kafka_errors.of(number), offset, rest)

    def _judge(self, batch: Any, code: kafka_errors.ErrorCode, offset: int, rest: list[Any]) -> None:
        if code.action is kafka_errors.ErrorAction.ACKNOWLEDGED:
            self._troubles.settle(batch.tp.topic)
            batch.done(offset, *rest[:2])
        elif code.action in _PASSING and not self._lasts(batch, code):
            self._client.force_metadata_update()
            self._to_reenqueue.append(batch)
        else:
            _, _, culprits, text = rest if len(rest) == 4 else (None, None, (), "")
            batch.failure(ProduceRefusedError(code, text or "", tuple(index for index, _ in culprits or ())))

    def _lasts(self, batch: Any, code: kafka_errors.ErrorCode) -> bool:
        known = self._client.cluster._partitions.get(batch.tp.topic, {}).get(batch.tp.partition)
        in_sync = known is not None and len(known.isr) >= len(known.replicas)
        return self._troubles.lasts(batch.tp.topic, code, self._flow.now(), in_sync)


_PASSING = {kafka_errors.ErrorAction.RETRY, kafka_errors.ErrorAction.MAKE_AGAIN, kafka_errors.ErrorAction.IN_SYNC}
