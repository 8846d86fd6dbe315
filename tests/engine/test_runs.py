"""Scenarios against the running engine: what a run does, and that it gives back what it changed."""

from __future__ import annotations

import asyncio
import dataclasses
import logging

import hypothesis
import pytest
from hypothesis import strategies as st

from regstream import errors, spec
from regstream.engine import runs
from tests import profiles
from tests.engine.world import World, file, scenario, stream, until

A = {"streams.yaml": file(A=stream("1h"), B=stream("1h"))}
FOREVER = {"wait": "1h"}


def state(world: World, *names: str) -> list[dict]:
    """What is in force on streams, without what they have done."""
    keys = ("state", "enabled", "paused", "interval", "schedule", "batch_size", "priority", "overlays", "next")
    found = [dataclasses.asdict(one) for one in world.engine.streams() if not names or one.name in names]
    return [{key: one[key] for key in ("name", *keys)} | {"fields": fields(world, one["name"])} for one in found]


def fields(world: World, name: str) -> dict | None:
    return world.engine._floor.find(name).fields


async def test_every_kind_of_step_does_what_it_says(tmp_path):
    steps = [
        {"alert": {"severity": "WARNING", "message": "Spending is {{ 'rising' }}"}},
        {"burst": {"stream": "A", "count": 3, "fields": {"n": "{{ 'x' * 2 }}"}}},
        {
            "set": {
                "stream": "B",
                "interval": "2ms",
                "batch_size": 2,
                "priority": "HIGH",
                "fields": {"n": 9},
                "for": "1h",
            }
        },
        {"wait": "10ms"},
        {"parallel": [[{"burst": {"stream": "A", "count": 1}}], [{"wait": "5ms"}, {"pause": "A"}]]},
        {"repeat": {"times": 3, "steps": [{"burst": {"stream": "A", "count": 2}}, {"wait": "1ms"}]}},
        {"resume": "A"},
    ]
    async with World(tmp_path, {**A, **scenario("RUN", *steps)}).running() as world:
        run = world.engine.simulate("RUN")
        assert (run.state, run.scenario, run.current) == ("running", "RUN", ("steps[3] wait 10ms",))
        assert world.engine.stream("B").overlays == (run.run_id,)
        b = await world.count("B", 6)
        await world.count("A", 10)
        assert {(one["data"]["n"], one["priority"]) for one in b} == {(9, "HIGH")}
        assert [one["data"]["n"] for one in world.events("A")] == ["xx"] * 3 + list(range(4, 11))
        alert = (await world.count(spec.ALERTS, 1))[0]["data"]
        await until(lambda: world.engine.run(run.run_id).current[0].startswith("steps[2] set B"))
        world.engine.cancel(run.run_id)
    assert alert == {
        "severity": "WARNING", "message": "Spending is rising", "stream": None, "causeSeq": None, "scenario": "RUN",
        "runId": run.run_id,
    }  # fmt: skip
    steps = [one["step"] for one in world.system.of("scenario-step")]
    assert steps[:5] == ["alert", "burst", "set", "wait", "parallel"] and steps[-1] == "resume"
    assert world.system.of("scenario-started")[0]["runId"] == run.run_id
    assert world.system.of("scenario-ended")[0]["state"] == "cancelled"
    world.whole()


async def test_alerts_of_a_stream_say_which_run_made_it_raise_them(tmp_path):
    alerting = stream(alert={"when": "{{ n > 5 }}", "message": "high"})
    steps = [{"burst": {"stream": "A", "count": 2, "fields": {"n": 9}}},
             {"set": {"stream": "B", "interval": "1ms", "fields": {"n": 7}}}, FOREVER]  # fmt: skip
    files = {"streams.yaml": file(A=alerting, B=alerting), **scenario("RUN", *steps)}
    async with World(tmp_path, files).running() as world:
        run = world.engine.simulate("RUN")
        alerts = [one["data"] for one in await world.count(spec.ALERTS, 4)]
    assert {one["stream"] for one in alerts} == {"A", "B"}
    assert {(one["scenario"], one["runId"]) for one in alerts} == {("RUN", run.run_id)}


@pytest.mark.parametrize("end", ["completed", "cancelled", "stopped"])
async def test_what_a_run_changed_is_given_back_exactly(tmp_path, end):
    overlay = {"stream": "A", "interval": "10m", "batch_size": 7, "priority": "CRITICAL", "fields": {"n": 1}}
    last = {"wait": "30ms"} if end == "completed" else FOREVER
    files = {**A, **scenario("RUN", {"set": overlay}, {"pause": "B"}, {"set": {**overlay, "stream": "B"}}, last)}
    async with World(tmp_path, files).running() as world:
        world.engine.patch("A", batch_size=3)
        for name in "AB":
            # Streams that have not ticked yet begin anew with the streaming
            world.engine._fire(name, world.now(), 0)
        await until(lambda: all(one.ticks for one in world.engine.streams()))
        before = state(world)
        run = world.engine.simulate("RUN")
        during = state(world)
        assert [one["batch_size"] for one in during] == [7, 7]
        assert during[1]["state"] == "paused" and during[0]["fields"] == {"n": 1}
        if end == "cancelled":
            assert world.engine.cancel(run.run_id).state == "cancelled"
            assert world.engine.cancel(run.run_id).state == "cancelled"
        elif end == "stopped":
            world.engine.stop()
            world.engine.start()
        await world.ended(run.run_id, "completed" if end == "completed" else "cancelled")
        assert state(world) == before
        assert not world.engine._floor._layers
    assert len(world.system.of("scenario-ended")) == 1


async def test_a_for_ends_by_itself_and_the_run_waits_for_it(tmp_path):
    files = {**A, **scenario("RUN", {"set": {"stream": "A", "batch_size": 5, "for": "30ms"}})}
    async with World(tmp_path, files).running() as world:
        run = world.engine.simulate("RUN")
        assert (run.state, world.engine.stream("A").batch_size) == ("running", 5)
        told = await world.ended(run.run_id)
        assert world.engine.stream("A").batch_size == 1
        assert told.ended - told.started == pytest.approx(0.03, abs=0.001)


async def test_an_operator_is_neither_hidden_nor_undone_by_a_run(tmp_path):
    overlay = {"stream": "A", "interval": "10m", "batch_size": 7, "priority": "LOW"}
    files = {**A, **scenario("RUN", {"set": overlay}, {"pause": "A"}, FOREVER)}
    async with World(tmp_path, files).running() as world:
        run = world.engine.simulate("RUN")
        assert world.engine.resume("A").state == "running"
        told = world.engine.patch("A", batch_size=2)
        assert (told.batch_size, told.interval, told.priority) == (2, 600_000.0, "LOW")
        world.engine.cancel(run.run_id)
        told = world.engine.stream("A")
        assert (told.batch_size, told.interval, told.priority, told.state) == (2, 3_600_000.0, "NORMAL", "running")


async def test_a_run_that_fails_gives_back_what_it_was_about_to_give_back_too(tmp_path):
    # All of it is due at once: when the burst is refused, the run thinks that the overlay is gone already
    files = {**A, **scenario("RUN", {"set": {"stream": "A", "batch_size": 9}}, {"burst": {"stream": "B", "count": 1}})}
    async with World(tmp_path, files).running() as world:
        await world.reload({"streams.yaml": file(A=stream("1h")), "scenarios/run.yaml": None})
        world.engine.catalog.scenarios["RUN"] = world_spec(files)
        run = world.engine.simulate("RUN")
        assert (run.state, run.error) == ("failed", "unknown stream 'B'")
        assert state(world)[0]["batch_size"] == 1 and not world.engine._floor._layers
    assert world.system.of("scenario-ended")[0]["error"] == "unknown stream 'B'"


def world_spec(files: dict[str, str]) -> spec.ScenarioSpec:
    return spec.ScenarioSpec.model_validate_json(files["scenarios/run.yaml"])


async def test_a_stream_that_is_removed_fails_the_run_that_needs_it_and_no_other(tmp_path):
    needs = [{"set": {"stream": "A", "batch_size": 5}}, {"set": {"stream": "B", "batch_size": 5}}, {"wait": "1s"}]
    files = {
        **A,
        **scenario("NEEDS", *needs, {"burst": {"stream": "B", "count": 1}}),
        **scenario("BESIDE", {"set": {"stream": "A", "priority": "LOW"}}, {"wait": "1200ms"}),
    }
    async with World(tmp_path, files).running() as world:
        before = state(world, "A")
        run, beside = world.engine.simulate("NEEDS"), world.engine.simulate("BESIDE")
        gone = {"streams.yaml": file(A=stream("1h")), "scenarios/needs.yaml": None}
        await world.reload(gone)
        assert [one.name for one in world.engine.streams()] == ["A"]
        told = await world.ended(run.run_id, "failed")
        assert told.error == "unknown stream 'B'"
        await world.ended(beside.run_id)
        assert state(world, "A") == before
        assert not world.engine._floor._layers


async def test_a_stream_that_comes_back_has_no_layer_of_a_run_from_before(tmp_path):
    files = {**A, **scenario("RUN", {"set": {"stream": "B", "batch_size": 5}}, FOREVER)}
    async with World(tmp_path, files).running() as world:
        run = world.engine.simulate("RUN")
        await world.reload({"streams.yaml": file(A=stream("1h")), "scenarios/run.yaml": None})
        await world.reload(A)
        assert world.engine.stream("B").overlays == ()
        world.engine.cancel(run.run_id)
        assert world.engine.stream("B").batch_size == 1


async def test_a_run_keeps_the_definition_it_began_with(tmp_path):
    old = scenario(
        "RUN", {"set": {"stream": "A", "batch_size": 5}}, {"wait": "1s"}, {"burst": {"stream": "B", "count": 2}}
    )
    async with World(tmp_path, {**A, **old}).running() as world:
        run = world.engine.simulate("RUN")
        changed = {"streams.yaml": file(A=stream("30m"), B=stream("1h"))}
        await world.reload({**changed, **scenario("RUN", {"wait": "1ms"})})
        assert (world.engine.stream("A").batch_size, world.engine.stream("A").interval) == (5, 1_800_000.0)
        await world.ended(run.run_id)
        assert len(await world.count("B", 2)) == 2
        assert world.engine.stream("A").batch_size == 1
        assert len((await world.ended(world.engine.simulate("RUN").run_id)).current) == 0


async def test_what_no_longer_compiles_fails_the_stream_or_the_run_and_nothing_else(tmp_path, caplog):
    entity = {"svp": {"count": 2, "key": "id", "fields": {"id": "{{ index }}"}}}
    overlay = {"set": {"stream": "A", "interval": "1ms", "fields": {"n": "{{ pick('svp').id }}"}}}
    late = {"alert": {"message": "{% from 'm.j2' import hello %}{{ hello() }}"}}
    files = {
        "streams.yaml": file(entity, A=stream(), B=stream("2ms")),
        "templates/m.j2": "{% macro hello() %}hello{% endmacro %}",
        **scenario("OVERLAY", overlay, FOREVER),
        **scenario("ALERT", {"set": {"stream": "B", "batch_size": 3}}, {"wait": "1s"}, late),
    }
    async with World(tmp_path, files).running() as world:
        laid, alert = world.engine.simulate("OVERLAY"), world.engine.simulate("ALERT")
        await world.count("A", 1)
        gone = dict.fromkeys(("scenarios/overlay.yaml", "scenarios/alert.yaml", "templates/m.j2"))
        await world.reload({"streams.yaml": file(A=stream(), B=stream("2ms")), **gone})
        told = await world.ended(alert.run_id, "failed")
        assert "m.j2" in told.error
        await until(lambda: world.engine.stream("A").state == "failing")
        assert "unknown entity 'svp'" in world.engine.stream("A").error
        world.engine.cancel(laid.run_id)
        await world.engine.burst("A", 1)
        assert world.engine.stream("A").state == "running"
        await world.count("B", len(world.seqs("B")) + 3)
    world.whole()


async def test_a_new_scenario_may_use_what_came_with_it(tmp_path):
    async with World(tmp_path, A).running() as world:
        await world.engine.burst("A", 1)
        entity = {"svp": {"count": 2, "key": "id", "fields": {"id": "S{{ index }}"}}}
        burst = {"burst": {"stream": "A", "count": 5, "fields": {"n": "{{ pick('svp').id }}"}}}
        streams = {"streams.yaml": file(entity, A=stream("1h"), B=stream("1h"))}
        receipt = await world.reload({**streams, **scenario("RUN", burst)})
        assert receipt.unchanged == ("A", "B")
        await world.ended(world.engine.simulate("RUN").run_id)
        data = [one["data"]["n"] for one in (await world.count("A", 6))[1:]]
        assert set(data) <= {"S0", "S1"}
        assert world.engine.stream("A").state == "running"


async def test_runs_are_listed_found_and_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "MAX_RUNNING", 3)
    monkeypatch.setattr(runs, "MAX_KEPT", 2)
    files = {**A, **scenario("LONG", FOREVER), **scenario("SHORT", {"wait": "1ms"})}
    async with World(tmp_path, files).running() as world:
        begun = [world.engine.simulate("LONG").run_id for _ in range(3)]
        with pytest.raises(errors.Overloaded, match="the list of running scenarios is full"):
            world.engine.simulate("LONG")
        assert [one.run_id for one in world.engine.runs()] == begun[::-1]
        world.engine.cancel(begun[0])
        short = world.engine.simulate("SHORT").run_id
        await world.ended(short)
        world.engine.cancel(begun[1])
        assert [one.run_id for one in world.engine.runs()] == [short, *begun[:0:-1]]
        for ask in (world.engine.run, world.engine.cancel):
            with pytest.raises(errors.UnknownName, match="unknown run"):
                ask(begun[0])
        with pytest.raises(errors.UnknownName, match="did you mean LONG"):
            world.engine.simulate("LONGER")
        world.engine.stop()
        with pytest.raises(errors.Conflict, match="start it first"):
            world.engine.simulate("LONG")


async def test_a_refused_burst_fails_the_run_and_says_why(tmp_path):
    steps = [{"set": {"stream": "B", "batch_size": 4}}]
    steps += [{"repeat": {"times": 100, "steps": [{"burst": {"stream": "A", "count": 1}}]}}]
    async with World(tmp_path, {**A, **scenario("RUN", *steps)}).running() as world:
        told = world.engine.simulate("RUN")
        assert told.state == "failed" and "queue of bursts of A is full" in told.error
        assert world.engine.stream("B").batch_size == 1
        await world.count("A", 64)


async def test_a_storm_of_runs_leaves_nothing_behind(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    overlay = {"stream": "A", "interval": "2ms", "fields": {"n": "{{ seq }}"}, "for": "4ms"}
    steps = [{"pause": "B"}, {"repeat": {"times": 5, "steps": [{"set": overlay}, {"wait": "2ms"}]}}, {"resume": "B"}]
    async with World(tmp_path, {**A, **scenario("RUN", *steps)}).running() as world:
        before = state(world)
        for _ in range(8):
            begun = [world.engine.simulate("RUN").run_id for _ in range(runs.MAX_RUNNING)]
            for run_id in begun[::3]:
                world.engine.cancel(run_id)
            await until(lambda: all(one.state != "running" for one in world.engine.runs()))
        assert {one.state for one in world.engine.runs()} == {"completed", "cancelled"}
        assert len(world.engine.runs()) == runs.MAX_KEPT
        # A tick that was due already is still made
        await until(lambda: state(world) == before)
        assert not world.engine._floor._layers and not world.engine._clock._wakes
    assert not caplog.records
    world.whole()


LAID = st.fixed_dictionaries(
    {"stream": st.sampled_from("AB")},
    optional={
        "interval": st.integers(500_000, 900_000),
        "batch_size": st.integers(2, 9),
        "priority": st.sampled_from(["LOW", "HIGH"]),
        "fields": st.just({"n": 5}),
    },
).map(lambda overlay: {"set": overlay} if len(overlay) > 1 else {"pause": overlay["stream"]})
OPERATOR = st.one_of(
    st.tuples(st.sampled_from(["pause", "resume"]), st.sampled_from("AB")),
    st.tuples(st.sampled_from(["interval", "batch_size", "priority", "enabled"]), st.sampled_from("AB")),
)
SET = {"interval": 700_000, "batch_size": 11, "priority": spec.Priority.CRITICAL, "enabled": False}


def operate(world: World, action: tuple[str, str]) -> None:
    what, name = action
    if what in SET:
        world.engine.patch(name, **{what: SET[what]})
    else:
        getattr(world.engine, what)(name)


@hypothesis.given(st.lists(st.one_of(st.lists(LAID, min_size=1, max_size=4), st.integers(0, 5), OPERATOR), max_size=12))
@hypothesis.settings(max_examples=profiles.examples(60), suppress_health_check=list(hypothesis.HealthCheck))
def test_runs_nest_and_unnest_in_any_order(tmp_path_factory, acts):
    asyncio.run(nest(tmp_path_factory.mktemp("nest"), acts))


async def nest(folder, acts):
    specs = [act for act in acts if isinstance(act, list)]
    files = {}
    for number, steps in enumerate(specs):
        files |= scenario(f"RUN{number}", *steps, FOREVER)
    world, without = World(folder, {**A, **files}), World(folder, {**A, **files})
    async with world.running(), without.running():
        waiting, number = [], 0
        for act in acts:
            if isinstance(act, list):
                waiting.append(world.engine.simulate(f"RUN{number}").run_id)
                number += 1
            elif isinstance(act, int):
                if waiting:
                    world.engine.cancel(waiting.pop(act % len(waiting)))
            else:
                operate(world, act)
                operate(without, act)
        for run_id in waiting:
            world.engine.cancel(run_id)
        ours, theirs = state(world), state(without)
        for one in (*ours, *theirs):
            # Anchored to when the stream came
            one["next"] = one["next"] is None
        assert ours == theirs
        assert not world.engine._floor._layers
