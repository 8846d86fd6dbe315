"""The table of error codes: whole, and what the page shows."""

from __future__ import annotations

import re

import aiokafka.errors
import pytest

from regstream.broker.kafka import errors as kafka_errors
from tests import support

LAST = 133
"""The highest code of Apache Kafka 4.1."""
# Those of Apache Kafka that a produce request can be answered by and that do not pass by themselves
LASTING = {
    "CORRUPT_MESSAGE": "event",
    "MESSAGE_TOO_LARGE": "event",
    "RECORD_LIST_TOO_LARGE": "event",
    "INVALID_TIMESTAMP": "event",
    "INVALID_RECORD": "event",
    "INVALID_TOPIC_EXCEPTION": "topic",
    "NOT_ENOUGH_REPLICAS": "topic",
    "TOPIC_AUTHORIZATION_FAILED": "topic",
    "UNSUPPORTED_FOR_MESSAGE_FORMAT": "topic",
    "POLICY_VIOLATION": "topic",
    "UNSUPPORTED_COMPRESSION_TYPE": "topic",
    "UNKNOWN_SERVER_ERROR": "unknown",
}


def test_every_code_of_the_protocol_is_there() -> None:
    assert list(kafka_errors.CODES) == list(range(-1, LAST + 1))
    assert all(one.number == number and one.name for number, one in kafka_errors.CODES.items())
    assert len({one.name for one in kafka_errors.CODES.values()}) == len(kafka_errors.CODES)


@pytest.mark.parametrize("number", sorted(aiokafka.errors.kafka_errors))
def test_every_code_that_the_library_knows_is_there(number: int) -> None:
    known = kafka_errors.CODES[number]
    # What it repeats for ever must not be what we refuse at once
    if aiokafka.errors.for_code(number).retriable:
        assert known.action in {
            kafka_errors.ErrorAction.RETRY,
            kafka_errors.ErrorAction.MAKE_AGAIN,
            kafka_errors.ErrorAction.IN_SYNC,
            kafka_errors.ErrorAction.REPEAT,
        }


@pytest.mark.parametrize(("name", "scope"), LASTING.items())
def test_what_does_not_pass_is_not_of_the_connection(name: str, scope: str) -> None:
    (known,) = (one for one in kafka_errors.CODES.values() if one.name == name)
    assert known.scope == scope


@pytest.mark.parametrize("number", [-2, LAST + 1, 999])
def test_a_code_of_a_newer_cluster_is_unknown(number: int) -> None:
    assert kafka_errors.of(number).scope is kafka_errors.ErrorScope.UNKNOWN
    assert str(number) in kafka_errors.of(number).name


def test_the_page_shows_the_table() -> None:
    page = (support.ROOT / "docs" / "kafka.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (-?\d+) \| (\w+) \| (\w+) \| (.+) \|$", page, re.MULTILINE)
    assert rows == [(str(one.number), one.name, str(one.scope), one.described) for one in kafka_errors.CODES.values()]
