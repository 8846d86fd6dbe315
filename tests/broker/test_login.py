"""Credentials that are refused: each wrong one counts, so they are shown seldom, and to one server at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiokafka.client
import aiokafka.conn
import aiokafka.errors
import pytest

from regstream import errors
from regstream.broker import backoff, kafka
from tests.test_broker import events
from tests.test_outages import TOPIC, Cluster, Connection, Life, begin, cluster, numbers, quick, until

__all__ = ["begin", "cluster", "quick"]
SERVERS = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Servers that refuse whoever comes, and a list of the calls."""
    called: list[str] = []

    async def refuse(host: str, port: int, **_: Any) -> None:
        called.append(f"{host}:{port}")
        raise aiokafka.errors.SaslAuthenticationFailed("wrong password")

    monkeypatch.setattr(aiokafka.conn, "create_conn", refuse)
    monkeypatch.setattr(aiokafka.client, "create_conn", refuse)
    return called


async def test_a_try_shows_them_to_one_server(refusals: list[str]) -> None:
    with pytest.raises(errors.LoginError, match=r"refuses the credentials: .*wrong password"):
        await kafka.KafkaBroker(kafka.Connection(SERVERS)).start()
    assert len(refusals) == 1


async def test_one_server_that_is_away_does_not_hide_the_others(
    refusals: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = aiokafka.conn.create_conn

    async def some(host: str, port: int, **rest: Any) -> Any:
        if port == 1:
            refusals.append("away")
            raise ConnectionRefusedError("nobody there")
        return await refuse(host, port, **rest)

    monkeypatch.setattr(aiokafka.conn, "create_conn", some)
    with pytest.raises(errors.LoginError):
        await kafka.KafkaBroker(kafka.Connection(SERVERS)).start()
    assert len([one for one in refusals if one != "away"]) == 1


class Guarded:
    """Connections that are refused until somebody changes his mind."""

    def __init__(self, life: Life, cluster: Cluster) -> None:
        self.tries = 0
        self.open = False
        self._cluster = cluster
        life.broker._connect = self._connect  # type: ignore[assignment]

    def _connect(self, starts: Any) -> Connection:
        one = Connection(self._cluster, starts)
        start = one.start

        async def guarded() -> None:
            self.tries += 1
            if not self.open:
                raise errors.LoginError("k:9092 refuses the credentials: no")
            await start()

        one.start = guarded  # type: ignore[method-assign]
        return one


class TestRefused:
    async def test_says_so_and_is_not_tried_again_soon(self, cluster: Cluster, begin: Callable[[], Life]) -> None:
        life = begin()
        door = Guarded(life, cluster)
        await life.start()
        # So long that it would be tried five times if nobody had answered
        await asyncio.sleep(5 * backoff.SOON)
        status = life.broker.status
        assert (status.state, status.simulation, door.tries) == ("fallback", True, 1)
        assert status.reason == ("k:9092 refuses the credentials: no; it is tried again after 10 s, and at a reload")

    async def test_is_let_in_at_the_next_try(
        self, cluster: Cluster, begin: Callable[[], Life], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backoff, "FIRST_LOGIN", 0.02)
        life = begin()
        door = Guarded(life, cluster)
        await life.start()
        await life.broker.publish(events(10, topic=TOPIC))
        await until(lambda: door.tries >= 3)
        door.open = True
        await until(lambda: life.broker.status.state == "live")
        assert cluster.seqs() == life.shown == numbers(10)
        assert life.broker.status.reason == ""

    async def test_is_tried_at_once_at_a_reload(self, cluster: Cluster, begin: Callable[[], Life]) -> None:
        life = begin()
        door = Guarded(life, cluster)
        await life.start()
        door.open = True
        await life.broker.declare({TOPIC: 3})
        await until(lambda: life.broker.status.state == "live")
        assert door.tries == 2
