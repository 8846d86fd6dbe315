"""One machine for all tests of the service, which go through its life in the order in which they stand."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Iterator

import pytest

from tests.support import ROOT
from tests.systemd import machine

PARTS = ("regstream", "scenarios", "templates", "systemd")
FILES = ("pyproject.toml", "constraints.txt", "constraints-traces.txt", "streams.yaml", "README.md", "LICENSE")


def checkout(folder: pathlib.Path, version: str = "") -> pathlib.Path:
    """This tree as someone has it who cloned it, or one of another version."""
    folder.mkdir()
    for name in PARTS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    if version:
        for name in ("pyproject.toml", "regstream/__init__.py"):
            path = folder / name
            path.write_text(path.read_text().replace('"0.1.0"', f'"{version}"', 1))
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # Before anything is made for it
    if "box" in getattr(item, "fixturenames", ()):
        machine.need(item.nodeid)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[machine.Machine]:
    folder = tmp_path_factory.mktemp("checkouts")
    shared = {"/checkout": checkout(folder / "one"), "/newer": checkout(folder / "two", "0.1.1")}
    broken = checkout(folder / "three", "0.1.2")
    (broken / "regstream" / "daemon.py").write_text("raise RuntimeError('this version is broken')\n")
    with machine.booted({**shared, "/broken": broken, "/wheels": machine.wheels()}) as one:
        yield one
