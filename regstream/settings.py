"""What is fixed from start to stop: the environment, typed, with the flags of the command line over it.

Each variable is declared once, in ``VARIABLES``: its default, its check and its description, from which the messages
and ``docs/configuration.md`` come too. A secret is never shown.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib
import re
import urllib.parse
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

import pydantic

from regstream import errors

PARTS = (
    "broker", "clock", "config", "daemon", "engine", "generate", "hub", "reload", "scenario", "server", "store",
)  # fmt: skip
"""What ``DEBUG=streaming:PART`` may name; the logger of a part is ``regstream.PART``."""
PREFIXES = ("STREAMING_", "VPS_", "REGSTREAM_")
"""A variable that begins so is meant for this program."""

_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?")
_ENV = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_ORIGIN = re.compile(r"https?://([a-z0-9*][a-z0-9.*-]{0,252}|\[[0-9a-f:.]+\])(:(\d{1,5}|\*))?", re.IGNORECASE)
_RATE = re.compile(r"(\d{1,9})\s*/\s*(second|minute|hour|day)")
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*):[0-9]{1,5}")
_DATABASE = re.compile(r"postgres(ql)?://\S+|(\s*[a-z_]+\s*=\s*('([^'\\\\]|\\\\.)*'|[^\s']+)\s*)+")
_KEPT = re.compile(r"(\d{1,5})\s*(d|h)")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_LONGEST = 80


class Rate(NamedTuple):
    """How often something may be done: at most ``times`` in ``seconds``."""

    times: int
    seconds: int


def _switch(text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise ValueError("neither true nor false, write one of " + " ".join(_SWITCH))
    return _SWITCH[text.lower()]


def _host(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not _HOST.fullmatch(bare) and _address(bare) is None:
        raise ValueError("not an address to listen on, write 127.0.0.1, ::1, a host name, or 0.0.0.0 for every address")
    return bare


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError("not a port, write a whole number from 0 to 65535; 0 takes any free one")
    return int(text)


def _label(text: str) -> str:
    if len(text) > 64 or not text.isprintable():
        raise ValueError("not a name, write at most 64 characters without control characters")
    return text


def _env(text: str) -> str:
    if not _ENV.fullmatch(text):
        raise ValueError("not a profile's name, write letters, digits, - and _, for example production")
    return text


def _debug(text: str) -> tuple[str, ...]:
    # Other programs read DEBUG too: what does not begin with our word is not for us.
    patterns = [one.removeprefix("streaming:") for one in re.split(r"[\s,]+", text) if one.startswith("streaming:")]
    for pattern in patterns:
        if not any(fnmatchcase(part, pattern) for part in PARTS):
            hint = errors.did_you_mean(pattern, PARTS) or "the parts are " + " ".join(PARTS)
            raise ValueError(f"no part is called {pattern!r}, {hint}")
    return tuple(part for part in PARTS if any(fnmatchcase(part, pattern) for pattern in patterns))


def _origins(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_origin(one) for one in re.split(r"[\s,]+", text) if one))


def _origin(text: str) -> str:
    if text != "*" and not _ORIGIN.fullmatch(text):
        raise ValueError(f"{text!r} is not an origin, write scheme://host or scheme://host:port, without a path")
    return text


def _servers(text: str) -> tuple[str, ...]:
    servers = tuple(one.strip() for one in text.split(",") if one.strip())
    for one in servers:
        if not _SERVER.fullmatch(one) or not 0 < int(one.rpartition(":")[2]) < 65536:
            raise ValueError(f"{one!r} is not a server, write host:port, several with commas between them")
    return servers


def _one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.upper() not in names:
            raise ValueError(f"write one of {' '.join(names)}")
        return text.upper()

    return parse


def _window(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) > 1000:
        raise ValueError("not a window, write whole milliseconds from 0 to 1000; 0 turns it off")
    return int(text)


def _database(text: str) -> pydantic.SecretStr:
    if text and not _DATABASE.fullmatch(text):
        raise ValueError("not an address of PostgreSQL, write postgresql://user:password@host:5432/database")
    return pydantic.SecretStr(text)


def _retention(text: str) -> int | None:
    if not text:
        return None
    match = _KEPT.fullmatch(text.lower())
    if match is None or int(match[1]) == 0:
        raise ValueError("not a time to keep events for, write a whole number of days or hours, 30d or 12h")
    return int(match[1]) * (86400 if match[2] == "d" else 3600)


def _rate(text: str) -> Rate:
    match = _RATE.fullmatch(text.lower())
    if match is None or int(match[1]) == 0:
        raise ValueError("not a rate, write 60/minute, or a whole number per second, minute, hour or day")
    return Rate(int(match[1]), _SECONDS[match[2]])


@dataclasses.dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable.

    ``default`` is text as one would write it, empty for a variable that is unset by default; ``field`` is the field of
    ``Settings`` that it fills, empty when this version has no use for the value. ``parse`` raises ValueError with the
    cure. ``alias`` is read when the variable is unset. ``notice`` is said when it is set, ``refused`` is why it must
    not be.
    """

    name: str
    default: str
    description: str
    field: str = ""
    parse: Callable[[str], object] = str
    secret: bool = False
    alias: str = ""
    notice: str = ""
    refused: str = ""


PROTOCOLS = ("PLAINTEXT", "SASL_PLAINTEXT", "SSL", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_NO_TOKENS = "this version has no authentication and would serve unguarded: unset it"

VARIABLES: tuple[Variable, ...] = (
    Variable(
        "ENABLE_STREAMING",
        "true",
        "`false`: API, page and WebSocket serve, nothing is generated",
        "streaming",
        _switch,
    ),
    Variable("STREAMING_HOST", "127.0.0.1", "address on which the daemon listens", "host", _host),
    Variable("STREAMING_PORT", "3001", "port on which the daemon listens; `0` takes any free one", "port", _port),
    Variable(
        "KAFKA_BROKER",
        "",
        "bootstrap servers of Kafka, comma separated, `host:port`; unset: simulation",
        "kafka_servers",
        _servers,
    ),
    Variable(
        "KAFKA_SECURITY_PROTOCOL",
        "PLAINTEXT",
        "how to talk to Kafka: " + ", ".join(f"`{one}`" for one in PROTOCOLS),
        "kafka_protocol",
        _one_of(PROTOCOLS),
    ),
    Variable(
        "KAFKA_SASL_MECHANISM",
        "PLAIN",
        "how to log in to Kafka: " + ", ".join(f"`{one}`" for one in MECHANISMS),
        "kafka_mechanism",
        _one_of(MECHANISMS),
    ),
    Variable("KAFKA_SASL_USERNAME", "", "user at Kafka", "kafka_username"),
    Variable("KAFKA_SASL_PASSWORD", "", "password at Kafka", "kafka_password", pydantic.SecretStr, secret=True),
    Variable("KAFKA_SSL_CA", "", "file with the certificates of those who sign for Kafka, PEM", "kafka_ca"),
    Variable("KAFKA_SSL_CERT", "", "file with the client's certificate, PEM", "kafka_cert"),
    Variable("KAFKA_SSL_KEY", "", "file with the client's key, PEM", "kafka_key"),
    Variable(
        "REGSTREAM_STATE",
        ".regstream",
        "folder for what has to outlive the process: events that wait for Kafka; when it is unset, systemd's "
        "`STATE_DIRECTORY` is read in its place",
        "state",
        pathlib.Path,
        alias="STATE_DIRECTORY",
    ),
    Variable(
        "DELIVERY_WINDOW",
        "5",
        "milliseconds in which what is due gathers, so that it leaves in one write a reader, while there are many; `0` "
        "turns it off",
        "window",
        _window,
    ),
    Variable(
        "DATABASE_URL",
        "",
        "PostgreSQL 15 or newer in which every event is kept, `postgresql://user:password@host:5432/database`; unset: "
        "nothing is stored, history is the ring in memory",
        "database",
        _database,
        secret=True,
    ),
    Variable(
        "RETENTION",
        "",
        "how long events are kept in the database, `30d` or `12h`; what is older goes a whole day at a time; unset: "
        "for ever",
        "retention",
        _retention,
    ),
    Variable(
        "VPS_SERVER_NAME", "VPS-DataStreamer", "name of this server, in every event's `source`", "server_name", _label
    ),
    Variable("VPS_REGION", "LATAM", "region of this server, in every event's `source` and `region`", "region", _label),
    Variable(
        "REGSTREAM_ENV",
        "development",
        "picks the profile in `streams.yaml`; when it is unset, `NODE_ENV` is read in its place",
        "env",
        _env,
        alias="NODE_ENV",
    ),
    Variable(
        "DEBUG",
        "",
        "debug logging of parts: `streaming:*`, or `streaming:broker,streaming:hub`; values of other programs are "
        "ignored",
        "debug",
        _debug,
    ),
    Variable(
        "REGSTREAM_TOKENS",
        "",
        "`role:token` pairs; this version has no authentication and does not start when it is set",
        secret=True,
        refused=_NO_TOKENS,
    ),
    Variable(
        "REGSTREAM_TOKENS_FILE",
        "",
        "a file of `role:token` pairs; this version has no authentication and does not start when it is set",
        refused=_NO_TOKENS,
    ),
    Variable(
        "CORS_ORIGINS",
        "http://localhost:* http://127.0.0.1:*",
        "origins whose pages may use this daemon, over HTTP and WebSocket, separated by spaces or commas; `*` stands "
        "for any part of the host, for any port, or alone for every origin",
        "cors_origins",
        _origins,
    ),
    Variable(
        "RATE_LIMIT",
        "60/minute",
        "how often a client may use the control routes; this version checks the form and limits nothing",
        "rate_limit",
        _rate,
        notice="RATE_LIMIT is set, but this version does not limit how often a client asks",
    ),
)


class Settings(pydantic.BaseModel):
    """What is fixed from start to stop; made by ``load``. Its secrets do not show themselves."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    streaming: bool
    """False: everything serves, nothing is generated."""
    host: str
    """Address to listen on, an IPv6 one without brackets."""
    port: int
    """Port to listen on; 0 takes any free one."""
    server_name: str
    """Who this server is."""
    region: str
    """Where this server is."""
    env: str
    """Name of the profile in force."""
    debug: tuple[str, ...]
    """Those of ``PARTS`` that log in detail."""
    cors_origins: tuple[str, ...]
    """Patterns of origins: ``*`` stands for any part of the host, for any port, or alone for every origin."""
    rate_limit: Rate
    """How often a client may use the control routes."""
    kafka_servers: tuple[str, ...] = ()
    """Bootstrap servers; none: simulation."""
    kafka_protocol: str = "PLAINTEXT"
    """One of ``PROTOCOLS``."""
    kafka_mechanism: str = "PLAIN"
    """One of ``MECHANISMS``."""
    kafka_username: str = ""
    """User at Kafka."""
    kafka_password: pydantic.SecretStr = pydantic.SecretStr("")
    """Password at Kafka; it does not show itself."""
    kafka_ca: str = ""
    """File of trusted certificates; empty: the system's."""
    kafka_cert: str = ""
    """File of the client's certificate; empty: none."""
    kafka_key: str = ""
    """File of the client's key."""
    database: pydantic.SecretStr = pydantic.SecretStr("")
    """Address of PostgreSQL; empty: nothing is stored. It does not show itself."""
    retention: int | None = None
    """Seconds for which events are kept in the database; None: for ever."""
    window: int = 5
    """Milliseconds in which what is due to readers may gather."""
    state: pathlib.Path = pathlib.Path(".regstream")
    """Folder for what has to outlive the process."""
    streams: pathlib.Path
    """The streams file."""
    scenarios: pathlib.Path
    """The folder of scenario files."""
    templates: pathlib.Path
    """The folder of template files."""
    notices: tuple[str, ...] = ()
    """What an operator should know about these settings, one line each."""

    @property
    def source(self) -> str:
        """The ``source`` of every event, a URI reference: ``/regstream/{region}/{server_name}``."""
        return "/regstream/" + "/".join(urllib.parse.quote(one, safe="") for one in (self.region, self.server_name))


def load(
    environ: Mapping[str, str],
    *,
    streams: pathlib.Path | str | None = None,
    scenarios: pathlib.Path | str | None = None,
    templates: pathlib.Path | str | None = None,
    host: str | None = None,
    port: int | str | None = None,
) -> Settings:
    """The settings of ``environ``, with the flags that are given over them; an empty variable counts as unset.

    Raises SettingsError, naming the variable or the flag and the cure, for the first value that cannot be used.
    """
    for one in VARIABLES:
        if one.refused and _text(one.name, environ):
            raise _error(one, one.name, environ[one.name], one.refused)
    flags = {field: str(flag) for field, flag in (("host", host), ("port", port)) if flag is not None}
    values = {one.field: _value(one, environ, flags) for one in VARIABLES if one.field}
    paths = {
        "streams": _path("--streams", streams, "streams.yaml"),
        "scenarios": _path("--scenarios", scenarios, "scenarios"),
        "templates": _path("--templates", templates, "templates"),
    }
    notices = (*_notices(environ), *_exposed(str(values["host"])))
    return Settings.model_validate({**values, **paths, "notices": notices})


def _value(variable: Variable, environ: Mapping[str, str], flags: Mapping[str, str]) -> object:
    name, text = variable.name, _text(variable.name, environ)
    if variable.field in flags:
        name, text = f"--{variable.field}", flags[variable.field].strip()
    elif not text and variable.alias:
        name, text = variable.alias, _text(variable.alias, environ)
    if not text and variable.field not in flags:
        text = variable.default
    try:
        return variable.parse(text)
    except ValueError as error:
        raise _error(variable, name, text, str(error)) from None


def _text(name: str, environ: Mapping[str, str]) -> str:
    return environ.get(name, "").strip()


def _error(variable: Variable, name: str, text: str, reason: str) -> errors.SettingsError:
    short = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return errors.SettingsError(name, "***" if variable.secret else short, reason)


def _path(flag: str, value: pathlib.Path | str | None, default: str) -> pathlib.Path:
    text = default if value is None else str(value)
    if not text or "\0" in text:
        raise errors.SettingsError(flag, text, "not a path")
    return pathlib.Path(text)


def _notices(environ: Mapping[str, str]) -> list[str]:
    known = {_tail(one.name): one.name for one in VARIABLES}
    strange = sorted(name for name in environ if name.startswith(PREFIXES) and name not in known.values())
    said = [one.notice for one in VARIABLES if one.notice and _text(one.name, environ)]
    return said + [_unknown(name, known) for name in strange]


def _unknown(name: str, known: Mapping[str, str]) -> str:
    # Without their prefixes, which would make any two of our names look alike.
    meant = [known[tail] for tail in errors.near(_tail(name), known)]
    hint = f", did you mean {' or '.join(meant)}?" if meant else ""
    return f"{name} is not a variable of regstream and has no effect{hint}"


def _tail(name: str) -> str:
    return next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)


def _exposed(host: str) -> list[str]:
    address = _address(host)
    inside = host.lower() == "localhost" if address is None else address.is_loopback
    return [] if inside else [f"{host} can be reached from other machines, and this version has no authentication"]
