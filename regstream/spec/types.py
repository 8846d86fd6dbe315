"""What declarations are made of: priorities, durations, the types of names, and the base of all specs."""

from __future__ import annotations

import datetime
import enum
import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field

MAX_BATCH = 10_000
MAX_DURATION = 366 * 24 * 3_600_000
MAX_RATE = 10_000
UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


class Priority(enum.StrEnum):
    """Who goes first among due ticks; ``rank`` 0 is the most urgent."""

    CRITICAL = "CRITICAL"
    HIGH = "HIGH"
    NORMAL = "NORMAL"
    LOW = "LOW"

    @property
    def rank(self) -> int:
        """0 for CRITICAL up to 3 for LOW."""
        return _RANKS[self]


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


class Policy(enum.StrEnum):
    """What happens when a subscriber reads more slowly than events are made."""

    DISCONNECT = "disconnect"
    """The subscriber is cut off; it can come back and resume."""
    DROP_OLDEST = "dropOldest"
    """The oldest event of the lowest priority is dropped, and the subscriber is told."""
    CONFLATE = "conflate"
    """What waits is replaced by the newer event with the same key."""


class Severity(enum.StrEnum):
    """How bad an alert is."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


def milliseconds(value: object) -> int:
    """``value`` as milliseconds: a whole number is milliseconds already, a text is a number and one of ms s m h d.

    Raises ValueError, with the cure in its text, for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a duration, write a whole number of milliseconds or 250ms, 5s, 5m, 1h")
    exact = float(match[1]) * UNITS[match[2]] if len(match[1]) <= 20 else float("inf")
    if exact > MAX_DURATION:
        raise ValueError(f"longer than {duration_text(MAX_DURATION)}")
    if exact != int(exact):
        raise ValueError("not a whole number of milliseconds")
    return int(exact)


def duration_text(value: int) -> str:
    """The shortest text that ``milliseconds`` reads back as ``value``: 90000 is ``90s``, 300000 is ``5m``."""
    for unit in ("d", "h", "m", "s"):
        if value and value % UNITS[unit] == 0:
            return f"{value // UNITS[unit]}{unit}"
    return f"{value}ms"


def _fraction(value: object) -> float:
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a percentage, write 0% to 100%")
    return float(match[1]) / 100


def _plain(value: object) -> object:
    """YAML dates as the text that JSON would show; everything else that JSON can carry stays."""
    if isinstance(value, Mapping):
        if any(not isinstance(key, str) for key in value):
            raise ValueError("a field name must be text, put it in quotes")
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"a {type(value).__name__} cannot be a field value")


_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(s|m|h|d)")


def per_second(value: object) -> float:
    """Events a second of a rate, ``5/s``. Raises ValueError, with the cure in its text, for anything else."""
    match = _RATE.fullmatch(value.strip()) if isinstance(value, str) and len(value) <= 40 else None
    if match is None:
        number = str(value).strip() if not isinstance(value, bool) else ""
        if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", number):
            raise ValueError(f"{number} of what time, write {number}/s, {number}/m, {number}/h or {number}/d")
        raise ValueError("not a rate, write 5/s, 300/m, 2.5/h or 1000/d")
    return float(match[1]) * 1000 / UNITS[match[2]]


def rate_text(value: float) -> str:
    """Events a second as ``rate`` reads them back, in the unit in which the number is plain."""
    for unit in ("s", "m", "h", "d"):
        number = value * UNITS[unit] / 1000
        if number >= 1 or unit == "d":
            return f"{number:.6g}/{unit}"
    raise AssertionError


PerSecond = Annotated[
    float,
    BeforeValidator(per_second),
    Field(gt=0, le=100_000),
    pydantic.WithJsonSchema({"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*/\s*[smhd]\s*$"}),
]
Weight = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
_DURATION_SCHEMA = {
    "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)\s*$"}]
}
Duration = Annotated[
    int, BeforeValidator(milliseconds), Field(ge=1, le=MAX_DURATION), pydantic.WithJsonSchema(_DURATION_SCHEMA)
]
Jitter = Annotated[
    float,
    BeforeValidator(_fraction),
    Field(ge=0, le=1),
    pydantic.WithJsonSchema({"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*%\s*$"}),
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,248}$")]
EventName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Value = Annotated[
    Any, BeforeValidator(_plain), pydantic.WithJsonSchema({"description": "a template, or any JSON value"})
]
Fields = Annotated[dict[str, Value], Field(min_length=1, max_length=500)]
BatchSize = Annotated[int, Field(ge=1, le=MAX_BATCH, strict=True)]


class Spec(pydantic.BaseModel):
    """The base of all declarations: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, use_attribute_docstrings=True
    )


LEAST_DWELL = 1_000


class Dwell(Spec):
    """How long a state lasts. One of ``exactly``, ``mean`` and ``between``."""

    exactly: Annotated[Duration | None, Field(ge=LEAST_DWELL)] = None
    """Always so long; a duration by itself says the same."""
    mean: Annotated[Duration | None, Field(ge=LEAST_DWELL)] = None
    """So long on average, by chance: exponentially distributed, like the time until a phone rings."""
    spread: Annotated[Jitter | None, Field(gt=0)] = None
    """With ``mean``: how far most of them are from it, as a part of it; log-normally distributed then."""
    between: Annotated[tuple[Duration, Duration] | None, Field()] = None
    """The shortest and the longest time, all in between equally likely."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return data if isinstance(data, Mapping | Dwell) else {"exactly": data}

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(way is not None for way in (self.exactly, self.mean, self.between)) != 1:
            raise ValueError("write one of 3d, {mean: 3d} and {between: [2d, 5d]}")
        if self.spread is not None and self.mean is None:
            raise ValueError("spread goes with mean, {mean: 3d, spread: 50%}")
        if self.between is not None and not LEAST_DWELL <= self.between[1] >= self.between[0]:
            raise ValueError("between is the shorter time and then the longer, which is a second at least")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        made = handler.resolve_ref_schema(handler(schema))
        return {"anyOf": [made["properties"]["exactly"]["anyOf"][0], made]}


class StateSpec(Spec):
    """A state of rows. One that nothing follows is the end: after it the row is replaced by a new one."""

    lasts: Dwell | None = None
    """How long: ``3d``, ``{mean: 3d}``, ``{mean: 3d, spread: 50%}`` or ``{between: [2d, 5d]}``. Left out, where nothing
    follows: for ever."""
    then: dict[Identifier, Weight] = {}
    """What follows it, with weights: ``{CLOSED: 3, ESCALATED: 1}``."""


States = dict[Identifier, StateSpec]
"""The states by name; a row begins in the first one."""


def problem(states: Mapping[str, StateSpec]) -> tuple[tuple[str, ...], str] | None:
    """What is wrong with states that are well formed each: where among them, and why; None when nothing is."""
    for name, state in states.items():
        unknown = next((one for one in state.then if one not in states), None)
        if unknown is not None:
            return (name, "then", unknown), f"there is no state {unknown!r}, there are {', '.join(states)}"
        if state.then and not any(state.then.values()):
            return (name, "then"), "then: needs a weight above 0"
        if state.then and state.lasts is None:
            return (name,), "lasts is missing: only a state that nothing follows lasts for ever without it"
    first = next(iter(states), "")
    reached, left = set(), [first]
    while left:
        name = left.pop()
        if name in states and name not in reached:
            reached.add(name)
            left += [one for one, weight in states[name].then.items() if weight]
    never = next((name for name in states if name not in reached), None)
    return None if never is None else ((never,), f"no row comes into state {never!r} from the first one, {first!r}")
