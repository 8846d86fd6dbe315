"""The one table from errors to HTTP: every error leaves as ``application/problem+json`` (RFC 9457).

What is not in the table is a bug: it is logged with its traceback, and the client learns nothing but that.
"""

from __future__ import annotations

import dataclasses
import http
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson
import sanic.exceptions
from sanic.handlers import ErrorHandler
from sanic.request import Request
from sanic.response import HTTPResponse

from regstream import errors, settings
from regstream.server import requests

MEDIA_TYPE = "application/problem+json"
DISCARD_LIMIT = 64 * 2**20

_log = logging.getLogger("regstream.server")


@dataclasses.dataclass(eq=False)
class InvalidInput(errors.RegstreamError):
    """A body or a query that cannot be used; ``faults`` are pairs of dotted path and message, never empty."""

    faults: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return "; ".join(f"{path}: {message}" if path else message for path, message in self.faults[:10])


@dataclasses.dataclass(eq=False)
class WrongMediaType(errors.RegstreamError):
    """A body that is not declared as JSON."""

    given: str

    def __str__(self) -> str:
        given = repr(self.given) if self.given else "missing"
        return f"content-type is {given}, a body must be application/json"


@dataclasses.dataclass(eq=False)
class ForeignOrigin(errors.RegstreamError):
    """A page of an origin that is not allowed tries to change something."""

    origin: str

    def __str__(self) -> str:
        return f"origin {self.origin!r} is not allowed, see CORS_ORIGINS"


@dataclasses.dataclass(eq=False)
class Unauthorized(errors.RegstreamError):
    """Nobody said who they are, or with a token that is not known."""

    given: bool

    def __str__(self) -> str:
        return "the token is not known" if self.given else "a token is needed: Authorization: Bearer TOKEN"


@dataclasses.dataclass(eq=False)
class Forbidden(errors.RegstreamError):
    """The token is good for less than this."""

    role: str
    wanted: str

    def __str__(self) -> str:
        return f"a token with the role {self.role} is not good for this, which needs {self.wanted}"


@dataclasses.dataclass(eq=False)
class TooOften(errors.RegstreamError):
    """A client uses the control routes more often than ``RATE_LIMIT`` allows."""

    rate: settings.RateLimit
    retry_after: float

    def __str__(self) -> str:
        return f"more than {self.rate.times} control calls in {self.rate.seconds} s, see RATE_LIMIT"


@dataclasses.dataclass(eq=False)
class Crowded(errors.RegstreamError):
    """There are as many connections as there may be, or the server is stopping."""

    reason: str
    retry_after: float = 5.0

    def __str__(self) -> str:
        return self.reason


def _nothing(_: Any) -> dict[str, Any]:
    return {}


def _input_members(error: InvalidInput) -> dict[str, Any]:
    return {"errors": [{"path": path, "message": message} for path, message in error.faults]}


def _config_members(error: errors.ConfigError) -> dict[str, Any]:
    return {"problems": [problem.data() for problem in error.problems]}


def _retry_header(error: errors.Overloaded | errors.StoreError | TooOften | Crowded) -> dict[str, str]:
    return {"retry-after": str(max(1, math.ceil(error.retry_after)))}


def _challenge(error: Unauthorized | Forbidden) -> dict[str, str]:
    """RFC 6750, section 3: what was wrong with the token, and nothing when there was none."""
    said = ""
    if isinstance(error, Forbidden):
        said = f', error="insufficient_scope", scope="{error.wanted}"'
    elif error.given:
        said = ', error="invalid_token"'
    return {"www-authenticate": f'Bearer realm="regstream"{said}'}


class Kind(NamedTuple):
    """What one class of errors is over HTTP; ``slug`` identifies it in ``type``, empty for what HTTP itself defines.

    ``refusal`` is the reason under which it is counted, empty for what is none.
    """

    slug: str
    status: int
    title: str
    members: Callable[[Any], dict[str, Any]] = _nothing
    headers: Callable[[Any], dict[str, str]] = _nothing
    shape: type[requests.ProblemDetail] = requests.ProblemDetail
    refusal: str = ""


TABLE: Mapping[type[errors.RegstreamError], Kind] = {
    InvalidInput: Kind("invalid-input", 400, "Invalid input", _input_members, shape=requests.InputProblem),
    errors.BadValue: Kind(
        "invalid-input",
        400,
        "Invalid input",
        lambda error: {"errors": [{"path": error.field, "message": error.reason}]},
        shape=requests.InputProblem,
    ),
    Unauthorized: Kind("unauthorized", 401, "Not authorized", headers=_challenge, refusal="unauthorized"),
    ForeignOrigin: Kind("foreign-origin", 403, "Origin not allowed", refusal="origin"),
    Forbidden: Kind("forbidden", 403, "Not allowed with this token", headers=_challenge, refusal="forbidden"),
    errors.UnknownName: Kind(
        "unknown-name", 404, "Unknown name", lambda error: {"near": list(error.near)}, shape=requests.NameProblem
    ),
    errors.Conflict: Kind("conflict", 409, "Not possible at present"),
    errors.RenderError: Kind("render-failed", 409, "The stream cannot make events", dataclasses.asdict),
    WrongMediaType: Kind("wrong-media-type", 415, "Body is not JSON", headers=lambda _: {"accept": "application/json"}),
    errors.QueryCostError: Kind("too-costly", 422, "The question costs too much"),
    errors.ConfigError: Kind(
        "bad-configuration", 422, "The configuration has problems", _config_members, shape=requests.ConfigProblem
    ),
    errors.Overloaded: Kind("overloaded", 429, "Too much at once", headers=_retry_header),
    TooOften: Kind("too-often", 429, "Too many calls", headers=_retry_header, refusal="rate"),
    Crowded: Kind("crowded", 503, "Too many connections", headers=_retry_header, refusal="connections"),
    errors.StoreError: Kind("store-unavailable", 503, "The database does not answer", headers=_retry_header),
    errors.BrokerError: Kind("broker-unavailable", 503, "The broker refused", headers=lambda _: {"retry-after": "1"}),
}
SHAPES: Mapping[int, type[requests.ProblemDetail]] = {kind.status: kind.shape for kind in TABLE.values()}
_TOO_LARGE = frozenset({413, 414, 431})
_BUG = Kind("internal", 500, "Internal error")


def response(request: Request, kind: Kind, detail: str, **members: Any) -> HTTPResponse:
    """The problem as an answer to ``request``."""
    document = {
        "type": f"/docs#problem-{kind.slug}" if kind.slug else "about:blank",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "instance": _instance(request),
        **members,
    }
    return HTTPResponse(encode(document), kind.status, content_type=MEDIA_TYPE)


def encode(document: Mapping[str, Any]) -> bytes:
    """JSON; text that UTF-8 cannot carry, which malformed requests may hold, is replaced and not refused."""
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        return orjson.dumps({key: _printable(value) for key, value in document.items()})


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_printable(one) for one in value]
    return {key: _printable(one) for key, one in value.items()} if isinstance(value, dict) else value


def _instance(request: Request) -> str:
    try:
        return str(request.path)
    except (AttributeError, UnicodeDecodeError):
        # A target without a path, like the authority of CONNECT.
        return "*"


def _kind(error: Exception) -> Kind | None:
    return next((TABLE[known] for known in type(error).__mro__ if known in TABLE), None)


def status(error: Exception) -> int:
    """The status of the answer to a request that ended in ``error``."""
    kind = _kind(error)
    return kind.status if kind is not None else int(getattr(error, "status_code", 500))


def answer(request: Request, error: Exception) -> HTTPResponse:
    """The answer to a request that ended in ``error``; a bug is logged here, and only here."""
    kind = _kind(error)
    if kind is not None:
        _count(request, kind.refusal)
        made = response(request, kind, str(error), **kind.members(error))
        made.headers.update(kind.headers(error))
        return made
    if isinstance(error, sanic.exceptions.RequestCancelled):
        # The client has left in the middle: nobody reads this, and nothing is wrong here
        return response(request, Kind("", 408, "Request Timeout"), "the connection was closed before the request's end")
    status = getattr(error, "status_code", 500)
    if isinstance(error, sanic.exceptions.SanicException) and status != 500:
        return _protocol_answer(request, error, status)
    _log.error("%s %s failed: %r", request.method, _instance(request), error, exc_info=error)
    return response(request, _BUG, "this is a fault of regstream, its log says more")


def _count(request: Request, refusal: str) -> None:
    refusals = getattr(request.app.ctx, "refusals", None)
    if refusal and refusals is not None:
        refusals.count(refusal, str(request.client_ip))


def _protocol_answer(request: Request, error: sanic.exceptions.SanicException, status: int) -> HTTPResponse:
    phrase = http.HTTPStatus(status).phrase
    _count(request, "size" if status in _TOO_LARGE else "")
    text = error.args[0] if error.args else phrase
    detail = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    detail = detail.strip()
    members = {"errors": [{"path": "", "message": detail}]} if status == 400 else {}
    made = response(request, Kind("", status, phrase), detail, **members)
    made.headers.update({key: value for key, value in error.headers.items() if value})
    return made


def _discard_rest(request: Request) -> None:
    """Let Sanic read and drop the rest of a body that is too large, up to a limit, before it closes the connection.

    Closing with unread bytes resets the connection, and the client would see the reset instead of the answer.
    """
    stream: Any = request.stream
    if stream is None or not stream.request_body:
        return
    if stream.request_body == "chunked" or stream.request_bytes > stream.protocol.request_max_size:
        stream.request_max_size = stream.protocol.request_max_size = DISCARD_LIMIT
        # The limit is raised for what is left of this connection, so nothing else may come over it.
        stream.keep_alive = False


class Handler(ErrorHandler):
    """Sanic's hook for errors, with problem documents as its answers."""

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        """The problem document of ``exception``."""
        _discard_rest(request)
        return answer(request, exception)
