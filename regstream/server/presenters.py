"""The state of the daemon as the shapes of the interface."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from regstream import broker as brokers
from regstream import engine as engines
from regstream import errors, plan, reloader, spec
from regstream.engine import status as statuses
from regstream.server import process, requests, responses, timestamps
from regstream.server.services import Services


def stream(status: statuses.StreamStatus) -> responses.StreamInfo:
    """One stream, from ``engine.StreamStatus``."""
    fields = {field.name: getattr(status, field.name) for field in dataclasses.fields(status)}
    fields["interval"] = _plain(status.interval)
    fields["overlays"] = list(status.overlays)
    fields["next"] = timestamps.text_or_none(status.next)
    fields["last"] = timestamps.text_or_none(status.last)
    return responses.StreamInfo.model_validate({key: fields[key] for key in responses.StreamInfo.model_fields})


def _plain(number: float | None) -> float | None:
    return int(number) if number is not None and number == int(number) else number


def run(status: statuses.RunStatus) -> responses.RunState:
    """One run, from ``engine.RunStatus``."""
    fields = {field.name: getattr(status, field.name) for field in dataclasses.fields(status)}
    fields["started"] = timestamps.text(status.started)
    fields["ended"] = timestamps.text_or_none(status.ended)
    fields["current"] = list(status.current)
    return responses.RunState.model_validate(fields)


def scenarios(engine: engines.Engine) -> list[responses.ScenarioInfo]:
    """What can be simulated, by name, with the runs that are under way."""
    running: dict[str, list[str]] = {}
    for one in engine.runs():
        if one.state == "running":
            running.setdefault(one.scenario, []).append(one.run_id)
    return [_scenario(spec, running.get(name, [])) for name, spec in sorted(engine.catalog.scenarios.items())]


def _scenario(declaration: spec.ScenarioSpec, running: list[str]) -> responses.ScenarioInfo:
    steps = list(spec.walk(declaration.steps))
    return responses.ScenarioInfo(
        name=declaration.name,
        description=declaration.description,
        steps=len(steps),
        streams=sorted({name for step in steps if (name := _touched(step))}),
        running=running,
    )


def _touched(step: Any) -> str | None:
    match step:
        case spec.BurstStep(burst=part) | spec.SetStep(set=part):
            return str(part.stream)
        case spec.PauseStep(pause=name) | spec.ResumeStep(resume=name):
            return str(name)
    return None


def changes(diff: plan.Diff) -> responses.Changes:
    """One difference, from ``plan.Diff``."""
    return responses.Changes(**_names(diff))


def _names(diff: plan.Diff | reloader.ReloadResult) -> dict[str, list[str]]:
    return {key: list(getattr(diff, key)) for key in ("added", "changed", "removed", "unchanged")}


def receipt(value: reloader.ReloadResult) -> responses.ReloadAnswer:
    """What a reload did or would do, from ``reload.Receipt``."""
    return responses.ReloadAnswer(
        generation=value.generation,
        loaded_at=timestamps.text(value.loaded_at),
        dry_run=value.dry_run,
        scenarios=changes(value.scenarios),
        entities=changes(value.entities),
        warnings=_places(value.warnings),
        **_names(value),
    )


def _places(found: Iterable[errors.Problem]) -> list[requests.ProblemPlace]:
    return [requests.ProblemPlace.model_validate(one.data()) for one in found]


def config_state(door: reloader.Reloader) -> responses.ConfigState:
    """Which configuration is in force, and the problems of the one that was refused."""
    error = door.error
    return responses.ConfigState(
        generation=door.receipt.generation,
        loaded_at=timestamps.text(door.receipt.loaded_at),
        error=str(error) if error else None,
        problems=_places(error.problems if error else ()),
    )


def in_force(engine: engines.Engine, door: reloader.Reloader) -> responses.InForce:
    """The whole configuration in force."""
    catalog: spec.Catalog = engine.catalog
    return responses.InForce(
        generation=door.receipt.generation,
        loaded_at=timestamps.text(door.receipt.loaded_at),
        digest=catalog.digest,
        seed=catalog.seed,
        profile=catalog.profile.model_dump(mode="json", by_alias=True),
        entities=_specs(catalog.entities),
        streams=_specs(catalog.streams),
        scenarios=_specs(catalog.scenarios),
        templates=sorted(catalog.templates),
    )


def _specs(specs: Mapping[str, spec.Spec]) -> dict[str, dict[str, Any]]:
    return {
        name: spec.model_dump(mode="json", by_alias=True, exclude={"name", "files"}, exclude_none=True)
        for name, spec in specs.items()
    }


def _history(progress: statuses.Progress | None) -> responses.History | None:
    if progress is None:
        return None
    return responses.History(since=timestamps.text(progress.begin), at=timestamps.text(progress.at), done=progress.done)


def status(services: Services) -> responses.Status:
    """Everything at a glance."""
    engine, broker = services.engine, services.broker.status
    streams = [stream(one) for one in engine.streams()]
    return responses.Status(
        kafka=responses.KafkaStatus(
            **_broker(broker),
            is_connected=_connected(broker),
            messages_produced=broker.produced,
            messages_consumed=broker.consumed,
            errors=broker.errors,
        ),
        data_streamer=responses.StreamerStatus(
            is_streaming=engine.streaming,
            reason=engine.refusal,
            active_streams=_active(streams),
            total_messages_sent=engine.totals.events,
            uptime=_uptime(services),
            history=_history(engine.progress),
        ),
        streams=streams,
        scenarios=scenarios(engine),
        subscribers=services.hub.subscribers,
        config=config_state(services.door),
    )


def health(services: Services) -> responses.Health:
    """How the daemon is.

    Degraded while a stream fails, another daemon generates in place of this one, the broker is not live or refuses
    events of a topic, the database is away, or the last reload was refused.
    """
    broker = services.broker.status
    store = services.store.status if services.store is not None else None
    streams = services.engine.streams()
    failing = [one.name for one in streams if one.state == "failing"]
    config = config_state(services.door)
    # In simulation the reason is why there is no Kafka, and nothing is wrong with that
    refusing = broker.kind == "kafka" and broker.reason != ""
    storing = store is None or not store.ailing
    kept_out = services.engine.refusal
    ailing = bool(failing or kept_out) or broker.state != "live" or refusing or config.error is not None or not storing
    return responses.Health(
        status="degraded" if ailing else "ok",
        kafka=responses.KafkaHealth(**_broker(broker), connected=_connected(broker)),
        streaming=responses.StreamingHealth(
            is_streaming=services.engine.streaming,
            reason=kept_out,
            active_streams=_active(streams),
            failing=failing,
        ),
        store=responses.StoreHealth(**store._asdict()) if store is not None else responses.StoreHealth(state="none"),
        system=_system(services),
        config=config,
    )


def _broker(broker: brokers.BrokerStatus) -> dict[str, Any]:
    same = ("state", "reason", "waiting", "lag", "foreign", "skipped")
    fields = {name: getattr(broker, name) for name in same}
    return {**fields, "simulation_mode": broker.simulation, "dropped": dict(broker.dropped)}


def _connected(broker: brokers.BrokerStatus) -> bool:
    return broker.kind == "kafka" and broker.state in ("live", "draining")


def _active(streams: Sequence[responses.StreamInfo | statuses.StreamStatus]) -> int:
    return sum(one.state in ("running", "failing") for one in streams)


def _uptime(services: Services) -> float:
    return float(round(max(0.0, services.now() - services.engine.started_at), 3))


def _system(services: Services) -> responses.SystemHealth:
    uptime, spent = _uptime(services), process.cpu_seconds()
    return responses.SystemHealth(
        memory=process.memory(),
        cpu=round(100 * spent / uptime, 1) if uptime else 0.0,
        cpu_seconds=round(spent, 2),
        uptime=uptime,
        pid=os.getpid(),
        python=platform.python_version(),
        version=services.version,
    )
