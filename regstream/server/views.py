"""The state of the daemon as the shapes of the interface."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from regstream import broker as brokers
from regstream import engine as engines
from regstream import errors, model, plan, reload
from regstream.engine import status as statuses
from regstream.server import answers, instants, process, shapes
from regstream.server.services import Services


def stream(status: statuses.StreamStatus) -> answers.StreamState:
    """One stream, from ``engine.StreamStatus``."""
    fields = {field.name: getattr(status, field.name) for field in dataclasses.fields(status)}
    fields["interval"] = _plain(status.interval)
    fields["overlays"] = list(status.overlays)
    fields["next"] = instants.text_or_none(status.next)
    fields["last"] = instants.text_or_none(status.last)
    return answers.StreamState.model_validate({key: fields[key] for key in answers.StreamState.model_fields})


def _plain(number: float | None) -> float | None:
    return int(number) if number is not None and number == int(number) else number


def run(status: statuses.RunStatus) -> answers.RunState:
    """One run, from ``engine.RunStatus``."""
    fields = {field.name: getattr(status, field.name) for field in dataclasses.fields(status)}
    fields["started"] = instants.text(status.started)
    fields["ended"] = instants.text_or_none(status.ended)
    fields["current"] = list(status.current)
    return answers.RunState.model_validate(fields)


def scenarios(engine: engines.Engine) -> list[answers.ScenarioInfo]:
    """What can be simulated, by name, with the runs that are under way."""
    running: dict[str, list[str]] = {}
    for one in engine.runs():
        if one.state == "running":
            running.setdefault(one.scenario, []).append(one.run_id)
    return [_scenario(spec, running.get(name, [])) for name, spec in sorted(engine.catalog.scenarios.items())]


def _scenario(spec: model.ScenarioSpec, running: list[str]) -> answers.ScenarioInfo:
    steps = list(model.walk(spec.steps))
    return answers.ScenarioInfo(
        name=spec.name,
        description=spec.description,
        steps=len(steps),
        streams=sorted({name for step in steps if (name := _touched(step))}),
        running=running,
    )


def _touched(step: Any) -> str | None:
    match step:
        case model.BurstStep(burst=part) | model.SetStep(set=part):
            return str(part.stream)
        case model.PauseStep(pause=name) | model.ResumeStep(resume=name):
            return str(name)
    return None


def changes(diff: plan.Diff) -> answers.Changes:
    """One difference, from ``plan.Diff``."""
    return answers.Changes(**_names(diff))


def _names(diff: plan.Diff | reload.Receipt) -> dict[str, list[str]]:
    return {key: list(getattr(diff, key)) for key in ("added", "changed", "removed", "unchanged")}


def receipt(value: reload.Receipt) -> answers.ReloadResult:
    """What a reload did or would do, from ``reload.Receipt``."""
    return answers.ReloadResult(
        generation=value.generation,
        loaded_at=instants.text(value.loaded_at),
        dry_run=value.dry_run,
        scenarios=changes(value.scenarios),
        entities=changes(value.entities),
        warnings=_places(value.warnings),
        **_names(value),
    )


def _places(found: Iterable[errors.Problem]) -> list[shapes.Place]:
    return [shapes.Place.model_validate(one.data()) for one in found]


def config_state(door: reload.Door) -> answers.ConfigState:
    """Which configuration is in force, and the problems of the one that was refused."""
    error = door.error
    return answers.ConfigState(
        generation=door.receipt.generation,
        loaded_at=instants.text(door.receipt.loaded_at),
        error=str(error) if error else None,
        problems=_places(error.problems if error else ()),
    )


def in_force(engine: engines.Engine, door: reload.Door) -> answers.InForce:
    """The whole configuration in force."""
    catalog: model.Catalog = engine.catalog
    return answers.InForce(
        generation=door.receipt.generation,
        loaded_at=instants.text(door.receipt.loaded_at),
        digest=catalog.digest,
        seed=catalog.seed,
        profile=catalog.profile.model_dump(mode="json", by_alias=True),
        entities=_specs(catalog.entities),
        streams=_specs(catalog.streams),
        scenarios=_specs(catalog.scenarios),
        templates=sorted(catalog.templates),
    )


def _specs(specs: Mapping[str, model.Spec]) -> dict[str, dict[str, Any]]:
    return {
        name: spec.model_dump(mode="json", by_alias=True, exclude={"name", "files"}, exclude_none=True)
        for name, spec in specs.items()
    }


def _history(progress: statuses.Progress | None) -> answers.History | None:
    if progress is None:
        return None
    return answers.History(since=instants.text(progress.begin), at=instants.text(progress.at), done=progress.done)


def status(services: Services) -> answers.Status:
    """Everything at a glance."""
    engine, broker = services.engine, services.broker.status
    streams = [stream(one) for one in engine.streams()]
    return answers.Status(
        kafka=answers.KafkaStatus(
            **_broker(broker),
            is_connected=_connected(broker),
            messages_produced=broker.produced,
            messages_consumed=broker.consumed,
            errors=broker.errors,
        ),
        data_streamer=answers.StreamerStatus(
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


def health(services: Services) -> answers.Health:
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
    return answers.Health(
        status="degraded" if ailing else "ok",
        kafka=answers.KafkaHealth(**_broker(broker), connected=_connected(broker)),
        streaming=answers.StreamingHealth(
            is_streaming=services.engine.streaming,
            reason=kept_out,
            active_streams=_active(streams),
            failing=failing,
        ),
        store=answers.StoreHealth(**store._asdict()) if store is not None else answers.StoreHealth(state="none"),
        system=_system(services),
        config=config,
    )


def _broker(broker: brokers.Status) -> dict[str, Any]:
    same = ("state", "reason", "waiting", "lag", "foreign", "skipped")
    fields = {name: getattr(broker, name) for name in same}
    return {**fields, "simulation_mode": broker.simulation, "dropped": dict(broker.dropped)}


def _connected(broker: brokers.Status) -> bool:
    return broker.kind == "kafka" and broker.state in ("live", "draining")


def _active(streams: Sequence[answers.StreamState | statuses.StreamStatus]) -> int:
    return sum(one.state in ("running", "failing") for one in streams)


def _uptime(services: Services) -> float:
    return float(round(max(0.0, services.now() - services.engine.started_at), 3))


def _system(services: Services) -> answers.SystemHealth:
    uptime, spent = _uptime(services), process.cpu_seconds()
    return answers.SystemHealth(
        memory=process.memory(),
        cpu=round(100 * spent / uptime, 1) if uptime else 0.0,
        cpu_seconds=round(spent, 2),
        uptime=uptime,
        pid=os.getpid(),
        python=platform.python_version(),
        version=services.version,
    )
