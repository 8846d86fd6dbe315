"""The undo log: what events of runs changed in entity rows, and what those rows would hold without them.

A row is known by its entity and the text of its key, so that a reload may make it again meanwhile. Only events of runs
are recorded. What other events change meanwhile shows as the difference between what a field held after the last
recorded event and what it holds now: a number moves what the field would hold without the runs by that difference, any
other value takes its place. Sums are exact in decimals, so that an amount comes back to the cent.
"""

from __future__ import annotations

import fractions
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from regstream.functions import lookup

Field = tuple[str, str]
"""An entity and one of its fields."""
_Key = tuple[str, str]


class Touched(list[tuple[str, lookup.Row]]):
    """The rows that a batch changes, as ``Batch.touched`` has them, and what each of them held ``before``."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[int, tuple[str, lookup.Row, lookup.Row]] = {}

    def append(self, one: tuple[str, lookup.Row]) -> None:
        """Take a row that is about to be changed."""
        entity, row = one
        if id(row) not in self.before:
            self.before[id(row)] = entity, row, row.copy()
        super().append(one)


class _Record:
    """One field of one row. ``base`` is what it would hold without any run, ``seen`` what it held last.

    ``parts`` has, by run in the order of their last changes, the sum of what the run added and the value that it set.
    """

    __slots__ = ("base", "parts", "seen")

    def __init__(self, base: Any) -> None:
        self.base = self.seen = base
        self.parts: dict[str, tuple[fractions.Fraction, Any]] = {}

    def change(self, run_id: str, before: Any, after: Any) -> None:
        """An event of a run changed the field."""
        self.absorb(before)
        if _is_unchanged(before, after):
            return
        added, _ = self.parts.pop(run_id, (fractions.Fraction(), None))
        if _are_numbers(before, after):
            added += _exact(after) - _exact(before)
        self.parts[run_id] = added, after
        self.seen = after

    def absorb(self, current: Any) -> None:
        """Other events left ``current`` in the field: what they changed stays."""
        before, self.seen = self.seen, current
        if _same(before, current):
            return
        if _are_numbers(self.base, before, current):
            self.base = _moved(self.base, _exact(current) - _exact(before), before, current)
        else:
            self.base = current
            self.parts.clear()

    def give_back(self, run_id: str) -> Any:
        """What the field holds once the changes of a run are undone; ``absorb`` came before."""
        added, _ = self.parts[run_id]
        is_last = next(reversed(self.parts)) == run_id
        del self.parts[run_id]
        if not self.parts:
            self.seen = self.base
        elif _are_numbers(self.base, self.seen):
            self.seen = _moved(self.seen, -added, self.base)
        elif is_last:
            _, self.seen = self.parts[next(reversed(self.parts))]
        return self.seen


class UndoLog:
    """What all runs under way have changed in rows."""

    def __init__(self) -> None:
        self._keeps: dict[str, Collection[Field]] = {}
        self._rows: dict[_Key, dict[str, _Record]] = {}
        self._touched: dict[str, dict[_Key, None]] = {}
        self._weights: dict[str, Mapping[str, Any]] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to undo."""
        return bool(self._rows)

    def begin(self, run_id: str, keeps: Iterable[Field]) -> None:
        """Record what events of a run change from now on, but for the fields that it ``keeps``."""
        self._keeps[run_id], self._touched[run_id] = frozenset(keeps), {}

    def record(self, run_id: str, touched: Touched, rows: lookup.Pools, fields: Mapping[str, Collection[str]]) -> None:
        """Take in what a batch of a run has changed; ``fields`` has by entity those that events may change."""
        kept = self._keeps[run_id]
        for entity, row, before in touched.before.values():
            key = str(row[rows[entity].key])
            # One that has ended meanwhile is not there to be given anything back
            if rows[entity].by_key.get(key) is row:
                for field in fields[entity]:
                    if (entity, field) not in kept:
                        self._change(run_id, (entity, key), field, before[field], row[field], rows[entity])

    def _change(self, run_id: str, key: _Key, field: str, before: Any, after: Any, rows: lookup.Rows) -> None:
        records = self._rows.get(key, {})
        found = records.get(field)
        if found is None and _is_unchanged(before, after):
            return
        self._weights.setdefault(key[0], rows.known_weights)
        found = found or _Record(before)
        found.change(run_id, before, after)
        self._touched[run_id][key] = None
        self._rows.setdefault(key, records)[field] = found
        self._prune(key)

    def mask(self, entity: str, key: str, state: dict[str, Any]) -> None:
        """Put into the ``state`` of a row, field by field, what it would hold without the runs."""
        for field, record in self._rows.get((entity, key), {}).items():
            if field in state:
                record.absorb(state[field])
                state[field] = record.base
        self._prune((entity, key))

    def undo(self, run_id: str, rows: lookup.Pools) -> None:
        """Give back what a run changed; it may not change anything after that."""
        del self._keeps[run_id]
        touched = self._touched.pop(run_id)
        for key in touched:
            self._give_back(key, (run_id,), rows)
        self._forget_weights({entity for entity, _ in touched}, rows)

    def release(self, entities: Collection[str], rows: lookup.Pools) -> None:
        """Give back at once what any run changed in these entities, whose rows are to be made again or to go."""
        if entities and self._rows:
            for key in [key for key in self._rows if key[0] in entities]:
                self._give_back(key, tuple(self._touched), rows)
                self._rows.pop(key, None)
            self._forget_weights(entities, rows)

    def _give_back(self, key: _Key, runs: Iterable[str], rows: lookup.Pools) -> None:
        entity, name = key
        row = rows[entity].by_key.get(name) if entity in rows else None
        if row is None:
            self._rows.pop(key, None)
        for field, record in self._rows.get(key, {}).items():
            record.absorb(row[field])  # type: ignore[index]
            for run_id in runs:
                if run_id in record.parts:
                    row[field] = record.give_back(run_id)  # type: ignore[index]
        self._prune(key)

    def _prune(self, key: _Key) -> None:
        """Forget the fields of a row that no run has changed, or whose changes others have replaced."""
        records = self._rows.get(key)
        if records is None:
            return
        for field in [field for field, record in records.items() if not record.parts]:
            del records[field]
        if not records:
            del self._rows[key]

    def _forget_weights(self, entities: Iterable[str], rows: lookup.Pools) -> None:
        """Weights that were found while rows were other than they would have been are to be found again."""
        left = {entity for entity, _ in self._rows}
        for entity in set(entities) & self._weights.keys():
            if entity in rows:
                rows[entity].forget(self._weights[entity])
            if entity not in left:
                del self._weights[entity]


def _same(one: Any, other: Any) -> bool:
    return one is other or bool(one == other)


def _is_unchanged(before: Any, after: Any) -> bool:
    """Whether an event would show both alike: 1 and 1.0 differ there, and what a list holds is not looked into."""
    is_scalar = isinstance(before, str | int | float) and type(before) is type(after)
    return before is after or (is_scalar and repr(before) == repr(after))


def _are_numbers(*values: Any) -> bool:
    return all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in values
    )


def _exact(value: float) -> fractions.Fraction:
    """A number as its decimals say it: 0.1 is a tenth."""
    return fractions.Fraction(value) if isinstance(value, int) else fractions.Fraction(repr(value))


def _moved(value: float, by: fractions.Fraction, *others: float) -> float:
    """``value`` plus ``by``, an int if that can be.

    Not below 0 if neither it nor the ``others`` are: what sets a number anew, or brings it closer to a mean, adds
    nothing that could be told from what was there before.
    """
    found = _exact(value) + by
    if found < 0 <= min(value, *others):
        found = fractions.Fraction()
    if isinstance(value, int) and found.denominator == 1:
        return int(found)
    try:
        return float(found)
    except OverflowError:
        return value
