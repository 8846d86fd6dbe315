"""How much is under way at once, and when a connection counts as lost: nothing has moved, whatever the line."""

from __future__ import annotations

import asyncio
import time

import pytest

from regstream.broker.kafka import delivery
from regstream.broker.kafka import errors as kafka_errors


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_errors, "STALL_SECONDS", 0.1)
    monkeypatch.setattr(delivery, "SLOWEST", 1_000_000)


async def stall(one: delivery.SendWindow, size: int = 1_000) -> float:
    """Send something to which no answer comes; gives how long that was waited for."""
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with one.under_way(size):
            await asyncio.sleep(20)
    return time.monotonic() - began


async def test_what_nobody_answers_is_lost() -> None:
    assert await stall(delivery.SendWindow()) >= 0.1


async def test_what_moves_puts_it_off_for_all_that_is_under_way() -> None:
    one = delivery.SendWindow()
    waiting = asyncio.create_task(stall(one))
    async with one.under_way(1_000):
        for _ in range(8):
            await asyncio.sleep(0.05)
            one.moved()
    assert await waiting >= 0.5


async def test_once_lost_nothing_more_is_waited_for() -> None:
    one = delivery.SendWindow()
    one.size = 1_000
    waiting = [asyncio.create_task(stall(one)) for _ in range(50)]
    # Each after the other, were they to wait in turn
    assert max(await asyncio.gather(*waiting)) < 2.0


async def test_it_is_put_off_as_long_as_the_cluster_throttles() -> None:
    one = delivery.SendWindow()
    began = time.monotonic()
    async with one.under_way(1_000):
        one.answered(one.now(), throttled=0.4)
    sending = asyncio.create_task(one.unthrottled())
    # What has passed meanwhile is not given once more
    assert await stall(one) + time.monotonic() - began >= 0.5
    # It waited for its turn, and when that came nobody wanted it any more
    await sending
    assert time.monotonic() - began >= 0.4


async def test_what_is_closed_meanwhile_is_not_sent() -> None:
    one = delivery.SendWindow()
    async with one.under_way(1_000):
        one.answered(one.now(), throttled=0.1)
    sending = asyncio.create_task(one.unthrottled())
    await asyncio.sleep(0)
    one.close()
    assert not await sending


async def test_a_slow_line_is_given_time_for_what_is_under_way() -> None:
    one = delivery.SendWindow()
    async with one.under_way(1_000):
        await asyncio.sleep(0.05)
        one.answered(one.now() - 0.05, throttled=0)
    # Ten times as much takes ten times as long
    assert await stall(one, 10_000) >= 0.5


async def test_it_grows_while_answers_are_quick_and_it_is_used() -> None:
    one = delivery.SendWindow()
    async with one.under_way(1_000):
        one.answered(one.now(), 0)
    assert one.size == delivery.FIRST
    async with one.under_way(delivery.FIRST // 2):
        one.answered(one.now(), 0)
    assert one.size == 2 * delivery.FIRST


@pytest.mark.parametrize(("seconds", "throttled"), [(9.0, 0.0), (0.1, 9.0)])
async def test_it_shrinks_when_they_are_late(seconds: float, throttled: float) -> None:
    one = delivery.SendWindow()
    async with one.under_way(8_000):
        one.answered(one.now() - seconds, throttled)
    assert one.size == 4_000


async def test_the_latency_of_a_long_line_does_not_shrink_it() -> None:
    one = delivery.SendWindow()
    for _ in range(5):
        async with one.under_way(delivery.FIRST):
            one.answered(one.now() - 0.7, 0)
    assert one.size >= delivery.FIRST


async def test_what_is_larger_goes_alone_and_the_others_after_it() -> None:
    one = delivery.SendWindow()
    one.size = 1_000
    order: list[str] = []

    async def send(name: str, size: int) -> None:
        async with one.under_way(size):
            order.append(name)
            await asyncio.sleep(0.01)
            order.append(name)

    await asyncio.gather(send("large", 5_000), send("small", 10))
    assert order == ["large", "large", "small", "small"]
