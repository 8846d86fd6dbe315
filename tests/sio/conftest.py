"""What every test of Socket.IO has: a server, the real client, and an eye on what the server complains of."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.sio import world


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Whatever a client does, nothing is an error of the server, and no task dies unseen."""
    with caplog.at_level(logging.WARNING):
        yield caplog
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING] == []


@pytest.fixture
async def server(complaints: pytest.LogCaptureFixture) -> AsyncIterator[world.Server]:
    async with world.serving() as one:
        yield one


@pytest.fixture
async def client(complaints: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> AsyncIterator[world.Node]:
    async with world.node(request.node.nodeid) as one:
        yield one
