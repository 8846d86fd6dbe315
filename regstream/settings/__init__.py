"""What is fixed from start to stop: the environment, typed, with the flags of the command line over it.

Each variable is declared once, in ``VARIABLES``: its default, its check and its description, from which the messages
and ``docs/configuration.md`` come too. A secret is never shown.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import re
import urllib.parse
from collections.abc import Mapping

import pydantic

from regstream import credentials, errors, sanitize
from regstream.settings.parsing import PARTS, RateLimit, address, database_secrets
from regstream.settings.variables import ENV, MECHANISMS, PROTOCOLS, VARIABLES, Variable

__all__ = [
    "COMMANDS",
    "ENV",
    "MECHANISMS",
    "PARTS",
    "PREFIXES",
    "PROTOCOLS",
    "VARIABLES",
    "RateLimit",
    "Settings",
    "Variable",
    "guarded",
    "hidden",
    "load",
]

PREFIXES = ("STREAMING_", "VPS_", "REGSTREAM_")
"""A variable that begins so is meant for this program."""
COMMANDS = ("REGSTREAM_URL", "REGSTREAM_TOKEN")
"""What the commands read that talk to a running daemon: where it is, and what to say to it."""

OTHERS = ("PGPASSWORD", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "REGSTREAM_TOKEN")
"""Variables of libraries and of the commands that hold secrets."""

_LONGEST = 80
_SHORT_NAME = 8
_SYNONYMS = {
    "KAFKA_BOOTSTRAP_SERVERS": "KAFKA_BROKER",
    "KAFKA_BOOTSTRAP_SERVER": "KAFKA_BROKER",
    "KAFKA_SERVERS": "KAFKA_BROKER",
    "KAFKA_USERNAME": "KAFKA_SASL_USERNAME",
    "KAFKA_PASSWORD": "KAFKA_SASL_PASSWORD",
}
"""What others call ours."""


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
    log: str
    """How the daemon logs: ``text`` or ``json``."""
    traces: str
    """Where traces go: ``none`` or ``otlp``."""
    cors_origins: tuple[str, ...]
    """Patterns of origins: ``*`` stands for any part of the host, for any port, or alone for every origin."""
    rate_limit: RateLimit
    """How often a client may use the control routes."""
    tokens: tuple[credentials.Token, ...]
    """Who may do what; none: everybody everything. Those of the file are ``tokens_of_file``."""
    tokens_of_file: tuple[credentials.Token, ...]
    """As ``tokens``, besides those."""
    proxies: int
    """How many proxies stand in front."""
    max_connections: int
    """How many connections may be open at once."""
    max_per_address: int
    """How many of them from one address, where no proxies stand in front."""
    kafka_servers: tuple[str, ...]
    """Bootstrap servers; none: simulation."""
    kafka_protocol: str
    """One of ``PROTOCOLS``."""
    kafka_mechanism: str
    """One of ``MECHANISMS``."""
    kafka_username: str
    """User at Kafka."""
    kafka_password: pydantic.SecretStr
    """Password at Kafka; it does not show itself."""
    kafka_ca: str
    """File of trusted certificates; empty: the system's."""
    kafka_cert: str
    """File of the client's certificate; empty: none."""
    kafka_key: str
    """File of the client's key."""
    database: pydantic.SecretStr
    """Address of PostgreSQL; empty: nothing is stored. It does not show itself."""
    retention: int | None
    """Seconds for which events are kept in the database; None: for ever."""
    window: int
    """Milliseconds in which what is due to readers may gather."""
    state: pathlib.Path
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
    def all_tokens(self) -> tuple[credentials.Token, ...]:
        """All tokens, from wherever."""
        return self.tokens + self.tokens_of_file

    def secrets(self) -> tuple[list[str], list[str]]:
        """What no text may hold any part of, and what of the same addresses may be shown."""
        hidden, shown = database_secrets(self.database.get_secret_value())
        hidden += [self.kafka_password.get_secret_value(), *(one.secret.get_secret_value() for one in self.all_tokens)]
        if self.kafka_key:
            # One that cannot be read is told of when it is needed
            with contextlib.suppress(OSError, ValueError):
                lines = pathlib.Path(self.kafka_key).read_text().splitlines()
                hidden += [one for one in lines if not one.startswith("-----")]
        return hidden, [*shown, self.kafka_username]

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
    flags = {field: str(flag) for field, flag in (("host", host), ("port", port)) if flag is not None}
    values = {one.field: _value(one, environ, flags) for one in VARIABLES}
    paths = {
        "streams": _path("--streams", streams, "streams.yaml"),
        "scenarios": _path("--scenarios", scenarios, "scenarios"),
        "templates": _path("--templates", templates, "templates"),
    }
    return Settings.model_validate({**values, **paths, "notices": (*_strange(environ), *_weak(values))})


def hidden(environ: Mapping[str, str]) -> list[str]:
    """The secrets that ``OTHERS`` hold, those of a header without its name."""
    found = []
    for name in OTHERS:
        text = environ.get(name, "")
        found += [one.partition("=")[2] for one in text.split(",")] if name.endswith("HEADERS") else [text]
    return found


def guarded(chosen: Settings, insecure: bool) -> Settings:
    """``chosen`` for a daemon that is to listen there, with what an operator should know about that.

    Raises SettingsError when other machines can reach it and nobody has to say who they are, unless that is meant to be
    so: ``insecure``.
    """
    if _is_inside(chosen.host):
        return chosen
    if chosen.all_tokens:
        notice = (
            f"{chosen.host} can be reached from other machines, and tokens go there in the clear unless TLS is in front"
        )
    elif insecure:
        notice = f"{chosen.host} can be reached from other machines, and whoever does may do everything"
    else:
        cure = "set REGSTREAM_TOKENS, or listen on 127.0.0.1, or let everybody do everything with --insecure"
        reason = f"other machines can reach that, and nobody would have to say who they are: {cure}"
        raise errors.SettingsError("STREAMING_HOST", chosen.host, reason)
    return chosen.model_copy(update={"notices": (*chosen.notices, notice)})


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
    hidden = variable.secret or "-----BEGIN" in text
    return errors.SettingsError(name, sanitize.MASK if hidden else short, reason)


def _path(flag: str, value: pathlib.Path | str | None, default: str) -> pathlib.Path:
    text = default if value is None else str(value)
    if not text or "\0" in text:
        raise errors.SettingsError(flag, text, "not a path")
    return pathlib.Path(text)


def _strange(environ: Mapping[str, str]) -> list[str]:
    known = {_tail(one.name): one.name for one in VARIABLES}
    ours = {*known.values(), *(one.alias for one in VARIABLES), *OTHERS} - set(COMMANDS)
    return [_unknown(name, known) for name in sorted(environ) if name not in ours and _seems_ours(name)]


def _seems_ours(name: str) -> bool:
    return name.upper().startswith(PREFIXES) or name in COMMANDS or bool(_misspelt(name))


def _misspelt(name: str) -> list[str]:
    """Variables whose name differs by a slip: letter case, underscores, order of words, one or two characters."""
    if (meant := _SYNONYMS.get(name.upper())) is not None:
        return [meant]
    words = re.split(r"[^A-Z0-9]+", name.upper()[:_LONGEST])
    orders = ("".join(words), "".join(sorted(words)))
    return [one.name for one in VARIABLES if any(map(_is_slip, orders, _orders(one.name)))]


@functools.cache
def _orders(name: str) -> tuple[str, str]:
    return name.replace("_", ""), "".join(sorted(name.split("_")))


def _is_slip(one: str, other: str) -> bool:
    """Whether few characters are wrong, missing, too many, or two neighbours swapped (Damerau and Levenshtein)."""
    most = 1 if len(other) < _SHORT_NAME else 2
    if abs(len(one) - len(other)) > most:
        return False
    older: list[int] = []
    old = list(range(len(other) + 1))
    for row, left in enumerate(one, 1):
        new = [row]
        for column, right in enumerate(other, 1):
            cost = min(old[column] + 1, new[-1] + 1, old[column - 1] + (left != right))
            if row > 1 and column > 1 and (left, one[row - 2]) == (other[column - 2], right):
                cost = min(cost, older[column - 2] + 1)
            new.append(cost)
        older, old = old, new
    return old[-1] <= most


def _unknown(name: str, known: Mapping[str, str]) -> str:
    # Without their prefixes, which would make any two of our names look alike.
    meant = _misspelt(name) or [known[tail] for tail in errors.near(_tail(name), known)]
    hint = f", did you mean {' or '.join(meant)}?" if meant else ""
    whose = "is for the commands that talk to a daemon" if name in COMMANDS else "is not a variable of regstream"
    return f"{name} {whose} and has no effect{hint}"


def _tail(name: str) -> str:
    return next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)


def _weak(values: Mapping[str, object]) -> list[str]:
    tokens = (*values["tokens"], *values["tokens_of_file"])  # type: ignore[misc]
    short = sorted({one.role for one in tokens if len(one.secret) < credentials.SHORT})
    cure = "write a longer one: openssl rand -hex 24"
    return [f"a token with the role {role} has fewer than {credentials.SHORT} characters, {cure}" for role in short]


def _is_inside(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    found = address(host)
    return host.lower() == "localhost" if found is None else found.is_loopback
