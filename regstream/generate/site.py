"""What a program collects while its texts are compiled: code, draws, constants and faults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jinja2 import nodes

from regstream import model
from regstream.generate import sandbox

NUMBERS = frozenset({"int", "float", "bool"})


class Code(NamedTuple):
    """A Python expression and the kind of what it gives.

    Kinds: ``int float bool str none now any list dict``, or ``row:NAME`` for a row of that entity.
    """

    text: str
    kind: str = "any"


class Note(NamedTuple):
    """A fault at a line (from 1) of the text that is being compiled."""

    line: int
    message: str
    hint: str = ""


Scope = Mapping[str, Code]


class Site:
    """What one program collects while its texts are compiled: draws, constants, faults."""

    def __init__(self, box: sandbox.Sandbox, entities: Mapping[str, model.EntitySpec]) -> None:
        self.box = box
        self.entities = entities
        self.doubles = 0
        self.raws = 0
        self.constants: dict[str, Any] = {}
        self.pools: dict[str, str] = {}
        self.notes: list[Note] = []
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
        return self.pools.setdefault(entity, f"rows{len(self.pools)}")

    def note(self, node: nodes.Node | int, message: str, hint: str = "") -> Code:
        """Record a fault; gives code that stands in so that the rest of the text is read too."""
        line = node if isinstance(node, int) else node.lineno
        self.notes.append(Note(line, message, hint))
        return Code("None", "broken")


class _Unknown:
    def __repr__(self) -> str:
        return "?"


UNKNOWN: Any = _Unknown()


def constant_of(node: nodes.Expr) -> Any:
    """The value of an expression that is constant, else ``UNKNOWN``."""
    try:
        return node.as_const()
    except Exception:
        # Impossible, or an operation that fails: both are no constants
        return UNKNOWN
