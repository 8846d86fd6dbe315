"""Topics: made as declared when they are missing, and used as they are when they are not."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import aiokafka.admin

from regstream import errors
from regstream.broker.kafka import errors as kafka_errors

_MADE = {kafka_errors.ErrorAction.ACKNOWLEDGED, kafka_errors.ErrorAction.EXISTS}
_PASSING = {kafka_errors.ErrorAction.RETRY, kafka_errors.ErrorAction.MAKE_AGAIN}
_log = logging.getLogger("regstream.broker.kafka.topics")


class Made(NamedTuple):
    """``there`` has the topics that existed, with their number of partitions; ``refused`` why others cannot be made."""

    there: dict[str, int]
    refused: dict[str, str]


class Topics:
    """``told`` are the topics of which it was said already that they are not as declared."""

    def __init__(self, admin: Any, told: set[str]) -> None:
        self._admin = admin
        self._told = told

    async def make(self, topics: Mapping[str, int], replication: int) -> Made:
        """Create topics that are missing, with as many copies as there can be.

        Raises BrokerError when the cluster cannot do it now.
        """
        described = await self._admin.describe_topics(list(topics))
        there = {one["topic"]: one["partitions"] for one in described if not one["error_code"]}
        for name, partitions in there.items():
            self._compare(name, (len(partitions), len(partitions[0]["replicas"])), (topics[name], replication))
        missing = {name: count for name, count in topics.items() if name not in there}
        refused = await self._create(missing, replication)
        few = [name for name, (code, _) in refused.items() if code.action is kafka_errors.ErrorAction.FEWER_COPIES]
        if few:
            brokers = len((await self._admin._client.fetch_all_metadata()).brokers())
            copies = max(1, min(brokers, replication - 1))
            _log.warning(
                "the profile asks for replication %d, and the cluster has %d broker%s: made with replication %d: %s",
                *(replication, brokers, "" if brokers == 1 else "s", copies, ", ".join(sorted(few))),
            )
            still = await self._create({name: missing[name] for name in few}, copies)
            refused = {name: reason for name, reason in refused.items() if name not in few} | still
        return Made({name: len(partitions) for name, partitions in there.items()}, _reasons(refused))

    async def _create(
        self, topics: Mapping[str, int], replication: int
    ) -> dict[str, tuple[kafka_errors.ErrorCode, str]]:
        """Gives which are refused, with the code and what the cluster says to it."""
        if not topics:
            return {}
        wanted = [aiokafka.admin.NewTopic(name, count, replication) for name, count in topics.items()]
        answers: Sequence[Any] = (await self._admin.create_topics(wanted)).topic_errors
        refused: dict[str, tuple[kafka_errors.ErrorCode, str]] = {}
        for name, number, *text in answers:
            code = kafka_errors.of(number)
            if code.action in _PASSING:
                raise errors.BrokerError(f"topic {name} cannot be created now: {_why(code, *text)}")
            if code.action not in _MADE:
                refused[name] = code, _why(code, *text)
        return refused

    def _compare(self, topic: str, have: tuple[int, int], want: tuple[int, int]) -> None:
        if have != want and topic not in self._told:
            self._told.add(topic)
            _log.warning(
                "topic %s has %d partitions and replication %d, the profile asks for %d and %d: it is used as it is",
                *(topic, *have, *want),
            )


def _why(code: kafka_errors.ErrorCode, text: str | None = None) -> str:
    return ", ".join(filter(None, (text or code.name, code.cure)))


def _reasons(refused: Mapping[str, tuple[kafka_errors.ErrorCode, str]]) -> dict[str, str]:
    return {name: f"topic {name} cannot be created: {why}" for name, (_, why) in refused.items()}
