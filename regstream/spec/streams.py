"""What can be declared, and what flows: frozen specs, the catalog, events and positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import pydantic
from pydantic import AliasChoices, Field

from regstream import errors
from regstream.spec.scenarios import (
    STEP_KINDS,
    Alert,
    AlertStep,
    Burst,
    BurstStep,
    Overlay,
    ParallelStep,
    PauseStep,
    Repeat,
    RepeatStep,
    ResumeStep,
    ScenarioSpec,
    SetStep,
    Step,
    WaitStep,
    walk,
)
from regstream.spec.types import (
    LEAST_DWELL,
    MAX_BATCH,
    MAX_DURATION,
    MAX_RATE,
    UNITS,
    BatchSize,
    Duration,
    Dwell,
    EventName,
    Fields,
    Identifier,
    Jitter,
    Name,
    PerSecond,
    Policy,
    Priority,
    Severity,
    Spec,
    States,
    StateSpec,
    Topic,
    Value,
    Weight,
    duration_text,
    milliseconds,
    per_second,
    rate_text,
)
from regstream.spec.types import problem as problem_of_states

__all__ = [
    "ALERTS",
    "ALERT_TOPIC",
    "ALERT_TYPE",
    "ALL_CHANNEL",
    "EMPTY",
    "LEAST_DWELL",
    "MAX_BATCH",
    "MAX_BATCH_BYTES",
    "MAX_DURATION",
    "MAX_RATE",
    "STEP_KINDS",
    "SYSTEM_CHANNEL",
    "UNITS",
    "Alert",
    "AlertRule",
    "AlertStep",
    "BatchSize",
    "Burst",
    "BurstStep",
    "Catalog",
    "ChannelSpec",
    "Defaults",
    "Duration",
    "Dwell",
    "EntitySpec",
    "EventName",
    "Fields",
    "Identifier",
    "Jitter",
    "KafkaProfile",
    "Name",
    "Overlay",
    "ParallelStep",
    "PauseStep",
    "Policy",
    "Priority",
    "Profile",
    "Repeat",
    "RepeatStep",
    "ResumeStep",
    "ScenarioSpec",
    "SetStep",
    "Severity",
    "Spec",
    "StateSpec",
    "Step",
    "StreamSpec",
    "StreamsFile",
    "Topic",
    "Value",
    "WaitStep",
    "duration_text",
    "milliseconds",
    "per_second",
    "problem_of_states",
    "rate_text",
    "walk",
]

ALERTS = "ALERTS"
ALERT_TOPIC = "reginsight.alerts"
ALERT_TYPE = "immediate-alert"
ALL_CHANNEL = "dashboard-updates"
SYSTEM_CHANNEL = "system"


# Kafka takes twice that unless it is told otherwise, and what the library holds is for one batch a partition
MAX_BATCH_BYTES = 512 * 1024


class KafkaProfile(Spec):
    """How topics are created when they are missing, and how events are sent to them."""

    partitions: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1
    """Partitions of a topic that the daemon creates, in simulation too."""
    replication: Annotated[int, Field(ge=1, le=10, strict=True)] = 1
    """Replicas of a topic that the daemon creates."""
    batch_bytes: Annotated[
        int,
        Field(ge=1_024, le=MAX_BATCH_BYTES, strict=True, validation_alias=AliasChoices("batch_bytes", "batchBytes")),
    ] = MAX_BATCH_BYTES
    """Bytes of events that are sent to a partition at once at most, before they are compressed: larger ones carry more,
    smaller ones arrive sooner where the line is slow. An event that is larger goes alone."""


class ChannelSpec(Spec):
    """How the events of a channel reach a subscriber that does not ask for another way."""

    policy: Policy = Policy.DISCONNECT
    """What happens when a subscriber reads more slowly than events are made."""
    max_rate: Annotated[
        float | None, Field(gt=0, le=MAX_RATE, strict=True, validation_alias=AliasChoices("max_rate", "maxRate"))
    ] = None
    """How many events a second leave at most; with ``conflate``, how often a second the newest of a key. Left out: no
    bound."""


class Profile(Spec):
    """What differs between environments; ``REGSTREAM_ENV`` picks one."""

    speed: Annotated[float, Field(gt=0, le=1000, strict=True)] = 1.0
    """Every declared interval, and how long states last, is divided by this; schedules, scenario waits and what is set
    at run time are not."""
    kafka: KafkaProfile = KafkaProfile()
    """How topics are created, and how events are sent to them."""


class CurveSpec(Spec):
    """How a rate changes. Its value is the product of ``hour``, ``weekday`` and ``month``."""

    hour: Annotated[tuple[Weight, ...], Field(min_length=24, max_length=24)] = (1.0,) * 24
    """24 values, at 0:00, 1:00 and so on by the wall clock; in between it runs straight, also to the next midnight."""
    weekday: Annotated[tuple[Weight, ...], Field(min_length=7, max_length=7)] = (1.0,) * 7
    """Seven values, Monday first."""
    month: Annotated[tuple[Weight, ...], Field(min_length=12, max_length=12)] = (1.0,) * 12
    """Twelve values, each that of the 15th; in between it runs straight."""
    holiday: Weight | None = None
    """What stands in for the weekday on a holiday of the calendar. Left out: that of Sunday."""
    month_end: Weight = 1.0
    """By what the last working day of a month is multiplied."""
    quarter_end: Weight | None = None
    """The same where a quarter ends. Left out: ``month_end``."""


class RateSpec(Spec):
    """How many events come on average, instead of when."""

    base: PerSecond
    """How many: ``5/s``, ``300/m``, ``2.5/h``, ``1000/d``."""
    curve: Name = "flat"
    """How that changes: a curve of the file, ``bank-day`` or ``flat``."""
    calendar: Annotated[str, Field(pattern=r"^([A-Z]{2}(-[A-Z0-9]{1,4})?)?$")] = ""
    """Whose holidays there are: a country, ``BR``, or a part of one, ``BR-SP``. Empty: none."""
    arrivals: Literal["poisson", "even"] = "poisson"
    """``poisson``: by chance, like those of many who know nothing of each other. ``even``: as the curve says."""
    shape: pydantic.json_schema.SkipJsonSchema[CurveSpec | None] = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        if isinstance(data, str | int | float):
            per_second(data)
            return {"base": data}
        return data

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        made = handler.resolve_ref_schema(handler(schema))
        return {"anyOf": [made["properties"]["base"], made]}

    @property
    def form(self) -> CurveSpec:
        """The curve itself, which the file was asked for when it was read."""
        return self.shape or CURVES[self.curve]


def _normal(hours: tuple[float, ...], **rest: Any) -> CurveSpec:
    """A curve whose mean over a working day is 1."""
    mean = sum(hours) / len(hours)
    return CurveSpec(hour=tuple(value / mean for value in hours), **rest)


CURVES: Mapping[str, CurveSpec] = {
    "flat": CurveSpec(),
    "bank-day": _normal(
        (0.6, 0.4, 0.3, 0.3, 0.3, 0.5, 1.2, 3, 7, 12, 14.5, 14, 11.5, 11, 13, 14, 12.5, 9.5, 6, 4, 3, 2.2, 1.5, 1),
        weekday=(1, 1, 1, 1, 1.1, 0.25, 0.1),
        month=(0.95, 0.95, 1.05, 1, 1, 1.05, 0.95, 0.95, 1.05, 1, 1, 1.1),
        holiday=0.1,
        month_end=1.5,
        quarter_end=1.8,
    ),
}
"""The curves that need no declaration; the weekdays and months of ``bank-day`` are about those of retail payments."""


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
    states: States = {}
    """What a row goes through, the first state first. It has ``state`` and ``since`` among its fields then, and when it
    has ended a new row comes in its place, with the next number and what its templates give at that time."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all that a row has: its fields, and what it is told of its state."""
        return (*self.fields, *(("state", "since") if self.states else ()))


class AlertRule(Spec):
    """When an event of a stream also raises an alert."""

    when: str
    """A template that gives true or false."""
    severity: Severity = Severity.WARNING
    """How bad it is."""
    message: str
    """A template for the text that people read."""


class Arrival(Spec):
    """How what happens reaches its readers: late, twice, or never. Each event then says when it was made, in the
    extension attribute ``recordedtime``, beside ``time``, when it happened."""

    late: Value = 0
    """By how many seconds the time of an event lies before the tick at which it is made: a number, or a template of one
    without fields, ``{{ exponential(30) }}``. Where that differs from event to event, they come in disorder."""
    late_share: Jitter = 1.0
    """The part of the events that are late."""
    duplicates: Annotated[Jitter, Field(lt=1)] = 0.0
    """The part of the events that are the one before once more: same time, key and data, with a number of their own."""
    loss: Annotated[Jitter, Field(lt=1)] = 0.0
    """The part of what happens at ticks that nobody is told of: rows change, and no event says so."""


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
    """Time between ticks: a whole number is milliseconds, or 250ms, 5s, 5m, 1h. This, ``schedule`` or ``rate``."""
    rate: RateSpec | None = None
    """How many events come on average, with ``batch_size`` of them in a tick."""
    schedule: str | None = None
    """Cron expression of five parts, ``minute hour day month weekday``, in the zone of ``timezone``."""
    timezone: str = "UTC"
    """IANA zone in which ``schedule`` is read."""
    follow: Identifier | None = None
    """An entity with states: the stream has one event for each row that came into a state since the tick before, with
    the time of that, instead of a batch. Its templates know ``row``, ``state`` and ``was``, the state before."""
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
    arrival: Arrival | None = None
    """How events reach their readers, when that is not at once, once and in order."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("name"), str):
            return data
        plain = data["name"].lower()
        return {"topic": f"reginsight.{plain}", "event": plain.replace("_", "-"), **data}


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
    channels: dict[str, ChannelSpec] = {}
    """How channels are delivered: ``dashboard-updates``, names of streams, names of events."""
    entities: dict[Identifier, EntitySpec] = {}
    """Shared, stateful rows."""
    curves: dict[Name, CurveSpec] = {}
    """How rates change, by name."""
    streams: Annotated[dict[Name, StreamSpec], Field(min_length=1)]
    """The streams, by name."""


class Catalog(NamedTuple):
    """All declarations in force. It is never changed: a reload makes another one.

    ``templates`` maps the name of each file under ``templates/``, ``.j2`` or ``.csv``, to its text; ``digest``
    identifies the bytes of all files that it was made of. ``warnings`` holds what is odd in them but does not refuse
    them, sorted by file and position, ``notes`` what of them could not be looked at.
    """

    seed: int | None
    profile: Profile
    entities: Mapping[str, EntitySpec]
    streams: Mapping[str, StreamSpec]
    scenarios: Mapping[str, ScenarioSpec]
    templates: Mapping[str, str]
    digest: str
    channels: Mapping[str, ChannelSpec] = {}
    warnings: tuple[errors.Problem, ...] = ()
    notes: tuple[errors.Problem, ...] = ()


EMPTY = Catalog(None, Profile(), {}, {}, {}, {}, "")
