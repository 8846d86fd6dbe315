"""Makes the events of ticks: what a program is given besides its draws, and what becomes of what it makes."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from regstream import errors
from regstream.event import Event, Head
from regstream.functions import delivery_faults, limits, lookup, registry, rng
from regstream.generator import lifecycle
from regstream.templates import sandbox
from regstream.templates.program import Program, cause

_DATA = b',"data":'


class AlertSignal(NamedTuple):
    """An alert that an event raised: the number of that event, how bad, and what people read."""

    seq: int
    severity: str
    message: str


class Tick(NamedTuple):
    """A point of logical time and how many events a stream makes then, which may each have a time before it.

    Those of a stream that follows an entity tell of what ``passed``.
    """

    due: float
    events: int
    times: Sequence[float] | None = None
    passed: Sequence[lifecycle.Transition] | None = None

    @classmethod
    def told(cls, due: float, passed: Sequence[lifecycle.Transition]) -> Tick:
        """That of a stream that follows an entity."""
        return cls(due, len(passed), None, passed)

    def part(self, start: int, count: int) -> Tick:
        """Some of its events."""
        end = start + count
        times = None if self.times is None else self.times[start:end]
        return Tick(self.due, count, times, None if self.passed is None else self.passed[start:end])


class Batch(NamedTuple):
    """The events of one or more ticks and what they raised; ``error`` is the first fault when not all could be made.

    ``touched`` has the entity rows that they changed, with the entity's name, once for each event that did; ``counts``
    how many events each tick got, up to one that failed. ``lost`` is how much happened that no event tells of.
    """

    events: list[Event]
    signals: list[AlertSignal]
    error: errors.RenderError | None
    touched: Sequence[tuple[str, lookup.Row]] = ()
    counts: Sequence[int] = ()
    lost: int = 0

    @classmethod
    def joined(cls, parts: Sequence[Batch]) -> Batch:
        """Those that were made one after the other as one."""
        if len(parts) == 1:
            return parts[0]
        events, signals, faults, touched, counts, lost = zip(*parts, strict=True) if parts else ((),) * 6
        flat = itertools.chain.from_iterable
        error = next((fault for fault in faults if fault is not None), None)
        return cls([*flat(events)], [*flat(signals)], error, [*flat(touched)], [*flat(counts)], sum(lost))


class Variant(NamedTuple):
    """A program of a stream, that of its declaration or one with other fields, and what it is run with."""

    program: Program
    records: rng.Draws
    box: sandbox.Sandbox


class Form(NamedTuple):
    """The parts of the envelope that do not depend on the time, and what goes around the time in ``Head``."""

    before: bytes
    opening: bytes
    closing: bytes
    after: bytes
    head: tuple[Any, ...]
    region: str


def form(head: Head, source: str) -> Form:
    """That of events with this head, but for their time."""
    before, between, after = envelope(head, source)
    # No text within it can hold this, its quotes would be escaped
    opening, closing = between.split(b'"time":""')
    return Form(before, opening + b'"time":"', b'"' + closing, after, head[:5], head.region)


class EventPlace(NamedTuple):
    """Where a stream stands: its name, the number of its last event, the rows that it sees, and what arrives late."""

    name: str
    seq: int
    pools: lookup.Pools
    arriving: delivery_faults.Arriving


class BatchBuilder:
    """Makes the events of some ticks: what the program is given besides its draws, and the lists that it fills.

    It makes fewer, but at least one, when ``enough`` says so after an event of a program that spends. ``touched``, when
    given, gets each row before it is changed.
    """

    __slots__ = (
        "_alerts", "_enough", "_form", "_given", "_heads", "_keys", "_moments", "_place", "_ticks", "_touched",
        "_values", "_variant",
    )  # fmt: skip

    def __init__(
        self,
        place: EventPlace,
        variant: Variant,
        form: Form,
        ticks: Sequence[Tick],
        base: int | None = None,
        traceparent: str = "",
        touched: list[tuple[str, lookup.Row]] | None = None,
        enough: Callable[[], bool] | None = None,
    ) -> None:
        self._place = place
        self._enough = enough if variant.program.spends else None
        self._variant = variant
        self._ticks = ticks
        self._moments: list[tuple[Any, ...]] = []
        self._heads: list[Head] = []
        self._values: list[bytes] = []
        self._keys: list[str | None] = []
        self._alerts: list[tuple[int, str, str]] = []
        self._touched = [] if touched is None else touched
        self._form = form
        program, (_, opening, closing, _, shared, region) = variant.program, form
        moment: tuple[Any, ...]
        for start, at, number, more in self._occasions(base):
            text = registry.time_text(at)
            if program.moves:
                moment = start, at, text, delivery_faults.Parts(opening, closing, text), *more
            else:
                instant = registry.Instant.at(at) if program.reads_now else None
                moment = start, instant, text, opening + text.encode() + closing, *more
            head = _head((*shared, text, region))
            if number == 1:
                self._moments.append(moment)
                self._heads.append(head)
            else:
                self._moments += [moment] * number
                self._heads += [head] * number
        self._given = (
            form.before,
            traced(form.after, traceparent),
            place.pools,
            self._values,
            self._keys,
            self._alerts,
            self._touched,
            place.arriving,
        )

    def _occasions(self, base: int | None) -> Iterator[tuple[int, float, int, tuple[Any, ...]]]:
        """The number of the first event of a tick, a time of it, how many events there are then, what else they get."""
        sees_lives, start = self._variant.program.lives, self._place.seq + 1
        for due, count, times, passed in self._ticks:
            first = start if base is None else base
            start += count
            if passed is not None:
                for one in passed:
                    yield first, one.at, 1, (due, one.row, one.state, one.was)
            elif times is None:
                yield first, due, count, (due,) if sees_lives else ()
            else:
                for at in times:
                    yield first, at, 1, (at,) if sees_lives else ()

    def unseen(self, record: rng.Record) -> list[tuple[str, lookup.Row]]:
        """Let something happen of which there is no event: gives the rows that it changed. What fails does nothing."""
        arriving = self._place.arriving
        before = arriving.last
        with contextlib.suppress(Exception):
            self._run([record])
        arriving.take()
        arriving.last = before
        return self._touched

    def make(self) -> Batch:
        """All of their events, up to one that cannot be made."""
        first, count, error = self._place.seq + 1, len(self._moments), None
        try:
            self._run(self._variant.records.span(first, count))
        except Exception as fault:
            error = self._again(first, count, fault)
        if self._variant.program.moves:
            form = self._form
            self._heads = [_head((*form.head, text, form.region)) for text in self._place.arriving.take()]
        rows = zip(self._heads, itertools.count(first), self._keys, self._values, strict=False)
        signals = [AlertSignal(*one) for one in self._alerts]
        return Batch(list(map(_event, rows)), signals, error, self._touched, self._counts())

    def _counts(self) -> list[int]:
        if len(self._values) == len(self._moments):
            return [tick.events for tick in self._ticks]
        counts, left = [], len(self._values)
        for _, count, *_ in self._ticks:
            counts.append(min(count, left))
            if count > left:
                break
            left -= count
        return counts

    def _run(self, records: Any) -> None:
        done = len(self._values)
        moments = self._moments[done:] if done else self._moments
        if self._enough is not None:
            records = _until(records, self._enough)
        self._variant.program.function(records, moments, self._place.seq + done, *self._given)

    def _again(self, first: int, count: int, fault: Exception) -> errors.RenderError | None:
        """Go on after an event failed; gives the first fault unless other draws mended all."""
        error = self._fault(fault)
        # Other draws seldom make a template cheap, and each attempt may take as long as the first
        if isinstance(fault, limits.CostError | RecursionError):
            return error
        while len(self._values) < count:
            try:
                self._retry(first + len(self._values))
                rest = first + len(self._values)
                self._run(self._variant.records.span(rest, count - len(self._values)))
            except _GiveUpError:
                return error
            except Exception:  # noqa: S112 - the next turn tries the event that failed now
                continue
            if self._enough is not None and self._enough():
                break
        return None

    def _retry(self, seq: int) -> None:
        box = self._variant.box
        try:
            for attempt in range(1, rng.ATTEMPTS + 1):
                box.attempt = attempt
                if self._succeeds(self._variant.records.again(seq, attempt)):
                    return
        finally:
            box.attempt = 0
        raise _GiveUpError

    def _succeeds(self, record: rng.Record) -> bool:
        try:
            self._run([record])
        except Exception:
            # The first fault is the one that is reported
            return False
        return True

    def _fault(self, fault: Exception) -> errors.RenderError:
        place = self._variant.program.place(fault)
        return errors.RenderError(self._place.name, place, cause(fault))


def _until(records: Iterable[rng.Record], enough: Callable[[], bool]) -> Iterator[rng.Record]:
    """The records up to the one after which it is ``enough``."""
    for record in records:
        yield record
        if enough():
            return


class _GiveUpError(Exception):
    """An event failed in all attempts."""


# A tuple's own constructor, called from C: a third of the time of Event(...)
_event = functools.partial(tuple.__new__, Event)
_head = functools.partial(tuple.__new__, Head)


def envelope(head: Head, source: str) -> tuple[bytes, bytes, bytes]:
    """The parts of a CloudEvent's JSON that a batch shares: before and after the number in ``id``, and before ``data``.

    CloudEvents 1.0.2, JSON event format; ``epoch``, ``seq``, ``priority`` and ``region`` are extension attributes.
    """
    before = b'{"specversion":"1.0","id":' + orjson.dumps(f"{head.stream}/{head.epoch}/")[:-1]
    middle = {
        "source": source,
        "type": head.type,
        "subject": head.stream,
        "time": head.time,
        "datacontenttype": "application/json",
        "epoch": head.epoch,
    }
    after = orjson.dumps({"priority": head.priority, "region": head.region})
    return before, b'",' + orjson.dumps(middle)[1:-1] + b',"seq":', b"," + after[1:-1] + _DATA


def traced(after: bytes, traceparent: str) -> bytes:
    """The last part of an ``envelope``, with the extension attribute of CloudEvents for distributed tracing."""
    if not traceparent:
        return after
    return after.removesuffix(_DATA) + b',"traceparent":"%s"' % traceparent.encode() + _DATA
