"""The table of routes, and the thin functions behind them."""

from __future__ import annotations

import asyncio

from regstream.server import (
    answers,
    asking,
    asyncapi,
    auditing,
    messages,
    openapi,
    pages,
    replaying,
    routing,
    shapes,
    sse,
    views,
)
from regstream.server.routing import Answered, Call, Reply, Route

_HTML = "text/html; charset=utf-8"
_PROMETHEUS = "text/plain; version=1.0.0; charset=utf-8"
_BASE = "/api/streaming"
_STREAM = f"{_BASE}/streams/{{name}}"


def _health(call: Call) -> answers.Health:
    return views.health(call.services)


def _live(_: Call) -> answers.Probe:
    return answers.Probe(status="ok")


def _ready(call: Call) -> Reply:
    ready = bool(call.request.app.ctx.ready)
    return Reply(answers.Probe(status="ok" if ready else "unavailable"), 200 if ready else 503)


def _status(call: Call) -> answers.Status:
    return views.status(call.services)


def _start(call: Call) -> answers.Status:
    call.services.engine.start(call.body.streams)
    return views.status(call.services)


def _stop(call: Call) -> answers.Status:
    call.services.engine.stop(call.body.streams)
    return views.status(call.services)


async def _burst(call: Call) -> answers.BurstResult:
    name, count = call.body.stream_type, call.body.count
    first, last = await call.services.engine.burst(name, count)
    return answers.BurstResult(stream_type=name, count=count, first_seq=first, last_seq=last)


def _simulate(call: Call) -> Reply:
    run = views.run(call.services.engine.simulate(call.body.scenario))
    return Reply(run, headers={"location": f"{_BASE}/simulate/{run.run_id}"})


def _runs(call: Call) -> answers.Runs:
    return answers.Runs(runs=[views.run(one) for one in call.services.engine.runs()])


def _run(call: Call) -> answers.RunState:
    return views.run(call.services.engine.run(call.names["runId"]))


def _cancel(call: Call) -> answers.RunState:
    return views.run(call.services.engine.cancel(call.names["runId"]))


def _scenarios(call: Call) -> answers.Scenarios:
    return answers.Scenarios(scenarios=views.scenarios(call.services.engine))


def _streams(call: Call) -> answers.Streams:
    return answers.Streams(streams=[views.stream(one) for one in call.services.engine.streams()])


def _stream(call: Call) -> answers.StreamState:
    return views.stream(call.services.engine.stream(call.names["name"]))


def _patch(call: Call) -> answers.StreamState:
    given = {key: getattr(call.body, key) for key in call.body.model_fields_set}
    return views.stream(call.services.engine.patch(call.names["name"], **given))


def _pause(call: Call) -> answers.StreamState:
    call.services.engine.pause(call.names["name"])
    return _stream(call)


def _resume(call: Call) -> answers.StreamState:
    call.services.engine.resume(call.names["name"])
    return _stream(call)


async def _reload(call: Call) -> answers.ReloadResult:
    return views.receipt(await call.services.door.reload("api", dry_run=call.query.dry_run))


def _config(call: Call) -> answers.InForce:
    return views.in_force(call.services.engine, call.services.door)


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
    site = asyncapi.Site(
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
    return pages.reply("docs.html")


def _dashboard(_: Call) -> Reply:
    return pages.reply("index.html")


TABLE: tuple[Route, ...] = (
    Route("GET", "/health", _health, "How the daemon is", answers.Health, tag="health"),
    Route("GET", "/health/live", _live, "Whether the process answers", answers.Probe, role=None, tag="health"),
    Route(
        "GET",
        "/health/ready",
        _ready,
        "Whether the daemon takes requests",
        answers.Probe,
        also={503: answers.Probe},
        role=None,
        tag="health",
    ),
    Route("GET", f"{_BASE}/status", _status, "Everything at a glance", answers.Status),
    Route(
        "POST",
        f"{_BASE}/start",
        _start,
        "Start streaming, or some streams",
        answers.Status,
        body=shapes.Names,
        problems=(404,),
        concerns=auditing.streaming,
    ),
    Route(
        "POST",
        f"{_BASE}/stop",
        _stop,
        "Stop streaming, or some streams",
        answers.Status,
        body=shapes.Names,
        problems=(404,),
        concerns=auditing.streaming,
    ),
    Route(
        "POST",
        f"{_BASE}/burst",
        _burst,
        "Make events at once",
        answers.BurstResult,
        body=shapes.BurstRequest,
        problems=(404, 409, 429, 503),
        concerns=auditing.positions,
    ),
    Route(
        "POST",
        f"{_BASE}/simulate",
        _simulate,
        "Start a scenario",
        answers.RunState,
        202,
        body=shapes.SimulateRequest,
        problems=(404, 409, 429),
        headers={"Location": "Where the run can be followed and cancelled"},
        links={"run": "runId", "cancel": "runId"},
        tag="scenarios",
        concerns=auditing.runs,
    ),
    Route("GET", f"{_BASE}/simulate", _runs, "List runs", answers.Runs, tag="scenarios"),
    Route("GET", f"{_BASE}/simulate/{{runId}}", _run, "Show a run", answers.RunState, problems=(404,), tag="scenarios"),
    Route(
        "DELETE",
        f"{_BASE}/simulate/{{runId}}",
        _cancel,
        "Cancel a run; what it changed is put back",
        answers.RunState,
        problems=(404,),
        tag="scenarios",
        concerns=auditing.run,
    ),
    Route("GET", f"{_BASE}/scenarios", _scenarios, "List what can be simulated", answers.Scenarios, tag="scenarios"),
    Route("GET", f"{_BASE}/streams", _streams, "List streams", answers.Streams, tag="streams"),
    Route(
        "GET",
        _STREAM,
        _stream,
        "Show a stream",
        answers.StreamState,
        problems=(404,),
        tag="streams",
    ),
    Route(
        "PATCH",
        _STREAM,
        _patch,
        "Change a stream, within one tick",
        answers.StreamState,
        body=shapes.StreamPatch,
        problems=(404, 409),
        tag="streams",
        concerns=auditing.stream,
    ),
    Route(
        "POST",
        f"{_STREAM}/pause",
        _pause,
        "Pause a stream; state, entities and seq are kept",
        answers.StreamState,
        problems=(404, 409),
        tag="streams",
        concerns=auditing.stream,
    ),
    Route(
        "POST",
        f"{_STREAM}/resume",
        _resume,
        "Let a paused stream go on",
        answers.StreamState,
        problems=(404, 409),
        tag="streams",
        concerns=auditing.stream,
    ),
    Route(
        "POST",
        f"{_BASE}/reload",
        _reload,
        "Read the configuration files again",
        answers.ReloadResult,
        query=shapes.ReloadQuery,
        problems=(409, 422),
        tag="configuration",
        concerns=auditing.files,
        role="admin",
    ),
    Route(
        "GET",
        f"{_BASE}/config",
        _config,
        "Show the configuration in force",
        answers.InForce,
        role="admin",
        tag="configuration",
    ),
    Route(
        "GET",
        f"{_BASE}/events",
        asking.events,
        "Read events",
        answers.Events,
        forms=(asking.NDJSON, asking.CSV),
        query=shapes.EventsQuery,
        problems=(404, 409, 422, 503),
    ),
    Route(
        "GET",
        f"{_BASE}/analytics",
        asking.analytics,
        "Compute figures of a stream (needs a database)",
        answers.Analytics,
        query=shapes.AnalyticsQuery,
        problems=(404, 409, 422, 503),
    ),
    Route(
        "GET",
        f"{_BASE}/audit",
        asking.audit,
        "Read who controlled what (needs a database)",
        answers.Audit,
        query=shapes.AuditQuery,
        problems=(409, 422, 503),
        role="admin",
    ),
    Route(
        "POST",
        replaying.PATH,
        replaying.replay_events,
        "Send stored events again (needs a database)",
        answers.ReplayState,
        status=202,
        body=shapes.ReplayRequest,
        problems=(404, 409, 429, 503),
        headers={"location": "Where the run is to be seen"},
        links={"replay_run": "runId", "cancel_replay": "runId"},
        concerns=replaying.all_runs,
        tag="replay",
    ),
    Route("GET", replaying.PATH, replaying.replays, "Show replays", answers.Replays, tag="replay"),
    Route(
        "GET",
        f"{replaying.PATH}/{{runId}}",
        replaying.replay_run,
        "Show a replay",
        answers.ReplayState,
        problems=(404,),
        tag="replay",
    ),
    Route(
        "DELETE",
        f"{replaying.PATH}/{{runId}}",
        replaying.cancel_replay,
        "Cancel a replay",
        answers.ReplayState,
        problems=(404,),
        concerns=replaying.one_run,
        tag="replay",
    ),
    Route(
        "POST",
        f"{replaying.PATH}/{{runId}}/pause",
        replaying.pause_replay,
        "Let a replay wait",
        answers.ReplayState,
        problems=(404, 409),
        concerns=replaying.one_run,
        tag="replay",
    ),
    Route(
        "POST",
        f"{replaying.PATH}/{{runId}}/resume",
        replaying.resume_replay,
        "Let a paused replay go on",
        answers.ReplayState,
        problems=(404, 409),
        concerns=replaying.one_run,
        tag="replay",
    ),
    Route(
        "GET",
        f"{_BASE}/stream",
        _follow,
        "Follow events as they are made (Server-Sent Events)",
        media=sse.MEDIA,
        query=shapes.FollowQuery,
        problems=(404, 503),
    ),
    Route("GET", "/metrics", _metrics, "Figures for Prometheus", media=_PROMETHEUS, tag="health"),
    Route("GET", "/openapi.json", _openapi, "This description", media=routing.JSON, role=None, tag="pages"),
    Route(
        "GET", "/asyncapi.json", _asyncapi, "The channels and their events (AsyncAPI)", media=routing.JSON, tag="pages"
    ),
    Route("GET", "/docs", _docs, "This description, for people", media=_HTML, role=None, tag="pages"),
    Route("GET", "/", _dashboard, "The live page", media=_HTML, role=None, tag="pages"),
)
