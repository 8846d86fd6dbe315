"""SIGTERM in every state, and what a cluster that asks who one is makes of a daemon."""

from __future__ import annotations

import os
import pathlib
import signal
import time
from typing import Any

import pytest

from scripts import kafka
from tests import process
from tests.kafka import daemons
from tests.kafka.conftest import MakeCluster

# Five seconds are the daemon's own bound, which says nothing where it has half a core
pytestmark = pytest.mark.slow
SECURITY = kafka.Security(users={"alice": "alice-secret"}, client_auth="requested")


class TestSigterm:
    """``daemons.end`` asks for exit code 0 within 5 seconds, no ERROR line and no task that was left."""

    def test_live(self, tmp_path: pathlib.Path, make_cluster: MakeCluster) -> None:
        cluster = make_cluster()
        daemon = daemons.start(tmp_path / "d", cluster.bootstrap)
        daemons.until(daemon, "live")
        last = {name: daemon.burst(name, 2000)[1] for name in ("KEYED", "FREQUENT", "RARE")}
        daemons.end(daemon)
        found = daemons.read(cluster)
        for stream, seq in last.items():
            assert daemons.last(found[stream]) >= seq
            daemons.check(found[stream])

    def test_fallback(self, tmp_path: pathlib.Path) -> None:
        daemon = daemons.start(tmp_path / "d", "127.0.0.1:1")
        assert daemons.broker(daemon)["state"] == "fallback"
        daemon.burst("RARE", 100)
        daemons.end(daemon)

    def test_while_it_connects(self, tmp_path: pathlib.Path) -> None:
        with daemons.silent() as address:
            daemon = daemons.start(tmp_path / "d", address)
            # Some of these moments are in the middle of a try, some between two
            for pause in (0.1, 1.7):
                time.sleep(pause)
                daemons.end(daemon)
                daemon.start()
            daemons.end(daemon)

    @pytest.mark.parametrize("pause", [0.0, 1.0, 2.5])
    def test_as_the_broker_falls_silent(self, tmp_path: pathlib.Path, make_cluster: MakeCluster, pause: float) -> None:
        cluster = make_cluster()
        daemon = daemons.start(tmp_path / "d", cluster.bootstrap)
        daemons.until(daemon, "live")
        pid = cluster.pid(1)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(pause)
            daemons.end(daemon)
        finally:
            os.kill(pid, signal.SIGCONT)

    @pytest.mark.parametrize("pause", [0.0, 0.5, 2.5])
    def test_as_the_broker_dies(self, tmp_path: pathlib.Path, make_cluster: MakeCluster, pause: float) -> None:
        cluster = make_cluster()
        daemon = daemons.start(tmp_path / "d", cluster.bootstrap)
        daemons.until(daemon, "live")
        cluster.kill(1)
        time.sleep(pause)
        daemons.end(daemon)

    def test_while_it_drains(self, tmp_path: pathlib.Path, make_cluster: MakeCluster) -> None:
        cluster = make_cluster()
        cluster.stop()
        daemon = daemons.start(tmp_path / "d", cluster.bootstrap)
        for _ in range(4):
            daemon.burst("RARE", 10_000)
        cluster.restart(1)
        process.eventually(lambda: daemons.broker(daemon)["state"] != "fallback")
        daemons.end(daemon)
        # The next one sends the rest
        with daemons.running(tmp_path / "d", cluster.bootstrap) as daemon:
            daemons.until(daemon, "live")
        (count,) = daemons.check_in_doubt(daemons.read(cluster)["RARE"]).values()
        assert count == 40_000


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with kafka.Cluster(tmp_path_factory.mktemp("secured"), security=SECURITY) as cluster:
        yield cluster


def credentials(cluster: kafka.Cluster, mechanism: str, password: str = "alice-secret") -> dict[str, str]:
    return {
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": mechanism,
        "KAFKA_SASL_USERNAME": "alice",
        "KAFKA_SASL_PASSWORD": password,
        "KAFKA_SSL_CA": f"{cluster.certificates.ca}",
        "KAFKA_SSL_CERT": f"{cluster.certificates.client_cert}",
        "KAFKA_SSL_KEY": f"{cluster.certificates.client_key}",
    }


class TestSecured:
    @pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
    def test_good_credentials(self, tmp_path: pathlib.Path, secured: kafka.Cluster, mechanism: str) -> None:
        with daemons.running(tmp_path / "d", secured.bootstrap, **credentials(secured, mechanism)) as daemon:
            daemons.until(daemon, "live")
            with daemon.reader("?channel=RARE") as reader:
                reader.event("RARE", daemon.burst("RARE", 10)[1])

    @pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
    def test_wrong_credentials(self, tmp_path: pathlib.Path, secured: kafka.Cluster, mechanism: str) -> None:
        wrong = credentials(secured, mechanism, "not-her-secret")
        with daemons.running(tmp_path / "d", secured.bootstrap, **wrong) as daemon:
            said = daemons.broker(daemon)
            assert (said["state"], said["simulationMode"]) == ("fallback", True)
            assert "refuses the credentials" in said["reason"]
            with daemon.reader("?channel=KEYED") as reader:
                first = reader.event("KEYED")["seq"]
                reader.event("KEYED", first + 100)
            time.sleep(4)
            log = daemon.log.read_text()
            assert len(log.splitlines()) < 20, log
            assert "not-her-secret" not in log

    def test_a_cluster_that_learns_of_the_user(self, tmp_path: pathlib.Path) -> None:
        port = kafka._free(set())
        login = {
            "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "KAFKA_SASL_USERNAME": "alice",
            "KAFKA_SASL_PASSWORD": "new",
        }
        with kafka.Cluster(tmp_path / "before", security=kafka.Security("SASL_PLAINTEXT", {"alice": "old"}), port=port):
            daemon = daemons.start(tmp_path / "d", f"127.0.0.1:{port}", **login)
            said = daemons.broker(daemon)
            assert said["state"] == "fallback" and "it is tried again after 10 s" in said["reason"]
            daemon.burst("RARE", 10)
        with kafka.Cluster(tmp_path / "after", security=kafka.Security("SASL_PLAINTEXT", {"alice": "new"}), port=port):
            daemon.post("reload")
            daemons.until(daemon, "live")
            assert daemons.broker(daemon)["reason"] == ""
            daemons.end(daemon)

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"KAFKA_SSL_CA": "/nowhere/ca.pem"}, "TLS files cannot be used"),
            ({"KAFKA_SSL_CA": ""}, "certificate verify failed"),
            ({"KAFKA_SASL_USERNAME": ""}, "refuses the credentials"),
        ],
        ids=lambda one: str(one)[:30],
    )
    def test_settings_that_cannot_work(
        self, tmp_path: pathlib.Path, secured: kafka.Cluster, change: dict[str, str], why: str
    ) -> None:
        options = {**credentials(secured, "PLAIN"), **change}
        with daemons.running(tmp_path / "d", secured.bootstrap, **options) as daemon:
            said = daemons.broker(daemon)
            assert said["state"] == "fallback" and why in said["reason"]

    def test_plain_text_to_a_cluster_with_tls(self, tmp_path: pathlib.Path, secured: kafka.Cluster) -> None:
        with daemons.running(tmp_path / "d", secured.bootstrap) as daemon:
            said = daemons.until(daemon, "fallback")
            assert secured.bootstrap in said["reason"]
