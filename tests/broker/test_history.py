"""How far back topics are looked at for who comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from regstream import broker
from regstream.broker import recovery
from regstream.event import Event, Position
from tests.store import making


class Topic:
    """A topic of one partition, of which the newest ``count`` records can be read."""

    def __init__(self, count: int) -> None:
        self.records = making.records(making.events(count))
        self.looks: list[int] = []

    async def look_back(
        self, topics: set[str], count: int, wanted: Callable[[Event], bool]
    ) -> tuple[list[broker.Record], bool]:
        self.looks.append(count)
        return [one for one in self.records[-count:] if wanted(one.event)], count >= len(self.records)


@pytest.mark.parametrize("missed", [500, 10_000, 20_000, 45_000, recovery.MOST - 1])
async def test_what_is_promised_is_found_below_what_the_rings_hold(missed: int) -> None:
    held, last = 6_000, 100_000
    topic: Any = Topic(last)
    after = Position(making.EPOCH, last - held - missed)
    found = await recovery.TopicHistory().ask(topic, "t.one", "ONE", after, last - held + 1)
    assert found is not None and [one.seq for one in found[:missed]] == list(range(after.seq + 1, last - held + 1))
    assert max(topic.looks) <= recovery.DEEPEST_FIND


async def test_what_lies_too_deep_is_looked_for_once_at_each_depth() -> None:
    topic: Any = Topic(100_000)
    after = Position(making.EPOCH, 10_000)
    assert await recovery.TopicHistory().ask(topic, "t.one", "ONE", after, 20_000) is None
    assert topic.looks == sorted(set(topic.looks)) and topic.looks[-1] == recovery.DEEPEST_FIND
