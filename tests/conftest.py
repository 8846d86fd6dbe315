"""Apache Kafka for tests: one broker for the whole session, or a cluster of one's own to do harm to.

And, at the end of a run, what did not run because something could not be had.
"""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Callable, Iterator

import pytest

from scripts import kafka
from tests import node_packages
from tests.kafka import clusters

MakeCluster = Callable[..., kafka.Cluster]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for (reason, remedy), count in collections.Counter(clusters.missing.values()).items():
        terminalreporter.write_line(f"{count} tests with Apache Kafka did not run ({reason}); {remedy}", yellow=True)
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
