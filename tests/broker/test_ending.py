"""The end of a producer of the client library, while it is in the middle of something."""

from __future__ import annotations

import asyncio
import types
from typing import Any
from unittest import mock

import aiokafka
from aiokafka.producer import message_accumulator

from regstream.broker.kafka import connection

PLACE = aiokafka.TopicPartition("a", 0)


async def _nothing() -> None:
    pass


async def test_a_batch_that_is_put_back_while_the_producer_is_discarded_is_no_fault() -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    held = message_accumulator.MessageAccumulator(mock.Mock(), 1_000, 0, 30)
    await held.add_message(PLACE, None, b"x", 1)
    batch = held._batches[PLACE][0]
    # What the task of a request does when the connection is closed under it
    batch.future.add_done_callback(lambda _: held.reenqueue(batch))
    held._pop_batch(PLACE)
    client = types.SimpleNamespace(
        force_metadata_update=lambda: None, _md_update_fut=asyncio.Future[bool](), close=_nothing
    )
    sender = types.SimpleNamespace(sender_task=asyncio.ensure_future(asyncio.sleep(0)))
    producer = types.SimpleNamespace(_sender=sender, client=client, _message_accumulator=held, stop=_nothing)
    await connection.discard(producer)
    await asyncio.sleep(0)
    assert batch.future.cancelled()
    assert faults == []
