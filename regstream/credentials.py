"""Tokens and what they are good for: ``role:token`` pairs, as text and as a file."""

from __future__ import annotations

import pathlib
import re
from typing import Literal, NamedTuple, get_args

import pydantic

Role = Literal["read", "control", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""What a token may do; each role may do what those before it may, too."""
SHORT = 16
"""A token of fewer characters can be guessed."""

_LONGEST = 512
_LARGEST = 64 * 1024
# No space, comma, semicolon or double quote: it has to stand in a header, and in the list that it came from
_TOKEN = re.compile(rf"[!#-+./0-:<-~-]{{1,{_LONGEST}}}")


class Token(NamedTuple):
    """Something secret that its bearer says, and the role that it gives."""

    role: Role
    secret: pydantic.SecretStr


def parse(text: str) -> tuple[Token, ...]:
    """The pairs in ``text``, with spaces, commas or line ends between them.

    Raises ValueError that says which pair is wrong by its number, never by what it says.
    """
    return _distinct([_pair(one, f"pair {number}") for number, one in enumerate(re.split(r"[\s,]+", text.strip()), 1)])


def read(path: str) -> tuple[Token, ...]:
    """The pairs in a file, one a line; a line that begins with ``#`` is a comment.

    Raises ValueError that says what is wrong with the file, or with which of its lines.
    """
    try:
        with pathlib.Path(path).open("rb") as file:
            lines = file.read(_LARGEST + 1).decode().splitlines()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is no text in UTF-8"
        raise ValueError(f"the file cannot be read ({why}), write one role:token pair a line into it") from None
    if sum(map(len, lines)) > _LARGEST:
        raise ValueError(f"the file is larger than {_LARGEST // 1024} kB, write one role:token pair a line into it")
    said = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    found = [_pair(line, f"line {number}") for number, line in said if line and not line.startswith("#")]
    if not found:
        raise ValueError("the file holds no token, write one role:token pair a line into it")
    return _distinct(found)


def _pair(text: str, place: str) -> Token:
    role, colon, secret = text.partition(":")
    known = next((one for one in ROLES if one == role), None)
    if known is None or not colon:
        raise ValueError(f"{place} has no role, write role:token with one of the roles {' '.join(ROLES)}")
    if not _TOKEN.fullmatch(secret):
        cure = f"up to {_LONGEST} letters, digits and signs, without spaces, commas, semicolons and double quotes"
        raise ValueError(f"the token of {place} cannot be used, write {cure}, for example: openssl rand -hex 24")
    return Token(known, pydantic.SecretStr(secret))


def _distinct(found: list[Token]) -> tuple[Token, ...]:
    roles: dict[str, str] = {}
    for number, (role, secret) in enumerate(found, 1):
        if roles.setdefault(secret.get_secret_value(), role) != role:
            raise ValueError(f"token {number} was given another role before, give each role a token of its own")
    return tuple(found)


def may(role: Role, wanted: Role) -> bool:
    """Whether ``role`` is good for what needs ``wanted``."""
    return ROLES.index(role) >= ROLES.index(wanted)
