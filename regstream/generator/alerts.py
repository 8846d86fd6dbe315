"""Events of the built-in stream of alerts, which are raised by events and by scenarios."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from regstream import errors, spec
from regstream.event import Event, Head
from regstream.functions import registry, rng
from regstream.generator import batch as batches
from regstream.generator import entities
from regstream.generator import stream as streams
from regstream.templates import compile
from regstream.templates.program import cause, sayable

SPEC = spec.StreamSpec(
    name=spec.ALERTS,
    description="What needs attention now",
    topic=spec.ALERT_TOPIC,
    event=spec.ALERT_TYPE,
    priority=spec.Priority.CRITICAL,
    fields={"message": ""},
)


class Raised(NamedTuple):
    """An alert that waits for its number: when it happened, its ``data``, and its trace if it has one."""

    at: float
    data: dict[str, Any]
    traceparent: str = ""

    @classmethod
    def by(
        cls, stream: str, signal: streams.AlertSignal, at: float, scenario: str | None = None, run_id: str | None = None
    ) -> Raised:
        """What an event raised, which may be of a scenario's run."""
        return cls(at, _alert_data(signal.severity, signal.message, stream, signal.seq, scenario, run_id))

    @classmethod
    def in_run(cls, severity: str, message: str, at: float, scenario: str, run_id: str, traceparent: str) -> Raised:
        """What a step of a scenario raised."""
        return cls(at, _alert_data(severity, message, None, None, scenario, run_id), traceparent)


def _alert_data(
    severity: str, message: str, stream: str | None, cause: int | None, scenario: str | None, run_id: str | None
) -> dict[str, Any]:
    return {
        "severity": severity, "message": message, "stream": stream, "causeSeq": cause, "scenario": scenario,
        "runId": run_id,
    }  # fmt: skip


def batch(stream: streams.Stream, raised: Iterable[Raised]) -> list[Event]:
    """Events of the built-in stream of alerts, numbered on from its position."""
    identity, made = stream.workshop.identity, []
    for at, some in itertools.groupby(raised, operator.attrgetter("at")):
        head = Head(
            spec.ALERTS, stream.epoch, spec.ALERT_TYPE, spec.ALERT_TOPIC, spec.Priority.CRITICAL,
            registry.time_text(at), identity.region,
        )  # fmt: skip
        before, between, after = batches.envelope(head, identity.source)
        for _, data, traceparent in some:
            stream.seq += 1
            number, rest = b"%d" % stream.seq, batches.traced(after, traceparent)
            value = b"".join((before, number, between, number, rest, orjson.dumps(data), b"}"))
            made.append(Event(head, stream.seq, data["stream"] or data["scenario"], value))
    return made


def text(workshop: streams.GenerationContext, source: str, now: float, name: str) -> str:
    """One template as text, drawn from (seed, name). Raises RenderError."""
    key = rng.key(workshop.seed, name)
    rows: list[entities.Row] = []
    instant = registry.Instant.at(now)
    try:
        program = compile.message(workshop.box, source, key)
        program.function(rng.Draws(key, program.layout).span(1, 1), 0, instant, str(instant), workshop.pools, rows)
        return sayable(rows[0]["message"])
    except Exception as error:
        raise errors.RenderError(spec.ALERTS, "message", cause(error)) from error
