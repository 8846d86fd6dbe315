"""One declared route, and how it becomes a handler: decode, call, encode.

A handler is a plain function of a ``Call``: it sees names, a validated query and a validated body, and returns a shape
or a ``Reply``. What the request is like on the wire is dealt with here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import urllib.parse
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import pydantic
import sanic
import sanic.request
import sanic.router
from sanic.exceptions import MethodNotAllowed, NotFound
from sanic.response import HTTPResponse

from regstream import credentials
from regstream.server import audit, decoding, problems, requests
from regstream.server.security import auth
from regstream.server.services import Services

JSON = "application/json"
_ERRORS = "json"
_log = logging.getLogger("regstream.server")
WITH_BODY = frozenset({"POST", "PATCH", "PUT"})


class Reply(NamedTuple):
    """An answer that is more than a shape with the route's own status."""

    value: requests.Model | bytes
    status: int | None = None
    headers: Mapping[str, str] = {}


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One request, decoded: ``names`` holds the parts of the path that vary."""

    services: Services
    names: Mapping[str, str]
    query: Any
    body: Any
    request: sanic.request.Request[Any, Any]


class Answered(NamedTuple):
    """The operation has answered the request itself."""


Result = requests.Model | Reply | Answered
Operation = Callable[[Call], Result | Awaitable[Result]]
Handler = Callable[..., Coroutine[Any, Any, HTTPResponse | None]]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One operation; ``path`` has its varying parts in braces.

    ``forms`` are the media types in which the answer may come besides ``media``. ``problems`` are the statuses that
    this operation may end in besides those that any may end in, ``also`` those that come with a shape of their own.
    ``links`` names operations that take a part of the path from a key of the answer. ``concerns`` gives the state that
    it may change: what has one is a control call, and is kept. ``role`` is what a token must be good for, if that is
    not told by it being a control call or none; None: no token is needed.
    """

    method: str
    path: str
    operation: Operation
    summary: str
    answer: type[requests.Model] | None = None
    status: int = 200
    media: str = JSON
    forms: tuple[str, ...] = ()
    body: type[requests.Model] = requests.Nothing
    query: type[requests.Query] = requests.NoQuery
    problems: tuple[int, ...] = ()
    also: Mapping[int, type[requests.Model]] = dataclasses.field(default_factory=dict)
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)
    concerns: audit.Concerns | None = None
    role: credentials.Role | Literal[""] | None = ""
    tag: str = "streaming"

    @property
    def name(self) -> str:
        """Unique among the routes, and the operation's id in ``/openapi.json``."""
        function: Any = self.operation
        return str(function.__name__).strip("_")

    @property
    def needs(self) -> credentials.Role | None:
        """The role that a token must have; None: nobody has to say who they are."""
        return ("control" if self.concerns else "read") if self.role == "" else self.role


class Request(sanic.request.Request[Any, Any]):
    """A request that can also be made for a target that is no URL, to answer it with an error."""

    def __init__(self, url_bytes: bytes, headers: Any, version: str, method: str, *rest: Any, **named: Any) -> None:
        # Sanic makes a request of method NONE to report a malformed one, and fails on the same target again.
        super().__init__(b"*" if method == "NONE" else url_bytes, headers, version, method, *rest, **named)


class Router(sanic.router.Router):
    """Finds routes, with the exact path: a slash at the end makes another one, but for those that are ``slashed``."""

    def __init__(self, routes: Sequence[Route], slashed: Collection[str] = ()) -> None:
        super().__init__()
        self._declared, self._slashed = routes, slashed

    def _get(self, path: str, method: str, host: str | None) -> Any:
        # Sanic would try again without the slash, and fails on `//`.
        if path in self._slashed:
            path = path[:-1]
        elif path.endswith("/") and path != "/":
            raise NotFound(f"Requested URL {path} not found")
        try:
            return super()._get(path, method, host)
        except MethodNotAllowed as error:
            # Sanic forgets the methods of a path that has varying parts.
            error.headers = {"Allow": allow_for(path, self._declared) or error.headers.get("Allow", "GET, HEAD")}
            raise


def mount(app: sanic.Sanic[Any, Any], services: Services, routes: Iterable[Route]) -> None:
    """Add the routes to ``app``, with ``HEAD`` wherever there is ``GET`` and ``OPTIONS`` everywhere."""
    by_path: dict[str, list[Route]] = {}
    for route in routes:
        by_path.setdefault(route.path, []).append(route)
        methods = {"GET", "HEAD"} if route.method == "GET" else {route.method}
        # Sanic would read the source of each handler to guess in which form to show errors
        app.add_route(_handler(route, services), _pattern(route.path), methods, name=route.name, error_format=_ERRORS)
    for path, group in by_path.items():
        name = f"options_{group[0].name}"
        app.add_route(_options(allowed(group)), _pattern(path), {"OPTIONS"}, name=name, error_format=_ERRORS)


def allowed(routes: Iterable[Route]) -> str:
    """The value of ``Allow`` for the routes of one path."""
    methods = {route.method for route in routes}
    return ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))


def allow_for(path: str, routes: Iterable[Route]) -> str:
    """The value of ``Allow`` for a path of a request; empty when no route has it."""
    parts = path.split("/")
    group = [route for route in routes if _matches(route.path.split("/"), parts)]
    return allowed(group) if group else ""


def _matches(pattern: list[str], parts: list[str]) -> bool:
    return len(pattern) == len(parts) and all(
        want == part or (want.startswith("{") and part) for want, part in zip(pattern, parts, strict=True)
    )


def _pattern(path: str) -> str:
    return path.replace("{", "<").replace("}", ">")


def _options(allow: str) -> Handler:
    async def options(_: Request, **__: str) -> HTTPResponse:
        return HTTPResponse(status=204, headers={"allow": allow})

    return options


def _handler(route: Route, services: Services) -> Handler:
    async def answer(request: Request, plain: Mapping[str, str]) -> HTTPResponse | None:
        query = decode_query(route.query, request.query_string)
        body = decode_body(route.body, request) if route.method in WITH_BODY else None
        result = route.operation(Call(services, plain, query, body, request))
        return _encode(route, await result if inspect.isawaitable(result) else result)

    async def handle(request: Request, **names: str) -> HTTPResponse | None:
        caller = await _admitted(route, services.guard, request)
        plain = {key: urllib.parse.unquote(value, errors="replace") for key, value in names.items()}
        concerns = route.concerns
        if concerns is None:
            return await answer(request, plain)
        state = functools.partial(concerns, services, plain)
        said = {"http.request.method": route.method, "http.route": route.path}
        traceparent = request.headers.getone("traceparent", "")
        with services.traces.call(f"{route.method} {route.path}", said, traceparent) as span:
            answered = await audit.kept(
                services, request, caller.name, route.name, state, lambda: answer(request, plain)
            )
            if answered is not None:
                span.note({"http.response.status_code": answered.status})
            return answered

    return handle


async def _admitted(route: Route, keeper: auth.Authenticator, request: Request) -> auth.Caller:
    """Whoever asks, if they may, and not too often. Raises Unauthorized, Forbidden and TooOften."""
    if route.needs is None:
        return auth.ANYBODY
    caller = keeper.admit(auth.bearer(request.headers), route.needs)
    if route.concerns is not None:
        _log.debug("%s %s by %s at %s", request.method, request.path, caller.name, auth.address(request))
        await keeper.pace(caller, auth.address(request))
    return caller


def _encode(route: Route, result: Result) -> HTTPResponse | None:
    if isinstance(result, Answered):
        return None
    reply = result if isinstance(result, Reply) else Reply(result)
    value = reply.value
    content = value if isinstance(value, bytes) else value.model_dump_json(by_alias=True).encode()
    headers = {"cache-control": "no-store", **reply.headers}
    return HTTPResponse(content, reply.status or route.status, headers, content_type=route.media)


def decode_body(shape: type[requests.Model], request: Request) -> requests.Model:
    """The body as ``shape``; no body counts as ``{}``. Raises ``WrongMediaType`` and ``InvalidInput``."""
    content = request.body
    if content:
        _check_media(request.headers.getone("content-type", ""))
    try:
        decoding.bound(content)
    except decoding.TooDeep as error:
        raise problems.InvalidInput((("", str(error)),)) from None
    try:
        return shape.model_validate_json(content or b"{}", by_alias=True, by_name=False)
    except pydantic.ValidationError as error:
        raise _invalid(error) from None


def _check_media(given: str) -> None:
    media, _, parameters = given.partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media.strip().lower() != JSON or charset not in ("", "utf-8", "utf8"):
        raise problems.WrongMediaType(given)


def decode_query(shape: type[requests.Query], text: str) -> requests.Query:
    """The query string as ``shape``. Raises ``InvalidInput``."""
    try:
        pairs = urllib.parse.parse_qsl(text, keep_blank_values=True, errors="replace", max_num_fields=200)
    except ValueError:
        raise problems.InvalidInput((("", "too many query parameters"),)) from None
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in shape.repeatable:
            values.setdefault(key, []).append(value)
        elif key in values:
            raise problems.InvalidInput(((key, "given more than once"),))
        else:
            values[key] = value
    try:
        return shape.model_validate(values, by_alias=True, by_name=False)
    except pydantic.ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: pydantic.ValidationError) -> problems.InvalidInput:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return problems.InvalidInput(tuple((".".join(map(str, one["loc"])), _message(one)) for one in found[:100]))


def _message(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        return "unknown name"
    text = str(fault["msg"]).removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
