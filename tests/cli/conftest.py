"""One folder of the shipped files, and one daemon on another, for all tests of the command line."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from tests import process


@pytest.fixture
def files(tmp_path: pathlib.Path) -> pathlib.Path:
    return process.copy_files(tmp_path)


@pytest.fixture(scope="package")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[process.Daemon]:
    with process.running(tmp_path_factory.mktemp("daemon")) as running:
        yield running
