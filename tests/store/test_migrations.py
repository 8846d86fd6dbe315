"""The schema: from nothing and from every earlier version to the newest, by one at a time, and never back."""

from __future__ import annotations

import asyncio
import datetime
from urllib import parse

import psycopg
import pytest

from regstream import errors
from regstream.store import pool, schema
from tests.databases import rows

DAY = datetime.date(2026, 11, 26)
SHAPE = """
    SELECT 'column', table_name || '.' || column_name, data_type || coalesce(generation_expression, '')
    FROM information_schema.columns WHERE table_schema = 'regstream'
    UNION ALL
    SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'regstream'
    ORDER BY 1, 2
"""


async def migrated(url: str) -> int:
    connection = await pool.Database(url).connect()
    try:
        return await schema.migrate(connection)
    finally:
        await connection.close()


async def upto(url: str, number: int) -> None:
    """What a version left that knew so many steps."""
    connection = await pool.Database(url).connect()
    for name in ("create_schema", "create_migrations"):
        await connection.execute(pool.named(name))
    for step in pool.migrations()[:number]:
        await connection.execute(step.text)
        await connection.execute(pool.named("migration_done"), {"number": step.number, "name": step.name})
    await connection.close()


async def test_from_nothing_and_then_nothing_is_left_to_do(empty_database: str) -> None:
    assert await migrated(empty_database) == len(pool.migrations())
    assert await migrated(empty_database) == 0
    assert rows(empty_database, "SELECT number, name FROM regstream.migrations ORDER BY number") == [
        (step.number, step.name) for step in pool.migrations()
    ]


@pytest.mark.parametrize("number", range(len(pool.migrations())))
async def test_from_every_earlier_version_to_the_same_schema(
    empty_database: str, database_url: str, number: int
) -> None:
    await upto(empty_database, number)
    assert await migrated(empty_database) == len(pool.migrations()) - number
    assert rows(empty_database, SHAPE) == rows(database_url, SHAPE)


async def test_several_at_once_do_each_step_once(empty_database: str) -> None:
    done = await asyncio.gather(*(migrated(empty_database) for _ in range(6)))
    assert sorted(done) == [0] * 5 + [len(pool.migrations())]


async def test_a_step_that_fails_leaves_nothing_behind(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = pool.Migration(len(pool.migrations()) + 1, "broken", pool.sql.SQL("CREATE TABLE x (); SELECT 1/0"))
    whole = (*pool.migrations(), broken)
    monkeypatch.setattr(pool, "migrations", lambda: whole)
    with pytest.raises(errors.StoreError, match="division by zero"):
        await migrated(empty_database)
    assert rows(empty_database, "SELECT to_regnamespace('regstream'), to_regclass('x')") == [(None, None)]


async def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    rows(database_url, "INSERT INTO regstream.migrations (number, name) VALUES (99, 'later')")
    with pytest.raises(errors.StoreError, match="schema 99 of a newer regstream"):
        await migrated(database_url)


async def test_a_user_that_may_not_make_a_schema_is_told_so(empty_database: str) -> None:
    rows(empty_database, "DROP ROLE IF EXISTS regstream_guest")
    rows(empty_database, "CREATE ROLE regstream_guest LOGIN PASSWORD 'guest'")
    whole = parse.urlsplit(empty_database)
    try:
        with pytest.raises(errors.StoreError, match="permission denied"):
            guest = f"regstream_guest:guest@{whole.hostname}:{whole.port or 5432}"
            await migrated(whole._replace(netloc=guest).geturl())
    finally:
        rows(empty_database, "DROP ROLE regstream_guest")


class TestDays:
    async def test_are_made_ahead_and_found_again(self, database_url: str) -> None:
        connection = await pool.Database(database_url).connect()
        one = schema.Partitions()
        await one.find(connection)
        await one.make_ahead(connection, DAY)
        await one.make_ahead(connection, DAY)
        again = schema.Partitions()
        await again.find(connection)
        days = [DAY + datetime.timedelta(days=number) for number in range(4)]
        assert again.missing(days) == days[3:]
        await connection.close()

    async def test_an_event_goes_where_its_day_is_and_none_where_there_is_no_day(self, database_url: str) -> None:
        connection = await pool.Database(database_url).connect()
        one = schema.Partitions()
        await one.make(connection, [DAY])
        insert = (
            "INSERT INTO regstream.events (stream, epoch, seq, type, time, priority, region, value) "
            """VALUES ('S', 'E', 1, 't', %s, 'LOW', 'r', '{"data":{"a":1}}') RETURNING data"""
        )
        assert rows(database_url, insert, f"{DAY}T23:59:59.999Z") == [({"a": 1},)]
        assert rows(database_url, "SELECT seq FROM regstream.events_20261126") == [(1,)]
        with pytest.raises(psycopg.errors.CheckViolation):
            rows(database_url, insert, f"{DAY + datetime.timedelta(days=1)}T00:00:00Z")
        await connection.close()

    async def test_are_dropped_before_a_day_but_not_under_a_reader(self, database_url: str) -> None:
        connection = await pool.Database(database_url).connect()
        await connection.execute("SET lock_timeout = '100ms'")
        one, days = schema.Partitions(), [DAY + datetime.timedelta(days=number) for number in range(3)]
        await one.make(connection, days)
        with psycopg.connect(database_url) as reader:
            reader.execute(f"SELECT * FROM regstream.events_{days[0]:%Y%m%d}".encode())
            assert await one.drop(connection, one.before(days[2])) == days[1:2]
        assert await one.drop(connection, one.before(days[2])) == days[:1]
        assert await one.drop(connection, one.before(days[2])) == []
        assert rows(database_url, "SELECT to_regclass('regstream.events_20261126')") == [(None,)]
        await connection.close()
