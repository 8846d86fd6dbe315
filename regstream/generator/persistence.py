"""Values that templates make, as JSON that gives them back as they were: with their type, their order, each character.

What JSON and PostgreSQL's ``jsonb`` hold exactly stands there as it is. Anything else is an object with one member,
whose name begins with ``$`` and says what it is. ``jsonb`` holds no character 0, no half of a surrogate pair, no
``-0.0``, no order of an object's members but its own, and writes ``1e22`` as a whole number.
"""

from __future__ import annotations

import datetime
import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jinja2.filters
import orjson

from regstream import errors
from regstream.functions import registry
from regstream.generator import lifecycle

DEPTH = 240
"""How many levels of JSON a value may take: the encoder allows 254, with those around it."""
_LEAST, _MOST = -(2**63), 2**64 - 1
_TINY, _LARGE = 1e-15, 1e15
_MARK = "$"
_Markup = type(jinja2.filters.do_mark_safe(""))


def plain(text: str) -> bool:
    """Whether a database can hold the text as it is."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode(value: Any, depth: int = 0) -> Any:
    """The value as JSON that ``decode`` takes. Raises ValueError for what cannot be kept, with the cause."""
    kind = type(value)
    if kind is float:
        size = abs(value)
        if _TINY <= size < _LARGE or (size == 0.0 and math.copysign(1.0, value) > 0):
            return value
    elif kind is int:
        if _LEAST <= value <= _MOST:
            return value
    elif kind is str:
        if plain(value):
            return value
    elif value is None or kind is bool:
        return value
    if depth >= DEPTH:
        raise ValueError(f"a value of more than {DEPTH} levels as JSON cannot be kept")
    if kind is list:
        return [encode(one, depth + 1) for one in value]
    if isinstance(value, dict) and kind is not dict:
        # A row of an entity
        value, kind = dict(value), dict
    if kind is dict and _ordered(value):
        return {key: encode(one, depth + 1) for key, one in value.items()}
    if kind not in _CODES:
        raise ValueError(f"a {kind.__name__} cannot be kept")
    name, parts, _ = _CODES[kind]
    return {name: encode(parts(value), depth + 1) if kind in _NESTED else parts(value)}


def encode_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Each value encoded; most are numbers and short texts, of which no more is asked than whether they are plain."""
    found = {}
    for name, value in fields.items():
        kind = type(value)
        if (
            (kind is float and _TINY <= value < _LARGE)
            or (kind is str and value.isascii() and "\0" not in value)
            or (kind is int and _LEAST <= value <= _MOST)
            or kind is bool
        ):
            found[name] = value
        else:
            found[name] = encode(value)
    return found


def decode(value: Any) -> Any:
    """The value that was encoded so. Raises ValueError for what nothing was."""
    kind = type(value)
    if kind is list:
        return [decode(one) for one in value]
    if kind is not dict:
        return value
    if len(value) == 1:
        ((name, inner),) = value.items()
        if name in _MAKERS:
            try:
                return _MAKERS[name](decode(inner))
            except (TypeError, LookupError, AttributeError, OverflowError) as error:
                raise ValueError(f"not a value of {name}: {error}") from error
    return {key: decode(one) for key, one in value.items()}


def _ordered(value: Mapping[Any, Any]) -> bool:
    """Whether its members have names that are plain, in the order that ``jsonb`` gives them: by length, then bytes."""
    before = (-1, b"")
    for key in value:
        if type(key) is not str or key.startswith(_MARK) or not plain(key):
            return False
        text = key.encode()
        here = (len(text), text)
        if here <= before:
            return False
        before = here
    return True


def escaped(text: str) -> str:
    """The text in characters of ASCII that every database can hold; ``unescaped`` takes it back."""
    return text.encode("unicode_escape").decode()


def unescaped(text: str) -> str:
    """The text that was escaped so. Raises ValueError for what nothing was."""
    return text.encode("ascii").decode("unicode_escape")


def _pairs(value: Mapping[Any, Any]) -> list[list[Any]]:
    return [[key, one] for key, one in value.items()]


_Code = tuple[str, Callable[[Any], Any], Callable[[Any], Any]]
_CODES: dict[type, _Code] = {
    str: ("$text", escaped, unescaped),
    int: ("$int", hex, lambda text: int(text, 16)),
    float: ("$float", float.hex, float.fromhex),
    dict: ("$dict", _pairs, dict),
    tuple: ("$tuple", list, tuple),
    range: ("$range", lambda one: [one.start, one.stop, one.step], lambda ends: range(*ends)),
    type({}.keys()): ("$keys", list, lambda keys: dict.fromkeys(keys).keys()),
    type({}.values()): ("$values", list, lambda values: dict(enumerate(values)).values()),
    type({}.items()): ("$items", lambda items: _pairs(dict(items)), lambda pairs: dict(pairs).items()),
    _Markup: ("$markup", str.__str__, jinja2.filters.do_mark_safe),
    registry.Instant: ("$instant", datetime.datetime.isoformat, registry.Instant.fromisoformat),
    datetime.datetime: ("$datetime", datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    datetime.date: ("$date", datetime.date.isoformat, datetime.date.fromisoformat),
    datetime.time: ("$time", datetime.time.isoformat, datetime.time.fromisoformat),
    datetime.timedelta: (
        "$duration",
        lambda one: [one.days, one.seconds, one.microseconds],
        lambda parts: datetime.timedelta(*parts),
    ),
    datetime.timezone: (
        "$zone",
        lambda one: one.utcoffset(None),
        datetime.timezone,
    ),
    time.struct_time: ("$fields", list, time.struct_time),
}
# Those of which the parts are values of any kind themselves
_NESTED = {kind for kind in _CODES if kind not in (str, int, float)}
_MAKERS = {name: make for name, _, make in _CODES.values()}


RowState = Mapping[str, Any]
Changes = Mapping[str, Mapping[str, RowState]]


class Remembered:
    """By entity and the text of its key what each row was last.

    A row with a value that cannot be kept, or that was written in a way that nobody understands, stays what it was
    before; such are counted in ``refused``, and ``refusal`` says why of the last. ``log`` is told of the first one of
    each entity.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._rows: dict[str, dict[str, RowState]] = {}
        self._odd: set[str] = set()
        self.refused, self.refusal = 0, ""

    def rows(self, entity: str) -> Mapping[str, RowState]:
        """Those of one entity, by key."""
        return self._rows.get(entity, {})

    @property
    def all(self) -> Changes:
        """Those of all entities."""
        return self._rows

    def keep(self, changes: Changes) -> bytes:
        """Take in rows as they are now; gives what is to be written down of them, for ``read``."""
        fit: dict[str, dict[str, Any]] = {}
        for entity, states in changes.items():
            kept = self._rows.setdefault(entity, {})
            found = fit[entity] = {}
            for key, state in states.items():
                try:
                    if not plain(key):
                        raise ValueError("a key with such a character cannot be kept")
                    found[key] = encode_fields(state)
                    kept[key] = state
                except (ValueError, RecursionError) as error:
                    self._refuse(entity, key, error)
        # As one, since one part may say what has become of another
        return orjson.dumps(fit)

    def read(self, written: bytes) -> None:
        """Take in what ``keep`` gave."""
        try:
            for entity, states in orjson.loads(written).items():
                for key, state in states.items():
                    self.take(entity, key, state)
        except (ValueError, AttributeError) as error:
            self._refuse("", "", error)

    def take(self, entity: str, key: str, written: Any) -> None:
        """Take in one row of it."""
        try:
            state = {name: decode(value) for name, value in written.items()}
        except (ValueError, AttributeError) as error:
            self._refuse(entity, key, error)
        else:
            self._rows.setdefault(entity, {})[key] = state

    def _refuse(self, entity: str, key: str, error: Exception) -> None:
        self.refused, self.refusal = self.refused + 1, f"row {entity}/{escaped(key)}: {error}"
        if entity not in self._odd:
            self._log.error("rows of %s will not be remembered as they are: %s", entity, self.refusal)
        self._odd.add(entity)


State = dict[str, Any]
Mask = Callable[[str, str, State], None]
"""Given an entity, the key of a row and what the row holds, it may change the last."""
CHUNK = 1_000
"""So many places are remembered at once that nothing has happened in."""
_HEAD = "head"
_FAULTS = (KeyError, TypeError, ValueError, AttributeError, errors.RenderError)
_log = logging.getLogger("regstream.generate")


class LifecycleJournal:
    """What of a population is remembered already."""

    def __init__(self, population: lifecycle.Population) -> None:
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
            if passed > max(lifecycle.LEAST_LOG, one.spec.count):
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

    def _again(self, state: State) -> lifecycle.Row:
        """A row as it was. What its templates give alike is taken from them: a time is more than its text there."""
        number, born = int(state["number"]), float(state["born"])
        try:
            made: Mapping[str, Any] = self.population.row(number, born)
        except errors.RenderError:
            made = {}
        row = lifecycle.Row(made)
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
                row["state"], row["since"] = state["state"], registry.Instant.at(state["at"])
            one.log.append(lifecycle.Transition(state["at"], row, state["was"], state["state"]))
        one.count = count


def _alike(made: Any, saved: Any) -> bool:
    return bool(made == saved) or str(made) == str(saved)


def _row(one: lifecycle.Population, row: Any, mask: Mask | None) -> State:
    held = {name: row[name] for name in one.spec.fields if name in row}
    if mask is not None:
        mask(one.spec.name, str(row[one.spec.key]), held)
    return {"number": row.number, "born": row.born, "ends": None if row.ends == math.inf else row.ends, "row": held}
