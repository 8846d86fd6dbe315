"""Apache Kafka where it can be had, for every test that needs it; and topics that are gone when one begins.

Where it cannot be had these tests do not run, and the last line of the report says so; with ``CI`` set they fail.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable

import aiokafka.admin
import aiokafka.errors
import pytest

from scripts import kafka

BOUND = 60.0
missing: dict[str, str] = {}
"""The tests that did not run, and why."""


def need(test: str) -> None:
    """Skip the test, or in CI let it fail, where there is no Kafka."""
    reason = kafka.available()
    if reason is None:
        return
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"Apache Kafka must be available here: {reason}", pytrace=False)
    missing[test] = reason
    pytest.skip(reason)


async def forget(bootstrap: str, topics: Iterable[str]) -> None:
    """Delete topics, and return when none of them is there any more."""
    admin = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    async with asyncio.timeout(BOUND):
        await admin.start()
        try:
            there = set(await admin.list_topics()).intersection(topics)
            if there:
                await admin.delete_topics(sorted(there))
            while set(await admin.list_topics()).intersection(topics):
                await asyncio.sleep(0.02)
        finally:
            await admin.close()
