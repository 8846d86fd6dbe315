"""Apache Kafka and PostgreSQL for tests: one for the whole session, or one of one's own to do harm to.

And, at the end of a run, what did not run because something could not be had.
"""

from __future__ import annotations

import collections
import gc
import pathlib
import tempfile
from collections.abc import Callable, Iterator

import pytest

from scripts import kafka, postgres
from tests import databases, node_packages, profiles
from tests.kafka import clusters
from tests.monitoring import prometheus
from tests.proxy import test_nginx as nginx
from tests.store import test_pooler as pooler
from tests.systemd import machine

pytest_plugins = ["tests.leftovers", "tests.tiers"]
profiles.load()
# What collecting makes stays: the garbage collector need not look through it, neither meanwhile nor in each test
gc.disable()

MakeCluster = Callable[..., kafka.Cluster]
MakePostgres = Callable[..., postgres.Cluster]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    gc.enable()
    gc.freeze()


# Behind the slowest tests
@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for (reason, remedy), count in collections.Counter(clusters.missing.values()).items():
        terminalreporter.write_line(f"{count} tests with Apache Kafka did not run ({reason}); {remedy}", yellow=True)
    for reason, count in collections.Counter(databases.missing.values()).items():
        terminalreporter.write_line(
            f"{count} tests with PostgreSQL did not run ({reason}); {databases.CURE}", yellow=True
        )
    for what, absent, cure in (
        ("a booted systemd", machine.missing, machine.CURE),
        ("Prometheus", prometheus.missing, prometheus.CURE),
        ("nginx", nginx.missing, nginx.CURE),
        ("PgBouncer", pooler.missing, pooler.CURE),
    ):
        for reason, count in collections.Counter(absent.values()).items():
            terminalreporter.write_line(f"{count} tests with {what} did not run ({reason}); {cure}", yellow=True)
    if said := node_packages.report():
        terminalreporter.write_line(said, yellow=True)


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka.Cluster]:
    """One broker, never harmed: name your own topics."""
    with kafka.Cluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture
def make_cluster(tmp_path: pathlib.Path) -> Iterator[MakeCluster]:
    """Starts clusters of the test's own (see ``kafka.Cluster``), which do not outlive it."""
    made: list[kafka.Cluster] = []

    def make(brokers: int = 1, security: kafka.Security | None = None) -> kafka.Cluster:
        made.append(kafka.Cluster(tmp_path / f"kafka-{len(made)}", brokers, security))
        made[-1].start()
        return made[-1]

    yield make
    for cluster in made:
        for n in cluster.brokers:
            cluster.kill(n)


# Not below pytest's own folder, which every run of it by the same user closes to all others: PostgreSQL is one of them
@pytest.fixture(scope="session")
def _postgres() -> Iterator[databases.Server]:
    with (
        tempfile.TemporaryDirectory(prefix="regstream-tests-") as folder,
        databases.serving(pathlib.Path(folder) / "postgres") as server,
    ):
        yield server


@pytest.fixture
def empty_database(request: pytest.FixtureRequest) -> str:
    """The address of a database with nothing in it."""
    databases.need(request.node.nodeid)
    server: databases.Server = request.getfixturevalue("_postgres")
    return server.empty()


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """The address of a database with the newest schema and no events."""
    databases.need(request.node.nodeid)
    server: databases.Server = request.getfixturevalue("_postgres")
    return server.newest()


@pytest.fixture
def make_postgres(request: pytest.FixtureRequest) -> Iterator[MakePostgres]:
    """Starts clusters of the test's own (see ``postgres.Cluster``), which do not outlive it."""
    databases.need(request.node.nodeid, own=True)
    made: list[postgres.Cluster] = []
    with tempfile.TemporaryDirectory(prefix="regstream-test-") as folder:

        def make(**options: object) -> postgres.Cluster:
            cluster = postgres.Cluster(pathlib.Path(folder) / f"postgres-{len(made)}", **options)  # type: ignore[arg-type]
            made.append(cluster)
            cluster.create()
            cluster.start()
            return cluster

        yield make
        for cluster in made:
            cluster.kill()
