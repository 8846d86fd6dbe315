"""The Jinja environment that templates live in: strict, sandboxed, bounded.

Expressions are compiled to Python by ``expression`` and use only this environment's guards; texts with statements are
rendered by Jinja itself, in here. Either way a template can neither reach Python's internals, nor run for ever, nor
fill the memory: loops and calls are counted against a budget that is the same on every machine, and whatever could
make a huge value in one step is checked before it is made.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jinja2
import jinja2.compiler
import jinja2.nodes
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils

from regstream.generate import draws, vocabulary

MAX_STEPS = 100_000
MAX_RANGE = 100_000
MAX_DIGITS = 4_096
MAX_TEXT = vocabulary.MAX_TEXT
BLOCKED_FILTERS = frozenset({"random"})
GLOBALS = ("range", "dict", "namespace")
_WIDE = frozenset({"ljust", "rjust", "center", "zfill", "expandtabs", "indent", "batch", "slice", "wordwrap"})
_GROWING = frozenset({"replace", "join", "indent", "translate", "wordwrap"})
_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(?:\d{4,}|\*)|\{[^{}]*(?:\d{4,}|\{)")


class CostError(jinja2.TemplateError):
    """A template wanted more steps or more memory than one event may have."""


def bounded(value: Any) -> Any:
    """``value``, unless it is a text or list too long to be a part of an event. Raises CostError."""
    if isinstance(value, str | list | tuple) and len(value) > MAX_TEXT:
        raise CostError(f"makes a value of {len(value)} parts, the limit is {MAX_TEXT}")
    return value


def times(left: Any, right: Any) -> Any:
    """``left * right`` with the size of what it makes checked first. Raises CostError."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, int) and isinstance(other, str | list | tuple) and one * len(other) > MAX_TEXT:
            raise CostError(f"repeats a value {one} times, the limit is {MAX_TEXT} parts")
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_DIGITS:
        raise CostError(f"makes a number of more than {MAX_DIGITS} bits")
    return left * right


def power(left: Any, right: Any) -> Any:
    """``left ** right`` with the size of what it makes checked first. Raises CostError."""
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > MAX_DIGITS:
        raise CostError(f"makes a number of more than {MAX_DIGITS} bits")
    return left**right


def modulo(left: Any, right: Any) -> Any:
    """``left % right``, where a format with a huge width is refused. Raises CostError."""
    if isinstance(left, str):
        check_format(left)
    return left % right


def check_format(text: str) -> None:
    """Refuse a format text whose width has four digits or comes from an argument. Raises CostError."""
    if _WIDE_FORMAT.search(text):
        raise CostError("formats to a width above 999")


def plus(left: Any, right: Any) -> Any:
    """``left + right`` with its size checked. Raises CostError."""
    return bounded(left + right)


def joined(parts: Iterable[Any]) -> str:
    """The texts of the parts in a row (Jinja's ``~``). Raises CostError."""
    return str(bounded("".join(map(str, parts))))


def concat(parts: Iterable[str]) -> str:
    """The output of a template as one text. Raises CostError."""
    return str(bounded("".join(parts)))


def safe_range(*args: int) -> range:
    """``range`` of at most 100,000 numbers. Raises CostError."""
    made = range(*args)
    # len() overflows on the very ranges that are to be refused
    if made and (made[-1] - made[0]) // made.step >= MAX_RANGE:
        raise CostError(f"ranges over more than {MAX_RANGE} numbers")
    return made


def guard(name: str, values: Iterable[Any]) -> None:
    """Refuse a filter or method call that would make a huge value out of small ones. Raises CostError."""
    if name in _WIDE and any(isinstance(one, int) and one > 10_000 for one in values):
        raise CostError(f"{name} is asked for more than 10000 places")
    if name in _GROWING:
        size = 1
        for one in values:
            size *= max(len(one), 1) if isinstance(one, str | list | tuple) else 1
        if size > 10 * MAX_TEXT:
            raise CostError(f"{name} would make a text of up to {size} characters")


class _Generator(jinja2.compiler.CodeGenerator):
    """Jinja's own compiler, with each loop and each ``~`` led through the guards."""

    def visit_For(self, node: jinja2.nodes.For, frame: jinja2.compiler.Frame) -> None:
        counted = jinja2.nodes.EnvironmentAttribute("counted", lineno=node.lineno)
        node.iter = jinja2.nodes.Call(counted, [node.iter], [], None, None, lineno=node.lineno)
        super().visit_For(node, frame)

    def visit_Concat(self, node: jinja2.nodes.Concat, frame: jinja2.compiler.Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The environment of one catalog: its templates, the guards, and the draws of the event that is being made."""

    code_generator_class = _Generator
    intercepted_binops = frozenset({"*", "**", "%", "+"})
    concat = staticmethod(concat)
    joined = staticmethod(joined)

    def __init__(self, templates: Mapping[str, str]) -> None:
        super().__init__(
            loader=jinja2.DictLoader(dict(templates)),
            undefined=jinja2.StrictUndefined,
            # Constant folding would run a template's filters while it is compiled, before any guard
            optimized=False,
            cache_size=-1,
        )
        self.binop_table.update({"*": times, "**": power, "%": modulo, "+": plus})
        self.filters = {name: self._guarded(name, one) for name, one in self.filters.items()}
        for name in BLOCKED_FILTERS:
            del self.filters[name]
        self.globals = {"range": safe_range, "dict": dict, "namespace": jinja2.utils.Namespace}
        self.globals.update(self._bind())
        self._templates = dict(templates)
        self._steps = MAX_STEPS
        self._loose: draws.Loose | None = None
        self._scope: Mapping[str, Any] = {}
        self._rows: Mapping[str, list[dict[str, Any]]] = {}
        self._context = self.from_string("").new_context()

    def files(self) -> list[str]:
        """The names of the template files."""
        return self.loader.list_templates() if self.loader else []

    def source(self, name: str) -> str | None:
        """The text of a template file, None when there is no such file."""
        return self._templates.get(name)

    def begin(self, loose: draws.Loose, scope: Mapping[str, Any], rows: Mapping[str, list[dict[str, Any]]]) -> None:
        """Set the draws, names and entity rows that vocabulary calls use in what is rendered next; renew the budget."""
        self._loose, self._scope, self._rows, self._steps = loose, scope, rows, MAX_STEPS

    def getattr(self, obj: Any, attribute: str) -> Any:
        """``obj.attribute`` as templates see it: a mapping's key before its methods; undefined when private."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def apply(self, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call ``target`` from an expression. Raises CostError, SecurityError."""
        self._steps = MAX_STEPS
        return self.call(self._context, target, *args, **kwargs)

    def prepared(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter or test with the context, environment or evaluation context that it asks for already given."""
        wanted = getattr(function, "jinja_pass_arg", None)
        given = {"context": self._context, "eval_context": self._context.eval_ctx, "environment": self}
        return functools.partial(function, given[wanted.name]) if wanted else function

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call an object from a template, counted and checked. Raises CostError, SecurityError."""
        __self._spend()
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        if isinstance(owner, str):
            name = getattr(__obj, "__name__", "")
            guard(name, (owner, *args, *kwargs.values()))
            if name.startswith("format"):
                check_format(owner)
        return bounded(super().call(__context, __obj, *args, **kwargs))

    def _spend(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise CostError(f"takes more than {MAX_STEPS} steps")

    def counted(self, values: Iterable[Any]) -> Iterable[Any]:
        """The values of a loop, each of them counted against the budget. Raises CostError."""

        # Kept as a list so that loop.length and loop.last work as they do without the guard
        def count() -> Iterator[Any]:
            for value in values:
                self._spend()
                yield value

        return list(count())

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        passed = hasattr(function, "jinja_pass_arg")

        def checked(*args: Any, **kwargs: Any) -> Any:
            given = args[1:] if passed else args
            guard(name, (*given, *kwargs.values()))
            if name == "format" and given and isinstance(given[0], str):
                check_format(given[0])
            return bounded(function(*args, **kwargs))

        if passed:
            checked.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
        return checked

    def _bind(self) -> dict[str, Callable[..., Any]]:
        def bind(name: str, function: vocabulary.Function) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                first = [self._need(need) for need in function.needs]
                if name == "pick":
                    args = (self._pool(*args),)
                return function.call(*first, *args, **kwargs)

            call.__name__ = name
            return call

        return {name: bind(name, one) for name, one in vocabulary.FUNCTIONS.items()}

    def _need(self, need: str) -> Any:
        if self._loose is None:
            raise CostError("draws while the template is loaded, call it from within a macro instead")
        if need == "u":
            return self._loose.double()
        return self._loose.raw() if need == "raw" else self._scope[need]

    def _pool(self, name: str) -> list[dict[str, Any]]:
        if name not in self._rows:
            raise CostError(f"picks from unknown entity {name!r}")
        return self._rows[name]
