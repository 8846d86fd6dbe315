"""Topics: made as declared when they are missing, and used as they are when they are not."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import aiokafka.admin
import aiokafka.errors

from regstream import errors

_EXISTS = 36
_log = logging.getLogger(__name__)


class Topics:
    """``told`` are the topics of which it was said already that they are not as declared."""

    def __init__(self, admin: Any, told: set[str]) -> None:
        self._admin = admin
        self._told = told

    async def make(self, topics: Mapping[str, int], replication: int) -> dict[str, int]:
        """Create topics that are missing; gives those that were there, with their number of partitions.

        Raises BrokerError, ``final``, when the cluster refuses one.
        """
        described = await self._admin.describe_topics(list(topics))
        there = {one["topic"]: one["partitions"] for one in described if not one["error_code"]}
        for name, partitions in there.items():
            self._compare(name, (len(partitions), len(partitions[0]["replicas"])), (topics[name], replication))
        missing = [
            aiokafka.admin.NewTopic(name, count, replication) for name, count in topics.items() if name not in there
        ]
        if missing:
            _judge((await self._admin.create_topics(missing)).topic_errors)
        return {name: len(partitions) for name, partitions in there.items()}

    def _compare(self, topic: str, have: tuple[int, int], want: tuple[int, int]) -> None:
        if have != want and topic not in self._told:
            self._told.add(topic)
            _log.warning(
                "topic %s has %d partitions and replication %d, the profile asks for %d and %d: it is used as it is",
                *(topic, *have, *want),
            )


def _judge(answers: Iterable[Any]) -> None:
    for name, code, *rest in answers:
        if code not in (0, _EXISTS):
            why = rest[0] if rest and rest[0] else aiokafka.errors.for_code(code).__name__
            raise errors.BrokerError(f"topic {name} cannot be created: {why}", final=True)
