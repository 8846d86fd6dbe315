"""Reloads: what moves, what must not, who may ask, and that any sequence of them ends where a fresh start does."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import logging
import os
import shutil

import hypothesis
import pytest
from hypothesis import strategies as st

from regstream import errors, reloader, spec
from tests import profiles
from tests.engine.world import World, file, scenario, stream, until

SVP = {"count": 4, "key": "id", "fields": {"id": "SVP-{{ index }}", "quota": 10, "spent": 0}}
SPENDING = {
    "with": {"svp": "{{ pick('svp') }}"},
    "fields": {"id": "{{ svp.id }}", "spent": "{{ svp.spent + 1 }}"},
    "update": {"svp.spent": "{{ spent }}"},
}


def last_spent(world: World) -> dict[str, int]:
    return {one["data"]["id"]: one["data"]["spent"] for one in world.events("A")}


# What moves and what must not


async def test_a_receipt_tells_what_became_of_each_stream(tmp_path):
    files = {"streams.yaml": file(KEPT=stream(), GONE=stream(), CHANGED=stream()), **scenario("OLD", {"wait": "1s"})}
    async with World(tmp_path, files).running() as world:
        assert world.door.receipt.generation == 1
        assert world.door.receipt.added == ("KEPT", "GONE", "CHANGED")
        receipt = await world.reload(
            {
                "streams.yaml": file(NEW=stream(), CHANGED=stream("2h"), KEPT=stream()),
                "scenarios/old.yaml": None,
                **scenario("NEWER", {"wait": "1s"}),
            }
        )
        assert receipt == world.door.receipt
        assert receipt.generation == 2
        assert (receipt.added, receipt.changed, receipt.removed, receipt.unchanged) == (
            ("NEW",), ("CHANGED",), ("GONE",), ("KEPT",),
        )  # fmt: skip
        assert (receipt.scenarios.added, receipt.scenarios.removed) == (("NEWER",), ("OLD",))
        assert [one.name for one in world.engine.streams()] == ["NEW", "CHANGED", "KEPT"]
        assert set(world.hub.channels) >= {"NEW", "CHANGED", "KEPT"} and "GONE" not in world.hub.channels
        with pytest.raises(errors.UnknownName):
            world.engine.stream("GONE")
    assert world.system.of("reloaded")[-1] == {
        "kind": "reloaded", "time": world.system.told[-1]["time"], "generation": 2, "reason": "test",
        "added": ["NEW"], "changed": ["CHANGED"], "removed": ["GONE"],
    }  # fmt: skip


async def test_warnings_are_logged_when_the_files_come_into_force(tmp_path, caplog):
    async with World(tmp_path, {"streams.yaml": file(A=stream(50))}).running() as world:
        (warning,) = world.door.receipt.warnings
        assert (warning.severity, warning.message) == ("warning", "interval: 50 is 50 ms")
        assert (await world.door.reload("test", dry_run=True)).warnings == (warning,)
        logged = [one.getMessage() for one in caplog.records if one.name == "regstream.reload"]
        assert logged.count(str(warning)) == 1
        assert caplog.records[[one.getMessage() for one in caplog.records].index(str(warning))].levelname == "WARNING"
        await world.reload({"streams.yaml": file(A=stream("50ms"))})
        assert world.door.receipt.warnings == ()


async def test_an_unchanged_stream_keeps_object_phase_numbers_and_entities(tmp_path):
    files = {"streams.yaml": file({"svp": SVP}, A=stream("2ms", **SPENDING), B=stream())}
    async with World(tmp_path, files).running() as world:
        await world.count("A", 20)
        lane = world.engine._floor.find("A")
        source, anchor, program = lane.source, lane.anchor, lane.source._variants[b""].program
        epoch = world.engine.stream("A").epoch
        receipt = await world.reload({"streams.yaml": file({"svp": SVP}, A=stream("2ms", **SPENDING), B=stream("2h"))})
        assert "A" in receipt.unchanged
        assert world.engine._floor.find("A") is lane and lane.source is source
        assert lane.anchor == anchor and source._variants[b""].program is program
        await world.count("A", len(world.seqs("A")) + 20)
        assert world.engine.stream("A").epoch == epoch
        assert sum(last_spent(world).values()) == world.seqs("A")[-1]
    world.whole()


async def test_a_changed_stream_keeps_numbers_entities_and_overlays(tmp_path):
    steps = {"set": {"stream": "A", "batch_size": 3, "fields": {"extra": 1}}}
    declared = {**SPENDING, "fields": {**SPENDING["fields"], "extra": 0}}
    before = file({"svp": SVP}, A=stream("2ms", **declared))
    files = {"streams.yaml": before, **scenario("RUN", steps, {"wait": "1h"})}
    async with World(tmp_path, files).running() as world:
        world.engine.simulate("RUN")
        await world.count("A", 20)
        epoch = world.engine.stream("A").epoch
        changed = {**declared, "fields": {**declared["fields"], "new": "{{ seq }}"}}
        receipt = await world.reload({"streams.yaml": file({"svp": SVP}, A=stream("3ms", **changed))})
        assert receipt.changed == ("A",)
        made = len(world.seqs("A"))
        data = [one["data"] for one in await world.count("A", made + 30)]
        status = world.engine.stream("A")
        assert (status.epoch, status.interval, status.batch_size, len(status.overlays)) == (epoch, 3.0, 3, 1)
        assert data[-1]["extra"] == 1 and data[-1]["new"] == world.seqs("A")[len(data) - 1]
        assert sum(last_spent(world).values()) == len(world.seqs("A"))
    world.whole()


async def test_rows_that_are_made_again_keep_what_events_had_changed(tmp_path):
    async with World(tmp_path, {"streams.yaml": file({"svp": SVP}, A=stream("2ms", **SPENDING))}).running() as world:
        await world.count("A", 40)
        wider = {**SVP, "count": 6, "fields": {**SVP["fields"], "quota": 99}}
        receipt = await world.reload({"streams.yaml": file({"svp": wider}, A=stream("2ms", **SPENDING))})
        assert (receipt.entities.changed, receipt.unchanged) == (("svp",), ("A",))
        await until(lambda: len(last_spent(world)) == 6)
        rows = {row["id"]: row for row in world.engine._workshop.pools["svp"]}
        assert {row["quota"] for row in rows.values()} == {99}
        await until(lambda: len(world.shown) == world.engine.stream("A").seq)
        assert sum(last_spent(world).values()) == len(world.seqs("A"))
    world.whole()


async def test_rows_whose_key_is_a_list_are_carried_too(tmp_path):
    listed = {"count": 3, "key": "id", "fields": {"id": "{{ [index, 'x'] }}", "spent": 0}}
    async with World(tmp_path, {"streams.yaml": file({"svp": listed}, A=stream("1ms", **SPENDING))}).running() as world:
        await world.count("A", 10)
        more = {**listed, "count": 4}
        await world.reload({"streams.yaml": file({"svp": more}, A=stream("1ms", **SPENDING))})
        await world.count("A", len(world.shown) + 5)
        assert sum(row["spent"] for row in world.engine._workshop.pools["svp"]) == world.engine.stream("A").seq


async def test_a_macro_that_changes_changes_the_rows_and_streams_made_with_it(tmp_path):
    use = "{% from 'm.j2' import name %}{{ name(index) }}"
    entity = {"svp": {"count": 2, "key": "id", "fields": {"id": "{{ index }}", "name": use}}}
    other = {"team": {"count": 2, "key": "id", "fields": {"id": "{{ index }}", "lead": "{{ pick('svp').name }}"}}}
    declared = stream(**{"with": {"t": "{{ pick('team') }}"}, "fields": {"lead": "{{ t.lead }}", "own": use}})
    macro = "{{% macro name(n) %}}{0}-{{{{ n }}}}{{% endmacro %}}".format
    files = {"streams.yaml": file({**entity, **other}, A=declared, B=stream()), "templates/m.j2": macro("old")}
    async with World(tmp_path, files).running() as world:
        await world.engine.burst("A", 1)
        receipt = await world.reload({"templates/m.j2": macro("new")})
        assert (receipt.changed, receipt.unchanged) == (("A",), ("B",))
        assert receipt.entities.changed == ("svp", "team")
        await world.engine.burst("A", 1)
        old, new = (one["data"] for one in await world.count("A", 2))
        assert old["lead"].startswith("old") and old["own"] == "old-0"
        assert new["lead"].startswith("new") and new["own"] == "new-0"


async def test_a_csv_file_that_changes_changes_the_streams_that_draw_from_it(tmp_path):
    draws = stream(fields={"x": "{{ empirical('t.csv', 'a') }}"})
    files = {"streams.yaml": file(A=draws, B=stream()), "templates/t.csv": "a\nold\n"}
    async with World(tmp_path, files).running() as world:
        await world.engine.burst("A", 1)
        receipt = await world.reload({"templates/t.csv": "a\nnew\n"})
        assert (receipt.changed, receipt.unchanged) == (("A",), ("B",))
        await world.engine.burst("A", 1)
        assert [one["data"]["x"] for one in await world.count("A", 2)] == ["old", "new"]
        with pytest.raises(errors.ConfigError):
            await world.reload({"templates/t.csv": "a\n1,2\n"})
        await world.engine.burst("A", 1)
        assert (await world.count("A", 3))[-1]["data"]["x"] == "new"


async def test_what_an_operator_set_goes_with_its_declaration_and_a_pause_stays(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=stream(), B=stream())}).running() as world:
        for name in "AB":
            world.engine.patch(name, batch_size=7)
            world.engine.pause(name)
        world.engine.stop(["B"])
        await world.reload({"streams.yaml": file(A=stream("2h"), B=stream())})
        found = {one.name: (one.batch_size, one.paused, one.enabled) for one in world.engine.streams()}
        assert found == {"A": (1, True, True), "B": (7, True, False)}
        await world.reload({"streams.yaml": file(A=stream("2h"), B=stream(enabled=False))})
        await world.reload({"streams.yaml": file(A=stream("2h", enabled=False), B=stream())})
        assert [one.enabled for one in world.engine.streams()] == [False, True]


async def test_a_stream_that_was_removed_ends_its_bursts_and_comes_back_with_a_new_epoch(tmp_path):
    world = World(tmp_path, {"streams.yaml": file(A=stream("1ms", batch_size=20), B=stream("1ms"))}, limit=50)
    async with world.running():
        await world.count("A", 20)
        world.flowing.clear()
        bursts = [asyncio.create_task(world.engine.burst("A", 500)) for _ in range(3)]
        # All workers wait for the broker, with events of the stream that goes
        await until(lambda: world.engine.stream("A").missed > 5 and world.engine.stream("B").missed > 5)
        epoch = world.engine.stream("A").epoch
        await world.reload({"streams.yaml": file(B=stream("1ms"))})
        world.flowing.set()
        ends = await asyncio.gather(*bursts, return_exceptions=True)
        assert any(isinstance(one, errors.Conflict) and "A was removed" in str(one) for one in ends)
        await world.count("B", len(world.seqs("B")) + 5)
        made = len(world.seqs("A"))
        await world.reload({"streams.yaml": file(A=stream("1ms"), B=stream("1ms"))})
        await world.count("A", made + 5)
        assert world.engine.stream("A").epoch != epoch
    world.whole()


# Refusals


async def test_a_refused_reload_changes_nothing_but_the_report(tmp_path, caplog):
    files = {"streams.yaml": file(A=stream("2ms"), B=stream()), **scenario("RUN", {"pause": "B"})}
    async with World(tmp_path, files).running() as world:
        before, channels = (world.engine.catalog, world.door.receipt), world.hub.channels
        bad = {
            "streams.yaml": file(A=stream("2x"), B=stream(fields={"a": "{{ c }}"})),
            **scenario("RUN", {"puse": "B"}),
        }
        with pytest.raises(errors.ConfigError) as caught:
            await world.reload(bad)
        told = [str(one) for one in caught.value.problems]
        assert len(told) == 3 and world.door.error is caught.value and world.door.refused == 1
        assert (world.engine.catalog, world.door.receipt) == before and world.hub.channels == channels
        assert [one["message"] for one in world.system.of("reload-refused")[0]["problems"]] == [
            one.message for one in caught.value.problems
        ]
        await world.count("A", len(world.seqs("A")) + 3)
        said = len(caplog.records)
        with pytest.raises(errors.ConfigError):
            await world.door.reload("again")
        assert len(caplog.records) == said and world.door.refused == 2
        assert caplog.messages[-1] == "reload refused (test): 3 problems, nothing was changed"
        receipt = await world.reload(files)
        assert (receipt.generation, world.door.error) == (2, None)
        assert set(receipt.unchanged) == {"A", "B"}
        counted = {("start", "applied"): 1, ("test", "applied"): 1, ("test", "refused"): 1, ("again", "refused"): 1}
        assert world.door.counts == counted
    world.whole()


@pytest.mark.parametrize(
    ("field", "message"),
    [("{{ 7 }}", "id: rows 1 and 2 have the same key '7'"), ("{{ 1 // index }}", "id: ZeroDivisionError")],
)
async def test_rows_that_cannot_be_made_refuse_the_reload_at_their_place(tmp_path, field, message):
    async with World(tmp_path, {"streams.yaml": file(A=stream())}).running() as world:
        text = f"""
            entities:
              svp:
                count: 2
                key: id
                fields:
                  id: "{field}"
            streams:
              A: {{interval: 1h, fields: {{n: 1}}}}
        """
        with pytest.raises(errors.ConfigError) as caught:
            await world.reload({"streams.yaml": text})
        (problem,) = caught.value.problems
        assert (problem.file, problem.line, problem.column) == (str(tmp_path / "streams.yaml"), 7, 11)
        assert problem.path == "entities.svp.fields.id" and problem.message.startswith(message)
        assert world.engine.catalog.entities == {}


async def test_the_first_refusal_is_told_to_who_started_and_not_logged(tmp_path, caplog):
    world = World(tmp_path, {"streams.yaml": "streams: {}"})
    with pytest.raises(errors.ConfigError):
        await world.door.reload("start")
    assert not caplog.records


async def test_a_dry_run_leaves_no_trace(tmp_path):
    async with World(tmp_path, {"streams.yaml": file({"svp": SVP}, A=stream("2ms", **SPENDING))}).running() as world:
        await world.count("A", 5)
        catalog, told, topics = world.engine.catalog, len(world.system.told), dict(world.broker._topics)
        receipt, pools = world.door.receipt, world.engine._workshop.pools
        world.write({"streams.yaml": file({"svp": {**SVP, "count": 9}}, NEW=stream(topic="new.topic"))})
        would = await world.door.reload("api", dry_run=True)
        assert (would.dry_run, would.generation, would.added, would.removed) == (True, 1, ("NEW",), ("A",))
        world.write({"streams.yaml": "streams: 1"})
        with pytest.raises(errors.ConfigError):
            await world.door.reload("api", dry_run=True)
        assert world.door.error is None and world.door.refused == 0
        assert world.engine.catalog is catalog and world.door.receipt is receipt
        assert world.engine._workshop.pools is pools and len(world.system.told) == told
        assert world.broker._topics.keys() == topics.keys()
        await world.count("A", len(world.seqs("A")) + 5)


async def test_a_door_that_closes_lets_no_reload_through(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=stream())}).running() as world:
        world.write({"streams.yaml": file(B=stream())})
        under_way = asyncio.create_task(world.door.reload("api"))
        waiting = asyncio.create_task(world.door.reload("api"))
        changed = asyncio.create_task(world.door.changed())
        await asyncio.sleep(0)
        world.door.close()
        for one in (under_way, waiting):
            with pytest.raises(errors.Conflict, match="stopping"):
                await one
        await changed
        assert [one.name for one in world.engine.streams()] == ["A"]


# One at a time


async def test_reloads_at_the_same_time_are_done_one_after_the_other(tmp_path):
    async with World(tmp_path, {"streams.yaml": file(A=stream())}).running() as world:
        under_way, most = 0, 0
        load = world.door._load

        def counted() -> spec.Catalog:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            try:
                return load()
            finally:
                under_way -= 1

        world.door._load = counted
        asked = [world.door.reload(f"{n}") for n in range(10)]
        receipts = await asyncio.gather(*asked, world.door.changed(), world.door.reload("x", dry_run=True))
        assert most == 1
        assert [one.generation for one in receipts[:10]] == list(range(2, 12))
        assert world.door.receipt.generation == 11


async def test_commit_never_yields(tmp_path):
    world = World(tmp_path, {"streams.yaml": file({"svp": SVP}, A=stream("1ms", **SPENDING), B=stream())})
    async with world.running():
        seen: list[int] = []
        commit = world.engine.commit

        def watched(prepared: object) -> None:
            turns: list[int] = []
            handle = asyncio.get_running_loop().call_soon(turns.append, 1)
            assert not inspect.isawaitable(commit(prepared))
            seen.append(len(turns))
            handle.cancel()

        world.engine.commit = watched
        for number in range(5):
            changed = {"svp": {**SVP, "count": 4 + number}}
            await world.reload({"streams.yaml": file(changed, A=stream("1ms", **SPENDING), **{f"C{number}": stream()})})
        assert seen == [0] * 5


async def test_a_storm_of_reloads_under_bursts_loses_nothing(tmp_path):
    def declared(number: int) -> dict[str, str]:
        one = stream("1ms", batch_size=1 + number % 3, fields={"n": "{{ seq }}", "generation": number})
        come = {f"COME{number % 2}": stream("2ms")}
        return {"streams.yaml": file({"svp": {**SVP, "count": 4 + number % 2}}, A=one, KEPT=stream("1ms"), **come)}

    world = World(tmp_path, declared(0), limit=500)
    async with world.running():
        bursts = [asyncio.create_task(world.engine.burst(name, 10_000)) for name in ("A", "KEPT")]
        for number in range(1, 40):
            await world.reload(declared(number))
        spans = await asyncio.gather(*bursts)
        assert all(last - first >= 9_999 for first, last in spans)
        assert world.door.receipt.generation == 40
        await until(lambda: world.events("A")[-1]["data"]["generation"] == 39)
    world.whole()


# Changed files


@pytest.fixture
async def watched(tmp_path):
    """A world whose files are watched."""
    files = {"streams.yaml": file(A=stream()), **scenario("OLD", {"wait": "1s"}), "templates/m.j2": "x"}
    world = World(tmp_path, files)
    async with world.running():
        watching = asyncio.create_task(reloader.watch(world.paths, world.door))
        yield world
        assert not watching.done()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def names(world: World) -> list[str]:
    return [one.name for one in world.engine.streams()]


async def test_a_file_that_is_written_in_place_is_seen(watched):
    watched.write({"streams.yaml": file(A=stream(), B=stream())})
    await until(lambda: names(watched) == ["A", "B"])
    assert watched.system.of("reloaded")[-1]["reason"] == "changed files"
    assert watched.door.counts["changed files", "applied"] >= 1 and "changed files" in reloader.SOURCES


async def test_a_file_that_is_replaced_as_editors_do_is_seen_each_time(watched):
    for number in range(4):
        beside = watched.folder / f".streams.yaml.{number}.swp"
        beside.write_text(file(A=stream(), **{f"N{number}": stream()}))
        beside.replace(watched.folder / "streams.yaml")
        await until(lambda number=number: names(watched) == ["A", f"N{number}"])
    backup = watched.folder / "streams.yaml~"
    (watched.folder / "streams.yaml").rename(backup)
    (watched.folder / "streams.yaml").write_text(file(LAST=stream()))
    await until(lambda: names(watched) == ["LAST"] and watched.door.error is None)


async def test_files_that_come_and_go_in_the_folders_are_seen(watched):
    watched.write(scenario("NEW", {"wait": "1s"}))
    await until(lambda: set(watched.engine.catalog.scenarios) == {"OLD", "NEW"})
    watched.write({"scenarios/old.yaml": None})
    await until(lambda: set(watched.engine.catalog.scenarios) == {"NEW"})
    watched.write({"templates/n.j2": "y"})
    await until(lambda: set(watched.engine.catalog.templates) == {"m.j2", "n.j2"})
    watched.write({"templates/m.j2": None})
    await until(lambda: set(watched.engine.catalog.templates) == {"n.j2"})
    watched.write({"templates/t.csv": "a\n1\n"})
    await until(lambda: set(watched.engine.catalog.templates) == {"n.j2", "t.csv"})
    watched.write({"templates/t.csv": "a\n2\n"})
    await until(lambda: watched.engine.catalog.templates["t.csv"] == "a\n2\n")


async def test_folders_that_come_go_and_are_replaced_are_watched(watched):
    shutil.rmtree(watched.folder / "scenarios")
    await until(lambda: not watched.engine.catalog.scenarios)
    for turn in range(3):
        watched.write(scenario(f"NEW{turn}", {"wait": "1s"}))
        await until(lambda turn=turn: set(watched.engine.catalog.scenarios) == {f"NEW{turn}"})
        watched.write(scenario(f"MORE{turn}", {"wait": "1s"}))
        await until(lambda: len(watched.engine.catalog.scenarios) == 2)
        # Gone and there again before anybody looks: the folder has the old name, but is another one
        shutil.rmtree(watched.folder / "scenarios")
        (watched.folder / "scenarios").mkdir()
        await until(lambda: not watched.engine.catalog.scenarios)


async def test_broken_files_are_told_and_repaired_ones_are_taken(watched, caplog):
    watched.write({"streams.yaml": "streams: {A: {interval: 1x}}"})
    error = await until(lambda: watched.door.error)
    assert names(watched) == ["A"] and len(error.problems) >= 1
    watched.write({"streams.yaml": file(A=stream(), B=stream())})
    await until(lambda: names(watched) == ["A", "B"])
    assert watched.door.error is None


async def test_a_file_that_is_away_for_a_moment_is_no_reason_to_forget_it(watched):
    text = (watched.folder / "streams.yaml").read_text()
    watched.write({"streams.yaml": None})
    error = await until(lambda: watched.door.error)
    assert "no such file" in str(error.problems[0])
    watched.write({"streams.yaml": text})
    await until(lambda: watched.door.error is None)
    assert names(watched) == ["A"]


class Clock:
    """Time that passes when somebody waits; ``then`` has what is written in which second, to which file."""

    def __init__(self, world: World, then: dict[float, tuple[str, str | None]]) -> None:
        self.now, self._world, self._then = 0.0, world, then
        world.door._settling = reloader.Settling(sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        for due in sorted(one for one in self._then if one <= self.now):
            path, text = self._then.pop(due)
            self._world.write({path: text})
        await asyncio.sleep(0)


SIX = {f"S{number}": stream() for number in range(6)}
WHOLE = file(**SIX)
HALF = file(**dict(list(SIX.items())[:3]))
FEWER = {"streams.yaml": file(**dict(list(SIX.items())[:5]))}
MORE = {"streams.yaml": file(**SIX, NEW=stream())}
WRITTEN = {
    # What is there at first, and what comes when; what it ends in, and whether streams were ever away
    "truncated and written": ("", {0.05: ("streams.yaml", MORE["streams.yaml"])}),
    "in pieces": (WHOLE[:40], {0.2: ("streams.yaml", WHOLE[:90]), 0.4: ("streams.yaml", MORE["streams.yaml"])}),
    "half, and the rest 4 s later": (HALF, {4.0: ("streams.yaml", MORE["streams.yaml"])}),
    "half, and the rest 9 s later": (HALF, {9.0: ("streams.yaml", MORE["streams.yaml"])}),
    "half, more, all": (
        HALF, {5.0: ("streams.yaml", FEWER["streams.yaml"]), 12.0: ("streams.yaml", MORE["streams.yaml"])}
    ),
    "away, and there again": (None, {0.2: ("streams.yaml", MORE["streams.yaml"])}),
    "a template first": (file(**SIX, NEW={"interval": "1h", "fields": {"n": "{% from 'n.j2' import m %}{{ m() }}"}}),
                         {0.2: ("templates/n.j2", "{% macro m() %}1{% endmacro %}")}),
}  # fmt: skip


@pytest.mark.parametrize(("first", "then"), WRITTEN.values(), ids=WRITTEN)
async def test_a_file_that_is_not_whole_yet_removes_nothing_and_is_no_problem(tmp_path, caplog, first, then):
    world = World(tmp_path, {"streams.yaml": WHOLE, "templates/m.j2": "x"})
    async with world.running():
        epochs = {one.name: one.epoch for one in world.engine.streams()}
        Clock(world, dict(then))
        world.write({"streams.yaml": first})
        await world.door.changed()
        after = {one.name: one.epoch for one in world.engine.streams()}
        assert epochs.items() <= after.items() and set(after) == {*SIX, "NEW"}
        assert world.door.refused == 0 and world.door.receipt.generation == 2


async def test_streams_go_when_the_file_has_said_so_for_long_enough(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    world = World(tmp_path, {"streams.yaml": WHOLE})
    async with world.running():
        clock = Clock(world, {})
        world.write(FEWER)
        await world.door.changed()
        assert set(names(world)) == set(SIX) - {"S5"}
        assert 10 <= clock.now < 11.5
        assert any("no longer declare S5" in one for one in caplog.messages)


@pytest.mark.parametrize("whole", [True, False])
async def test_streams_stay_while_somebody_has_the_file_open_for_writing(tmp_path, whole):
    world = World(tmp_path, {"streams.yaml": WHOLE})
    async with world.running():
        clock = Clock(world, {})
        path = tmp_path / "streams.yaml"
        world.door._settling = reloader.Settling(sleep=clock.sleep, is_written=lambda: reloader.is_written(path))
        with path.open("w") as writer:
            writer.write(HALF)
            writer.flush()
            changing = asyncio.create_task(world.door.changed())
            await until(lambda: clock.now > 60)
            assert set(names(world)) == set(SIX) and world.door.receipt.generation == 1
            if whole:
                writer.seek(0)
                writer.truncate()
                writer.write(MORE["streams.yaml"])
        await changing
        assert set(names(world)) == ({*SIX, "NEW"} if whole else {"S0", "S1", "S2"})


def test_nobody_writes_to_a_file_that_is_closed_or_away(tmp_path):
    path = tmp_path / "f"
    assert not reloader.is_written(path)
    path.write_text("x")
    assert not reloader.is_written(path)
    with path.open("a"):
        assert reloader.is_written(path)
    assert not reloader.is_written(path)


@pytest.mark.parametrize("reason", ["SIGHUP", "api"])
async def test_who_asks_for_a_reload_waits_for_nothing(tmp_path, reason):
    world = World(tmp_path, {"streams.yaml": WHOLE})
    async with world.running():
        waits, go = asyncio.Event(), asyncio.Event()

        async def sleep(seconds: float) -> None:
            waits.set()
            await go.wait()

        world.door._settling = reloader.Settling(sleep=sleep)
        world.write(FEWER)
        changing = asyncio.create_task(world.door.changed())
        await waits.wait()
        receipt = await world.door.reload(reason)
        assert receipt.removed == ("S5",)
        go.set()
        await changing
        assert world.door.receipt is receipt


async def test_a_file_that_changes_without_an_end_is_not_taken_half(tmp_path):
    world = World(tmp_path, {"streams.yaml": WHOLE})
    async with world.running():
        then = {0.25 * number: ("streams.yaml", WHOLE + " " * number) for number in range(1, 24)}
        clock = Clock(world, then | {6.1: ("streams.yaml", MORE["streams.yaml"])})
        world.write({"streams.yaml": WHOLE + "  "})
        await world.door.changed()
        assert set(names(world)) == {*SIX, "NEW"} and clock.now > 6.1
        assert world.door.receipt.generation == 2


async def test_a_touch_is_no_reload_but_asking_for_one_is(watched, caplog):
    caplog.set_level(logging.INFO)
    looks = []
    digest = watched.door._digest
    watched.door._digest = lambda: looks.append(1) or digest()
    for path in ("streams.yaml", "scenarios/old.yaml", "templates/m.j2"):
        seen = len(looks)
        os.utime(watched.folder / path)
        (watched.folder / path).write_bytes((watched.folder / path).read_bytes())
        await until(lambda seen=seen: len(looks) > seen)
    assert watched.door.receipt.generation == 1
    receipt = await watched.door.reload("api")
    assert (receipt.generation, receipt.unchanged) == (2, ("A",))


def test_files_of_others_concern_nobody(tmp_path):
    paths = reloader.Paths(tmp_path / "streams.yaml", tmp_path / "scenarios", tmp_path / "templates")
    for one in (
        "streams.yaml",
        "..data",
        "scenarios",
        "scenarios/a.yaml",
        "templates/a.j2",
        "templates/a.csv",
        "templates/..data",
    ):
        assert paths.concerns(tmp_path / one), one
    for one in (
        "other.yaml",
        "streams.yaml~",
        ".streams.yaml.swp",
        "scenarios/a.txt",
        "scenarios/.a.yaml.swp",
        "x/a.yaml",
    ):
        assert not paths.concerns(tmp_path / one), one


# Any sequence ends in the state of a fresh start

ENTITIES = {
    "svp": [SVP, {**SVP, "count": 6}, {**SVP, "fields": {**SVP["fields"], "quota": "{{ randint(1, 99) }}"}}],
    "team": [
        {"count": 3, "key": "id", "fields": {"id": "{{ index }}", "lead": "{{ pick('svp').id }}"}},
        {"count": 3, "key": "id", "fields": {"id": "{{ index }}", "lead": "{% from 'm.j2' import f %}{{ f(index) }}"}},
    ],
}
STREAMS = {
    "A": [stream(), stream("2h", batch_size=3, priority="HIGH"), stream(fields={"n": "{{ uniform(0, 1) }}"})],
    "B": [stream(**SPENDING), stream(topic="t", event="e", **SPENDING), stream(enabled=False, **SPENDING)],
    "C": [
        {"schedule": "5 4 * * *", "fields": {"t": "{{ pick('team').lead }}"}},
        stream(jitter="50%", fields={"m": "{% from 'm.j2' import f %}{{ f(seq) }}"}),
    ],
}
MACROS = ["{% macro f(n) %}one-{{ n }}{% endmacro %}", "{% macro f(n) %}two-{{ n }}{{ randint(1, 9) }}{% endmacro %}"]
SCENARIOS = {
    "ONE": [[{"wait": "1s"}], [{"alert": {"message": "hello"}}]],
    "TWO": [
        [{"burst": {"stream": "A", "count": 2}}],
        [{"set": {"stream": "A", "fields": {"n": "{{ pick('svp').id }}"}}}],
    ],
}


def chosen(known: dict) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in known.items()})


FILES = st.fixed_dictionaries(
    {
        "seed": st.sampled_from([7, 7, 8]),
        "speed": st.sampled_from([1.0, 1.0, 20.0]),
        "entities": st.fixed_dictionaries({name: st.sampled_from(values) for name, values in ENTITIES.items()}),
        "streams": chosen(STREAMS).filter(bool),
        "scenarios": chosen(SCENARIOS),
        "macro": st.sampled_from(MACROS),
        "broken": st.sampled_from([False, False, False, True]),
    }
)


def texts(made: dict) -> dict[str, str]:
    scenarios = {name: steps for name, steps in made["scenarios"].items() if name != "TWO" or "A" in made["streams"]}
    # An entity may refer to those before it
    entities = {name: made["entities"][name] for name in ENTITIES}
    head = {"seed": made["seed"], "profiles": {"test": {"speed": made["speed"]}}, "entities": entities}
    found = {"streams.yaml": json.dumps({**head, "streams": made["streams"]}), "templates/m.j2": made["macro"]}
    for name, steps in scenarios.items():
        found |= scenario(name, *steps)
    if made["broken"]:
        found["scenarios/broken.yaml"] = "name: BROKEN\nsteps: [{puse: A}]"
    return found


def in_force(world: World) -> dict:
    """All that decides what a daemon does from here, without identities and history."""
    at, found = 2e9, {}
    for lane in world.engine._floor.all():
        status = world.engine.stream(lane.name)
        source, lane.anchor = lane.source, 1e9
        source.epoch, source.seq = "E", 1000
        overlaid = source.next_batch(at, 3, {"x": "{{ seq }}{% from 'm.j2' import f %}{{ f(1) }}"})
        source.seq = 2000
        batch = source.next_batch(at, 40)
        points = [lane.schedule().first(at + step) for step in (0, 1e4, 1e6)]
        kept = ("name", "topic", "event", "state", "interval", "schedule", "batch_size", "priority", "target_rate")
        found[lane.name] = (
            lane.spec, [getattr(status, key) for key in kept], points, batch.events, batch.error, overlaid.events,
        )  # fmt: skip
    catalog = world.engine.catalog
    return {
        "order": list(found), "streams": found, "channels": set(world.hub.channels),
        "pools": world.engine._workshop.pools,
        "scenarios": dict(catalog.scenarios), "entities": dict(catalog.entities), "profile": catalog.profile,
        "seed": world.engine._workshop.seed, "lines": set(world.engine._clock._lines), "digest": catalog.digest,
    }  # fmt: skip


@hypothesis.given(st.lists(FILES, min_size=1, max_size=6))
@hypothesis.settings(max_examples=profiles.examples(50), suppress_health_check=list(hypothesis.HealthCheck))
def test_any_sequence_of_reloads_ends_in_the_state_of_a_fresh_start(tmp_path_factory, sequence):
    asyncio.run(play(tmp_path_factory.mktemp("sequence"), [{**sequence[0], "broken": False}, *sequence[1:]]))


async def play(folder, sequence):
    (folder / "long").mkdir()
    (folder / "fresh").mkdir()
    world, good = World(folder / "long", texts(sequence[0])), sequence[0]
    async with world.running(streaming=False):
        for made in sequence[1:]:
            for path in (folder / "long").glob("*/*"):
                path.unlink()
            try:
                await world.reload(texts(made))
                good = made
            except errors.ConfigError:
                assert made["broken"]
        fresh = World(folder / "fresh", texts(good))
        async with fresh.running(streaming=False):
            ours, theirs = in_force(world), in_force(fresh)
            for key in ours:
                assert ours[key] == theirs[key], key


# Memory


async def test_many_reloads_leave_nothing_behind(tmp_path):
    def declared(number: int) -> dict[str, str]:
        fields = {"n": "{{ seq }}", "m": "{% from 'm.j2' import f %}{{ f(seq) }}", "g": number}
        return {
            "streams.yaml": file(
                {"svp": {**SVP, "count": 5 + number % 2}}, A=stream(fields=fields), B=stream(**SPENDING)
            ),
            "templates/m.j2": MACROS[number % 2],
        }

    async with World(tmp_path, declared(0)).running() as world:
        counts = []
        for number in range(1, 61):
            await world.reload(declared(number))
            await world.engine.burst("A", 2)
            if number % 20 == 0:
                gc.collect()
                made = [type(one).__name__ for one in gc.get_objects()]
                counts.append({kind: made.count(kind) for kind in ("Sandbox", "Workshop", "Stream", "Lane", "Catalog")})
        assert counts[0] == counts[1] == counts[2]
