"""What a restart goes on with: numbers, rows and the seed, as a memory gives them."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from regstream.event import Event, Position
from tests.engine import world

STREAMS = """
    entities:
      svp:
        count: 3
        key: svpId
        fields:
          svpId: "{{ 'SVP-%03d' | format(index + 1) }}"
          spent: 0
          home: "{{ randint(1, 10**9) }}"
    streams:
      SPEND:
        event: spend
        topic: t.spend
        interval: 20
        batchSize: 3
        priority: HIGH
        with: {svp: "{{ pick('svp') }}"}
        fields: {svpId: "{{ svp.svpId }}", spent: "{{ svp.spent + 1 }}", home: "{{ svp.home }}"}
        update: {svp.spent: "{{ svp.spent + 1 }}"}
      STILL:
        event: still
        topic: t.still
        interval: 3600000
        priority: LOW
        fields: {n: "{{ seq }}"}
"""


class Memory:
    """Holds what it was told; ``deaf`` from some moment on, as if the process had been killed."""

    def __init__(self, fields: Collection[str] = ("spent",)) -> None:
        self.fields = set(fields)
        self.positions: dict[str, Position] = {}
        self.left: dict[str, list[Event]] = {}
        self.states: dict[str, dict[str, Mapping[str, Any]]] = {}
        self.seeds: list[int] = []
        self.kept = 0
        self.deaf = False

    def position(self, stream: str) -> Position | None:
        return self.positions.get(stream)

    def past(self, stream: str) -> list[Event]:
        return self.left.pop(stream, [])

    def seed(self, chosen: int) -> int:
        self.seeds.append(chosen)
        return self.seeds[0]

    def rows(self, entity: str) -> Mapping[str, Mapping[str, Any]]:
        return self.states.get(entity, {})

    def keep(self, changes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        if self.deaf:
            return
        self.kept += 1
        for entity, states in changes.items():
            assert all(set(state) == self.fields for state in states.values())
            self.states.setdefault(entity, {}).update(states)

    def learn(self, one: world.World) -> None:
        """What a store knows when the daemon is gone."""
        for event in one.shown:
            self.positions[event.head.stream] = event.position
            self.left.setdefault(event.head.stream, []).append(event)


@pytest.fixture
def memory() -> Memory:
    return Memory()


def spent(events: list[dict[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for event in events:
        found.setdefault(event["data"]["svpId"], []).append(event["data"]["spent"])
    return found


async def lived(folder: pathlib.Path, memory: Memory, count: int, epochs: str, files: str = STREAMS) -> world.World:
    """One life of a daemon, as long as it takes for so many events."""
    one = world.World(folder, {"streams.yaml": files}, memory=memory, epochs=epochs)
    async with one.running():
        await one.count("SPEND", count)
        one.engine.stop()
        await one.engine.drain()
        await world.until(lambda: len(one.shown) == one.engine.totals.events)
    memory.learn(one)
    return one


async def test_numbers_rows_and_seed_go_on(tmp_path: pathlib.Path, memory: Memory) -> None:
    first = await lived(tmp_path, memory, 30, "A")
    second = await lived(tmp_path, memory, 30, "B")
    both = [*first.events("SPEND"), *second.events("SPEND")]
    assert {event["epoch"] for event in both} == {both[0]["epoch"]}
    assert [event["seq"] for event in both] == list(range(1, len(both) + 1))
    for numbers in spent(both).values():
        assert numbers == list(range(1, len(numbers) + 1))
    homes = {(event["data"]["svpId"], event["data"]["home"]) for event in both}
    assert len(homes) == 3
    # What was shown before is there for those who come later
    assert second.hub.position("SPEND") == Position(both[0]["epoch"], len(both))


async def test_each_batch_is_kept_once_whatever_number_of_its_events_changed_a_row(
    tmp_path: pathlib.Path, memory: Memory
) -> None:
    one = world.World(tmp_path, {"streams.yaml": STREAMS}, memory=memory)
    async with one.running(streaming=False):
        one.engine.start()
        await one.engine.burst("SPEND", 1_000)
    assert 5 <= memory.kept <= 20
    assert sum(state["spent"] for state in memory.states["svp"].values()) >= 1_000


async def test_what_was_not_kept_any_more_is_no_error(tmp_path: pathlib.Path, memory: Memory) -> None:
    await lived(tmp_path, memory, 9, "A")
    memory.deaf = True
    await lived(tmp_path, memory, 9, "B")
    memory.deaf = False
    before = {key: state["spent"] for key, state in memory.states["svp"].items()}
    third = await lived(tmp_path, memory, 9, "C")
    for key, numbers in spent(third.events("SPEND")).items():
        assert numbers[0] == before.get(key, 0) + 1


async def test_the_higher_of_two_positions_is_gone_on_with(tmp_path: pathlib.Path, memory: Memory) -> None:
    memory.positions["SPEND"] = Position("Z", 41)
    one = await lived(tmp_path, memory, 3, "A")
    assert one.events("SPEND")[0]["id"] == "SPEND/Z/42"
    assert one.engine.stream("STILL").epoch.startswith("A")


async def test_a_seed_in_the_files_goes_first(tmp_path: pathlib.Path, memory: Memory) -> None:
    await lived(tmp_path, memory, 3, "A", files="    seed: 11\n" + STREAMS.lstrip("\n"))
    assert memory.seeds == []


async def test_an_entity_that_comes_back_by_a_reload_has_its_state(tmp_path: pathlib.Path, memory: Memory) -> None:
    memory.states = {"svp": {"SVP-002": {"spent": 500}, "SVP-009": {"spent": 1}}}
    alone = "streams:" + STREAMS.partition("STILL:")[2].join(["\n      STILL:", ""])
    one = world.World(tmp_path, {"streams.yaml": alone}, memory=memory)
    async with one.running():
        await one.reload({"streams.yaml": STREAMS})
        events = await one.count("SPEND", 20)
    assert min(spent(events)["SVP-002"]) == 501
    assert all(numbers[0] == 1 for key, numbers in spent(events).items() if key != "SVP-002")


async def test_a_field_that_is_not_changed_by_events_any_more_keeps_what_the_files_say(
    tmp_path: pathlib.Path, memory: Memory
) -> None:
    memory.states = {"svp": {f"SVP-00{n}": {"spent": 5, "home": 1, "gone": 2} for n in (1, 2, 3)}}
    one = await lived(tmp_path, memory, 3, "A")
    event = one.events("SPEND")[0]
    assert event["data"]["spent"] == 6 and event["data"]["home"] != 1
