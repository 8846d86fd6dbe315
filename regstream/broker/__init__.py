"""The broker: it takes events and gives them back in order.

Every form (the simulated one here, Kafka beside it) meets the same obligations, and ``tests/test_broker.py`` holds each
of them to these:

- Events with the same key of one topic go to the same partition. An event without a key goes where its stream's other
  keyless events go, so that such a stream keeps its order as a whole.
- Within a partition the order is the order of publishing, offsets rise by exactly one, and of ``consume``.
- The bytes of a value come back as they were given.
- Nothing is dropped to make room: a full broker makes ``publish`` wait.
- What ``publish`` has accepted before ``close`` reaches ``consume``; what it could not accept is counted in the error.
"""

from __future__ import annotations

from regstream.broker.base import KEYS, Broker, BrokerStatus, Record, StatelessBroker

__all__ = [
    "KEYS",
    "Broker",
    "BrokerStatus",
    "Record",
    "StatelessBroker",
]
