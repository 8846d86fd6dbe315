"""The answers of the REST interface, each declared once.

The declarations encode what goes out and become the schemas of ``/openapi.json``. Keys are camelCase on the wire; times
are RFC 3339 in UTC with milliseconds; intervals are milliseconds, rates events a second.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from regstream import spec
from regstream.server import requests

Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Number = Annotated[int | float, WithJsonSchema({"type": "number"})]
Count = Annotated[int, Field(ge=0)]
Reason = Annotated[str, Field(exclude_if=lambda found: not found)]


class StreamInfo(requests.Model):
    """A stream: what is in force, where it stands and how it does."""

    name: str
    description: str
    topic: str
    event: str
    state: Literal["running", "paused", "stopped", "failing"]
    enabled: bool
    paused: bool
    interval: Number | None
    """Milliseconds between ticks, overlays and the profile's speed included; null for a schedule."""
    schedule: str | None
    timezone: str
    jitter: float
    batch_size: int
    priority: spec.Priority
    overlays: list[str]
    """Ids of the runs that change this stream at present."""
    epoch: str
    seq: Count
    """Number of the last event of this epoch; 0 before the first."""
    events: Count
    bytes: Count
    ticks: Count
    missed: Count
    """Ticks that were due while an earlier one still waited."""
    late_ms: float | None
    errors: Count
    error: str | None
    next: Time | None
    last: Time | None
    target_rate: float | None
    """Events a second that the declaration asks for; null for a schedule."""
    actual_rate: float


class Streams(requests.Model):
    """All streams."""

    streams: list[StreamInfo]


class ScenarioInfo(requests.Model):
    """A scenario that can be simulated."""

    name: str
    description: str
    steps: Count
    """Steps, those within parallel and repeat included."""
    streams: list[str]
    """The streams that it touches."""
    running: list[str]
    """Ids of its runs that are under way."""


class Scenarios(requests.Model):
    """What can be simulated."""

    scenarios: list[ScenarioInfo]


class RunState(requests.Model):
    """One execution of a scenario."""

    run_id: str
    scenario: str
    state: Literal["running", "completed", "cancelled", "failed"]
    started: Time
    ended: Time | None
    error: str | None
    current: list[str]
    """The steps that are under way."""


class Runs(requests.Model):
    """The runs of this daemon, as long as they are remembered."""

    runs: list[RunState]


class ReplayState(requests.Model):
    """One run of sending stored events again.

    ``sent`` of ``total`` events are out (null: not counted yet, or too many to be), the last one with the time
    ``position``. ``progress`` is how much of the time is done, from 0 to 1; ``reason`` says why it failed or waits.
    """

    run_id: str
    state: Literal["running", "paused", "completed", "cancelled", "failed"]
    from_: Annotated[Time, Field(alias="from")]
    to: Time
    streams: list[str]
    speed: float | Literal["max"]
    topics: str | dict[str, str] | None
    sent: Count
    total: Count | None
    progress: float
    position: Time | None
    started: Time
    ended: Time | None
    reason: str


class Replays(requests.Model):
    """The replays of this daemon, as long as they are remembered, the newest first."""

    replays: list[ReplayState]


class BurstResult(requests.Model):
    """The events that were made: ``firstSeq`` to ``lastSeq``, both included."""

    stream_type: str
    count: int
    first_seq: int
    last_seq: int


class Changes(requests.Model):
    """Names, by what a reload does to them."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: list[str]


class ReloadAnswer(Changes):
    """What a reload changed; ``added`` to ``unchanged`` name streams.

    ``warnings`` has what is odd in the files but does not refuse them.
    """

    generation: Count
    loaded_at: Time
    dry_run: bool
    scenarios: Changes
    entities: Changes
    warnings: list[requests.ProblemPlace]


class ConfigState(requests.Model):
    """Which configuration is in force, and why a newer one is not."""

    generation: Count
    loaded_at: Time
    error: str | None
    problems: list[requests.ProblemPlace]


class BrokerState(requests.Model):
    """How the broker is."""

    state: str
    """``new``, ``live`` or ``closed``; of Kafka also ``connecting``, ``fallback`` or ``draining``."""
    simulation_mode: bool
    reason: str
    """Why the state is what it is; empty when there is nothing to say."""
    waiting: Count
    """Events on disk that wait for a broker that is away."""
    lag: Count
    """Messages on the topics that were not consumed yet."""
    dropped: dict[str, Count]
    """By stream, events that were given up because the disk space for those that wait was."""
    foreign: Count
    """Messages on the topics that are none of our events."""
    skipped: Count
    """Numbers that were waited for and never came."""


class KafkaStatus(BrokerState):
    """The broker, as dashboards know it."""

    is_connected: bool
    messages_produced: Count
    messages_consumed: Count
    errors: Count


class History(requests.Model):
    """A past that is being made, begun at ``since`` and made up to ``at``: the part ``done`` of it, 0 to 1."""

    since: Time
    at: Time
    done: float


class StreamerStatus(requests.Model):
    """Streaming as a whole; ``uptime`` is seconds, ``history`` is there while one is being made before it goes live."""

    is_streaming: bool
    active_streams: Count
    total_messages_sent: Count
    uptime: float
    history: Annotated[History | None, Field(exclude_if=lambda found: found is None)] = None
    reason: Reason = ""
    """Why this daemon may not generate: another one does, which is named. Left out while nothing is in the way."""


class Status(requests.Model):
    """Everything at a glance."""

    kafka: KafkaStatus
    data_streamer: StreamerStatus
    streams: list[StreamInfo]
    scenarios: list[ScenarioInfo]
    subscribers: Count
    config: ConfigState


class KafkaHealth(BrokerState):
    """The broker; ``simulationMode`` is a choice and not an ailment when no broker is named."""

    connected: bool


class StreamingHealth(requests.Model):
    """Streaming; ``failing`` names streams that cannot make events, ``reason`` the daemon that generates instead."""

    is_streaming: bool
    active_streams: Count
    failing: list[str]
    reason: Reason = ""


class StoreHealth(requests.Model):
    """Where events are kept.

    ``state`` is ``none`` without a database (events are in memory only), ``connecting``, ``live``, ``away``,
    ``standby`` while another daemon records into it, or ``closed``; ``reason`` says why. ``recorded`` events are in the
    database since the start, ``waiting`` events and notes on disk for it, ``lag`` messages on the topics. ``refused``
    events it did not take (``refusal`` has the last), ``lost`` were gone from a topic before they were recorded, and of
    the streams in ``dropped`` so many were given up because the disk space was.
    """

    state: str
    reason: str = ""
    recorded: Count = 0
    waiting: Count = 0
    lag: Count = 0
    refused: Count = 0
    refusal: str = ""
    lost: Count = 0
    dropped: dict[str, Count] = {}


class SystemHealth(requests.Model):
    """The process: ``memory`` resident bytes, ``cpu`` percent of a core since the start, ``uptime`` seconds."""

    memory: Count
    cpu: float
    cpu_seconds: float
    uptime: float
    pid: int
    python: str
    version: str


class Health(requests.Model):
    """How the daemon is."""

    status: Literal["ok", "degraded"]
    kafka: KafkaHealth
    streaming: StreamingHealth
    store: StoreHealth
    system: SystemHealth
    config: ConfigState


class Probe(requests.Model):
    """For supervisors."""

    status: Literal["ok", "unavailable"]


class InForce(requests.Model):
    """The configuration in force, every default filled in; keys within are those of the YAML files."""

    generation: Count
    loaded_at: Time
    digest: str
    seed: int | None
    profile: dict[str, Any]
    entities: dict[str, dict[str, Any]]
    streams: dict[str, dict[str, Any]]
    scenarios: dict[str, dict[str, Any]]
    templates: list[str]


class CloudEvent(requests.Model):
    """CloudEvents 1.0; ``epoch`` and ``seq`` are its position."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str
    time: Time
    datacontenttype: Literal["application/json"]
    epoch: str
    seq: Annotated[int, Field(ge=1)]
    priority: spec.Priority
    region: str
    data: dict[str, Any]


class Events(requests.Model):
    """A page of history, newest last; ``cursor`` is what ``after`` takes, ``more`` says that there is more already.

    ``previous`` is what ``before`` takes, where there is a database; ``more`` is said of what is before it then.
    """

    events: list[CloudEvent]
    cursor: str
    more: bool
    previous: str | None = None


class Bucket(requests.Model):
    """One bucket, from ``time`` on; ``value`` is null where there is no number, ``count`` of events."""

    time: str
    value: float | None
    count: Count


class Analytics(requests.Model):
    """Figures of a stream, a bucket after the other; ``skipped`` events had no number in ``field``."""

    stream: str
    field: str | None
    agg: str
    bucket: Count
    since: str
    until: str
    skipped: Count
    buckets: list[Bucket]


class ControlCall(requests.Model):
    """One control call: who asked for what, when, how it was answered, and the state before and after it."""

    id: str
    at: str
    actor: str
    address: str
    action: str
    target: str
    request: Any
    status: int
    before: Any
    after: Any


class Audit(requests.Model):
    """Control calls, newest last; ``cursor`` is what ``after`` takes, None before the first call."""

    calls: list[ControlCall]
    cursor: str | None
