"""What a program collects while its texts are compiled: code, draws, constants and faults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jinja2 import nodes

from regstream import errors, model
from regstream.generate import budget, cost, hints, sandbox

NUMBERS = frozenset({"int", "float", "bool", "number"})
_PLAIN = frozenset({"int", "float", "bool", "str"})
_SMALL = NUMBERS | {"none", "now"}


class Code(NamedTuple):
    """A Python expression, the kind of what it gives and the size (see ``cost``) that it has at most.

    Kinds: ``int float bool number str none now any list dict``, or ``row:NAME`` for a row of that entity; ``number``
    is int or float.
    """

    text: str
    kind: str = "any"
    size: int = cost.LIMIT

    @property
    def extent(self) -> int:
        """The greatest size that the value can have."""
        return cost.SMALL if self.kind in _SMALL else self.size


def total(codes: Iterable[Code]) -> int:
    """The greatest size of a value that has these parts."""
    return sum(code.extent + 2 for code in codes)


class Note(NamedTuple):
    """A fault at a line (from 1) of the text that is being compiled."""

    line: int
    message: str
    hint: str = ""


Scope = Mapping[str, Code]


class Site:
    """What one program collects while its texts are compiled: draws, constants, faults.

    ``spends`` says whether the program does anything that is counted against the budget of an event, of which ``fixed``
    counts what is known before; ``reads`` and ``changes`` name the entities whose rows it may see, and those whose rows
    it changes; ``compared`` counts operands that may be large. ``later`` knows the names that come after the text that
    is being compiled.
    """

    def __init__(self, box: sandbox.Sandbox, entities: Mapping[str, model.EntitySpec]) -> None:
        self.box = box
        self.entities = entities
        self.doubles = 0
        self.raws = 0
        self.constants: dict[str, Any] = {}
        self.pools: dict[str, str] = {}
        self.reads: set[str] = set()
        self.changes: set[str] = set()
        self.notes: list[Note] = []
        self.later: hints.Later | None = None
        self.spends = False
        self.compared = 0
        self.fixed = budget.Fixed()
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

    def fitting(self, code: Code, limit: int = cost.CEILING) -> Code:
        """``code``, with a guard when it may give something larger than ``limit``."""
        return code if code.extent <= limit else Code(f"BOUNDED({code.text})", code.kind)

    def undefined(self, name: str, known: Iterable[str]) -> str:
        """The cure for a name that is not among those ``known`` here."""
        later = self.later.hint(name) if self.later is not None else ""
        python = hints.PYTHON.get(name, "")
        if python and self.later is not None and name == self.later.at:
            # A field that is named after the function that it is made with
            return python
        return "; or ".join(filter(None, (later, python))) or errors.did_you_mean(name, known)

    def note(self, node: nodes.Node | int, message: str, hint: str = "") -> Code:
        """Record a fault; gives code that stands in so that the rest of the text is read too."""
        line = node if isinstance(node, int) else node.lineno
        self.notes.append(Note(line, message, hint))
        return Code("None", "broken")


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
