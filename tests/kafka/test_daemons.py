"""Daemons on a cluster that is well: what the next one goes on with, what a second one shows, what the past holds."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import aiokafka
import aiokafka.admin
import pytest

from scripts import kafka
from tests import otlp, process
from tests.kafka import clusters, daemons


@pytest.fixture
def cluster(shared_cluster: kafka.Cluster) -> kafka.Cluster:
    """The shared one, with none of our topics."""
    more = ("test.later", "test_later", "test.collides", "test_collides")
    asyncio.run(clusters.forget(shared_cluster.bootstrap, (*daemons.TOPICS, *more)))
    return shared_cluster


def texts(reader: process.Reader, stream: str) -> dict[int, str]:
    """What a client was shown of a stream, by number."""
    return {event["seq"]: json.dumps(event, sort_keys=True) for event in reader.events(stream)}


class TestTheNext:
    def test_goes_on_with_every_numbering(self, tmp_path: pathlib.Path, cluster: kafka.Cluster) -> None:
        stood: dict[str, daemons.Position] = {}
        for turn in range(3):
            with daemons.running(tmp_path / "d", cluster.bootstrap) as daemon:
                assert daemons.broker(daemon)["state"] in ("live", "draining")
                began = daemons.positions(daemon)
                for stream, (epoch, seq) in stood.items():
                    assert began[stream][0] == epoch and began[stream][1] >= seq
                with daemon.reader() as reader:
                    reader.subscribe("dashboard-updates", rewind=50)
                    # Pushed out of the end of the topic that it shares
                    assert daemon.burst("RARE", 3) == (3 * turn + 1, 3 * turn + 3)
                    reader.event("KEYED", daemon.burst("KEYED", 1500)[1])
                    reader.event("FREQUENT", daemon.burst("FREQUENT", 6000)[1])
                    reader.event("ALERTS")
                    for stream in daemons.NAMES:
                        daemons.check_shown(reader, stream)
                daemon.post("stop")
                stood = daemons.positions(daemon)
        found = daemons.read(cluster)
        for stream in daemons.NAMES:
            assert len(daemons.check(found[stream])) == 1, stream
        assert len(found["RARE"]) == 9

    def test_begins_with_what_was_shown_last(self, tmp_path: pathlib.Path, cluster: kafka.Cluster) -> None:
        with daemons.running(tmp_path / "d", cluster.bootstrap) as daemon:
            daemon.burst("RARE", 40)
        with daemons.running(tmp_path / "d", cluster.bootstrap) as daemon:
            page = daemon.get("/api/streaming/events?stream=RARE&limit=100")
            assert [event["seq"] for event in page["events"]] == list(range(1, 41))
            with daemon.reader() as reader:
                after = {"epoch": page["events"][0]["epoch"], "seq": 10}
                said = reader.subscribe("RARE", after={"RARE": after})["streams"]["RARE"]
                assert (said["recovered"], said["replayed"]) == (True, 30)


class TestOneThatGeneratesNothing:
    def test_shows_the_same_events_with_the_same_positions(
        self, tmp_path: pathlib.Path, cluster: kafka.Cluster
    ) -> None:
        with daemons.running(tmp_path / "maker", cluster.bootstrap) as maker:
            maker.burst("RARE", 10)
            # It stands beside the maker, in whose folder for state it may not write
            state = str(tmp_path / "maker" / ".regstream")
            options = {"ENABLE_STREAMING": "false", "REGSTREAM_STATE": state}
            with daemons.running(tmp_path / "shower", cluster.bootstrap, **options) as shower:
                with maker.reader("?channel=dashboard-updates") as one, shower.reader() as two:
                    two.subscribe("dashboard-updates", rewind=100)
                    last = {name: maker.burst(name, 300)[1] for name in ("KEYED", "FREQUENT", "RARE")}
                    for name, seq in last.items():
                        one.event(name, seq)
                        two.event(name, seq)
                    for name in last:
                        left, right = texts(one, name), texts(two, name)
                        both = left.keys() & right.keys()
                        assert len(both) >= 290 and all(left[seq] == right[seq] for seq in both)
                        daemons.check_shown(two, name)
                maker.post("stop")
                process.eventually(lambda: daemons.positions(shower) == daemons.positions(maker))
                refused = shower.http.post("/api/streaming/start", json={})
                assert refused.status_code == 409
            assert not (tmp_path / "shower" / ".regstream").exists()

    def test_goes_on_when_kafka_was_away(self, tmp_path: pathlib.Path, make_cluster: Any) -> None:
        one = make_cluster()
        with daemons.running(tmp_path / "maker", one.bootstrap) as maker:
            maker.burst("RARE", 10)
            one.kill(1)
            daemons.until(maker, "fallback")
            with daemons.running(tmp_path / "shower", one.bootstrap, ENABLE_STREAMING="false") as shower:
                assert daemons.broker(shower)["state"] == "fallback"
                one.restart(1)
                daemons.until(shower, "live")
                daemons.until(maker, "live")
                process.eventually(lambda: daemons.positions(shower)["RARE"] == daemons.positions(maker)["RARE"])
                with shower.reader() as reader:
                    reader.subscribe("RARE", rewind=100)
                    reader.event("RARE", maker.burst("RARE", 10)[1])
                    assert daemons.check_shown(reader, "RARE") == list(range(1, 21))


class TestHistory:
    """What is asked for is more than any ring holds."""

    async def _empty(self, cluster: kafka.Cluster, topic: str) -> None:
        admin = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        await admin.start()
        try:
            (found,) = await admin.describe_topics([topic])
            parts = [aiokafka.TopicPartition(topic, n) for n in range(len(found["partitions"]))]
            await admin.delete_records({tp: aiokafka.admin.RecordsToDelete(-1) for tp in parts})
        finally:
            await admin.close()

    def test_what_the_ring_lost_comes_from_kafka(self, tmp_path: pathlib.Path, cluster: kafka.Cluster) -> None:
        with daemons.running(tmp_path / "d", cluster.bootstrap) as daemon:
            last = daemon.burst("KEYED", 9000)[1]
            epoch = daemon.stream("KEYED")["epoch"]
            with daemon.reader("?channel=KEYED") as reader:
                reader.event("KEYED", daemon.burst("KEYED", 1)[1])
            with daemon.reader() as reader:
                position = {"epoch": epoch, "seq": 7}
                said = reader.subscribe("dashboard-updates", after={"KEYED": position})["streams"]["KEYED"]
                assert said["recovered"] is True and said["replayed"] >= last - 7
                reader.event("KEYED", daemon.burst("KEYED", 1)[1])
                assert daemons.check_shown(reader, "KEYED")[0] == 8

    def test_what_the_log_lost_is_not_recovered(self, tmp_path: pathlib.Path, cluster: kafka.Cluster) -> None:
        with daemons.running(tmp_path / "d", cluster.bootstrap) as daemon:
            last = daemon.burst("RARE", 9000)[1]
            epoch = daemon.stream("RARE")["epoch"]
            with daemon.reader("?channel=RARE") as reader:
                last = daemon.burst("RARE", 1)[1]
                reader.event("RARE", last)
            asyncio.run(self._empty(cluster, "test.shared"))
            with daemon.reader() as reader:
                said = reader.subscribe("RARE", after={"RARE": {"epoch": epoch, "seq": 7}})["streams"]["RARE"]
                assert (said["recovered"], said["replayed"]) == (False, 0)
                reader.event("RARE", daemon.burst("RARE", 1)[1])
                assert daemons.check_shown(reader, "RARE") == [last + 1]


class TestTopics:
    def test_a_reload_makes_them_before_their_first_event(self, tmp_path: pathlib.Path, cluster: kafka.Cluster) -> None:
        with daemons.running(tmp_path / "d", cluster.bootstrap) as daemon:
            assert asyncio.run(names(cluster)) >= set(daemons.TOPICS)
            more = "  LATER:\n    topic: test.later\n    event: later-update\n    interval: 1h\n    fields: {n: 1}\n"
            daemons.write(tmp_path / "d", daemons.STREAMS + more)
            process.eventually(lambda: len(daemon.streams()) == 4)
            assert "test.later" in asyncio.run(names(cluster))

    def test_one_that_cannot_be_made_is_named_and_holds_nothing_else_up(
        self, tmp_path: pathlib.Path, cluster: kafka.Cluster
    ) -> None:
        asyncio.run(make(cluster, "test_collides"))
        streams = daemons.STREAMS.replace("  RARE:\n    topic: test.shared", "  RARE:\n    topic: test.collides")
        daemon = process.Daemon(daemons.write(tmp_path / "d", streams), KAFKA_BROKER=cluster.bootstrap)
        daemons.until(daemon, "live")
        with daemon.reader("?channel=dashboard-updates") as reader:
            # It is shown, as all else is
            reader.event("RARE", daemon.burst("RARE", 10)[1])
            reader.event("KEYED", daemon.burst("KEYED", 10)[1])
        assert "topic test.collides cannot be created" in daemons.broker(daemon)["reason"]
        assert daemon.get("/api/streaming/status")["kafka"]["errors"] == 10
        # Repaired, it is seen at the next try
        asyncio.run(clusters.forget(cluster.bootstrap, ["test_collides"]))
        process.eventually(lambda: daemons.broker(daemon)["reason"] == "", 40)
        daemon.burst("RARE", 5)
        process.eventually(lambda: not daemons.broker(daemon)["waiting"])
        assert daemon.stop(seconds=5) == 0
        assert all("events are refused and not on their topic" in one for one in daemon.complaints)
        assert len(daemons.read(cluster, ("test.collides",))["RARE"]) == 5

    def test_a_reload_whose_topics_cannot_be_made_is_refused(
        self, tmp_path: pathlib.Path, cluster: kafka.Cluster
    ) -> None:
        asyncio.run(make(cluster, "test_later"))
        with daemons.running(tmp_path / "d", cluster.bootstrap) as daemon:
            more = "  LATER:\n    topic: test.later\n    event: later-update\n    interval: 1h\n    fields: {n: 1}\n"
            daemons.write(tmp_path / "d", daemons.STREAMS + more)
            answer = process.eventually(lambda: daemon.get("/health")["config"]["error"])
            assert "test.later cannot be created" in answer
            assert len(daemon.streams()) == 3
            daemons.write(tmp_path / "d")
            process.eventually(lambda: daemon.get("/health")["config"]["error"] is None)
            daemon.log.write_text("")
            assert daemons.broker(daemon)["state"] == "live"


async def make(cluster: kafka.Cluster, topic: str) -> None:
    admin = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([aiokafka.admin.NewTopic(topic, 1, 1)])
    finally:
        await admin.close()


async def names(cluster: kafka.Cluster) -> set[str]:
    admin = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        return set(await admin.list_topics())
    finally:
        await admin.close()


def test_messages_say_of_which_trace_they_are(tmp_path: pathlib.Path, cluster: kafka.Cluster) -> None:
    with otlp.collecting() as collector:
        with daemons.running(tmp_path / "d", cluster.bootstrap, **otlp.environment(collector.url)) as daemon:
            daemons.until(daemon, "live")
            with daemon.reader("?channel=RARE") as reader:
                reader.event("RARE", daemon.burst("RARE", 3)[1])
        found = daemons.read(cluster)["RARE"]
        (burst,) = collector.named("burst RARE")
        sends = collector.named("send")
    assert len(found) == 3
    for one in found:
        headers = dict(one.headers)
        assert headers["traceparent"].decode() == json.loads(one.value)["traceparent"]
        assert otlp.names(headers["traceparent"].decode()) == otlp.named(burst)
    linked = [one for one in sends if any(link.span_id == burst.span_id for link in one.links)]
    assert len(linked) == 1 and otlp.about(linked[0])["messaging.system"] == "kafka"
