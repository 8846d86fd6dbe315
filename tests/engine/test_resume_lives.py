"""Rows that come and go after a restart: where they were, with what was told of them told."""

from __future__ import annotations

import collections
import datetime
import itertools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import pytest

from regstream.generator import lifecycle, stream
from tests.engine.test_memory import Memory
from tests.engine.world import World, until
from tests.generate import support
from tests.generate.test_lives import DAY, bank, living

ORDER = ["OPEN", "REVIEW", "CLOSED"]
STATES = {
    "OPEN": {"lasts": {"mean": "4s", "spread": "80%"}, "then": {"REVIEW": 1}},
    "REVIEW": {"lasts": {"between": ["1s", "4s"]}, "then": {"CLOSED": 1}},
    "CLOSED": {"lasts": "1s"},
}
FIELDS = {"id": "F-{{ index }}", "begun": "{{ now }}", "n": "{{ randint(1, 10 ** 9) }}", "seen": 0}
TOLD = {
    "follow": "finding",
    "interval": "1s",
    "fields": {"id": "{{ row.id }}", "state": "{{ state }}", "was": "{{ was }}", "n": "{{ row.n }}"},
    "update": {"row.seen": "{{ row.seen + 1 }}"},
}
PICKING = {
    "interval": "1s",
    "with": {"f": "{{ pick('finding') }}"},
    "fields": {
        "id": "{{ f.id }}",
        "n": "{{ f.n }}",
        "age": "{{ (now - f.since).total_seconds() }}",
        "seen": "{{ f.seen }}",
    },
}


class Json(Memory):
    """A memory that gives back what JSON makes of it."""

    def keep(self, changes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        if not self.deaf:
            for entity, states in json.loads(json.dumps(changes, default=str)).items():
                self.states.setdefault(entity, {}).update(states)


def files(count: int = 30, **more: Any) -> dict[str, str]:
    entity = {"count": count, "key": "id", "fields": FIELDS, "states": STATES, **more}
    declared = {
        "profiles": {"test": {"speed": 20}},
        "entities": {"finding": entity},
        "streams": {"TOLD": TOLD, "PICKING": PICKING},
    }
    return {"streams.yaml": json.dumps(declared)}


async def lived(folder: pathlib.Path, memory: Memory, epochs: str, events: int, kill: bool, **more: Any) -> list[Any]:
    """What a daemon tells in its life, which ends once it has told so much."""
    one = World(folder, files(**more), memory=memory, epochs=epochs)
    async with one.running():
        await one.count("TOLD", events)
        if kill:
            # What it does from here on nobody hears of
            memory.deaf = True
            found = list(one.shown)
        else:
            one.engine.stop()
            await one.engine.drain()
            await until(lambda: len(one.shown) == one.engine.totals.events)
            found = list(one.shown)
    one.shown = found
    memory.learn(one)
    memory.deaf = False
    return [json.loads(event.value) for event in found]


def moment(event: Any) -> datetime.datetime:
    return datetime.datetime.fromisoformat(event["time"])


def told(events: list[Any]) -> dict[str, list[Any]]:
    by_row: dict[str, list[Any]] = collections.defaultdict(list)
    for event in events:
        if event["subject"] == "TOLD":
            by_row[event["data"]["id"]].append(event)
    return by_row


@pytest.mark.parametrize("kill", [False, True], ids=["stop", "kill"])
async def test_no_row_opens_twice_and_none_forgets_where_it_was(tmp_path: pathlib.Path, kill: bool) -> None:
    memory, events = Json(), []
    for epochs in "ABC":
        events += await lived(tmp_path, memory, epochs, 120, kill)
    by_row = told(events)
    assert len(by_row) > 60
    gaps = 0
    for rows in by_row.values():
        states = [ORDER.index(event["data"]["state"]) for event in rows]
        assert states == sorted(set(states)), rows
        gaps += states != list(range(states[0], states[0] + len(states)))
        assert len({event["data"]["n"] for event in rows}) == 1
        assert all(
            event["data"]["was"] == (ORDER[place - 1] if place else None)
            for event, place in zip(rows, states, strict=True)
        )
    # Killed, it may have noted what it had not said yet
    assert gaps <= (4 if kill else 0)
    # A row is what it was: its time too, and what events changed in it
    picked = [event["data"] for event in events if event["subject"] == "PICKING"]
    assert {one["n"] for one in picked if one["id"] in by_row} <= {rows[0]["data"]["n"] for rows in by_row.values()}
    assert all(-1 < one["age"] < 30 for one in picked)


async def test_a_row_stays_as_long_as_it_would_have(tmp_path: pathlib.Path) -> None:
    memory = Json()
    events = [event for epochs in "AB" for event in await lived(tmp_path, memory, epochs, 150, kill=False)]
    workshop = stream.GenerationContext(World(tmp_path, files()).load(), memory.seeds[0], support.IDENTITY)
    workshop.fill(0)
    path, checked = workshop.populations["finding"].path, 0
    for name, rows in told(events).items():
        for first, second in itertools.pairwise(rows):
            step = ORDER.index(first["data"]["state"])
            seconds, _ = path.stay(int(name[2:]) + 1, step, first["data"]["state"])
            between = (moment(second) - moment(first)).total_seconds()
            assert between == pytest.approx(seconds, abs=0.002)
            checked += 1
    assert checked > 60


async def test_what_happened_while_nobody_was_there_is_told(tmp_path: pathlib.Path) -> None:
    memory = Json()
    first = await lived(tmp_path, memory, "A", 60, kill=False)
    one = World(tmp_path, files(), memory=memory, epochs="B")
    one.ahead = 1.0
    async with one.running():
        await one.count("TOLD", 60)
    by_row = told([*first, *(json.loads(event.value) for event in one.shown)])
    for rows in by_row.values():
        states = [ORDER.index(event["data"]["state"]) for event in rows]
        assert states == list(range(states[0], states[0] + len(states)))


async def test_rows_of_a_year_ago_begin_anew_with_numbers_of_their_own(tmp_path: pathlib.Path, caplog: Any) -> None:
    memory = Json()
    first = await lived(tmp_path, memory, "A", 100, kill=False)
    one = World(tmp_path, files(), memory=memory, epochs="B")
    one.ahead = 365 * DAY
    async with one.running():
        await one.count("TOLD", 60)
        later = [json.loads(event.value) for event in one.shown]
    assert "too many to make up for" in caplog.text
    assert not told(first).keys() & told(later).keys()


@pytest.mark.parametrize("count", [20, 45])
async def test_another_number_of_rows_has_no_number_twice(tmp_path: pathlib.Path, count: int) -> None:
    memory, events = Json(), []
    for epochs, size in (("A", 30), ("B", count), ("C", count)):
        events += await lived(tmp_path, memory, epochs, 120, kill=False, count=size)
    for rows in told(events).values():
        states = [event["data"]["state"] for event in rows]
        assert len(states) == len(set(states)), rows


async def test_what_makes_no_sense_is_begun_anew_and_said(tmp_path: pathlib.Path, caplog: Any) -> None:
    memory = Json()
    first = await lived(tmp_path, memory, "A", 60, kill=False)
    memory.states["/lives/finding"]["3"] = {"number": None}
    second = await lived(tmp_path, memory, "B", 60, kill=False)
    assert "rows of finding cannot go on where they were" in caplog.text
    assert not told(first).keys() & told(second).keys()


def remembered(workshop: stream.GenerationContext) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    while workshop.has_news:
        for part, states in workshop.news().items():
            found.setdefault(part, {}).update(json.loads(json.dumps(states, default=str)))
    return found


def again(workshop: stream.GenerationContext, saved: dict[str, Any], now: float) -> stream.GenerationContext:
    made = stream.GenerationContext(workshop.catalog, 7, support.IDENTITY)
    made.fill(now, None, frozenset(), lambda name: saved.get(name, {}))
    return made


def test_all_goes_on_to_the_row_and_the_moment() -> None:
    """Days later it is as if there had been no restart, rows that others refer to and that ended lately included."""
    workshop = bank()
    workshop.pools.lives["finding"].advance(support.NOW + 40 * DAY)
    saved = remembered(workshop)
    later = again(workshop, saved, support.NOW + 40 * DAY)
    for name in ("project", "finding"):
        assert list(later.pools[name]) == list(workshop.pools[name])
        assert list(later.populations[name].log)[-200:] == list(workshop.populations[name].log)[-200:]
        assert later.populations[name].count == workshop.populations[name].count
    ended = next(one.row["id"] for one in reversed(workshop.populations["finding"].log) if one.state == "CLOSED")
    assert later.pools["finding"].found(ended) == workshop.pools["finding"].found(ended)
    for one in (workshop, later):
        one.pools.lives["finding"].advance(support.NOW + 60 * DAY)
    for name in ("project", "finding"):
        assert list(later.pools[name]) == list(workshop.pools[name])
        news = workshop.populations[name].count - later.populations[name].count
        assert news == 0


def test_a_large_population_is_remembered_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "LEAST_GONE", 50)
    rows = living(count=2_500)
    workshop = support.workshop(support.stream_spec({"x": 1}), entities=(rows,))
    sizes = []
    while workshop.has_news:
        sizes.append(len(workshop.news()["/lives/finding"]))
    assert sizes == [1_001, 1_001, 501]
    assert not workshop.news()


def test_nothing_is_told_twice_by_a_stream_that_follows() -> None:
    workshop = bank()
    source = stream.Stream(workshop.catalog.streams["TOLD"], workshop, "epoch")
    [tick] = source.ticks([(support.NOW + 2 * DAY, 1, None)])
    # Half of it was made when it was killed
    source.has_told(tick.events // 2)
    saved = remembered(workshop)
    later = again(workshop, saved, support.NOW + 2 * DAY)
    [rest] = stream.Stream(workshop.catalog.streams["TOLD"], later, "epoch").ticks([(support.NOW + 2 * DAY, 1, None)])
    assert tick.passed is not None and rest.passed is not None
    half = tick.events - tick.events // 2
    assert [(one.at, one.row["id"], one.state) for one in rest.passed] == [
        (one.at, one.row["id"], one.state) for one in tick.passed[half:]
    ]


async def test_a_reload_that_changes_the_entity_opens_no_row_twice(tmp_path: pathlib.Path) -> None:
    memory = Json()
    one = World(tmp_path, files(), memory=memory)
    async with one.running():
        await one.count("TOLD", 90)
        for number in (1, 2):
            await one.reload(files(fields={**FIELDS, "more": number}))
            await one.count("TOLD", 90 * (number + 1))
        one.engine.stop()
        await one.engine.drain()
        await until(lambda: len(one.shown) == one.engine.totals.events)
    memory.learn(one)
    more = await lived(tmp_path, memory, "B", 60, kill=False, fields={**FIELDS, "more": 2})
    for rows in told([*(json.loads(event.value) for event in one.shown), *more]).values():
        states = [event["data"]["state"] for event in rows]
        assert len(states) == len(set(states)), rows
