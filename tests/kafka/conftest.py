"""Every test here needs Apache Kafka."""

from __future__ import annotations

import pytest

from tests import conftest
from tests.kafka import clusters

MakeCluster = conftest.MakeCluster


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # Before any fixture starts a cluster
    clusters.need(item.nodeid)
