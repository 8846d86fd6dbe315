"""What the files would do, found out without starting anything: previews and forecasts."""

from __future__ import annotations

import datetime
import itertools
import math
import secrets
import time
from collections.abc import Iterator
from typing import NamedTuple

from regstream import clock, errors, model, settings
from regstream.engine import history
from regstream.engine import lane as lanes
from regstream.generate import alerts
from regstream.generate import stream as streams

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp()
SAMPLE = 200
ALERTING = 20_000
"""So many events, or those of a day, show how often one raises an alert."""
WEEK = 7
QUIET = 366 * 86_400.0
"""A stream that follows an entity to which nothing happens for so long has told all."""
HOUR = 3600.0
DAY = 24 * HOUR


class Forecast(NamedTuple):
    """What one stream will make: batch, priority, events on each of the next seven days (UTC), mean bytes an event."""

    name: str
    cadence: str
    batch_size: int
    priority: str
    days: tuple[float, ...]
    size: float

    @property
    def daily(self) -> float:
        """Events of a day, the mean of the week."""
        return sum(self.days) / len(self.days)

    @property
    def hourly(self) -> float:
        """Events of an hour, the mean of the week."""
        return self.daily / 24


def events(
    chosen: settings.Settings, catalog: model.Catalog, name: str, count: int, seed: int | None
) -> Iterator[model.Event]:
    """The first ``count`` events of a stream, each at a point of its schedule; with a seed always the same.

    One event a point, whatever the batch size, so that the size does not change what is shown. A stream that follows an
    entity tells of what its rows come into first; those are fewer when nothing happens to them any more. Raises
    UnknownName, RenderError.
    """
    if name not in catalog.streams:
        raise errors.UnknownName("stream", name, errors.near(name, catalog.streams))
    start = time.time() if seed is None else START
    made = streams.Stream(catalog.streams[name], _workshop(chosen, catalog, start, seed), "PREVIEW")
    schedule = _schedule(catalog, made.spec, start, made.workshop.seed)
    due = schedule.first(start)
    if made.spec.follow is not None:
        yield from itertools.islice(_transitions(made, schedule, due), count)
        return
    while made.seq < count:
        batch = made.next_batch(start if due is None else due, 1, losing=True)
        if batch.error is not None and not batch.events:
            raise batch.error
        yield from batch.events
        due = None if due is None else schedule.after(due, due)[0]


def _transitions(made: streams.Stream, schedule: clock.Schedule, due: float | None) -> Iterator[model.Event]:
    """What a stream that follows an entity tells of, at the points of its schedule from ``due`` on."""
    followed = made.workshop.pools.lives[made.spec.follow or ""]
    end = math.inf if due is None else due + QUIET
    while due is not None and followed.next < end:
        if due < followed.next:
            # Nothing happens until then, however many points there are
            due = schedule.first(followed.next)
            continue
        batch = made.next_ticks(made.ticks([(due, 1, None)]))
        yield from batch.events
        if batch.error is not None:
            raise batch.error
        if batch.events:
            end = due + QUIET
        due = schedule.after(due, due)[0]


def _workshop(chosen: settings.Settings, catalog: model.Catalog, start: float, seed: int | None) -> streams.Workshop:
    number = catalog.seed if seed is None else seed
    identity = streams.Identity(chosen.source, chosen.region)
    workshop = streams.Workshop(catalog, secrets.randbits(63) if number is None else number, identity)
    workshop.fill(start)
    return workshop


def _schedule(catalog: model.Catalog, spec: model.StreamSpec, start: float, seed: int = 0) -> clock.Schedule:
    if spec.rate is not None:
        return clock.Arrivals.declared(spec.rate, spec.timezone, catalog.profile.speed, seed=seed, name=spec.name)
    if spec.interval is not None:
        return clock.Schedule.interval(spec.interval / catalog.profile.speed, start)
    return clock.Schedule.cron(spec.schedule or "", spec.timezone)


def forecast(chosen: settings.Settings, catalog: model.Catalog) -> list[Forecast]:
    """What each stream will make, in the order of the files, and the alerts that they raise. Raises RenderError."""
    workshop = _workshop(chosen, catalog, START, catalog.seed or 0)
    # Names of numberings and the numbers themselves are as long as those of a day at work
    epoch = history.epoch(workshop.seed, START)
    rows = [_forecast(catalog, streams.Stream(spec, workshop, epoch)) for spec in catalog.streams.values()]
    raising = [row for row in rows if catalog.streams[row.name].alert is not None]
    return [*rows, _alerts(raising, _workshop(chosen, catalog, START, workshop.seed), epoch)] if raising else rows


def today() -> float:
    """When the first day of a forecast begins."""
    return time.time() // DAY * DAY


def _forecast(catalog: model.Catalog, stream: streams.Stream) -> Forecast:
    spec = stream.spec
    days = tuple(_days(catalog, stream)) if spec.enabled else (0.0,) * WEEK
    stream.seq = int(days[0] / 2)
    if spec.rate is not None:
        cadence = f"{model.rate_text(spec.rate.base * catalog.profile.speed)} {spec.rate.curve}"
    elif spec.interval is not None:
        cadence = f"every {model.duration_text(round(spec.interval / catalog.profile.speed))}"
    else:
        cadence = f"{spec.schedule} {spec.timezone}"
    sample = stream.next_batch(START, SAMPLE)
    if sample.error is not None and not sample.events:
        raise sample.error
    size = sum(len(event.value) for event in sample.events) / len(sample.events)
    cadence = cadence if spec.enabled else "stopped"
    return Forecast(spec.name, cadence, spec.batch_size, str(spec.priority), days, size)


def _alerts(raising: list[Forecast], workshop: streams.Workshop, epoch: str) -> Forecast:
    """The stream of alerts: how often the events that may raise one do so, seen in the first of a past."""
    found = lanes.of_catalog(workshop, START, epoch)
    past = history.History(lambda: found, streams.Stream(alerts.SPEC, workshop, epoch), START)
    names = {row.name for row in raising}
    causes, raised = 0, list[model.Event]()
    for events in past.until(START + DAY):
        causes += sum(event.head.stream in names for event in events)
        raised += [event for event in events if event.head.stream == model.ALERTS]
        if causes > ALERTING:
            break
    share = len(raised) / max(1, causes)
    days = tuple(share * sum(row.days[n] for row in raising) for n in range(WEEK))
    size = sum(len(event.value) for event in raised) / max(1, len(raised))
    return Forecast(model.ALERTS, "raised by events", 1, str(model.Priority.CRITICAL), days, size)


def _days(catalog: model.Catalog, stream: streams.Stream) -> list[float]:
    """Events of each day of the coming week, without those that are lost."""
    spec = stream.spec
    kept = 1.0 if spec.arrival is None else 1.0 - spec.arrival.loss
    spans = [(today() + number * DAY, today() + (number + 1) * DAY) for number in range(WEEK)]
    if spec.follow is not None:
        followed = stream.workshop.populations[spec.follow]
        return [kept * DAY * followed.spec.count * followed.path.passages_a_second()] * WEEK
    if spec.rate is not None:
        arrivals = clock.Arrivals.declared(spec.rate, spec.timezone, catalog.profile.speed)
        return [kept * arrivals.expected(*span) for span in spans]
    if spec.interval is not None:
        return [kept * DAY * 1000 * catalog.profile.speed / spec.interval * spec.batch_size] * WEEK
    schedule = _schedule(catalog, spec, START)
    return [kept * len(schedule.between(*span)) * spec.batch_size for span in spans]
