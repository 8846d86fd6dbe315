"""Who may talk to the daemon: the one matcher of origins, for HTTP and for both WebSockets."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Any

import sanic
from sanic.request import Request
from sanic.response import BaseHTTPResponse, HTTPResponse

from regstream.server import problems

_DEFAULT_PORTS = {"http": "80", "https": "443"}


def origin_allowed(origin: str, patterns: Iterable[str]) -> bool:
    """Whether a browser's ``Origin`` header matches one of ``patterns``.

    A pattern is an origin in which ``*`` may stand for the port (``http://localhost:*``, the scheme's own port
    included) or for part of the host (``https://*.bank.example``); ``*`` alone allows every origin, ``null`` included.
    Letter case does not count.
    """
    return any(_compiled(pattern).fullmatch(_plain(origin)) for pattern in patterns)


def trusted(origin: str, host: str, patterns: Iterable[str]) -> bool:
    """Whether a page of ``origin`` may do everything: the daemon's own, asked for as ``host``, or an allowed one."""
    own = origin.partition("://")[2] == host and is_address(host)
    return own or origin_allowed(origin, patterns)


def is_address(host: str) -> bool:
    """Whether a ``Host`` header names ``localhost`` or an IP address.

    A page may only count as the daemon's own under such a name: any other one can be made to point here by whoever owns
    it (DNS rebinding), and has to be among the allowed origins.
    """
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return name.lower() == "localhost"
    return True


def _plain(origin: str) -> str:
    """Browsers leave the scheme's own port out; people who write patterns or clients may not."""
    text = origin.strip().lower()
    port = _DEFAULT_PORTS.get(text.partition("://")[0])
    return text.removesuffix(f":{port}") if port else text


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    text = _plain(pattern)
    if text == "*":
        return re.compile(r".*", re.DOTALL)
    base, any_port = (text[:-2], r"(:\d{1,5})?") if text.endswith(":*") else (text, "")
    # A star never crosses `:` `/` or `@`, or http://localhost:1@evil.example would pass for localhost.
    return re.compile(re.escape(base).replace(r"\*", r"[a-z0-9.-]+") + any_port)


_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_EXPOSED = "Location, Retry-After, ETag"


def attach(app: sanic.Sanic[Any, Any], patterns: Sequence[str]) -> None:
    """Answer preflights, mark answers and refuse changes, for ``patterns`` like ``http://localhost:*``."""

    async def before(request: Request) -> HTTPResponse | None:
        origin = request.headers.get("origin")
        if origin is None or trusted(origin, request.headers.get("host", ""), patterns):
            return _preflight(request)
        if request.method not in _SAFE:
            return problems.answer(request, problems.ForeignOrigin(origin))
        return None

    async def after(request: Request, response: BaseHTTPResponse) -> None:
        response.headers["vary"] = "Origin"
        origin = request.headers.get("origin")
        if origin is not None and origin_allowed(origin, patterns):
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
