"""Apache Kafka where it can be had, for every test that needs it; and topics that are gone when one begins.

Where it cannot be had these tests do not run, and the last line of the report says so; with ``CI`` set they fail.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable

import aiokafka.admin
import aiokafka.errors

from scripts import kafka
from tests import needs

BOUND = 60.0
CLUSTER = "they need Java 17 and Maven with a registry that answers, see scripts/kafka resolve"
missing: dict[str, tuple[str, str]] = {}
"""The tests that did not run: why, and what would run them."""


def need(test: str) -> None:
    """Skip the test, or in CI let it fail, where there is no Kafka."""
    _need(test, kafka.available(), CLUSTER)


def need_kcat(test: str) -> None:
    """The same where that program is not installed."""
    _need(test, None if shutil.which("kcat") else "kcat is not installed", "they need kcat, a package of that name")


def _need(test: str, reason: str | None, remedy: str) -> None:
    needs.unless(reason, test, missing, (reason or "", remedy))


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
