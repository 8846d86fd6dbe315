"""One daemon for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import process


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[process.Daemon]:
    with process.running(tmp_path_factory.mktemp("daemon")) as running:
        yield running
