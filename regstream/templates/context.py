"""What a program collects while its texts are compiled: code, draws, constants and faults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jinja2 import nodes

from regstream import errors, spec
from regstream.functions import limits
from regstream.templates import sandbox

PYTHON: Mapping[str, str] = {
    "abs": "write x | abs",
    "all": "write a and b",
    "any": "write a or b",
    "bool": "write true, false or a comparison",
    "datetime": "write now, or date('-5d') for another day",
    "enumerate": "write loop.index0 in a {% for %}",
    "faker": "write fake('name')",
    "filter": "write x | select or x | selectattr",
    "float": "write x | float",
    "format": "write '%.2f' % x",
    "int": "write x | int",
    "isinstance": "write x is string, x is number or x is mapping",
    "len": "write x | length",
    "list": "write x | list",
    "map": "write x | map",
    "math": "write x ** 0.5, x | round or x | abs",
    "Math": "write x ** 0.5, x | round or x | abs",
    "max": "write [a, b] | max",
    "min": "write [a, b] | min",
    "np": "write normal(0, 1), uniform(0, 1) or choice([…])",
    "null": "write none",
    "nil": "write none",
    "numpy": "write normal(0, 1), uniform(0, 1) or choice([…])",
    "os": "a template reads no environment, write the value into the file",
    "pow": "write x ** 2",
    "random": "write uniform(0, 1), randint(1, 6) or choice([…])",
    "rand": "write uniform(0, 1)",
    "repr": "write x | string or x | tojson",
    "reversed": "write x | reverse",
    "round": "write x | round(2)",
    "secrets": "write digits(8), uuid() or pattern('??-####')",
    "set": "write x | unique | list",
    "sorted": "write x | sort",
    "sqrt": "write x ** 0.5",
    "str": "write x | string, or put the text around {{ x }}",
    "sum": "write [a, b] | sum",
    "time": "write now, now.timestamp() or date('-5d')",
    "timedelta": "write date('-5d') or date('+12h')",
    "today": "write now, or date() for the day alone",
    "tuple": "write [a, b]",
    "type": "write x is string, x is number or x is mapping",
    "undefined": "write none, or x is defined",
    "uuid4": "write uuid()",
    "zip": "write a[index] and b[index]",
}
"""Names of Python, and of what people write like it."""

_SIGNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"""\b[fFrR]{1,2}(["'])"""),
        "there are no f-strings, put the text around {{ x }} or write 'text ' ~ x",
    ),
    (re.compile(r"&&"), "write and"),
    (re.compile(r"\|\|"), "write or"),
    (re.compile(r"[^=!<>]!\s*[\w(]"), "write not"),
    (re.compile(r"[=!]=="), "write == or !="),
    (re.compile(r"\blambda\b"), "there is no lambda, write x | map(…) or a macro"),
    (re.compile(r"[\[({][^\])}]*\bfor\b.*\bin\b"), "write x | map or x | select, or {% for %} … {% endfor %}"),
    (re.compile(r"\?[^?:]*:"), "write a if condition else b"),
    (re.compile(r"\?\?"), "write x | default(y)"),
    (re.compile(r"\+\+|--|[-+*/]="), "a template changes nothing: write x + 1, and update for an entity's field"),
    (re.compile(r"\{\{[^}]*[^=!<>]=[^=][^}]*\}\}"), "write == to compare"),
)
_EXPRESSION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


def of_syntax(source: str, line: int) -> str:
    """What to write in place of a text that cannot be read, by what stands in the line; empty when nothing is known."""
    lines = source.splitlines()
    here = lines[line - 1] if 0 < line <= len(lines) else source
    within = " ".join(f"{{{{{one}}}}}" for one in _EXPRESSION.findall(here)) or here
    return next((hint for sign, hint in _SIGNS if sign.search(within)), "")


class Later(NamedTuple):
    """Where a template stands among those of a mapping, which ``outer`` may stand in in turn.

    ``at`` is its key; None when all of the mapping comes later, ``what`` being told of it.
    """

    values: Mapping[str, object]
    at: str | None
    what: str
    outer: Later | None = None

    def hint(self, name: str) -> str:
        """Why a name of the declaration cannot be used here, empty when it is none that comes later."""
        if name in self.values:
            if self.at is None:
                return self.what
            if name == self.at:
                return f"{self.what} {name} cannot use itself"
            keys = list(self.values)
            if keys.index(name) > keys.index(self.at):
                return f"{self.what} {name} is declared after {self.at}; move it before"
        return self.outer.hint(name) if self.outer is not None else ""


NUMBERS = frozenset({"int", "float", "bool", "number"})
_PLAIN = frozenset({"int", "float", "bool", "str"})
_SMALL = NUMBERS | {"none", "now"}


class TypedExpr(NamedTuple):
    """A Python expression, the kind of what it gives and the size (see ``cost``) that it has at most.

    Kinds: ``int float bool number str none now any list dict``, or ``row:NAME`` for a row of that entity; ``number``
    is int or float.
    """

    text: str
    kind: str = "any"
    size: int = limits.LIMIT

    @property
    def extent(self) -> int:
        """The greatest size that the value can have."""
        return limits.SMALL if self.kind in _SMALL else self.size


def total(codes: Iterable[TypedExpr]) -> int:
    """The greatest size of a value that has these parts."""
    return sum(code.extent + 2 for code in codes)


class Note(NamedTuple):
    """A fault at a line (from 1) of the text that is being compiled."""

    line: int
    message: str
    hint: str = ""


Scope = Mapping[str, TypedExpr]


class CompileContext:
    """What one program collects while its texts are compiled: draws, constants, faults.

    ``spends`` says whether the program does anything that is counted against the budget of an event, of which ``fixed``
    counts what is known before; ``reads`` and ``changes`` name the entities whose rows it may see, and those whose rows
    it changes; ``compared`` counts operands that may be large. ``later`` knows the names that come after the text that
    is being compiled.
    """

    def __init__(self, box: sandbox.Sandbox, entities: Mapping[str, spec.EntitySpec]) -> None:
        self.box = box
        self.entities = entities
        self.doubles = 0
        self.raws = 0
        self.constants: dict[str, Any] = {}
        self.pools: dict[str, str] = {}
        self.reads: set[str] = set()
        self.changes: set[str] = set()
        self.notes: list[Note] = []
        self.later: Later | None = None
        self.spends = False
        self.compared = 0
        self.fixed = limits.Fixed()
        self._temporaries = 0

    def double(self) -> str:
        """The name of a fresh double in [1, 2)."""
        self.doubles += 1
        return f"d{self.doubles - 1}"

    def raw(self) -> str:
        """The name of 16 fresh random bytes."""
        self.raws += 1
        return f"b{self.raws - 1}"

    def constant(self, value: Any) -> str:
        """A global name of the program that holds ``value``."""
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def temporary(self) -> str:
        """A fresh local name."""
        self._temporaries += 1
        return f"t{self._temporaries}"

    def pool(self, entity: str) -> str:
        """The name of the local that holds an entity's rows."""
        self.reads.add(entity)
        return self.pools.setdefault(entity, f"rows{len(self.pools)}")

    def fitting(self, code: TypedExpr, limit: int = limits.CEILING) -> TypedExpr:
        """``code``, with a guard when it may give something larger than ``limit``."""
        return code if code.extent <= limit else TypedExpr(f"BOUNDED({code.text})", code.kind)

    def undefined(self, name: str, known: Iterable[str]) -> str:
        """The cure for a name that is not among those ``known`` here."""
        later = self.later.hint(name) if self.later is not None else ""
        python = PYTHON.get(name, "")
        if python and self.later is not None and name == self.later.at:
            # A field that is named after the function that it is made with
            return python
        return "; or ".join(filter(None, (later, python))) or errors.did_you_mean(name, known)

    def note(self, node: nodes.Node | int, message: str, hint: str = "") -> TypedExpr:
        """Record a fault; gives code that stands in so that the rest of the text is read too."""
        line = node if isinstance(node, int) else node.lineno
        self.notes.append(Note(line, message, hint))
        return TypedExpr("None", "broken")


class _Unknown:
    def __repr__(self) -> str:
        return "?"


UNKNOWN: Any = _Unknown()


def kind_of(values: Iterable[Any]) -> str:
    """What all of some constants are, ``any`` when that differs."""
    kinds = {type(one).__name__ for one in values}
    return kinds.pop() if len(kinds) == 1 and kinds <= _PLAIN else "any"


def constant_of(node: nodes.Expr) -> Any:
    """The value of an expression that is constant, else ``UNKNOWN``."""
    try:
        return node.as_const()
    except Exception:
        # Impossible, or an operation that fails: both are no constants
        return UNKNOWN
