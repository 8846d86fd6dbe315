"""Ticks and bursts: who goes first, what waits, what is missed, what is numbered."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time

import pytest

from regstream import errors, spec
from regstream.engine import active_stream, status
from tests.engine.world import World, file, stream, until


def runs_of(names: list[str]) -> list[str]:
    return [name for name, _ in itertools.groupby(names)]


async def test_events_are_whole_cloud_events_with_rising_numbers(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=stream("5ms", batch_size=3))}).running() as world:
        events = await world.count("A", 30)
    assert [one["data"]["n"] for one in events] == list(range(1, len(events) + 1))
    assert {(one["subject"], one["type"], one["source"], one["priority"]) for one in events} == {
        ("A", "a", "/test", "NORMAL")
    }
    world.whole()


async def test_among_due_ticks_the_most_urgent_goes_first(tmp_path):
    declared = {name: stream(priority=name) for name in ("LOW", "NORMAL", "CRITICAL", "HIGH")}
    world = World(tmp_path, {"streams.yaml": file(**declared)})
    async with world.running(streaming=False):
        for name in declared:
            world.engine._fire(name, world.now(), 0)
        await until(lambda: len(world.shown) == 4)
    assert [one.head.stream for one in world.shown] == ["CRITICAL", "HIGH", "NORMAL", "LOW"]


async def test_equally_urgent_ticks_go_in_the_order_in_which_they_came_due(tmp_path):
    names = [f"S{number}" for number in range(20)]
    world = World(tmp_path, {"streams.yaml": file(**{name: stream() for name in names})})
    async with world.running(streaming=False):
        for name in reversed(names):
            world.engine._fire(name, world.now(), 0)
        await until(lambda: len(world.shown) == 20)
    assert [one.head.stream for one in world.shown] == names[::-1]


async def test_one_tick_waits_and_the_others_are_missed_and_counted(tmp_path):
    world = World(tmp_path, {"streams.yaml": file(A=stream("2ms", batch_size=10))}, limit=50)
    async with world.running():
        await world.count("A", 10)
        world.flowing.clear()
        made = -1
        while made != (one := world.engine.stream("A")).seq:
            made = one.seq
            await until(lambda missed=one.missed: world.engine.stream("A").missed > missed + 5)
        # All that the broker takes, and the batches that wait for room in it: nothing more is made
        assert made <= 200
        world.flowing.set()
        await world.count("A", made + 20)
        status = world.engine.stream("A")
        assert world.engine.totals.missed == status.missed
        assert status.late_ms is not None and status.ticks * 10 >= len(world.seqs("A"))
    world.whole()


async def test_what_the_clock_skipped_is_missed_too(tmp_path):
    world = World(tmp_path, {"streams.yaml": file(A=stream())})
    async with world.running(streaming=False):
        world.engine._fire("A", world.now() - 3, 2)
        world.engine._fire("A", world.now(), 0)
        assert world.engine.stream("A").missed == 3
        await until(lambda: world.engine.stream("A").ticks == 1)
        assert world.engine.stream("A").late_ms >= 3000


async def test_a_long_burst_lets_other_streams_and_the_loop_go_on(tmp_path):
    files = {"streams.yaml": file(LONG=stream(), BESIDE=stream("3ms"), OTHER=stream())}
    async with World(tmp_path, files).running() as world:
        turns = itertools.count()

        async def turn() -> None:
            while next(turns) is not None:
                await asyncio.sleep(0)

        turning = asyncio.create_task(turn())
        begun = next(turns)
        spans = await asyncio.gather(world.engine.burst("LONG", 10_000), world.engine.burst("OTHER", 2_000))
        assert next(turns) - begun > 8
        turning.cancel()
        assert spans == [(1, 10_000), (1, 2_000)]
        await world.count("LONG", 10_000)
    order = runs_of([one.head.stream for one in world.shown])
    assert order.count("LONG") > 10
    assert world.seqs("OTHER")[-1] == 2_000
    assert any(name == "BESIDE" for name in order[1:-1])
    world.whole()


async def test_slow_events_leave_the_loop_to_others_between_them(tmp_path):
    slow = {"n": "{{ seq }}", "x": "{% for i in range(9000) %}{% set r = i * i %}{% endfor %}{{ uuid() }}"}
    files = {"streams.yaml": file(**{name: stream(fields=slow) for name in "ABCD"})}
    async with World(tmp_path, files).running() as world:
        longest, before = 0.0, time.thread_time()

        async def turn() -> None:
            nonlocal longest, before
            while True:
                await asyncio.sleep(0)
                longest, before = max(longest, time.thread_time() - before), time.thread_time()

        turning = asyncio.create_task(turn())
        spans = await asyncio.gather(*(world.engine.burst(name, 120) for name in "ABCD"))
        turning.cancel()
        assert spans == [(1, 120)] * 4
        assert longest < 0.2
        await asyncio.gather(*(world.count(name, 120) for name in "ABCD"))
        assert all(world.seqs(name) == [*range(1, 121)] for name in "ABCD")


async def test_bursts_beside_ticks_stay_in_one_order_without_a_gap(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=stream("1ms", batch_size=7))}).running() as world:
        spans = await asyncio.gather(*(world.engine.burst("A", count) for count in (1, 450, 3, 1000, 20)))
        assert [last - first + 1 for first, last in spans] >= [1, 450, 3, 1000, 20]
        await world.count("A", max(last for _, last in spans) + 50)
    world.whole()


async def test_fields_of_a_burst_stand_in_and_index_counts_over_slices(tmp_path):
    files = {"streams.yaml": file(A=stream(fields={"n": "{{ seq }}", "i": "{{ index }}", "s": 1}))}
    async with World(tmp_path, files).running() as world:
        await world.engine.burst("A", 1)
        await world.engine.burst("A", 500, {"s": "{{ 40 + 2 }}"})
        data = [one["data"] for one in await world.count("A", 501)]
    assert data[0]["s"] == 1
    assert [one["i"] for one in data[1:]] == list(range(500))
    assert {one["s"] for one in data[1:]} == {42}


@pytest.mark.parametrize("rest", ["pause", "stop"])
async def test_a_stream_that_rests_still_bursts(tmp_path, rest):
    async with World(tmp_path, {"streams.yaml": file(A=stream("2ms"))}).running() as world:
        await world.count("A", 1)
        world.engine.pause("A") if rest == "pause" else world.engine.stop(["A"])
        seq = world.engine.stream("A").seq
        assert await world.engine.burst("A", 5) == (seq + 1, seq + 5)
        assert world.engine.stream("A").state == ("paused" if rest == "pause" else "stopped")


async def test_a_burst_of_nobody_says_what_was_meant(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(BUDGET=stream())}).running() as world:
        with pytest.raises(errors.UnknownName, match="did you mean BUDGET"):
            await world.engine.burst("BUDGETS", 1)


async def test_a_burst_while_nothing_streams_is_a_conflict(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=stream())}).running(streaming=False) as world:
        with pytest.raises(errors.Conflict, match="start it first"):
            await world.engine.burst("A", 1)


async def test_too_many_bursts_are_refused_and_those_that_wait_are_made(tmp_path):
    world = World(tmp_path, {"streams.yaml": file(A=stream())}, limit=10)
    async with world.running():
        world.flowing.clear()
        waiting = [asyncio.create_task(world.engine.burst("A", 10)) for _ in range(active_stream.MAX_JOBS)]
        await asyncio.sleep(0)
        with pytest.raises(errors.Overloaded, match="the queue of bursts of A is full"):
            await world.engine.burst("A", 1)
        world.flowing.set()
        spans = await asyncio.gather(*waiting)
        assert spans == [(first, first + 9) for first in range(1, 10 * active_stream.MAX_JOBS, 10)]
        assert await world.engine.burst("A", 1) == (641, 641)


async def test_a_caller_that_goes_away_leaves_nothing_behind(tmp_path):
    world = World(tmp_path, {"streams.yaml": file(A=stream())}, limit=10)
    async with world.running():
        world.flowing.clear()
        waiting = [asyncio.create_task(world.engine.burst("A", 1000)) for _ in range(active_stream.MAX_JOBS)]
        await until(lambda: world.engine.stream("A").seq >= 10)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        world.flowing.set()
        first, last = await world.engine.burst("A", 3)
        # Whose caller has gone before its first event was made is not made at all
        assert last - first == 2 and last <= 1003
        assert not world.engine._floor.find("A").jobs
        await world.count("A", last)
    world.whole()


async def test_stop_ends_bursts_with_what_they_have_or_a_conflict(tmp_path):
    world = World(tmp_path, {"streams.yaml": file(A=stream())}, limit=10)
    async with world.running():
        world.flowing.clear()
        begun, waiting = (asyncio.create_task(world.engine.burst("A", 10_000)) for _ in range(2))
        await until(lambda: world.engine.stream("A").seq)
        world.engine.stop()
        with pytest.raises(errors.Conflict, match="streaming was stopped"):
            await waiting
        assert not begun.done()
        world.flowing.set()
        first, last = await begun
        assert (first, last) == (1, world.engine.stream("A").seq)
        assert last < 1000
        await world.count("A", last)
        world.engine.start()
        assert await world.engine.burst("A", 1) == (last + 1, last + 1)


async def test_a_broker_that_refuses_loses_events_and_says_so(tmp_path, caplog):
    async with World(tmp_path, {"streams.yaml": file(A=stream("1ms"))}).running() as world:
        await world.count("A", 1)
        await world.broker.close()
        await until(lambda: world.engine.totals.lost >= 12)
        world.tasks.pop()
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert 1 <= len(said) < 12
    assert said[0] == "1 events of A were lost: the broker is closed"


# Faults

# Not in the first events, which are tried when the files are read
FAILING = {"a": "{{ 1 // (1 if seq < 300 else 0) }}"}


async def test_a_failing_stream_stops_no_other_and_is_logged_once_per_cause(tmp_path, caplog):
    caplog.set_level(logging.INFO, "regstream.engine")
    files = {"streams.yaml": file(BAD=stream("1ms", fields=FAILING), GOOD=stream("1ms"))}
    async with World(tmp_path, files).running() as world:
        await until(lambda: world.engine.stream("BAD").errors >= 12)
        await world.count("GOOD", 20)
        bad = world.engine.stream("BAD")
        assert (bad.state, bad.seq, world.engine.stream("GOOD").state) == ("failing", 299, "running")
        assert "ZeroDivisionError" in bad.error and "fields.a" in bad.error
        assert world.engine.totals.errors == world.engine.stream("BAD").errors
        with pytest.raises(errors.RenderError, match="ZeroDivisionError"):
            await world.engine.burst("BAD", 2)
    said = [record.getMessage() for record in caplog.records if "BAD" in record.getMessage()]
    assert [one.rpartition(" (")[2] for one in said][:2] == ["1 time)", "10 times)"]
    assert len(said) < 5


async def test_a_stream_becomes_well_again(tmp_path, caplog):
    caplog.set_level(logging.INFO, "regstream.engine")
    async with World(tmp_path, {"streams.yaml": file(A=stream("1ms", fields=FAILING))}).running() as world:
        await until(lambda: world.engine.stream("A").state == "failing")
        await world.reload({"streams.yaml": file(A=stream("1ms"))})
        assert world.engine.stream("A").state == "running"
        await world.count("A", 3)
        first, last = await world.engine.burst("A", 10)
        with pytest.raises(errors.RenderError):
            await world.engine.burst("A", 1, {"a": "{{ 1 // 0 }}"})
        await until(lambda: world.engine.stream("A").state == "running")
        assert world.engine.stream("A").error is None
        assert last - first == 9
    assert sum("makes all its events again" in record.getMessage() for record in caplog.records) == 1
    world.whole()


async def test_an_event_that_succeeds_with_other_draws_does_not_make_a_stream_fail(tmp_path, caplog):
    caplog.set_level(logging.INFO, "regstream.engine")
    files = {"streams.yaml": file(A=stream(fields={"a": "{{ 1 // (randint(0, 9) if seq > 100 else 1) }}"}))}
    async with World(tmp_path, files).running() as world:
        for _ in range(50):
            await world.engine.burst("A", 20)
        status = world.engine.stream("A")
        assert (status.state, status.seq) == ("running", 1000)
        assert status.errors == 0
    assert not [record for record in caplog.records if record.name.startswith("regstream.engine")]


def test_causes_that_hold_random_values_are_bounded(caplog):
    one = status.ErrorLog()
    for number in range(1000):
        one.note(errors.RenderError("A", "fields.a", f"KeyError: {number}"))
    assert len(caplog.records) <= status.MAX_CAUSES + 4
    one.well("A")
    assert one.fault is None


def test_a_recovery_is_told_once_for_each_fault_that_was_told(caplog):
    caplog.set_level(logging.INFO, "regstream.engine")
    one = status.ErrorLog()
    for _ in range(1000):
        one.note(errors.RenderError("A", "fields.a", "ZeroDivisionError"))
        one.well("A")
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.INFO] * 4


def test_the_log_of_one_cause_goes_by_powers_of_ten():
    assert [count for count in range(1, 2000) if status.is_news(count)] == [1, 10, 100, 1000]


# Alerts

ALERTING = stream(alert={"when": "{{ seq % 2 == 0 }}", "severity": "CRITICAL", "message": "number {{ seq }}"})


async def test_alerts_are_events_of_the_built_in_stream_behind_their_cause(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=ALERTING)}).running() as world:
        await world.engine.burst("A", 500)
        alerts = await world.count(spec.ALERTS, 250)
    assert [one["seq"] for one in alerts] == list(range(1, 251))
    assert {one["type"] for one in alerts} == {"immediate-alert"}
    assert alerts[0]["data"] == {
        "severity": "CRITICAL", "message": "number 2", "stream": "A", "causeSeq": 2, "scenario": None, "runId": None,
    }  # fmt: skip
    assert [one["data"]["causeSeq"] for one in alerts] == list(range(2, 501, 2))
    ids = [(one.head.stream, one.seq) for one in world.shown]
    assert all(ids.index((spec.ALERTS, n)) > ids.index(("A", 2 * n)) for n in range(1, 251))
    world.whole()


async def test_alerts_beyond_the_bound_are_dropped_before_they_have_a_number(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("regstream.engine.workers.MAX_ALERTS", 50)
    files = {"streams.yaml": file(A=stream(alert={"when": "{{ true }}", "message": "x"}))}
    async with World(tmp_path, files).running() as world:
        await world.engine.burst("A", 1000)
        made = 1000 - await until(lambda: world.engine.totals.alerts_dropped)
        await world.count(spec.ALERTS, made)
    world.whole()
    assert "too many alerts wait" in caplog.text


# Overload


async def test_many_long_bursts_at_once_are_all_made(tmp_path):
    names = [f"S{number}" for number in range(8)]
    world = World(tmp_path, {"streams.yaml": file(**{name: stream("1ms") for name in names})}, limit=1000)
    async with world.running():
        spans = await asyncio.gather(*(world.engine.burst(name, 10_000) for name in names))
        assert all(last - first == 9_999 for first, last in spans)
        await until(lambda: len(world.shown) >= 80_000)
        status = world.engine.streams()
        assert sum(one.events for one in status) + 0 == sum(one.seq for one in status)
    world.whole()


async def test_the_largest_batches_at_the_shortest_interval_keep_the_loop_alive(tmp_path):
    files = {"streams.yaml": file(BIG=stream("1ms", batch_size=10_000), SMALL=stream("5ms"))}
    async with World(tmp_path, files).running() as world:
        await until(lambda: world.engine.stream("BIG").missed > 10 and len(world.seqs("SMALL")) > 10)
        await world.engine.drain()
        assert not world.engine.streaming
    world.whole()


async def test_a_late_clock_fires_once_and_counts_the_rest(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=stream("50ms"))}).running() as world:
        await world.count("A", 1)
        # Below what counts as a jump of the system's clock
        world.ahead = 1.5
        await until(lambda: world.engine.stream("A").missed >= 28)
        status = world.engine.stream("A")
        assert status.missed <= 32
        made = len(world.seqs("A"))
        await world.count("A", made + 2)
    world.whole()
    assert json.loads(world.shown[-1].value)["time"] > json.loads(world.shown[0].value)["time"]
