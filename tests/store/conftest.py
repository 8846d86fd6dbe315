"""What tests of the store have: stores on a database of their own."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator

import pytest

from tests.store import making


@pytest.fixture
async def rig(database_url: str, tmp_path: pathlib.Path) -> AsyncIterator[making.Rig]:
    made = making.Rig(database_url, tmp_path / "store")
    yield made
    await made.close()
