"""A daemon with a database, as a process: what it goes on with after a restart, and what it says of the database."""

from __future__ import annotations

import hashlib
import itertools
import pathlib
import signal
from typing import Any

import pytest

from tests import databases, process
from tests.conftest import MakePostgres
from tests.kafka import clusters
from tests.store import making

SPEND = """seed: 5
entities:
  svp:
    count: 4
    key: svpId
    fields: {svpId: "{{ 'SVP-%03d' | format(index + 1) }}", spent: 0}
streams:
  SPEND:
    interval: 20ms
    batchSize: 5
    topic: t.spend
    with: {svp: "{{ pick('svp') }}"}
    fields: {svpId: "{{ svp.svpId }}", spent: "{{ svp.spent + 1 }}"}
    update: {svp.spent: "{{ svp.spent + 1 }}"}
    key: "{{ svp.svpId }}"
"""
ROWS = """
    SELECT epoch, seq, data ->> 'svpId', (data ->> 'spent')::int FROM regstream.events
    WHERE stream = 'SPEND' ORDER BY epoch, seq
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "streams.yaml").write_text(SPEND)
    return tmp_path


def rows(url: str) -> list[tuple[str, int, str, int]]:
    return databases.rows(url, ROWS)  # type: ignore[return-value]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("with_kafka", [False, True], ids=["simulation", "kafka"])
def test_numbers_and_rows_go_on_after_a_restart(
    request: pytest.FixtureRequest,
    folder: pathlib.Path,
    database_url: str,
    number: signal.Signals,
    with_kafka: bool,
) -> None:
    env = {"DATABASE_URL": database_url}
    if with_kafka:
        clusters.need(request.node.nodeid)
        env["KAFKA_BROKER"] = request.getfixturevalue("shared_cluster").bootstrap
        topic = f"t.spend.{number.name.lower()}"
        (folder / "streams.yaml").write_text(SPEND.replace("t.spend", topic))
    daemon = process.Daemon(folder, **env)
    for lives in (1, 2, 3):
        process.eventually(lambda lives=lives: len(rows(database_url)) > 200 * lives, making.BOUND)
        daemon.stop(number)
        if lives < 3:
            daemon.start()
    found = rows(database_url)
    assert len({epoch for epoch, *_ in found}) == 1
    assert [seq for _, seq, *_ in found] == list(range(1, len(found) + 1))
    by_row: dict[str, list[int]] = {}
    for _, _, name, spent in found:
        by_row.setdefault(name, []).append(spent)
    for name, spends in by_row.items():
        if number == signal.SIGTERM:
            assert spends == list(range(1, len(spends) + 1)), name
        # One that is killed may have noted a change whose event was not out yet; never the other way round
        falls = [pair for pair in itertools.pairwise(spends) if pair[1] <= pair[0]]
        assert falls == [], (name, [row for row in found if row[2] == name and row[3] in falls[0]])
        assert spends[-1] - len(spends) <= 200, name


def test_a_reader_that_was_away_for_longer_than_the_ring_gets_all_from_the_database(
    folder: pathlib.Path, database_url: str
) -> None:
    daemon = process.Daemon(folder, DATABASE_URL=database_url)
    first, _ = daemon.burst("SPEND", 1)
    epoch = daemon.stream("SPEND")["epoch"]
    # More than the ring of one stream holds
    for _ in range(3):
        daemon.burst("SPEND", 10_000)
    process.eventually(lambda: len(rows(database_url)) > 30_000, making.BOUND)
    daemon.post("stop", {"streams": ["SPEND"]})
    with daemon.reader() as reader:
        told = reader.subscribe("SPEND", after={"SPEND": {"epoch": epoch, "seq": first}})["streams"]["SPEND"]
        assert told["recovered"] is True and told["replayed"] == told["seq"] - first > 30_000
        seqs = [
            reader.until(lambda frame: "specversion" in frame["data"])["data"]["seq"] for _ in range(told["replayed"])
        ]
    assert seqs == list(range(first + 1, told["seq"] + 1))
    # With one of them gone from the table it is not sent in part
    databases.rows(database_url, "DELETE FROM regstream.events WHERE seq = %s", first + 5)
    with daemon.reader() as reader:
        told = reader.subscribe("SPEND", after={"SPEND": {"epoch": epoch, "seq": first}})["streams"]["SPEND"]
    assert (told["recovered"], told["replayed"]) == (False, 0)
    assert daemon.stop() == 0


def test_the_ring_begins_with_what_was_before_the_restart(folder: pathlib.Path, database_url: str) -> None:
    daemon = process.Daemon(folder, DATABASE_URL=database_url)
    process.eventually(lambda: len(rows(database_url)) > 100, making.BOUND)
    with daemon.reader() as reader:
        reader.subscribe("SPEND")
        last = reader.until(lambda frame: "specversion" in frame["data"])["data"]
    daemon.stop()
    daemon.start()
    with daemon.reader() as reader:
        after = {"SPEND": {"epoch": last["epoch"], "seq": last["seq"]}}
        told = reader.subscribe("SPEND", after=after)["streams"]["SPEND"]
        following = reader.until(lambda frame: "specversion" in frame["data"])["data"]
    assert told["recovered"] is True and following["seq"] == last["seq"] + 1
    assert daemon.stop() == 0


def test_health_and_the_figures_tell_of_a_database_that_is_away(
    folder: pathlib.Path, make_postgres: MakePostgres
) -> None:
    cluster = make_postgres()
    daemon = process.Daemon(folder, DATABASE_URL=cluster.url())

    def health() -> dict[str, Any]:
        return dict(daemon.get("/health"))

    process.eventually(lambda: health()["store"]["recorded"] > 50, making.BOUND)
    assert (health()["store"]["state"], health()["status"]) == ("live", "ok")
    with daemon.reader() as reader:
        reader.subscribe("system", "SPEND")
        cluster.kill()
        news = reader.until(lambda frame: frame["data"].get("kind") == "store-changed")["data"]
        assert news["state"] == "away" and news["reason"]
        seq = reader.until(lambda frame: "specversion" in frame["data"])["data"]["seq"]
        reader.until(lambda frame: frame["data"].get("seq") == seq + 20)
    told = health()
    assert (told["status"], told["store"]["state"]) == ("degraded", "away") and told["store"]["waiting"] > 0
    figures = daemon.http.get("/metrics").text
    assert 'regstream_store_state{state="away"} 1.0' in figures
    for path in ("/api/streaming/events", "/api/streaming/analytics?stream=SPEND", "/api/streaming/audit"):
        assert daemon.http.get(path).status_code == 503
    cluster.start()
    process.eventually(lambda: health()["store"]["waiting"] == 0 and health()["status"] == "ok", making.BOUND)
    found = rows(cluster.url())
    assert [seq for _, seq, *_ in found] == list(range(1, len(found) + 1))
    assert daemon.stop() == 0


def test_a_database_that_cannot_be_is_said_without_its_password(folder: pathlib.Path) -> None:
    daemon = process.Daemon(folder, DATABASE_URL="postgresql://u:hunter2@127.0.0.1:9/d")
    store = daemon.get("/health")["store"]
    assert store["state"] == "away" and "refused" in store["reason"]
    assert daemon.stop() == 0
    assert "database away" in daemon.log.read_text()
    assert "hunter2" not in daemon.log.read_text() + str(store)


@pytest.mark.parametrize("password", ["hunter2%zz", "Sup3r@hunter2", "hunter2/x", "12#hunter2"])
def test_an_address_that_is_not_understood_is_refused_at_start(folder: pathlib.Path, password: str) -> None:
    done = process.run("run", cwd=folder, DATABASE_URL=f"postgresql://u:{password}@127.0.0.1:9/d")
    assert done.returncode == 78 and "DATABASE_URL" in done.stderr and "percent-encode" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_old_days_go_by_retention(folder: pathlib.Path, database_url: str) -> None:
    days = "SELECT relname FROM pg_class WHERE relname ~ '^events_2' AND relkind = 'r' ORDER BY 1"
    databases.rows(database_url, "CREATE TABLE regstream.events_20200101 (LIKE regstream.events INCLUDING ALL)")
    databases.rows(
        database_url,
        "ALTER TABLE regstream.events ATTACH PARTITION regstream.events_20200101 "
        "FOR VALUES FROM ('2020-01-01T00:00:00Z') TO ('2020-01-02T00:00:00Z')",
    )
    daemon = process.Daemon(folder, DATABASE_URL=database_url, RETENTION="2d")
    process.eventually(lambda: ("events_20200101",) not in databases.rows(database_url, days), making.BOUND)
    assert len(databases.rows(database_url, days)) == 3
    assert daemon.stop() == 0


def test_who_controlled_it_is_kept_without_their_token(folder: pathlib.Path, database_url: str) -> None:
    tokens = {"control": "c-0123456789abcdef", "admin": "a-0123456789abcdef"}
    given = " ".join(f"{role}:{token}" for role, token in tokens.items())
    daemon = process.Daemon(folder, DATABASE_URL=database_url, REGSTREAM_TOKENS=given)
    try:
        headers = {role: {"authorization": f"Bearer {token}"} for role, token in tokens.items()}
        base = "/api/streaming"
        assert daemon.http.post(f"{base}/stop", json={}, headers=headers["control"]).status_code == 200
        assert daemon.http.post(f"{base}/reload", json={}, headers=headers["admin"]).status_code == 200
        # Refused for want of a token or of a role: these are counted, and are no rows
        assert daemon.http.post(f"{base}/start", json={}).status_code == 401
        assert daemon.http.post(f"{base}/reload", json={}, headers=headers["control"]).status_code == 403

        def calls() -> list[dict[str, Any]]:
            answer = daemon.http.get(f"{base}/audit", headers=headers["admin"])
            return list(answer.json()["calls"]) if answer.status_code == 200 else []

        process.eventually(lambda: len(calls()) >= 2)
        kept = [(one["action"], one["actor"]) for one in calls()]
        assert [action for action, _ in kept] == ["stop", "reload"]
        for (_, actor), role in zip(kept, tokens, strict=True):
            assert actor == f"{role}:{hashlib.sha256(tokens[role].encode()).hexdigest()[:8]}"
    finally:
        assert daemon.stop() == 0
    assert "0123456789abcdef" not in daemon.log.read_text()
