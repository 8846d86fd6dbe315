"""A stream that can be asked for its next events."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from regstream import errors, model
from regstream.generate import arrival, compile, cost, draws, entities, sandbox, vocabulary
from regstream.generate.program import Program, cause

# A template that fails for a quarter of its draws fails so often once in 10**12 events; the same number is tried again
# at the next tick, with the same draws, so an event that was given up would hold its stream up
ATTEMPTS = 20
_VARIANTS = 32
# Where the draws lie that decide what is lost, and those of what is: beyond all that events use themselves
_LOSS = 2**32 - 1
_UNSEEN = 2**30
_DATA = b',"data":'

_log = logging.getLogger("regstream.generate")


class Identity(NamedTuple):
    """Who makes the events: the CloudEvents ``source`` and the region."""

    source: str
    region: str


class Signal(NamedTuple):
    """An alert that an event raised: the number of that event, how bad, and what people read."""

    seq: int
    severity: str
    message: str


class Tick(NamedTuple):
    """A point of logical time and how many events a stream makes then, which may each have a time before it."""

    due: float
    events: int
    times: Sequence[float] | None = None

    @classmethod
    def of(cls, due: float, size: int, times: Sequence[float] | None) -> Tick:
        """That of a schedule: ``size`` events, unless it says when each of them happens."""
        return cls(due, size if times is None else len(times), times)

    def part(self, start: int, count: int) -> Tick:
        """Some of its events."""
        return Tick(self.due, count, None if self.times is None else self.times[start : start + count])


class Batch(NamedTuple):
    """The events of one or more ticks and what they raised; ``error`` is the first fault when not all could be made.

    ``touched`` has the entity rows that they changed, with the entity's name, once for each event that did; ``counts``
    how many events each tick got, up to one that failed. ``lost`` is how much happened that no event tells of.
    """

    events: list[model.Event]
    signals: list[Signal]
    error: errors.RenderError | None
    touched: Sequence[tuple[str, entities.Row]] = ()
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


class Workshop:
    """What the streams of one catalog are compiled with: templates, entities, seed and the live entity rows."""

    def __init__(self, catalog: model.Catalog, seed: int, identity: Identity) -> None:
        self.catalog = catalog
        self.seed = seed
        self.identity = identity
        self.box = sandbox.Sandbox(catalog.templates)
        self.pools: dict[str, list[entities.Row]] = {}
        # Of each entity what events change, and of which others its rows may hold rows
        self._fields: dict[str, list[str]] = {}
        self._holds: dict[str, frozenset[str]] = {}

    def fill(self, now: float, old: Workshop | None = None, unchanged: frozenset[str] = frozenset()) -> None:
        """Make the rows of all entities, or take over from ``old`` the rows of unchanged ones and what had changed."""
        declared = self.catalog.entities
        self._fields = {name: [] for name in declared}
        for entity, field in sorted(compile.changed(self.box, self.catalog.streams.values(), declared)):
            self._fields[entity].append(field)
        for name, spec in declared.items():
            if old is not None and name in unchanged:
                self.pools[name], self._holds[name] = old.pools[name], old._holds[name]
                continue
            made = entities.make(self.box, spec, self.catalog, self.pools, self.seed, now)
            self.pools[name], self._holds[name] = made
            _log.debug("%d rows of entity %s made", len(self.pools[name]), name)

    def carry(self, old: Workshop, unchanged: frozenset[str]) -> None:
        """Give rows that were made again the state of the old rows of the same key."""
        for name, spec in self.catalog.entities.items():
            if name in old.pools and name not in unchanged:
                entities.carry(old.pools[name], self.pools[name], spec.key, self._fields[name])

    def recall(self, old: Workshop, remembered: Callable[[str], Mapping[str, Mapping[str, Any]]]) -> None:
        """Give the rows of entities that ``old`` did not have the state that is ``remembered`` of them, by key."""
        for name in self.catalog.entities.keys() - old.pools.keys():
            found, fields = remembered(name), self._fields[name]
            for row in self.pools[name] if found else ():
                state = found.get(str(row[self.catalog.entities[name].key]), {})
                row.update({field: state[field] for field in fields if field in state and field in row})

    def within(self, names: Iterable[str]) -> frozenset[str]:
        """These entities, and those whose rows can be reached from theirs."""
        found, left = set(), list(names)
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                left += self._holds.get(name, ())
        return frozenset(found)

    def states(self, touched: Iterable[tuple[str, entities.Row]]) -> dict[str, dict[str, dict[str, Any]]]:
        """Of such rows by entity and key what events change of them, as it is now."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for name, row in {id(row): (name, row) for name, row in touched}.values():
            spec = self.catalog.entities.get(name)
            if spec is not None and spec.key in row:
                state = {field: row[field] for field in self._fields[name] if field in row}
                found.setdefault(name, {})[str(row[spec.key])] = state
        return found


class _Variant(NamedTuple):
    program: Program
    records: draws.Draws
    box: sandbox.Sandbox


class _Form(NamedTuple):
    """The parts of the envelope that do not depend on the time, and what goes around the time in ``Head``."""

    before: bytes
    opening: bytes
    closing: bytes
    after: bytes
    head: tuple[Any, ...]
    region: str


def _form(stream: Stream, priority: model.Priority) -> _Form:
    spec, identity = stream.spec, stream.workshop.identity
    head = model.Head(spec.name, stream.epoch, spec.event, spec.topic, priority, "", identity.region)
    before, between, after = envelope(head, identity.source)
    # No text within it can hold this, its quotes would be escaped
    opening, closing = between.split(b'"time":""')
    return _Form(before, opening + b'"time":"', b'"' + closing, after, head[:5], identity.region)


class Stream:
    """One stream's position, and the programs that make its events: its own and those of overlays."""

    def __init__(self, spec: model.StreamSpec, workshop: Workshop, epoch: str, seq: int = 0) -> None:
        self.spec = spec
        self.epoch = epoch
        self.seq = seq
        self.workshop = workshop
        self._key = draws.key(workshop.seed, spec.name)
        self._variants: dict[bytes, _Variant] = {}
        self._arriving = arrival.Arriving()
        self._last_form: _Form | None = None
        self._variant(None)

    @property
    def position(self) -> model.Position:
        """Where a reader stands who has all events so far."""
        return model.Position(self.epoch, self.seq)

    @property
    def reads(self) -> frozenset[str]:
        """The entities of which its events may show rows."""
        return self.workshop.within(self._variants[b""].program.reads)

    @property
    def changes(self) -> frozenset[str]:
        """The entities whose rows its events change."""
        return self._variants[b""].program.changes

    def adopt(self, workshop: Workshop) -> None:
        """Go on with the rows and templates of another workshop, in which this stream's own program is the same."""
        self.workshop = workshop
        self._variants = {b"": self._variants[b""]}

    def next_batch(
        self,
        now: float,
        count: int | None = None,
        fields: Mapping[str, Any] | None = None,
        priority: model.Priority | None = None,
        base: int | None = None,
        traceparent: str = "",
        *,
        times: Sequence[float] | None = None,
        losing: bool = False,
    ) -> Batch:
        """The next ``count`` events at time ``now``; ``fields`` stand in for declared ones.

        ``base`` is the number of the first event when a batch is made in several calls. An event whose templates fail
        is tried again with other draws, and ends the batch when it fails each time; its number stays free. ``fields``
        that cannot be compiled are such a fault too: a run may have them from before a reload. The events carry
        ``traceparent`` if there is one. ``times`` are those of the events, if each has its own. With ``losing``,
        ``count`` is how often something happens, of which the declared part is lost.
        """
        try:
            variant = self._variant(fields)
        except ValueError as error:
            return Batch([], [], errors.RenderError(self.spec.name, "fields", str(error)))
        tick = Tick(now, self.spec.batch_size if count is None else count, times)
        form = self._form(priority or self.spec.priority)
        if losing and self.lossy:
            return self._thinned(variant, form, tick, base, traceparent)
        return _Maker(self, variant, form, [tick], base, traceparent).make()

    def next_ticks(self, ticks: Sequence[Tick]) -> Batch:
        """What a call of ``next_batch``, losing, for each of these would give, faster; ``error`` is the first."""
        if self.lossy:
            return Batch.joined(
                [self.next_batch(tick.due, tick.events, times=tick.times, losing=True) for tick in ticks]
            )
        parts: list[Batch] = []
        while ticks:
            parts.append(_Maker(self, self._variant(None), self._form(self.spec.priority), ticks).make())
            ticks = ticks[len(parts[-1].counts) :]
        return Batch.joined(parts)

    @property
    def lossy(self) -> bool:
        """Whether some of what happens is lost."""
        return self.spec.arrival is not None and self.spec.arrival.loss > 0

    @property
    def counted(self) -> bool:
        """Whether the number of its events follows from that of its ticks, and what they are from their numbers."""
        declared = self.spec.arrival
        return declared is None or not (declared.loss or declared.duplicates)

    def _thinned(self, variant: _Variant, form: _Form, tick: Tick, base: int | None, traceparent: str) -> Batch:
        """A tick of which the declared part is lost: whether that is so is drawn for the next number again and again,
        with the count of those that were lost since the last event."""
        share = self.spec.arrival.loss if self.spec.arrival else 0.0
        base = self.seq + 1 if base is None else base
        arriving, parts = self._arriving, []
        for number in range(tick.events):
            seq = self.seq + 1
            maker = _Maker(self, variant, form, [tick.part(number, 1)], base, traceparent)
            if draws.Loose(self._key, _LOSS, seq, arriving.lost).double() < share:
                touched = maker.unseen(variant.records.again(seq, _UNSEEN + arriving.lost))
                parts.append(Batch([], [], None, touched, [], 1))
                arriving.lost += 1
                continue
            arriving.lost = 0
            parts.append(maker.make())
            if parts[-1].error is not None:
                break
        whole = Batch.joined(parts)
        return whole._replace(counts=[len(whole.events)])

    def _form(self, priority: model.Priority) -> _Form:
        form = self._last_form
        if form is None or form.head[4] is not priority or form.head[1] != self.epoch:
            form = self._last_form = _form(self, priority)
        return form

    def _variant(self, fields: Mapping[str, Any] | None) -> _Variant:
        name = orjson.dumps(fields) if fields else b""
        found = self._variants.get(name)
        if found is None:
            if len(self._variants) >= _VARIANTS:
                self._variants.pop(next(key for key in self._variants if key))
            found = self._variants[name] = self._compiled(fields)
        return found

    def _compiled(self, fields: Mapping[str, Any] | None) -> _Variant:
        spec = self.spec
        if fields:
            spec = spec.model_copy(update={"fields": {**(spec.fields or {}), **fields}})
        program = compile.stream(self.workshop.box, spec, self.workshop.catalog.entities, self._key)
        return _Variant(program, draws.Draws(self._key, program.layout), self.workshop.box)


class _Maker:
    """Makes the events of some ticks: what the program is given besides its draws, and the lists that it fills."""

    __slots__ = (
        "_alerts", "_form", "_given", "_heads", "_keys", "_moments", "_stream", "_ticks", "_touched", "_values",
        "_variant",
    )  # fmt: skip

    def __init__(
        self,
        stream: Stream,
        variant: _Variant,
        form: _Form,
        ticks: Sequence[Tick],
        base: int | None = None,
        traceparent: str = "",
    ) -> None:
        self._stream = stream
        self._variant = variant
        self._ticks = ticks
        self._moments: list[tuple[Any, ...]] = []
        self._heads: list[model.Head] = []
        self._values: list[bytes] = []
        self._keys: list[str | None] = []
        self._alerts: list[tuple[int, str, str]] = []
        self._touched: list[tuple[str, entities.Row]] = []
        self._form = form
        program, first = variant.program, stream.seq + 1
        for due, count, times in ticks:
            start = first + len(self._moments) if base is None else base
            for at, number in ((due, count),) if times is None else ((at, 1) for at in times):
                text = vocabulary.time_text(at)
                moment: tuple[Any, ...]
                if program.moves:
                    moment = start, at, text, arrival.Parts(form.opening, form.closing, text)
                else:
                    instant = vocabulary.Instant.at(at) if program.reads_now else None
                    moment = start, instant, text, b"".join((form.opening, text.encode(), form.closing))
                self._moments += [moment] * number
                self._heads += [_head((*form.head, text, form.region))] * number
        self._given = (
            form.before,
            traced(form.after, traceparent),
            stream.workshop.pools,
            self._values,
            self._keys,
            self._alerts,
            self._touched,
            stream._arriving,
        )

    def unseen(self, record: draws.Record) -> list[tuple[str, entities.Row]]:
        """Let something happen of which there is no event: gives the rows that it changed. What fails does nothing."""
        arriving = self._stream._arriving
        before = arriving.last
        with contextlib.suppress(Exception):
            self._run([record])
        arriving.take()
        arriving.last = before
        return self._touched

    def make(self) -> Batch:
        first, count, error = self._stream.seq + 1, len(self._moments), None
        try:
            self._run(self._variant.records.span(first, count))
        except Exception as fault:
            error = self._again(first, count, fault)
        self._stream.seq += len(self._values)
        if self._variant.program.moves:
            form = self._form
            self._heads = [_head((*form.head, text, form.region)) for text in self._stream._arriving.take()]
        rows = zip(self._heads, itertools.count(first), self._keys, self._values, strict=False)
        signals = [Signal(*one) for one in self._alerts]
        return Batch(list(map(_event, rows)), signals, error, self._touched, self._counts())

    def _counts(self) -> list[int]:
        counts, left = [], len(self._values)
        for _, count, _ in self._ticks:
            counts.append(min(count, left))
            if count > left:
                break
            left -= count
        return counts

    def _run(self, records: Any) -> None:
        done = len(self._values)
        moments = self._moments[done:] if done else self._moments
        self._variant.program.function(records, moments, self._stream.seq + done, *self._given)

    def _again(self, first: int, count: int, fault: Exception) -> errors.RenderError | None:
        """Go on after an event failed; gives the first fault unless other draws mended all."""
        error = self._fault(fault)
        # Other draws seldom make a template cheap, and each attempt may take as long as the first
        if isinstance(fault, cost.CostError | RecursionError):
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
        return None

    def _retry(self, seq: int) -> None:
        box = self._variant.box
        try:
            for attempt in range(1, ATTEMPTS + 1):
                box.attempt = attempt
                if self._succeeds(self._variant.records.again(seq, attempt)):
                    return
        finally:
            box.attempt = 0
        raise _GiveUpError

    def _succeeds(self, record: draws.Record) -> bool:
        try:
            self._run([record])
        except Exception:
            # The first fault is the one that is reported
            return False
        return True

    def _fault(self, fault: Exception) -> errors.RenderError:
        place = self._variant.program.place(fault)
        return errors.RenderError(self._stream.spec.name, place, cause(fault))


def together(streams: Iterable[Stream]) -> list[list[str]]:
    """Names of streams that have to be served in the order of logical time: one changes rows that the others may show.

    Each stream is in one list, in the order given; one that shares nothing that changes is alone.
    """
    all_of_them = list(streams)
    changing = frozenset().union(*(one.changes for one in all_of_them))
    groups: list[tuple[set[str], list[str]]] = []
    for one in all_of_them:
        shared, names = set(one.reads & changing), [one.spec.name]
        apart = []
        for group in groups:
            if shared and shared & group[0]:
                shared |= group[0]
                names = [*group[1], *names]
            else:
                apart.append(group)
        groups = [*apart, (shared, names)]
    place = {one.spec.name: number for number, one in enumerate(all_of_them)}
    return [sorted(names, key=place.__getitem__) for _, names in groups]


class _GiveUpError(Exception):
    """An event failed in all attempts."""


# A tuple's own constructor, called from C: a third of the time of Event(...)
_event = functools.partial(tuple.__new__, model.Event)
_head = functools.partial(tuple.__new__, model.Head)


def envelope(head: model.Head, source: str) -> tuple[bytes, bytes, bytes]:
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
