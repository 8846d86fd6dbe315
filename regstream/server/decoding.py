"""JSON from outside, however it came in: what is nested deeper than anything that is asked for is refused unread.

Parsers bound the nesting too, each by another number, and what one takes in another cannot write down again.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

MAX_DEPTH = 64
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_ALIKE = bytes.maketrans(b"{}", b"[]")


class TooDeep(ValueError):
    """JSON nested deeper than ``MAX_DEPTH``."""

    def __str__(self) -> str:
        return f"nested deeper than {MAX_DEPTH} levels, which nothing asked for here is: flatten it"


def bound(text: bytes) -> None:
    """Raises TooDeep. What is no JSON passes, for a parser to say where it is none."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return
    left = _STRING.sub(b"", text).translate(_ALIKE, _OTHERS)
    for _ in range(MAX_DEPTH):
        # Each time the innermost level of everything goes
        left = left.replace(b"[]", b"")
    if b"[]" in left:
        raise TooDeep


def loads(text: str | bytes) -> Any:
    """What ``text`` says. Raises ValueError for what is no JSON, and TooDeep."""
    bound(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return orjson.loads(text)
