"""A past on the topics of a real cluster: written once, in order, byte by byte what a file gets."""

from __future__ import annotations

import asyncio
import pathlib

from scripts import kafka
from tests import process
from tests.cli.test_generate import STREAMS
from tests.kafka import clusters, daemons

TOPICS = ("past.paid", "past.booked", "past.daily", "reginsight.alerts")


def test_it_is_written_once_in_order(tmp_path: pathlib.Path, shared_cluster: kafka.Cluster) -> None:
    asyncio.run(clusters.forget(shared_cluster.bootstrap, TOPICS))
    text = STREAMS.replace(
        "profiles: {development: {speed: 2}}",
        "profiles: {development: {speed: 2, kafka: {partitions: 1, replication: 1}}}",
    )
    for name in ("PAID", "BOOKED", "DAILY"):
        text = text.replace(f"  {name}:\n", f"  {name}:\n    topic: past.{name.lower()}\n")
    (tmp_path / "streams.yaml").write_text(text)
    command = ["generate", "--from", "2026-01-01", "--out"]
    expected = process.run(*command, "-", "--duration", "10m", cwd=tmp_path).stdout.splitlines()
    # A part first, then all, then all again
    for duration in ("4m", "10m", "10m"):
        done = process.run(
            *command, "kafka", "--duration", duration, cwd=tmp_path, KAFKA_BROKER=shared_cluster.bootstrap
        )
        assert done.returncode == 0, done.stderr
    assert "0 events of" in done.stderr
    found = daemons.read(shared_cluster, TOPICS)
    for stream, messages in found.items():
        assert [one.value.decode() for one in messages] == [
            one for one in expected if f'"subject":"{stream}"' in one
        ], stream
    assert set(found) == {"PAID", "BOOKED", "DAILY", "ALERTS"}


def test_a_cluster_that_is_not_there_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "streams.yaml").write_text(STREAMS)
    done = process.run("generate", "--duration", "1m", "--out", "kafka", cwd=tmp_path, KAFKA_BROKER="127.0.0.1:1")
    assert done.returncode == 1
    assert "Kafka cannot be reached" in done.stderr and "Traceback" not in done.stderr
