"""Whatever server, role and environment give a session, the store does the same; texts come back as they went in."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import pathlib
import re
from collections.abc import Iterator
from typing import Any
from urllib import parse

import psycopg
import pytest

from regstream import errors
from regstream.broker import backoff
from regstream.event import Event
from regstream.store import journal, pool, reader, schema, writer
from tests import databases
from tests.store import making, test_recorder
from tests.store.making import Rig, events, kept, records, until

HOSTILE = {
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "search_path": "hostile, pg_catalog",
    "lock_timeout": "1ms",
    "statement_timeout": "100ms",
    "idle_session_timeout": "2s",
    "idle_in_transaction_session_timeout": "1ms",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "exit_on_error": "on",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "timezone_abbreviations": "India",
    "synchronous_commit": "off",
}
CONTROL = test_recorder.TestNotes.CONTROL
QUESTION = reader.EventQuery(("ONE",))
FAR = "zürich 銀行 \U0001f3e6 €"


class TestSettings:
    @pytest.fixture(params=["database", "role", "environment"])
    def hostile(self, request: pytest.FixtureRequest, database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
        """The address of a database whose sessions begin with these settings, given by one of those who may."""
        # One that would answer for the server's own
        lock = "pg_try_advisory_lock(bigint) RETURNS bool LANGUAGE sql AS 'SELECT NULL::bool'"
        databases.rows(database_url, f"CREATE SCHEMA hostile CREATE TABLE unused (); CREATE FUNCTION hostile.{lock}")
        if request.param == "environment":
            for variable, name in (
                ("DATESTYLE", "DateStyle"),
                ("TZ", "TimeZone"),
                ("CLIENTENCODING", "client_encoding"),
            ):
                monkeypatch.setenv(f"PG{variable}", HOSTILE[name])
            given = (f"-c {name}={value}".replace(", ", ",") for name, value in HOSTILE.items())
            monkeypatch.setenv("PGOPTIONS", " ".join(given))
            return database_url
        # Of this database alone in both cases: other tests have the same role
        here = '"' + parse.urlsplit(database_url).path[1:] + '"'
        whom = f"DATABASE {here}" if request.param == "database" else f"ROLE CURRENT_USER IN DATABASE {here}"
        with psycopg.connect(database_url, autocommit=True) as connection:
            for name, value in HOSTILE.items():
                given = value if name == "search_path" else f"'{value}'"
                connection.execute(f"ALTER {whom} SET {name} = {given}".encode())
        return database_url

    async def test_every_one_is_as_it_is_relied_on(self, hostile: str) -> None:
        connection = await pool.Database(hostile).connect()
        try:
            found = dict(await pool.fetch(connection, pool.sql.SQL("SELECT name, setting FROM pg_settings")))
            shown = {
                name: (await pool.fetch(connection, pool.sql.SQL(f"SHOW {name}")))[0][0]  # type: ignore[arg-type]
                for name in pool.SETTINGS
                if name in found
            }
        finally:
            await connection.close()
        wanted = {"statement_timeout": "0", "idle_in_transaction_session_timeout": "1min"}
        assert shown == {name: wanted.get(name, value) for name, value in pool.SETTINGS.items() if name in found}
        assert found["client_encoding"] == "UTF8"

    async def test_what_is_kept_is_the_same_after_a_second_start(self, hostile: str, tmp_path: pathlib.Path) -> None:
        rig = Rig(hostile, tmp_path / "store")
        some = events(5, key=FAR, at=0.123, every=1.0, data=lambda seq: f'{{"n":{seq},"t":"{FAR}"}}'.encode())
        one = await rig.open()
        assert one.status.state == "live", one.status.reason
        one.record(records(some))
        one.note(CONTROL)
        one.memory.keep({"svp": {FAR: {"spend": 0.1}}})
        await kept(one)
        await one.close()
        again = await rig.open()
        assert again.status.state == "live", again.status.reason
        assert again.memory.rows("svp") == {FAR: {"spend": 0.1}}
        assert [one.value for one in again.memory.past("ONE")] == [one.value for one in some]
        found = await again.archive.events(QUESTION, reader.START, 10)
        assert [(event.value, event.key, event.head.time) for _, event in found] == [
            (one.value, one.key, one.head.time) for one in some
        ]
        (bucket,) = await again.archive.figures(
            reader.EventQuery(("ONE",), making.SECOND, making.SECOND + 60), reader.Figures("avg", ("n",), 60)
        )
        assert (bucket.time, bucket.value) == (making.SECOND // 60 * 60, 3.0)
        assert [call for _, call in await again.archive.controls()] == [CONTROL]
        assert [name for name, _ in rig.states] == ["live", "closed", "live"]
        await rig.close()


@pytest.fixture
def encoded(request: pytest.FixtureRequest, empty_database: str) -> Iterator[str]:
    """The address of a database in another encoding."""
    name = f"regstream_{request.param.lower()}_{parse.urlsplit(empty_database).path[1:]}"
    databases.rows(empty_database, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{request.param}' LOCALE 'C'")
    yield databases.on(empty_database, name)
    databases.rows(empty_database, f"DROP DATABASE {name} WITH (FORCE)")


class TestEncodings:
    """Texts come back as they went in, or are refused, and counted with the cause."""

    TEXTS = ("plain", "zürich", FAR)
    # The last of these comes back as its wide form
    JAPANESE = ("plain", "東京", "a¦b")

    @pytest.mark.parametrize(
        ("encoded", "texts", "fitting"),
        [("SQL_ASCII", TEXTS, 3), ("LATIN1", TEXTS, 2), ("EUC_KR", TEXTS, 1), ("EUC_JP", JAPANESE, 2)],
        indirect=["encoded"],
    )
    async def test_of_the_database(
        self, encoded: str, texts: tuple[str, ...], fitting: int, tmp_path: pathlib.Path
    ) -> None:
        rig = Rig(encoded, tmp_path / "store")
        one = await rig.open()
        some = [
            event
            for seq, text in enumerate(texts, 1)
            for event in events(1, first=seq, key=text, data=lambda _, text=text: f'{{"t":"{text}"}}'.encode())
        ]
        one.record(records(some))
        for text in texts:
            one.memory.keep({"svp": {text: {"name": text}}})
            one.note(CONTROL._replace(actor=text))
        await kept(one)
        found = await one.archive.events(QUESTION, reader.START, 10)
        assert [(event.value, event.key) for _, event in found] == [
            (event.value, event.key) for event in some[:fitting]
        ]
        assert [call.actor for _, call in await one.archive.controls()] == list(texts[:fitting])
        status = one.status
        assert (status.state, status.recorded, status.refused) == ("live", fitting, 3 * (3 - fitting))
        if fitting < 3:
            assert re.search("has no equivalent|gives '¦' back as another", status.refusal)
        await one.close()
        again = await rig.open()
        assert again.memory.rows("svp") == {text: {"name": text} for text in texts[:fitting]}
        await rig.close()

    @pytest.mark.parametrize("encoded", ["MULE_INTERNAL"], indirect=True)
    async def test_one_that_cannot_be_told_in_unicode_is_away(self, encoded: str, tmp_path: pathlib.Path) -> None:
        rig = Rig(encoded, tmp_path / "store")
        one = await rig.open()
        assert one.status.state == "away" and "MULE_INTERNAL" in one.status.reason
        await rig.close()


class TestWhateverFails:
    """It is ``away`` with the reason and begins anew; the daemon goes on."""

    @pytest.fixture(autouse=True)
    def _at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backoff, "SOON", 0.01)
        monkeypatch.setattr(backoff, "LONGEST", 0.01)

    @pytest.mark.parametrize(
        "place", [(writer.EventsTable, "write"), (schema.Partitions, "find"), (writer.EventsTable, "seed")]
    )
    async def test_while_it_records(self, rig: Rig, monkeypatch: pytest.MonkeyPatch, place: tuple[type, str]) -> None:
        faults: list[Exception] = [
            KeyError("state"), ValueError("no number"), OverflowError("too large"), AttributeError("gone"),
            NotImplementedError("can't parse"), RecursionError("deep"), MemoryError(), RuntimeError("odd"),
            psycopg.DataError("data"), psycopg.InternalError("server"), psycopg.NotSupportedError("not here"),
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"), TimeoutError(), StopAsyncIteration("end"),
            errors.StoreError("away"), AssertionError(), EOFError("end"), ExceptionGroup("many", [KeyError("one")]),
        ]  # fmt: skip
        count, right = len(faults), getattr(*place)

        async def failing(*given: Any) -> Any:
            if faults:
                raise faults.pop()
            return await right(*given)

        monkeypatch.setattr(*place, failing)
        one = await rig.open()
        one.record(records(events(10)))
        serving = asyncio.create_task(one.serve())
        await until(lambda: one.status.recorded == 10)
        assert not serving.done() and rig.numbers() == list(range(1, 11))
        told = [reason for name, reason in rig.states if name == "away"]
        assert told and all(told) and len(told) <= count
        serving.cancel()

    async def test_the_reason_names_the_class_where_the_text_says_nothing(self) -> None:
        assert pool.fault(KeyError("state")).reason == "KeyError: 'state'"
        assert pool.fault(AssertionError()).reason == "AssertionError: AssertionError"
        assert pool.fault(psycopg.DataError("bad\nline 2")).reason == "bad"

    async def test_notes_that_nobody_understands_are_refused_and_hold_up_none(self, rig: Rig) -> None:
        one = await rig.open(url="postgresql://regstream@127.0.0.1:1/none")
        pen = journal.Journal("E0", lambda: making.SECOND)
        bad = [(journal.AUDIT, b"{"), (journal.AUDIT, b"[1]"), (journal.SEED, b"x"), (journal.ENTITIES, b"[]"),
               (journal.ENTITIES, b'{"svp":1}'), (journal.ENTITIES, b"\xff")]  # fmt: skip
        one._intake.put([pen.write(kind, value) for kind, value in bad])
        one.note(CONTROL)
        one.record(records(events(2)))
        await one.close()
        again = await rig.open()
        await kept(again)
        assert (again.status.refused, rig.numbers()) == (len(bad), [1, 2])
        assert again.status.refusal.startswith("note /entities/E0/3: ")
        assert [call for _, call in await again.archive.controls()] == [CONTROL]

    async def test_of_many_notes_only_those_are_refused_that_no_row_can_hold(self, rig: Rig) -> None:
        one = await rig.open()
        one.note(CONTROL._replace(status=2**40))
        one.note(CONTROL)
        one.record(records(events(1)))
        await kept(one)
        assert [call for _, call in await one.archive.controls()] == [CONTROL]
        assert one.status.refused == 1 and "out of range" in one.status.refusal

    async def test_an_event_that_cannot_be_written_as_a_row_holds_up_none(self, rig: Rig) -> None:
        odd = events(1, first=2)[0]._replace(key=5)  # type: ignore[arg-type]
        written = await _written(rig, [*events(1), odd, *events(1, first=3)])
        assert (written.events, written.refused, rig.numbers()) == (2, 1, [1, 3])

    async def test_a_value_too_deep_for_the_server_is_refused(self, rig: Rig) -> None:
        one = await rig.open()
        deep = b'{"d":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
        one.record(records([*events(1), *events(1, first=2, data=lambda _: deep), *events(1, first=3)]))
        await until(lambda: one.status.recorded == 2)
        assert one.status.refused == 1 and "stack depth" in one.status.refusal
        assert [name for name, _ in rig.states] == ["live"]

    async def test_topics_are_read_again(self, rig: Rig) -> None:
        topic = test_recorder.Topic(events(10))
        topic.fault = KeyError("partition")  # type: ignore[assignment]
        one = await rig.open(topic.source())
        await until(lambda: one.status.reason == "KeyError: 'partition'")
        topic.fault = None
        await until(lambda: one.status.recorded == 10)
        assert one.status.reason == ""

    async def test_what_is_asked_fails_as_the_database_does(self, rig: Rig) -> None:
        one = await rig.open()

        async def odd(_: pool.Connection) -> None:
            raise NotImplementedError("can't parse")

        with pytest.raises(errors.StoreError, match="NotImplementedError: can't parse"):
            await one.archive._base.ask(odd)


async def _written(rig: Rig, some: list[Event]) -> writer.Written:
    connection = await pool.Database(rig.url).connect()
    try:
        return await writer.EventsTable(connection, schema.Partitions()).write(
            writer.WriteBatch(some, journal.sort([]), {})
        )
    finally:
        await connection.close()


async def test_two_that_need_a_day_at_the_same_moment_both_have_it(database_url: str) -> None:
    base = pool.Database(database_url)
    days = [datetime.date(2027, 1, 1) + datetime.timedelta(days=number) for number in range(5)]
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(await base.connect()) for _ in range(4)]
        them = [schema.Partitions() for _ in connections]
        await asyncio.gather(*(one.make(made, days) for one, made in zip(them, connections, strict=True)))
        again = schema.Partitions()
        await again.find(connections[0])
    assert [one.missing(days) for one in (*them, again)] == [[]] * 5
