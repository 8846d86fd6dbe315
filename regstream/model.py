"""What can be declared, and what flows: frozen specs, the catalog, events and positions.

Each key of the YAML files is declared once, here, with its type, bounds, default and description; the parser, the
error messages, the JSON Schema and ``docs/configuration.md`` all come from these declarations.

Durations are whole milliseconds everywhere inside the program.
"""

from __future__ import annotations

import datetime
import enum
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import pydantic
from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field

ALERTS = "ALERTS"
ALERT_TOPIC = "reginsight.alerts"
ALERT_TYPE = "immediate-alert"
ALL_CHANNEL = "dashboard-updates"
SYSTEM_CHANNEL = "system"
MAX_BATCH = 10_000
MAX_DURATION = 366 * 24 * 3_600_000
UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


class Priority(enum.StrEnum):
    """Who goes first among due ticks; ``rank`` 0 is the most urgent."""

    CRITICAL = "CRITICAL"
    HIGH = "HIGH"
    NORMAL = "NORMAL"
    LOW = "LOW"

    @property
    def rank(self) -> int:
        """0 for CRITICAL up to 3 for LOW."""
        return _RANKS[self]


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


class Severity(enum.StrEnum):
    """How bad an alert is."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


def milliseconds(value: object) -> int:
    """``value`` as milliseconds: a whole number is milliseconds already, a text is a number and one of ms s m h d.

    Raises ValueError, with the cure in its text, for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a duration, write a whole number of milliseconds or 250ms, 5s, 5m, 1h")
    exact = float(match[1]) * UNITS[match[2]] if len(match[1]) <= 20 else float("inf")
    if exact > MAX_DURATION:
        raise ValueError(f"longer than {duration_text(MAX_DURATION)}")
    if exact != int(exact):
        raise ValueError("not a whole number of milliseconds")
    return int(exact)


def duration_text(value: int) -> str:
    """The shortest text that ``milliseconds`` reads back as ``value``: 90000 is ``90s``, 300000 is ``5m``."""
    for unit in ("d", "h", "m", "s"):
        if value and value % UNITS[unit] == 0:
            return f"{value // UNITS[unit]}{unit}"
    return f"{value}ms"


def _fraction(value: object) -> float:
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a percentage, write 0% to 100%")
    return float(match[1]) / 100


def _plain(value: object) -> object:
    """YAML dates as the text that JSON would show; everything else that JSON can carry stays."""
    if isinstance(value, Mapping):
        if any(not isinstance(key, str) for key in value):
            raise ValueError("a field name must be text, put it in quotes")
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"a {type(value).__name__} cannot be a field value")


_DURATION_SCHEMA = {
    "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)\s*$"}]
}
Duration = Annotated[
    int, BeforeValidator(milliseconds), Field(ge=1, le=MAX_DURATION), pydantic.WithJsonSchema(_DURATION_SCHEMA)
]
Jitter = Annotated[
    float,
    BeforeValidator(_fraction),
    Field(ge=0, le=1),
    pydantic.WithJsonSchema({"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*%\s*$"}),
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,248}$")]
EventName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Value = Annotated[
    Any, BeforeValidator(_plain), pydantic.WithJsonSchema({"description": "a template, or any JSON value"})
]
Fields = Annotated[dict[str, Value], Field(min_length=1, max_length=500)]
BatchSize = Annotated[int, Field(ge=1, le=MAX_BATCH, strict=True)]


class Spec(pydantic.BaseModel):
    """The base of all declarations: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, use_attribute_docstrings=True
    )


class KafkaProfile(Spec):
    """How topics are created when they are missing."""

    partitions: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1
    """Partitions of a topic that the daemon creates, in simulation too."""
    replication: Annotated[int, Field(ge=1, le=10, strict=True)] = 1
    """Replicas of a topic that the daemon creates."""


class Profile(Spec):
    """What differs between environments; ``REGSTREAM_ENV`` picks one."""

    speed: Annotated[float, Field(gt=0, le=1000, strict=True)] = 1.0
    """Every declared interval is divided by this; schedules, scenario waits and what is set at run time are not."""
    kafka: KafkaProfile = KafkaProfile()
    """How topics are created."""


class Defaults(Spec):
    """What a stream has that does not say otherwise."""

    batch_size: Annotated[BatchSize, Field(validation_alias=AliasChoices("batch_size", "batchSize"))] = 1
    """Events of one tick."""
    priority: Priority = Priority.NORMAL
    """Who goes first among due ticks."""
    jitter: Jitter = 0.0
    """How far a tick may come after its due time, as a part of the interval."""
    timezone: str = "UTC"
    """IANA zone in which schedules are read."""


class EntitySpec(Spec):
    """Shared rows that streams refer to and change."""

    name: pydantic.json_schema.SkipJsonSchema[Identifier]
    files: pydantic.json_schema.SkipJsonSchema[tuple[tuple[str, str], ...]] = ()
    count: Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
    """How many rows there are."""
    key: Identifier
    """The field that identifies a row."""
    fields: Fields
    """Templates of a row, rendered once when the row is made; ``index`` is its number from 0."""


class AlertRule(Spec):
    """When an event of a stream also raises an alert."""

    when: str
    """A template that gives true or false."""
    severity: Severity = Severity.WARNING
    """How bad it is."""
    message: str
    """A template for the text that people read."""


class StreamSpec(Spec):
    """A named source of events."""

    name: pydantic.json_schema.SkipJsonSchema[Name]
    files: pydantic.json_schema.SkipJsonSchema[tuple[tuple[str, str], ...]] = ()
    description: str = ""
    """What the events mean, for people."""
    topic: Topic = ""
    """Kafka topic; streams may share one. Left out: ``reginsight.`` and the name in lower case."""
    event: EventName = ""
    """Name on WebSocket and Socket.IO and ``type`` of the event. Left out: the name in kebab case."""
    interval: Duration | None = None
    """Time between ticks: a whole number is milliseconds, or 250ms, 5s, 5m, 1h. Either this or ``schedule``."""
    schedule: str | None = None
    """Cron expression of five parts, ``minute hour day month weekday``, in the zone of ``timezone``."""
    timezone: str = "UTC"
    """IANA zone in which ``schedule`` is read."""
    jitter: Jitter = 0.0
    """How far a tick may come after its due time, as a part of the interval; it never adds up."""
    batch_size: Annotated[BatchSize, Field(validation_alias=AliasChoices("batch_size", "batchSize"))] = 1
    """Events of one tick."""
    priority: Priority = Priority.NORMAL
    """Who goes first among due ticks."""
    enabled: Annotated[bool, Field(strict=True)] = True
    """False: declared, shown, but silent until it is started."""
    key: str = ""
    """Template of the Kafka key, which is also the conflation key; empty: no key."""
    with_: Annotated[dict[Identifier, str], Field(validation_alias="with", serialization_alias="with")] = {}
    """Names that are bound for each event before its fields, mostly entity rows: ``{svp: "{{ pick('svp') }}"}``."""
    fields: Fields | None = None
    """Templates of ``data``. A field that is one ``{{ expression }}`` keeps its type; earlier fields are names."""
    template: str | None = None
    """A file under ``templates/`` that renders ``data`` as one JSON object, in place of ``fields``."""
    update: dict[str, Value] = {}
    """What an event changes, once it is made: ``{svp.spent: "{{ spent }}"}``."""
    alert: AlertRule | None = None
    """When an event also raises an alert."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("name"), str):
            return data
        plain = data["name"].lower()
        return {"topic": f"reginsight.{plain}", "event": plain.replace("_", "-"), **data}


class Burst(Spec):
    """Events at once, besides the stream's own ticks."""

    stream: str
    """Which stream."""
    count: Annotated[int, Field(ge=1, le=MAX_BATCH, strict=True)]
    """How many events."""
    fields: Fields | None = None
    """Templates that stand in for the stream's own."""


class Overlay(Spec):
    """What a run changes on a running stream, and gives back."""

    stream: str
    """Which stream."""
    interval: Duration | None = None
    """Time between ticks, taken as said: the profile's speed does not divide it."""
    batch_size: Annotated[BatchSize | None, Field(validation_alias=AliasChoices("batch_size", "batchSize"))] = None
    """Events of one tick."""
    priority: Priority | None = None
    """Who goes first among due ticks."""
    fields: Fields | None = None
    """Templates that stand in for the stream's own."""
    for_: Annotated[Duration | None, Field(validation_alias="for", serialization_alias="for")] = None
    """Given back after this time; left out: at the end of the run."""


class Alert(Spec):
    """A text that people see at once."""

    severity: Severity = Severity.WARNING
    """How bad it is."""
    message: str
    """A template for the text that people read."""


class AlertStep(Spec):
    """Raise an alert."""

    alert: Alert
    """What it says."""


class BurstStep(Spec):
    """Make events at once."""

    burst: Burst
    """Of which stream, and how many."""


class SetStep(Spec):
    """Overlay a running stream; the run goes on at once."""

    set: Overlay
    """What changes, and for how long."""


class WaitStep(Spec):
    """Wait."""

    wait: Duration
    """How long; never divided by the profile's speed."""


class PauseStep(Spec):
    """Pause a stream until it is resumed or the run ends."""

    pause: str
    """Which stream."""


class ResumeStep(Spec):
    """Let a stream run, until the run ends."""

    resume: str
    """Which stream."""


class ParallelStep(Spec):
    """Go through several lists of steps at the same time, and on when all have ended."""

    parallel: Annotated[tuple[tuple[Step, ...], ...], Field(min_length=1, max_length=50)]
    """The lists."""


class Repeat(Spec):
    """Steps, and how often."""

    times: Annotated[int, Field(ge=1, le=10_000, strict=True)]
    """How often."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=500)]
    """What is repeated."""


class RepeatStep(Spec):
    """Go through steps several times."""

    repeat: Repeat
    """What, and how often."""


STEP_KINDS: dict[str, type[Spec]] = {
    "alert": AlertStep,
    "burst": BurstStep,
    "set": SetStep,
    "wait": WaitStep,
    "parallel": ParallelStep,
    "repeat": RepeatStep,
    "pause": PauseStep,
    "resume": ResumeStep,
}


def _step_kind(value: object) -> str | None:
    if isinstance(value, Mapping):
        kinds = [key for key in value if key in STEP_KINDS]
        return kinds[0] if kinds else None
    return next((kind for kind, spec in STEP_KINDS.items() if isinstance(value, spec)), None)


Step = Annotated[
    Annotated[AlertStep, pydantic.Tag("alert")]
    | Annotated[BurstStep, pydantic.Tag("burst")]
    | Annotated[SetStep, pydantic.Tag("set")]
    | Annotated[WaitStep, pydantic.Tag("wait")]
    | Annotated[ParallelStep, pydantic.Tag("parallel")]
    | Annotated[RepeatStep, pydantic.Tag("repeat")]
    | Annotated[PauseStep, pydantic.Tag("pause")]
    | Annotated[ResumeStep, pydantic.Tag("resume")],
    pydantic.Discriminator(
        _step_kind, custom_error_type="step", custom_error_message="a step has one key of " + " ".join(STEP_KINDS)
    ),
]
ParallelStep.model_rebuild()
Repeat.model_rebuild()
RepeatStep.model_rebuild()


class ScenarioSpec(Spec):
    """An ordered list of steps."""

    name: Name
    """What it is started by."""
    description: str = ""
    """What it shows, for people."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=500)]
    """What happens, in order."""


class StreamsFile(Spec):
    """``streams.yaml``: everything but the scenarios."""

    version: Literal[1] = 1
    """Version of this format."""
    seed: Annotated[int | None, Field(ge=0, lt=2**63, strict=True)] = None
    """Same seed and files: same random numbers. Left out: other ones at every start."""
    defaults: Defaults = Defaults()
    """What a stream has that does not say otherwise."""
    profiles: dict[Name, Profile] = {}
    """Overlays, one of which ``REGSTREAM_ENV`` picks; an environment without a profile has the defaults of one."""
    entities: dict[Identifier, EntitySpec] = {}
    """Shared, stateful rows."""
    streams: Annotated[dict[Name, StreamSpec], Field(min_length=1)]
    """The streams, by name."""


class Catalog(NamedTuple):
    """All declarations in force. It is never changed: a reload makes another one.

    ``templates`` maps the name of each file under ``templates/`` to its text; ``digest`` identifies the bytes of all
    files that it was made of.
    """

    seed: int | None
    profile: Profile
    entities: Mapping[str, EntitySpec]
    streams: Mapping[str, StreamSpec]
    scenarios: Mapping[str, ScenarioSpec]
    templates: Mapping[str, str]
    digest: str


EMPTY = Catalog(None, Profile(), {}, {}, {}, {}, "")


class Position(NamedTuple):
    """Where a reader stands in a stream: the number of the last event it has, and the numbering it belongs to.

    ``seq`` rises by exactly one an event within an epoch and begins with 1; 0 stands before the first.
    """

    epoch: str
    seq: int


class Head(NamedTuple):
    """What the events of one batch share. ``time`` is RFC 3339 in UTC with milliseconds, ``topic`` Kafka's."""

    stream: str
    epoch: str
    type: str
    topic: str
    priority: Priority
    time: str
    region: str


class Event(NamedTuple):
    """One rendered CloudEvent: ``value`` holds its bytes, the same for broker, dashboards and store."""

    head: Head
    seq: int
    key: str | None
    value: bytes

    @property
    def position(self) -> Position:
        """Where a reader stands who has this event."""
        return Position(self.head.epoch, self.seq)

    @property
    def id(self) -> str:
        """The CloudEvent's ``id``: stream, epoch and number."""
        return f"{self.head.stream}/{self.head.epoch}/{self.seq}"


def walk(steps: tuple[typing.Any, ...]) -> Iterator[typing.Any]:
    """All steps of a list, depth first, those within ``parallel`` and ``repeat`` included."""
    for step in steps:
        yield step
        if isinstance(step, ParallelStep):
            for branch in step.parallel:
                yield from walk(branch)
        elif isinstance(step, RepeatStep):
            yield from walk(step.repeat.steps)
