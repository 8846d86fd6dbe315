"""Every test here needs Prometheus."""

from __future__ import annotations

import pytest

from tests.monitoring import prometheus


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    prometheus.need(item.nodeid)
