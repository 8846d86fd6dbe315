"""The bodies, queries and problems of the REST interface, each declared once; ``answers`` has the rest.

The same declarations validate what comes in and become the schemas of ``/openapi.json``. Keys are camelCase.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, ClassVar, Literal

import pydantic
import pydantic_core
from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from regstream import spec
from regstream.server import cursors, decoding, timestamps

_INTERVAL_TEXT = (
    r"^([1-9][0-9]{0,9}ms|[1-9][0-9]{0,6}(\.5)?s|[1-9][0-9]{0,4}(\.5)?m|[1-9][0-9]{0,2}(\.5)?h|[1-9][0-9]?d)$"
)
_INTERVAL_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": spec.MAX_DURATION},
        {"type": "string", "pattern": _INTERVAL_TEXT},
    ],
    "examples": ["250ms", "5s", 1000],
}


class Model(pydantic.BaseModel):
    """The base of everything on the wire: camelCase, frozen, and an unknown key is an error."""

    model_config = pydantic.ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        defer_build=True,
    )


def _whole(value: object) -> object:
    """JSON does not tell 5.0 from 5, so it is as good; true, "5" and 5.5 stay what they are."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _interval(value: object) -> int:
    return spec.milliseconds(_whole(value))


class Nothing(Model):
    """A body without any key: ``{}``, or no body at all."""


def _left_out() -> Any:
    """None as a default that the schema does not show: the key may be left out, but null is no value for it."""
    return None


class Names(Model):
    """Which streams are meant."""

    streams: Annotated[list[str], Field(max_length=10_000, examples=[["TRANSACTION_STREAM"]])] = Field(
        default_factory=_left_out
    )
    """Names of streams; left out: all of them."""


class BurstRequest(Model):
    """Events at once, besides the stream's own ticks."""

    stream_type: Annotated[str, Field(examples=["TRANSACTION_STREAM"])]
    """Name of the stream."""
    count: Annotated[spec.BatchSize, BeforeValidator(_whole)]
    """How many events."""


class SimulateRequest(Model):
    """A scenario to start."""

    scenario: Annotated[str, Field(examples=["BUDGET_CRISIS"])]
    """Its name."""


_SLOWEST, _FASTEST = 0.001, 100_000


def _speed(value: object) -> float | None:
    if value == "max":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not _SLOWEST <= value <= _FASTEST:
        raise ValueError("not a speed, write a number from 0.001 to 100000 (1: as it was), or max")
    return float(value)


def _body_instant(value: object) -> float:
    number = _whole(value)
    return timestamps.parse(str(number) if type(number) is int else number)


_BodyInstant = Annotated[
    float,
    BeforeValidator(_body_instant),
    WithJsonSchema({**timestamps.SCHEMA, "examples": ["2026-11-23T12:00:00Z"]}),
]
_SPEED = {
    "anyOf": [{"type": "number", "minimum": _SLOWEST, "maximum": _FASTEST}, {"const": "max"}],
    "examples": [10, "max"],
}
_TOPICS = {
    **pydantic.TypeAdapter(dict[spec.Name, spec.Topic]).json_schema(),
    "additionalProperties": False,
    "examples": [{"TRANSACTION_STREAM": "replayed"}],
}


class ReplayRequest(Model):
    """Stored events to be sent again."""

    from_: Annotated[_BodyInstant, Field(alias="from")]
    """Events of this time or later, RFC 3339 or milliseconds since 1970."""
    to: _BodyInstant
    """Events before this time."""
    streams: Annotated[list[spec.Name], Field(max_length=1_000, examples=[["TRANSACTION_STREAM"]])] = []
    """Names of streams; none: all of them."""
    speed: Annotated[float | None, BeforeValidator(_speed), WithJsonSchema(_SPEED)] = 1.0
    """How many times as fast as they came; ``max``: as fast as they are taken."""
    topic: Annotated[spec.Topic, Field(examples=["replayed"])] = Field(default_factory=_left_out)
    """The topic of Kafka that takes them; left out: they go to the dashboards. No stream may have it."""
    topics: Annotated[dict[spec.Name, spec.Topic], WithJsonSchema(_TOPICS)] = Field(default_factory=_left_out)
    """Instead of ``topic``: the topic of each of the streams."""


class StreamPatch(Model):
    """What to change on a running stream; what is left out stays. A reload that changes the stream takes it back."""

    interval: Annotated[
        int,
        Field(ge=1, le=spec.MAX_DURATION),
        BeforeValidator(_interval),
        WithJsonSchema(_INTERVAL_SCHEMA),
    ] = Field(default_factory=_left_out)
    """Time between ticks, taken as said: whole milliseconds, or 250ms, 5s, 5m, 1h."""
    batch_size: Annotated[spec.BatchSize, BeforeValidator(_whole)] = Field(default_factory=_left_out)
    """Events of one tick."""
    priority: spec.Priority = Field(default_factory=_left_out)
    """Who goes first among due ticks."""
    enabled: Annotated[bool, Field(strict=True)] = Field(default_factory=_left_out)
    """Whether the stream takes part in streaming."""


def _flag(value: object) -> bool:
    if value not in ("true", "false"):
        raise ValueError("not true or false")
    return value == "true"


def _digits(most: int) -> BeforeValidator:
    def whole(value: object) -> int:
        if not isinstance(value, str) or not value.isascii() or not value.isdigit() or len(value) > most:
            raise ValueError("not a whole number")
        return int(value)

    return BeforeValidator(whole)


_PAGE_SIZE, _SEQ = _digits(9), _digits(19)
_BUCKET = re.compile(r"^([1-9][0-9]{0,3})([smhd])$")


def _bucket(value: object) -> int:
    match = _BUCKET.fullmatch(str(value))
    if match is None:
        raise ValueError("not a time, write 10s, 1m, 1h or 1d")
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


class Query(Model):
    """The base of query strings; ``repeatable`` names the parameters that may occur more than once."""

    repeatable: ClassVar[frozenset[str]] = frozenset()


class NoQuery(Query):
    """No parameter at all: a misspelt one is an error and not ignored."""


class ReloadQuery(Query):
    """How to reload."""

    dry_run: Annotated[bool, BeforeValidator(_flag), WithJsonSchema({"type": "boolean"})] = False
    """Only say what would change."""


_Instant = Annotated[float | None, BeforeValidator(timestamps.parse), WithJsonSchema(timestamps.SCHEMA)]
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
_PATH = r"^[A-Za-z0-9_-]{1,64}([.][A-Za-z0-9_-]{1,64}){0,9}$"
_MOST = 2**63 - 1


def _condition(text: object) -> tuple[tuple[str, ...], Any]:
    """``path=value`` as a path and JSON: a word that is none stands for itself."""
    path, equals, value = str(text).partition("=")
    if not equals or not re.fullmatch(_PATH, path) or len(value) > 1000:
        raise ValueError("not a condition, write a path within data and what is there: svpId=SVP-003")
    try:
        decoding.bound(value.encode("utf-8", "surrogatepass"))
        found = pydantic_core.from_json(value, allow_inf_nan=False)
    except decoding.TooDeep:
        raise
    except ValueError:
        if not _WORD.fullmatch(value):
            raise ValueError('what is there is neither JSON nor a word, write a text as JSON: name="A B"') from None
        found = value
    return tuple(path.split(".")), found


_Condition = Annotated[
    Any,
    BeforeValidator(_condition),
    WithJsonSchema(
        {
            "type": "string",
            # What most will write; other JSON is as good
            "pattern": _PATH[:-1] + r'=([A-Za-z0-9_.:-]{1,200}|"[A-Za-z0-9_.: -]{0,200}")$',
            "examples": ["svpId=SVP-003"],
        }
    ),
]
_Priority = Annotated[spec.Priority, WithJsonSchema({"type": "string", "enum": list(spec.Priority)})]
_BUCKET_SCHEMA = {"type": "string", "pattern": _BUCKET.pattern, "examples": ["1m"]}


class EventsQuery(Query):
    """Which events to show. ``priority`` and what follows it need a database."""

    repeatable: ClassVar[frozenset[str]] = frozenset({"stream", "priority", "where"})

    stream: Annotated[list[spec.Name], Field(max_length=100)] = []
    """Only events of this stream; may be given several times."""
    since: _Instant = None
    """Only events of this time or later, RFC 3339 or milliseconds since 1970."""
    until: _Instant = None
    """Only events before this time, RFC 3339 or milliseconds since 1970."""
    after: Annotated[str | None, WithJsonSchema({"type": "string", "pattern": cursors.PATTERN})] = None
    """The ``cursor`` of an earlier answer: only what came after it, the oldest first."""
    limit: Annotated[int | None, Field(ge=1, le=10_000_000), _PAGE_SIZE] = None
    """How many events at most: 100 unless said, and never more than 1000, as JSON; otherwise all that there are."""
    format: Annotated[Literal["json", "ndjson", "csv"] | None, Field()] = None
    """``json``, or as a download of any length ``ndjson`` (one event a line) or ``csv``; left out: what ``Accept``
    says. A download begins with the oldest event that is meant."""
    before: Annotated[str | None, WithJsonSchema({"type": "string", "pattern": cursors.PATTERN})] = None
    """The ``previous`` of an earlier answer: only what came before it, of that the newest unless there is ``after``."""
    priority: Annotated[list[_Priority], Field(max_length=4)] = []
    """Only events of this priority; may be given several times."""
    epoch: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = None
    """Only events of this numbering."""
    from_seq: Annotated[int | None, Field(ge=0, le=_MOST), _SEQ] = None
    """Only events with this number or a higher one."""
    to_seq: Annotated[int | None, Field(ge=0, le=_MOST), _SEQ] = None
    """Only events with this number or a lower one."""
    where: Annotated[list[_Condition], Field(max_length=10)] = []
    """Only events in whose ``data`` this is so, as ``path=value``: the path with dots (``rows.0.amount``), the value as
    JSON or a bare word; may be given several times."""


class AnalyticsQuery(Query):
    """What to compute."""

    stream: Annotated[spec.Name, Field(examples=["TRANSACTION_STREAM"])]
    """Name of the stream."""
    agg: Literal["count", "rate", "avg", "min", "max", "p50", "p95"] = "count"
    """``count`` of events, their ``rate`` a second, or of the numbers in ``field`` ``avg``, ``min``, ``max``, the
    median ``p50``, or ``p95``, which 95 % do not exceed."""
    field: Annotated[str | None, Field(pattern=_PATH, examples=["amountUsd"])] = None
    """Where the number is in ``data``, with dots; not for ``count`` and ``rate``."""
    bucket: Annotated[int, BeforeValidator(_bucket), WithJsonSchema(_BUCKET_SCHEMA)] = 60
    """How long each bucket is: ``10s``, ``1m``, ``1h``, ``1d``."""
    since: _Instant = None
    """From this time on, RFC 3339 or milliseconds since 1970; left out: an hour before ``until``."""
    until: _Instant = None
    """Before this time; left out: now."""


class AuditQuery(Query):
    """Which control calls to show."""

    since: _Instant = None
    """Only calls of this time or later, RFC 3339 or milliseconds since 1970."""
    until: _Instant = None
    """Only calls before this time."""
    action: Annotated[str | None, Field(pattern=r"^[a-z_]{1,40}$", examples=["patch"])] = None
    """Only calls of this operation, by its id in this description."""
    target: Annotated[str | None, Field(pattern=r"^/[A-Za-z0-9/_.~%-]{0,400}$")] = None
    """Only calls of this path."""
    after: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9]{1,64}-[0-9]{10,19}$")] = None
    """The ``cursor`` of an earlier answer: only what came after it, the oldest first."""
    limit: Annotated[int, Field(ge=1, le=1000), _PAGE_SIZE] = 100
    """How many calls at most."""


def _number(value: object) -> float:
    try:
        return float(value) if isinstance(value, str) and len(value) < 20 else math.nan
    except ValueError:
        raise ValueError("not a number") from None


class FollowQuery(Query):
    """What to follow."""

    repeatable: ClassVar[frozenset[str]] = frozenset({"channel"})

    channel: Annotated[list[str], Field(min_length=1, max_length=100, examples=[["dashboard-updates"]])]
    """``dashboard-updates``, a stream's name, an event's name, ``immediate-alert``, ``system``; may be given several
    times."""
    after: Annotated[str | None, WithJsonSchema({"type": "string", "contentMediaType": "application/json"})] = None
    """Positions, ``{STREAM: {"epoch", "seq"}}``: what came behind them is replayed, whole or not at all. The header
    ``Last-Event-ID`` goes first."""
    rewind: Annotated[int, Field(ge=0, le=1000), _PAGE_SIZE] = 0
    """For the other streams: the newest so many events of each channel."""
    snapshot: Annotated[bool, BeforeValidator(_flag), WithJsonSchema({"type": "boolean"})] = False
    """For streams that are not recovered: the newest event of each key."""
    policy: Annotated[spec.Policy | None, WithJsonSchema({"type": "string", "enum": list(spec.Policy)})] = None
    """What happens when the reader is too slow; left out: what is declared for the channel."""
    max_rate: Annotated[float | None, Field(gt=0, le=spec.MAX_RATE), BeforeValidator(_number)] = None
    """How many events a second at most; with ``conflate``, how often a second the newest of a key."""


class ProblemDetail(Model):
    """RFC 9457: what went wrong, for programs (``type``, ``status``) and for people (``title``, ``detail``)."""

    model_config = pydantic.ConfigDict(extra="allow")

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    instance: str


class InputError(Model):
    """One fault of a body or a query: ``path`` is dotted, empty for the whole."""

    path: str
    message: str


class InputProblem(ProblemDetail):
    """A body or a query that cannot be used."""

    errors: list[InputError]


class NameProblem(ProblemDetail):
    """A name that does not exist; ``near`` holds what may have been meant."""

    near: list[str] = []


class ProblemPlace(Model):
    """One problem of one file, at a position that counts from 1."""

    file: str
    line: Annotated[int, Field(ge=1)]
    column: Annotated[int, Field(ge=1)]
    path: str
    message: str
    hint: str


class ConfigProblem(ProblemDetail):
    """Files that cannot become a configuration: every problem of every file."""

    problems: list[ProblemPlace]
