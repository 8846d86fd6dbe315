"""Connections to the database, each use of them bounded in time.

A server that is frozen takes everything and answers nothing, and the client library would wait for it, even for the
cancellation. So a connection whose time is up is *cut*: its socket is shut down, and whoever waits sees it as lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import psycopg
import psycopg_pool
from psycopg import sql

from regstream import errors

CONNECT_SECONDS = 3.0
READERS = 4
READ_SECONDS = 10.0
STATEMENT_SECONDS = 8
OLDEST = 15
MANY_LOST = READERS + 1
_NAME = "regstream"

Connection = psycopg.AsyncConnection[Any]
Result = TypeVar("Result")
FAULTS = (psycopg.Error, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed, OSError)


class Database:
    """One database, named by a URL or a libpq connection string.

    ``connect`` makes a connection for its caller alone, ``ask`` lends one of a few that are shared by readers: more
    readers than that wait in line. Readers' statements are read-only and end after ``STATEMENT_SECONDS``.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: psycopg_pool.AsyncConnectionPool[Connection] | None = None
        # It tells of each attempt, where the store tells of a change
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

    async def connect(self) -> Connection:
        """A connection of the caller's own, in autocommit. Raises StoreError within ``CONNECT_SECONDS``."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS + 0.5):
                made = await psycopg.AsyncConnection.connect(self._url, autocommit=True, **_options())
        except psycopg.ProgrammingError:
            # What the library says of an address that it does not understand may hold its password
            raise errors.StoreError("DATABASE_URL is not understood: check host, port and percent-encoding") from None
        except (*FAULTS, TimeoutError) as error:
            raise fault(error) from error
        if made.info.server_version < OLDEST * 10_000:
            version = made.info.server_version // 10_000
            await made.close()
            raise errors.StoreError(f"the server is PostgreSQL {version}, and {OLDEST} or newer is needed")
        return made

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
                raise errors.CostError(f"it took longer than {STATEMENT_SECONDS} s: ask for less at a time") from error
            except psycopg.OperationalError as error:
                # After a restart of the server each connection of the pool fails once, and at once
                last = error
                if loop.time() >= end:
                    break
            except FAULTS as error:
                raise fault(error) from error
        raise fault(last) from last

    async def _opened(self) -> psycopg_pool.AsyncConnectionPool[Connection]:
        if self._pool is None:
            self._pool = psycopg_pool.AsyncConnectionPool(
                self._url,
                min_size=0,
                max_size=READERS,
                max_idle=60,
                reconnect_timeout=CONNECT_SECONDS,
                kwargs={"autocommit": True, **_options(read_only=True)},
                open=False,
                name=_NAME,
            )
            await self._pool.open()
        return self._pool

    async def close(self) -> None:
        """End the shared connections, within a second."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close(timeout=1.0)


def _options(read_only: bool = False) -> dict[str, Any]:
    settings = ["-c TimeZone=UTC", "-c lock_timeout=5s", "-c idle_in_transaction_session_timeout=60s"]
    # A lock that its holder has in the database must not outlive the machine that this was
    settings += ["-c tcp_keepalives_idle=20", "-c tcp_keepalives_interval=5", "-c tcp_keepalives_count=3"]
    # What is acknowledged in the spool has to outlive the server, however that is set up
    settings += ["-c synchronous_commit=on"]
    if read_only:
        settings += [f"-c statement_timeout={STATEMENT_SECONDS}s", "-c default_transaction_read_only=on"]
    return {
        "connect_timeout": int(CONNECT_SECONDS),
        "application_name": _NAME,
        "options": " ".join(settings),
        "prepare_threshold": None,
    }


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
    """What the client library raised, in one line and without secrets."""
    if isinstance(error, TimeoutError | psycopg_pool.PoolTimeout):
        return errors.StoreError(f"no answer within {CONNECT_SECONDS:g} s", lost=True)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (lines[0] if lines else type(error).__name__).removeprefix("connection failed: ")
    return errors.StoreError(text, lost=isinstance(error, psycopg.OperationalError | OSError))
