"""What rows go through: states, how long each of them lasts, and what follows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

import pydantic
from pydantic import Field

from regstream.model.values import Duration, Identifier, Jitter, Spec, Weight

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
