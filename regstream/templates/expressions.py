"""Jinja expressions as Python source.

Jinja's parser reads a template; this module writes each expression as a Python expression over local variables, with
vocabulary calls on draws that are allotted beforehand. What a type is known of is written plainly; what is not goes
through the guards of ``sandbox``. Texts with statements stay Jinja's: they become one call that renders them.
"""

from __future__ import annotations

import datetime
import keyword
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import nodes

from regstream import errors
from regstream.functions import limits, registry
from regstream.templates import calls, sandbox
from regstream.templates.context import NUMBERS, UNKNOWN, CompileContext, TypedExpr, constant_of, kind_of, total

_DATE_PARTS = frozenset({"year", "month", "day", "hour", "minute", "second", "microsecond"})
_FILTER_KINDS = {"upper": "str", "lower": "str", "string": "str", "int": "int"}
_DIRECT = {("list", "int"), ("dict", "str"), ("dict", "int")}
_EXACT_TENS = 22
"""Up to here a power of ten is a double to the last digit."""
_SHIFT = 1.5 * 2.0**52
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "lteq": "<=", "gt": ">", "gteq": ">=", "in": "in", "notin": "not in"}
_FREE = 64
"""So many operands of comparisons may be large before their sizes count: together they take a few milliseconds."""


class Translator:
    """Writes expressions for one site and scope."""

    def __init__(self, site: CompileContext, scope: Mapping[str, TypedExpr]) -> None:
        self._site = site
        self._scope = scope

    def visit(self, node: nodes.Node) -> TypedExpr:
        """The Python for a node; a fault is noted at the site."""
        method: Callable[[Any], TypedExpr] | None = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            return self._site.note(node, f"{type(node).__name__} cannot be used here")
        return method(node)

    def _const(self, node: nodes.Const) -> TypedExpr:
        value = node.value
        if isinstance(value, float) and not math.isfinite(value):
            return self._site.note(node, "a number as large as this cannot be written")
        kind = "none" if value is None else type(value).__name__
        return TypedExpr(repr(value), kind, limits.size(value))

    def _templatedata(self, node: nodes.TemplateData) -> TypedExpr:
        return TypedExpr(repr(node.data), "str", len(node.data))

    def _name(self, node: nodes.Name) -> TypedExpr:
        found = self._scope.get(node.name)
        if found is not None:
            return found
        if node.name in registry.FUNCTIONS or node.name in sandbox.GLOBALS:
            return self._site.note(node, f"{node.name} is a function", f"write {node.name}(…)")
        return self._unknown(node)

    def _unknown(self, node: nodes.Name) -> TypedExpr:
        known = {*self._scope, *registry.FUNCTIONS, "range", "dict"}
        hint = self._site.undefined(node.name, known)
        if node.name == "namespace":
            hint = "a namespace works between {% and %}"
        return self._site.note(node, f"{node.name!r} is undefined", hint)

    def _hoist(self, node: nodes.Expr, kind: str) -> TypedExpr | None:
        """A list or mapping of constants as one global of the program."""
        value = constant_of(node)
        return None if value is UNKNOWN else TypedExpr(self._site.constant(value), kind, limits.size(value))

    def _list(self, node: nodes.List) -> TypedExpr:
        return self._hoist(node, "list") or self._display("[", self._visited(node.items), "]", "list")

    def _tuple(self, node: nodes.Tuple) -> TypedExpr:
        return self._hoist(node, "list") or self._display("(", self._visited(node.items), ",)", "list")

    def _dict(self, node: nodes.Dict) -> TypedExpr:
        return self._hoist(node, "dict") or self._display("{", self._visited(node.items), "}", "dict")

    def _pair(self, node: nodes.Pair) -> TypedExpr:
        key, value = self.visit(node.key), self.visit(node.value)
        return TypedExpr(f"{key.text}: {value.text}", "any", total((key, value)))

    def _visited(self, items: Iterable[nodes.Node]) -> list[TypedExpr]:
        return [self.visit(item) for item in items]

    def _display(self, opening: str, codes: list[TypedExpr], closing: str, kind: str) -> TypedExpr:
        text = f"{opening}{', '.join(code.text for code in codes)}{closing}"
        return self._site.fitting(TypedExpr(text, kind, total(codes)))

    def _condexpr(self, node: nodes.CondExpr) -> TypedExpr:
        yes, test = self.visit(node.expr1), self.visit(node.test)
        no = (
            self.visit(node.expr2)
            if node.expr2
            else TypedExpr("UNDEFINED('the condition is false and there is no else')")
        )
        return TypedExpr(f"({yes.text} if {test.text} else {no.text})", _either(yes, no), max(yes.extent, no.extent))

    def _and(self, node: nodes.And) -> TypedExpr:
        return self._logic("and", node)

    def _or(self, node: nodes.Or) -> TypedExpr:
        return self._logic("or", node)

    def _logic(self, word: str, node: Any) -> TypedExpr:
        left, right = self.visit(node.left), self.visit(node.right)
        return TypedExpr(f"({left.text} {word} {right.text})", _either(left, right), max(left.extent, right.extent))

    def _not(self, node: nodes.Not) -> TypedExpr:
        return TypedExpr(f"(not {self.visit(node.node).text})", "bool")

    def _neg(self, node: nodes.Neg) -> TypedExpr:
        inner = self.visit(node.node)
        return TypedExpr(f"(-{inner.text})", "int" if inner.kind == "bool" else inner.kind)

    def _pos(self, node: nodes.Pos) -> TypedExpr:
        inner = self.visit(node.node)
        return TypedExpr(f"(+{inner.text})", "int" if inner.kind == "bool" else inner.kind)

    def _compare(self, node: nodes.Compare) -> TypedExpr:
        parts = [self._weighed(self.visit(node.expr))]
        parts += [f"{_COMPARE[part.op]} {self._weighed(self.visit(part.expr))}" for part in node.ops]
        return TypedExpr(f"({' '.join(parts)})", "bool")

    def _weighed(self, code: TypedExpr) -> str:
        """An operand, whose size is counted when it may be large and the program has many of these."""
        if code.extent <= limits.SMALL:
            return code.text
        self._site.compared += 1
        if self._site.compared <= _FREE:
            return code.text
        self._site.spends = True
        return f"WEIGHED({code.text})"

    def _concat(self, node: nodes.Concat) -> TypedExpr:
        return TypedExpr(f"JOINED(({', '.join(self.visit(one).text for one in node.nodes)},))", "str")

    def _add(self, node: nodes.Add) -> TypedExpr:
        return self._arithmetic(node, "+", "PLUS")

    def _sub(self, node: nodes.Sub) -> TypedExpr:
        return self._arithmetic(node, "-")

    def _mul(self, node: nodes.Mul) -> TypedExpr:
        return self._arithmetic(node, "*", "TIMES")

    def _div(self, node: nodes.Div) -> TypedExpr:
        return self._arithmetic(node, "/", result="float")

    def _floordiv(self, node: nodes.FloorDiv) -> TypedExpr:
        return self._arithmetic(node, "//")

    def _pow(self, node: nodes.Pow) -> TypedExpr:
        left, right = self.visit(node.left), self.visit(node.right)
        return TypedExpr(f"POWER({left.text}, {right.text})", "float" if "float" in (left.kind, right.kind) else "any")

    def _mod(self, node: nodes.Mod) -> TypedExpr:
        left, right = self.visit(node.left), self.visit(node.right)
        if left.kind in NUMBERS:
            return TypedExpr(f"({left.text} % {right.text})", _number(left, right))
        if not isinstance(node.left, nodes.Const) or not isinstance(node.left.value, str):
            return TypedExpr(f"MODULO({left.text}, {right.text})")
        try:
            size = limits.check_percent(node.left.value, right.extent)
        except limits.CostError as error:
            return self._site.note(node, str(error))
        return TypedExpr(f"({left.text} % {right.text})", "str", size)

    def _arithmetic(self, node: Any, sign: str, guard: str = "", result: str = "") -> TypedExpr:
        left, right = self.visit(node.left), self.visit(node.right)
        # A float on either side leaves no operation that could make a huge value, it can only raise TypeError
        plain = not guard or "float" in (left.kind, right.kind) or {left.kind, right.kind} <= NUMBERS
        if sign == "*" and "float" not in (left.kind, right.kind):
            plain = plain and (_small(node.left) or _small(node.right))
        kind = result or _number(left, right)
        if plain:
            return TypedExpr(f"({left.text} {sign} {right.text})", kind)
        return TypedExpr(f"{guard}({left.text}, {right.text})", kind)

    def _getattr(self, node: nodes.Getattr) -> TypedExpr:
        owner = self.visit(node.node)
        if node.attr.startswith("_"):
            return self._private(node, node.attr)
        if owner.kind == "now":
            return self._time(node, owner)
        if owner.kind.startswith("row:"):
            return self._member(node, owner, node.attr)
        self._site.spends = True
        return TypedExpr(f"ATTR({owner.text}, {node.attr!r})", "any", max(owner.extent, limits.LIMIT))

    def _private(self, node: nodes.Node, name: str) -> TypedExpr:
        return self._site.note(node, f"{name!r} is not allowed in a template", "private names are out of reach")

    def _time(self, node: nodes.Getattr, owner: TypedExpr) -> TypedExpr:
        named = (name for name in dir(registry.Instant) if not name.startswith("_"))
        known = [name for name in named if not sandbox.out_of_reach(datetime.datetime, name)]
        if node.attr not in known:
            hint = errors.did_you_mean(node.attr, known)
            return self._site.note(node, f"a time has no {node.attr!r} here", hint)
        if node.attr in _DATE_PARTS:
            return TypedExpr(f"{owner.text}.{node.attr}", "int")
        self._site.spends = True
        return TypedExpr(f"ATTR({owner.text}, {node.attr!r})")

    def _member(self, node: nodes.Node, owner: TypedExpr, name: str) -> TypedExpr:
        entity = self._site.entities[owner.kind[4:]]
        if name not in entity.names:
            hint = errors.did_you_mean(name, entity.names)
            return self._site.note(node, f"entity {entity.name!r} has no field {name!r}", hint)
        return TypedExpr(f"{owner.text}[{name!r}]")

    def _getitem(self, node: nodes.Getitem) -> TypedExpr:
        owner, key = self.visit(node.node), self.visit(node.arg)
        name = constant_of(node.arg)
        if isinstance(name, str) and name.startswith("_"):
            return self._private(node, name)
        if isinstance(name, str) and owner.kind.startswith("row:"):
            return self._member(node, owner, name)
        size = max(owner.extent, limits.LIMIT)
        if (owner.kind, key.kind) in _DIRECT and owner.text.isidentifier():
            return TypedExpr(self._looked_up(owner, key), self._kind_within(owner), size)
        self._site.spends = True
        return TypedExpr(f"ITEM({owner.text}, {key.text})", "any", size)

    def _kind_within(self, owner: TypedExpr) -> str:
        """What all the values of a constant table are."""
        table = self._site.constants.get(owner.text)
        return kind_of(table.values() if isinstance(table, dict) else table or ())

    def _looked_up(self, owner: TypedExpr, key: TypedExpr) -> str:
        # What is not there may still be an attribute, and is undefined otherwise: the guard knows
        self._site.spends = True
        name = self._site.temporary()
        there = f"({name} := {key.text}) in {owner.text}"
        if owner.kind == "list":
            there = f"-len({owner.text}) <= ({name} := {key.text}) < len({owner.text})"
        return f"({owner.text}[{name}] if {there} else ITEM({owner.text}, {name}))"

    def _slice(self, node: nodes.Slice) -> TypedExpr:
        parts = (self.visit(one).text if one else "None" for one in (node.start, node.stop, node.step))
        return TypedExpr(f"slice({', '.join(parts)})")

    def _filter(self, node: nodes.Filter) -> TypedExpr:
        if node.node is None:
            return self._site.note(node, "a filter needs a value before it")
        problem = unknown_filter(node, self._site.box)
        if problem:
            self.visit(node.node)
            return self._site.note(node, *problem)
        if node.name in {"min", "max"} and isinstance(node.node, nodes.List) and not (node.args or node.kwargs):
            return self._extreme(node, node.node.items)
        inner = self.visit(node.node)
        short: Callable[[nodes.Filter, TypedExpr], TypedExpr | None] | None = getattr(
            self, f"_{node.name}_filter", None
        )
        made = short(node, inner) if short and not node.kwargs and node.dyn_args is None else None
        return made or self._applied(node, inner, "filters", _FILTER_KINDS)

    def _round_filter(self, node: nodes.Filter, inner: TypedExpr) -> TypedExpr | None:
        if len(node.args) > 1 or inner.kind not in NUMBERS | {"any"}:
            return None
        places = constant_of(node.args[0]) if node.args else 0
        kind = inner.kind if inner.kind in NUMBERS else "any"
        if isinstance(places, int) and abs(places) <= _EXACT_TENS and inner.kind != "int":
            return TypedExpr(self._rounded(inner.text, places), kind)
        if isinstance(places, int) and abs(places) <= limits.MAX_PLACES:
            return TypedExpr(f"round({inner.text}, {places})", kind)
        return TypedExpr(f"ROUNDED({inner.text}, {self.visit(node.args[0]).text})", kind)

    def _rounded(self, text: str, places: int) -> str:
        """What ``round(value, places)`` gives, which goes over the digits, but nearly always in a third of its time.

        A product or quotient below 10**12 is off by less than 2**-13, so the whole number that is nearest to it is the
        digits' too unless a half is about as near. Where it is not, dividing rounds last, and of two exact numbers.
        Adding and taking off 1.5 * 2**52 leaves a whole number (IEEE 754, rounding to nearest). A zero keeps its sign.
        """
        value, scaled, whole = (self._site.temporary() for _ in range(3))
        up, down = ("*", "/") if places >= 0 else ("/", "*")
        power = 10.0 ** abs(places)
        return (
            f"({whole} {down} {power} if ({value} := {text}).__class__ is FLOAT"
            f" and -1e12 < ({scaled} := {value} {up} {power}) < 1e12"
            f" and -0.499 < {scaled} - ({whole} := {scaled} + {_SHIFT} - {_SHIFT}) < 0.499 and {whole}"
            f" else round({value}, {places}))"
        )

    def _int_filter(self, node: nodes.Filter, inner: TypedExpr) -> TypedExpr | None:
        return None if node.args or inner.kind not in NUMBERS else TypedExpr(f"int({inner.text})", "int")

    def _extreme(self, node: nodes.Filter, items: list[nodes.Expr]) -> TypedExpr:
        """The least or greatest of values that are written out, which are numbers as a rule."""
        codes = self._visited(items)
        kinds = {code.kind for code in codes}
        if len(codes) < 2 or not kinds <= NUMBERS:
            return self._applied(node, self._display("[", codes, "]", "list"), "filters", {})
        kind = kinds.pop() if len(kinds) == 1 else "number"
        sign, found = {"min": ">", "max": "<"}[node.name], codes[0].text
        for code in codes[1:]:
            # As the functions do it: the first stays unless the second is less, or greater
            one, other = self._site.temporary(), self._site.temporary()
            found = f"({other} if ({one} := {found}) {sign} ({other} := {code.text}) else {one})"
        return TypedExpr(found, kind)

    def _test(self, node: nodes.Test) -> TypedExpr:
        inner = self.visit(node.node)
        problem = unknown_filter(node, self._site.box)
        if problem:
            return self._site.note(node, *problem)
        return self._applied(node, inner, "tests", {})._replace(kind="bool")

    def _applied(self, node: Any, inner: TypedExpr, table: str, kinds: Mapping[str, str]) -> TypedExpr:
        function = getattr(self._site.box, table)[node.name]
        name = self._site.constant(self._site.box.prepared(function))
        self._site.spends = True
        arguments = [inner.text, *self._arguments(node)]
        return TypedExpr(f"{name}({', '.join(arguments)})", kinds.get(node.name, "any"))

    def _arguments(self, node: Any) -> list[str]:
        made = [self.visit(one).text for one in node.args]
        for one in node.kwargs:
            value = self.visit(one.value).text
            made.append(f"**{{{one.key!r}: {value}}}" if keyword.iskeyword(one.key) else f"{one.key}={value}")
        if node.dyn_args is not None:
            made.append(f"*{self.visit(node.dyn_args).text}")
        if node.dyn_kwargs is not None:
            made.append(f"**{self.visit(node.dyn_kwargs).text}")
        return made

    def _call(self, node: nodes.Call) -> TypedExpr:
        if isinstance(node.node, nodes.Name):
            name = node.node.name
            if name in registry.FUNCTIONS:
                return calls.Call(self._site, node, name, self._arguments).code()
            if name == "range":
                return TypedExpr(f"RANGE({', '.join(self._arguments(node))})", "any")
            if name == "dict":
                return TypedExpr(f"BOUNDED(dict({', '.join(self._arguments(node))}))", "dict")
            if name not in self._scope:
                return self._unknown(node.node)
        target = self.visit(node.node)
        self._site.spends = True
        if target.text.startswith(("ATTR(", "ITEM(")):
            # What is called may be a function, what is shown may not
            target = target._replace(text=f"METHOD_{target.text}")
        return TypedExpr(f"CALL({', '.join([target.text, *self._arguments(node)])})")


def unknown_filter(node: nodes.Filter | nodes.Test, box: sandbox.Sandbox) -> tuple[str, str] | None:
    """Message and hint when a filter or test does not exist or asks for a private name."""
    what, known = ("filter", box.filters) if isinstance(node, nodes.Filter) else ("test", box.tests)
    if node.name not in known:
        hint = "it is not reproducible, use choice(…)" if node.name in sandbox.BLOCKED_FILTERS else ""
        return f"no {what} named {node.name!r}", hint or errors.did_you_mean(node.name, known)
    if node.name == "attr" and node.args and str(constant_of(node.args[0])).startswith("_"):
        return f"{constant_of(node.args[0])!r} is not allowed in a template", "private names are out of reach"
    return None


def _either(left: TypedExpr, right: TypedExpr) -> str:
    if left.kind == right.kind:
        return left.kind
    return "number" if {left.kind, right.kind} <= NUMBERS else "any"


def _number(left: TypedExpr, right: TypedExpr) -> str:
    if "float" in (left.kind, right.kind):
        return "float"
    if {left.kind, right.kind} <= {"int", "bool"}:
        return "int"
    return "number" if {left.kind, right.kind} <= NUMBERS else "any"


def _small(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and isinstance(node.value, int | float) and abs(node.value) < 2**53
