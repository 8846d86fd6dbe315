"""Streams that ask for more than can be made, on a virtual clock: the most urgent lose nothing."""

from __future__ import annotations

import asyncio
import pathlib
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from regstream import spec
from tests import profiles
from tests.engine.world import World, file, stream

PHASES = [phase for phase in Phase if phase is not Phase.shrink]
"""Smaller examples say no more here, and take as long."""
EVENT = 0.001
"""Seconds that an event takes, of the machine or of the broker."""
BEGIN = 1_700_000_000.0


class Busy(World):
    """Time goes on by work alone: ``slow`` is the ``machine``, which does nothing else meanwhile, or the ``broker``."""

    def __init__(self, folder: pathlib.Path, files: dict[str, str], slow: str) -> None:
        self.at = BEGIN
        super().__init__(folder, files)
        self._slow, self._turn = slow, asyncio.Lock()
        self.engine._clock.run = self._run  # type: ignore[method-assign]
        self.made: list[tuple[str, float]] = []
        self.broker.publish = self._publish  # type: ignore[method-assign]
        # Rests are of the machine's time, which has no part in this
        self.engine._works._exert = lambda began: None  # type: ignore[method-assign]

    def now(self) -> float:
        return self.at

    async def _publish(self, events: Any) -> None:
        if self._slow == "machine":
            self.at += EVENT * len(events)
        else:
            async with self._turn:
                end = self.at + EVENT * len(events)
                while self.at < end:
                    await asyncio.sleep(0)
        self.made += [(event.head.stream, self.at) for event in events]

    async def _run(self) -> None:
        clock, lanes = self.engine._clock, self.engine._floor
        while True:
            clock.turn()
            await asyncio.sleep(0)
            if not self.engine.waiting and not any(lane.serving for lane in lanes.all()):
                self.at = max(self.at, min(filter(None, map(lanes.next, lanes.all()))))
            elif self._slow == "broker":
                self.at += EVENT

    async def until(self, seconds: float) -> None:
        async with self.running():
            while self.at < BEGIN + seconds:
                await asyncio.sleep(0)

    def lost(self) -> dict[str, float]:
        """The share of their ticks that streams missed."""
        return {one.name: one.missed / max(1, one.missed + one.ticks) for one in self.engine.streams()}

    async def missed(self, seconds: float) -> tuple[dict[str, int], set[str]]:
        """How many ticks streams miss once each of them, or as many as can be, was served; and who is served then."""
        async with self.running():
            while self.at < BEGIN + seconds / 2:
                await asyncio.sleep(0)
            before = {one.name: one.missed for one in self.engine.streams()}
            self.made.clear()
            while self.at < BEGIN + seconds:
                await asyncio.sleep(0)
            missed = {one.name: one.missed - before[one.name] for one in self.engine.streams()}
            return missed, {name for name, _ in self.made}


@pytest.mark.parametrize("slow", ["machine", "broker"])
@pytest.mark.parametrize("count", [2, 4, 9])
async def test_critical_loses_nothing_at_half_more_than_can_be_made(
    tmp_path: pathlib.Path, count: int, slow: str
) -> None:
    ranks = [*spec.Priority, *[spec.Priority.LOW] * count][:count]
    size = 30 // count
    declared = {f"S{n}": stream("20ms", batch_size=size, priority=rank.value) for n, rank in enumerate(ranks)}
    world = Busy(tmp_path, {"streams.yaml": file(**declared)}, slow)
    await world.until(4)
    lost = world.lost()
    assert lost["S0"] == 0
    # Each rank before the next: what cannot be made is all of the last
    assert not any(lost[f"S{n}"] for n in range(min(count, 3)) if size * (n + 1) < 18)
    assert sum(lost.values()) / count > 0.2
    numbers = [position for name, position in world.made if name == "S0"]
    assert numbers == sorted(numbers)
    assert len(numbers) == pytest.approx(4 * 50 * size, rel=0.03)


@settings(
    max_examples=profiles.examples(12), phases=PHASES, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    slow=st.sampled_from(["machine", "broker"]),
    load=st.floats(0.5, 3),
    streams=st.lists(
        st.tuples(st.sampled_from(list(spec.Priority)), st.integers(1, 9), st.sampled_from([3, 10, 40, 250])),
        min_size=2,
        max_size=9,
    ),
    seed=st.integers(0, 99),
)
def test_no_rank_loses_for_one_that_is_less_urgent(
    tmp_path_factory: pytest.TempPathFactory,
    slow: str,
    load: float,
    streams: list[tuple[spec.Priority, int, int]],
    seed: int,
) -> None:
    chance = random.Random(seed)
    total = sum(share for _, share, _ in streams)
    declared: dict[str, str] = {}
    demand = dict.fromkeys(spec.Priority, 0.0)
    for number, (rank, share, size) in enumerate(streams):
        interval = max(2, round(size * total / share / load))
        demand[rank] += size / interval
        declared[f"S{number}"] = stream(f"{interval}ms", batch_size=size, priority=rank.value)
    order = list(declared)
    chance.shuffle(order)
    files = {"streams.yaml": file(**{name: declared[name] for name in order})}

    missed, made = asyncio.run(Busy(tmp_path_factory.mktemp("busy"), files, slow).missed(4))
    asked = 0.0
    for rank in spec.Priority:
        asked += demand[rank]
        if asked < 0.9:
            # Some of it waits for its turn at times; none is left out once anything less urgent was made
            alike = {name: missed[name] for number, name in enumerate(declared) if streams[number][0] is rank}
            # A broker takes a moment more for each batch: of small ones it may take less than it is asked for
            less = any(streams[number][0].rank > rank.rank for number, name in enumerate(declared) if name in made)
            assert not less or not any(alike.values()), (rank, alike)
