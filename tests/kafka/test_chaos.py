"""The short form of ``make chaos``, as a process of its own: everything must hold, and the report must say so."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from tests.process import environment
from tests.support import ROOT

pytestmark = pytest.mark.slow


def test_nothing_is_lost_and_nothing_is_shown_twice(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "report.json"
    command = [sys.executable, "-m", "scripts.chaos", "--short", "--seed", "11", "--out", f"{out}"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=360)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert report["holds"]
    one, three = report["acts"]
    assert one["broker kills"] >= 2
    assert one["daemon kills"] >= 1
    assert three["broker kills"] == 1
    for act in (one, three):
        assert act["faults"] == {}
        assert act["events"] > 5_000
        assert act["records"] == act["events"] + act["doubles"]
        for client in act["clients"].values():
            assert client["shown"] > 0
            assert client["twice"] == client["gaps"] == client["not recovered"] == 0
