"""What the parser says about broken YAML, in words that name the cure; and where offsets stand in a text."""

from __future__ import annotations

import array
import bisect
import functools
import itertools
import re

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


class Lines:
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
