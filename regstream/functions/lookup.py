"""The rows of an entity, and the ways to take one: equally, by rank, by weight, by key."""

from __future__ import annotations

import array
import bisect
import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]


class NoRowError(ValueError):
    """No row is in a state at present, of which there may be some at another time."""


class Rows(list[Row]):
    """The rows of one entity, which knows them by the text of their ``key``."""

    def __init__(self, rows: Iterable[Row] = (), key: str = "") -> None:
        super().__init__(rows)
        self.key = key
        self._weights: dict[str, array.array[float]] = {}

    @functools.cached_property
    def by_key(self) -> dict[str, Row]:
        """The rows by the text of their key."""
        return {str(row[self.key]): row for row in self}

    def found(self, key: str) -> Row | None:
        """The row of a key, as text."""
        return self.by_key.get(key)

    def in_state(self, state: str) -> Some:
        """The rows in a state. Raises ValueError when they have none."""
        raise ValueError(f"pick: the entity has no states, and so none in {state!r}")

    @property
    def known_weights(self) -> Mapping[str, array.array[float]]:
        """The weights that were asked for, by field."""
        return dict(self._weights)

    def forget(self, but: Mapping[str, array.array[float]] | None = None) -> None:
        """Rows are others now: what is known of all of them is to be found again, ``but`` for these weights."""
        self._weights = {field: found for field, found in self._weights.items() if but and but.get(field) is found}

    def weights(self, field: str) -> array.array[float]:
        """The cumulated weights that the rows had in ``field`` when that was asked first. Raises ValueError."""
        found = self._weights.get(field)
        if found is None:
            values = [row.get(field) for row in self]
            if any(
                isinstance(one, bool) or not isinstance(one, int | float) or not 0 <= one < math.inf for one in values
            ):
                raise ValueError(f"pick needs a number of 0 or more in {field!r} of every row")
            found = self._weights[field] = array.array("d", itertools.accumulate(values))  # type: ignore[arg-type]
            if not found or not found[-1]:
                raise ValueError(f"pick needs a row with a weight above 0 in {field!r}")
        return found


@functools.lru_cache(64)
def ranks(count: int, exponent: float) -> array.array[float]:
    """The cumulated Zipf distribution: the k-th of ``count`` ranks in proportion to k to the power ``-exponent``."""
    if not 0 <= exponent <= 20:
        raise ValueError(f"pick needs a zipf from 0 to 20, not {exponent}")
    bounds = array.array("d", itertools.accumulate(rank**-exponent for rank in range(1, count + 1)))
    total = bounds[-1]
    return array.array("d", (bound / total for bound in bounds))


class Some(Sequence[Row]):
    """Some of the rows of an entity, by their places."""

    def __init__(self, rows: Rows, places: Sequence[int]) -> None:
        self._rows = rows
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[self.places[index]]


class Pools(dict[str, Rows]):
    """The rows of all entities by name; ``lives`` has what brings forward those that have states."""

    def __init__(self, rows: Mapping[str, Rows] | None = None) -> None:
        super().__init__(rows or {})
        self.lives: dict[str, Any] = {}


def pick(u: float, values: Rows, zipf: float | None = None, weight: str | None = None, state: str | None = None) -> Row:
    """A row: all equally likely, by Zipf in the order in which they were made, by a field that is their weight, or one
    of those that are in a state.
    """
    if sum(way is not None for way in (zipf, weight, state)) > 1:
        raise ValueError("pick takes one of zipf, weight and state")
    if state is not None:
        some = values.in_state(state)
        if not some:
            raise NoRowError(f"pick: no row is in the state {state!r}")
        chosen: Row = some[int(u * len(some))]
        return chosen
    if not values:
        raise ValueError("pick needs an entity with rows")
    if zipf is not None:
        return values[min(bisect.bisect_right(ranks(len(values), zipf), u), len(values) - 1)]
    if weight is not None:
        bounds = values.weights(weight)
        return values[min(bisect.bisect_right(bounds, u * bounds[-1]), len(values) - 1)]
    return values[int(u * len(values))]


def find(values: Rows, key: Any) -> Row:
    """The row with that key."""
    found = values.found(str(key))
    if found is None:
        raise ValueError(f"find: no row has the key {key!r}")
    return found
