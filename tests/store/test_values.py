"""Whatever a template makes comes back from the spool and the database with its type, its order and each character."""

from __future__ import annotations

import datetime
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import jinja2.filters
import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstream import config, spec
from regstream.event import Event
from regstream.functions import registry
from regstream.generator import persistence as generator_persistence
from regstream.generator import stream as streams
from regstream.store import journal, persistence, reader, rows
from tests import databases
from tests.store import making, test_recorder
from tests.store.making import Rig, events, kept, records

CONTROL = test_recorder.TestNotes.CONTROL
mark_safe = jinja2.filters.do_mark_safe
ANY_TEXT = st.text(st.characters(exclude_categories=()))
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**4096), 2**4096)
    | st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1])
    | st.floats()
    | st.sampled_from([1.0, -0.0, 0.0, 1e15, 1e16, 1e22, 1e-15, 1e-16, 5e-324, 1.7976931348623157e308])
    | ANY_TEXT
    | st.sampled_from(["", "\0", "\ud83c\udfe6", "\U0001f3e6", "\\u0000", "$text", "2026-01-01T00:00:00Z"])
    | ANY_TEXT.map(mark_safe)
    | st.datetimes()
    | st.datetimes(timezones=st.just(datetime.UTC))
    | st.floats(0, 4e9).map(registry.Instant.at)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23)).map(datetime.timezone)
    | st.builds(range, st.integers(-9, 9), st.integers(-(2**70), 2**70), st.integers(1, 9))
    | st.datetimes().map(datetime.datetime.timetuple)
)
CIRCLE: dict[str, Any] = {}
CIRCLE["itself"] = CIRCLE
KEYS = st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.tuples(st.integers(), ANY_TEXT)


@pytest.fixture(scope="module")
def connection(request: pytest.FixtureRequest) -> Iterator[psycopg.Connection]:
    """One for all examples of a property."""
    databases.need(request.node.nodeid)
    with psycopg.connect(request.getfixturevalue("_postgres").empty(), autocommit=True) as made:
        yield made


def _deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    mappings = st.dictionaries(KEYS | st.sampled_from(["$int", "$text", "a", "bb", "ab", "1"]), inner, max_size=4)
    views = [lambda one: one.keys(), lambda one: one.values(), lambda one: one.items()]
    lists = st.lists(inner, max_size=4)
    return (
        lists | lists.map(tuple) | mappings
        | st.builds(lambda view, one: view(one), st.sampled_from(views), mappings)
    )  # fmt: skip


VALUES = st.recursive(LEAVES, _deeper, max_leaves=12)


def same(one: Any, other: Any) -> bool:
    """Whether they are equal, with their types, signs and order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return math.copysign(1.0, one) == math.copysign(1.0, other) and (
            one == other or (math.isnan(one) and math.isnan(other))
        )
    if isinstance(one, dict):
        return same([*one.items()], [*other.items()])
    if isinstance(one, list | tuple) or type(one).__name__.startswith("dict_"):
        here, there = list(one), list(other)
        return len(here) == len(there) and all(map(same, here, there))
    if isinstance(one, datetime.datetime):
        return bool(one == other and one.isoformat() == other.isoformat())
    return bool(one == other)


class TestEveryValue:
    @given(VALUES)
    def test_comes_back_from_the_spool(self, value: Any) -> None:
        assert same(
            generator_persistence.decode(orjson.loads(orjson.dumps(generator_persistence.encode(value)))), value
        )

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(value=VALUES)
    def test_comes_back_from_jsonb(self, connection: psycopg.Connection, value: Any) -> None:
        row = connection.execute(
            "SELECT %s::jsonb", [rows.jsonb({"x": generator_persistence.encode(value)})]
        ).fetchone()
        assert row is not None and same(generator_persistence.decode(row[0]["x"]), value)

    @given(ANY_TEXT | st.sampled_from(["nul\0", "\ud800", "\ud83c\udfe6", "\\ud800", "\ue000"]))
    def test_a_key_comes_back_in_a_row(self, key: str) -> None:
        row = ("S", "E", 1, "s", datetime.datetime.now(datetime.UTC), rows.escaped(key), "LOW", "R", "{}")
        assert generator_persistence.plain(rows.escaped(key)) and rows.event(row).key == key

    @given(st.integers(0, 253_402_300_799_999))
    def test_a_time_comes_back_in_a_row(self, millis: int) -> None:
        text = registry.time_text(millis / 1000)
        row = ("S", "E", 1, "s", datetime.datetime.fromisoformat(text), None, "LOW", "R", "{}")
        assert rows.event(row).head.time == text

    @given(st.integers())
    def test_a_seed_comes_back_from_the_spool(self, seed: int) -> None:
        assert restarted([], lambda one: one.seed(seed)).seed(seed + 1) == seed

    @pytest.mark.parametrize(
        "wrap", [lambda one: [one], lambda one: (one,), lambda one: {1: one}, lambda one: {"a": one}]
    )
    def test_one_that_is_too_deep_is_refused_and_the_deepest_that_is_not_can_be_written(self, wrap: Any) -> None:
        value, written, levels = "\0", {}, 0
        with pytest.raises(ValueError, match="240 levels"):
            while levels < 1_000:
                written = {"entity": {"key": {"field": generator_persistence.encode(value)}}}
                deepest, value, levels = value, wrap(value), levels + 1
        assert levels >= 80
        assert generator_persistence.decode(orjson.loads(orjson.dumps(written))["entity"]["key"]["field"]) == deepest

    @pytest.mark.parametrize("value", [{"$int": "x"}, {"$tuple": 5}, {"$range": [1, 2, 3, 4]}, {"$instant": None}])
    def test_what_nothing_was_is_no_value(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r".+"):
            generator_persistence.decode(value)


def restarted(left: list[Event], work: Any) -> persistence.StreamStates:
    """What the next start finds in the spool, after ``work`` was done with the memory of this one."""
    pen = journal.Journal("E1", lambda: making.SECOND)
    work(persistence.StreamStates(lambda kind, value: left.append(pen.write(kind, value)), numbers=True))
    again = persistence.StreamStates(lambda *_: None, numbers=True)
    again.leave(left, {})
    return again


EXPRESSIONS = {
    "float": "1.0", "large": "1e22", "whole": "2 ** 53 + 1", "huge": "10 ** 1000", "negative zero": "-0.0",
    "nul": r"'a\x00b'", "far": r"'\U0001f3e6'", "time": "now", "span": "now - now",
    "date": "now.date()", "tuple": "(1, 'a')", "order": "{'b': 1, 'a': 2}", "keys": "{1: 'x', '1': 'y'}",
    "views": "{'a': 1}.items()", "markup": "'<' | escape", "nested": "[1, [2.0, {'a': (none, true)}]]",
    "fields": "now.timetuple()", "text of a time": "now | string",
}  # fmt: skip
CATALOG = """version: 1
entities:
  svp: {count: 1, key: id, fields: {id: a, other: 0, x: 0}}
streams:
  S:
    interval: 1s
    with: {svp: "{{ pick('svp') }}"}
    fields: {n: 1, t: "{{ svp.x | string }}"}
    update: {svp.other: "{{ seq }}", svp.x: %s}
"""


def workshop(folder: pathlib.Path, expression: str) -> streams.GenerationContext:
    path = folder / "streams.yaml"
    path.write_text(CATALOG % orjson.dumps("{{ " + expression + " }}").decode())
    made = streams.GenerationContext(
        config.load(path, folder / "none", folder / "templates", "development"), 1, streams.Identity("s", "r")
    )
    made.fill(making.SECOND)
    return made


def after_an_event(folder: pathlib.Path, expression: str) -> tuple[streams.GenerationContext, dict[str, Any]]:
    here = workshop(folder, expression)
    batch = streams.Stream(here.catalog.streams["S"], here, "E").next_batch(making.SECOND, 1)
    assert batch.error is None
    return here, here.states(batch.touched)


class TestRowsOfEntities:
    @pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
    def test_are_after_a_restart_what_the_event_made_of_them(self, tmp_path: pathlib.Path, expression: str) -> None:
        here, changes = after_an_event(tmp_path, expression)
        again = restarted([], lambda one: one.keep(changes))
        there = workshop(tmp_path, expression)
        there.recall(streams.GenerationContext(spec.EMPTY, 1, there.identity), again.rows)
        assert same(there.pools["svp"][0], here.pools["svp"][0])
        # And what events say next is the same
        said = [
            streams.Stream(one.catalog.streams["S"], one, "E", 1).next_batch(making.SECOND, 1) for one in (here, there)
        ]
        assert [one.value for one in said[0].events] == [one.value for one in said[1].events]

    @pytest.mark.parametrize("value", [datetime.date(2026, 3, 26).isocalendar(), "x".upper, CIRCLE])
    def test_a_value_that_cannot_be_kept_is_counted_and_named_and_holds_up_no_other(self, value: Any) -> None:
        changes = {"svp": {"a": {"other": 1, "x": value}}}
        counted: list[persistence.StreamStates] = []

        def work(one: persistence.StreamStates) -> None:
            one.keep({"svp": {"a": {"other": 7, "x": 8.0}}})
            one.keep(changes)
            counted.append(one)

        again = restarted([], work)
        assert again.rows("svp") == {"a": {"other": 7, "x": 8.0}}
        assert counted[0].refused == 1 and counted[0].refusal.startswith("row svp/a: ")
        assert "cannot be kept" in counted[0].refusal

    @pytest.mark.parametrize("key", ["nul\0", "\ud800"])
    def test_so_is_a_row_whose_key_cannot_be(self, key: str) -> None:
        counted: list[persistence.StreamStates] = []

        def work(one: persistence.StreamStates) -> None:
            one.keep({"svp": {key: {"x": 1}, "b": {"x": 2}}})
            counted.append(one)

        assert restarted([], work).rows("svp") == {"b": {"x": 2}}
        assert counted[0].refused == 1 and generator_persistence.escaped(key) in counted[0].refusal

    async def test_are_the_same_from_the_database(self, rig: Rig) -> None:
        state = {
            "float": 1.0, "large": 1e22, "zero": -0.0, "whole": 2**64, "text": "a\0\ud800", "order": {"b": 1, "a": 2},
            "keys": {1: "x", "1": "y"}, "time": registry.Instant.at(making.SECOND), "tuple": (1, [2.0]),
        }  # fmt: skip
        one = await rig.open()
        one.memory.keep({"svp": {"a": state}})
        one.memory.keep({"svp": {"b": {"x": object()}}})
        await kept(one)
        assert one.status.refused == 1 and "svp/b" in one.status.refusal
        await one.close()
        again = await rig.open()
        assert same(dict(sorted(again.memory.rows("svp")["a"].items())), dict(sorted(state.items())))
        # What PostgreSQL holds exactly can be asked for as it is
        assert rig.rows("SELECT state -> 'float' FROM regstream.entities WHERE key = 'a'") == [(1.0,)]

    async def test_a_row_that_nobody_understands_is_passed_over(self, rig: Rig) -> None:
        for key, state in (("bad", '{"x":{"$int":"?"}}'), ("list", "[]"), ("good", '{"x":1}')):
            rig.rows("INSERT INTO regstream.entities VALUES ('svp', %s, %s)", key, state)
        one = await rig.open()
        assert (one.status.state, one.status.refused) == ("live", 2)
        assert one.memory.rows("svp") == {"good": {"x": 1}}


async def test_events_have_their_keys_again(rig: Rig) -> None:
    one = await rig.open()
    keys = ["plain", "", "nul\0", "\ud800", "\ud83c\udfe6", "\U0001f3e6", "ü", "\\x00", "\ue000", None]
    some = [event for seq, key in enumerate(keys, 1) for event in events(1, first=seq, key=key)]
    one.record(records(some))
    await kept(one)
    found = await one.archive.events(reader.EventQuery(), reader.START, 100)
    assert [(event.key, event.value) for _, event in found] == [(event.key, event.value) for event in some]
    assert one.status.refused == 0


async def test_a_call_with_a_text_that_looks_like_an_escape_is_kept(rig: Rig) -> None:
    one = await rig.open()
    request = {"a": "\\u0000", "b": "\\\\u0000", "c": "x\0\0"}
    one.note(CONTROL._replace(request=request))
    await kept(one)
    ((_, call),) = await one.archive.controls()
    assert call.request == request | {"c": "x\ufffd\ufffd"} and one.status.refused == 0
