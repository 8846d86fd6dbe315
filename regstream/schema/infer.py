"""Templates read for what they can give: an interpretation of Jinja's expressions over shapes, beside the compiler.

The compiler writes Python for the same trees; nothing here is on its path. What is not known to this module may be
anything. Declarations are taken as checked.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import nodes

from regstream import spec
from regstream.functions import csv, registry
from regstream.schema import rules, types, values
from regstream.schema.types import ANY, BOOLEAN, NOTHING, TEXT, Array, Number, Object, Shape, Text, Time
from regstream.templates import calls, parse, sandbox
from regstream.templates.context import UNKNOWN, constant_of

Scope = Mapping[str, Shape]
_NUMERIC: Mapping[str, Callable[[Number, Number], Shape]] = {
    "Add": values.add,
    "Sub": values.subtract,
    "Mul": values.multiply,
    "Div": values.divide,
    "FloorDiv": values.floor_divide,
    "Mod": values.modulo,
    "Pow": values.power,
}
# What these give is a number when that side is one, whatever the other is; half a timedelta is none
_NUMBERS_ONLY = {"Add": (0, 1), "Sub": (0, 1), "Div": (0,)}
# Filters that take what is undefined, which no shape shows
_FORGIVING = frozenset({"attr", "d", "default", "items", "pprint"})


class Reader:
    """Gives the shape of texts; ``rows`` has that of the rows of each entity."""

    def __init__(self, templates: Mapping[str, str], rows: Mapping[str, Shape]) -> None:
        # A sandbox of its own: constants are worked out with its filters, maybe in another thread than the daemon's
        self._box = sandbox.Sandbox(templates)
        self.rows = rows
        self._trees: dict[str, nodes.Template] = {}

    def value(self, value: Any, scope: Scope) -> Shape:
        """The shape of a declared value: a template, a constant, or a mapping or list of such."""
        if isinstance(value, dict):
            return types.mapping(self.mapping(value, dict(scope)))
        if isinstance(value, list):
            made = [self.value(one, scope) for one in value]
            return Shape(parts=(Array(types.join(made), len(made), len(made)),))
        if parse.is_template(value):
            return self._text(value, scope)
        return types.constants([value]) if types.plain(value) else ANY

    def mapping(self, values: Mapping[str, Any], scope: dict[str, Shape]) -> dict[str, Shape]:
        """The shapes of declared values, each of which the later ones may name: they are added to ``scope``."""
        made = {}
        for key, value in values.items():
            made[key] = scope[key] = self.value(value, scope)
        return made

    def _text(self, source: str, scope: Scope) -> Shape:
        try:
            tree = self._tree(source)
            if not all(isinstance(node, nodes.Output) for node in tree.body):
                return TEXT
            parts = [part for node in tree.body for part in node.nodes]  # type: ignore[attr-defined]
            return self._output(parts, scope)
        except (jinja2.TemplateError, RecursionError):
            return ANY

    def _tree(self, source: str) -> nodes.Template:
        if source not in self._trees:
            self._box.renew()
            self._trees[source] = self._box.parse(source)
        return self._trees[source]

    def _output(self, parts: list[nodes.Node], scope: Scope) -> Shape:
        real = [part for part in parts if not (isinstance(part, nodes.TemplateData) and not part.data.strip())]
        reading = _Reading(self._box, self.rows, scope)
        if len(real) == 1 and not isinstance(real[0], nodes.TemplateData):
            return reading.visit(real[0])
        return values.joined([reading.visit(part) for part in parts])


class _Reading:
    """One expression, read in one scope."""

    def __init__(self, box: sandbox.Sandbox, rows: Mapping[str, Shape], scope: Scope) -> None:
        self._box = box
        self._rows = rows
        self._scope = scope

    def visit(self, node: nodes.Node) -> Shape:
        name = type(node).__name__
        if isinstance(node, nodes.BinExpr) and name in _NUMERIC:
            return self._arithmetic(node, name)
        if isinstance(node, nodes.Compare | nodes.Not | nodes.Test):
            return BOOLEAN
        method: Callable[[Any], Shape] | None = getattr(self, f"_{name.lower()}", None)
        return method(node) if method else ANY

    def _const(self, node: nodes.Const) -> Shape:
        return types.constants([node.value]) if types.plain(node.value) else ANY

    def _templatedata(self, node: nodes.TemplateData) -> Shape:
        return types.constants([node.data])

    def _name(self, node: nodes.Name) -> Shape:
        return self._scope.get(node.name, ANY)

    def _known(self, node: nodes.Expr) -> Shape | None:
        """A list or mapping of constants."""
        value = constant_of(node)
        return types.constants([value]) if value is not UNKNOWN and types.plain(value) else None

    def _list(self, node: nodes.List | nodes.Tuple) -> Shape:
        items = [self.visit(one) for one in node.items]
        return self._known(node) or Shape(parts=(Array(types.join(items), len(items), len(items)),))

    _tuple = _list

    def _dict(self, node: nodes.Dict) -> Shape:
        keys = [constant_of(pair.key) for pair in node.items]
        known = self._known(node)
        if known or not all(isinstance(key, str) for key in keys):
            return known or types.MAPPING
        return types.mapping(dict(zip(keys, (self.visit(pair.value) for pair in node.items), strict=True)))

    def _condexpr(self, node: nodes.CondExpr) -> Shape:
        return types.join([self.visit(node.expr1), self.visit(node.expr2) if node.expr2 else NOTHING])

    def _or(self, node: nodes.Or) -> Shape:
        left = self.visit(node.left)
        return types.join([Shape(tuple(filter(None, left.values)), left.parts), self.visit(node.right)])

    def _and(self, node: nodes.And) -> Shape:
        left = self.visit(node.left)
        falsy = tuple(value for value in left.values if not value)
        return types.join([Shape(falsy, left.parts), self.visit(node.right)])

    def _neg(self, node: nodes.Neg) -> Shape:
        return self._signed(node, values.negate)

    def _pos(self, node: nodes.Pos) -> Shape:
        return self._signed(node, lambda span: values.shape(span.low, span.high, span.whole))

    def _signed(self, node: nodes.UnaryExpr, apply: Callable[[Number], Shape]) -> Shape:
        inner = self.visit(node.node)
        span = values.numeric_span(inner)
        return apply(span) if span else NOTHING if inner.is_empty else ANY

    def _concat(self, node: nodes.Concat) -> Shape:
        return values.joined([self.visit(one) for one in node.nodes])

    def _arithmetic(self, node: nodes.BinExpr, name: str) -> Shape:
        if name == "Mod" and isinstance(node.left, nodes.Const) and isinstance(node.left.value, str):
            return self._format(node.left.value, node.right)
        left, right = self.visit(node.left), self.visit(node.right)
        if left.is_empty or right.is_empty:
            return NOTHING
        spans = values.numeric_span(left), values.numeric_span(right)
        if spans[0] and spans[1]:
            return _NUMERIC[name](spans[0], spans[1])
        if any(spans[side] for side in _NUMBERS_ONLY.get(name, ())):
            return types.NUMBER
        return _sum(left, right) if name == "Add" else ANY

    def _format(self, source: str, right: nodes.Expr) -> Shape:
        if isinstance(right, nodes.Tuple):
            return values.formatted(source, [self.visit(one) for one in right.items])
        value = self.visit(right)
        return values.formatted(source, [value]) if value.only(Number, Text) else TEXT

    def _getattr(self, node: nodes.Getattr) -> Shape:
        owner = self.visit(node.node)
        if owner.is_empty:
            return NOTHING
        if owner.only(Time):
            return rules.time_part(node.attr)
        return self._member(owner, types.constants([node.attr]), self._box.getattr)

    def _getitem(self, node: nodes.Getitem) -> Shape:
        owner = self.visit(node.node)
        if owner.is_empty:
            return NOTHING
        if isinstance(node.arg, nodes.Slice):
            if owner.only(Array):
                return Shape(parts=(Array(rules.elements(owner)),))
            return TEXT if owner.only(Text, Time) else ANY
        return self._member(owner, self.visit(node.arg), self._box.getitem)

    def _member(self, owner: Shape, key: Shape, get: Callable[[Any, Any], Any]) -> Shape:
        if key.is_empty:
            return NOTHING
        if not key.parts and not owner.parts:
            return self._worked_out(get, owner.values, key.values)
        if owner.only(Object) and not key.parts:
            return types.join(_member_of(owner, name) for name in key.values)
        span = values.numeric_span(key)
        return _indexed(owner, span) if span and owner.only(Array, Text) else ANY

    def _worked_out(self, apply: Callable[..., Any], *arguments: tuple[Any, ...]) -> Shape:
        """What a function gives for all constants; anything if one of them fails, nothing for what is undefined."""
        if math.prod(map(len, arguments)) > types.MOST or not all(arguments):
            return ANY
        self._box.renew()
        try:
            made = [apply(*one) for one in itertools.product(*arguments)]
        except Exception:
            # Whatever a template can raise: it is then for the event to fail
            return ANY
        made = [one for one in made if not isinstance(one, jinja2.Undefined)]
        return types.constants(made) if types.plain(made) else ANY

    def _filter(self, node: nodes.Filter) -> Shape:
        if node.node is None:
            return ANY
        if node.name in {"min", "max"} and isinstance(node.node, nodes.List) and not (node.args or node.kwargs):
            return self._extreme(node.name, [self.visit(one) for one in node.node.items])
        inner = self.visit(node.node)
        made = self._filtered(node, inner)
        if made is not ANY or (inner.is_empty and node.name not in _FORGIVING):
            return NOTHING if inner.is_empty else made
        by_place = not node.kwargs and node.dyn_args is None and node.dyn_kwargs is None
        arguments = [self.visit(one) for one in node.args] if by_place else [ANY]
        places = constant_of(node.args[0]) if node.args else 0
        known = by_place and len(node.args) < 2 and isinstance(places, int)
        return rules.filter_result(node.name, inner, arguments, places if known else None)

    def _filtered(self, node: nodes.Filter, inner: Shape) -> Shape:
        if inner.parts or node.name in _FORGIVING:
            return ANY

        def apply(value: Any) -> Any:
            given = (nodes.Const(value), node.name, node.args, node.kwargs, node.dyn_args, node.dyn_kwargs)
            return nodes.Filter(*given, lineno=node.lineno, environment=self._box).as_const()

        return self._worked_out(apply, inner.values)

    def _extreme(self, name: str, items: list[Shape]) -> Shape:
        if any(one.is_empty for one in items):
            return NOTHING
        spans = [values.numeric_span(one, booleans=False) for one in items]
        known = [one for one in spans if one is not None]
        return values.extreme(name, known) if known and len(known) == len(spans) else types.join(items)

    def _call(self, node: nodes.Call) -> Shape:
        if isinstance(node.node, nodes.Getattr):
            return rules.method(self.visit(node.node.node), node.node.attr)
        name = node.node.name if isinstance(node.node, nodes.Name) else ""
        by_place = node.dyn_args is None and node.dyn_kwargs is None
        if name in registry.FUNCTIONS and by_place:
            return self._vocabulary(name, node)
        if name == "range" and by_place:
            return rules.ranged([self.visit(one) for one in node.args])
        if name == "dict" and by_place and not node.args:
            return types.mapping({one.key: self.visit(one.value) for one in node.kwargs})
        return ANY

    def _vocabulary(self, name: str, node: nodes.Call) -> Shape:
        if name == "marginal":
            return self._marginal(node)
        if name in registry.TABLES:
            return self._column(node)
        if name == "mixture" and node.args and isinstance(node.args[0], nodes.List | nodes.Tuple):
            return self._mixture(node.args[0].items)
        given = dict(self._bound(name, node))
        if any(one.is_empty for one in given.values()):
            return NOTHING
        if name in registry.ROWS:
            entity = given["values"].values
            return self._rows.get(entity[0], ANY) if len(entity) == 1 else ANY
        return rules.function_result(name, given)

    def _marginal(self, node: nodes.Call) -> Shape:
        z, named, inner = calls.marginal(node)
        name, number = constant_of(named), self.visit(z)
        if name in registry.DISTRIBUTIONS and not number.is_empty:
            return self._vocabulary(name, inner)
        return (
            rules.function_result("marginal", {"z": number, "name": self.visit(named)})
            if not number.is_empty
            else NOTHING
        )

    def _mixture(self, pairs: list[nodes.Expr]) -> Shape:
        if not all(isinstance(one, nodes.List | nodes.Tuple) and len(one.items) == 2 for one in pairs):
            return ANY
        parts = [one.items for one in pairs if isinstance(one, nodes.List | nodes.Tuple)]
        return types.join(self.visit(value) for weight, value in parts if constant_of(weight) != 0)

    def _column(self, node: nodes.Call) -> Shape:
        try:
            column = calls.column(node, self._box)
        except csv.TableError:
            return NOTHING
        return rules.drawn(column.values, bool(column.points))

    def _bound(self, name: str, node: nodes.Call) -> Iterator[tuple[str, Shape]]:
        function = registry.FUNCTIONS[name]
        signature = inspect.signature(function.call)
        named = {one.key: one.value for one in node.kwargs}
        bound = signature.bind(*function.needs, *node.args, **named).arguments
        for one in list(signature.parameters.values())[len(function.needs) :]:
            yield one.name, self.visit(bound[one.name]) if one.name in bound else types.constants([one.default])


def _sum(left: Shape, right: Shape) -> Shape:
    """Texts or lists put together."""
    if left.only(Text, Time) and right.only(Text, Time):
        return values.joined([left, right])
    if not (left.only(Array) and right.only(Array)):
        return ANY
    if not (left.parts or right.parts) and len(left.values) * len(right.values) <= types.MOST:
        return types.constants([*one, *other] for one, other in itertools.product(left.values, right.values))
    sides = [_array(left), _array(right)]
    most = [side.most for side in sides if side.most is not None]
    items = types.join(side.items for side in sides)
    return Shape(
        parts=(Array(items, sum(side.least for side in sides), sum(most) if len(most) == len(sides) else None),)
    )


def _array(one: Shape) -> Array:
    every = [part for part in (*one.parts, *map(types.part_of, one.values)) if isinstance(part, Array)]
    most = None if any(part.most is None for part in every) else max((part.most or 0 for part in every), default=0)
    return Array(rules.elements(one), min((part.least for part in every), default=0), most)


def _member_of(owner: Shape, name: Any) -> Shape:
    parts = [part for part in (*owner.parts, *map(types.part_of, owner.values)) if isinstance(part, Object)]
    return types.join(part.fields[name] if name in part.required else ANY for part in parts)


def _indexed(owner: Shape, key: Number) -> Shape:
    if owner.only(Array) and not owner.parts and key.low >= 0 and math.isfinite(key.high):
        return types.join(types.constants(one[int(key.low) : int(key.high) + 1]) for one in owner.values)
    return rules.elements(owner)


Rows = dict[str, dict[str, Shape]]
_EXACT_ROUNDS, _LOOSE_ROUNDS = 4, 12


class Declared:
    """The shapes of one catalog; reading them waits for nothing and takes about a millisecond a stream."""

    def __init__(self, catalog: spec.Catalog) -> None:
        self._catalog = catalog
        self._overlays = _overlays(catalog)
        self._rows: Rows = {name: dict.fromkeys(spec.names, NOTHING) for name, spec in catalog.entities.items()}
        self._reader = Reader(catalog.templates, {})
        self._settle()

    def data(self, name: str) -> Shape:
        """The shape of a stream's ``data``. Raises KeyError for a name that is none."""
        return self._data(self._catalog.streams[name], self._scope(self._catalog.streams[name]))

    def key(self, name: str) -> Shape:
        """The shape of the keys that a stream's events have, null among them. Raises KeyError."""
        stream = self._catalog.streams[name]
        scope = self._scope(stream)
        self._data(stream, scope)
        made = self._reader.value(stream.key, scope) if stream.key else types.constants([None])
        known = Shape(tuple(one for one in made.values if one is not None), made.parts)
        without = types.constants([None]) if known != made or made == ANY else NOTHING
        return types.join((values.joined([known]), without))

    def _settle(self) -> None:
        turn, changing = 0, True
        while changing:
            self._reader.rows = {name: types.mapping(row, entity=name) for name, row in self._rows.items()}
            grown = [self._grow(entity, field, one, turn) for entity, field, one in self._changes()]
            changing = any(grown)
            turn += 1

    def _grow(self, entity: str, field: str, one: Shape, turn: int) -> bool:
        """Take up what a field can be too; false when that is nothing new."""
        before = self._rows[entity][field]
        after = types.join((before, one))
        if repr(after) == repr(before):
            return False
        if turn >= _EXACT_ROUNDS:
            after = ANY if turn >= _LOOSE_ROUNDS else types.widened(after)
        self._rows[entity][field] = after
        return True

    def _changes(self) -> Iterable[tuple[str, str, Shape]]:
        for entity in self._catalog.entities.values():
            for field, one in self._made(entity).items():
                yield entity.name, field, one
        for stream in self._catalog.streams.values():
            if stream.update:
                yield from self._updates(stream)

    def _made(self, entity: spec.EntitySpec) -> Mapping[str, Shape]:
        # Where rows come and go their numbers go on
        index = types.COUNT if entity.states else values.shape(0, entity.count - 1, whole=True)
        seq = values.shape(1, types.INFINITY if entity.states else entity.count, whole=True)
        made = self._reader.mapping(entity.fields, _builtins(entity.name, index, seq))
        return {**made, "state": types.constants(entity.states), "since": types.TIME} if entity.states else made

    def _updates(self, stream: spec.StreamSpec) -> Iterable[tuple[str, str, Shape]]:
        scope = self._scope(stream)
        bound = {name: scope[name] for name in (*stream.with_, *(("row",) if stream.follow else ()))}
        self._data(stream, scope)
        for target, value in stream.update.items():
            name, _, field = target.partition(".")
            made = self._reader.value(value, scope)
            for entity in self._owners(bound[name]):
                if field in self._rows[entity]:
                    yield entity, field, made

    def _owners(self, row: Shape) -> Iterable[str]:
        """The entities that a row may be one of: all of them where it is not known of which it is."""
        known = [part.entity for part in row.parts if isinstance(part, Object) and part.entity]
        return known or self._rows

    def _scope(self, stream: spec.StreamSpec) -> dict[str, Shape]:
        scope = _builtins(stream.name, types.COUNT, values.shape(1, types.INFINITY, whole=True))
        followed = self._catalog.entities.get(stream.follow or "")
        if followed is not None:
            scope["row"] = self._reader.rows[followed.name]
            scope["state"] = types.constants(followed.states)
            scope["was"] = types.constants([None, *followed.states])
        for name, value in stream.with_.items():
            scope[name] = self._reader.value(value, scope)
        return scope

    def _data(self, stream: spec.StreamSpec, scope: dict[str, Shape]) -> Shape:
        """The shape of ``data``, whatever overlays are in force; its fields are added to ``scope``."""
        declared = stream.fields or {}
        overlays = self._overlays.get(stream.name, [])
        if stream.template is not None:
            scope["data"] = ANY
        names = dict.fromkeys([*declared, *(name for one in overlays for name in one)])
        fields = {name: self._field(name, declared, overlays, scope) for name in names}
        found = Object(fields, frozenset(declared), is_open=stream.template is not None)
        return Shape(parts=(found,))

    def _field(
        self, name: str, declared: Mapping[str, Any], overlays: list[Mapping[str, Any]], scope: dict[str, Shape]
    ) -> Shape:
        every = [one[name] for one in (declared, *overlays) if name in one]
        made = types.join(self._reader.value(one, scope) for one in every)
        # Where no overlay brings it the name stands for what it stood for before
        scope[name] = made if name in declared else types.join((made, scope.get(name, NOTHING)))
        return made


def _builtins(stream: str, index: Shape, seq: Shape) -> dict[str, Shape]:
    return {"now": types.TIME, "seq": seq, "index": index, "stream": types.constants([stream])}


def _overlays(catalog: spec.Catalog) -> dict[str, list[Mapping[str, Any]]]:
    """By stream, the fields that a scenario may lay over it."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for scenario in catalog.scenarios.values():
        for step in spec.walk(scenario.steps):
            one = getattr(step, "burst", None) or getattr(step, "set", None)
            if one is not None and one.fields:
                found.setdefault(one.stream, []).append(one.fields)
    return found
