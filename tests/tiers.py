"""Tiers of tests, by what a test costs; each test is in exactly one, and ``-m unit`` and its like choose by it.

============ ===================================================================================== ===============
tier         what a test there may use                                                             run by
============ ===================================================================================== ===============
unit         this process alone: no other process, no connection                                   make test-unit
statistics   as unit, with so many draws, events or examples that it takes seconds                  make test
integration  sockets, Apache Kafka, PostgreSQL                                                      make test
acceptance   the program as a process, through its contract                                        make test
browser      Chromium on the page of a daemon                                                       make test
system       systemd, nginx, Prometheus                                                            make test-all
slow         chaos, soak, benchmarks, and what measures or keeps both cores busy: runs by itself   make test-all
============ ===================================================================================== ===============

A tier follows from the folder or the file; a marker at the module, the class or the test goes before. What is in none
of the tables is a unit test, and one that starts a process or opens a connection fails.
"""

from __future__ import annotations

import pathlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import support

TIERS = {
    "unit": "no process, no connection",
    "statistics": "no process, no connection, many draws or events",
    "integration": "sockets, Apache Kafka, PostgreSQL",
    "acceptance": "the program as a process, through its contract",
    "browser": "Chromium on the page of a daemon",
    "system": "systemd, nginx, Prometheus",
    "slow": "chaos, soak, benchmarks, and what measures or keeps both cores busy; runs by itself",
}
# The longest path that fits decides
PATHS = {
    "acceptance": "acceptance",
    "broker/test_advertised.py": "integration",
    "browser": "browser",
    "cli": "acceptance",
    "engine/test_stall.py": "acceptance",
    "generate/test_dangling.py": "statistics",
    "generate/test_distributions.py": "statistics",
    "generate/test_lives.py": "statistics",
    "generate/test_machine.py": "integration",
    "kafka": "integration",
    "monitoring": "system",
    "proxy": "system",
    "server": "integration",
    "sio": "integration",
    "store": "integration",
    "systemd": "system",
    "test_broker.py": "integration",
    "test_client.py": "integration",
    "test_client_daemon.py": "acceptance",
    "test_client_direct.py": "integration",
    "test_clock_rate.py": "statistics",
    "test_content.py": "statistics",
    "test_daemon.py": "acceptance",
    "test_docs.py": "acceptance",
    "test_kafka_artefacts.py": "integration",
    "test_node_packages.py": "integration",
    "test_notify.py": "integration",
    "test_quarter.py": "acceptance",
    "test_settings_effect.py": "integration",
    "test_setup.py": "integration",
    "test_tracing.py": "acceptance",
    "test_ws.py": "integration",
    "test_ws_history.py": "integration",
}
_forbidden = False


def pytest_configure(config: pytest.Config) -> None:
    for name, what in TIERS.items():
        config.addinivalue_line("markers", f"{name}: {what}")
    _watch(subprocess.Popen, "__init__", "starts a process")
    for call in ("bind", "connect", "connect_ex"):
        _watch(socket.socket, call, "opens a connection")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if tier(item) is None:
            item.add_marker(of(item.path))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    global _forbidden
    _forbidden = tier(item) in ("unit", "statistics")
    try:
        return (yield)
    finally:
        _forbidden = False


def tier(item: pytest.Item) -> str | None:
    """The tier that the nearest marker of the test names."""
    return next((mark.name for mark in item.iter_markers() if mark.name in TIERS), None)


def of(path: pathlib.Path) -> str:
    """The tier of the tests in the file at ``path``, unless a marker says otherwise."""
    folder = support.ROOT / "tests"
    place = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else ""
    fitting = [name for name in PATHS if place == name or place.startswith(f"{name}/")]
    return PATHS[max(fitting, key=len)] if fitting else "unit"


def _watch(owner: type, name: str, what: str) -> None:
    call: Callable[..., Any] = getattr(owner, name)

    def watched(*arguments: Any, **named: Any) -> Any:
        if _forbidden:
            pytest.fail(f"a test of tier unit or statistics {what}: name its tier in tests/tiers.py or with a marker")
        return call(*arguments, **named)

    setattr(owner, name, watched)
