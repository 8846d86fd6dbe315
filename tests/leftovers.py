"""What tests leave running: each test ends the processes that it starts, and one that does not fails.

This process adopts orphans (``PR_SET_CHILD_SUBREAPER``), so that a grandchild whose parent was killed is still seen. A
shell that starts a job in the background has it ignore SIGINT and SIGQUIT, ``nohup`` SIGHUP, and children inherit that:
a signal which a test sends to its daemon would then do nothing. Such a signal gets a handler here that does nothing
either; ``exec`` resets a handler, but not what is ignored, to the default.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import signal
import time
from collections.abc import Iterator, Set
from typing import Any

import pytest

PR_SET_CHILD_SUBREAPER = 36
GRACE = float(os.environ.get("LEFTOVERS_GRACE", "10"))
"""Seconds for a process that is just ending."""
_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)
# Python's own, one for each process that ever uses multiprocessing, until that ends
_HELPER = "multiprocessing.resource_tracker"
_of_fixtures: set[int] = set()
_left: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[Any]:
    before = running() if fixturedef.scope != "function" else None
    made = yield
    if before is not None:
        # A test may ask for such a fixture in its body; what that starts belongs to the fixture
        _of_fixtures.update(running(before))
    return made


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    item.stash[_BEFORE] = running()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    # A booted system that a fixture has goes on starting what it likes
    started = running(item.stash.get(_BEFORE, running()) | _of_fixtures)
    yield
    if left := end(started):
        pytest.fail(f"left running, and ended now: {'; '.join(left)}", pytrace=False)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    found = end(running())
    _left.extend(found)
    # A worker of pytest-xdist has nobody to say it to but the process that started it
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = found
    if _left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _left.extend(getattr(node, "workeroutput", {}).get("left", ()))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for command in _left:
        terminalreporter.write_line(f"left running by the tests, and ended now: {command}", red=True)


_BEFORE = pytest.StashKey[set[int]]()


def running(known: Set[int] = frozenset()) -> set[int]:
    """The processes below this one, but for those ``known`` and what these have started.

    Those that ended and that nobody waited for are none.
    """
    found: set[int] = set()
    parents = [os.getpid()]
    while parents:
        children = set(_children(parents.pop())) - found - known
        found |= children
        parents += children
    return {process for process in found if state(process) not in ("Z", "X", "") and _HELPER not in _command(process)}


def end(processes: set[int]) -> list[str]:
    """Give ``processes`` a moment to end, kill what is left, and give the command lines of these."""
    deadline = time.monotonic() + GRACE
    while (left := processes & running()) and time.monotonic() < deadline:
        time.sleep(0.02)
    said = [f"{process} {_command(process)}" for process in sorted(left)]
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return said


def _children(process: int) -> Iterator[int]:
    # A thread, or all of the process, may end while it is looked at
    threads: list[pathlib.Path] = []
    with contextlib.suppress(OSError):
        threads = list(pathlib.Path(f"/proc/{process}/task").iterdir())
    for thread in threads:
        with contextlib.suppress(OSError):
            yield from map(int, (thread / "children").read_text().split())


def state(process: int) -> str:
    """The letter that the kernel has for the state of a process; empty when there is none."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def _command(process: int) -> str:
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ").strip()
    return ""
