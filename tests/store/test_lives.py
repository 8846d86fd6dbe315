"""Rows after a restart, as a process: what comes and goes goes on, and what a run had changed is as it was before."""

from __future__ import annotations

import collections
import json
import pathlib
import signal
from typing import Any

import pytest

from tests import databases, process
from tests.kafka import clusters, daemons
from tests.store import making

ORDER = ["OPEN", "REVIEW", "CLOSED"]
STREAMS = """seed: 5
entities:
  finding:
    count: 30
    key: id
    fields: {id: "F-{{ index }}", n: "{{ randint(1, 10**9) }}"}
    states:
      OPEN: {lasts: {mean: 2s, spread: 80%}, then: {REVIEW: 1}}
      REVIEW: {lasts: {between: [1s, 2s]}, then: {CLOSED: 1}}
      CLOSED: {lasts: 1s}
  svp:
    count: 3
    key: id
    fields: {id: "SVP-{{ index }}", spent: 10, category: NONE}
streams:
  TOLD:
    follow: finding
    interval: 100ms
    topic: t.told
    fields: {id: "{{ row.id }}", state: "{{ state }}", was: "{{ was }}", n: "{{ row.n }}"}
  SPEND:
    interval: 200h
    topic: t.told
    with: {svp: "{{ pick('svp') }}"}
    fields: {id: "{{ svp.id }}", spent: "{{ svp.spent + 1 }}", category: "{{ svp.category }}"}
    update: {svp.spent: "{{ spent }}", svp.category: "{{ category }}"}
"""
CRISIS = """name: CRISIS
steps:
  - burst: {stream: SPEND, count: 50, fields: {spent: 99999, category: OVERRUN}}
  - wait: 1h
"""


def told(events: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    by_row: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for event in sorted(events, key=lambda one: (one["epoch"], one["seq"])):
        by_row[event["data"]["id"]].append(event)
    return by_row


@pytest.fixture(params=["database", "kafka", "both"])
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    """Where a daemon keeps what it has to keep; servers that others use too are not started by a test itself."""
    found = {}
    if request.param != "kafka":
        found["DATABASE_URL"] = request.getfixturevalue("database_url")
    if request.param != "database":
        clusters.need(request.node.nodeid)
        found["KAFKA_BROKER"] = request.getfixturevalue("shared_cluster").bootstrap
    return found


def test_rows_go_on_where_they_were_and_no_run_outlives_a_kill(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, env: dict[str, str]
) -> None:
    topic = "t.told." + "-".join(sorted(env)).lower().replace("_", "-")
    (tmp_path / "streams.yaml").write_text(STREAMS.replace("t.told", topic))
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "crisis.yaml").write_text(CRISIS)
    daemon = process.Daemon(tmp_path, **env)
    for turn, number in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGTERM), 1):
        with daemon.reader() as reader:
            reader.subscribe("SPEND")
            first, last = daemon.burst("SPEND", 4)
            reader.event("SPEND", last)
            spent = [event["data"] for event in reader.events("SPEND") if event["seq"] >= first]
            assert {one["category"] for one in spent} == {"NONE"}
            assert {one["spent"] for one in spent} <= set(range(11, 11 + 4 * turn)), spent
            daemon.post("simulate", {"scenario": "CRISIS"}, 202)
            reader.event("SPEND", last + 50)
        process.eventually(lambda turn=turn: daemon.stream("TOLD")["seq"] >= 60 * turn, making.BOUND)
        assert daemon.stop(number) == (-9 if number == signal.SIGKILL else 0)
        if turn < 3:
            daemon.start()
    if "DATABASE_URL" not in env:
        cluster = request.getfixturevalue("shared_cluster")
        found = [json.loads(one.value) for one in daemons.read(cluster, (topic,))["TOLD"]]
    else:
        statement = "SELECT value FROM regstream.events WHERE stream = 'TOLD'"
        found = [json.loads(value) for (value,) in databases.rows(env["DATABASE_URL"], statement)]
    assert len(found) >= 180 and len({event["epoch"] for event in found}) == 1
    gaps = 0
    for rows in told(found).values():
        places = [ORDER.index(event["data"]["state"]) for event in rows]
        assert places == sorted(set(places)), rows
        assert len({event["data"]["n"] for event in rows}) == 1
        gaps += places != list(range(places[0], places[-1] + 1))
    # The one that was killed may have noted a slice that it had not said yet
    assert gaps <= 20
