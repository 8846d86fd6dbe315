"""PostgreSQL where it can be had, for every test that needs it; each gets a database of its own, made from a template.

``TEST_DATABASE_URL`` names a server and a user that may create databases; without it a cluster is started from the
machine's binaries. Where neither is there these tests do not run, and the last line of the report says so; with ``CI``
set they fail.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any
from urllib import parse

import psycopg

from regstream.store import pool, schema
from scripts import postgres
from tests import needs

CURE = "they need PostgreSQL 15 or newer: set TEST_DATABASE_URL, or apt-get install postgresql"
TEMPLATE = "regstream_template"
missing: dict[str, str] = {}
"""The tests that did not run, and why."""


def need(test: str, own: bool = False) -> None:
    """Skip the test, or in CI let it fail, where there is no PostgreSQL; ``own``: none that may be done harm to."""
    reason = None if os.environ.get("TEST_DATABASE_URL") and not own else postgres.why_not()
    needs.unless(reason, test, missing, reason or "")


def on(url: str, name: str) -> str:
    """The address of another database of the same server."""
    return parse.urlsplit(url)._replace(path=f"/{name}").geturl()


class Server:
    """Hands out databases: ``empty`` ones, and with the ``newest`` schema."""

    _numbers = itertools.count(1)

    def __init__(self, url: str) -> None:
        self._url = url
        self._template = f"{TEMPLATE}_{os.getpid()}"
        self._made: list[str] = []

    def empty(self, template: str = "template0") -> str:
        """The address of a new database."""
        name = f"regstream_{os.getpid()}_{next(self._numbers)}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        self._made.append(name)
        return on(self._url, name)

    def newest(self) -> str:
        """The address of a new database that has the schema already."""
        if self._template not in self._made:
            self._execute(f'CREATE DATABASE "{self._template}" TEMPLATE template0')
            self._made.append(self._template)
            # In a thread of its own: in that of a test a loop may be running
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                pool.submit(lambda: asyncio.run(_migrate(on(self._url, self._template)))).result()
        return self.empty(self._template)

    def close(self) -> None:
        """Drop all that were made."""
        for name in self._made:
            self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement.encode())


async def _migrate(url: str) -> None:
    connection = await pool.Database(url).connect()
    await schema.migrate(connection)
    await connection.close()


def rows(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """What an independent reader sees."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def serving(folder: Any) -> Iterator[Server]:
    """A server for a whole run of the tests, that nobody harms."""
    url = os.environ.get("TEST_DATABASE_URL")
    with contextlib.ExitStack() as stack:
        server = Server(url or stack.enter_context(postgres.Cluster(folder)).url())
        yield server
        server.close()
