"""Produce requests of the client library, with the answers judged by our table of codes.

The library repeats a batch for ever when it thinks that a code may pass, knows 80 of 135 codes, takes all others for
one, and drops what the broker says about single messages (KIP-467).
"""

from __future__ import annotations

from typing import Any

import aiokafka.errors
import aiokafka.producer.sender
import aiokafka.protocol.produce

from regstream.broker.kafka import codes, window


class RefusedError(aiokafka.errors.KafkaError):  # type: ignore[misc]
    """A batch was not taken: the cluster answered ``code``, and said ``text`` (empty: nothing) about it.

    ``culprits`` are the indices of the messages that it objects to; it may name none.
    """

    def __init__(self, code: codes.Code, text: str = "", culprits: tuple[int, ...] = ()) -> None:
        super().__init__(text or code.name)
        self.code = code
        self.text = text
        self.culprits = culprits


class Troubles:
    """What topics of one connection were answered last, as long as they take nothing."""

    def __init__(self) -> None:
        self.codes: dict[str, codes.Code] = {}
        self._since: dict[str, float] = {}
        self._lasting: set[str] = set()

    def settle(self, topic: str) -> None:
        """It took something."""
        if self.codes.pop(topic, None) is not None:
            del self._since[topic]
            self._lasting.discard(topic)

    def lasts(self, topic: str, code: codes.Code, now: float, in_sync: bool) -> bool:
        """Note a code that may pass; gives whether it will not: ``in_sync`` says that every copy is there already."""
        self.codes[topic] = code
        since = self._since.setdefault(topic, now)
        if code.action is not codes.Action.IN_SYNC or not in_sync:
            return False
        if now - since >= codes.STALL_SECONDS:
            # From now on each event finds out at its first answer
            self._lasting.add(topic)
        return topic in self._lasting


class Delivery(aiokafka.producer.sender.SendProduceReqHandler):  # type: ignore[misc]
    """One produce request: batches to one broker."""

    def __init__(self, sender: Any, batches: Any, flow: window.SendWindow, troubles: Troubles) -> None:
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
                    self._judge(batch, codes.of(number), offset, rest)

    def _judge(self, batch: Any, code: codes.Code, offset: int, rest: list[Any]) -> None:
        if code.action is codes.Action.ACKNOWLEDGED:
            self._troubles.settle(batch.tp.topic)
            batch.done(offset, *rest[:2])
        elif code.action in _PASSING and not self._lasts(batch, code):
            self._client.force_metadata_update()
            self._to_reenqueue.append(batch)
        else:
            _, _, culprits, text = rest if len(rest) == 4 else (None, None, (), "")
            batch.failure(RefusedError(code, text or "", tuple(index for index, _ in culprits or ())))

    def _lasts(self, batch: Any, code: codes.Code) -> bool:
        known = self._client.cluster._partitions.get(batch.tp.topic, {}).get(batch.tp.partition)
        in_sync = known is not None and len(known.isr) >= len(known.replicas)
        return self._troubles.lasts(batch.tp.topic, code, self._flow.now(), in_sync)


_PASSING = {codes.Action.RETRY, codes.Action.MAKE_AGAIN, codes.Action.IN_SYNC}
