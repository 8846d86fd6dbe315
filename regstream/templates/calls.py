"""Calls of the vocabulary: their arguments checked, their draws allotted, their code as short as it can be."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import nodes

from regstream import errors, spec
from regstream.functions import csv, limits, lookup, registry
from regstream.templates import sandbox
from regstream.templates.context import UNKNOWN, CompileContext, TypedExpr, constant_of, kind_of

_SUBSCRIPT = re.compile(r"\w+\['\w+'\]")
_NOON = registry.Instant.at(1_767_268_800.0)


def fault(name: str, node: nodes.Call) -> str:
    """Why a call of a vocabulary function cannot be right, as far as that shows before anything is drawn."""
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        return f"{name} takes its arguments one by one"
    function = registry.FUNCTIONS[name]
    first = [{"u": 0.5, "raw": bytes(16), "seq": 1}.get(need, _NOON) for need in function.needs]
    known = _pairs if name == "mixture" else constant_of
    given = [known(one) for one in node.args]
    named = {one.key: known(one.value) for one in node.kwargs}
    if name == "marginal":
        return _marginal_fault(node)
    try:
        bound = inspect.signature(function.call).bind(*first, *given, **named)
        _check_types(bound)
        if name in registry.TABLES:
            return _table_fault(node, bound)
        if name not in registry.ROWS and not any(one is UNKNOWN for one in bound.arguments.values()):
            function.call(*bound.args, **bound.kwargs)
    except Exception as error:
        return f"{name}: {error}"
    return ""


def _pairs(node: nodes.Expr) -> Any:
    """What is known of the pairs of a mixture, most of whose values are drawn: their weights, 1 where that is not."""
    value = constant_of(node)
    if value is not UNKNOWN or not isinstance(node, nodes.List | nodes.Tuple):
        return value
    return [_weighed(one) for one in node.items]


def _weighed(node: nodes.Expr) -> Any:
    value = constant_of(node)
    if value is UNKNOWN and isinstance(node, nodes.List | nodes.Tuple):
        value = [constant_of(one) for one in node.items]
    if value is UNKNOWN:
        return [1, None]
    return [1, *value[1:]] if isinstance(value, list) and value and value[0] is UNKNOWN else value


def marginal(node: nodes.Call) -> tuple[nodes.Expr, nodes.Expr, nodes.Call]:
    """The parts of a call of ``marginal``: the number, the name, and the call of the distribution. Raises TypeError."""
    named = {one.key: one.value for one in node.kwargs}
    bound = inspect.signature(registry.marginal).bind(*node.args, **named).arguments
    rest = [one for one in node.kwargs if one.key in bound.get("named", {})]
    inner = nodes.Call(bound["name"], list(bound.get("given", ())), rest, None, None, lineno=node.lineno)
    return bound["z"], bound["name"], inner


def _table_fault(node: nodes.Call, bound: inspect.BoundArguments) -> str:
    if not node.args:
        return "empirical: the name of the file comes first"
    if any(one is UNKNOWN for one in bound.arguments.values()):
        return "empirical: what it takes must stand there as it is, not be made by an expression"
    file, column, weight = (bound.arguments.get(name) for name in ("file", "column", "weight"))
    if not all(isinstance(one, str) for one in (file, column, "" if weight is None else weight)):
        return "empirical: files and columns are named by texts"
    if not isinstance(bound.arguments.get("smooth", False), bool):
        return "empirical: smooth is true or false"
    return ""


def column(node: nodes.Call, box: sandbox.Sandbox) -> csv.Drawn:
    """What a call of ``empirical``, in which there is no fault, draws from. Raises tables.TableError."""
    file, *given = (constant_of(one) for one in node.args)
    return box.table(file).drawn(*given, **{one.key: constant_of(one.value) for one in node.kwargs})


def missing(node: nodes.Call, box: sandbox.Sandbox) -> tuple[str, str]:
    """Message and hint when the file of a call of ``empirical`` cannot give what is asked for; empty when it can.

    Also empty when the file has a fault of its own, which is reported there.
    """
    try:
        column(node, box)
    except csv.BrokenTableError:
        return "", ""
    except csv.TableError as error:
        return f"empirical: {error.message}", error.hint
    return "", ""


def _marginal_fault(node: nodes.Call) -> str:
    try:
        z, named, inner = marginal(node)
        number, name = constant_of(z), constant_of(named)
        if number is not UNKNOWN:
            registry.share_below(number)
        if name is UNKNOWN:
            return ""
        registry.check_distribution(name)
    except (TypeError, ValueError) as error:
        return f"marginal: {error}"
    problem = fault(name, inner)
    return f"marginal: {problem}" if problem else ""


def _check_types(bound: inspect.BoundArguments) -> None:
    for name, value in bound.arguments.items():
        numeric = isinstance(value, int | float) and math.isfinite(value)
        wanted = str(bound.signature.parameters[name].annotation)
        if wanted.startswith(("float", "int")) and not numeric and value is not UNKNOWN and value is not None:
            raise TypeError(f"{name} must be a finite number, not {value!r}")


class Call:
    """One call of a vocabulary function; ``arguments`` writes the code of its arguments."""

    def __init__(
        self, site: CompileContext, node: nodes.Call, name: str, arguments: Callable[[Any], list[str]]
    ) -> None:
        self._site = site
        self._node = node
        self._name = name
        self._function = registry.FUNCTIONS[name]
        self._arguments = arguments

    def code(self) -> TypedExpr:
        """The code of the call."""
        problem = fault(self._name, self._node)
        if problem:
            return self._site.note(self._node, problem)
        if self._name in registry.ROWS:
            return self._row()
        short: Callable[[], TypedExpr | None] = getattr(self, f"_{self._name}", self._plain)
        try:
            return short() or self._plain()
        except limits.CostError as error:
            # Once is enough, not for every call that follows
            self._site.fixed.renew()
            return self._site.note(self._node, f"the calls of all templates together: {error}")

    def _draw(self) -> str:
        return f"({self._site.double()} - 1.0)"

    def _plain(self) -> TypedExpr:
        draws: dict[str, Callable[[], str]] = {"u": self._draw, "raw": self._site.raw}
        first = [draws[need]() if need in draws else need for need in self._function.needs]
        name = self._site.constant(self._called())
        return TypedExpr(f"{name}({', '.join([*first, *self._arguments(self._node)])})", self._function.gives)

    def _called(self) -> Callable[..., Any]:
        """The function, which counts what it costs unless all its arguments are known: then that is counted here."""
        price = self._function.price
        if price is None:
            return self._function.call
        given = [constant_of(one) for one in self._node.args]
        named = {one.key: constant_of(one.value) for one in self._node.kwargs}
        if any(one is UNKNOWN for one in (*given, *named.values())):
            self._site.spends = True
            return self._function.priced(self._site.box.budget)
        price(self._site.fixed, *given, **named)
        return self._function.call

    def _row(self) -> TypedExpr:
        entity = constant_of(self._node.args[0]) if self._node.args else UNKNOWN
        problem, hint = unknown_entity(entity, self._site.entities)
        if problem:
            return self._site.note(self._node, problem.replace("pick", self._name, 1), hint)
        rows, kind = self._site.pool(entity), f"row:{entity}"
        problem, hint = unknown_state(self._node, self._site.entities[entity])
        if problem:
            return self._site.note(self._node, problem, hint)
        _, *rest = self._arguments(self._node)
        if self._name == "find":
            return self._found(entity, rows, rest)
        _, exponent, *_ = self._numbers("values", "zipf", "weight", "state")
        if exponent is not None and len(rest) == 1:
            bounds = self._site.constant(lookup.ranks(self._site.entities[entity].count, exponent))
            return TypedExpr(f"{rows}[BISECT({bounds}, {self._draw()})]", kind)
        if rest:
            self._site.spends = True
            name = self._site.constant(self._function.priced(self._site.box.budget))
            return TypedExpr(f"{name}({', '.join([self._draw(), rows, *rest])})", kind)
        return TypedExpr(f"{rows}[int(len({rows}) * {self._draw()})]", kind)

    def _found(self, entity: str, rows: str, rest: list[str]) -> TypedExpr:
        found = f"{self._site.constant(lookup.find)}({', '.join([rows, *rest])})"
        if self._site.entities[entity].states or (not rest[0].isidentifier() and not _SUBSCRIPT.fullmatch(rest[0])):
            return TypedExpr(found, f"row:{entity}")
        # A key that is the text of itself needs no call
        return TypedExpr(f"({rest[0]}.__class__ is STR and {rows}.by_key.get({rest[0]}) or {found})", f"row:{entity}")

    def _digits(self) -> TypedExpr | None:
        (count,) = self._numbers("n")
        if not isinstance(count, int) or not 1 <= count <= registry.FITTING:
            return None
        text = f"f\"{{int.from_bytes({self._site.raw()}, 'little') % {10**count}:0{count}d}}\"[::-1]"
        return TypedExpr(text, "str", count)

    def _uuid(self) -> TypedExpr:
        raw = self._site.raw()
        # The variant's two bits come from a table: the byte that is cut from the text picks 8, 9, a or b
        made = 'f"{(HEX := RAW.hex())[:8]}-{HEX[8:12]}-4{HEX[13:16]}-{VARIANT[RAW[8] & 3]}{HEX[17:20]}-{HEX[20:]}"'
        return TypedExpr(made.replace("RAW", raw).replace("HEX", f"h{raw}"), "str", 36)

    def _uniform(self) -> TypedExpr | None:
        low, high = self._numbers("low", "high")
        if low is None or high is None:
            return None
        return TypedExpr(f"({low!r} + {high - low!r} * {self._draw()})", "float")

    def _randint(self) -> TypedExpr | None:
        low, high = self._numbers("low", "high")
        if not isinstance(low, int) or not isinstance(high, int):
            return None
        return TypedExpr(f"({low!r} + int({high - low + 1!r} * {self._draw()}))", "int")

    def _chance(self) -> TypedExpr | None:
        (part,) = self._numbers("p")
        return None if part is None else TypedExpr(f"({self._draw()} < {part!r})", "bool")

    def _choice(self) -> TypedExpr | None:
        values = self._constant("values")
        if not isinstance(values, list | tuple):
            return None
        name = self._site.constant(tuple(values))
        return TypedExpr(f"{name}[int({len(values)} * {self._draw()})]", kind_of(values), max(map(limits.size, values)))

    def _weighted(self) -> TypedExpr | None:
        weights = self._constant("weights")
        if not isinstance(weights, dict):
            return None
        values, bounds = registry.cumulative(weights)
        kind = "str" if all(isinstance(one, str) for one in values) else "any"
        text = f"{self._site.constant(values)}[BISECT({self._site.constant(bounds)}, {self._draw()})]"
        return TypedExpr(text, kind, max(map(limits.size, values)))

    def _empirical(self) -> TypedExpr:
        problem, hint = missing(self._node, self._site.box)
        if problem:
            return self._site.note(self._node, problem, hint)
        try:
            drawn = column(self._node, self._site.box)
        except csv.BrokenTableError:
            return TypedExpr(f"{self._site.constant(self._site.box.table)}({constant_of(self._node.args[0])!r})")
        if drawn.points:
            return TypedExpr(f"{self._site.constant(drawn.between)}({self._draw()})", "float")
        values = self._site.constant(drawn.values)
        draw = self._draw()
        place = (
            f"BISECT({self._site.constant(drawn.bounds)}, {draw})"
            if drawn.bounds
            else f"int({len(drawn.values)} * {draw})"
        )
        return TypedExpr(f"{values}[{place}]", drawn.kind, max(map(limits.size, drawn.values)))

    def _marginal(self) -> TypedExpr | None:
        z, named, inner = marginal(self._node)
        name = constant_of(named)
        return None if name is UNKNOWN else _Quantile(self._site, inner, name, self._arguments, z).code()

    def _constant(self, name: str) -> Any:
        given = [constant_of(one) for one in self._node.args]
        given += [constant_of(one.value) for one in self._node.kwargs if one.key == name]
        return given[0] if given else UNKNOWN

    def _numbers(self, *names: str) -> list[float | None]:
        given = dict(zip(names, map(constant_of, self._node.args), strict=False))
        given.update({one.key: constant_of(one.value) for one in self._node.kwargs})
        return [one if isinstance(one := given.get(name), int | float) else None for name in names]


class _Quantile(Call):
    """A call of a distribution whose draw comes from a standard normal number."""

    def __init__(
        self, site: CompileContext, node: nodes.Call, name: str, arguments: Callable[[Any], list[str]], z: nodes.Expr
    ) -> None:
        super().__init__(site, node, name, arguments)
        self._z = z

    def _draw(self) -> str:
        (z,) = self._arguments(nodes.Call(self._z, [self._z], [], None, None, lineno=self._z.lineno))
        return f"{self._site.constant(registry.share_below)}({z})"


def unknown_entity(name: Any, entities: Mapping[str, spec.EntitySpec]) -> tuple[str, str]:
    """Message and hint when ``pick`` cannot take that name, a constant or UNKNOWN; empty when it can."""
    if not isinstance(name, str):
        return "pick takes the name of an entity as text", ""
    if name not in entities:
        return f"unknown entity {name!r}", errors.did_you_mean(name, entities)
    return "", ""


def unknown_state(node: nodes.Call, entity: spec.EntitySpec) -> tuple[str, str]:
    """Message and hint when ``pick`` asks for a state that an entity does not have; empty when it may have it."""
    given = [one.value for one in node.kwargs if one.key == "state"] or node.args[3:4]
    state = constant_of(given[0]) if given else UNKNOWN
    if state is UNKNOWN or state is None or state in entity.states:
        return "", ""
    if not entity.states:
        return f"entity {entity.name!r} has no states", ""
    hint = errors.did_you_mean(str(state), entity.states) or f"there are {', '.join(entity.states)}"
    return f"entity {entity.name!r} has no state {state!r}", hint
