"""The environment variables, each declared once."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import pydantic

from regstream.settings import parsing

PROTOCOLS = ("PLAINTEXT", "SASL_PLAINTEXT", "SSL", "SASL_SSL")
ENV = "development"
"""The profile in force when none is asked for."""
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclasses.dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable.

    ``default`` is text as one would write it, empty for a variable that is unset by default; ``field`` is the field of
    ``Settings`` that it fills. ``parse`` raises ValueError with the cure. ``alias`` is read when the variable is unset.
    """

    name: str
    default: str
    description: str
    field: str
    parse: Callable[[str], object] = str
    secret: bool = False
    alias: str = ""


VARIABLES: tuple[Variable, ...] = (
    Variable(
        "ENABLE_STREAMING",
        "true",
        "`false`: API, page and WebSocket serve, nothing is generated",
        "streaming",
        parsing.switch,
    ),
    Variable("STREAMING_HOST", "127.0.0.1", "address on which the daemon listens", "host", parsing.host),
    Variable(
        "STREAMING_PORT", "3001", "port on which the daemon listens; `0` takes any free one", "port", parsing.port
    ),
    Variable(
        "KAFKA_BROKER",
        "",
        "bootstrap servers of Kafka, comma separated, `host:port`; unset: simulation",
        "kafka_servers",
        parsing.servers,
    ),
    Variable(
        "KAFKA_SECURITY_PROTOCOL",
        "PLAINTEXT",
        "how to talk to Kafka: " + ", ".join(f"`{one}`" for one in PROTOCOLS),
        "kafka_protocol",
        parsing.one_of(PROTOCOLS),
    ),
    Variable(
        "KAFKA_SASL_MECHANISM",
        "PLAIN",
        "how to log in to Kafka: " + ", ".join(f"`{one}`" for one in MECHANISMS),
        "kafka_mechanism",
        parsing.one_of(MECHANISMS),
    ),
    Variable("KAFKA_SASL_USERNAME", "", "user at Kafka", "kafka_username"),
    Variable("KAFKA_SASL_PASSWORD", "", "password at Kafka", "kafka_password", pydantic.SecretStr, secret=True),
    Variable(
        "KAFKA_SSL_CA", "", "file with the certificates of those who sign for Kafka, PEM", "kafka_ca", parsing.file
    ),
    Variable("KAFKA_SSL_CERT", "", "file with the client's certificate, PEM", "kafka_cert", parsing.file),
    Variable("KAFKA_SSL_KEY", "", "file with the client's key, PEM", "kafka_key", parsing.file),
    Variable(
        "REGSTREAM_STATE",
        ".regstream",
        "folder for what has to outlive the process: events that wait for Kafka or the database, and entity rows where "
        "there is Kafka alone; when it is unset, systemd's `STATE_DIRECTORY` is read in its place",
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
        parsing.whole(0, 1000, "milliseconds", "; 0 turns it off"),
    ),
    Variable(
        "DATABASE_URL",
        "",
        "PostgreSQL 15 or newer in which every event is kept, `postgresql://user:password@host:5432/database`; unset: "
        "nothing is stored, history is the ring in memory",
        "database",
        parsing.database,
        secret=True,
    ),
    Variable(
        "RETENTION",
        "",
        "how long events are kept in the database, `30d` or `12h`; what is older goes a whole day at a time; unset: "
        "for ever",
        "retention",
        parsing.retention,
    ),
    Variable(
        "VPS_SERVER_NAME",
        "VPS-DataStreamer",
        "name of this server, in every event's `source`",
        "server_name",
        parsing.label,
    ),
    Variable(
        "VPS_REGION", "LATAM", "region of this server, in every event's `source` and `region`", "region", parsing.label
    ),
    Variable(
        "REGSTREAM_ENV",
        ENV,
        "picks the profile in `streams.yaml`; when it is unset, `NODE_ENV` is read in its place",
        "env",
        parsing.env,
        alias="NODE_ENV",
    ),
    Variable(
        "DEBUG",
        "",
        "debug logging of parts: `streaming:*`, or `streaming:broker,streaming:hub`; values of other programs are "
        "ignored",
        "debug",
        parsing.debug,
    ),
    Variable(
        "REGSTREAM_LOG",
        "text",
        "how the daemon logs on standard error: `text` for people, or `json`, one object a line",
        "log",
        parsing.one_of(parsing.FORMS),
    ),
    Variable(
        "OTEL_TRACES_EXPORTER",
        "none",
        "`otlp`: traces go to a collector by OTLP over HTTP; where that is, and all else of it, say the variables of "
        "OpenTelemetry, `OTEL_EXPORTER_OTLP_ENDPOINT` and the others",
        "traces",
        parsing.one_of(parsing.EXPORTERS),
    ),
    Variable(
        "REGSTREAM_TOKENS",
        "",
        "who may do what: `role:token` pairs, separated by spaces or commas; the roles are `read` (watch), `control` "
        "(also burst, simulate, pause, replay) and `admin` (also reload, configuration, audit); unset: whoever reaches "
        "the port may do everything",
        "tokens",
        parsing.tokens,
        secret=True,
    ),
    Variable(
        "REGSTREAM_TOKENS_FILE",
        "",
        "a file of such pairs, one a line, besides those of `REGSTREAM_TOKENS`",
        "tokens_of_file",
        parsing.token_file,
    ),
    Variable(
        "CORS_ORIGINS",
        "http://localhost:* http://127.0.0.1:*",
        "origins whose pages may use this daemon, over HTTP and WebSocket, separated by spaces or commas; `*` stands "
        "for any part of the host, for any port, or alone for every origin",
        "cors_origins",
        parsing.origins,
    ),
    Variable(
        "RATE_LIMIT",
        "60/minute",
        "how often a client may use the control routes; who does it more often is answered with 429",
        "rate_limit",
        parsing.rate,
    ),
    Variable(
        "STREAMING_PROXIES",
        "0",
        "how many proxies stand in front of the daemon; with one or more, a client is known by the address that the "
        "first of them wrote into `X-Forwarded-For`",
        "proxies",
        parsing.whole(0, 10, "proxies"),
    ),
    Variable(
        "STREAMING_MAX_CONNECTIONS",
        "10000",
        "how many connections may be open at once",
        "max_connections",
        parsing.whole(1, 1_000_000, "connections"),
    ),
    Variable(
        "STREAMING_MAX_PER_ADDRESS",
        "1000",
        "how many of them from one address; with proxies in front that is theirs to bound",
        "max_per_address",
        parsing.whole(1, 1_000_000, "connections"),
    ),
)
