"""Declarations put to work once before they come into force: rows are made, and the first events of streams.

What is found is what ``run`` would find with the same seed: the programs are those of the check, on the same draws. All
of it is bounded, by numbers and by processor time, whatever the files declare.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import jinja2
import orjson

from regstream import errors, spec
from regstream.event import Event, Head
from regstream.functions import delivery_faults, lookup, registry, rng
from regstream.generator import batch as batches
from regstream.generator import lifecycle
from regstream.templates import compile, sandbox
from regstream.templates.program import Builder, Fault, Path, Program, cause, cure, sayable

ROWS = 5_000
"""Rows of an entity that are tried at least, if it has as many; of the others some blocks, up to the last one."""
BLOCKS = 100
LIVING = 500
"""The same of an entity with states."""
FEW = 64
"""So many are made without looking at the time first."""
FOLLOWING = 16
"""Rows that will come in the place of others, of an entity with states."""
ALL_EVENTS, EVENTS = 16_000, (16, 64)
"""Events of all streams, and of one at least and at most."""
TICK = 16
"""Events of a tick that are tried, but for one tick that is tried whole."""
WHOLE_TICK = 1_000
SHOWN = 3
"""Events for each way from state to state that a stream follows."""
ALL_ROWS_SECONDS, ALL_SECONDS = 0.6, 1.2
"""Processor time for the rows of all entities, and for all that is tried."""
ROWS_SECONDS, STREAM_SECONDS = 0.4, 0.05
_STEP = 7 * 86_400.0 + 5 * 3_600.0 + 17 * 60.0 + 13.0
"""From tick to tick so much later, so that there is one in each month, at all hours and on all weekdays."""


class TrialNote(NamedTuple):
    """What was not tried, where, and as much as there is to say of it."""

    path: Path
    message: str


class Trial:
    """What declarations are tried with: the rows of the entities so far, a moment, and the time that is left.

    ``cpu`` gives seconds of processor time, ``origin`` what the draws and the lives of rows depend on. ``entities``
    are those declared so far, each with as many rows as were made; ``notes`` says what was not tried. With so many
    ``streams`` each is tried with ``events_each``.
    """

    def __init__(
        self,
        templates: Mapping[str, str],
        seed: int,
        now: float,
        cpu: Callable[[], float],
        speed: float = 1.0,
        streams: int = 1,
    ) -> None:
        self.box = sandbox.Sandbox(templates)
        self.entities: dict[str, spec.EntitySpec] = {}
        self.notes: list[TrialNote] = []
        self.events_each = min(max(ALL_EVENTS // max(streams, 1), EVENTS[0]), EVENTS[1])
        self.origin = seed, speed
        self._seed, self._speed, self._now, self._cpu = seed, speed, now, cpu
        self._pools = lookup.Pools()
        self._spent = 0.0
        self._waiting: list[spec.EntitySpec] = []
        self._fields: dict[str, set[str]] = {}

    def key(self, name: str) -> bytes:
        """What the draws of a stream, or of ``entity NAME``, are keyed by."""
        return rng.key(self._seed, name)

    # Entities

    def later(self, spec: spec.EntitySpec) -> None:
        """Take an entity that was found sound before; its rows are made when anything is tried that may need them."""
        self.entities[spec.name] = spec
        self._waiting.append(spec)

    def catch_up(self) -> None:
        """Make the rows of the entities that were put off."""
        waiting, self._waiting = self._waiting, []
        for declaration in waiting:
            builder = Builder(self.box, self.entities, self.key(f"entity {declaration.name}"))
            program = compile.entity_program(builder, declaration)
            if program is not None:
                self.rows(declaration, program)

    def rows(self, spec: spec.EntitySpec, program: Program) -> list[Fault]:
        """Make the rows of an entity, and give what is wrong with them; then no stream that may see them is tried."""
        self.entities[spec.name] = spec
        if not program.reads <= self._pools.keys():
            return []
        began = self._cpu()
        left = min(ROWS_SECONDS, ALL_ROWS_SECONDS - self._spent)
        faults = self._living(spec, program, left) if spec.states else self._plain(spec, program, began + left)
        self._spent += self._cpu() - began
        if not faults and len(made := self._pools[spec.name]) < spec.count:
            self.entities[spec.name] = spec.model_copy(update={"count": len(made)})
            message = f"count: {len(made):,} of {spec.count:,} rows were tried"
            self.notes.append(TrialNote(("entities", spec.name, "count"), message))
        return faults

    def _plain(self, spec: spec.EntitySpec, program: Program, end: float) -> list[Fault]:
        made, numbers, seen = _Rows(key=spec.key), list[int](), dict[str, int]()
        records = rng.Draws(self.key(f"entity {spec.name}"), program.layout)
        instant = registry.Instant.at(self._now)
        for first, count in _spans(spec.count):
            done = len(made)
            try:
                span = records.span(first, count)
                program.function(span, first - 1, instant, str(instant), self._pools, made)
            except Exception as error:
                path = program.path(error)
                number = first + len(made) - done
                return [Fault(path, 1, f"{_label(path)}: {cause(error)}, in row {number}", cure(error))]
            numbers += range(first, first + count)
            for number, row in zip(numbers[done:], made[done:], strict=True):
                if lacking := _undefined(row, f", in row {number}"):
                    return [lacking]
                text = str(row[spec.key])
                if text in seen:
                    return [_doubled(spec, text, seen[text], number)]
                seen[text] = number
            if self._cpu() > end:
                break
        made.whole = len(made) == spec.count
        self._pools[spec.name] = made
        return []

    def _living(self, spec: spec.EntitySpec, program: Program, seconds: float) -> list[Fault]:
        key, began = self.key(f"entity {spec.name}"), self._cpu()
        few = spec.count if spec.count <= FEW else FEW // 8
        try:
            made = self._settled(spec, program, key, few)
            each = max((self._cpu() - began) / few, 1e-6)
            count = min(spec.count, LIVING, int(seconds / each))
            if count > few:
                made = self._settled(spec, program, key, count)
        except errors.RenderError as error:
            return [_of_row(error, "")]
        for row in made.rows:
            if lacking := _undefined(row, ""):
                return [lacking]
        ends = any(math.isfinite(cast("lifecycle.Row", row).ends) for row in made.rows)
        if fault := self._following(spec, made) if ends else None:
            return [fault]
        self._pools[spec.name] = made.rows
        self._pools.lives[spec.name] = lifecycle.Lives([made])
        return []

    def _following(self, spec: spec.EntitySpec, made: lifecycle.Population) -> Fault | None:
        """What is wrong with the rows that will come in the place of those that end."""
        # By the number of places that there will be: what is tried is what comes
        for number in range(spec.count + 1, spec.count + 1 + min(FOLLOWING, len(made.rows))):
            where = f", in row {number}, which comes in the place of row {number - spec.count}"
            try:
                fault = _undefined(made.row(number, self._now), where)
            except errors.RenderError as error:
                fault = _of_row(error, where)
            if fault is not None:
                return fault
        return None

    def _settled(self, spec: spec.EntitySpec, program: Program, key: bytes, count: int) -> lifecycle.Population:
        some = spec.model_copy(update={"count": count})
        made = lifecycle.Population(some, program, self.box, key, self._pools, self._speed)
        made.settle(self._now)
        return made

    # Streams

    def events(self, spec: spec.StreamSpec, program: Program) -> list[Fault]:
        """Make the first events of a stream, and give what is wrong with them."""
        if self._spent > ALL_SECONDS:
            self.notes.append(TrialNote(("streams", spec.name), f"{spec.name}: no event was tried, the time was up"))
        return self._tried(spec, program).faults

    def overlaid(self, spec: spec.StreamSpec, program: Program) -> list[Fault]:
        """The same with fields that a scenario lays over a stream, fewer events; the rows they change are put back."""
        return self._tried(spec, program, _Changed()).faults

    def fields(self, spec: spec.StreamSpec) -> set[str]:
        """The names of the fields that the first events of a stream have; none when none could be made."""
        if spec.name not in self._fields:
            program = compile.stream_program(Builder(self.box, self.entities, self.key(spec.name)), spec)
            events = self._tried(spec, program, _Changed()).events if program is not None else []
            self._fields[spec.name] = set().union(*(orjson.loads(event.value)["data"] for event in events))
        return self._fields[spec.name]

    def _tried(self, spec: spec.StreamSpec, program: Program, changed: _Changed | None = None) -> _Run:
        began = self._cpu()
        run = _Run(self, spec, program, began + STREAM_SECONDS, changed)
        if program.reads <= self._pools.keys() and self._spent <= ALL_SECONDS:
            if changed is None:
                run.all()
            else:
                run.first()
                changed.put_back()
            self._spent += self._cpu() - began
        return run

    def text(self, program: Program) -> list[Fault]:
        """Make the text of a scenario's alert."""
        rows: list[lookup.Row] = []
        instant = registry.Instant.at(self._now)
        records = rng.Draws(self.key(spec.ALERTS), program.layout).span(1, SHOWN)
        try:
            program.function(records, 0, instant, str(instant), self._pools, rows)
            for row in rows:
                sayable(row["message"])
        except Exception as error:
            return [Fault(("message",), 1, f"message: {cause(error)}", cure(error))]
        return []


class _Rows(lookup.Rows):
    """Rows of which there may be more: each key that is asked for may be one of those."""

    whole = True

    def found(self, key: str) -> lookup.Row | None:
        return self.by_key.get(key) or (None if self.whole else self[0])


class _Changed(list[tuple[str, lookup.Row]]):
    """Rows that events change, with what they were before."""

    def __init__(self) -> None:
        super().__init__()
        self._before: dict[int, tuple[lookup.Row, lookup.Row]] = {}

    def append(self, changed: tuple[str, lookup.Row]) -> None:
        """A row is about to change."""
        row = changed[1]
        self._before.setdefault(id(row), (row, dict(row)))
        super().append(changed)

    def put_back(self) -> None:
        """Make all rows what they were."""
        for row, before in self._before.values():
            row.clear()
            row.update(before)


def _spans(count: int) -> Iterator[tuple[int, int]]:
    """First number and length of the rows to make: few at first, so that the time is looked at soon."""
    first, most = 1, min(count, ROWS)
    for size in itertools.chain((1, 7, 56, 448), itertools.repeat(1_000)):
        if first > most:
            break
        yield first, min(size, most - first + 1)
        first += size
    starts = sorted({1 + part * count // BLOCKS for part in range(1, BLOCKS)} | {count + 1 - rng.BLOCK})
    for start in starts if count > ROWS else ():
        # In whole blocks, none of which begins before the one in front of it ends
        if start >= first:
            yield start, rng.BLOCK
            first = start + rng.BLOCK


def _label(path: Path) -> str:
    return path[-1] if path else "fields"


def _doubled(spec: spec.EntitySpec, key: str, first: int, second: int) -> Fault:
    message = f"{spec.key}: rows {first} and {second} have the same key {key!r}"
    return Fault(("fields", spec.key), 1, message, "make it of index, or draw it from more values")


def _undefined(row: lookup.Row, where: str) -> Fault | None:
    """The first field of a row that is undefined: it would fail in each event that shows it."""
    for name, value in row.items():
        if isinstance(value, jinja2.Undefined):
            try:
                str(value)
            except jinja2.UndefinedError as error:
                return Fault(("fields", name), 1, f"{name}: {cause(error)}{where}", cure(error))
    return None


def _of_row(error: errors.RenderError, where: str) -> Fault:
    path = tuple(filter(None, error.field.split(".")))
    return Fault(path, 1, f"{_label(path)}: {error.cause}{where}")


class _Maker(batches.BatchBuilder):
    """Makes events, and remembers the first fault though other draws mended it."""

    __slots__ = ("first",)

    first: Exception | None

    def _again(self, first: int, count: int, fault: Exception) -> errors.RenderError | None:
        self.first = fault
        return super()._again(first, count, fault)


class _Run:
    """The first events of one stream."""

    def __init__(
        self, trial: Trial, declaration: spec.StreamSpec, program: Program, end: float, changed: _Changed | None
    ) -> None:
        self._changed = changed
        self.faults: list[Fault] = []
        self.events: list[Event] = []
        self._trial, self._spec, self._program, self._end = trial, declaration, program, end
        self._variant = self._of(program)
        head = Head(declaration.name, "TRIAL", declaration.event, declaration.topic, declaration.priority, "", "")
        self._form = batches.form(head, "")
        self._arriving = delivery_faults.Arriving()
        self._alerts = self._seq = 0

    def _of(self, program: Program) -> batches.Variant:
        trial = self._trial
        return batches.Variant(program, rng.Draws(trial.key(self._spec.name), program.layout), trial.box)

    def first(self) -> None:
        """Make those of the first tick, and again as they leave the rows."""
        if self._made(self._variant, self._first()) and self._program.changes:
            self._seq = 0
            self._made(self._variant, self._first())

    def all(self) -> None:
        """Make all of them, up to one that fails in each attempt or until the time is up."""
        for ticks in self._chunks():
            if not self._made(self._variant, ticks) or self._trial._cpu() > self._end:
                break
        if self._program.changes and not self._failed:
            # The same draws take the same rows, as the events before left them
            self._seq = 0
            self._made(self._variant, self._first())
        if not self._failed:
            self._check_alert()
            self._check_key()

    @property
    def _failed(self) -> bool:
        return any(fault.severity == "error" for fault in self.faults)

    def _chunks(self) -> Iterator[list[batches.Tick]]:
        yield self._first()
        if self._spec.follow is not None:
            yield [batches.Tick.told(self._trial._now, self._passages(SHOWN))]
            return
        now, size = self._trial._now, min(self._spec.batch_size, TICK)
        step = _STEP if self._program.reads_now and not self._program.lives else 0.0
        ticks = [batches.Tick(now + number * step, size) for number in range(1, self._trial.events_each // size)]
        yield ticks[:7]
        yield ticks[7:]
        if self._spec.batch_size > TICK:
            yield [batches.Tick(now, min(self._spec.batch_size, WHOLE_TICK))]

    def _first(self) -> list[batches.Tick]:
        now = self._trial._now
        if self._spec.follow is not None:
            return [batches.Tick.told(now, self._passages(1))]
        return [batches.Tick(now, min(self._spec.batch_size, TICK))]

    def _passages(self, each: int) -> list[lifecycle.Transition]:
        """Rows on each way from state to state that there is, the first way and the last included."""
        name = self._spec.follow or ""
        states, now = self._trial.entities[name].states, self._trial._now
        first, last = next(iter(states)), next((one for one, state in states.items() if not state.then), None)
        ways: list[tuple[str | None, str]] = [(None, first)]
        ways += [(was, to) for was, state in states.items() for to, weight in state.then.items() if weight]
        if last is not None and any(self._trial.entities[other].states for other in self._program.reads - {name}):
            # What a row refers to may end before its time
            ways += [(was, last) for was in states if was != last and (was, last) not in ways]
        rows = itertools.cycle(self._trial._pools[name])
        since = registry.Instant.at(now)
        return [
            lifecycle.Transition(now, {**next(rows), "state": to, "since": since}, was, to)
            for was, to in ways
            for _ in range(each)
        ]

    def _made(self, variant: batches.Variant, ticks: Sequence[batches.Tick]) -> bool:
        """Whether the events of these ticks could be made; what is wrong is noted."""
        place = batches.EventPlace(self._spec.name, self._seq, self._trial._pools, self._arriving)
        made = _Maker(place, variant, self._form, ticks, touched=self._changed)
        made.first = None
        batch = made.make()
        self._seq += len(batch.events)
        self.events += batch.events
        self._alerts += len(batch.signals)
        if batch.error is not None and made.first is not None:
            self._fail(variant, made.first, ticks[len(batch.counts) - 1], batch.counts[-1])
            return False
        if made.first is not None:
            self._warn(variant.program.path(made.first), f"{cause(made.first)}, for some draws", cure(made.first))
        return True

    def _fail(self, variant: batches.Variant, error: Exception, tick: batches.Tick, done: int) -> None:
        path, where = variant.program.path(error), f"in event {self._seq + 1}"
        if tick.passed is not None:
            passage = tick.passed[done]
            where = f"for a row that comes into {passage.state}" + (f" from {passage.was}" if passage.was else "")
        if isinstance(error, lookup.NoRowError):
            self._warn(path, f"{cause(error)}, at the start", cure(error))
        elif tick.due != self._trial._now and self._at_present(variant, tick):
            self._warn(path, f"{cause(error)}, at {registry.time_text(tick.due)}", cure(error))
        else:
            self.faults.append(Fault(path, 1, f"{_label(path)}: {cause(error)}, {where}", cure(error)))

    def _at_present(self, variant: batches.Variant, tick: batches.Tick) -> bool:
        """Whether the events of a tick that failed at another time can be made now."""
        place = batches.EventPlace(self._spec.name, self._seq, self._trial._pools, self._arriving)
        ticks = [batches.Tick(self._trial._now, tick.events)]
        return batches.BatchBuilder(place, variant, self._form, ticks).make().error is None

    def _warn(self, path: Path, message: str, hint: str) -> None:
        fault = Fault(path, 1, f"{_label(path)}: {message}", hint, "warning")
        if fault not in self.faults:
            self.faults.append(fault)

    def _check_key(self) -> None:
        if self._spec.key and {event.key for event in self.events} == {None}:
            self._warn(("key",), f"null for each of {self._seq} events", "leave the key out, or make it of a field")

    def _check_alert(self) -> None:
        """The message of an alert that no event raised is tried all the same, for it is needed when it counts."""
        rule = self._spec.alert
        if rule is None or self._alerts:
            return
        trial = self._trial
        raising = self._spec.model_copy(update={"alert": rule.model_copy(update={"when": "{{ true }}"})})
        builder = Builder(trial.box, trial.entities, trial.key(self._spec.name))
        program = compile.stream_program(builder, raising)
        if program is None:
            return
        before, self._seq = len(self.faults), 0
        self._made(self._of(program), self._first())
        # It may be sound where the condition holds, for which none of these events is an example
        self.faults[before:] = [
            one._replace(severity="warning", message=f"{one.message}, if it were raised")
            for one in self.faults[before:]
            if one.path[:1] == ("alert",)
        ]
