"""Connections to the database, each use of them bounded in time.

A server that is frozen takes everything and answers nothing, and the client library would wait for it, even for the
cancellation. So a connection whose time is up is *cut*: its socket is shut down, and whoever waits sees it as lost.

A database, a role, the environment and a pooler may each give a session other settings than the server's own. So every
setting that statements here rely on is set by the session itself, after which no other source counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import pathlib
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import psycopg
import psycopg_pool
from psycopg import sql

from regstream import errors

_FOLDER = pathlib.Path(__file__).parent / "sql"
_QUERY_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


class Migration(NamedTuple):
    """One step of the schema: ``number`` counts from 1."""

    number: int
    name: str
    text: sql.SQL


@functools.cache
def _all() -> Mapping[str, sql.SQL]:
    found: dict[str, sql.SQL] = {}
    for path in sorted(_FOLDER.glob("*.sql")):
        _, *parts = _QUERY_NAME.split(path.read_text(encoding="utf-8"))
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"{path.name}: {name} is there twice")
            found[name] = _sql(text.strip().rstrip(";"))
    return found


def named(name: str) -> sql.SQL:
    """The statement of that name. Raises KeyError."""
    return _all()[name]


@functools.cache
def migrations() -> tuple[Migration, ...]:
    """The steps from an empty database to the schema that this version needs, in order."""
    found = []
    for number, path in enumerate(sorted((_FOLDER / "migrations").glob("*.sql")), 1):
        digits, _, name = path.stem.partition("_")
        if int(digits) != number:
            raise ValueError(f"{path.name}: the next number is {number:04d}")
        found.append(Migration(number, name, _sql(path.read_text(encoding="utf-8"))))
    return tuple(found)


def _sql(text: str) -> sql.SQL:
    # The files are a part of the program, as good as literals
    return sql.SQL(text)


CONNECT_SECONDS = 3.0
READERS = 4
READ_SECONDS = 10.0
STATEMENT_SECONDS = 8
OLDEST = 15
MANY_LOST = READERS + 1
PROBES = 3
PROBE_SECONDS = 1.0
POOLED = (
    "a pooler gives each transaction another session (pool_mode transaction or statement), so that no lock is held:"
    " set pool_mode=session for this database, or name PostgreSQL itself in DATABASE_URL"
)
NAME = "regstream"
SETTINGS = {
    # How values are written and read
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "timezone_abbreviations": "Default",
    "standard_conforming_strings": "on",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "array_nulls": "on",
    "transform_null_equals": "off",
    # Which objects names stand for: those of the server, which always come first, and ours
    "search_path": "regstream",
    # What a transaction is; what is acknowledged in the spool has to outlive the server, however that is set up
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "synchronous_commit": "on",
    "exit_on_error": "off",
    # How long it may take: who waits here has bounds of its own
    "lock_timeout": "5s",
    "statement_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "60s",
    "idle_session_timeout": "0",
    # A lock that its holder has in the database must not outlive the machine that this was
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
"""Every setting of a session that the store relies on; ``client_encoding`` is given when it connects."""
READER_SETTINGS = SETTINGS | {
    "default_transaction_read_only": "on",
    "statement_timeout": f"{STATEMENT_SECONDS}s",
}

Connection = psycopg.AsyncConnection[Any]
Result = TypeVar("Result")
FAULTS = (psycopg.Error, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed, OSError)


class Database:
    """One database, named by a URL or a libpq connection string.

    ``server`` is the name that others see in ``pg_stat_activity``. ``connect`` makes a connection for its caller alone,
    ``ask`` lends one of a few that are shared by readers: more readers than that wait in line. Readers' statements are
    read-only and end after ``STATEMENT_SECONDS``.
    """

    def __init__(self, url: str, server: str = "") -> None:
        self._url = url
        self._name = f"{NAME} {server}".rstrip()
        self._pool: psycopg_pool.AsyncConnectionPool[Connection] | None = None
        self._is_closed = False
        self._refusal: errors.StoreError | None = None
        # It tells of each attempt, where the store tells of a change
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

    async def connect(self) -> Connection:
        """A connection of the caller's own, in autocommit, with ``SETTINGS``.

        Raises StoreError within three times ``CONNECT_SECONDS``, also for a pooler behind which sessions are shared.
        """
        connection = await self._connected()
        try:
            async with bounded(connection, 2 * CONNECT_SECONDS):
                await self._prepare(connection, SETTINGS)
        except BaseException as error:
            cut(connection)
            await connection.close()
            if isinstance(error, Exception):
                raise fault(error) from error
            raise
        return connection

    async def _connected(self) -> Connection:
        try:
            async with asyncio.timeout(CONNECT_SECONDS + 0.5):
                return await psycopg.AsyncConnection.connect(self._url, **_OPTIONS, application_name=self._name)
        except (psycopg.ProgrammingError, ValueError):
            # What the library says of an address that it does not understand may hold its password
            raise errors.StoreError("DATABASE_URL is not understood: check host, port and percent-encoding") from None
        except Exception as error:
            raise fault(error) from error

    async def _prepare(self, connection: Connection, settings: Mapping[str, str]) -> None:
        """Make sure of what is at the other end, and of the session's settings. Raises StoreError, psycopg's errors."""
        if connection.info.server_version < OLDEST * 10_000:
            version = connection.info.server_version // 10_000
            raise errors.StoreError(f"the server is PostgreSQL {version}, and {OLDEST} or newer is needed")
        # Before anything is set, which in a shared session others would get
        if await backend(connection) != connection.pgconn.backend_pid:
            await self._probe(connection)
        # First by itself: to set all of them may take longer than somebody allowed
        await connection.execute(named("unbounded"))
        await fetch(connection, named("pin"), {"names": list(settings), "values": list(settings.values())})

    async def _probe(self, first: Connection) -> None:
        """Raises StoreError when a pooler gives sessions to others between two statements of ``first``.

        Server and client name different processes, so there is a pooler. One that shares gives the session that is
        free to a second connection, or with many sessions and much to do another one to the first.
        """
        second = await self._connected()
        try:
            for _ in range(PROBES):
                own = {await backend(first), await backend(first)}
                try:
                    async with bounded(second, PROBE_SECONDS):
                        other = await backend(second)
                except psycopg.OperationalError:
                    # There is no session for a second one while the first has its own
                    other = 0
                own.add(await backend(first))
                if len(own) > 1 or other in own:
                    raise errors.StoreError(POOLED)
                if not other:
                    return
        finally:
            cut(second)
            await second.close()

    async def ask(self, work: Callable[[Connection], Awaitable[Result]], seconds: float = READ_SECONDS) -> Result:
        """Do ``work`` with a shared connection; it may be begun anew when the connection turns out to be lost.

        Raises StoreError when the database does not answer in time, CostError when a statement took too long.
        """
        pool, loop = await self._opened(), asyncio.get_running_loop()
        end = loop.time() + seconds
        for _ in range(MANY_LOST):
            try:
                async with pool.connection(timeout=CONNECT_SECONDS) as connection, bounded(connection, seconds):
                    return await work(connection)
            except psycopg.errors.QueryCanceled as error:
                cure = "ask for less at a time"
                raise errors.QueryCostError(f"it took longer than {STATEMENT_SECONDS} s: {cure}") from error
            except psycopg_pool.PoolTimeout as error:
                raise self._refusal or fault(error) from error
            except psycopg.OperationalError as error:
                # After a restart of the server each connection of the pool fails once, and at once
                last = error
                if loop.time() >= end:
                    break
            except Exception as error:
                raise fault(error) from error
        raise fault(last) from last

    async def _opened(self) -> psycopg_pool.AsyncConnectionPool[Connection]:
        if self._is_closed:
            # Nobody would close a pool that a late reader opens; its tasks can lose a cancellation (wait_for of 3.11)
            raise errors.StoreError("the store is closed")
        if self._pool is None:
            self._pool = pool = psycopg_pool.AsyncConnectionPool(
                self._url,
                min_size=0,
                max_size=READERS,
                max_idle=60,
                reconnect_timeout=CONNECT_SECONDS,
                kwargs={**_OPTIONS, "application_name": self._name},
                configure=self._configure,
                open=False,
                name=NAME,
            )
            await pool.open()
            return pool
        return self._pool

    async def _configure(self, connection: Connection) -> None:
        """A shared connection is made; who waits for it is told by ``ask`` why it cannot be had."""
        try:
            async with bounded(connection, 2 * CONNECT_SECONDS):
                await self._prepare(connection, READER_SETTINGS)
        except errors.StoreError as error:
            self._refusal = error
            raise
        self._refusal = None

    async def close(self) -> None:
        """End the shared connections, within a second; who asks for one afterwards gets an error."""
        self._is_closed = True
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close(timeout=1.0)


# No ``options``: a pooler refuses them, or passes over them in silence
_OPTIONS: dict[str, Any] = {
    "autocommit": True,
    "connect_timeout": int(CONNECT_SECONDS),
    "client_encoding": "UTF8",
    "prepare_threshold": None,
}


async def backend(connection: Connection) -> int:
    """Which of the server's processes a statement of ``connection`` is carried out by. Raises psycopg's errors."""
    return int((await fetch(connection, named("backend")))[0][0])


async def fetch(
    connection: Connection, statement: sql.SQL | sql.Composed, values: Mapping[str, Any] | None = None
) -> list[tuple[Any, ...]]:
    """All rows that a statement gives. Raises psycopg's errors."""
    return await (await connection.execute(statement, values)).fetchall()


@contextlib.asynccontextmanager
async def bounded(connection: Connection, seconds: float) -> AsyncIterator[None]:
    """What is done with ``connection`` within takes so long at most; then it is cut, and fails as lost."""
    timer = asyncio.get_running_loop().call_later(seconds, cut, connection)
    try:
        yield
    finally:
        timer.cancel()


def cut(connection: Connection) -> None:
    """Shut a connection's socket down. Unlike closing it, that cannot strike another one that gets its number."""
    try:
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as wire:
            wire.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.Error):
        # It is gone already
        return


def fault(error: BaseException) -> errors.StoreError:
    """What the client library raised, or any other error, in one line and without secrets."""
    if isinstance(error, errors.StoreError):
        return error
    if isinstance(error, TimeoutError | psycopg_pool.PoolTimeout):
        return errors.StoreError(f"no answer within {CONNECT_SECONDS:g} s", lost=True)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (lines[0] if lines else type(error).__name__).removeprefix("connection failed: ")
    if not isinstance(error, FAULTS):
        # A text such as "'state'" says nothing by itself
        text = f"{type(error).__name__}: {text}"
    return errors.StoreError(text, lost=isinstance(error, psycopg.OperationalError | OSError))
