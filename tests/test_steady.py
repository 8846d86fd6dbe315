"""`make steady` in its short form: 2,000 events a second to 200 clients, with reloads, and what must hold."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from scripts import steady
from tests.process import environment
from tests.support import ROOT

pytestmark = pytest.mark.slow


def test_the_short_form_holds(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "steady.json"
    command = [sys.executable, "-m", "scripts.steady", "--short", "--out", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert report["faults"] == [] and report["gaps"] == report["clients cut off"] == 0
    assert report["reloads"] >= 3 and report["events seen by one client"] > 0.9 * report["events made"]


def sample(at: float, memory: float, late: dict[float, float]) -> steady.Sample:
    return steady.Sample(at, int(memory), late)


def judged(seconds: float, memories: list[float], late: list[float], **more: object) -> list[str]:
    """The faults of a run in which memory and the ticks beyond 10 ms were so."""
    samples = [
        sample(
            at * seconds / len(memories),
            memory,
            {0.01: 1000.0 * at - beyond, 1.0: 1000.0 * at, float("inf"): 1000.0 * at},
        )
        for at, (memory, beyond) in enumerate(zip(memories, late, strict=True))
    ]
    made = int(2000 * seconds)
    known = {"status": {"streams": [{"seq": made}]}, "seen": made, "gaps": 0, "cut": 0, "clients": [], "log": ""}
    return list(steady._report(seconds, 1, samples, **{**known, **more})["faults"])  # type: ignore[arg-type]


EVEN, NONE = [100.0] * 40, [0.0] * 40


@pytest.mark.parametrize(
    ("given", "faults"),
    [
        ((EVEN, NONE, {}), []),
        (([100.0] * 20 + [111.0] * 20, NONE, {}), ["memory grew"]),
        (([90.0] * 3 + [109.0] * 37, NONE, {}), []),
        ((EVEN, [0.0] * 20 + [50.0 * n for n in range(20)], {}), ["ticks were later"]),
        ((EVEN, NONE, {"gaps": 1}), ["events were missing or out of order"]),
        ((EVEN, NONE, {"cut": 1}), ["clients were cut off"]),
        ((EVEN, NONE, {"log": "12:00:00 ERROR    regstream.x: lost"}), ["an error was logged"]),
        ((EVEN, NONE, {"status": {"streams": [{"seq": 3}]}}), ["too few events"]),
    ],
)
def test_each_fault_is_found(given: tuple[list[float], list[float], dict[str, object]], faults: list[str]) -> None:
    memories, late, more = given
    assert judged(steady.LONG, memories, late, **more) == faults
