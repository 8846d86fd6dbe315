"""A test that leaves a process running fails, and the process is ended; signals reach what tests start."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tests import leftovers, tiers
from tests.support import ROOT

LEFT = "import subprocess, sys\ndef test_it(): subprocess.Popen(['sleep', '7654'])\n"
ORPHAN = """import subprocess
def test_it():
    subprocess.run(["sh", "-c", "sleep 7654 & exit 0"], stdout=subprocess.DEVNULL)
"""
OF_A_FIXTURE = """import subprocess, pytest
@pytest.fixture(scope="module")
def child(): return subprocess.Popen(["sleep", "7654"])
def test_it(child): assert child.poll() is None
"""
OF_A_FIXTURE_ASKED_FOR_LATE = """import subprocess, pytest
@pytest.fixture(scope="session")
def child():
    with subprocess.Popen(["sleep", "7654"]) as made:
        yield made
        made.kill()
def test_it(request): assert request.getfixturevalue("child").poll() is None
def test_next(child): assert child.poll() is None
"""
IN_ORDER = """import subprocess
def test_it():
    child = subprocess.Popen(["sleep", "7654"])
    child.kill()
    child.wait()
"""
ENDED_BY_SIGINT = """import signal, subprocess
def test_it():
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        child = subprocess.Popen(["sleep", "7654"])
        child.send_signal(number)
        assert child.wait(60) == -number
"""


def ran(folder: pathlib.Path, text: str, *more: str, ignored: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
    (folder / "test_inner.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "tests.leftovers", "-p", "no:cacheprovider", *more, str(folder)]

    def ignore() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LEFTOVERS_GRACE": "0.2"}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=100, preexec_fn=ignore, check=False
    )


@pytest.mark.integration
@pytest.mark.parametrize("more", [(), ("-p", "xdist", "-n", "1")], ids=["alone", "by xdist"])
@pytest.mark.parametrize("text", [LEFT, ORPHAN, OF_A_FIXTURE], ids=["child", "orphan", "fixture"])
def test_what_is_left_running_is_ended_and_fails_the_run(tmp_path: pathlib.Path, text: str, more: tuple[str]) -> None:
    done = ran(tmp_path, text, *more)
    assert done.returncode == 1, done.stdout
    assert "sleep 7654" in done.stdout and "left running" in done.stdout
    number = int(done.stdout.partition(" sleep 7654")[0].split()[-1])
    assert leftovers.state(number) in ("", "Z", "X")


@pytest.mark.integration
@pytest.mark.parametrize("text", [IN_ORDER, OF_A_FIXTURE_ASKED_FOR_LATE], ids=["test", "fixture"])
def test_a_test_that_ends_what_it_starts_passes(tmp_path: pathlib.Path, text: str) -> None:
    done = ran(tmp_path, text)
    assert done.returncode == 0 and "left running" not in done.stdout


@pytest.mark.integration
def test_signals_that_a_shell_in_the_background_ignores_reach_what_a_test_starts(tmp_path: pathlib.Path) -> None:
    done = ran(tmp_path, ENDED_BY_SIGINT, ignored=(signal.SIGINT, signal.SIGQUIT, signal.SIGHUP))
    assert done.returncode == 0, done.stdout


@pytest.mark.integration
@pytest.mark.parametrize(
    ("act", "said"),
    [
        ("import subprocess\ndef test_it(): subprocess.run(['true'])", "starts a process"),
        ("import socket\ndef test_it(): socket.socket().bind(('127.0.0.1', 0))", "opens a connection"),
    ],
)
def test_a_unit_test_starts_no_process_and_opens_no_connection(tmp_path: pathlib.Path, act: str, said: str) -> None:
    marked = f"import pytest\npytestmark = pytest.mark.unit\n{act}\n"
    done = ran(tmp_path, marked, "-p", "tests.tiers")
    assert done.returncode == 1 and f"a test of tier unit or statistics {said}" in done.stdout, done.stdout
    done = ran(tmp_path, marked.replace("mark.unit", "mark.integration"), "-p", "tests.tiers")
    assert done.returncode == 0, done.stdout


def test_the_longest_path_of_the_table_says_which_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "PATHS", {"kafka": "integration", "kafka/test_a.py": "slow"})
    for path, tier in (("kafka/test_a.py", "slow"), ("kafka/test_b.py", "integration"), ("kafka_c.py", "unit")):
        assert tiers.of(ROOT / "tests" / path) == tier
    assert set(tiers.PATHS.values()) <= set(tiers.TIERS)
    assert tiers.of(pathlib.Path("/elsewhere/test_x.py")) == "unit"


def test_every_path_of_the_table_is_there() -> None:
    assert [path for path in tiers.PATHS if not (ROOT / "tests" / path).exists()] == []
