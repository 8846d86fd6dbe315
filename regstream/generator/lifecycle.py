"""Rows that come, go through states and go: who they are at any time depends on (seed, entity, number) and that time.

An entity has as many places as rows. In each place one row follows the other, the second with the first number that
is free for that place, so that keys made of the number never come twice. How long a row stays in which state is drawn
for its number alone; what its templates pick of other such rows is picked at its birth, and it ends with the first of
these at the latest, so that nothing refers to a row that is no more.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from regstream import errors, spec
from regstream.functions import lookup, processes, registry, rng
from regstream.generator import entities
from regstream.templates import sandbox
from regstream.templates.program import Program, cause

LEAST_LOG = 10_000
LEAST_GONE = 1_000
# So many states a row goes through at most, and so many are looked at of those that never end
_MOST, _LOOK = 10_000, 100
_PATH, _PLACE = 2**32 - 2, 2**32 - 3
_SAMPLE = 500
# When a row could not be made, its place is looked at again so many seconds later, or twice as late
_AGAIN = 60.0

_log = logging.getLogger("regstream.generate")


class Transition(NamedTuple):
    """A row that came into a state: when, which it was in before (None at its birth), and which that is."""

    at: float
    row: lookup.Row
    was: str | None
    state: str


def sojourn(lasts: spec.Dwell, u: float) -> float:
    """How many seconds a state lasts, by a draw in [0, 1)."""
    if lasts.between is not None:
        return registry.uniform(u, *lasts.between) / 1000
    if lasts.mean is None:
        return (lasts.exactly or 0) / 1000
    if lasts.spread is None:
        return registry.exponential(u, lasts.mean / 1000)
    # The mean and the coefficient of variation of a log-normal distribution, solved for its parameters
    variance = math.log1p(lasts.spread**2)
    return registry.lognormal(u, math.log(lasts.mean / 1000) - variance / 2, math.sqrt(variance))


class Path:
    """The states that the rows of an entity go through, each by its number alone; ``speed`` times as fast."""

    def __init__(self, states: Mapping[str, spec.StateSpec], key: bytes, speed: float) -> None:
        self._states = states
        self._speed = speed
        self._key = key
        self.first = next(iter(states))
        self.last = next((name for name, one in states.items() if not one.then), None)

    def stay(self, number: int, step: int, state: str) -> tuple[float, str | None]:
        """How many seconds a row is in its state, the one after ``step`` others, and what follows; None: its end."""
        spec, loose = self._states[state], rng.Loose(self._key, _PATH, number, step)
        seconds = math.inf if spec.lasts is None else sojourn(spec.lasts, loose.double()) / self._speed
        if not spec.then:
            return seconds, None
        return seconds, processes.mixture(loose.double(), [(weight, name) for name, weight in spec.then.items()])

    def steps(self, number: int) -> Iterator[tuple[str, float]]:
        """The states of a row and the seconds in each, up to its end; of one that has none, the first of them."""
        state: str | None = self.first
        for step in range(_LOOK if self.last is None else _MOST):
            if state is None:
                return
            seconds, following = self.stay(number, step, state)
            yield state, seconds
            state = following

    def end(self, number: int, born: float) -> float:
        """When a row ends by itself, by the same sums as those that lead there."""
        if self.last is None:
            return math.inf
        for _, seconds in self.steps(number):
            born += seconds
        return born

    def passages_a_second(self) -> float:
        """How often a place has a row that comes into a state, on average."""
        passed, seconds = 0, 0.0
        for number in range(1, _SAMPLE + 1):
            lasting = [time for _, time in self.steps(number)]
            passed += sum(map(math.isfinite, lasting))
            seconds += sum(time for time in lasting if math.isfinite(time))
            if not math.isfinite(lasting[-1]):
                # It stays as it is, so that in the long run nothing happens
                return 0.0
        return passed / seconds


class Row(dict[str, Any]):
    """A row with its number, the time at which it began and the one at which it ends, seconds since the epoch."""

    __slots__ = ("born", "ends", "number")

    born: float
    ends: float
    number: int


class Living(lookup.Rows):
    """The rows that live at present, each in its place; those that ended of late can still be found by their keys."""

    def __init__(self, key: str, states: Iterable[str], lately: int) -> None:
        super().__init__(key=key)
        self._gone: dict[str, lookup.Row] = {}
        self._lately = lately
        self.places: dict[str, list[int]] = {state: [] for state in states}
        self._index: list[int] = []

    def in_state(self, state: str) -> lookup.Some:
        """The rows in a state. Raises ValueError when the entity has no such state."""
        if state not in self.places:
            raise ValueError(f"there is no state {state!r}, there are {', '.join(self.places)}")
        return lookup.Some(self, self.places[state])

    def found(self, key: str) -> lookup.Row | None:
        """The row of a key: what is told of a row may be told after the end of what it refers to."""
        return self.by_key.get(key) or self._gone.get(key)

    def enter(self, place: int, state: str, at: float) -> None:
        """Bring the row of a place into a state."""
        row = self[place]
        row["state"], row["since"] = state, registry.Instant.at(at)
        if place == len(self._index):
            self._index.append(0)
        self._index[place] = len(self.places[state])
        self.places[state].append(place)

    def leave(self, place: int) -> None:
        """Take the row of a place out of its state."""
        mates = self.places[self[place]["state"]]
        last = mates.pop()
        if last != place:
            mates[self._index[place]] = last
            self._index[last] = self._index[place]

    def settle(self, place: int, row: Row) -> None:
        """Put a new row into a place, at the end when nobody was there yet."""
        if place == len(self):
            self.append(row)
        else:
            self._forget(str(self[place][self.key]))
            self[place] = row
        self.by_key[str(row[self.key])] = row
        self.forget()

    def _forget(self, key: str) -> None:
        self.bury(key, self.by_key.pop(key))

    def bury(self, key: str, row: lookup.Row) -> None:
        """Let a row that has ended be found for a while."""
        self._gone.pop(key, None)
        self._gone[key] = row
        if len(self._gone) > self._lately:
            del self._gone[next(iter(self._gone))]


class _Seen(lookup.Rows):
    """The rows of an entity as the templates of a new row see them: what is taken is noted."""

    def __init__(self, rows: lookup.Rows, taken: list[Any]) -> None:
        super().__init__(key=rows.key)
        self._rows = rows
        self._taken = taken

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[lookup.Row]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, place: Any) -> Any:
        return self._note(self._rows[place])

    def _note(self, row: Any) -> Any:
        self._taken.append(row)
        return row

    def found(self, key: str) -> lookup.Row | None:
        return self._note(row) if (row := self._rows.by_key.get(key)) is not None else None

    def weights(self, field: str) -> Any:
        return self._rows.weights(field)

    def in_state(self, state: str) -> lookup.Some:
        # By way of this one, so that only the row that is taken is noted
        return lookup.Some(self, self._rows.in_state(state).places)


class Population:
    """The rows of one entity: who lives, who comes when, and what happened of late.

    ``count`` is how many passages there have been since it began, of which ``log`` keeps the latest. ``changed`` are
    the places that are others since they were remembered, of those that have been at all.
    """

    def __init__(
        self,
        spec: spec.EntitySpec,
        program: Program,
        box: sandbox.Sandbox,
        key: bytes,
        others: lookup.Pools,
        speed: float,
    ) -> None:
        self.spec = spec
        self.lately = max(LEAST_GONE, spec.count)
        self.rows = Living(spec.key, spec.states, self.lately)
        self.path = Path(spec.states, key, speed)
        self.count = 0
        self.log: collections.deque[Transition] = collections.deque(maxlen=max(LEAST_LOG, spec.count))
        self._program, self._box, self._key = program, box, key
        self._records = rng.Draws(key, program.layout)
        self._others = others
        self._stuck = False
        # Numbers up to here are of rows that followed each other in another way; see ``following``
        self.floor = 0
        self._numbers: list[int] = []
        self._steps: list[int] = []
        self.since: list[float] = []
        self.changed: set[int] = set()
        self._queue: list[tuple[float, int]] = []

    @property
    def numbers(self) -> Sequence[int]:
        """By place the number of the row that is there."""
        return self._numbers

    @property
    def steps(self) -> Sequence[int]:
        """By place through how many states its row has gone."""
        return self._steps

    @property
    def due(self) -> float:
        """When the next row leaves its state."""
        return self._queue[0][0] if self._queue else math.inf

    def settle(self, begin: float) -> None:
        """Make the first rows, those behind ``floor``, so old that at ``begin`` some are near their end and some new.

        Raises RenderError when a template fails or two rows have the same key.
        """
        for place in range(self.spec.count):
            self.begin(place, begin)
        # What led there is nobody's news
        self.log.clear()
        self.changed.clear()
        self.count = 0

    def begin(self, place: int, begin: float) -> None:
        """Make the first row of the next place, as in ``settle``."""
        number = self.floor + place + 1
        age = sum(seconds for _, seconds in self.path.steps(number) if math.isfinite(seconds))
        born = begin - age * rng.Loose(self._key, _PLACE, number).double()
        # Where rows never end they are the first there ever were, in states that have come and gone for long
        row = self.row(number, begin if self.path.last is None else born)
        # Not older than those that it refers to: what it takes does not depend on when that is
        if self.path.last is not None and row.born > born:
            row = self.row(number, row.born)
            born = row.born
        due, following = self.admit(place, row, 0, self.path.first, born)
        while due <= begin and following is not None:
            self._enter(place, following, due)
            due, following = self._next(place, due)
        heapq.heappush(self._queue, (due, place))

    def go_on(self, place: int, row: Row, step: int, state: str, at: float) -> None:
        """Put a row into the next place that has gone through ``step`` states before this one. Raises RenderError."""
        due, _ = self.admit(place, row, step, state, at)
        heapq.heappush(self._queue, (due, place))

    def admit(self, place: int, row: Row, step: int, state: str, at: float) -> tuple[float, str | None]:
        """Put a row into the next place: gives when it leaves its state, and for which. Raises RenderError."""
        key = str(row[self.spec.key])
        if key in self.rows.by_key:
            raise self._doubled(key, row.number)
        self._numbers.append(row.number)
        self._steps.append(step)
        self.since.append(at)
        self.rows.settle(place, row)
        self.rows.enter(place, state, at)
        return self._next(place, at)

    def following(self, place: int) -> int:
        """The number of the row that comes next in a place: the first that no row has had, nor any will elsewhere."""
        number = self._numbers[place] + self.spec.count
        return number if self._numbers[place] > self.floor else self.floor + place + 1

    def touch(self, row: lookup.Row) -> None:
        """An event has changed a row; one that has ended meanwhile does not matter."""
        place = self.place(row)
        if place is not None:
            self.changed.add(place)

    def place(self, row: lookup.Row) -> int | None:
        """Where a row is, None when it is there no more."""
        number = getattr(row, "number", 0)
        place = (number - 1 - (self.floor if number > self.floor else 0)) % self.spec.count
        return place if self.rows[place] is row else next((n for n, one in enumerate(self.rows) if one is row), None)

    def step(self) -> None:
        """Let the next row leave its state: for what follows, or for a new row in its place."""
        at, place = self._queue[0]
        row = self._at(place)
        _, following = self.path.stay(self._numbers[place], self._steps[place], row["state"])
        if at >= row.ends and following is not None:
            # It ends before its time, with what it refers to: in the state that ends the life of all, if there is one
            if self.path.last is not None:
                self._enter(place, self.path.last, at)
            following = None
        if following is not None:
            self._enter(place, following, at)
        elif not self._replaced(place, at):
            # Later and later, for what failed with these draws may fail for good
            row.ends = at + max(_AGAIN, at - row["since"].timestamp())
            self.changed.add(place)
            heapq.heapreplace(self._queue, (row.ends, place))
            return
        due, _ = self._next(place, at)
        heapq.heapreplace(self._queue, (due, place))

    def _enter(self, place: int, state: str, at: float) -> None:
        row, was = self.rows[place], self.rows[place]["state"]
        self.rows.leave(place)
        self.rows.enter(place, state, at)
        self._steps[place] += 1
        self._note(place, Transition(at, row, was, state))

    def _note(self, place: int, passage: Transition) -> None:
        self.log.append(passage)
        self.count += 1
        self.since[place] = passage.at
        self.changed.add(place)

    def _next(self, place: int, at: float) -> tuple[float, str | None]:
        """When the row of a place leaves the state that it came into at ``at``, and for which."""
        row = self._at(place)
        seconds, following = self.path.stay(self._numbers[place], self._steps[place], row["state"])
        return min(at + seconds, row.ends), following

    def _at(self, place: int) -> Row:
        return cast("Row", self.rows[place])

    def _replaced(self, place: int, at: float) -> bool:
        """Whether a new row could be made for the place."""
        number = self.following(place)
        try:
            row = self.row(number, at)
            key, own = str(row[self.spec.key]), str(self.rows[place][self.spec.key])
            if key != own and key in self.rows.by_key:
                raise self._doubled(key, number)
        except errors.RenderError as error:
            if not self._stuck:
                _log.error("a new row of %s could not be made, the old one stays: %s", self.spec.name, error)
            self._stuck = True
            return False
        self.rows.leave(place)
        self._numbers[place], self._steps[place] = number, 0
        self.rows.settle(place, row)
        self.rows.enter(place, self.path.first, at)
        self._note(place, Transition(at, row, None, self.path.first))
        return True

    def _doubled(self, key: str, number: int) -> errors.RenderError:
        place = next(place for place, row in enumerate(self.rows) if str(row[self.spec.key]) == key)
        return entities.doubled(self.spec, key, self._numbers[place], number)

    def row(self, number: int, at: float) -> Row:
        """The row of a number, born at ``at`` or with the youngest of those that it refers to. Raises RenderError."""
        taken: list[Any] = []
        made: list[lookup.Row] = []
        instant = registry.Instant.at(at)
        given = (number - 1, instant, str(instant), _seen(self._others, taken), made)
        try:
            self._program.function(self._records.span(number, 1), *given)
        except Exception as first:
            self._try_again(number, given, made, first, taken)
        row = Row(made[0])
        row.number = number
        referred = [one for one in taken if isinstance(one, Row)]
        row.born = max((at, *(one.born for one in referred)))
        row.ends = min((self.path.end(number, row.born), *(one.ends for one in referred)))
        return row

    def _try_again(
        self, number: int, given: tuple[Any, ...], made: list[lookup.Row], first: Exception, taken: list[Any]
    ) -> None:
        try:
            for attempt in range(1, rng.ATTEMPTS + 1):
                self._box.attempt = attempt
                taken.clear()
                try:
                    self._program.function([self._records.again(number, attempt)], *given)
                except Exception:  # noqa: S112 - the first fault is the one that is reported
                    continue
                return
        finally:
            self._box.attempt = 0
        raise errors.RenderError(self.spec.name, self._program.place(first), cause(first)) from first


def _seen(others: lookup.Pools, taken: list[Any]) -> lookup.Pools:
    return lookup.Pools(
        {name: _Seen(rows, taken) if isinstance(rows, Living) else rows for name, rows in others.items()}
    )


class Lives:
    """Populations whose rows refer to each other, brought forward in the order of time.

    ``next`` is when something happens next, seconds since the epoch.
    """

    def __init__(self, populations: Sequence[Population]) -> None:
        self.populations = populations
        self.next = min(one.due for one in populations)

    def advance(self, now: float) -> None:
        """Let everything happen that does up to ``now``. Those declared first go first at the same time."""
        first = min(self.populations, key=_due)
        while first.due <= now:
            first.step()
            first = min(self.populations, key=_due)
        self.next = first.due


def _due(one: Population) -> float:
    return one.due


def connected(reads: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """The names in groups of those that refer to each other, however indirectly, in the order given."""
    groups: list[list[str]] = []
    for name, others in reads.items():
        touching = [group for group in groups if others & set(group)]
        groups = [group for group in groups if group not in touching]
        groups.append([*itertools.chain.from_iterable(touching), name])
    return groups


def make(
    box: sandbox.Sandbox, spec: spec.EntitySpec, catalog: spec.Catalog, others: lookup.Pools, seed: int
) -> tuple[Population, frozenset[str]]:
    """A population of an entity with states that is empty yet, and the entities that its rows may hold rows of."""
    program, key = entities.program(box, spec, catalog, seed)
    return Population(spec, program, box, key, others, catalog.profile.speed), program.reads
