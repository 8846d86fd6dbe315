"""Logical time: an event is of its tick's point, and streams that share rows that change are served in its order."""

from __future__ import annotations

import asyncio
import datetime
import json
from typing import Any

from tests.engine.world import World, file, stream, until

ROWS = {"accounts": {"count": 1, "key": "id", "fields": {"id": 1, "balance": 0}}}


def sharing(interval: str = "1h", **keys: Any) -> dict[str, Any]:
    return stream(
        interval,
        **{
            "with": {"a": "{{ pick('accounts') }}"},
            "fields": {"before": "{{ a.balance }}"},
            "update": {"a.balance": "{{ a.balance + 1 }}"},
            **keys,
        },
    )


def moment(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


async def test_an_event_is_of_the_point_at_which_it_was_due(tmp_path):
    world = World(tmp_path, {"streams.yaml": file(A=stream(batch_size=450))})
    async with world.running(streaming=False):
        due = round(world.now() - 77, 3)
        world.engine._fire("A", due, 0)
        events = await world.count("A", 450)
        assert {one["time"] for one in events} == {events[0]["time"]}
        assert abs(moment(events[0]["time"]) - due) < 0.0015
        # What is asked for now happens now
        world.engine.start()
        before = world.now()
        await world.engine.burst("A", 1)
        assert moment((await world.count("A", 451))[-1]["time"]) > before - 0.002


async def test_an_alert_is_of_the_time_of_its_event(tmp_path):
    alert = {"when": "{{ true }}", "severity": "INFO", "message": "it is {{ n }}"}
    world = World(tmp_path, {"streams.yaml": file(A=stream(alert=alert, batch_size=3))})
    async with world.running(streaming=False):
        world.engine._fire("A", world.now() - 5, 0)
        events, alerts = await world.count("A", 3), await world.count("ALERTS", 3)
    assert {one["time"] for one in alerts} == {events[0]["time"]}


async def test_sharing_streams_go_by_time_and_not_by_priority(tmp_path):
    declared = {
        "LATE": sharing(priority="CRITICAL"),
        "EARLY": sharing(priority="LOW", batch_size=500),
        "NAMESAKE": sharing(priority="HIGH"),
        "ALONE": stream(),
    }
    world = World(tmp_path, {"streams.yaml": file(ROWS, **declared)})
    async with world.running(streaming=False):
        now = world.now()
        for name, due in (("LATE", now), ("NAMESAKE", now - 2), ("EARLY", now - 2), ("ALONE", now)):
            world.engine._fire(name, due, 0)
        await until(lambda: len(world.shown) == 503)
    shared = [one.head.stream for one in world.shown if one.head.stream != "ALONE"]
    # All slices of a tick before the next; what is due at the same time goes by its name
    assert shared == ["EARLY"] * 500 + ["NAMESAKE", "LATE"]
    assert [one["data"]["before"] for one in world.events("LATE")] == [501]
    # The group is as urgent as the most urgent of those that wait in it
    assert world.shown[0].head.stream == "EARLY"


async def test_one_worker_at_a_time_serves_them_whatever_the_broker_does(tmp_path):
    declared = {f"S{number}": sharing("5ms", batch_size=40) for number in range(5)}
    world = World(tmp_path, {"streams.yaml": file(ROWS, **declared)}, limit=100)
    async with world.running():
        await until(lambda: len(world.shown) > 2_000)
        world.flowing.clear()
        await asyncio.sleep(0.05)
        world.flowing.set()
        await asyncio.gather(*(world.engine.burst(name, 300) for name in declared))
        await until(lambda: len(world.shown) > 6_000)
    world.whole()
    # They were published in the order in which the row was changed
    found = [one["data"]["before"] for event in world.shown for one in (json.loads(event.value),)]
    assert found == list(range(len(found)))


async def test_a_reload_puts_them_together_and_apart(tmp_path):
    one, two = sharing("4ms", batch_size=30), sharing("3ms", batch_size=30)
    world = World(tmp_path, {"streams.yaml": file(ROWS, A=one, B=stream("3ms"))}, limit=200)
    async with world.running():
        await until(lambda: len(world.shown) > 500)
        for _ in range(5):
            seen = len(world.shown)
            await world.reload({"streams.yaml": file(ROWS, A=one, B=two)})
            assert world.engine._floor.find("A").unit is world.engine._floor.find("B").unit
            await until(lambda seen=seen: len(world.shown) > seen + 500)
            await world.reload({"streams.yaml": file(ROWS, A=one, B=stream("3ms"))})
            assert world.engine._floor.find("A").unit is not world.engine._floor.find("B").unit
            await until(lambda seen=seen: len(world.shown) > seen + 1_000)
        assert {one.state for one in world.engine.streams()} == {"running"}
        await world.reload({"streams.yaml": file(ROWS, B=stream("3ms"))})
        seen = len(world.seqs("B"))
        await world.count("B", seen + 20)
    world.whole()
