"""What people read in the terminal: the lines at the start, and the table of a plan."""

from __future__ import annotations

import datetime
import math
import operator
from typing import Any, NamedTuple

import typer

from regstream import daemon, engine, sanitize, spec
from regstream.cli import preview
from regstream.event import rfc3339

MAX_LISTED = 12
# An event is kept as it was and as jsonb; so much more for the row and its indexes was measured of events of 530 and of
# 700 bytes
ROW_BYTES = 190


def summary(parts: daemon.Components) -> str:
    """Where the daemon listens, in which mode, which streams at which rate, and what to try next."""
    host = parts.settings.host
    url = f"http://{f'[{host}]' if ':' in host else host}:{parts.server.port}"
    catalog, profile = parts.engine.catalog, parts.engine.catalog.profile
    lines = [
        f"{typer.style('regstream', bold=True)} listens on {typer.style(url, fg='cyan')} and {_mode(parts)}",
        f"  {len(catalog.streams)} streams, {len(catalog.scenarios)} scenarios, "
        f"profile {parts.settings.env} at speed {profile.speed:g}",
        *_streams(parts.engine.streams()),
        "try next, in another terminal:",
        f"  regstream tail --url {url}",
        f"  curl {url}/api/streaming/status",
        *_example(url, catalog),
        "",
    ]
    return "\n".join(lines)


def _mode(parts: daemon.Components) -> str:
    status, servers = parts.broker.status, ",".join(parts.settings.kafka_servers)
    if status.kind != "kafka":
        does = "runs in simulation, no broker is configured"
    elif not status.simulation:
        does = f"runs on Kafka at {servers}"
    elif parts.settings.streaming:
        does = f"goes on without Kafka, events wait on disk for it: {sanitize.printable(status.reason)}"
    else:
        does = f"waits for Kafka: {sanitize.printable(status.reason)}"
    return does if parts.settings.streaming else f"{does}; it generates nothing, because ENABLE_STREAMING is false"


def _streams(found: list[engine.status.StreamStatus]) -> list[str]:
    width = max((len(one.name) for one in found), default=0)
    lines = [f"  {one.name:<{width}}  {_rate(one)}" for one in found[:MAX_LISTED]]
    more = len(found) - MAX_LISTED
    return [*lines, f"  and {more} more"] if more > 0 else lines


def _rate(one: engine.status.StreamStatus) -> str:
    events = f"{one.batch_size} event{'' if one.batch_size == 1 else 's'}"
    if not one.enabled:
        return f"{events}, stopped"
    if one.interval is not None and one.target_rate is None:
        # How many there are is for the rows to say that it follows
        events = "changes of state,"
    return f"{events} {_when(one)}, {one.priority}"


def _when(one: engine.status.StreamStatus) -> str:
    if one.interval is not None:
        return f"every {spec.duration_text(round(one.interval))}"
    if one.schedule is not None:
        return f"at {one.schedule} {one.timezone}"
    if not one.target_rate:
        return "when they come, none now"
    return f"about every {_rounded(1000 * one.batch_size / one.target_rate)} now"


def _rounded(milliseconds: float) -> str:
    """So long, in two figures or so."""
    places = 1 - math.floor(math.log10(milliseconds)) if milliseconds >= 1 else 0
    return spec.duration_text(int(min(max(1.0, round(milliseconds, places)), spec.MAX_DURATION)))


def _example(url: str, catalog: spec.Catalog) -> list[str]:
    name = next(iter(catalog.scenarios), None)
    if name is None:
        return []
    body = f"-H 'content-type: application/json' -d '{{\"scenario\":\"{name}\"}}'"
    return [f"  curl -X POST {url}/api/streaming/simulate {body}"]


def forecast(rows: list[preview.Forecast], catalog: spec.Catalog, env: str) -> str:
    """The table of a plan, with a line for all streams together."""
    head = ("STREAM", "WHEN", "BATCH", "PRIORITY", "EVENTS/H", "EVENTS/DAY", "BYTES/EVENT", "BYTES/H", "BYTES/DAY")
    table = [head, *(_cells(row) for row in rows), _total(rows)]
    widths = [max(len(line[n]) for line in table) for n in range(len(head))]
    left = {0, 1, 3}
    lines = [
        "  ".join(
            f"{cell:<{w}}" if n in left else f"{cell:>{w}}"
            for n, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]
    lines[0] = typer.style(lines[0], bold=True)
    head_line = f"profile {env}, speed {catalog.profile.speed:g}"
    return "\n".join([head_line, *(line.rstrip() for line in lines), "", *_kept(rows, catalog)])


class Kafka(NamedTuple):
    """What a profile makes of the topics, and what they take a day, uncompressed."""

    topics: int
    partitions: int
    replicas: int
    copies: int
    bytes: float
    batch: int


def kafka(rows: list[preview.Forecast], catalog: spec.Catalog) -> Kafka:
    """What the profile in force costs on the brokers; alerts have a topic, too."""
    topics = len({spec.topic for spec in catalog.streams.values()} | {spec.ALERT_TOPIC})
    profile = catalog.profile.kafka
    partitions = topics * profile.partitions
    daily = sum(row.daily * row.size for row in rows) * profile.replication
    return Kafka(topics, partitions, partitions * profile.replication, profile.replication, daily, profile.batch_bytes)


def _kept(rows: list[preview.Forecast], catalog: spec.Catalog) -> list[str]:
    cost = kafka(rows, catalog)
    copies = "1 copy" if cost.copies == 1 else f"{cost.copies} copies on as many brokers"
    stored = sum(row.daily * (2 * row.size + ROW_BYTES) for row in rows)
    return [
        f"with Kafka     {cost.topics} topics, {cost.partitions} partitions, {copies}: {_bytes(cost.bytes)} a day, "
        f"sent in batches of {_bytes(cost.batch)} at most",
        f"with database  {_bytes(stored)} a day, until RETENTION is over",
        *_week(rows),
    ]


class Day(NamedTuple):
    """What one day brings; ``date`` as in ISO 8601, of UTC."""

    date: str
    events: float
    bytes: float


def days(rows: list[preview.Forecast]) -> list[Day]:
    """The days of the coming week."""
    begin = preview.today()
    dates = [rfc3339(begin + number * preview.DAY)[:10] for number in range(preview.WEEK)]
    return [
        Day(date, sum(row.days[n] for row in rows), sum(row.days[n] * row.size for row in rows))
        for n, date in enumerate(dates)
    ]


def _week(rows: list[preview.Forecast]) -> list[str]:
    """Which days the means hide, if they differ."""
    found = sorted(days(rows), key=operator.attrgetter("bytes"))
    quietest, busiest = found[0], found[-1]
    if busiest.bytes <= 1.01 * quietest.bytes:
        return []
    return [
        f"days differ    these are means of the week from {min(found).date}: "
        + ", ".join(
            f"the {name} is {datetime.date.fromisoformat(one.date):%A} {one.date} "
            f"with {one.events:,.0f} events, {_bytes(one.bytes)}"
            for name, one in (("busiest", busiest), ("quietest", quietest))
        )
    ]


def _cells(row: preview.Forecast) -> tuple[str, ...]:
    return (
        row.name,
        row.cadence,
        str(row.batch_size),
        row.priority,
        f"{row.hourly:,.0f}",
        f"{row.daily:,.0f}",
        f"{row.size:,.0f}",
        _bytes(row.hourly * row.size),
        _bytes(row.daily * row.size),
    )


def _total(rows: list[preview.Forecast]) -> tuple[str, ...]:
    hourly, daily = sum(row.hourly for row in rows), sum(row.daily for row in rows)
    size = sum(row.daily * row.size for row in rows)
    mean = size / daily if daily else 0
    texts = (f"{hourly:,.0f}", f"{daily:,.0f}", f"{mean:,.0f}", _bytes(size / 24), _bytes(size))
    return ("all", "", "", "", *texts)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def forecast_data(rows: list[preview.Forecast], catalog: spec.Catalog) -> dict[str, Any]:
    """A plan for programs; rates are events and bytes, keys as in the HTTP interface."""
    made: list[dict[str, Any]] = [
        {
            "stream": row.name,
            "when": row.cadence,
            "batchSize": row.batch_size,
            "priority": row.priority,
            "eventsPerHour": row.hourly,
            "eventsPerDay": row.daily,
            "bytesPerEvent": row.size,
            "bytesPerHour": row.hourly * row.size,
            "bytesPerDay": row.daily * row.size,
        }
        for row in rows
    ]
    cost = kafka(rows, catalog)
    brokers = {"topics": cost.topics, "partitions": cost.partitions, "replicas": cost.replicas}
    keys = ("eventsPerHour", "eventsPerDay", "bytesPerHour", "bytesPerDay")
    total = {key: sum(row[key] for row in made) for key in keys}
    week = [{"date": one.date, "events": one.events, "bytes": one.bytes} for one in days(rows)]
    return {"streams": made, "total": total, "days": week, "kafka": {**brokers, "bytesPerDay": cost.bytes}}
