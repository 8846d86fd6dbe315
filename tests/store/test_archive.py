"""Questions to the store: pages that follow each other whatever is written, filters, figures."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstream import errors, spec, store
from regstream.event import Position
from regstream.store import pool, reader
from regstream.store.reader import EventQuery, Figures
from tests import profiles
from tests.conftest import MakePostgres
from tests.store import making
from tests.store.making import Rig, events, kept, records

HOUR = 3600.0


async def filled(rig: Rig) -> store.Store:
    """Three streams of 400 events each within two hours over midnight, many at the same time."""
    one = await rig.open()
    for number, name in enumerate(("ONE", "TWO", "THREE")):
        priority = list(spec.Priority)[number]
        some = events(400, name, at=11.5 * HOUR, every=9.0, priority=priority)
        one.record(records(some))
    one.record(records(events(5, "ONE", epoch=making.EPOCH[:-1] + "Z", at=11.5 * HOUR)))
    await kept(one)
    return one


def ids(values: list[bytes]) -> list[str]:
    return [json.loads(value)["id"] for value in values]


def expected(rig: Rig, condition: str = "TRUE") -> list[str]:
    """By an independent reader."""
    statement = f"SELECT id FROM regstream.events WHERE {condition} ORDER BY time, stream, epoch, seq"
    return [name for (name,) in rig.rows(statement)]


async def walked(one: store.Store, question: EventQuery, limit: int) -> list[str]:
    found: list[str] = []
    after = reader.START
    while True:
        page = await one.archive.page(question, after, limit=limit)
        found += ids(page.values)
        if not page.more or page.last is None:
            return found
        after = page.last


QUESTIONS: tuple[tuple[EventQuery, str], ...] = (
    (EventQuery(), "TRUE"),
    (EventQuery(("ONE",)), "stream = 'ONE'"),
    (EventQuery(("ONE", "THREE")), "stream IN ('ONE', 'THREE')"),
    (EventQuery(("NONE",)), "FALSE"),
    (EventQuery(since=making.SECOND + 12 * HOUR), "time >= '2026-03-27T00:00:00Z'"),
    (EventQuery(until=making.SECOND + 12 * HOUR), "time < '2026-03-27T00:00:00Z'"),
    (
        EventQuery(("TWO",), making.SECOND + 11.6 * HOUR, making.SECOND + 12.1 * HOUR),
        "stream = 'TWO' AND time >= '2026-03-26T23:36:00Z' AND time < '2026-03-27T00:06:00Z'",
    ),
    (EventQuery(priorities=("CRITICAL", "HIGH")), "priority IN ('CRITICAL', 'HIGH')"),
    (EventQuery(epoch=making.EPOCH, first=10, last=20), f"epoch = '{making.EPOCH}' AND seq BETWEEN 10 AND 20"),
    (EventQuery(where=((("svpId",), "SVP-003"),)), "data ->> 'svpId' = 'SVP-003'"),
    (EventQuery(where=((("n",), 17), (("svpId",), "SVP-003"))), "(data ->> 'n')::int = 17"),
    (EventQuery(where=((("n",), 17.0),)), "(data ->> 'n')::int = 17"),
    (EventQuery(where=((("n", "0"), 17),)), "FALSE"),
    (EventQuery(where=((("n",), "17"),)), "FALSE"),
    (EventQuery(where=((("n",), None),)), "FALSE"),
)


async def test_a_question_means_what_sql_says(rig: Rig) -> None:
    one = await filled(rig)
    for question, condition in QUESTIONS:
        wanted = expected(rig, condition)
        for limit in (7, 1_000, 5_000) if len(wanted) < 500 else (300, 5_000):
            assert await walked(one, question, limit) == wanted, (question, limit)
        newest = await one.archive.page(question, limit=10)
        assert ids(newest.values) == wanted[-10:] and newest.more is (len(wanted) > 10), question
        assert await one.archive.number(question) == len(wanted), question
        found = await one.archive.events(question, reader.START, 5_000)
        assert [event.id for _, event in found] == wanted, question


async def test_pages_backwards_meet_pages_forwards(rig: Rig) -> None:
    one = await filled(rig)
    page = await one.archive.page(EventQuery(), limit=100)
    found = ids(page.values)
    while page.more:
        page = await one.archive.page(EventQuery(), before=page.first, limit=100)
        found = ids(page.values) + found
    assert found == expected(rig)


async def test_an_event_comes_back_as_it_was(rig: Rig) -> None:
    one = await rig.open()
    some = events(3, key="k\u00fc", every=0.001)
    one.record(records(some))
    await kept(one)
    found = await one.archive.events(EventQuery(), reader.START, 10)
    assert [event for _, event in found] == [event._replace(head=event.head._replace(topic="")) for event in some]


@settings(max_examples=profiles.examples(6), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.integers(1, 40))
async def test_who_walks_while_others_write_gets_what_was_there_once_and_nothing_twice(
    rig: Rig, chance: random.Random, limit: int
) -> None:
    rig.rows("TRUNCATE regstream.events")
    one = rig.opened[0] if rig.opened else await rig.open()
    there = [event for n in range(4) for event in events(30, f"S{n}", at=chance.random() * 60, every=chance.random())]
    one.record(records(there))
    await kept(one)
    found: list[str] = []
    after, number = reader.START, 0
    while True:
        page = await one.archive.page(EventQuery(), after, limit=limit)
        found += ids(page.values)
        if page.last is None or not page.more:
            break
        after, number = page.last, number + 1
        if number < 6:
            one.record(records(events(5, f"LATE{number}", at=chance.random() * 60, every=chance.random())))
            await kept(one)
    assert len(set(found)) == len(found)
    assert [name for name in found if not name.startswith("LATE")] == [
        name for name in expected(rig) if not name.startswith("LATE")
    ]


class TestPlans:
    """With many rows over several days no common question may sort or read all of them."""

    QUESTIONS = (
        EventQuery(("S1",), making.SECOND, making.SECOND + 90_000),
        EventQuery(("S1",)),
        EventQuery(),
        EventQuery(since=making.SECOND + 1000),
    )

    async def test_a_page_reads_about_what_it_gives(self, rig: Rig) -> None:
        one = await rig.open()
        for number in range(4):
            one.record(records(events(10_000, f"S{number}", every=15.0)))
        await kept(one)
        rig.rows("ANALYZE")
        connection = await pool.Database(rig.url).connect()
        for question in self.QUESTIONS:
            for after, before in ((reader.START, None), (None, None)):
                values = {"limit": 100}
                conditions = reader._conditions(question, after, before, values)
                statement = pool.named("page").format(
                    columns=reader.sql.SQL("value, time, stream, epoch, seq"),
                    conditions=conditions,
                    order=pool.named("backwards" if after is None else "forwards"),
                )
                explain = reader.sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) ") + statement
                row = await (await connection.execute(explain, values)).fetchone()
                assert row is not None
                assert _read(row[0][0]["Plan"]) < 5_000, question
        await connection.close()


def _read(plan: dict) -> int:  # type: ignore[type-arg]
    own = plan["Actual Rows"] * plan["Actual Loops"] if "Scan" in plan["Node Type"] else 0
    removed = plan.get("Rows Removed by Filter", 0)
    return int(own + removed + sum(map(_read, plan.get("Plans", []))))


class TestFigures:
    @pytest.mark.parametrize(
        ("aggregate", "sql"),
        [
            ("count", "count(*)"),
            ("avg", "avg((data ->> 'n')::float8)"),
            ("min", "min((data ->> 'n')::float8)"),
            ("max", "max((data ->> 'n')::float8)"),
            ("p50", "percentile_cont(0.5) WITHIN GROUP (ORDER BY (data ->> 'n')::float8)"),
            ("p95", "percentile_cont(0.95) WITHIN GROUP (ORDER BY (data ->> 'n')::float8)"),
        ],
    )
    async def test_are_those_of_sql(self, rig: Rig, aggregate: str, sql: str) -> None:
        one = await filled(rig)
        since, until = making.SECOND + 11.5 * HOUR, making.SECOND + 12.5 * HOUR
        path = () if aggregate == "count" else ("n",)
        found = await one.archive.figures(EventQuery(("ONE",), since, until), Figures(aggregate, path, 600))
        wanted = rig.rows(
            f"SELECT floor(extract(epoch FROM time) / 600)::int * 600, {sql}, count(*) FROM regstream.events "
            "WHERE stream = 'ONE' GROUP BY 1 ORDER BY 1"
        )
        assert [(one.time, one.value, one.events) for one in found] == [
            (float(time), pytest.approx(value), count) for time, value, count in wanted
        ]

    async def test_of_what_is_no_number_are_told_and_empty_buckets_are_there(self, rig: Rig) -> None:
        one = await rig.open()
        one.record(records(events(4, at=60.0, data=lambda seq: b'{"n":%b}' % (b'"x"', b"null", b"2", b"4")[seq - 1])))
        await kept(one)
        question = EventQuery(("ONE",), making.SECOND, making.SECOND + 180)
        found = await one.archive.figures(question, Figures("avg", ("n",), 60))
        assert [(b.value, b.events, b.skipped) for b in found] == [(None, 0, 0), (3.0, 4, 2), (None, 0, 0)]
        found = await one.archive.figures(question, Figures("rate", (), 60))
        assert [b.value for b in found] == [0.0, pytest.approx(4 / 60), 0.0]

    async def test_the_rate_of_a_bucket_that_is_cut_is_over_what_is_left_of_it(self, rig: Rig) -> None:
        one = await rig.open()
        one.record(records(events(30, at=30.0, every=1.0)))
        await kept(one)
        question = EventQuery(("ONE",), making.SECOND + 30, making.SECOND + 45)
        (bucket,) = await one.archive.figures(question, Figures("rate", (), 60))
        assert (bucket.value, bucket.events) == (1.0, 15)

    async def test_numbers_that_are_too_large_are_the_question_s_fault(self, rig: Rig) -> None:
        one = await rig.open()
        one.record(records(events(1, data=lambda _: b'{"n":1e4000}')))
        await kept(one)
        with pytest.raises(errors.BadValue, match="too large"):
            await one.archive.figures(
                EventQuery(("ONE",), making.SECOND, making.SECOND + 60), Figures("max", ("n",), 60)
            )


class TestCost:
    async def test_a_statement_that_takes_too_long_is_ended(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool, "STATEMENT_SECONDS", 1)
        one = await rig.open()

        async def work(connection: pool.Connection) -> None:
            await connection.execute("SELECT pg_sleep(30)")

        with pytest.raises(errors.QueryCostError, match="ask for less"):
            await one._base.ask(work)

    async def test_readers_cannot_write(self, rig: Rig) -> None:
        one = await rig.open()

        async def work(connection: pool.Connection) -> None:
            await connection.execute("DELETE FROM regstream.events")

        with pytest.raises(errors.StoreError, match="read-only"):
            await one._base.ask(work)

    async def test_many_readers_wait_in_line(self, rig: Rig) -> None:
        one = await filled(rig)
        pages = await asyncio.gather(*(one.archive.page(EventQuery(), limit=50) for _ in range(60)))
        assert {tuple(ids(page.values)) for page in pages} == {tuple(expected(rig)[-50:])}
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'regstream'"
        assert rig.rows(count)[0][0] <= pool.READERS + 1

    async def test_a_server_that_was_restarted_costs_no_reader_an_error(
        self, make_postgres: MakePostgres, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        cluster = make_postgres()
        rig = Rig(cluster.url(), tmp_path_factory.mktemp("store"))
        try:
            one = await filled(rig)
            await asyncio.gather(*(one.archive.page(EventQuery()) for _ in range(8)))
            cluster.stop()
            with pytest.raises(errors.StoreError):
                await one.archive.page(EventQuery())
            cluster.start()
            assert len((await one.archive.page(EventQuery())).values) == 100
        finally:
            await rig.close()

    async def test_a_server_that_is_frozen_holds_up_a_reader_once(
        self, make_postgres: MakePostgres, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cluster = make_postgres()
        rig = Rig(cluster.url(), tmp_path_factory.mktemp("store"))
        one = await filled(rig)
        await asyncio.gather(*(one.archive.page(EventQuery()) for _ in range(8)))
        cluster.freeze()
        began = asyncio.get_running_loop().time()

        async def work(connection: pool.Connection) -> None:
            await connection.execute("SELECT 1")

        with pytest.raises(errors.StoreError):
            await one._base.ask(work, 1.0)
        # Not once for each connection of the pool
        assert asyncio.get_running_loop().time() - began < 3.0
        cluster.thaw()
        await rig.close()


class TestHistory:
    async def test_is_whole_or_none(self, rig: Rig) -> None:
        one = await filled(rig)
        after = Position(making.EPOCH, 100)
        found = await one.history("ONE", after, 400)
        assert found is not None and [event.seq for event in found] == list(range(101, 400 + 1))[: len(found)]
        assert len(found) >= 299
        rig.rows("DELETE FROM regstream.events WHERE stream = 'ONE' AND seq = 200")
        assert await one.history("ONE", after, 400) is None
        assert await one.history("ONE", Position(making.EPOCH, 200), 400) is not None
        assert await one.history("ONE", Position("0" * 26, 1), 400) is None
        assert await one.history("ONE", after, 100 + store.MOST + 1) is None

    async def test_waits_for_what_was_shown_a_moment_ago(self, rig: Rig) -> None:
        one = await rig.open()
        one.record(records(events(3_000)))
        found = await one.history("ONE", Position(making.EPOCH, 0), 3_001)
        assert found is not None and len(found) == 3_000


async def test_a_store_that_is_closed_opens_no_connection_for_a_late_reader() -> None:
    base = pool.Database("postgresql://127.0.0.1:1/nothing")
    await base.close()
    with pytest.raises(errors.StoreError, match="the store is closed"):
        await base.ask(lambda connection: connection.execute("SELECT 1"))
