"""Two daemons that would generate onto the same topics: one does, and the other one says which."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import json
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from scripts import kafka
from tests import process
from tests.kafka import clusters, daemons


@pytest.fixture
def cluster(shared_cluster: kafka.Cluster) -> kafka.Cluster:
    """The shared one, with none of our topics."""
    asyncio.run(clusters.forget(shared_cluster.bootstrap, daemons.TOPICS))
    return shared_cluster


def kept_out(daemon: process.Daemon) -> str:
    """Why a daemon does not generate; empty when it does."""
    return str(daemon.get("/health")["streaming"].get("reason", ""))


def generates(daemon: process.Daemon) -> bool:
    try:
        return bool(daemon.get("/health")["streaming"]["isStreaming"])
    except httpx.TransportError:
        # One that takes over does not listen for a moment
        return False


def check_topics(cluster: kafka.Cluster, check: Callable[[list[Any]], Any] = daemons.check) -> dict[str, int]:
    """No position has two events; gives how many epochs each stream has.

    Each epoch is in order by itself: what a daemon that was killed had on disk, it sends when it is back.
    """
    found = daemons.read(cluster)
    return {stream: check_epochs(found[stream], check) for stream in ("KEYED", "FREQUENT", "ALERTS")}


def check_epochs(messages: list[Any], check: Callable[[list[Any]], Any]) -> int:
    by_epoch = collections.defaultdict(list)
    for message in messages:
        by_epoch[json.loads(message.value)["epoch"]].append(message)
    for some in by_epoch.values():
        check(some)
    return len(by_epoch)


def test_the_second_one_reads_says_why_and_takes_over_after_the_stop(
    tmp_path: pathlib.Path, cluster: kafka.Cluster
) -> None:
    first = daemons.start(tmp_path / "one", cluster.bootstrap, VPS_SERVER_NAME="alpha")
    first.burst("KEYED", 10)
    second = daemons.start(tmp_path / "two", cluster.bootstrap, VPS_SERVER_NAME="beta")
    try:
        assert generates(first) and not generates(second)
        reason = kept_out(second)
        for part in ("another daemon generates onto topic test.keyed", "alpha", "since 20", "ENABLE_STREAMING=false"):
            assert part in reason
        health, status = second.get("/health"), second.get("/api/streaming/status")
        assert (health["status"], status["dataStreamer"]["reason"]) == ("degraded", reason)
        assert [line for line in second.complaints if reason in line] == second.complaints and second.complaints
        refused = second.http.post("/api/streaming/burst", json={"streamType": "KEYED", "count": 1})
        assert (refused.status_code, refused.json()["detail"]) == (409, reason)
        with second.reader("?channel=dashboard-updates") as reader:
            reader.event("KEYED", first.burst("KEYED", 5)[1])
            daemons.check_shown(reader, "KEYED")
        # It is known again at once, whatever port it listens on
        first.stop(signal.SIGKILL)
        first.start()
        assert generates(first) and not generates(second)
        daemons.end(first)
        process.eventually(lambda: generates(second), what="the second one takes over")
        assert (kept_out(second), second.get("/health")["status"]) == ("", "ok")
        last = second.burst("KEYED", 5)[1]
        assert last > 15
    finally:
        assert first.process.poll() is not None or first.stop() == 0
        assert second.stop(seconds=10) == 0
    assert check_topics(cluster) == {"KEYED": 1, "FREQUENT": 1, "ALERTS": 1}


def test_of_two_that_start_at_once_one_generates_and_of_one_that_is_gone_the_lease_ends(
    tmp_path: pathlib.Path, cluster: kafka.Cluster
) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda name: daemons.start(tmp_path / name, cluster.bootstrap), ("one", "two")))
    try:
        process.eventually(lambda: any(map(generates, both)))
        (maker,), (reader,) = ([one for one in both if generates(one) is is_maker] for is_maker in (True, False))
        assert kept_out(reader) and not kept_out(maker)
        before = daemons.positions(maker)["KEYED"]
        maker.stop(signal.SIGKILL)
        process.eventually(lambda: generates(reader), what="the lease ends")
        # What the other one has on disk must not meet the same numbers again
        assert daemons.positions(reader)["KEYED"][0] > before[0]
        maker.start()
        assert generates(reader) and not generates(maker)
    finally:
        assert [one.stop(seconds=10) for one in both] == [0, 0]
    # What was under way when it was killed may be there twice
    assert check_topics(cluster, daemons.check_in_doubt)["KEYED"] == 2
