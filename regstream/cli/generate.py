"""``regstream generate``: a span of time at full speed, into a file, Kafka or PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, cast

import typer

from regstream import broker, daemon, engine, errors, settings, spec, store, tracing
from regstream.cli import common
from regstream.engine import active_stream, backfill
from regstream.event import Event, Position, rfc3339
from regstream.generator import alerts
from regstream.generator import stream as streams

if TYPE_CHECKING:
    from regstream.broker import failover

STEPS = 10_000
BATCH = 1_000
AHEAD = 100_000
"""So many events may wait for the database before more are made."""
FLUSH_SECONDS = 120.0
_SERVERS = ("kafka", "postgres")


class Asked(NamedTuple):
    """What is to be made: events of ``begin`` up to ``end`` in epoch seconds, of ``only`` these streams if any.

    So many ``jobs`` make them; None leaves that to the machine.
    """

    begin: float
    end: float
    only: Sequence[str]
    seed: int | None
    out: str
    jobs: int | None = None


class _Sink(Protocol):
    """Where events go. ``known`` is where streams stand there already, ``refused`` how many it did not take, by reason.

    The latter is whole when the sink is closed.
    """

    known: Mapping[str, Position]

    @property
    def refused(self) -> Mapping[str, int]:
        """See the class."""

    async def write(self, events: Sequence[Event]) -> None:
        """Take up to ``BATCH`` events; returns when there is room for more."""


class _FileSink:
    def __init__(self, file: BinaryIO) -> None:
        self.known: Mapping[str, Position] = {}
        self.refused: Mapping[str, int] = {}
        self._file = file

    async def write(self, events: Sequence[Event]) -> None:
        self._file.write(backfill.as_lines(events))

    def add(self, lines: backfill.Lines) -> None:
        self._file.write(lines.text)


class _KafkaSink:
    def __init__(self, carrier: failover.FailoverBroker, known: Mapping[str, Position]) -> None:
        self.known = known
        self._carrier = carrier

    @property
    def refused(self) -> Mapping[str, int]:
        return self._carrier.refused

    async def write(self, events: Sequence[Event]) -> None:
        await self._carrier.publish(events)


class _DatabaseSink:
    def __init__(self, keeper: store.Store, known: Mapping[str, Position]) -> None:
        self.known = known
        self.refused: Mapping[str, int] = {}
        self._keeper = keeper

    async def write(self, events: Sequence[Event]) -> None:
        self._keeper.record([broker.Record(event, event.head.topic, 0, 0) for event in events])
        if self._keeper.status.waiting > AHEAD:
            await _flushed(self._keeper)


def run(chosen: settings.Settings, catalog: spec.Catalog, asked: Asked) -> None:
    """Make what is asked. Raises UnknownName, BadValue, RenderError, StartError, BrokerError, StoreError."""
    for name in asked.only:
        if name not in catalog.streams and name != spec.ALERTS:
            raise errors.UnknownName("stream", name, errors.near(name, [*catalog.streams, spec.ALERTS]))
    asyncio.run(_run(chosen, catalog, asked))


async def _run(chosen: settings.Settings, catalog: spec.Catalog, asked: Asked) -> None:
    seed = catalog.seed if asked.seed is None else asked.seed
    if seed is None:
        seed = secrets.randbits(32)
        typer.echo(f"seed {seed}: give --seed {seed} to get the same events again", err=True)
    workshop = streams.GenerationContext(catalog, seed, streams.Identity(chosen.source, chosen.region))
    workshop.fill(asked.begin)
    # Events hold no circles, and a collection would go through all that a window holds
    gc.freeze()
    gc.disable()
    epoch = backfill.epoch(seed, asked.begin)
    alerting = streams.Stream(alerts.SPEC, workshop, epoch)
    at_work = _chosen(active_stream.of_catalog(workshop, asked.begin, epoch), asked.only)
    # Into a broker or a database it is they that take the time, and they have to see the events themselves
    together = backfill.BackfillPool(
        at_work, alerting, asked.begin, 1 if asked.out in _SERVERS else asked.jobs, _judge, asked.only or None
    )
    # What is open is not to be open in the other processes
    with together as several:
        async with _sink(chosen, catalog, asked.out) as sink:
            backfill.check(sink.known, epoch)
            known = {name: position.seq for name, position in sink.known.items()}
            with _progress(asked) as shown:
                if several is not None and isinstance(sink, _FileSink):
                    for lines in several.until(asked.end):
                        sink.add(lines)
                        shown(several.at, lines.number)
                        await asyncio.sleep(0)
                else:
                    past = backfill.Backfill(lambda: at_work, alerting, asked.begin, known, _judge, strict=True)
                    await _alone(past, backfill.TimeOrder(at_work), asked, sink, shown)
    # Not before: what was made is there when the sink has it
    _conclude(asked, shown.made, sink.refused)


def _conclude(asked: Asked, made: int, refused: Mapping[str, int]) -> None:
    """Say what there is now. Raises BrokerError when some of it was refused."""
    where = "standard output" if asked.out == "-" else asked.out
    span = f"{rfc3339(asked.begin)} to {rfc3339(asked.end)}"
    lost = sum(refused.values())
    typer.echo(f"{f'{made - lost:,} of ' if lost else ''}{made:,} events of {span} in {where}", err=True)
    if lost:
        reasons = "; ".join(f"{reason} ({count:,})" for reason, count in refused.items())
        raise errors.BrokerError(f"{lost:,} of {made:,} events were refused: {reasons}", lost, final=True)


async def _alone(
    past: backfill.Backfill,
    order: backfill.TimeOrder[Event],
    asked: Asked,
    sink: _Sink,
    shown: Callable[[float, int], None],
) -> None:
    for made in past.until(asked.end):
        wanted = [one for one in made if one.head.stream in asked.only] if asked.only else made
        # When the last window was made nothing comes before what is held
        horizon = past.horizon if past.at < asked.end else None
        events = order.put(order.keyed(wanted), horizon)
        for start in range(0, len(events), BATCH):
            await sink.write(events[start : start + BATCH])
        shown(past.at, len(events))
        # What is done with is not to be gone through
        del events, made, wanted
        gc.collect(0)
        # A file takes what it is given at once, and who interrupts is to be heard
        await asyncio.sleep(0)


def _chosen(found: list[active_stream.ActiveStream], only: Sequence[str]) -> list[active_stream.ActiveStream]:
    """The lanes that have to be at work, so that those that are asked for give what they would give among all."""
    if not only:
        return found
    alerting = spec.ALERTS in only
    units = [lane.unit for lane in found if lane.name in only or (alerting and lane.spec.alert is not None)]
    return [lane for lane in found if lane.unit in units]


def _judge(lane: active_stream.ActiveStream, batch: streams.Batch, at: float) -> None:
    # A file with a hole in it would look like one that is whole
    if batch.error is not None:
        raise batch.error


class _Shown:
    """Moves a bar; ``made`` counts the events."""

    def __init__(self, asked: Asked, bar: Any) -> None:
        self.made = 0
        self._asked = asked
        self._bar = bar
        self._done = 0

    def __call__(self, at: float, count: int) -> None:
        self.made += count
        self._bar.label = f"{self.made:,} events, up to {rfc3339(at)[:10]}"
        step = int((at - self._asked.begin) / (self._asked.end - self._asked.begin) * STEPS)
        self._bar.update(step - self._done)
        self._done = step


@contextlib.contextmanager
def _progress(asked: Asked) -> Iterator[_Shown]:
    """A bar on a terminal, nothing elsewhere."""
    with typer.progressbar(length=STEPS, label="0 events", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield _Shown(asked, bar)


@contextlib.asynccontextmanager
async def _sink(chosen: settings.Settings, catalog: spec.Catalog, out: str) -> AsyncIterator[_Sink]:
    if out == "-":
        with _standard_output() as file:
            yield _FileSink(file)
        return
    if out not in _SERVERS:
        with _file(Path(out)) as file:
            yield _FileSink(file)
        return
    with tempfile.TemporaryDirectory(prefix="regstream-") as folder:
        own = chosen.model_copy(update={"state": Path(folder), "streaming": True})
        async with _kafka(own, catalog) if out == "kafka" else _database(own) as sink:
            yield sink


@contextlib.contextmanager
def _standard_output() -> Iterator[BinaryIO]:
    yield common.output()
    sys.stdout.buffer.flush()


@contextlib.contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    """A file that is there once it is whole; a pipe or a device is written to as it is."""
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        # Not the link is to be replaced
        place = path.resolve()
        part = place.with_name(f"{place.name}.part")
        try:
            with part.open("wb") as file:
                yield file
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise errors.BadValue("--out", errors.of_file(error, path)) from error


@contextlib.asynccontextmanager
async def _kafka(chosen: settings.Settings, catalog: spec.Catalog) -> AsyncIterator[_Sink]:
    if not chosen.kafka_servers:
        raise errors.SettingsError("KAFKA_BROKER", "", "--out kafka needs the servers of a Kafka cluster")
    carrier = cast("failover.FailoverBroker", daemon.broker_of(chosen, _quiet, tracing.OFF))
    await carrier.start()
    reading = asyncio.create_task(_read(carrier))
    try:
        # Numbers have to go on where they ended on the topics
        await carrier.settled()
        await engine.ensure_topics(carrier, catalog)
        _reachable(carrier)
        names = [*catalog.streams, spec.ALERTS]
        yield _KafkaSink(carrier, {name: at for name in names if (at := carrier.position(name)) is not None})
        await _acknowledged(carrier)
    except (errors.BrokerError, asyncio.CancelledError) as error:
        state = carrier.status
        sent = f"{state.produced - state.waiting - state.errors:,} of {state.produced:,} events were acknowledged"
        if not isinstance(error, errors.BrokerError):
            typer.echo(sent, err=True)
            raise
        raise errors.BrokerError(f"{error.reason}; {sent}" if state.produced else error.reason) from error
    finally:
        await carrier.close()
        await reading


async def _acknowledged(carrier: broker.Broker) -> None:
    """Return when nothing waits any more. Raises BrokerError when nothing has moved for too long."""
    loop = asyncio.get_running_loop()
    before, since = 0, loop.time()
    while waiting := carrier.status.waiting:
        _reachable(carrier)
        if waiting != before:
            before, since = waiting, loop.time()
        if loop.time() - since > FLUSH_SECONDS:
            raise errors.BrokerError(f"Kafka took nothing for {FLUSH_SECONDS:.0f} s")
        await asyncio.sleep(0.02)


def _reachable(carrier: broker.Broker) -> None:
    if carrier.status.simulation:
        raise errors.BrokerError(f"Kafka cannot be reached: {carrier.status.reason}")


async def _read(carrier: broker.Broker) -> None:
    """What comes back from the topics is not wanted here, but somebody has to take it."""
    async for _ in carrier.consume():
        pass


@contextlib.asynccontextmanager
async def _database(chosen: settings.Settings) -> AsyncIterator[_Sink]:
    alone = chosen.model_copy(update={"kafka_servers": ()})
    keeper = daemon.store_of(alone, daemon.broker_of(alone, _quiet, tracing.OFF), _quiet)
    if keeper is None:
        raise errors.SettingsError("DATABASE_URL", "", "--out postgres needs the address of a database")
    await keeper.start()
    try:
        state = keeper.status
        if state.state != "live":
            why = "another daemon records into it, stop that one first" if state.state == "standby" else state.reason
            raise errors.StoreError(f"the database is {state.state}: {why}")
        yield _DatabaseSink(keeper, keeper.memory.positions())
        while keeper.status.waiting:
            await _flushed(keeper)
    finally:
        await keeper.close()


async def _flushed(keeper: store.Store) -> None:
    before = keeper.status.recorded
    if not await keeper.settled(FLUSH_SECONDS) and keeper.status.recorded == before:
        raise errors.StoreError(f"the database took nothing for {FLUSH_SECONDS:.0f} s: {keeper.status.reason}")


def _quiet(kind: str, more: Mapping[str, Any]) -> None:
    """Nobody is told of how broker and database are: what goes wrong is raised here."""
