"""The table from errors to HTTP."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from regstream import errors
from regstream.server import problems, requests
from tests.server.test_routes import is_problem

PROBLEM = errors.Problem("streams.yaml", 3, 5, "streams.A", "not a duration", "write 5s")
CASES: list[tuple[Exception, int, dict[str, Any]]] = [
    (errors.BadValue("interval", "too short"), 400, {"errors": [{"path": "interval", "message": "too short"}]}),
    (errors.UnknownName("stream", "A", ("AB",)), 404, {"near": ["AB"]}),
    (errors.Conflict("not now"), 409, {}),
    (errors.RenderError("A", "fields.x", "division by zero"), 409, {"field": "fields.x"}),
    (errors.ConfigError((PROBLEM,)), 422, {}),
    (errors.Overloaded("the queue", 2.5), 429, {}),
    (errors.BrokerError("gone", 3), 503, {}),
]


async def _fail(live: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> httpx.Response:
    def fail() -> Any:
        raise error

    monkeypatch.setattr(live.services.engine, "streams", fail)
    response: httpx.Response = await live.client.get("/api/streaming/streams")
    return response


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("error", "status", "members"), CASES)
async def test_each_error_has_its_status(
    shared: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, status: int,
    members: dict[str, Any],
) -> None:  # fmt: skip
    response = await _fail(shared, monkeypatch, error)
    problem = is_problem(response, status)
    assert problem["detail"] == str(error)
    assert problem == {**problem, **members}
    problems.SHAPES.get(status, requests.ProblemDetail).model_validate_json(response.content)
    assert ("retry-after" in response.headers) == (status in (429, 503))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.asyncio(loop_scope="module")
async def test_time_to_wait_is_rounded_up(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    response = await _fail(shared, monkeypatch, errors.Overloaded("the queue", 2.5))
    assert response.headers["retry-after"] == "3"


@pytest.mark.asyncio(loop_scope="module")
async def test_every_problem_of_a_configuration_is_told(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = is_problem(await _fail(shared, monkeypatch, errors.ConfigError((PROBLEM, PROBLEM))), 422)
    assert problem["problems"] == 2 * [
        {"file": "streams.yaml", "line": 3, "column": 5, "path": "streams.A", "message": "not a duration",
         "hint": "write 5s"}
    ]  # fmt: skip


async def test_a_bug_is_logged_once_and_tells_nothing(
    live: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    response = await _fail(live, monkeypatch, KeyError("secret detail"))
    is_problem(response, 500)
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info
    assert record.name == "regstream.server"
    assert (await live.client.get("/health/live")).status_code == 200


def test_every_error_that_a_request_can_meet_is_in_the_table() -> None:
    startup_only = {errors.SettingsError, errors.StartError}
    known = {one for one in errors.RegstreamError.__subclasses__() if one.__module__ == "regstream.errors"}
    assert known - startup_only <= set(problems.TABLE)


def test_text_that_utf8_cannot_carry_is_replaced() -> None:
    assert problems.encode({"a": "x\udcff", "b": [{"c": "\ud800"}], "d": 1}) == b'{"a":"x?","b":[{"c":"?"}],"d":1}'
