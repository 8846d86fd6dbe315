"""The Jinja environment that templates live in: strict, sandboxed, bounded.

Expressions are compiled to Python by ``expression`` and use only this environment's guards; texts with statements are
rendered by Jinja itself, in here. Either way a template can neither reach Python's internals, nor read a clock, nor
run for ever, nor fill the memory: loops, calls and the sizes of what they work on are counted against a budget of
steps for each event that is the same on every machine.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import jinja2
import jinja2.compiler
import jinja2.nodes
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils

from regstream import errors
from regstream.functions import csv, limits, registry, rng, time_format

BLOCKED_FILTERS = frozenset({"random"})
GLOBALS = ("range", "dict", "namespace")
# What a filter takes for a character of what it is given, against the others
_RATES = {"groupby": 32, "pprint": 32} | dict.fromkeys(("title", "urlize", "striptags", "wordwrap", "xmlattr"), 8)
# What makes bytes, which no guard measures, and what multiplies by a mapping
_OUT_OF_REACH: tuple[tuple[type, frozenset[str]], ...] = (
    (str, frozenset({"encode", "translate", "maketrans"})),
    (int, frozenset({"to_bytes", "from_bytes"})),
)
# All that templates may use of a time, none of which asks the machine for its clock, zone or locale
_OF_DATES = frozenset({
    "ctime", "day", "isocalendar", "isoformat", "isoweekday", "month", "replace", "strftime", "timetuple", "toordinal",
    "weekday", "year",
})  # fmt: skip
_OF_TIMES = frozenset({
    "dst", "fold", "hour", "isoformat", "microsecond", "minute", "replace", "second", "strftime", "tzinfo", "tzname",
    "utcoffset",
})  # fmt: skip
_IN_REACH: tuple[tuple[type, frozenset[str]], ...] = (
    (datetime.datetime, _OF_DATES | _OF_TIMES | {"date", "time", "timestamp", "timetz", "utctimetuple"}),
    (datetime.date, _OF_DATES),
    (datetime.time, _OF_TIMES),
)
_PINNED: dict[str, Callable[..., Any]] = {"strftime": time_format.formatted, "timestamp": time_format.timestamp}
_CALL, _MACRO, _FILTER, _LOAD, _ATTRIBUTE, _SHARE = 5, 20, 2, 20, 2, 8


def out_of_reach(kind: type, attribute: str) -> bool:
    """Whether templates may not use that attribute of values of a type."""
    for one, names in _IN_REACH:
        if issubclass(kind, one):
            return attribute not in names
    return any(issubclass(kind, one) and attribute in names for one, names in _OUT_OF_REACH)


def _no_function(value: Any, name: Any) -> Any:
    if isinstance(value, limits.FUNCTIONS):
        raise ValueError(f"{name} is a function, write {name}(…)")
    return value


class _Generator(jinja2.compiler.CodeGenerator):
    """Jinja's own compiler, with loops and whatever can grow or take long led through the guards."""

    def visit_For(self, node: jinja2.nodes.For, frame: jinja2.compiler.Frame) -> None:
        if node.recursive:
            self.fail("recursive loops are not supported, write a macro that calls itself", node.lineno)
        counted = jinja2.nodes.EnvironmentAttribute("counted", lineno=node.lineno)
        node.iter = jinja2.nodes.Call(counted, [node.iter], [], None, None, lineno=node.lineno)
        super().visit_For(node, frame)

    def visit_Concat(self, node: jinja2.nodes.Concat, frame: jinja2.compiler.Frame) -> None:
        self.write("environment.concatenated((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def _weighed(self, visit: Callable[[Any, Any], None], node: Any, frame: jinja2.compiler.Frame) -> None:
        self.write("environment.weighed(")
        visit(node, frame)
        self.write(")")

    def visit_List(self, node: jinja2.nodes.List, frame: jinja2.compiler.Frame) -> None:
        self._weighed(super().visit_List, node, frame)

    def visit_Dict(self, node: jinja2.nodes.Dict, frame: jinja2.compiler.Frame) -> None:
        self._weighed(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: jinja2.nodes.Tuple, frame: jinja2.compiler.Frame) -> None:
        if node.ctx == "load":
            self._weighed(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Getitem(self, node: jinja2.nodes.Getitem, frame: jinja2.compiler.Frame) -> None:
        if isinstance(node.arg, jinja2.nodes.Slice):
            self._weighed(super().visit_Getitem, node, frame)
        else:
            super().visit_Getitem(node, frame)

    def visit_Compare(self, node: jinja2.nodes.Compare, frame: jinja2.compiler.Frame) -> None:
        self.write("(")
        self._weighed(self.visit, node.expr, frame)
        for operand in node.ops:
            self.visit(operand, frame)
        self.write(")")

    def visit_Operand(self, node: jinja2.nodes.Operand, frame: jinja2.compiler.Frame) -> None:
        self.write(f" {jinja2.compiler.operators[node.op]} ")
        self._weighed(self.visit, node.expr, frame)


class _Template(jinja2.Template):
    """A template whose own statements draw nothing when it is imported: all events share what they make."""

    def _get_default_module(self, ctx: jinja2.runtime.Context | None = None) -> Any:
        box: Any = self.environment
        with box.still():
            return super()._get_default_module(ctx)


class Source:
    """What vocabulary calls within statements are made of: loose draws, the event's time and number, entity rows."""

    def __init__(
        self, loose: rng.Loose, now: datetime.datetime, seq: int, rows: Mapping[str, list[dict[str, Any]]]
    ) -> None:
        self._loose = loose
        self._known = {"now": now, "seq": seq}
        self._rows = rows

    def need(self, name: str) -> Any:
        """A fresh double (``u``) or 16 bytes (``raw``), ``now`` or ``seq``."""
        if name == "u":
            return self._loose.double()
        return self._loose.raw() if name == "raw" else self._known[name]

    def pool(self, name: str) -> list[dict[str, Any]]:
        """The rows of an entity. Raises ValueError when there is none of that name."""
        if name not in self._rows:
            raise ValueError(f"unknown entity {name!r}")
        return self._rows[name]


class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The environment of one catalog: its templates, tables and guards, and the draws of the event that is being made.

    ``attempt`` counts how often the event failed before; other attempts have other draws.
    """

    code_generator_class = _Generator
    template_class = _Template
    intercepted_binops = frozenset({"*", "**", "%", "+"})
    concat = staticmethod(limits.joined)

    def __init__(self, templates: Mapping[str, str]) -> None:
        texts = {name: text for name, text in templates.items() if not csv.is_table(name)}
        super().__init__(
            loader=jinja2.DictLoader(texts),
            undefined=jinja2.StrictUndefined,
            # Constant folding would run a template's filters while it is compiled, before any guard
            optimized=False,
            cache_size=-1,
        )
        self.attempt = 0
        self.budget = limits.Budget()
        self._spend = self.budget.spend
        self._source: Source | None = None
        self._templates = texts
        self._tables = {name: csv.csv_of(text) for name, text in templates.items() if csv.is_table(name)}
        self.finalize = self.weighed
        self.binop_table.update({"*": limits.times, "**": limits.power, "%": limits.modulo, "+": limits.plus})
        allowed = {name: one for name, one in self.filters.items() if name not in BLOCKED_FILTERS}
        self.filters = {name: self._guarded(name, one) for name, one in allowed.items()}
        for name, test in list(self.tests.items()):
            self.tests[name] = self._guarded(name, cast("Callable[..., Any]", test))
        self.globals = {"range": limits.safe_range, "dict": dict, "namespace": jinja2.utils.Namespace}
        self.globals.update({name: self._bound(name, one) for name, one in registry.FUNCTIONS.items()})
        self._context = self.from_string("").new_context()

    # Files

    def files(self) -> list[str]:
        """The names of the template files."""
        return sorted(self._templates)

    def source(self, name: str) -> str | None:
        """The text of a template file, None when there is no such file."""
        return self._templates.get(name)

    def table(self, name: Any) -> csv.CsvTable:
        """The table of a CSV file. Raises tables.TableError when there is no such file, or it is broken."""
        if name not in self._tables:
            hint = errors.did_you_mean(name, self._tables) if isinstance(name, str) else ""
            raise csv.TableError(f"no CSV file {name!r}", hint)
        try:
            return self._tables[name].table
        except csv.TableError as error:
            raise csv.BrokenTableError(f"{name!r} has a fault in line {error.line}", "mend it first") from None

    def get_template(self, name: Any, parent: Any = None, globals: Any = None) -> jinja2.Template:
        """The template of that name, counted as 20 steps. Raises CostError, TemplateNotFound."""
        self._spend(_LOAD)
        return super().get_template(name, parent, globals)

    # The event that is being made

    def renew(self) -> None:
        """Give the next event all its steps; one that is tried again has what its attempts before have left."""
        if not self.attempt:
            self.budget.renew()

    def begin(self, source: Source) -> None:
        """Set what vocabulary calls use in what is rendered next."""
        self._source = source

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """A block in which vocabulary calls are refused."""
        source, self._source = self._source, None
        try:
            yield
        finally:
            self._source = source

    def _charge(self, steps: int, values: Iterable[Any], rate: int = 1) -> None:
        self._spend(steps + rate * sum(map(limits.size, values)) // _SHARE)

    # Guards

    def _taken(self, value: Any) -> Any:
        """What a filter or call gives, an iterator as a list, its size counted. Raises CostError."""
        value = limits.listed(value)
        # One that is called at once; shown, it would be another text at every start
        if isinstance(value, limits.FUNCTIONS):
            return value
        self._spend(limits.size(value) // _SHARE)
        return value

    def weighed(self, value: Any) -> Any:
        """``value``, its size counted against the budget. Raises CostError."""
        self._spend(1 + limits.size(value) // _SHARE)
        return value

    def concatenated(self, parts: tuple[Any, ...]) -> str:
        """The texts of the parts in a row, counted. Raises CostError."""
        self._charge(1, parts)
        return limits.joined(parts)

    def counted(self, values: Iterable[Any]) -> Iterable[Any]:
        """The values of a loop, each of them counted against the budget. Raises CostError."""

        # Kept as a list so that loop.length and loop.last work as they do without the guard
        def count() -> Iterator[Any]:
            for value in values:
                self._spend(1)
                yield value

        return list(count())

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        """``left operator right`` in a text with statements. Raises CostError."""
        self._charge(1, (left, right))
        return self.binop_table[operator](left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether templates may use the attribute."""
        kind = obj if isinstance(obj, type) else type(obj)
        return not out_of_reach(kind, attr) and super().is_safe_attribute(obj, attr, value)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """``obj.attribute`` as templates see it: a mapping's key before its methods; undefined when private."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        self._spend(_ATTRIBUTE)
        if attribute in _PINNED and isinstance(obj, datetime.date | datetime.time):
            return functools.partial(_PINNED[attribute], obj)
        return super().getattr(obj, attribute)

    def value(self, obj: Any, attribute: str) -> Any:
        """``obj.attribute`` where it is not called. Raises ValueError for a function."""
        return _no_function(self.getattr(obj, attribute), attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """``obj[argument]`` as templates see it: an item before an attribute; undefined when private."""
        try:
            return obj[argument]
        except (AttributeError, TypeError, LookupError):
            return self.getattr(obj, argument) if isinstance(argument, str) else super().getitem(obj, argument)

    def item(self, obj: Any, argument: Any) -> Any:
        """``obj[argument]`` in an expression; what a slice gives is counted, and never undefined. Raises CostError."""
        if isinstance(argument, slice):
            return self.weighed(obj[argument])
        return _no_function(self.getitem(obj, argument), argument)

    def apply(self, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call ``target`` from an expression. Raises CostError, SecurityError."""
        return self.call(self._context, target, *args, **kwargs)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call an object from a template, counted and checked. Raises CostError, SecurityError."""
        if __obj == __self.counted:
            # A loop's values are counted one by one and need not be small together
            return __self.counted(*args)
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        values = (owner if isinstance(owner, str | int) else None, *args, *kwargs.values())
        __self._charge(_CALL + _MACRO if isinstance(__obj, jinja2.runtime.Macro) else _CALL, values)
        if isinstance(owner, str):
            name = str(getattr(__obj, "__name__", ""))
            limits.check_growth(name, values)
            if name.startswith("format"):
                limits.check_braces(owner, sum(map(limits.size, values[1:])))
        return __self._taken(super().call(__context, __obj, *args, **kwargs))

    def prepared(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter or test with the context, environment or evaluation context that it asks for already given."""
        wanted = getattr(function, "jinja_pass_arg", None)
        given = {"context": self._context, "eval_context": self._context.eval_ctx, "environment": self}
        return functools.partial(function, given[wanted.name]) if wanted else function

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter or test, counted and checked; what it would give bit by bit comes as a list."""
        first = int(hasattr(function, "jinja_pass_arg"))
        rate = _RATES.get(name, 1)

        def checked(*args: Any, **kwargs: Any) -> Any:
            values = (*args[first:], *kwargs.values())
            self._charge(_FILTER, values, rate)
            limits.check_growth(name, values)
            if name == "format":
                limits.check_percent(str(values[0]), sum(map(limits.size, values[1:])))
            return self._taken(function(*args, **kwargs))

        if first:
            checked.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
        return checked

    # The vocabulary

    def _bound(self, name: str, function: registry.Function) -> Callable[..., Any]:
        priced = function.priced(self.budget)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._source is None:
                raise limits.CostError(f"{name} is called while its file is imported, call it from within a macro")
            first = [self._source.need(need) for need in function.needs]
            if name in registry.ROWS and args:
                args = (self._source.pool(args[0]), *args[1:])
            elif name in registry.TABLES and args:
                args = (self.table(args[0]), *args[1:])
            return priced(*first, *args, **kwargs)

        call.__name__ = name
        return call
