"""The pages and their scripts, served from the package as they are.

Each is read once and identified by its digest, so a browser that has it asks and gets 304. The policy lets a page run
its own scripts and talk to its own daemon, and nothing else.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
from typing import Any, NamedTuple

import sanic
from sanic.request import Request
from sanic.response import BaseHTTPResponse, HTTPResponse

from regstream.server.router import Reply

ASSETS = (
    "page.css",
    "docs.js",
    "page.js",
    "alerts.js",
    "chart.js",
    "dom.js",
    "feed.js",
    "files.js",
    "keys.js",
    "link.js",
    "runs.js",
    "tiles.js",
    "who.js",
)
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _File(NamedTuple):
    content: bytes
    tag: str
    media: str


@functools.cache
def _file(name: str) -> _File:
    content = (importlib.resources.files("regstream") / "dashboard" / name).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    return _File(content, tag, f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8")


def _headers(tag: str) -> dict[str, str]:
    return {
        "etag": tag,
        "cache-control": "no-cache",
        "content-security-policy": _POLICY,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    }


def reply(name: str) -> Reply:
    """The page ``name`` with its headers."""
    file = _file(name)
    return Reply(file.content, headers=_headers(file.tag))


async def not_modified(request: Request, response: BaseHTTPResponse) -> HTTPResponse | None:
    """304 in place of ``response`` when the client already has it; None otherwise."""
    tag, known = response.headers.get("etag"), request.headers.get("if-none-match", "")
    if response.status != 200 or tag is None or tag not in [one.strip().removeprefix("W/") for one in known.split(",")]:
        return None
    return HTTPResponse(
        status=304,
        headers={
            key: value for key, value in response.headers.items() if key not in ("content-type", "content-length")
        },
    )


def attach(app: sanic.Sanic[Any, Any]) -> None:
    """Serve scripts and style sheets, and answer 304 where a tag matches."""
    for name in ASSETS:
        app.add_route(_asset(name), f"/assets/{name}", {"GET", "HEAD"}, name=f"asset_{name.replace('.', '_')}")
    app.register_middleware(not_modified, "response")


def _asset(name: str) -> Any:
    def serve(_: Request) -> HTTPResponse:
        file = _file(name)
        return HTTPResponse(file.content, 200, _headers(file.tag), content_type=file.media)

    return serve
