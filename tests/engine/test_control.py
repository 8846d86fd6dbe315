"""What operators do to streams: pause, resume, patch, start, stop."""

from __future__ import annotations

import collections

import pytest

from regstream import errors, spec
from regstream.engine import active_stream
from tests.engine.world import Sink, World, file, stream, until

ENTITY = {"svp": {"count": 3, "key": "id", "fields": {"id": "S{{ index }}", "spent": 0}}}
SPENDING = {
    "with": {"svp": "{{ pick('svp') }}"},
    "fields": {"id": "{{ svp.id }}", "spent": "{{ svp.spent + 1 }}"},
    "update": {"svp.spent": "{{ spent }}"},
}


async def test_a_paused_stream_is_silent_and_goes_on_with_its_next_number(tmp_path):
    files = {"streams.yaml": file(ENTITY, A=stream("2ms", **SPENDING), B=stream("2ms"))}
    async with World(tmp_path, files).running() as world:
        await world.count("A", 20)
        assert world.engine.pause("A").state == "paused"
        seq = world.engine.stream("A").seq
        beside = len(world.seqs("B"))
        await world.count("B", beside + 20)
        paused = world.engine.stream("A")
        assert (paused.seq, paused.next, paused.paused, paused.enabled) == (seq, None, True, True)
        assert world.engine.resume("A").state == "running"
        events = await world.count("A", seq + 50)
    world.whole()
    spent = {key: [one["data"]["spent"] for one in events if one["data"]["id"] == key] for key in ("S0", "S1", "S2")}
    assert all(values == list(range(1, len(values) + 1)) for values in spent.values())


async def test_resume_goes_on_on_the_same_grid(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=stream("1h"))}).running() as world:
        # One that has not ticked yet begins anew with the streaming
        world.engine._fire("A", world.now(), 0)
        await until(lambda: world.engine.stream("A").ticks)
        due = world.engine.stream("A").next
        for _ in range(3):
            world.engine.pause("A")
            world.engine.resume("A")
            world.engine.stop(["A"])
            world.engine.start(["A"])
            world.engine.stop()
            world.engine.start()
        assert world.engine.stream("A").next == due
        world.engine.patch("A", interval=6_000)
        steps = (world.engine.stream("A").next - due) / 6
        assert steps == pytest.approx(round(steps), abs=1e-6)
        await world.reload({"streams.yaml": file(A=stream("1h", batch_size=2))})
        assert world.engine.stream("A").next == due


async def test_what_was_loaded_long_before_the_streaming_is_started_speaks_at_once(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=stream("50s"))}).running(streaming=False) as world:
        world.ahead += 1.5
        world.engine.start()
        await world.count("A", 1)


async def test_what_is_done_twice_is_done_once(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=stream("1h"))}).running() as world:
        for act in (
            lambda: world.engine.pause("A"),
            lambda: world.engine.resume("A"),
            lambda: world.engine.patch("A", interval=50_000, batch_size=3, priority=spec.Priority.LOW),
            lambda: world.engine.patch("A", enabled=False),
            lambda: world.engine.stop(["A"]),
            lambda: world.engine.start(["A"]),
            world.engine.start,
            world.engine.stop,
        ):
            act()
            before = world.engine.stream("A")
            act()
            assert world.engine.stream("A") == before
    assert world.system.kinds().count("streaming-started") == 1
    assert world.system.kinds().count("streaming-stopped") == 1


async def test_a_patch_takes_effect_within_one_tick(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=stream("1h"))}).running() as world:
        told = world.engine.patch("A", interval=5, batch_size=4, priority=spec.Priority.CRITICAL)
        assert (told.interval, told.batch_size, told.priority) == (5.0, 4, "CRITICAL")
        assert told.target_rate == 800
        events = await world.count("A", 8)
        assert {one["priority"] for one in events} == {"CRITICAL"}
        assert world.engine.patch("A", enabled=False).state == "stopped"
        seq = world.engine.stream("A").seq
        assert world.engine.patch("A", interval=1).next is None
        assert world.engine.patch("A", enabled=True).state == "running"
        await world.count("A", seq + 4)
        assert world.engine.patch("A").interval == 1.0
    world.whole()


async def test_a_patch_turns_a_schedule_into_an_interval_until_its_declaration_changes(tmp_path):
    cron = {"schedule": "0 0 1 1 *", "fields": {"a": 1}}
    async with World(tmp_path, {"streams.yaml": file(A=cron)}).running() as world:
        assert (world.engine.stream("A").interval, world.engine.stream("A").schedule) == (None, "0 0 1 1 *")
        assert world.engine.stream("A").target_rate is None
        told = world.engine.patch("A", interval=2)
        assert (told.interval, told.schedule) == (2.0, None)
        await world.count("A", 3)
        await world.reload({"streams.yaml": file(A=cron, B=stream())})
        assert world.engine.stream("A").interval == 2.0
        await world.reload({"streams.yaml": file(A={**cron, "fields": {"a": 2}})})
        assert world.engine.stream("A").schedule == "0 0 1 1 *"


@pytest.mark.parametrize("act", ["pause", "resume", "patch", "stream"])
async def test_nobody_is_told_apart_from_somebody_with_nearly_that_name(tmp_path, act):
    async with World(tmp_path, {"streams.yaml": file(BUDGET=stream())}).running() as world:
        with pytest.raises(errors.UnknownName, match="did you mean BUDGET"):
            getattr(world.engine, act)("BUDGE")


async def test_start_and_stop_of_several_change_all_or_none(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=stream(), B=stream())}).running() as world:
        with pytest.raises(errors.UnknownName):
            world.engine.stop(["A", "X"])
        assert [one.state for one in world.engine.streams()] == ["running", "running"]
        world.engine.stop(["A", "B"])
        assert [one.state for one in world.engine.streams()] == ["stopped", "stopped"]
        assert [one["stream"] for one in world.system.of("stream-changed")] == ["A", "B"]


async def test_nothing_is_generated_where_that_is_switched_off(tmp_path):
    world = World(tmp_path, {"streams.yaml": file(A=stream("1ms"))})
    world.engine.allowed = False
    async with world.running(streaming=False):
        before = world.engine.streams()
        for act in (
            world.engine.start,
            world.engine.stop,
            lambda: world.engine.start(["A"]),
            lambda: world.engine.stop(["A"]),
            lambda: world.engine.pause("A"),
            lambda: world.engine.resume("A"),
            lambda: world.engine.patch("A", interval=5, enabled=False),
        ):
            with pytest.raises(errors.Conflict, match=r"ENABLE_STREAMING is false.* ask the one with"):
                act()
        with pytest.raises(errors.Conflict, match="ask the one with"):
            await world.engine.burst("A", 1)
        with pytest.raises(errors.UnknownName):
            world.engine.pause("NOBODY")
        assert not world.engine.streaming and world.engine.streams() == before
        assert [one.state for one in before] == ["stopped"] and not world.system.of("stream-changed")


async def test_after_a_stop_no_stream_runs_and_after_a_start_each_is_as_it_was(tmp_path):
    files = {"streams.yaml": file(A=stream(), B=stream(), C=stream(enabled=False))}
    async with World(tmp_path, files).running() as world:
        world.engine.pause("B")
        states = [one.state for one in world.engine.streams()]
        assert states == ["running", "paused", "stopped"]
        world.engine.stop()
        assert {one.state for one in world.engine.streams()} == {"stopped"}
        assert world.engine.pause("A").state == "stopped" and world.engine.resume("A").state == "stopped"
        world.engine.start()
        assert [one.state for one in world.engine.streams()] == states


async def test_a_disabled_stream_is_shown_but_silent_until_it_is_started(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=stream("1ms", enabled=False))}).running() as world:
        status = world.engine.stream("A")
        assert (status.state, status.next, status.seq) == ("stopped", None, 0)
        world.engine.start(["A"])
        await world.count("A", 2)


async def test_stop_and_start_keep_numbers_and_count_nothing_as_missed(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=stream("3ms"))}).running() as world:
        await world.count("A", 5)
        world.engine.stop()
        missed, seq = world.engine.stream("A").missed, world.engine.stream("A").seq
        assert world.engine.stream("A").next is None
        world.ahead += 1.5
        world.engine.start()
        await world.count("A", seq + 3)
        assert world.engine.stream("A").missed - missed < 100
    world.whole()


async def test_a_storm_of_pauses_loses_and_doubles_nothing(tmp_path):
    files = {"streams.yaml": file(A=stream("1ms", batch_size=50), B=stream("1ms"))}
    async with World(tmp_path, files).running() as world:
        for _ in range(300):
            world.engine.pause("A")
            await world.engine.burst("A", 3)
            world.engine.resume("A")
            world.engine.patch("A", batch_size=40)
        assert world.engine.stream("A").state == "running"
        await world.count("B", 5)
        await world.count("A", world.engine.stream("A").seq + 100)
    world.whole()


async def test_the_rate_and_the_counts_are_those_of_what_was_made(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=stream("10ms", batch_size=5))}).running() as world:
        sink = Sink(world.hub, "A")
        await world.count("A", 100)
        world.engine.pause("A")
        await until(lambda: len(world.seqs("A")) == world.engine.stream("A").seq)
        status, values = world.engine.stream("A"), [one.value for one in world.shown]
        assert (status.events, status.bytes) == (len(values), sum(map(len, values)))
        assert status.events == status.ticks * 5 == status.seq
        assert (world.engine.totals.events, world.engine.totals.bytes) == (status.events, status.bytes)
        assert 0 < status.actual_rate <= status.events
        assert [one["seq"] for one in sink.told] == world.seqs("A")
        assert len(world.late) == status.ticks and min(late for _, late in world.late) >= 0


async def test_when_the_systems_clock_jumps_streams_and_runs_go_on_as_before(tmp_path):
    steps = [{"wait": "50ms"}, {"burst": {"stream": "B", "count": 1}}, {"wait": "1h"}]
    files = {
        "streams.yaml": file(A=stream("20ms"), B=stream(), C=stream("1h")),
        "scenarios/run.yaml": '{"name": "RUN", "steps": ' + str(steps).replace("'", '"') + "}",
    }
    for delta in (7200.0, -7200.0):
        async with World(tmp_path, files).running() as world:
            await world.count("A", 1)
            run = world.engine.simulate("RUN")
            due = world.engine.stream("C").next
            world.ahead += delta
            # One looks at the clock: it sees the jump
            world.engine.pause("A")
            world.engine.resume("A")
            await world.count("B", 1)
            await world.count("A", 5)
            assert world.engine.run(run.run_id).state == "running"
            assert world.seqs("B") == [1]
            assert world.engine.stream("C").next == pytest.approx(due + delta, abs=0.5)
            world.engine.patch("C", batch_size=2)
            assert world.engine.stream("C").next == pytest.approx(due + delta, abs=0.5)
            assert world.engine.stream("A").missed < 50
        world.whole()


def test_anchors_spread_streams_over_their_first_second():
    found = [active_stream.anchor(f"S{n}", 100.0, 5000) - 100 for n in range(1000)]
    assert min(found) >= 0 and max(found) < 1
    assert min(collections.Counter(int(one * 10) for one in found).values()) > 50
