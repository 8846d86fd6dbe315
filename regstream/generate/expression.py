"""Jinja expressions as Python source.

Jinja's parser reads a template; this module writes each expression as a Python expression over local variables, with
vocabulary calls on draws that are allotted beforehand. What a type is known of is written plainly; what is not goes
through the guards of ``sandbox``. Texts with statements stay Jinja's: they become one call that renders them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import nodes

from regstream import errors
from regstream.generate import calls, sandbox, vocabulary
from regstream.generate.site import NUMBERS, Code, Site

_DATE_PARTS = frozenset({"year", "month", "day", "hour", "minute", "second", "microsecond"})
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "lteq": "<=", "gt": ">", "gteq": ">=", "in": "in", "notin": "not in"}


class Translator:
    """Writes expressions for one site and scope."""

    def __init__(self, site: Site, scope: Mapping[str, Code]) -> None:
        self._site = site
        self._scope = scope

    def visit(self, node: nodes.Node) -> Code:
        """The Python for a node; a fault is noted at the site."""
        method: Callable[[Any], Code] | None = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            return self._site.note(node, f"{type(node).__name__} cannot be used here")
        return method(node)

    def _const(self, node: nodes.Const) -> Code:
        value = node.value
        if isinstance(value, float) and not math.isfinite(value):
            return Code(self._site.constant(value), "float")
        kind = "none" if value is None else type(value).__name__
        return Code(repr(value), kind if kind in {"none", "int", "float", "bool", "str"} else "any")

    def _templatedata(self, node: nodes.TemplateData) -> Code:
        return Code(repr(node.data), "str")

    def _name(self, node: nodes.Name) -> Code:
        found = self._scope.get(node.name)
        if found is not None:
            return found
        if node.name in vocabulary.FUNCTIONS or node.name in sandbox.GLOBALS:
            return self._site.note(node, f"{node.name} is a function", f"write {node.name}(…)")
        return self.unknown(node)

    def unknown(self, node: nodes.Node, name: str | None = None) -> Code:
        """Note that a name is not defined."""
        name = name or str(getattr(node, "name", ""))
        known = {*self._scope, *vocabulary.FUNCTIONS, *sandbox.GLOBALS}
        return self._site.note(node, f"{name!r} is undefined", errors.did_you_mean(name, known))

    def _hoist(self, node: nodes.Expr, kind: str) -> Code | None:
        """A list or mapping of constants as one global of the program."""
        try:
            value = node.as_const()
        except nodes.Impossible:
            return None
        return Code(self._site.constant(value), kind)

    def _list(self, node: nodes.List) -> Code:
        return self._hoist(node, "list") or Code(f"[{self._row(node.items)}]", "list")

    def _tuple(self, node: nodes.Tuple) -> Code:
        return self._hoist(node, "list") or Code(f"({self._row(node.items)},)", "list")

    def _dict(self, node: nodes.Dict) -> Code:
        return self._hoist(node, "dict") or Code(f"{{{self._row(node.items)}}}", "dict")

    def _pair(self, node: nodes.Pair) -> Code:
        return Code(f"{self.visit(node.key).text}: {self.visit(node.value).text}")

    def _row(self, items: list[Any]) -> str:
        return ", ".join(self.visit(item).text for item in items)

    def _condexpr(self, node: nodes.CondExpr) -> Code:
        yes, test = self.visit(node.expr1), self.visit(node.test)
        no = self.visit(node.expr2) if node.expr2 else Code("UNDEFINED()", "any")
        both = yes.kind if yes.kind == no.kind else "float" if {yes.kind, no.kind} <= NUMBERS else "any"
        return Code(f"({yes.text} if {test.text} else {no.text})", both)

    def _and(self, node: nodes.And) -> Code:
        return self._logic("and", node)

    def _or(self, node: nodes.Or) -> Code:
        return self._logic("or", node)

    def _logic(self, word: str, node: Any) -> Code:
        left, right = self.visit(node.left), self.visit(node.right)
        return Code(f"({left.text} {word} {right.text})", left.kind if left.kind == right.kind else "any")

    def _not(self, node: nodes.Not) -> Code:
        return Code(f"(not {self.visit(node.node).text})", "bool")

    def _neg(self, node: nodes.Neg) -> Code:
        inner = self.visit(node.node)
        return Code(f"(-{inner.text})", inner.kind)

    def _pos(self, node: nodes.Pos) -> Code:
        inner = self.visit(node.node)
        return Code(f"(+{inner.text})", inner.kind)

    def _compare(self, node: nodes.Compare) -> Code:
        parts = [self.visit(node.expr).text]
        parts += [f"{_COMPARE[one.op]} {self.visit(one.expr).text}" for one in node.ops]
        return Code(f"({' '.join(parts)})", "bool")

    def _concat(self, node: nodes.Concat) -> Code:
        return Code(f"JOINED(({self._row(node.nodes)},))", "str")

    def _add(self, node: nodes.Add) -> Code:
        return self._arithmetic(node, "+", "PLUS")

    def _sub(self, node: nodes.Sub) -> Code:
        return self._arithmetic(node, "-")

    def _mul(self, node: nodes.Mul) -> Code:
        return self._arithmetic(node, "*", "TIMES")

    def _div(self, node: nodes.Div) -> Code:
        return self._arithmetic(node, "/", result="float")

    def _floordiv(self, node: nodes.FloorDiv) -> Code:
        return self._arithmetic(node, "//")

    def _pow(self, node: nodes.Pow) -> Code:
        left, right = self.visit(node.left), self.visit(node.right)
        return Code(f"POWER({left.text}, {right.text})", "float" if "float" in (left.kind, right.kind) else "any")

    def _mod(self, node: nodes.Mod) -> Code:
        left, right = self.visit(node.left), self.visit(node.right)
        if left.kind == "str" and isinstance(node.left, nodes.Const):
            try:
                sandbox.check_format(node.left.value)
            except sandbox.CostError as error:
                return self._site.note(node, str(error))
            return Code(f"({left.text} % {right.text})", "str")
        if left.kind in NUMBERS:
            return Code(f"({left.text} % {right.text})", _number(left, right))
        return Code(f"MODULO({left.text}, {right.text})")

    def _arithmetic(self, node: Any, sign: str, guard: str = "", result: str = "") -> Code:
        left, right = self.visit(node.left), self.visit(node.right)
        # A float on either side leaves no operation that could make a huge value, it can only raise TypeError
        plain = not guard or "float" in (left.kind, right.kind) or {left.kind, right.kind} <= NUMBERS
        if sign == "*" and "float" not in (left.kind, right.kind):
            plain = _small(node.left) or _small(node.right) if {left.kind, right.kind} <= NUMBERS else False
        kind = result or _number(left, right)
        if plain:
            return Code(f"({left.text} {sign} {right.text})", kind)
        return Code(f"{guard}({left.text}, {right.text})", kind)

    def _getattr(self, node: nodes.Getattr) -> Code:
        owner = self.visit(node.node)
        if node.attr.startswith("_"):
            return self._site.note(
                node, f"{node.attr!r} is not allowed in a template", "private names are out of reach"
            )
        if owner.kind == "now" and node.attr in _DATE_PARTS:
            return Code(f"{owner.text}.{node.attr}", "int")
        if owner.kind.startswith("row:"):
            return self._member(node, owner)
        return Code(f"ATTR({owner.text}, {node.attr!r})")

    def _member(self, node: nodes.Getattr, owner: Code) -> Code:
        entity = self._site.entities[owner.kind[4:]]
        if node.attr not in entity.fields:
            hint = errors.did_you_mean(node.attr, entity.fields)
            return self._site.note(node, f"entity {entity.name!r} has no field {node.attr!r}", hint)
        return Code(f"{owner.text}[{node.attr!r}]")

    def _getitem(self, node: nodes.Getitem) -> Code:
        owner, argument = self.visit(node.node), self.visit(node.arg)
        if isinstance(node.arg, nodes.Const) and str(node.arg.value).startswith("_"):
            return self._site.note(node, f"{node.arg.value!r} is not allowed in a template")
        if owner.kind in {"list", "dict"} and argument.kind in {"int", "str"}:
            return Code(f"{owner.text}[{argument.text}]")
        return Code(f"ITEM({owner.text}, {argument.text})")

    def _slice(self, node: nodes.Slice) -> Code:
        parts = (self.visit(one).text if one else "None" for one in (node.start, node.stop, node.step))
        return Code(f"slice({', '.join(parts)})")

    def _filter(self, node: nodes.Filter) -> Code:
        if node.node is None:
            return self._site.note(node, "a filter needs a value before it")
        inner = self.visit(node.node)
        if node.name not in self._site.box.filters:
            known = self._site.box.filters
            why = "it is not reproducible, use choice(…)" if node.name in sandbox.BLOCKED_FILTERS else ""
            return self._site.note(node, f"no filter named {node.name!r}", why or errors.did_you_mean(node.name, known))
        if node.name == "round" and len(node.args) <= 1 and not node.kwargs and inner.kind in NUMBERS | {"any"}:
            places = self.visit(node.args[0]).text if node.args else "0"
            return Code(f"round({inner.text}, {places})", inner.kind if inner.kind in NUMBERS else "any")
        if node.name == "int" and not node.args and not node.kwargs and inner.kind in NUMBERS:
            return Code(f"int({inner.text})", "int")
        return self._applied(node, inner, "filters", {"upper": "str", "lower": "str", "string": "str", "int": "int"})

    def _test(self, node: nodes.Test) -> Code:
        inner = self.visit(node.node)
        if node.name not in self._site.box.tests:
            hint = errors.did_you_mean(node.name, self._site.box.tests)
            return self._site.note(node, f"no test named {node.name!r}", hint)
        return self._applied(node, inner, "tests", {})._replace(kind="bool")

    def _applied(self, node: Any, inner: Code, table: str, kinds: Mapping[str, str]) -> Code:
        function = getattr(self._site.box, table)[node.name]
        name = self._site.constant(self._site.box.prepared(function))
        arguments = [inner.text, *self._arguments(node)]
        return Code(f"{name}({', '.join(arguments)})", kinds.get(node.name, "any"))

    def _arguments(self, node: Any) -> list[str]:
        made = [self.visit(one).text for one in node.args]
        made += [f"{one.key}={self.visit(one.value).text}" for one in node.kwargs]
        if node.dyn_args is not None:
            made.append(f"*{self.visit(node.dyn_args).text}")
        if node.dyn_kwargs is not None:
            made.append(f"**{self.visit(node.dyn_kwargs).text}")
        return made

    def _call(self, node: nodes.Call) -> Code:
        if isinstance(node.node, nodes.Name):
            name = node.node.name
            if name in vocabulary.FUNCTIONS:
                return calls.Call(self._site, node, name, self._arguments).code()
            if name == "range":
                return Code(f"RANGE({', '.join(self._arguments(node))})", "any")
            if name == "dict":
                return Code(f"dict({', '.join(self._arguments(node))})", "dict")
            if name not in self._scope:
                return self.unknown(node.node)
        target = self.visit(node.node)
        return Code(f"CALL({', '.join([target.text, *self._arguments(node)])})")


def _number(left: Code, right: Code) -> str:
    if "float" in (left.kind, right.kind):
        return "float"
    return "int" if {left.kind, right.kind} <= {"int", "bool"} else "any"


def _small(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and isinstance(node.value, int | float) and abs(node.value) < 2**53
