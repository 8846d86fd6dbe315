"""What the files would do, found out without starting anything: previews and forecasts."""

from __future__ import annotations

import datetime
import itertools
import math
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args

from regstream import config, errors, schedule, schema, settings, spec
from regstream.engine import active_stream, backfill
from regstream.event import Event
from regstream.generator import alerts
from regstream.generator import stream as streams

Files = Literal["streams", "scenario"]
FILES: tuple[Files, ...] = get_args(Files)


def document(name: str, whole: bool, catalog: Callable[[], spec.Catalog]) -> dict[str, Any]:
    """The schema of the files that ``name`` stands for, else of the data or the ``whole`` event of that stream.

    ``catalog`` loads the files, which is done for a stream alone. Raises UnknownName, BadValue.
    """
    for files in FILES:
        if name == files and whole:
            raise errors.BadValue("--event", f"goes with the name of a stream, {name} are files")
        if name == files:
            return config.files_schema(files)
    known = schema.Schemas(catalog())
    if name not in known.names:
        raise errors.UnknownName("stream", name, errors.near(name, [*known.names, *FILES]))
    return known.document(name, whole)


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
    chosen: settings.Settings, catalog: spec.Catalog, name: str, count: int, seed: int | None
) -> Iterator[Event]:
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


def _transitions(made: streams.Stream, schedule: schedule.Schedule, due: float | None) -> Iterator[Event]:
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


def _workshop(
    chosen: settings.Settings, catalog: spec.Catalog, start: float, seed: int | None
) -> streams.GenerationContext:
    number = catalog.seed if seed is None else seed
    identity = streams.Identity(chosen.source, chosen.region)
    workshop = streams.GenerationContext(catalog, secrets.randbits(63) if number is None else number, identity)
    workshop.fill(start)
    return workshop


def _schedule(catalog: spec.Catalog, spec: spec.StreamSpec, start: float, seed: int = 0) -> schedule.Schedule:
    if spec.rate is not None:
        return schedule.Arrivals.declared(spec.rate, spec.timezone, catalog.profile.speed, seed=seed, name=spec.name)
    if spec.interval is not None:
        return schedule.Schedule.interval(spec.interval / catalog.profile.speed, start)
    return schedule.Schedule.cron(spec.schedule or "", spec.timezone)


def forecast(chosen: settings.Settings, catalog: spec.Catalog) -> list[Forecast]:
    """What each stream will make, in the order of the files, and the alerts that they raise. Raises RenderError."""
    workshop = _workshop(chosen, catalog, START, catalog.seed or 0)
    # Names of numberings and the numbers themselves are as long as those of a day at work
    epoch = backfill.epoch(workshop.seed, START)
    rows = [_forecast(catalog, streams.Stream(spec, workshop, epoch)) for spec in catalog.streams.values()]
    raising = [row for row in rows if catalog.streams[row.name].alert is not None]
    return [*rows, _alerts(raising, _workshop(chosen, catalog, START, workshop.seed), epoch)] if raising else rows


def today() -> float:
    """When the first day of a forecast begins."""
    return time.time() // DAY * DAY


def _forecast(catalog: spec.Catalog, stream: streams.Stream) -> Forecast:
    declaration = stream.spec
    days = tuple(_days(catalog, stream)) if declaration.enabled else (0.0,) * WEEK
    stream.seq = int(days[0] / 2)
    if declaration.rate is not None:
        cadence = f"{spec.rate_text(declaration.rate.base * catalog.profile.speed)} {declaration.rate.curve}"
    elif declaration.interval is not None:
        cadence = f"every {spec.duration_text(round(declaration.interval / catalog.profile.speed))}"
    else:
        cadence = f"{declaration.schedule} {declaration.timezone}"
    sample = stream.next_batch(START, SAMPLE)
    if sample.error is not None and not sample.events:
        raise sample.error
    size = sum(len(event.value) for event in sample.events) / len(sample.events)
    cadence = cadence if declaration.enabled else "stopped"
    return Forecast(declaration.name, cadence, declaration.batch_size, str(declaration.priority), days, size)


def _alerts(raising: list[Forecast], workshop: streams.GenerationContext, epoch: str) -> Forecast:
    """The stream of alerts: how often the events that may raise one do so, seen in the first of a past."""
    found = active_stream.of_catalog(workshop, START, epoch)
    past = backfill.Backfill(lambda: found, streams.Stream(alerts.SPEC, workshop, epoch), START)
    names = {row.name for row in raising}
    causes, raised = 0, list[Event]()
    for events in past.until(START + DAY):
        causes += sum(event.head.stream in names for event in events)
        raised += [event for event in events if event.head.stream == spec.ALERTS]
        if causes > ALERTING:
            break
    share = len(raised) / max(1, causes)
    days = tuple(share * sum(row.days[n] for row in raising) for n in range(WEEK))
    size = sum(len(event.value) for event in raised) / max(1, len(raised))
    return Forecast(spec.ALERTS, "raised by events", 1, str(spec.Priority.CRITICAL), days, size)


def _days(catalog: spec.Catalog, stream: streams.Stream) -> list[float]:
    """Events of each day of the coming week, without those that are lost."""
    spec = stream.spec
    kept = 1.0 if spec.arrival is None else 1.0 - spec.arrival.loss
    spans = [(today() + number * DAY, today() + (number + 1) * DAY) for number in range(WEEK)]
    if spec.follow is not None:
        followed = stream.workshop.populations[spec.follow]
        return [kept * DAY * followed.spec.count * followed.path.passages_a_second()] * WEEK
    if spec.rate is not None:
        arrivals = schedule.Arrivals.declared(spec.rate, spec.timezone, catalog.profile.speed)
        return [kept * arrivals.expected(*span) for span in spans]
    if spec.interval is not None:
        return [kept * DAY * 1000 * catalog.profile.speed / spec.interval * spec.batch_size] * WEEK
    stream_schedule = _schedule(catalog, spec, START)
    return [kept * len(stream_schedule.between(*span)) * spec.batch_size for span in spans]
