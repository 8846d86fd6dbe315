"""The table of routes, and the thin functions behind them."""

from __future__ import annotations

import asyncio

from regstream.server import (
    assets,
    asyncapi,
    audit,
    event_routes,
    openapi,
    presenters,
    replay_routes,
    requests,
    responses,
    router,
)
from regstream.server.router import Answered, Call, Reply, Route
from regstream.server.transports import messages, sse

_HTML = "text/html; charset=utf-8"
_PROMETHEUS = "text/plain; version=1.0.0; charset=utf-8"
_BASE = "/api/streaming"
_STREAM = f"{_BASE}/streams/{{name}}"


def _health(call: Call) -> responses.Health:
    return presenters.health(call.services)


def _live(_: Call) -> responses.Probe:
    return responses.Probe(status="ok")


def _ready(call: Call) -> Reply:
    ready = bool(call.request.app.ctx.ready)
    return Reply(responses.Probe(status="ok" if ready else "unavailable"), 200 if ready else 503)


def _status(call: Call) -> responses.Status:
    return presenters.status(call.services)


def _start(call: Call) -> responses.Status:
    call.services.engine.start(call.body.streams)
    return presenters.status(call.services)


def _stop(call: Call) -> responses.Status:
    call.services.engine.stop(call.body.streams)
    return presenters.status(call.services)


async def _burst(call: Call) -> responses.BurstResult:
    name, count = call.body.stream_type, call.body.count
    first, last = await call.services.engine.burst(name, count)
    return responses.BurstResult(stream_type=name, count=count, first_seq=first, last_seq=last)


def _simulate(call: Call) -> Reply:
    run = presenters.run(call.services.engine.simulate(call.body.scenario))
    return Reply(run, headers={"location": f"{_BASE}/simulate/{run.run_id}"})


def _runs(call: Call) -> responses.Runs:
    return responses.Runs(runs=[presenters.run(one) for one in call.services.engine.runs()])


def _run(call: Call) -> responses.RunState:
    return presenters.run(call.services.engine.run(call.names["runId"]))


def _cancel(call: Call) -> responses.RunState:
    return presenters.run(call.services.engine.cancel(call.names["runId"]))


def _scenarios(call: Call) -> responses.Scenarios:
    return responses.Scenarios(scenarios=presenters.scenarios(call.services.engine))


def _streams(call: Call) -> responses.Streams:
    return responses.Streams(streams=[presenters.stream(one) for one in call.services.engine.streams()])


def _stream(call: Call) -> responses.StreamInfo:
    return presenters.stream(call.services.engine.stream(call.names["name"]))


def _patch(call: Call) -> responses.StreamInfo:
    given = {key: getattr(call.body, key) for key in call.body.model_fields_set}
    return presenters.stream(call.services.engine.patch(call.names["name"], **given))


def _pause(call: Call) -> responses.StreamInfo:
    call.services.engine.pause(call.names["name"])
    return _stream(call)


def _resume(call: Call) -> responses.StreamInfo:
    call.services.engine.resume(call.names["name"])
    return _stream(call)


async def _reload(call: Call) -> responses.ReloadAnswer:
    return presenters.receipt(await call.services.door.reload("api", dry_run=call.query.dry_run))


def _config(call: Call) -> responses.InForce:
    return presenters.in_force(call.services.engine, call.services.door)


async def _follow(call: Call) -> Reply | Answered:
    if call.request.method == "HEAD":
        return Reply(b"")
    query = call.query.model_dump(by_alias=True, exclude_unset=True, exclude={"channel", "after"})
    after = {} if call.query.after is None else {"after": messages.read_json("after", call.query.after)}
    message = messages.subscription(call.query.channel, {**query, **after})
    await call.services.readers.serve(call.request, message.request)
    return Answered()


async def _metrics(call: Call) -> Reply:
    # Imported when somebody asks: the library takes 3 MB and a part of the start.
    from regstream.server import metrics

    ways = {name: way.connections for name, way in call.request.app.ctx.ways.items()}
    state = metrics.snapshot(call.services, ways)
    # 2,000 series take tens of milliseconds: too long for the loop.
    return Reply(await asyncio.to_thread(metrics.render, state))


def _openapi(call: Call) -> Reply:
    return Reply(openapi.document(TABLE, call.services.version))


async def _asyncapi(call: Call) -> Reply:
    services, request = call.services, call.request
    chosen = services.settings
    protected = chosen.kafka_protocol.startswith("SASL_")
    site = asyncapi.ApiSite(
        services.version,
        request.host,
        request.scheme in ("https", "wss"),
        services.guard.is_open,
        chosen.kafka_servers,
        chosen.kafka_protocol.endswith("SSL"),
        chosen.kafka_mechanism if protected else "",
    )
    # Reading the declarations takes a third of a second with many templates: too long for the loop
    return Reply(await asyncio.to_thread(services.formats.document, services.engine.catalog, site))


def _docs(_: Call) -> Reply:
    return assets.reply("docs.html")


def _dashboard(_: Call) -> Reply:
    return assets.reply("index.html")


TABLE: tuple[Route, ...] = (
    Route("GET", "/health", _health, "How the daemon is", responses.Health, tag="health"),
    Route("GET", "/health/live", _live, "Whether the process answers", responses.Probe, role=None, tag="health"),
    Route(
        "GET",
        "/health/ready",
        _ready,
        "Whether the daemon takes requests",
        responses.Probe,
        also={503: responses.Probe},
        role=None,
        tag="health",
    ),
    Route("GET", f"{_BASE}/status", _status, "Everything at a glance", responses.Status),
    Route(
        "POST",
        f"{_BASE}/start",
        _start,
        "Start streaming, or some streams",
        responses.Status,
        body=requests.Names,
        problems=(404,),
        concerns=audit.streaming,
    ),
    Route(
        "POST",
        f"{_BASE}/stop",
        _stop,
        "Stop streaming, or some streams",
        responses.Status,
        body=requests.Names,
        problems=(404,),
        concerns=audit.streaming,
    ),
    Route(
        "POST",
        f"{_BASE}/burst",
        _burst,
        "Make events at once",
        responses.BurstResult,
        body=requests.BurstRequest,
        problems=(404, 409, 429, 503),
        concerns=audit.positions,
    ),
    Route(
        "POST",
        f"{_BASE}/simulate",
        _simulate,
        "Start a scenario",
        responses.RunState,
        202,
        body=requests.SimulateRequest,
        problems=(404, 409, 429),
        headers={"Location": "Where the run can be followed and cancelled"},
        links={"run": "runId", "cancel": "runId"},
        tag="scenarios",
        concerns=audit.runs,
    ),
    Route("GET", f"{_BASE}/simulate", _runs, "List runs", responses.Runs, tag="scenarios"),
    Route(
        "GET", f"{_BASE}/simulate/{{runId}}", _run, "Show a run", responses.RunState, problems=(404,), tag="scenarios"
    ),
    Route(
        "DELETE",
        f"{_BASE}/simulate/{{runId}}",
        _cancel,
        "Cancel a run; what it changed is put back",
        responses.RunState,
        problems=(404,),
        tag="scenarios",
        concerns=audit.run,
    ),
    Route("GET", f"{_BASE}/scenarios", _scenarios, "List what can be simulated", responses.Scenarios, tag="scenarios"),
    Route("GET", f"{_BASE}/streams", _streams, "List streams", responses.Streams, tag="streams"),
    Route(
        "GET",
        _STREAM,
        _stream,
        "Show a stream",
        responses.StreamInfo,
        problems=(404,),
        tag="streams",
    ),
    Route(
        "PATCH",
        _STREAM,
        _patch,
        "Change a stream, within one tick",
        responses.StreamInfo,
        body=requests.StreamPatch,
        problems=(404, 409),
        tag="streams",
        concerns=audit.stream,
    ),
    Route(
        "POST",
        f"{_STREAM}/pause",
        _pause,
        "Pause a stream; state, entities and seq are kept",
        responses.StreamInfo,
        problems=(404, 409),
        tag="streams",
        concerns=audit.stream,
    ),
    Route(
        "POST",
        f"{_STREAM}/resume",
        _resume,
        "Let a paused stream go on",
        responses.StreamInfo,
        problems=(404, 409),
        tag="streams",
        concerns=audit.stream,
    ),
    Route(
        "POST",
        f"{_BASE}/reload",
        _reload,
        "Read the configuration files again",
        responses.ReloadAnswer,
        query=requests.ReloadQuery,
        problems=(409, 422),
        tag="configuration",
        concerns=audit.files,
        role="admin",
    ),
    Route(
        "GET",
        f"{_BASE}/config",
        _config,
        "Show the configuration in force",
        responses.InForce,
        role="admin",
        tag="configuration",
    ),
    Route(
        "GET",
        f"{_BASE}/events",
        event_routes.events,
        "Read events",
        responses.Events,
        forms=(event_routes.NDJSON, event_routes.CSV),
        query=requests.EventsQuery,
        problems=(404, 409, 422, 503),
    ),
    Route(
        "GET",
        f"{_BASE}/analytics",
        event_routes.analytics,
        "Compute figures of a stream (needs a database)",
        responses.Analytics,
        query=requests.AnalyticsQuery,
        problems=(404, 409, 422, 503),
    ),
    Route(
        "GET",
        f"{_BASE}/audit",
        event_routes.audit,
        "Read who controlled what (needs a database)",
        responses.Audit,
        query=requests.AuditQuery,
        problems=(409, 422, 503),
        role="admin",
    ),
    Route(
        "POST",
        replay_routes.PATH,
        replay_routes.replay_events,
        "Send stored events again (needs a database)",
        responses.ReplayState,
        status=202,
        body=requests.ReplayRequest,
        problems=(404, 409, 429, 503),
        headers={"location": "Where the run is to be seen"},
        links={"replay_run": "runId", "cancel_replay": "runId"},
        concerns=replay_routes.all_runs,
        tag="replay",
    ),
    Route("GET", replay_routes.PATH, replay_routes.replays, "Show replays", responses.Replays, tag="replay"),
    Route(
        "GET",
        f"{replay_routes.PATH}/{{runId}}",
        replay_routes.replay_run,
        "Show a replay",
        responses.ReplayState,
        problems=(404,),
        tag="replay",
    ),
    Route(
        "DELETE",
        f"{replay_routes.PATH}/{{runId}}",
        replay_routes.cancel_replay,
        "Cancel a replay",
        responses.ReplayState,
        problems=(404,),
        concerns=replay_routes.one_run,
        tag="replay",
    ),
    Route(
        "POST",
        f"{replay_routes.PATH}/{{runId}}/pause",
        replay_routes.pause_replay,
        "Let a replay wait",
        responses.ReplayState,
        problems=(404, 409),
        concerns=replay_routes.one_run,
        tag="replay",
    ),
    Route(
        "POST",
        f"{replay_routes.PATH}/{{runId}}/resume",
        replay_routes.resume_replay,
        "Let a paused replay go on",
        responses.ReplayState,
        problems=(404, 409),
        concerns=replay_routes.one_run,
        tag="replay",
    ),
    Route(
        "GET",
        f"{_BASE}/stream",
        _follow,
        "Follow events as they are made (Server-Sent Events)",
        media=sse.MEDIA,
        query=requests.FollowQuery,
        problems=(404, 503),
    ),
    Route("GET", "/metrics", _metrics, "Figures for Prometheus", media=_PROMETHEUS, tag="health"),
    Route("GET", "/openapi.json", _openapi, "This description", media=router.JSON, role=None, tag="pages"),
    Route(
        "GET", "/asyncapi.json", _asyncapi, "The channels and their events (AsyncAPI)", media=router.JSON, tag="pages"
    ),
    Route("GET", "/docs", _docs, "This description, for people", media=_HTML, role=None, tag="pages"),
    Route("GET", "/", _dashboard, "The live page", media=_HTML, role=None, tag="pages"),
)
