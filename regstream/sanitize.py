"""Text on its way out, to a log, a terminal or an answer: without secrets, whoever wrote it, and without control
characters.

A library quotes what it was given, and may quote a part: of a password with an unescaped ``@`` what follows it passes
for a host. So it is not the secret that is looked for, but every piece of it.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator

MASK = "***"
PIECE = 5
"""Text that has so many characters in a row in common with a secret holds a part of it."""
SHORTEST = 3
"""A part of a secret between two of its special characters, or a whole one, that is shorter is not looked for."""

_PARTS = re.compile(r"[^A-Za-z0-9_\x80-\U0010ffff]+")
# In every sentence of ours
_PUBLIC = ("regstream", "postgresql", "postgres", "password", "database", "kafka", "bearer", "localhost", "127.0.0.1")
# Unicode's control characters (C0, C1), line and paragraph separators, bidirectional controls, and half characters
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Redactor:
    """Knows secrets, and takes every part of them out of texts."""

    def __init__(self) -> None:
        self._pieces: set[str] = set()
        self._words: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def remember(self, secrets: Iterable[str], public: Iterable[str] = ()) -> None:
        """Look for ``secrets`` from now on; what they share with a word that is ``public`` is left in texts."""
        known = [_folded(one) for one in (*_PUBLIC, *public)]
        shown = {piece for one in known for piece in _pieces(one)} | {
            part for one in known for part in _PARTS.split(one)
        }
        for secret in secrets:
            for form in map(_folded, _forms(secret)):
                self._pieces |= set(_pieces(form)) - shown
                self._words |= {one for one in (form, *_PARTS.split(form)) if SHORTEST <= len(one) < PIECE} - shown
        words = "|".join(map(re.escape, sorted(self._words, key=len, reverse=True)))
        self._pattern = re.compile(rf"(?<![a-z0-9])(?:{words})(?![a-z0-9])") if words else None

    def redact(self, text: str) -> str:
        """``text`` with ``MASK`` in place of every part of a secret."""
        if not self._pieces and self._pattern is None:
            return text
        kept, end = [], 0
        for begin, after in _merged(sorted(self._found(_folded(text)))):
            kept += [text[end:begin], MASK]
            end = after
        return "".join(kept) + text[end:]

    def _found(self, folded: str) -> Iterator[tuple[int, int]]:
        pieces = self._pieces
        for begin in range(len(folded) - PIECE + 1):
            if folded[begin : begin + PIECE] in pieces:
                yield begin, begin + PIECE
        if self._pattern is not None:
            yield from (one.span() for one in self._pattern.finditer(folded))


def _folded(text: str) -> str:
    """Without letter case, as host names are compared, and as long as before."""
    return "".join(one.lower() if len(one.lower()) == 1 else one for one in text)


def _forms(secret: str) -> set[str]:
    """What a text may make of a secret: as it was given, decoded, encoded, and within quotation marks."""
    plain = urllib.parse.unquote(secret)
    forms = {secret, plain, urllib.parse.quote_plus(plain)}
    forms |= {urllib.parse.quote(plain, safe=safe) for safe in ("", "/")}
    return forms | {change(one)[1:-1] for one in (secret, plain) for change in (repr, json.dumps, _json)}


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _pieces(text: str) -> Iterator[str]:
    return (text[begin : begin + PIECE] for begin in range(len(text) - PIECE + 1))


def _merged(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    begin = end = -1
    for first, last in spans:
        if first > end:
            if begin >= 0:
                yield begin, end
            begin = first
        end = max(end, last)
    if begin >= 0:
        yield begin, end


_process = Redactor()
remember, redact = _process.remember, _process.redact
"""Those of this process, whose secrets are in its environment."""


def printable(text: str, keep: str = "") -> str:
    """``text`` with an escape like ``\\x1b`` in place of each character that steers a terminal or reorders a line.

    Those of ``keep`` stay as they are.
    """
    return _CONTROLS.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def printable_json(text: str, keep: str = "") -> str:
    """JSON that says the same as ``text``, with escapes in place of those characters but ``keep``."""
    return _CONTROLS.sub(lambda found: found[0] if found[0] in keep else f"\\u{ord(found[0]):04x}", text)


def _escape(character: str) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character) or (
        f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
    )
