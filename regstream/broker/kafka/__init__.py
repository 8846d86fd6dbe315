"""Apache Kafka as a broker: the one place that knows its client library.

One instance is one connection. It meets ``broker.Broker`` as long as the cluster answers; a connection that is lost is
given up with ``abandon`` and a new instance made, because a producer whose broker is gone holds its batches for ever.
"""

from __future__ import annotations

from regstream.broker.kafka.broker import (
    CONNECT_SECONDS,
    Connection,
    KafkaBroker,
    Place,
)

__all__ = [
    "CONNECT_SECONDS",
    "Connection",
    "KafkaBroker",
    "Place",
]
