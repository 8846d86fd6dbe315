"""YAML text → plain data and the place of every part of it; the only module that knows ruamel.yaml.

The C parser gives events, and the tree is built from them here, one Python step at a time: a whole file composed in C
would keep every other thread waiting. Scalars follow the core schema of YAML 1.2: ``yes`` is text, so is a date.
"""

from __future__ import annotations

import array
import bisect
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from ruamel.yaml import cyaml
from ruamel.yaml import error as yaml_error
from ruamel.yaml import events as yaml_events

from regstream import errors

CHUNK = 65_536

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_BREAK = re.compile(r"\r\n|\n|\r")
_BARE = re.compile(r"(?:[:\-,\[]\s+|^\s*)(\{[{%])")

_QUOTE = "put the text in quotes"
BARE_TEMPLATE = ("a template without quotes", 'write "{{ … }}"')
_REASONS = {
    "mapping values are not allowed in this context": (
        "a ':' that begins no value",
        _QUOTE + ", or check the indentation",
    ),
    "could not find expected ':'": ("a key without ':'", "write key: value"),
    "found unexpected end of stream": ("quotes that are never closed", ""),
    "found unexpected document indicator": ("quotes that are never closed", ""),
    "found unknown escape character": ("an unknown escape after '\\'", "use single quotes to keep a backslash"),
    "did not find expected key": ("this does not fit the mapping it stands in", _QUOTE + ", or check the indentation"),
    "did not find expected '-' indicator": ("this does not fit the list it stands in", "check the indentation"),
    "did not find expected ',' or ']'": ("a list that is not closed", "',' or ']' is expected here"),
    "did not find expected ',' or '}'": ("a mapping that is not closed", "',' or '}' is expected here"),
    "did not find expected node content": ("a value is expected here", ""),
    "did not find expected <document start>": ("text after the end of the document", ""),
    "block sequence entries are not allowed in this context": ("a list cannot begin here", "begin it on its own line"),
    "block mapping keys are not allowed in this context": ("a mapping cannot begin here", "begin it on its own line"),
    "found undefined tag handle": ("an unknown tag", "leave it out"),
    "found incompatible YAML document": ("an unknown version of YAML", "leave the %YAML line out"),
    "found duplicate %YAML directive": ("a second %YAML line", "leave it out"),
    "did not find expected alphabetic or numeric character": ("a name is expected after '*' or '&'", _QUOTE),
}


class Unreadable(Exception):
    """A text that no YAML parser takes: what is wrong, and at which offset."""

    def __init__(self, at: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.at, self.message, self.hint = at, message, hint


def check_characters(text: str) -> None:
    """Raises Unreadable at the first character that YAML does not allow."""
    for start in range(0, len(text), CHUNK):
        found = _UNPRINTABLE.search(text, start, start + CHUNK)
        if found:
            raise Unreadable(found.start(), f"character U+{ord(found[0]):04X} is not allowed", "is this a text file?")


def explain(
    text: str, context: str | None, began: int | None, problem: str | None, at: int | None
) -> tuple[int, str, str]:
    """Offset, message and hint for what the parser says; ``began`` and ``at`` are the offsets it gives, if any."""
    place = at if at is not None else began or 0
    last = max(len(text.rstrip()) - 1, 0)
    if place > last:
        place = began if began is not None and began < last else last
    if "tab" in (problem or "") or text[place : place + 1] == "\t":
        return place, "a tab cannot indent", "use spaces"
    begin = text.rfind("\n", 0, place) + 1
    bare = _BARE.search(text, begin, (text.find("\n", place) + 1 or len(text) + 1) - 1)
    if bare:
        return bare.start(1), *BARE_TEMPLATE
    if problem == "found character that cannot start any token":
        return place, f"a value cannot begin with '{text[place : place + 1]}'", _QUOTE
    message, hint = _REASONS.get(problem or "", (f"not YAML: {problem or context or 'unknown reason'}", ""))
    return place, message, hint


class LineIndex:
    """Where the lines of a text begin; a line ends with LF, CR LF or CR, as editors count."""

    def __init__(self, text: str) -> None:
        self._text = text

    @functools.cached_property
    def _starts(self) -> array.array[int]:
        """Where each line begins: looked for when it is first asked, which for a good file is never."""
        return array.array("L", itertools.chain((0,), (found.end() for found in _BREAK.finditer(self._text))))

    def __len__(self) -> int:
        return len(self._starts)

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column, both from 1, of an offset; one past the end is moved to the end."""
        offset = max(0, min(offset, len(self._text)))
        row = bisect.bisect_right(self._starts, offset) - 1
        return row + 1, offset - self._starts[row] + 1

    def first(self, line: int) -> int:
        """The column, from 1, of the first character of a line that is not a space."""
        end = self._starts[line] if line < len(self._starts) else len(self._text)
        row = self._text[self._starts[line - 1] : end].rstrip("\r\n")
        return len(row) - len(row.lstrip()) + 1


MAX_VALUES = 300_000
MAX_DEPTH = 60
WEIGHT = 256
"""So many characters of a text count as one more value, so that an alias to a long text is not free either."""

Where = tuple[str | int, ...]
"""The way from the root to a value: names of mappings, indexes of lists."""

MERGE = "<<"
EMPTY = "the file is empty"

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_FIRST = frozenset("0123456789+-.~nNtTfF")
_TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "float", "bool", "null", "map", "seq")}
_NUMBERS = range(-(2**63), 2**64)


class Node:
    """One value: its plain ``data``, where it begins and ends (offsets in the text), and its parts.

    ``children`` holds the parts of a mapping by name and those of a list by index, ``keys`` where each name stands;
    both are empty for a scalar. ``block`` is true for a ``|`` or ``>`` text; ``broken`` is true when a problem was
    found in the value itself, so that nothing more need be said about it. ``size`` counts values with aliases expanded.
    """

    __slots__ = ("at", "block", "broken", "children", "data", "end", "keys", "plain", "size")

    def __init__(self, at: int, end: int) -> None:
        self.at, self.end = at, end
        self.data: Any = None
        self.children: dict[str | int, Node] = _NO_CHILDREN
        self.keys: dict[str | int, int] = _NO_KEYS
        self.size = 1
        self.block = self.plain = self.broken = False

    def child(self, part: str | int) -> Node | None:
        """The part of a mapping or list that is called so; an index may be given as text too."""
        if isinstance(self.data, list) and isinstance(part, str) and part.isdecimal():
            part = int(part)
        return self.children.get(part)


_NO_CHILDREN: dict[str | int, Node] = {}
_NO_KEYS: dict[str | int, int] = {}


Report = Callable[[int, str, str], None]
"""Takes an offset, a message and a hint."""


def parse(text: str, report: Report) -> Node | None:
    """The tree of ``text``, or None when it cannot be read as a whole; everything that is wrong goes to ``report``."""
    try:
        check_characters(text)
        return _Composer(text, report).document()
    except yaml_error.MarkedYAMLError as error:
        report(*explain(text, error.context, _index(error.context_mark), error.problem, _index(error.problem_mark)))
    except Unreadable as error:
        report(error.at, error.message, error.hint)
    return None


def _index(mark: Any) -> int | None:
    return None if mark is None else int(mark.index)


class _Composer:
    """Builds the tree of one document from the parser's events."""

    def __init__(self, text: str, report: Report) -> None:
        self._next: Callable[[], Any] = cyaml.CParser(text).get_event  # type: ignore[attr-defined]
        self._report = report
        self._anchors: dict[str, Node | None] = {}
        self._count = 0
        self._depth = 0

    def document(self) -> Node:
        """The only document of the text; raises syntax.Unreadable when there is none, or a second one."""
        self._next()
        event = self._next()
        if isinstance(event, yaml_events.StreamEndEvent):
            raise Unreadable(0, EMPTY)
        root = self._node(self._next())
        self._next()
        event = self._next()
        if not isinstance(event, yaml_events.StreamEndEvent):
            raise Unreadable(event.start_mark.index, "a second document begins here, a file holds one")
        return root

    def _node(self, event: Any) -> Node:
        if type(event) is yaml_events.AliasEvent:
            return self._alias(event)
        before = self._count
        self._grow(event.start_mark.index, 1)
        node = Node(event.start_mark.index, event.end_mark.index)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._fill(node, event)
        node.size = self._count - before
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _fill(self, node: Node, event: Any) -> None:
        if type(event) is yaml_events.ScalarEvent:
            self._scalar(node, event)
            return
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable(node.at, f"nested deeper than {MAX_DEPTH} levels")
        if type(event) is yaml_events.MappingStartEvent:
            self._check_tag(node, event, "map")
            self._mapping(node)
        else:
            self._check_tag(node, event, "seq")
            self._sequence(node)
        self._depth -= 1

    def _grow(self, at: int, size: int) -> None:
        self._count += size
        if self._count > MAX_VALUES:
            raise Unreadable(at, f"more than {MAX_VALUES:,} values, those that aliases repeat included")

    def _alias(self, event: Any) -> Node:
        at = event.start_mark.index
        node = self._anchors.get(event.anchor)
        if node is not None:
            self._grow(at, node.size)
            return node
        if event.anchor in self._anchors:
            self._report(at, f"alias '*{event.anchor}' stands inside its own value", "")
        else:
            hint = errors.did_you_mean(event.anchor, self._anchors)
            self._report(at, f"unknown alias '*{event.anchor}'", hint or "an anchor is written &name, above its alias")
        broken = Node(at, event.end_mark.index)
        broken.broken = True
        return broken

    def _check_tag(self, node: Node, event: Any, kind: str) -> None:
        tag = event.tag
        if tag is not None and tag != "!" and _TAGS.get(tag) != kind:
            self._refuse(node, f"tag '{_tag_text(tag)}' does not fit here", "leave it out")

    def _refuse(self, node: Node, message: str, hint: str = "") -> None:
        node.broken = True
        self._report(node.at, message, hint)

    def _scalar(self, node: Node, event: Any) -> None:
        text: str = event.value
        if len(text) >= WEIGHT:
            self._grow(node.at, len(text) // WEIGHT)
        node.block = event.style in ("|", ">")
        node.plain = not event.style
        node.data = text
        if event.tag is not None and event.tag != "!":
            self._tagged(node, event.tag, text)
        elif event.implicit[0]:
            self._plain(node, text)

    def _plain(self, node: Node, text: str) -> None:
        if text and text[0] not in _FIRST:
            return
        try:
            node.data = resolve(text)
        except ValueError:
            self._refuse(node, "a number that JSON cannot carry", "put it in quotes to keep it as text")

    def _tagged(self, node: Node, tag: str, text: str) -> None:
        kind = _TAGS.get(tag)
        if kind == "str":
            return
        self._plain(node, text)
        wanted = {"int": int, "float": int | float, "bool": bool, "null": type(None)}.get(kind or "")
        if not node.broken and (wanted is None or not isinstance(node.data, wanted)):
            self._refuse(node, f"tag '{_tag_text(tag)}' does not fit here", "leave it out")

    def _sequence(self, node: Node) -> None:
        node.data, node.children = [], {}
        for index, event in enumerate(self._until(node, yaml_events.SequenceEndEvent)):
            child = self._node(event)
            node.children[index] = child
            node.data.append(child.data)

    def _until(self, node: Node, last: Any) -> Iterator[Any]:
        event: Any = self._next()
        while type(event) is not last:
            yield event
            event = self._next()
        node.end = int(event.end_mark.index)

    def _mapping(self, node: Node) -> None:
        node.keys, node.children = {}, {}
        inherited: list[Node] = []
        for event in self._until(node, yaml_events.MappingEndEvent):
            key = self._node(event)
            value = self._node(self._next())
            if not isinstance(key.data, str):
                self._bad_key(node, key)
            elif key.data in node.keys or (inherited and key.plain and key.data == MERGE):
                self._report(key.at, f"duplicate key '{key.data}'", "")
            elif key.plain and key.data == MERGE:
                inherited.append(value)
            else:
                node.keys[key.data], node.children[key.data] = event.start_mark.index, value
        if inherited:
            self._merge(node, inherited[0])
        node.data = {name: child.data for name, child in node.children.items()}

    def _bad_key(self, node: Node, key: Node) -> None:
        """``a: {{ b }}`` without quotes is a mapping whose key is a mapping: the commonest slip of all."""
        node.broken = True
        if isinstance(key.data, dict):
            self._report(node.at, *BARE_TEMPLATE)
        elif not key.broken:
            self._report(key.at, "a key must be text", "put it in quotes")

    def _merge(self, node: Node, source: Node) -> None:
        """What is inherited comes first, in the order of its source; what the mapping says itself replaces it."""
        sources = list(source.children.values()) if isinstance(source.data, list) else [source]
        own_keys, own = node.keys, node.children
        node.keys, node.children = {}, {}
        for one in sources:
            if not isinstance(one.data, dict) and not one.broken:
                self._report(one.at, "'<<' takes a mapping, or a list of mappings", "")
            for name, child in one.children.items() if isinstance(one.data, dict) else ():
                node.keys.setdefault(name, one.keys[name])
                node.children.setdefault(name, child)
        node.broken = node.broken or any(one.broken for one in sources)
        node.keys.update(own_keys)
        node.children.update(own)


def resolve(text: str) -> Any:
    """The value of a plain scalar; raises ValueError for a number that JSON cannot carry."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return _finite(float(text))
    if _SPECIAL.fullmatch(text):
        raise ValueError(text)
    return text


def _integer(text: str) -> int:
    if len(text) > 30:
        raise ValueError(text)
    value = int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    if value not in _NUMBERS:
        raise ValueError(text)
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(value)
    return value


def _tag_text(tag: str) -> str:
    return f"!!{_TAGS[tag]}" if tag in _TAGS else tag.replace("tag:yaml.org,2002:", "!!")
