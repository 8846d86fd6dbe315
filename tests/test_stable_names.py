"""Names that operators write into their configurations stay when modules and classes are renamed."""

from __future__ import annotations

import ast

from regstream import cli, settings
from regstream.server import routes
from regstream.server.transports import websocket
from tests import support

# `DEBUG=streaming:broker` and the filters of a log collector name them
LOGGERS = {
    "regstream",
    "regstream.broker",
    "regstream.broker.failover",
    "regstream.broker.kafka.sender.refused",
    "regstream.broker.kafka.topics",
    "regstream.broker.outbox",
    "regstream.clock",
    "regstream.config",
    "regstream.daemon",
    "regstream.engine",
    "regstream.engine.health",
    "regstream.engine.work",
    "regstream.generate",
    "regstream.hub",
    "regstream.journal",
    "regstream.reload",
    "regstream.scenario",
    "regstream.server",
    "regstream.server.sio",
    "regstream.server.ws",
    "regstream.store",
}
VARIABLES = """
    CORS_ORIGINS DATABASE_URL DEBUG DELIVERY_WINDOW ENABLE_STREAMING KAFKA_BROKER KAFKA_SASL_MECHANISM
    KAFKA_SASL_PASSWORD KAFKA_SASL_USERNAME KAFKA_SECURITY_PROTOCOL KAFKA_SSL_CA KAFKA_SSL_CERT KAFKA_SSL_KEY
    OTEL_TRACES_EXPORTER RATE_LIMIT REGSTREAM_ENV REGSTREAM_LOG REGSTREAM_STATE REGSTREAM_TOKENS REGSTREAM_TOKENS_FILE
    RETENTION STREAMING_HOST STREAMING_MAX_CONNECTIONS STREAMING_MAX_PER_ADDRESS STREAMING_PORT STREAMING_PROXIES
    VPS_REGION VPS_SERVER_NAME
"""
COMMANDS = "check generate plan preview replay run schema tail validate"
ROUTES = """
    DELETE /api/streaming/replay/{runId}
    DELETE /api/streaming/simulate/{runId}
    GET /
    GET /api/streaming/analytics
    GET /api/streaming/audit
    GET /api/streaming/config
    GET /api/streaming/events
    GET /api/streaming/replay
    GET /api/streaming/replay/{runId}
    GET /api/streaming/scenarios
    GET /api/streaming/simulate
    GET /api/streaming/simulate/{runId}
    GET /api/streaming/status
    GET /api/streaming/stream
    GET /api/streaming/streams
    GET /api/streaming/streams/{name}
    GET /asyncapi.json
    GET /docs
    GET /health
    GET /health/live
    GET /health/ready
    GET /metrics
    GET /openapi.json
    PATCH /api/streaming/streams/{name}
    POST /api/streaming/burst
    POST /api/streaming/reload
    POST /api/streaming/replay
    POST /api/streaming/replay/{runId}/pause
    POST /api/streaming/replay/{runId}/resume
    POST /api/streaming/simulate
    POST /api/streaming/start
    POST /api/streaming/stop
    POST /api/streaming/streams/{name}/pause
    POST /api/streaming/streams/{name}/resume
"""


def loggers() -> list[ast.expr]:
    """What every ``getLogger`` of the package is given."""
    calls = [
        node
        for path in sorted(support.PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger"
    ]
    return [call.args[0] for call in calls]


def test_loggers_have_the_names_that_filters_are_written_for() -> None:
    names = {argument.value for argument in loggers() if isinstance(argument, ast.Constant)}
    assert {name for name in names if str(name).startswith("regstream")} == LOGGERS


def test_no_logger_is_named_after_its_file() -> None:
    assert [ast.unparse(argument) for argument in loggers() if "__name__" in ast.unparse(argument)] == []


def test_variables_have_the_names_that_units_and_shells_set() -> None:
    assert {variable.name for variable in settings.VARIABLES} == set(VARIABLES.split())


def test_commands_have_the_names_that_scripts_call() -> None:
    names = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert names == set(COMMANDS.split())


def test_routes_have_the_paths_that_clients_ask() -> None:
    paths = {f"{route.method} {route.path}" for route in routes.TABLE}
    assert paths == {line.strip() for line in ROUTES.strip().splitlines()}


def test_connections_are_closed_with_the_codes_that_clients_tell_apart() -> None:
    assert (websocket.GOING_AWAY, websocket.UNAUTHORIZED, websocket.TOO_SLOW, websocket.BAD_MESSAGE) == (
        1001,
        4001,
        4008,
        4009,
    )
