"""Calls of the vocabulary: their arguments checked, their draws allotted, their code as short as it can be."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jinja2
from jinja2 import nodes

from regstream import errors
from regstream.generate import vocabulary
from regstream.generate.site import NUMBERS, UNKNOWN, Code, Site, constant_of

_NOON = vocabulary.Instant.at(1_767_268_800.0)


class Call:
    """One call of a vocabulary function; ``arguments`` writes the code of its arguments."""

    def __init__(self, site: Site, node: nodes.Call, name: str, arguments: Callable[[Any], list[str]]) -> None:
        self._site = site
        self._node = node
        self._name = name
        self._function = vocabulary.FUNCTIONS[name]
        self._arguments = arguments

    def code(self) -> Code:
        """The code of the call."""
        if self._node.dyn_args is not None or self._node.dyn_kwargs is not None:
            return self._site.note(self._node, f"{self._name} takes its arguments one by one")
        fault = self._fault()
        if fault:
            return self._site.note(self._node, fault)
        if self._name == "pick":
            return self._pick()
        short: Callable[[], Code | None] = getattr(self, f"_{self._name}", self._plain)
        return short() or self._plain()

    def _fault(self) -> str:
        """Why the arguments cannot be right, as far as that shows before anything is drawn."""
        constants = [constant_of(one) for one in self._node.args]
        named = {one.key: constant_of(one.value) for one in self._node.kwargs}
        first = [{"u": 0.5, "raw": bytes(16), "seq": 1}.get(need, _NOON) for need in self._function.needs]
        try:
            inspect.signature(self._function.call).bind(*first, *constants, **named)
        except TypeError as error:
            return f"{self._name}: {error}"
        if self._name == "pick" or UNKNOWN in (*constants, *named.values()):
            return ""
        try:
            self._function.call(*first, *constants, **named)
        except Exception as error:
            return f"{self._name}: {_plainly(error)}"
        return ""

    def _draw(self) -> str:
        return f"({self._site.double()} - 1.0)"

    def _plain(self) -> Code:
        draws: dict[str, Callable[[], str]] = {"u": self._draw, "raw": self._site.raw}
        first = [draws[need]() if need in draws else need for need in self._function.needs]
        name = self._site.constant(self._function.call)
        return Code(f"{name}({', '.join([*first, *self._arguments(self._node)])})", self._function.gives)

    def _pick(self) -> Code:
        entity = constant_of(self._node.args[0]) if self._node.args else UNKNOWN
        if not isinstance(entity, str):
            return self._site.note(self._node, "pick takes the name of an entity as text")
        if entity not in self._site.entities:
            hint = errors.did_you_mean(entity, self._site.entities)
            return self._site.note(self._node, f"unknown entity {entity!r}", hint)
        rows = self._site.pool(entity)
        return Code(f"{rows}[int(len({rows}) * {self._draw()})]", f"row:{entity}")

    def _uuid(self) -> Code:
        raw = self._site.raw()
        # The variant's two bits come from a table: the byte that is cut from the text picks 8, 9, a or b
        made = 'f"{(HEX := RAW.hex())[:8]}-{HEX[8:12]}-4{HEX[13:16]}-{VARIANT[RAW[8] & 3]}{HEX[17:20]}-{HEX[20:]}"'
        return Code(made.replace("RAW", raw).replace("HEX", f"h{raw}"), "str")

    def _uniform(self) -> Code | None:
        low, high = self._numbers("low", "high")
        if low is None or high is None:
            return None
        return Code(f"({low!r} + {high - low!r} * {self._draw()})", "float")

    def _randint(self) -> Code | None:
        low, high = self._numbers("low", "high")
        if not isinstance(low, int) or not isinstance(high, int):
            return None
        return Code(f"({low!r} + int({high - low + 1!r} * {self._draw()}))", "int")

    def _chance(self) -> Code:
        arguments = self._arguments(self._node)
        return Code(f"({self._draw()} < {arguments[0].removeprefix('p=')})", "bool")

    def _choice(self) -> Code | None:
        values = constant_of(self._node.args[0]) if self._node.args else UNKNOWN
        if not isinstance(values, list | tuple):
            return None
        kinds = {type(one).__name__ for one in values}
        kind = kinds.pop() if len(kinds) == 1 else "any"
        name = self._site.constant(tuple(values))
        return Code(f"{name}[int({len(values)} * {self._draw()})]", kind if kind in {"str", *NUMBERS} else "any")

    def _weighted(self) -> Code | None:
        weights = constant_of(self._node.args[0]) if self._node.args else UNKNOWN
        if not isinstance(weights, dict):
            return None
        values, bounds = vocabulary.cumulative(tuple(weights.items()))
        kind = "str" if all(isinstance(one, str) for one in values) else "any"
        return Code(f"{self._site.constant(values)}[BISECT({self._site.constant(bounds)}, {self._draw()})]", kind)

    def _numbers(self, *names: str) -> list[float | None]:
        given = dict(zip(names, map(constant_of, self._node.args), strict=False))
        given.update({one.key: constant_of(one.value) for one in self._node.kwargs})
        return [one if isinstance(one := given.get(name), int | float) else None for name in names]


def _plainly(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError | jinja2.TemplateError) else f"{type(error).__name__}: {error}"
