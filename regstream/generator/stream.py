"""A stream that can be asked for its next events."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from regstream import errors, spec
from regstream.event import Head, Position
from regstream.functions import delivery_faults, lookup, rng
from regstream.generator import batch as batches
from regstream.generator import entities, lifecycle, persistence
from regstream.generator.batch import AlertSignal as AlertSignal
from regstream.generator.batch import Batch as Batch
from regstream.generator.batch import Tick as Tick
from regstream.templates import compile, sandbox

_VARIANTS = 32
# Where the draws lie that decide what is lost, and those of what is: beyond all that events use themselves
_LOSS = 2**32 - 1
_UNSEEN = 2**30

_TOLD = "/told"
# While a reload is prepared the rows that it replaces go on: so often may each of them be followed by another
_MOMENTS = 10

_log = logging.getLogger("regstream.generate")
Remembered = Callable[[str], Mapping[str, Mapping[str, Any]]]
"""Given the name of an entity, or of another part, what is remembered of it by key."""


class Identity(NamedTuple):
    """Who makes the events: the CloudEvents ``source`` and the region."""

    source: str
    region: str


class GenerationContext:
    """What the streams of one catalog are compiled with: templates, entities, seed and the live entity rows."""

    def __init__(self, catalog: spec.Catalog, seed: int, identity: Identity) -> None:
        self.catalog = catalog
        self.seed = seed
        self.identity = identity
        self.box = sandbox.Sandbox(catalog.templates)
        self.pools = lookup.Pools()
        self.populations: dict[str, lifecycle.Population] = {}
        # Of each entity what events change, and of which others its rows may hold rows
        self._fields: dict[str, list[str]] = {}
        self._holds: dict[str, frozenset[str]] = {}
        self._ledgers: dict[str, persistence.LifecycleJournal] = {}
        # By stream how much it has told of what it follows: of those that go on, and what is not remembered yet
        self._told: dict[str, int] = {}
        self._telling: dict[str, int] = {}
        self._told_last: dict[str, int] = {}

    def fill(
        self,
        now: float,
        old: GenerationContext | None = None,
        unchanged: frozenset[str] = frozenset(),
        remembered: Remembered | None = None,
    ) -> None:
        """Make the rows of all entities, or take over from ``old`` the rows of unchanged ones and what had changed.

        Rows that come and go of entities that ``old`` has not go on from what is ``remembered`` of them.
        """
        declared = self.catalog.entities
        self._fields = {name: [] for name in declared}
        for entity, field in sorted(compile.changed(self.box, self.catalog.streams.values(), declared)):
            self._fields[entity].append(field)
        resumed: list[str] = []
        for name, declaration in declared.items():
            if old is not None and name in unchanged:
                self._take_over(name, old)
                continue
            given = self.box, declaration, self.catalog, self.pools, self.seed
            if not declaration.states:
                self.pools[name], self._holds[name] = entities.make(*given, now)
            elif remembered is None or (old is not None and name in old.pools):
                self._populate(given, now, {}, 0 if old is None else old._beyond(name))
            elif self._populate(given, now, dict(remembered(_lives(name)))):
                resumed.append(name)
            _log.debug("%d rows of entity %s made", len(self.pools[name]), name)
        self._connect()
        told = remembered(_TOLD) if remembered is not None and resumed else {}
        for stream in self.catalog.streams.values():
            if stream.follow in resumed and stream.name in told:
                self._told[stream.name] = int(told[stream.name]["told"])
        for name in resumed:
            together = self.pools.lives[name]
            # Not from here those that are at work
            if old is None or all(one.spec.name not in old.populations for one in together.populations):
                together.advance(now)

    def _beyond(self, name: str) -> int:
        """A number that no row of an entity has, nor is going to have within moments; 0 where they do not end."""
        population = self.populations.get(name)
        if population is None or population.path.last is None:
            return 0
        return max(population.numbers) + _MOMENTS * population.spec.count

    def _populate(self, given: tuple[Any, ...], now: float, saved: Mapping[str, Any], floor: int = 0) -> bool:
        """Make rows that come and go, with numbers behind ``floor``; whether they go on from what was saved."""
        population, holds = lifecycle.make(*given)
        population.floor = floor
        ledger = persistence.LifecycleJournal(population)
        goes_on = bool(saved) and ledger.resume(saved, now)
        if saved and not goes_on:
            floor = population.floor
            population, _ = lifecycle.make(*given)
            population.floor = floor
        if not goes_on:
            population.settle(now)
            ledger = persistence.LifecycleJournal(population)
        name = population.spec.name
        self.populations[name], self._holds[name], self._ledgers[name] = population, holds, ledger
        self.pools[name] = population.rows
        return goes_on

    def _take_over(self, name: str, old: GenerationContext) -> None:
        self.pools[name], self._holds[name] = old.pools[name], old._holds[name]
        if name in old.populations:
            self.populations[name], self._ledgers[name] = old.populations[name], old._ledgers[name]

    def _connect(self) -> None:
        """Put together the populations whose rows refer to each other: they are brought forward as one."""
        for group in lifecycle.connected({name: self._holds[name] for name in self.populations}):
            at_once = lifecycle.Lives([self.populations[name] for name in group])
            self.pools.lives.update(dict.fromkeys(group, at_once))

    def carry(self, old: GenerationContext, unchanged: frozenset[str]) -> None:
        """Give rows that were made again the state of the old rows of the same key."""
        for name, declaration in self.catalog.entities.items():
            if name in old.pools and name not in unchanged:
                entities.carry(old.pools[name], self.pools[name], declaration.key, self._fields[name])

    def recall(self, old: GenerationContext, remembered: Remembered) -> None:
        """Give the rows of entities that ``old`` did not have the state that is ``remembered`` of them, by key."""
        for name in self.catalog.entities.keys() - old.pools.keys() - self._replaced:
            found, fields = remembered(name), self._fields[name]
            for row in self.pools[name] if found else ():
                state = found.get(str(row[self.catalog.entities[name].key]), {})
                row.update({field: state[field] for field in fields if field in state and field in row})

    @property
    def _replaced(self) -> frozenset[str]:
        """The entities whose rows end: when the daemon starts again they are others."""
        return frozenset(name for name, one in self.populations.items() if one.path.last is not None)

    def within(self, names: Iterable[str]) -> frozenset[str]:
        """These entities, and those whose rows can be reached from theirs."""
        found, left = set(), list(names)
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                left += self._holds.get(name, ())
        return frozenset(found)

    @property
    def fields(self) -> Mapping[str, Sequence[str]]:
        """By entity the fields that events change."""
        return self._fields

    def told(self, stream: str, entity: str) -> int:
        """How much of what there was to tell of an entity a stream has told, or is not to tell any more."""
        count = self.populations[entity].count
        return min(count, self._told.pop(stream, count))

    def tell(self, stream: str, told: int) -> None:
        """So much of what it follows a stream has told."""
        if self._told_last.get(stream) != told:
            self._telling[stream] = self._told_last[stream] = told

    @property
    def has_news(self) -> bool:
        """Whether there is anything of rows that come and go to be remembered."""
        return bool(self._telling) or any(one.has_news for one in self._ledgers.values())

    def news(self, mask: persistence.Mask | None = None) -> dict[str, dict[str, dict[str, Any]]]:
        """What has changed of rows that come and go since the last call, and what was told of it; as in ``states``."""
        found = {_lives(name): one.news(mask) for name, one in self._ledgers.items() if one.has_news}
        if self._telling:
            found[_TOLD] = {stream: {"told": told} for stream, told in self._telling.items()}
            self._telling = {}
        return found

    def states(
        self, touched: Iterable[tuple[str, entities.Row]], mask: persistence.Mask | None = None
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """Of such rows by entity and key what events change of them, as it is now.

        ``mask`` may change what is said of a row, given its entity, its key and that.
        """
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for name, row in {id(row): (name, row) for name, row in touched}.values():
            spec = self.catalog.entities.get(name)
            if name in self._replaced:
                self.populations[name].touch(row)
            if spec is not None and spec.key in row and name not in self._replaced:
                key = str(row[spec.key])
                state = found.setdefault(name, {})[key] = {
                    field: row[field] for field in self._fields[name] if field in row
                }
                if mask is not None:
                    mask(name, key, state)
        return found


class Stream:
    """One stream's position, and the programs that make its events: its own and those of overlays."""

    def __init__(self, spec: spec.StreamSpec, workshop: GenerationContext, epoch: str, seq: int = 0) -> None:
        self.spec = spec
        self.epoch = epoch
        self.seq = seq
        self.workshop = workshop
        self._key = rng.key(workshop.seed, spec.name)
        self._variants: dict[bytes, batches.Variant] = {}
        self._arriving = delivery_faults.Arriving()
        self._last_form: batches.Form | None = None
        # What it follows, and how much of that it has told
        self._followed = workshop.populations.get(spec.follow or "")
        self._told = 0 if self._followed is None else workshop.told(spec.name, self._followed.spec.name)
        self._variant(None)

    @property
    def position(self) -> Position:
        """Where a reader stands who has all events so far."""
        return Position(self.epoch, self.seq)

    @property
    def reads(self) -> frozenset[str]:
        """The entities of which its events may show rows."""
        return self.workshop.within(self._variants[b""].program.reads)

    @property
    def changes(self) -> frozenset[str]:
        """The entities whose rows its events change."""
        return self._variants[b""].program.changes

    def adopt(self, workshop: GenerationContext) -> None:
        """Go on with the rows and templates of another workshop, in which this stream's declaration is the same."""
        own = self._variants[b""]
        before, after = self.workshop.catalog.entities, workshop.catalog.entities
        same = all(_nature(before.get(name)) == _nature(after.get(name)) for name in own.program.reads)
        self.workshop = workshop
        self._variants = {b"": own} if same else {}
        self._variant(None)

    def next_batch(
        self,
        now: float,
        count: int | None = None,
        fields: Mapping[str, Any] | None = None,
        priority: spec.Priority | None = None,
        base: int | None = None,
        traceparent: str = "",
        enough: Callable[[], bool] | None = None,
        *,
        losing: bool = False,
        touched: list[tuple[str, entities.Row]] | None = None,
    ) -> Batch:
        """The next ``count`` events at time ``now``; ``fields`` stand in for declared ones.

        ``base`` is the number of the first event when a batch is made in several calls. An event whose templates fail
        is tried again with other draws, and ends the batch when it fails each time; its number stays free. ``fields``
        that cannot be compiled are such a fault too: a run may have them from before a reload. The events carry
        ``traceparent`` if there is one. In a stream that follows an entity they tell of the rows as they are, one after
        the other. With ``losing``, ``count`` is how often something happens, of which the declared part is lost. Where
        events may take long, the batch ends with the one after which it is ``enough``. A list ``touched`` gets each row
        before it is changed, and is that of the batch.
        """
        count = self.spec.batch_size if count is None else count
        tick = Tick(now, count) if self.spec.follow is None else Tick.told(now, self._shown(now, count))
        return self.next_part(tick, fields, priority, base, traceparent, enough, losing=losing, touched=touched)

    def next_part(
        self,
        tick: Tick,
        fields: Mapping[str, Any] | None = None,
        priority: spec.Priority | None = None,
        base: int | None = None,
        traceparent: str = "",
        enough: Callable[[], bool] | None = None,
        *,
        losing: bool = True,
        touched: list[tuple[str, entities.Row]] | None = None,
    ) -> Batch:
        """The events of a tick, or of a part of one; the rest is as in ``next_batch``."""
        try:
            variant = self._variant(fields)
        except ValueError as error:
            return Batch([], [], errors.RenderError(self.spec.name, "fields", str(error)))
        form = self._form(priority or self.spec.priority)
        if losing and self.lossy:
            return self._thinned(variant, form, tick, base, traceparent, touched, enough)
        made = batches.BatchBuilder(self._place(), variant, form, [tick], base, traceparent, touched, enough)
        return self._done(made.make())

    def next_ticks(self, ticks: Sequence[Tick], *, strict: bool = False) -> Batch:
        """What a call of ``next_part`` for each of these would give, faster; ``error`` is the first.

        One that is ``strict`` ends there.
        """
        parts: list[Batch] = []
        done = 0
        while done < len(ticks) and not (strict and parts and parts[-1].error is not None):
            if self.lossy:
                parts.append(self.next_part(ticks[done]))
                done += 1
            else:
                form = self._form(self.spec.priority)
                parts.append(
                    self._done(batches.BatchBuilder(self._place(), self._variant(None), form, ticks[done:]).make())
                )
                done += len(parts[-1].counts)
        return Batch.joined(parts)

    def ticks(self, points: Iterable[tuple[float, int, Sequence[float] | None]]) -> list[Tick]:
        """What points of its schedule are: so many events, at these times if any, or what was passed since the last."""
        if self.spec.follow is not None:
            return [self._told_at(due, self.spec.follow) for due, _, _ in points]
        return [Tick(due, size if times is None else len(times), times) for due, size, times in points]

    def _told_at(self, due: float, entity: str) -> Tick:
        population = self.workshop.populations[entity]
        self.workshop.pools.lives[entity].advance(due)
        if self._followed is not population:
            # Taken over from a stream that followed others; what these passed is nothing to this one
            self._followed, self._told = population, population.count
        missed = population.count - self._told - len(population.log)
        if missed > 0:
            _log.warning(
                "%s: %d changes of state are too many for a tick, and were passed over", self.spec.name, missed
            )
        fresh = min(population.count - self._told, len(population.log))
        self._told = population.count
        return Tick.told(due, list(itertools.islice(population.log, len(population.log) - fresh, None)))

    def has_told(self, left: int) -> None:
        """Let it be remembered what it has told: all that it was given but for the last ``left``."""
        if self._followed is not None:
            self.workshop.tell(self.spec.name, self._told - left)

    def go_on(self, other: Stream) -> None:
        """Number on where a stream stands in whose place this one comes, and tell what it has not told."""
        self.epoch, self.seq = other.epoch, other.seq
        if other._followed is self._followed:
            self._told = other._told

    def _shown(self, now: float, count: int) -> list[lifecycle.Transition]:
        """The rows that it follows as they are, as if each had just come into its state."""
        name = self.spec.follow or ""
        self.workshop.pools.lives[name].advance(now)
        rows = self.workshop.pools[name]
        numbers = (number % len(rows) for number in range(self.seq, self.seq + count))
        return [lifecycle.Transition(now, row := rows[number], None, row["state"]) for number in numbers]

    def _place(self) -> batches.EventPlace:
        return batches.EventPlace(self.spec.name, self.seq, self.workshop.pools, self._arriving)

    def _done(self, batch: Batch) -> Batch:
        self.seq += len(batch.events)
        return batch

    @property
    def lossy(self) -> bool:
        """Whether some of what happens is lost."""
        return self.spec.arrival is not None and self.spec.arrival.loss > 0

    @property
    def counted(self) -> bool:
        """Whether the number of its events follows from that of its ticks, and what they are from their numbers."""
        declared = self.spec.arrival
        return self.spec.follow is None and (declared is None or not (declared.loss or declared.duplicates))

    def _thinned(
        self,
        variant: batches.Variant,
        form: batches.Form,
        tick: Tick,
        base: int | None,
        traceparent: str,
        touched: list[tuple[str, entities.Row]] | None,
        enough: Callable[[], bool] | None,
    ) -> Batch:
        """A tick of which the declared part is lost: whether that is so is drawn for the next number again and again,
        with the count of those that were lost since the last event."""
        share = self.spec.arrival.loss if self.spec.arrival else 0.0
        base = self.seq + 1 if base is None else base
        arriving = self._arriving
        parts: list[Batch] = []
        changed = [] if touched is None else touched
        for number in range(tick.events):
            seq = self.seq + 1
            made = batches.BatchBuilder(
                self._place(), variant, form, [tick.part(number, 1)], base, traceparent, changed
            )
            if parts and enough is not None and enough():
                break
            if rng.Loose(self._key, _LOSS, seq, arriving.lost).double() < share:
                made.unseen(variant.records.again(seq, _UNSEEN + arriving.lost))
                parts.append(Batch([], [], None, (), [], 1))
                arriving.lost += 1
                continue
            arriving.lost = 0
            parts.append(self._done(made.make())._replace(touched=()))
            if parts[-1].error is not None:
                break
        whole = Batch.joined(parts)
        return whole._replace(touched=changed, counts=[len(whole.events)])

    def _form(self, priority: spec.Priority) -> batches.Form:
        form = self._last_form
        if form is None or form.head[4] is not priority or form.head[1] != self.epoch:
            declaration, identity = self.spec, self.workshop.identity
            head = Head(
                declaration.name, self.epoch, declaration.event, declaration.topic, priority, "", identity.region
            )
            form = self._last_form = batches.form(head, identity.source)
        return form

    def _variant(self, fields: Mapping[str, Any] | None) -> batches.Variant:
        name = orjson.dumps(fields) if fields else b""
        found = self._variants.get(name)
        if found is None:
            if len(self._variants) >= _VARIANTS:
                self._variants.pop(next(key for key in self._variants if key))
            found = self._variants[name] = self._compiled(fields)
        return found

    def _compiled(self, fields: Mapping[str, Any] | None) -> batches.Variant:
        spec = self.spec
        if fields:
            spec = spec.model_copy(update={"fields": {**(spec.fields or {}), **fields}})
        program = compile.stream(self.workshop.box, spec, self.workshop.catalog.entities, self._key)
        return batches.Variant(program, rng.Draws(self._key, program.layout), self.workshop.box)


def _lives(entity: str) -> str:
    """The name by which rows that come and go are remembered: none of an entity."""
    return f"/lives/{entity}"


def _nature(entity: spec.EntitySpec | None) -> tuple[Any, ...]:
    """What a program that sees an entity's rows was compiled for."""
    return () if entity is None else (entity.count, entity.states)


def partition_by_shared_rows(streams: Iterable[Stream]) -> list[list[str]]:
    """Names of streams that have to be served in the order of logical time: one changes rows that the others may show,
    or time does.

    Each stream is in one list, in the order given; one that shares nothing that changes is alone.
    """
    all_of_them = list(streams)
    changing = frozenset().union(*(one.changes | one.workshop.populations.keys() for one in all_of_them))
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
