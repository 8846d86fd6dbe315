"""The short form of ``make keeping``, as a process of its own, and that its judge finds what it is to find."""

from __future__ import annotations

import collections
import json
import pathlib
import subprocess
import sys

import pytest

from scripts import keeping
from tests import databases
from tests.kafka import clusters
from tests.process import environment
from tests.support import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("act", keeping.ACTS)
def test_nothing_is_lost_and_nothing_is_there_twice(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, act: str
) -> None:
    databases.need(request.node.nodeid, own=True)
    if act == "kafka":
        clusters.need(request.node.nodeid)
    out = tmp_path / "report.json"
    command = [sys.executable, "-m", "scripts.keeping", "--short", "--seed", "11", "--act", act, "--out", f"{out}"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    (one,) = report["acts"]
    assert (one["faults"], one["dropped"], one["refused"]) == ({}, {}, 0)
    assert one["rows"] >= one["compared with"] > 5_000
    assert (one["database kills"], one["daemon kills"]) == (3, 2)


def test_the_judge_sees_what_is_missing_what_is_double_and_holes() -> None:
    seen: dict[tuple[str, str], set[int]] = collections.defaultdict(set, {("S", "E"): {1, 2, 4}})
    kept = keeping.Kept(seen, ["S/E/2"])
    assert keeping.judge(kept, {("S", "E"): {1, 2, 3}, ("T", "E"): {1}}, gapless=True) == {
        "missing": ["S/E/3", "T/E/1"],
        "twice": ["S/E/2"],
        "holes": ["S/E: 3 of 4"],
    }


def test_the_reader_of_the_table_sees_doubles(database_url: str) -> None:
    databases.rows(database_url, "CREATE TABLE regstream.other (stream text, epoch text, seq bigint)")
    databases.rows(database_url, "DROP TABLE regstream.events CASCADE")
    databases.rows(database_url, "ALTER TABLE regstream.other RENAME TO events")
    databases.rows(database_url, "INSERT INTO regstream.events VALUES ('S', 'E', 1), ('S', 'E', 2), ('S', 'E', 2)")
    kept = keeping.read(database_url)
    assert (dict(kept.seen), kept.twice, kept.rows) == ({("S", "E"): {1, 2}}, ["S/E/2"], 3)
