"""What is to happen: how long, how often, and the load."""

from __future__ import annotations

import dataclasses
import random

PARTITIONS = 3
ALERTS = "ALERTS"
# Name, milliseconds between ticks, events of a tick, key: together 1,000 events a second
STREAMS = (
    ("ORDERS", 60, 10, "customer-{{ randint(1, 40) }}"),
    ("PAYMENTS", 30, 5, "account-{{ zipf(50) }}"),
    ("SHIPMENTS", 120, 20, "depot-{{ randint(1, 5) }}"),
    ("CLICKS", 300, 50, "{{ uuid() }}"),
    ("SENSORS", 18, 3, "sensor-{{ index }}"),
    ("AUDIT", 60, 10, ""),
)
RATE = sum(batch * 1000 / interval for _, interval, batch, _ in STREAMS)


@dataclasses.dataclass(frozen=True)
class Act:
    """One cluster and one daemon: ``seconds`` of load, with so many injuries at random moments of it.

    ``outage`` and ``absence`` bound the seconds for which a broker and a daemon stay away; ``leaves`` is how often the
    second client goes away for some seconds.
    """

    name: str
    brokers: int
    seconds: float
    broker_kills: int
    daemon_kills: int
    leaves: int
    outage: tuple[float, float] = (0.0, 5.0)
    absence: tuple[float, float] = (0.0, 3.0)


LONG = (Act("one broker", 1, 390.0, 10, 5, 10, (0.0, 12.0)), Act("one of three", 3, 150.0, 3, 1, 5, (5.0, 15.0)))
SHORT = (Act("one broker", 1, 28.0, 2, 1, 1, (0.0, 2.0), (0.0, 1.0)), Act("one of three", 3, 14.0, 1, 0, 1, (3.0, 5.0)))


def moments(chance: random.Random, count: int, seconds: float) -> list[float]:
    """So many moments of an act, one at random in each of as many slots."""
    slot = seconds / max(1, count)
    return [slot * (number + chance.uniform(0.1, 0.8)) for number in range(count)]


def streams_yaml(replication: int) -> str:
    """The streams file of the load."""
    lines = ["version: 1", "seed: 7", "profiles:", "  development:", "    speed: 1"]
    lines += [f"    kafka: {{partitions: {PARTITIONS}, replication: {replication}}}", "streams:"]
    for name, interval, batch, key in STREAMS:
        lines += [f"  {name}:", f"    topic: chaos.{name.lower()}", f"    event: {name.lower()}-made"]
        lines += [f"    interval: {interval}", f"    batch_size: {batch}"]
        lines += [f'    key: "{key}"'] if key else []
        lines += ["    fields:", '      amount: "{{ lognormal(3, 1) | round(2) }}"']
        lines += ["      note: \"{{ choice(['red', 'green', 'blue']) }} {{ digits(40) }}\""]
    lines += ['    alert: {when: "{{ seq % 200 == 0 }}", severity: WARNING, message: "{{ stream }} reached {{ seq }}"}']
    return "\n".join(lines) + "\n"
