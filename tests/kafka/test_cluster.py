"""The cluster that other tests rely on: it keeps what it was given, dies at once, comes back, and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import ssl
import subprocess
import sys
import textwrap
import time
from typing import Any

import aiokafka
import aiokafka.admin
import aiokafka.errors
import pytest

from scripts import kafka
from tests import support
from tests.kafka.conftest import MakeCluster

BOUND = 60.0
SECURITY = kafka.Security(users={"alice": "alice-secret", "bob": "bob:s=ecret"}, client_auth="requested")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


async def create(cluster: kafka.Cluster, topic: str, partitions: int = 1, replicas: int = 1, **options: Any) -> None:
    admin = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap, **options)
    async with asyncio.timeout(BOUND):
        try:
            await admin.start()
            answer = await admin.create_topics([aiokafka.admin.NewTopic(topic, partitions, replicas)])
            assert [code for _, code, *_ in answer.topic_errors] == [0]
        finally:
            await admin.close()


async def produce(cluster: kafka.Cluster, topic: str, values: list[bytes], **options: Any) -> None:
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=cluster.bootstrap, enable_idempotence=True, compression_type="lz4", **options
    )
    async with asyncio.timeout(BOUND), producer:
        for sent in [await producer.send(topic, value) for value in values]:
            await sent


async def consume(cluster: kafka.Cluster, topic: str, count: int, **options: Any) -> list[bytes]:
    found: list[bytes] = []
    consumer = aiokafka.AIOKafkaConsumer(
        topic, bootstrap_servers=cluster.bootstrap, auto_offset_reset="earliest", **options
    )
    async with asyncio.timeout(BOUND), consumer:
        while len(found) < count:
            found.append((await consumer.getone()).value)
    return found


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


class TestOneBroker:
    async def test_gives_back_what_it_was_given(self, shared_cluster: kafka.Cluster) -> None:
        await create(shared_cluster, "given-back")
        await produce(shared_cluster, "given-back", numbered(500))
        assert await consume(shared_cluster, "given-back", 500) == numbered(500)

    async def test_a_topic_that_nobody_created_is_missing(self, shared_cluster: kafka.Cluster) -> None:
        async with aiokafka.AIOKafkaProducer(
            bootstrap_servers=shared_cluster.bootstrap, request_timeout_ms=1000
        ) as producer:
            with pytest.raises(aiokafka.errors.KafkaError):
                await producer.send_and_wait("nobody-created-this", b"x")

    async def test_killed_and_restarted_it_has_everything(self, make_cluster: MakeCluster) -> None:
        cluster = make_cluster()
        bootstrap = cluster.bootstrap
        await create(cluster, "kept", partitions=1)
        for round_ in range(3):
            await produce(cluster, "kept", numbered(100, round_ * 100))
            cluster.kill(1)
            assert cluster.pid(1) is None
            assert not cluster.ready(1)
            await asyncio.to_thread(cluster.restart, 1)
        assert cluster.bootstrap == bootstrap
        assert await consume(cluster, "kept", 300) == numbered(300)

    async def test_stopped_and_started_it_has_everything(self, make_cluster: MakeCluster) -> None:
        cluster = make_cluster()
        await create(cluster, "kept")
        await produce(cluster, "kept", numbered(10))
        cluster.stop()
        cluster.start()
        assert await consume(cluster, "kept", 10) == numbered(10)

    def test_a_broker_that_cannot_start_says_why(self, make_cluster: MakeCluster) -> None:
        cluster = make_cluster()
        cluster.stop()
        for data in cluster.folder.glob("broker-1/data/meta.properties"):
            data.write_text("cluster.id=another\nversion=1\nnode.id=7\n")
        with pytest.raises(kafka.KafkaError, match=r"node|id"):
            cluster.start()
        assert cluster.pid(1) is None


class TestThreeBrokers:
    async def test_go_on_while_one_is_away(self, make_cluster: MakeCluster) -> None:
        cluster = make_cluster(brokers=3)
        await create(cluster, "three", partitions=1, replicas=3)
        await produce(cluster, "three", numbered(50), acks="all")
        for n in (1, 2):
            cluster.kill(n)
            await produce(cluster, "three", numbered(50, n * 50), acks="all")
            await asyncio.to_thread(cluster.restart, n)
        assert await consume(cluster, "three", 150) == numbered(150)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with kafka.Cluster(tmp_path_factory.mktemp("secured"), security=SECURITY) as cluster:
        yield cluster


def login(cluster: kafka.Cluster, name: str, password: str, mechanism: str) -> dict[str, Any]:
    return {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": name,
        "sasl_plain_password": password,
        "ssl_context": ssl.create_default_context(cafile=cluster.certificates.ca),
    }


class TestSecurity:
    @pytest.mark.parametrize("mechanism", MECHANISMS)
    async def test_who_logs_in_may_write_and_read(self, secured: kafka.Cluster, mechanism: str) -> None:
        topic = f"secret-{mechanism}"
        for name, password in SECURITY.users.items():
            options = login(secured, name, password, mechanism)
            if name == "alice":
                await create(secured, topic, **options)
            await produce(secured, topic, numbered(5), **options)
        assert await consume(secured, topic, 10, **options) == numbered(5) * 2

    @pytest.mark.parametrize("mechanism", MECHANISMS)
    async def test_a_wrong_password_is_refused(self, secured: kafka.Cluster, mechanism: str) -> None:
        with pytest.raises(aiokafka.errors.KafkaError):
            await create(secured, "never", **login(secured, "alice", "bob:s=ecret", mechanism))

    async def test_a_stranger_to_the_authority_is_not_believed(self, secured: kafka.Cluster) -> None:
        options = login(secured, "alice", "alice-secret", "PLAIN") | {"ssl_context": ssl.create_default_context()}
        with pytest.raises(aiokafka.errors.KafkaError):
            await create(secured, "never", **options)

    async def test_without_tls_there_is_nothing(self, secured: kafka.Cluster) -> None:
        with pytest.raises((aiokafka.errors.KafkaError, TimeoutError)):
            await asyncio.wait_for(create(secured, "never"), 5)

    async def test_a_certificate_alone_may_be_asked_for(self, make_cluster: MakeCluster) -> None:
        cluster = make_cluster(security=kafka.Security("SSL", {}, "required"))
        context = ssl.create_default_context(cafile=cluster.certificates.ca)
        with pytest.raises(aiokafka.errors.KafkaError):
            await create(cluster, "certified", security_protocol="SSL", ssl_context=context)
        context.load_cert_chain(cluster.certificates.client_cert, cluster.certificates.client_key)
        await create(cluster, "certified", security_protocol="SSL", ssl_context=context)


class TestProcesses:
    def test_brokers_die_with_who_started_them(self, tmp_path: pathlib.Path) -> None:
        script = textwrap.dedent(f"""
            import os, pathlib, signal
            from scripts import kafka
            cluster = kafka.Cluster(pathlib.Path({str(tmp_path)!r}))
            cluster.start()
            os.kill(os.getpid(), signal.SIGKILL)
        """)
        done = subprocess.run([sys.executable, "-c", script], cwd=support.ROOT, timeout=BOUND)
        assert done.returncode == -signal.SIGKILL
        cluster = kafka.Cluster.open(tmp_path)
        end = time.monotonic() + BOUND
        while cluster.pid(1) and time.monotonic() < end:
            time.sleep(0.01)
        assert cluster.pid(1) is None

    async def test_brokers_outlive_the_thread_that_started_them(self, make_cluster: MakeCluster) -> None:
        cluster = make_cluster()
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(cluster.restart, 1)
        pid = cluster.pid(1)
        await loop.shutdown_default_executor()
        assert pid == cluster.pid(1)
        assert cluster.ready(1)

    def test_the_command(self, tmp_path: pathlib.Path) -> None:
        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [
                sys.executable,
                f"{support.ROOT / 'scripts' / 'kafka'}",
                *arguments,
                "--data",
                f"{tmp_path / 'k'}",
            ]
            return subprocess.run(command, capture_output=True, text=True, timeout=BOUND, env=dict(os.environ))

        port = kafka._free(set())
        assert run("status").returncode == 1
        try:
            started = run("start", "--port", f"{port}")
            assert started.stdout.startswith(f"KAFKA_BROKER=127.0.0.1:{port}\n"), started.stderr
            assert run("status").returncode == 0
            assert run("start", "--port", f"{port}").returncode == 0
            assert "another cluster" in run("start", "--brokers", "3").stderr
            assert run("kill", "1").returncode == 0
            assert "not running" in run("status").stdout
            assert run("restart", "1").returncode == 0
            assert "no broker 2" in run("kill", "2").stderr
            assert run("status").returncode == 0
        finally:
            stopped = run("stop", "--delete")
        assert stopped.returncode == 0, stopped.stderr
        assert not (tmp_path / "k").exists()
