"""A daemon whose Kafka is absent, goes away and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import signal
import time
from collections.abc import Iterator

import pytest

from regstream.broker import failover, spool
from regstream.broker import kafka as broker
from scripts import kafka
from tests import process
from tests.kafka import daemons
from tests.kafka.conftest import MakeCluster
from tests.test_broker import events

STREAMS = ("KEYED", "FREQUENT", "ALERTS")


@contextlib.contextmanager
def absent(how: str) -> Iterator[str]:
    if how == "silent":
        with daemons.silent() as address:
            yield address
    else:
        yield {"nobody listens": "127.0.0.1:1", "no such name": "kafka.invalid:9092"}[how]


@pytest.mark.parametrize("how", ["nobody listens", "silent", "no such name"])
def test_absent_at_start(tmp_path: pathlib.Path, how: str) -> None:
    with absent(how) as servers:
        began = time.monotonic()
        with process.running(tmp_path):
            alone = time.monotonic() - began
        began = time.monotonic()
        daemon = daemons.start(tmp_path / "absent", servers)
        assert daemon.http.get("/").status_code == 200
        # Five seconds for the cluster, beside what a start takes here
        assert time.monotonic() - began < 5 + 3 * alone
        health = daemon.get("/health")
        assert health["status"] == "degraded"
        assert health["kafka"]["state"] == "fallback" and health["kafka"]["simulationMode"] is True
        assert servers in health["kafka"]["reason"]
        with daemon.reader("?channel=dashboard-updates") as reader:
            reader.event("KEYED")
        assert daemon.get("/api/streaming/status")["kafka"]["waiting"] > 0
        time.sleep(3)
        assert len(daemon.log.read_text().splitlines()) < 30, daemon.log.read_text()
        daemons.end(daemon)


async def test_servers_that_are_silent_or_away_do_not_hide_the_others(shared_cluster: kafka.Cluster) -> None:
    with daemons.silent() as silent:
        # Whichever of them is tried first
        for _ in range(5):
            one = broker.KafkaBroker(broker.Connection(f"{silent},127.0.0.1:1,{shared_cluster.bootstrap}"))
            await one.start()
            await one.probe()
            await one.abandon()


def test_comes_later(tmp_path: pathlib.Path, make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.stop()
    with daemons.running(tmp_path / "d", cluster.bootstrap) as daemon:
        assert daemons.broker(daemon)["state"] == "fallback"
        with daemon.reader("?channel=dashboard-updates&channel=system") as reader:
            reader.until("subscribed")
            before = daemon.burst("KEYED", 3000)[1]
            cluster.restart(1)
            daemons.until(daemon, "live")
            reader.system("broker-changed", to="live")
            changes = [frame["data"] for frame in reader.frames if frame["data"].get("kind") == "broker-changed"]
            assert [one["to"] for one in changes] == ["draining", "live"]
            reader.event("KEYED", daemon.burst("KEYED", 10)[1])
            said = daemons.broker(daemon)
            assert (said["connected"], said["simulationMode"], said["reason"]) == (True, False, "")
            assert (said["dropped"], said["foreign"], said["skipped"]) == ({}, 0, 0)
            for stream in STREAMS:
                daemons.check_shown(reader, stream)
    found = daemons.read(cluster)
    for stream in STREAMS:
        (count,) = daemons.check(found[stream]).values()
        assert count >= (before if stream == "KEYED" else 1)
    assert {one.partition for one in found["KEYED"]} > {0}


def test_lost_while_running_and_back(tmp_path: pathlib.Path, make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    with daemons.running(tmp_path / "d", cluster.bootstrap) as daemon:
        daemons.until(daemon, "live")
        with daemon.reader("?channel=dashboard-updates&channel=system") as reader:
            reader.event("ALERTS")
            for _ in range(2):
                cluster.kill(1)
                last = daemon.burst("KEYED", 500)[1]
                state = daemons.until(daemon, "fallback")
                assert state["reason"] and state["simulationMode"] and not state["connected"]
                reader.event("KEYED", last)
                last = daemon.burst("KEYED", 500)[1]
                reader.event("KEYED", last, seconds=3)
                cluster.restart(1)
                daemons.until(daemon, "live")
                last = daemon.burst("KEYED", 5)[1]
                reader.event("KEYED", last)
            for stream in STREAMS:
                daemons.check_shown(reader, stream)
            changes = [frame["data"] for frame in reader.frames if frame["data"].get("kind") == "broker-changed"]
            assert [one["to"] for one in changes][-6:] == 2 * ["fallback", "draining", "live"]
    found = daemons.read(cluster)
    for stream in STREAMS:
        (count,) = daemons.check_in_doubt(found[stream]).values()
        assert count == daemons.last(found[stream])


def test_what_a_killed_daemon_left_is_sent_by_the_next(tmp_path: pathlib.Path, make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    first = daemons.start(tmp_path / "d", cluster.bootstrap)
    daemons.until(first, "live")
    epoch = first.stream("RARE")["epoch"]
    assert first.burst("RARE", 50) == (1, 50)
    cluster.kill(1)
    daemons.until(first, "fallback")
    assert first.burst("RARE", 2500) == (51, 2550)
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    # Another one, still without Kafka, and killed as well
    second = daemons.start(tmp_path / "d", cluster.bootstrap)
    assert daemons.broker(second)["waiting"] >= 2500
    assert (second.stream("RARE")["epoch"], second.burst("RARE", 10)) == (epoch, (2551, 2560))
    assert second.stop(signal.SIGKILL) == -signal.SIGKILL
    cluster.restart(1)
    with daemons.running(tmp_path / "d", cluster.bootstrap) as third:
        daemons.until(third, "live")
        with third.reader() as reader:
            reader.subscribe("RARE", rewind=20)
            assert (third.stream("RARE")["epoch"], third.burst("RARE", 10)) == (epoch, (2561, 2570))
            reader.event("RARE", 2570)
            assert daemons.check_shown(reader, "RARE") == list(range(2541, 2571))
    found = daemons.read(cluster)
    for stream, messages in found.items():
        assert list(daemons.check_in_doubt(messages).values())[-1] == daemons.last(messages), stream
    assert {one.partition for one in found["RARE"]} <= set(range(4))


async def test_a_key_with_half_a_character_does_not_hold_up_the_spool(
    tmp_path: pathlib.Path, shared_cluster: kafka.Cluster
) -> None:
    kept = spool.Spool(tmp_path / "spool")
    kept.open()
    left = [event._replace(key="half \ud800" if event.seq == 2 else "whole") for event in events(3, topic="half.key")]
    kept.append(left)
    kept.close()
    reach = broker.Connection(shared_cluster.bootstrap)
    one = failover.FailoverBroker(
        lambda starts: broker.KafkaBroker(reach, starts), kept, time.monotonic, lambda *change: None
    )
    await one.start()
    try:
        await one.declare({"half.key": 3}, streams={"ONE": "half.key"})
        async with asyncio.timeout(20):
            while one.status.state != "live":
                await asyncio.sleep(0.01)
        assert (one.status.waiting, one.status.errors, one.status.reason) == (0, 0, "")
    finally:
        await one.close()
    found = (await asyncio.to_thread(daemons.read, shared_cluster, ("half.key",)))["ONE"]
    assert sorted(json.loads(message.value)["seq"] for message in found) == [1, 2, 3]


def test_a_reload_while_it_is_away(tmp_path: pathlib.Path, make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.stop()
    with daemons.running(tmp_path / "d", cluster.bootstrap) as daemon:
        more = daemons.STREAMS + (
            "  LATER:\n    topic: test.later\n    event: later-update\n    interval: 50ms\n    fields: {n: 1}\n"
        )
        daemons.write(daemon.folder, more)
        process.eventually(lambda: len(daemon.streams()) == 4)
        with daemon.reader("?channel=LATER") as reader:
            reader.event("LATER", 3)
            cluster.restart(1)
            daemons.until(daemon, "live")
            reader.event("LATER", daemon.burst("LATER", 5)[1])
            daemons.check_shown(reader, "LATER")
    found = daemons.read(cluster, ("test.later",))
    assert len(daemons.check(found["LATER"])) == 1
    assert json.loads(found["LATER"][0].value)["type"] == "later-update"
