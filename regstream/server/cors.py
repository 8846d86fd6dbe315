"""Which pages of other origins may use the interface (the Fetch standard's CORS protocol).

A page of the daemon itself, or of an allowed origin, may do everything. Another one gets answers that its browser does
not show to it, and is refused whatever would change something. Requests without ``Origin`` do not come from a page of
another origin: this is no authentication.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sanic
from sanic.request import Request
from sanic.response import BaseHTTPResponse, HTTPResponse

from regstream.server import problems, security

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_EXPOSED = "Location, Retry-After, ETag"


def attach(app: sanic.Sanic[Any, Any], patterns: Sequence[str]) -> None:
    """Answer preflights, mark answers and refuse changes, for ``patterns`` like ``http://localhost:*``."""

    async def before(request: Request) -> HTTPResponse | None:
        origin = request.headers.get("origin")
        if origin is None or security.trusted(origin, request.headers.get("host", ""), patterns):
            return _preflight(request)
        if request.method not in _SAFE:
            return problems.answer(request, problems.ForeignOrigin(origin))
        return None

    async def after(request: Request, response: BaseHTTPResponse) -> None:
        response.headers["vary"] = "Origin"
        origin = request.headers.get("origin")
        if origin is not None and security.origin_allowed(origin, patterns):
            response.headers["access-control-allow-origin"] = origin
            response.headers["access-control-expose-headers"] = _EXPOSED

    app.register_middleware(before, "request")
    app.register_middleware(after, "response")


def _preflight(request: Request) -> HTTPResponse | None:
    if request.method != "OPTIONS" or "access-control-request-method" not in request.headers:
        return None
    headers = {
        "access-control-allow-methods": "GET, HEAD, POST, PATCH, DELETE, OPTIONS",
        "access-control-allow-headers": "content-type, authorization",
        "access-control-max-age": "600",
    }
    return HTTPResponse(status=204, headers=headers)
