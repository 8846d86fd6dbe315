"""A real PgBouncer before the database: where sessions are shared a lock protects nothing, and the store stays away."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from urllib import parse

import psycopg
import pytest

from regstream import errors
from regstream.broker import backoff
from regstream.store import pool, reader, recorder
from scripts import postgres
from tests import needs, process
from tests.store import making
from tests.store.making import Rig, events, kept, records, until

CURE = "they need PgBouncer: apt-get install pgbouncer"
missing: dict[str, str] = {}
"""The tests that did not run, and why."""
_PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/sbin:/bin")
Pooler = Callable[..., str]


@pytest.fixture
def pooler(request: pytest.FixtureRequest, database_url: str) -> Iterator[Pooler]:
    """Starts PgBouncer before the database with further lines of configuration; gives the address through it."""
    reason = None if _PROGRAM else "there is no pgbouncer on this machine"
    needs.unless(reason, request.node.nodeid, missing, reason or "")
    whole = parse.urlsplit(database_url)
    with tempfile.TemporaryDirectory(prefix="regstream-pooler-") as folder, contextlib.ExitStack() as running:

        def start(*lines: str) -> str:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            server = f"host={whole.hostname} port={whole.port} dbname={whole.path[1:]} user={whole.username}"
            text = ["[databases]", f"pooled = {server}", "[pgbouncer]", "listen_addr = 127.0.0.1", "unix_socket_dir ="]
            text += [f"listen_port = {port}", "auth_type = any", *lines]
            (pathlib.Path(folder) / "pgbouncer.ini").write_text("\n".join(text) + "\n")
            running.enter_context(_running(pathlib.Path(folder)))
            url = f"postgresql://{whole.username}@127.0.0.1:{port}/pooled"
            process.eventually(lambda: _answers(url), making.BOUND)
            return url

        yield start


@contextlib.contextmanager
def _running(folder: pathlib.Path) -> Iterator[None]:
    # It refuses to run as root, as PostgreSQL does
    ordinary = {} if os.getuid() else {"user": postgres.USERS[-1], "extra_groups": []}
    folder.chmod(0o755)
    with (folder / "log").open("ab") as log:
        command = [str(_PROGRAM), str(folder / "pgbouncer.ini")]
        one = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **ordinary)
    try:
        yield
    finally:
        one.send_signal(signal.SIGTERM)
        one.wait(making.BOUND)


def _answers(url: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=2):
        return True
    return False


@pytest.mark.parametrize(
    "lines",
    [
        ["pool_mode = transaction", "default_pool_size = 2"],
        ["pool_mode = transaction", "default_pool_size = 2", "ignore_startup_parameters = extra_float_digits,options"],
        ["pool_mode = transaction", "default_pool_size = 3", "min_pool_size = 3", "server_round_robin = 1"],
        ["pool_mode = transaction", "default_pool_size = 1"],
        ["pool_mode = statement"],
    ],
    ids=["transaction", "ignoring", "in turns", "of one", "statement"],
)
async def test_where_sessions_are_shared_nothing_is_written_and_the_cure_is_said(
    pooler: Pooler, rig: Rig, lines: list[str]
) -> None:
    url = pooler(*lines)
    one = await rig.open(url=url)
    assert one.status.state == "away" and one.status.ailing
    assert "pool_mode=session" in one.status.reason
    one.record(records(events(5)))
    with pytest.raises(errors.StoreError, match="pool_mode=session"):
        await one.archive.page(reader.EventQuery())
    assert (rig.count, one.status.waiting) == (0, 5)
    # What a session of ours would set is nobody else's
    with psycopg.connect(url, autocommit=True) as other:
        for _ in range(3):
            row = other.execute("SHOW default_transaction_read_only").fetchone()
            assert row == ("off",)
    await one.close()
    # Once the address is PostgreSQL's own nothing is missing
    again = await rig.open()
    await kept(again)
    assert rig.numbers() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("size", [6, 1])
async def test_with_sessions_of_ones_own_it_works(
    pooler: Pooler, rig: Rig, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(recorder, "LOCK_SECONDS", 0.1)
    url = pooler("pool_mode = session", f"default_pool_size = {size}")
    one = await rig.open(url=url)
    assert one.status.state == "live", one.status.reason
    one.record(records(events(5)))
    await kept(one)
    if size > 1:
        assert len((await one.archive.page(reader.EventQuery())).values) == 5
        # And the lock holds
        other = Rig(url, tmp_path / "other")
        two = await other.open()
        assert two.status.state == "live" and two.memory.position("ONE") is None
        await other.close()
    await one.close()
    assert rig.numbers() == [1, 2, 3, 4, 5]


async def test_a_pooler_that_is_set_up_in_another_way_meanwhile_is_noticed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(backoff, "SOON", 0.01)
    monkeypatch.setattr(backoff, "LONGEST", 0.01)
    right, given = pool.backend, iter([0, 0, 7])

    async def backend(connection: pool.Connection) -> int:
        # The first two are those of a session that begins
        return await right(connection) + next(given, 0)

    monkeypatch.setattr(pool, "backend", backend)
    await rig.open()
    await until(lambda: [name for name, _ in rig.states] == ["live", "away", "live"])
    assert rig.states[1][1] == pool.POOLED
