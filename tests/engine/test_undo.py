"""Rows after a run: as they were before it, plus what other events did meanwhile."""

from __future__ import annotations

import itertools
import json
import pathlib
import re
from typing import Any
from unittest import mock

import hypothesis
import pytest
from hypothesis import strategies as st

from regstream import config, spec
from regstream.engine import active_stream, undo
from regstream.functions import lookup
from tests import support
from tests.engine.test_memory import Memory
from tests.engine.world import World, file, scenario, stream, until

FOREVER = {"wait": "1h"}
FIELDS = {
    "id": "S{{ index }}", "spent": 0.1, "count": 60, "category": "NONE", "note": None, "tags": ["{{ index }}"],
    "flag": True,
}  # fmt: skip
SVP = {"svp": {"count": 3, "key": "id", "fields": FIELDS}}
CHANGED = [name for name in FIELDS if name != "id"]
FIND = {"svp": "{{ find('svp', 'S1') }}"}
SPEND = stream(
    **{"with": FIND, "fields": {name: f"{{{{ svp.{name} }}}}" for name in CHANGED}},
    update={f"svp.{name}": f"{{{{ {name} }}}}" for name in CHANGED},
)
ADD = stream(
    **{"with": FIND, "fields": {"spent": "{{ svp.spent }}", "count": "{{ svp.count }}"}},
    update={"svp.spent": "{{ (svp.spent + 0.2) | round(2) }}", "svp.count": "{{ svp.count + 1 }}"},
)
NAME = stream(**{"with": FIND, "fields": {"n": 1}}, update={"svp.category": "OTHER"})
WORSE = {"spent": 99.7, "count": 84.5, "category": "CLOUD", "note": "{{ now }}", "tags": [], "flag": 0}
FILES = {"streams.yaml": file(SVP, SPEND=SPEND, ADD=ADD, NAME=NAME)}


def rows(world: World, entity: str = "svp") -> list[dict[str, Any]]:
    """All rows as events would show them: the types of numbers included."""
    found = json.dumps(world.engine._workshop.pools[entity], default=str)
    return [repr(row) for row in json.loads(found)]  # type: ignore[misc]


def row(world: World, number: int = 1) -> dict[str, Any]:
    return world.engine._workshop.pools["svp"][number]


def burst(name: str, count: int = 1, fields: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"burst": {"stream": name, "count": count, **({"fields": fields} if fields else {})}}


@pytest.mark.parametrize("end", ["completed", "cancelled", "stopped", "failed"])
async def test_rows_are_given_back_to_the_type_however_a_run_ends(tmp_path: pathlib.Path, end: str) -> None:
    last = {"completed": [], "failed": [{"wait": "20ms"}, *[burst("ADD")] * (active_stream.MAX_JOBS + 1)]}
    steps = [burst("SPEND", 5, WORSE), *last.get(end, [FOREVER])]
    async with World(tmp_path, {**FILES, **scenario("RUN", *steps)}).running() as world:
        before = rows(world)
        run = world.engine.simulate("RUN").run_id
        await world.count("SPEND", 5)
        if end == "cancelled":
            assert row(world)["category"] == "CLOUD" and rows(world) != before
            world.engine.cancel(run)
        elif end == "stopped":
            world.engine.stop()
        await world.ended(run, end if end in ("completed", "failed") else "cancelled")
        await until(lambda: not world.engine._works.undo)
        assert rows(world) == before


async def test_a_tick_that_comes_due_as_its_overlay_ends_is_of_the_run(tmp_path: pathlib.Path) -> None:
    """The clock is looked at more than once meanwhile, and what was not due at one look is at the next."""
    files = {"streams.yaml": file(SVP, ADD={**ADD, "interval": "1h"})}
    files |= scenario("RUN", {"set": {"stream": "ADD", "interval": "100ms", "for": "350ms"}})
    async with World(tmp_path, files).running() as world:
        floor, clock = world.engine._floor, world.engine._clock
        look, lift = clock.look, floor.lift

        def lifting(key: tuple[str, int]) -> None:
            steps = itertools.chain([0.0], itertools.repeat(0.12))

            def creeping() -> float:
                world.ahead += next(steps)
                return look()

            with mock.patch.object(clock, "look", creeping):
                lift(key)

        with mock.patch.object(floor, "lift", lifting):
            run = world.engine.simulate("RUN").run_id
            await world.ended(run, "completed")
        await until(lambda: not world.engine._works.undo)
        await world.engine._works.join()
        assert [event for event in world.shown if event.head.stream == "ADD"]
        assert row(world)["count"] == 60


async def test_what_other_events_did_meanwhile_stays(tmp_path: pathlib.Path) -> None:
    files = {**FILES, **scenario("RUN", burst("SPEND", 3, WORSE), FOREVER)}
    async with World(tmp_path, files).running() as world:
        run = world.engine.simulate("RUN").run_id
        await world.count("SPEND", 3)
        await world.engine.burst("ADD", 2)
        await world.engine.burst("NAME", 1)
        assert (row(world)["spent"], row(world)["count"]) == (100.1, 86.5)
        world.engine.cancel(run)
        found = row(world)
        # To the cent, by difference; a text that somebody else has set is not the run's any more
        assert (found["spent"], repr(found["count"]), found["category"]) == (0.5, "62", "OTHER")
        assert (found["note"], found["tags"], found["flag"]) == (None, [1], True)


async def test_a_number_that_others_set_anew_is_not_brought_below_nothing(tmp_path: pathlib.Path) -> None:
    files = {**FILES, **scenario("RUN", burst("SPEND", 1, {"spent": 5_000}), FOREVER)}
    async with World(tmp_path, files).running() as world:
        run = world.engine.simulate("RUN").run_id
        await world.count("SPEND", 1)
        await world.engine.burst("SPEND", 1, {"spent": 0.0})
        world.engine.cancel(run)
        assert row(world)["spent"] == 0.0


@pytest.mark.parametrize(
    ("overlay", "is_given_back"),
    [
        ({"fields": {"spent": 50}, "interval": "5ms"}, True),
        ({"interval": "5ms"}, True),
        ({"interval": "5ms", "batch_size": 4}, True),
        ({"priority": "CRITICAL"}, False),
    ],
)
async def test_events_made_under_an_overlay_are_of_the_run_unless_they_had_been_made_all_the_same(
    tmp_path: pathlib.Path, overlay: dict[str, Any], is_given_back: bool
) -> None:
    adding = {**ADD, "interval": "1h" if is_given_back else "5ms"}
    files = {"streams.yaml": file(SVP, ADD=adding)}
    files |= scenario("RUN", {"set": {"stream": "ADD", **overlay}}, FOREVER)
    async with World(tmp_path, files).running() as world:
        run = world.engine.simulate("RUN").run_id
        await world.count("ADD", 5)
        world.engine.cancel(run)
        await until(lambda: not world.engine._works.undo)
        assert (row(world)["count"] == 60) is is_given_back


async def test_events_of_a_stream_that_a_run_resumes_are_of_the_run(tmp_path: pathlib.Path) -> None:
    files = {"streams.yaml": file(SVP, ADD={**ADD, "interval": "5ms"})}
    files |= scenario("RUN", {"resume": "ADD"}, FOREVER)
    async with World(tmp_path, files).running(streaming=False) as world:
        world.engine.pause("ADD")
        world.engine.start()
        run = world.engine.simulate("RUN").run_id
        await world.count("ADD", 5)
        world.engine.cancel(run)
        await until(lambda: not world.engine._works.undo)
        assert row(world)["count"] == 60


async def test_what_a_scenario_keeps_stays(tmp_path: pathlib.Path) -> None:
    files = {**FILES, **scenario("RUN", burst("SPEND", 2, {"spent": 7, "count": 8}))}
    told = json.loads(files["scenarios/run.yaml"]) | {"keeps": ["svp.spent"]}
    async with World(tmp_path, {**files, "scenarios/run.yaml": json.dumps(told)}).running() as world:
        await world.ended(world.engine.simulate("RUN").run_id)
        await world.count("SPEND", 2)
        await until(lambda: not world.engine._works.undo)
        assert (row(world)["spent"], row(world)["count"]) == (7, 60)


@pytest.mark.parametrize("first", ["A", "B"])
async def test_runs_that_overlap_give_back_each_its_own(tmp_path: pathlib.Path, first: str) -> None:
    again = {"set": {"stream": "SPEND", "interval": "1h", "fields": {"category": "A"}}}
    files = {
        **FILES,
        **scenario("A", burst("SPEND", 1, {"count": "{{ svp.count + 90 }}", "category": "A"}), again, FOREVER),
        **scenario("B", burst("SPEND", 1, {"count": "{{ svp.count + 400 }}", "category": "B"}), FOREVER),
    }
    async with World(tmp_path, files).running() as world:
        before = rows(world)
        begun = {}
        for number, name in enumerate("AB", 1):
            begun[name] = world.engine.simulate(name).run_id
            await world.count("SPEND", number)
        assert (row(world)["count"], row(world)["category"]) == (550, "B")
        world.engine.cancel(begun.pop(first))
        left = {"A": (460, "B"), "B": (150, "A")}[first]
        assert (row(world)["count"], row(world)["category"]) == left
        world.engine.cancel(begun.popitem()[1])
        assert rows(world) == before


async def test_bursts_that_wait_when_the_run_ends_are_given_back_too(tmp_path: pathlib.Path) -> None:
    files = {**FILES, **scenario("RUN", *[burst("SPEND", 400, WORSE)] * 3)}
    async with World(tmp_path, files).running() as world:
        before = rows(world)
        await world.ended(world.engine.simulate("RUN").run_id)
        # Who asks for an event after that sees the rows as they are to be
        await world.engine.burst("ADD", 1)
        assert world.events("ADD")[-1]["data"] == {"spent": 0.1, "count": 60}
        await world.count("SPEND", 1_200)
        world.engine.stop()
        assert rows(world)[0] == before[0] and row(world)["count"] == 61


async def test_events_of_other_streams_after_a_run_are_those_without_it(tmp_path: pathlib.Path) -> None:
    walk = stream(
        **{"with": {"svp": "{{ pick('svp', weight='count') }}"}},
        fields={
            "id": "{{ svp.id }}",
            "count": "{{ svp.count }}",
            "at": "{{ revert(svp.spent, 5, 0.1, 2) | round(3) }}",
        },
        update={"svp.spent": "{{ at }}"},
    )
    bare = {**SPEND, "with": {"svp": "{{ pick('svp') }}"}}
    files = {"streams.yaml": file(SVP, SPEND=bare, WALK=walk), **scenario("RUN", burst("SPEND", 50, WORSE), FOREVER)}
    told = []
    for number, runs in enumerate((True, False)):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with World(folder, files).running() as world:
            await world.engine.burst("WALK", 30)
            if runs:
                run = world.engine.simulate("RUN").run_id
                await world.count("SPEND", 50)
                world.engine.cancel(run)
            await world.engine.burst("WALK", 30)
            told.append([event["data"] for event in world.events("WALK")])
    assert told[0] == told[1]


async def test_weights_found_during_a_run_are_not_those_after_it(tmp_path: pathlib.Path) -> None:
    weighed = stream(**{"with": {"svp": "{{ pick('svp', weight='count') }}"}}, fields={"id": "{{ svp.id }}"})
    files = {"streams.yaml": file(SVP, SPEND=SPEND, WEIGHED=weighed)}
    files |= scenario("RUN", burst("SPEND", 1, {"count": 10**9}), FOREVER)
    async with World(tmp_path, files).running() as world:
        run = world.engine.simulate("RUN").run_id
        await world.count("SPEND", 1)
        await world.engine.burst("WEIGHED", 50)
        assert {event["data"]["id"] for event in world.events("WEIGHED")} == {"S1"}
        world.engine.cancel(run)
        await world.engine.burst("WEIGHED", 50)
        assert {event["data"]["id"] for event in world.events("WEIGHED")[50:]} == {"S0", "S1", "S2"}


@pytest.mark.parametrize("change", ["field", "gone", "fewer"])
async def test_a_reload_during_a_run_leaves_nothing_of_it(tmp_path: pathlib.Path, change: str) -> None:
    entity = {"svp": {**SVP["svp"], "fields": {**FIELDS, "more": 1}}} if change == "field" else SVP
    entity = {"svp": {**SVP["svp"], "count": 1}} if change == "fewer" else entity
    other = {**FILES, **scenario("RUN", burst("SPEND", 5, WORSE), FOREVER)}
    lone = {"streams.yaml": file(SPEND=stream()), "scenarios/run.yaml": None}
    everywhere = {**SPEND, "with": {"svp": "{{ pick('svp') }}"}}
    if change == "fewer":
        other["streams.yaml"] = file(SVP, SPEND=everywhere)
    memory = Memory(CHANGED)
    async with World(tmp_path, other, memory=memory).running() as world:
        before = rows(world)
        run = world.engine.simulate("RUN").run_id
        await world.count("SPEND", 5)
        changed = lone if change == "gone" else {"streams.yaml": file(entity, SPEND=everywhere)}
        await world.reload(changed)
        world.engine.cancel(run)
        await world.reload({**other, "streams.yaml": other["streams.yaml"]})
        assert rows(world) == before
        assert not world.engine._works.undo


async def test_a_row_that_ends_during_a_run_has_nothing_to_be_given_back(tmp_path: pathlib.Path) -> None:
    lives = {
        "svp": {
            "count": 1, "key": "id", "fields": {"id": "S{{ index }}", "count": 60},
            "states": {"OPEN": {"lasts": "1s"}},
        }
    }  # fmt: skip
    spend = stream(
        **{"with": {"svp": "{{ pick('svp') }}"}},
        fields={"id": "{{ svp.id }}"},
        update={"svp.count": "{{ svp.count + 5 }}"},
    )
    files = {"streams.yaml": file(lives, SPEND=spend), **scenario("RUN", burst("SPEND", 3), FOREVER)}
    async with World(tmp_path, files).running() as world:
        run = world.engine.simulate("RUN").run_id
        first = (await world.count("SPEND", 3))[-1]["data"]["id"]
        world.ahead += 5.0
        await world.engine.burst("SPEND", 1)
        assert world.events("SPEND")[-1]["data"]["id"] != first
        world.engine.cancel(run)
        assert row(world, 0)["count"] == 65
        assert not world.engine._works.undo


async def test_a_memory_holds_rows_as_they_are_without_the_runs(tmp_path: pathlib.Path) -> None:
    memory = Memory(CHANGED)
    files = {**FILES, **scenario("RUN", burst("SPEND", 3, WORSE), FOREVER)}
    async with World(tmp_path, files, memory=memory).running() as world:
        before = rows(world)
        world.engine.simulate("RUN")
        await world.count("SPEND", 3)
        await world.engine.burst("ADD", 1)
        # And then it is killed
        memory.deaf = True
    async with World(tmp_path, files, memory=memory).running() as world:
        assert (row(world)["spent"], repr(row(world)["count"]), row(world)["category"]) == (0.3, "61", "NONE")
        assert rows(world)[0] == before[0]


async def test_a_run_of_events_that_get_lost_or_come_twice_is_given_back(tmp_path: pathlib.Path) -> None:
    lossy = {**ADD, "arrival": {"loss": "40%", "duplicates": "20%"}}
    files = {"streams.yaml": file(SVP, ADD=lossy)}
    files |= scenario("RUN", {"set": {"stream": "ADD", "interval": "5ms", "batch_size": 50}}, FOREVER)
    async with World(tmp_path, files).running() as world:
        before = rows(world)
        run = world.engine.simulate("RUN").run_id
        await world.count("ADD", 100)
        assert rows(world) != before
        world.engine.cancel(run)
        await until(lambda: not world.engine._works.undo)
        assert rows(world) == before


SCENARIOS = sorted(path.stem for path in (support.ROOT / "scenarios").glob("*.yaml"))


def shortened(folder: pathlib.Path) -> None:
    """Copies of the shipped files, in which only runs make events, and those within a tenth of their time."""
    for path in ("streams.yaml", *(f"scenarios/{name}.yaml" for name in SCENARIOS)):
        text = (support.ROOT / path).read_text()
        text = re.sub(r"^(    )interval: .*$", r"\1interval: 200h", text, flags=re.M)
        text = re.sub(r"^    rate: .*$", "    interval: 200h", text, flags=re.M)
        text = re.sub(r"\b(interval|for|wait): (\d+)s", r"\1: \g<2>00ms", text)
        # Nor does a row go on to its next state, which a stream would follow
        text = re.sub(r"\b(lasts|mean): \d+[hd]", r"\1: 366d", text)
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    (folder / "templates").symlink_to(support.ROOT / "templates")


def changeable(world: World) -> dict[str, list[str]]:
    """By entity what events may change of its rows."""
    workshop = world.engine._workshop
    return {
        entity: [repr([row[field] for field in fields]) for row in workshop.pools[entity]]
        for entity, fields in workshop.fields.items()
    }


@pytest.mark.parametrize("end", ["completed", "cancelled"])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_shipped_scenarios_leave_all_rows_as_they_were(tmp_path: pathlib.Path, name: str, end: str) -> None:
    shortened(tmp_path)
    async with World(tmp_path, {}).running() as world:
        before = changeable(world)
        run = world.engine.simulate(name.upper().replace("-", "_")).run_id
        if end == "cancelled":
            await until(lambda: changeable(world) != before and len(world.shown) > 20)
            world.engine.cancel(run)
        await world.ended(run, end)
        await until(lambda: not world.engine._works.undo)
        assert changeable(world) == before


NUMBERS = st.one_of(st.integers(-(10**20), 10**20), st.floats(-1e9, 1e9).map(lambda one: round(one, 2)))
VALUES = st.one_of(NUMBERS, st.text(max_size=2), st.none(), st.booleans(), st.lists(st.integers(0, 2), max_size=2))


@hypothesis.given(st.lists(st.tuples(st.sampled_from("AB-"), VALUES), max_size=12), VALUES, st.permutations("AB"))
def test_what_is_left_when_all_runs_have_ended_is_the_same_in_any_order(
    acts: list[tuple[str, Any]], first: Any, order: list[str]
) -> None:
    left = [_undone(acts, first, one) for one in (order, order[::-1])]
    assert left[0] == left[1]
    if all(run != "-" for run, _ in acts):
        assert repr(left[0]) == repr(first)


def _undone(acts: list[tuple[str, Any]], first: Any, order: list[str]) -> Any:
    log, found = undo.UndoLog(), lookup.Pools({"e": lookup.Rows([{"id": "a", "x": first}], "id")})
    one = found["e"][0]
    for run in order:
        log.begin(run, ())
    for run, value in acts:
        touched = undo.Touched()
        touched.append(("e", one))
        one["x"] = value
        if run == "-":
            # As it is when the row is remembered
            log.mask("e", "a", dict(one))
        else:
            log.record(run, touched, found, {"e": ["x"]})
    for run in order:
        log.undo(run, found)
    assert not log
    return one["x"]


@hypothesis.given(st.lists(st.tuples(st.sampled_from("A-"), st.decimals(0, 1000, places=2)), max_size=20))
def test_amounts_that_others_added_stay_to_the_cent(acts: list[tuple[str, Any]]) -> None:
    log, found = undo.UndoLog(), lookup.Pools({"e": lookup.Rows([{"id": "a", "x": 1000.0}], "id")})
    one, others = found["e"][0], 1000
    log.begin("A", ())
    for run, amount in acts:
        touched = undo.Touched()
        touched.append(("e", one))
        one["x"] = round(one["x"] + float(amount), 2)
        if run == "A":
            log.record(run, touched, found, {"e": ["x"]})
        else:
            others += amount
    log.undo("A", found)
    assert one["x"] == float(others)


@pytest.mark.parametrize(
    ("kept", "problem"),
    [
        ("svp.spnt", "entity 'svp' has no field 'spnt' (did you mean spent?)"),
        ("svq.spent", "unknown entity 'svq' (did you mean svp?)"),
        ("svp", "keeps[0]: must be ENTITY.FIELD, like svp.spent"),
        ("svp.a b", "keeps[0]: must be ENTITY.FIELD, like svp.spent"),
    ],
)
def test_what_a_scenario_keeps_is_checked(tmp_path: pathlib.Path, kept: str, problem: str) -> None:
    text = f"name: RUN\nkeeps:\n  - {kept}\nsteps:\n  - wait: 1s\n"
    world = World(tmp_path, {**FILES, "scenarios/run.yaml": text})
    with pytest.raises(config.errors.ConfigError) as caught:
        world.load()
    [found] = caught.value.problems
    assert str(found).endswith(f"run.yaml:3:5: {problem}")


def test_the_schema_of_scenarios_has_what_they_keep() -> None:
    keeps = config.files_schema("scenario")["properties"]["keeps"]
    assert keeps["type"] == "array" and re.fullmatch(keeps["items"]["pattern"], "svp.spent")
    assert spec.ScenarioSpec.model_validate({"name": "A", "keeps": ["a.b"], "steps": [FOREVER]}).kept == (("a", "b"),)
