"""From the text of a variable to its value; each raises ValueError with the cure, which never holds what is secret."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import NamedTuple

import pydantic

from regstream import credentials, errors

PARTS = (
    "broker", "clock", "config", "daemon", "engine", "generate", "hub", "reload", "scenario", "server", "store",
)  # fmt: skip
"""What ``DEBUG=streaming:PART`` may name; the logger of a part is ``regstream.PART``."""

FORMS = ("text", "json")
"""How the log may be written."""
EXPORTERS = ("none", "otlp")
"""Where traces may go."""
_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?")
_ENV = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_ORIGIN = re.compile(r"https?://([a-z0-9*][a-z0-9.*-]{0,252}|\[[0-9a-f:.]+\])(:(\d{1,5}|\*))?", re.IGNORECASE)
_RATE = re.compile(r"(\d{1,9})\s*/\s*(second|minute|hour|day)")
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*):[0-9]{1,5}")
# RFC 3986, section 3: what means something in an address stands percent-encoded everywhere else
_PLAIN = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|[^\x00-\x7f\s]|%(?!00)[0-9A-Fa-f]{2})"
_PLACE = r"(?:\[[0-9A-Fa-f:.%]+\]|(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?"
_DATABASE_URL = re.compile(
    rf"postgres(?:ql)?://(?!$)(?:(?P<user>{_PLAIN}*)(?::(?P<password>(?:{_PLAIN}|:)*))?@)?"
    rf"(?P<hosts>{_PLACE}(?:,{_PLACE})*)(?:/(?P<name>(?:{_PLAIN}|:)*))?"
    r"(?:\?(?P<options>[a-z_]+=[^@?#&\s]*(?:&[a-z_]+=[^@?#&\s]*)*))?"
)
_DATABASE_WORDS = re.compile(r"\s*([a-z_]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)+)(?:\s+|$)")
_SECRET_WORDS = ("password", "sslpassword")
_KEPT = re.compile(r"(\d{1,5})\s*(d|h)")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


class RateLimit(NamedTuple):
    """How often something may be done: at most ``times`` in ``seconds``."""

    times: int
    seconds: int


def switch(text: str) -> bool:
    """A yes or no, in whatever words."""
    if text.lower() not in _SWITCH:
        raise ValueError("neither true nor false, write one of " + " ".join(_SWITCH))
    return _SWITCH[text.lower()]


def host(text: str) -> str:
    """An address or a name to listen on, an IPv6 one without brackets."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not _HOST.fullmatch(bare) and address(bare) is None:
        raise ValueError("not an address to listen on, write 127.0.0.1, ::1, a host name, or 0.0.0.0 for every address")
    return bare


def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that ``text`` is, None for a name."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def port(text: str) -> int:
    """A port."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError("not a port, write a whole number from 0 to 65535; 0 takes any free one")
    return int(text)


def label(text: str) -> str:
    """A name that people read."""
    if len(text) > 64 or not text.isprintable():
        raise ValueError("not a name, write at most 64 characters without control characters")
    return text


def env(text: str) -> str:
    """The name of a profile."""
    if not _ENV.fullmatch(text):
        raise ValueError("not a profile's name, write letters, digits, - and _, for example production")
    return text


def debug(text: str) -> tuple[str, ...]:
    """Those of ``PARTS`` that the patterns with our word mean."""
    # Other programs read DEBUG too: what does not begin with our word is not for us.
    patterns = [one.removeprefix("streaming:") for one in re.split(r"[\s,]+", text) if one.startswith("streaming:")]
    for pattern in patterns:
        if not any(fnmatchcase(part, pattern) for part in PARTS):
            hint = errors.did_you_mean(pattern, PARTS) or "the parts are " + " ".join(PARTS)
            raise ValueError(f"no part is called {pattern!r}, {hint}")
    return tuple(part for part in PARTS if any(fnmatchcase(part, pattern) for pattern in patterns))


def origins(text: str) -> tuple[str, ...]:
    """Patterns of origins, each once."""
    return tuple(dict.fromkeys(origin(one) for one in re.split(r"[\s,]+", text) if one))


def origin(text: str) -> str:
    """One pattern of an origin."""
    if text != "*" and not _ORIGIN.fullmatch(text):
        raise ValueError(f"{text!r} is not an origin, write scheme://host or scheme://host:port, without a path")
    return text


def servers(text: str) -> tuple[str, ...]:
    """Addresses ``host:port``, none for an empty text."""
    found = tuple(one.strip() for one in text.split(",") if one.strip())
    for one in found:
        if not _SERVER.fullmatch(one) or not 0 < int(one.rpartition(":")[2]) < 65536:
            raise ValueError(f"{one!r} is not a server, write host:port, several with commas between them")
    return found


def one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    """What takes one of these names, in any letter case."""

    def parse(text: str) -> str:
        found = [name for name in names if name.upper() == text.upper()]
        if not found:
            raise ValueError(f"write one of {' '.join(names)}")
        return found[0]

    return parse


def whole(low: int, high: int, what: str, rest: str = "") -> Callable[[str], int]:
    """What takes a whole number of ``what`` within these bounds; ``rest`` ends its message."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"not a number of {what}, write a whole one from {low} to {high}{rest}")
        return int(text)

    return parse


def tokens(text: str) -> tuple[credentials.Token, ...]:
    """``role:token`` pairs, none for an empty text."""
    return credentials.parse(text) if text else ()


def token_file(text: str) -> tuple[credentials.Token, ...]:
    """The pairs in the file of that name, none for an empty text."""
    return credentials.read(text) if text else ()


def database(text: str) -> pydantic.SecretStr:
    """The address of PostgreSQL, which does not show itself."""
    if text and not (database_words(text) if "://" not in text else _is_database_url(text)):
        form = "postgresql://user:password@host:5432/database"
        cure = "percent-encode special characters of the password (@ %40, : %3A, / %2F, ? %3F, # %23, % %25, space %20)"
        raise ValueError(f"not an address of PostgreSQL, write {form} and {cure}")
    return pydantic.SecretStr(text)


def _is_database_url(text: str) -> bool:
    try:
        # Encoded bytes that are no text end the library with an error of its own
        urllib.parse.unquote(text, errors="strict")
    except UnicodeDecodeError:
        return False
    return _DATABASE_URL.fullmatch(text) is not None


def database_words(text: str) -> dict[str, str]:
    """The parts of an address that ``database`` takes, as written, by the keywords of libpq; of another one none."""
    if match := _DATABASE_URL.fullmatch(text):
        options = (one.partition("=") for one in (match["options"] or "").split("&"))
        named = {"user": match["user"], "password": match["password"], "host": match["hosts"], "dbname": match["name"]}
        return {name: value for name, value in named.items() if value} | {name: value for name, _, value in options}
    found, place = {}, 0
    while match := _DATABASE_WORDS.match(text, place):
        found[match[1]], place = match[2][1:-1] if match[2].startswith("'") else match[2], match.end()
    return found if place == len(text) else {}


def database_secrets(text: str) -> tuple[list[str], list[str]]:
    """Of an address what must not be shown, and what may be."""
    words = database_words(text)
    secret = [words.pop(one) for one in _SECRET_WORDS if one in words]
    return [*secret, *(re.sub(r"\\(.)", r"\1", one) for one in secret)], list(words.values())


def file(text: str) -> str:
    """The name of a file."""
    if "-----BEGIN" in text or not text.isprintable():
        raise ValueError("not the name of a file, write what it holds into a file and its name here")
    return text


def retention(text: str) -> int | None:
    """A time in seconds, None for an empty text."""
    if not text:
        return None
    match = _KEPT.fullmatch(text.lower())
    if match is None or int(match[1]) == 0:
        raise ValueError("not a time to keep events for, write a whole number of days or hours, 30d or 12h")
    return int(match[1]) * (86400 if match[2] == "d" else 3600)


def rate(text: str) -> RateLimit:
    """How often in which time."""
    match = _RATE.fullmatch(text.lower())
    if match is None or int(match[1]) == 0:
        raise ValueError("not a rate, write 60/minute, or a whole number per second, minute, hour or day")
    return RateLimit(int(match[1]), _SECONDS[match[2]])
