"""What is counted of the loop's lateness: little of one that is well, and all of one that is held up."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from regstream.server import process

HELD_UP = 0.3


async def test_a_loop_that_is_held_up_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SECONDS", 0.02)
    one = process.LoopLag()
    beating = asyncio.create_task(one.beat())
    async with asyncio.timeout(20):
        while sum(one.lag.counts) < 3:
            await asyncio.sleep(0.01)
        seen, before = sum(one.lag.counts), one.lag.seconds
        time.sleep(HELD_UP)
        while sum(one.lag.counts) == seen:
            await asyncio.sleep(0)
    # It was asked for within the hold-up, at the latest a beat after its beginning
    assert one.lag.seconds - before >= HELD_UP - 0.03
    beating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await beating
