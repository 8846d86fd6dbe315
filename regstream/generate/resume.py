"""What is remembered of rows that come and go, and how they go on from there.

Of each place the row that is there, what it has gone through and since when; of the latest changes of state those that
somebody may not have told yet. When a row leaves its state, and what follows, is drawn for its number again.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from regstream import errors
from regstream.generate import lives, vocabulary

State = dict[str, Any]
Mask = Callable[[str, str, State], None]
"""Given an entity, the key of a row and what the row holds, it may change the last."""
CHUNK = 1_000
"""So many places are remembered at once that nothing has happened in."""
_HEAD = "head"
_FAULTS = (KeyError, TypeError, ValueError, AttributeError, errors.RenderError)
_log = logging.getLogger("regstream.generate")


class Ledger:
    """What of a population is remembered already."""

    def __init__(self, population: lives.Population) -> None:
        self.population = population
        self._count = population.count
        self._next = 0

    @property
    def has_news(self) -> bool:
        """Whether there is anything to be remembered."""
        one = self.population
        return bool(one.changed) or self._count != one.count or self._next < len(one.rows)

    def news(self, mask: Mask | None) -> dict[str, State]:
        """What has changed since the last call, in the form that ``resume`` takes all of it in."""
        one = self.population
        until = min(self._next + CHUNK, len(one.rows))
        places = one.changed.union(range(self._next, until))
        found = {str(place): self._place(place, mask) for place in places}
        fresh = min(one.count - self._count, len(one.log), one.lately)
        for index, passage in enumerate(itertools.islice(one.log, len(one.log) - fresh, None), one.count - fresh):
            said = {"index": index, "at": passage.at, "was": passage.was, "state": passage.state}
            found[f"log {index % one.lately}"] = said | _row(one, passage.row, mask)
        found[_HEAD] = {"count": one.count, "rows": one.spec.count, "floor": one.floor, "top": max(one.numbers)}
        one.changed.clear()
        self._count, self._next = one.count, until
        return found

    def _place(self, place: int, mask: Mask | None) -> State:
        one, row = self.population, self.population.rows[place]
        said = {"step": one.steps[place], "at": one.since[place], "state": row["state"]}
        return said | _row(one, row, mask)

    def resume(self, saved: Mapping[str, State], begin: float) -> bool:
        """Fill the population, which is empty, from what was remembered. False when that is nothing or makes no sense.

        Then its rows are to begin as by chance, but with numbers that none has had.
        """
        one = self.population
        head = saved.get(_HEAD)
        if not head:
            return False
        try:
            one.floor = int(head["top"])
            latest = max(float(state["at"]) for name, state in saved.items() if name.isdecimal())
            passed = one.path.passages_a_second() * one.spec.count * (begin - latest)
            if passed > max(lives.LEAST_LOG, one.spec.count):
                _log.warning("%s: about %d changes of state are too many to make up for", one.spec.name, passed)
                return False
            if head["rows"] == one.spec.count and all(str(place) in saved for place in range(one.spec.count)):
                one.floor = int(head["floor"])
            self._fill(saved, begin)
            self._log(saved, int(head["count"]))
        except _FAULTS as error:
            _log.warning("rows of %s cannot go on where they were, and begin anew: %s", one.spec.name, error)
            return False
        one.changed.clear()
        self._count, self._next = one.count, 0 if one.floor == head["top"] else len(one.rows)
        return True

    def _fill(self, saved: Mapping[str, State], begin: float) -> None:
        one = self.population
        for place in range(one.spec.count):
            state = saved.get(str(place))
            if state is None or state["state"] not in one.spec.states:
                one.begin(place, begin)
            else:
                one.go_on(place, self._again(state), int(state["step"]), state["state"], float(state["at"]))

    def _again(self, state: State) -> lives.Row:
        """A row as it was. What its templates give alike is taken from them: a time is more than its text there."""
        number, born = int(state["number"]), float(state["born"])
        try:
            made: Mapping[str, Any] = self.population.row(number, born)
        except errors.RenderError:
            made = {}
        row = lives.Row(made)
        row.update({name: value for name, value in state["row"].items() if not _alike(made.get(name), value)})
        row.number, row.born = number, born
        row.ends = math.inf if state["ends"] is None else float(state["ends"])
        return row

    def _log(self, saved: Mapping[str, State], count: int) -> None:
        """The latest changes of state, as far as they are known without a gap."""
        one = self.population
        by_number = dict(zip(one.numbers, one.rows, strict=True))
        known = {state["index"]: state for name, state in saved.items() if name.startswith("log ")}
        first = count
        while first - 1 in known and count - first < one.lately:
            first -= 1
        one.log.clear()
        for state in (known[index] for index in range(first, count)):
            row = by_number.get(state["number"])
            if row is None:
                row = by_number[state["number"]] = self._again(state)
                one.rows.bury(str(row[one.spec.key]), row)
            if one.rows.by_key.get(str(row[one.spec.key])) is not row:
                row["state"], row["since"] = state["state"], vocabulary.Instant.at(state["at"])
            one.log.append(lives.Passage(state["at"], row, state["was"], state["state"]))
        one.count = count


def _alike(made: Any, saved: Any) -> bool:
    return bool(made == saved) or str(made) == str(saved)


def _row(one: lives.Population, row: Any, mask: Mask | None) -> State:
    held = {name: row[name] for name in one.spec.fields if name in row}
    if mask is not None:
        mask(one.spec.name, str(row[one.spec.key]), held)
    return {"number": row.number, "born": row.born, "ends": None if row.ends == math.inf else row.ends, "row": held}
