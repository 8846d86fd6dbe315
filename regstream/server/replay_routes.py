"""Replays over HTTP: stored events sent again, each run by its id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from regstream import errors, spec
from regstream.server import event_routes, responses, timestamps
from regstream.server.router import Call, Reply

if TYPE_CHECKING:
    from regstream.server.services import Services
    from regstream.store import replay

PATH = "/api/streaming/replay"


def _replays(services: Services) -> replay.ReplayRegistry:
    if services.replays is None:
        raise errors.Conflict("replaying needs a database: set DATABASE_URL")
    return services.replays


async def replay_events(call: Call) -> Reply:
    """Begin a run."""
    from regstream.store import replay

    runs, body = _replays(call.services), call.body
    if body.from_ >= body.to:
        raise errors.BadValue("from", "it has to be before to")
    topics = _topics(call, body.topic, body.topics, body.streams)
    # Who says where streams go says which
    streams = body.streams or list(body.topics or ())
    kept = call.services.store
    if kept is not None:
        await kept.settled()
        await event_routes.check_streams(call, kept, streams)
    run = runs.start(replay.ReplaySpec(body.from_, body.to, tuple(dict.fromkeys(streams)), body.speed, topics))
    return Reply(_state(run), headers={"location": f"{PATH}/{run.run_id}"})


def _topics(
    call: Call, topic: str | None, topics: Mapping[str, str] | None, streams: list[str]
) -> str | Mapping[str, str] | None:
    """Raises BadValue when both are given or a stream has none, Conflict for the topic of a stream."""
    if topic is not None and topics is not None:
        raise errors.BadValue("topics", "either topic or topics, not both")
    if (topics is not None and not set(streams) <= topics.keys()) or topics == {}:
        raise errors.BadValue("topics", f"no topic for {', '.join(sorted(set(streams) - set(topics or ())))}")
    live = {spec.topic for spec in call.services.engine.catalog.streams.values()} | {spec.ALERT_TOPIC}
    for one in sorted(live & {topic, *(topics or {}).values()} - {None}):
        raise errors.Conflict(f"topic {one} is that of a stream: what is sent there is live, name another one")
    return topic if topics is None else topics


def replays(call: Call) -> responses.Replays:
    """Every run that is remembered."""
    runs = call.services.replays
    return responses.Replays(replays=[_state(one) for one in runs.all()] if runs is not None else [])


def replay_run(call: Call) -> responses.ReplayState:
    """One run."""
    return _state(_find(call.services, call.names))


async def cancel_replay(call: Call) -> responses.ReplayState:
    """End a run."""
    _find(call.services, call.names)
    return _state(await _replays(call.services).cancel(call.names["runId"]))


def pause_replay(call: Call) -> responses.ReplayState:
    """Let a run wait."""
    _find(call.services, call.names)
    return _state(_replays(call.services).pause(call.names["runId"]))


def resume_replay(call: Call) -> responses.ReplayState:
    """Let a run go on."""
    _find(call.services, call.names)
    return _state(_replays(call.services).resume(call.names["runId"]))


def _find(services: Services, names: Mapping[str, str]) -> replay.ReplayRun:
    if services.replays is None:
        raise errors.UnknownName("run", names["runId"])
    return services.replays.get(names["runId"])


def _state(run: replay.ReplayRun) -> responses.ReplayState:
    spec = run.spec
    return responses.ReplayState(
        run_id=run.run_id,
        state=run.state,  # type: ignore[arg-type]
        from_=timestamps.text(spec.begin),
        to=timestamps.text(spec.end),
        streams=list(spec.streams),
        speed=spec.speed or "max",
        topics=spec.topics if spec.topics is None or isinstance(spec.topics, str) else dict(spec.topics),
        sent=run.sent,
        total=run.total,
        progress=round(run.progress, 4),
        position=timestamps.text_or_none(run.position),
        started=timestamps.text(run.started),
        ended=timestamps.text_or_none(run.ended),
        reason=run.reason,
    )


# What control calls concern


def all_runs(services: Services, _: Mapping[str, str]) -> Any:
    """Which replays there are under way."""
    runs = services.replays.all() if services.replays is not None else []
    return {one.run_id: one.state for one in runs if one.ended is None}


def one_run(services: Services, names: Mapping[str, str]) -> Any:
    """How one run is."""
    one = _find(services, names)
    return {"state": one.state, "sent": one.sent}
