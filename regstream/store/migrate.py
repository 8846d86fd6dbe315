"""The schema, brought to what this version needs: forward only, each step whole or not at all."""

from __future__ import annotations

import logging

import psycopg

from regstream import errors
from regstream.store import database, queries

# Any number that others are unlikely to take: the ASCII of "regstrm" and which of our locks it is
LOCK = 0x72656773_7472_0001
SECONDS = 120.0
_log = logging.getLogger("regstream.store")


async def migrate(connection: database.Connection) -> int:
    """Carry out the steps that the database lacks; gives their number. Others who start meanwhile wait for it.

    Raises StoreError when a step fails, or when the database is of a newer version than this program.
    """
    try:
        async with database.bounded(connection, SECONDS), connection.transaction():
            await connection.execute(queries.named("lock_transaction"), {"lock": LOCK})
            return await _migrate(connection)
    except psycopg.Error as error:
        raise database.fault(error) from error


async def _migrate(connection: database.Connection) -> int:
    known = queries.migrations()
    # Looked up first: who may only use the schema need not be allowed to make one
    ((table,),) = await database.fetch(connection, queries.named("migrations_table"))
    if table is None:
        await connection.execute(queries.named("create_schema"))
        await connection.execute(queries.named("create_migrations"))
    done = {number for (number,) in await database.fetch(connection, queries.named("migrations_done"))}
    if done and max(done) > len(known):
        raise errors.StoreError(
            f"the database has schema {max(done)} of a newer regstream, this one knows {len(known)}: update it"
        )
    missing = [step for step in known if step.number not in done]
    for step in missing:
        await connection.execute(step.text)
        await connection.execute(queries.named("migration_done"), {"number": step.number, "name": step.name})
        _log.info("database: schema %d, %s", step.number, step.name)
    return len(missing)
