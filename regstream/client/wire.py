"""What goes over the wire: the daemon's address and its frames, and what an end of the connection means."""

from __future__ import annotations

import json
import re
import urllib.parse
from typing import Any

import websockets.exceptions

from regstream import errors

Event = dict[str, Any]
"""A CloudEvent."""

UNAUTHORIZED, BAD_MESSAGE, MESSAGE_TOO_BIG = 4001, 4009, 1009


class Broken(Exception):
    """The peer does not speak as a daemon does."""


LOST = (OSError, websockets.exceptions.WebSocketException, Broken)
"""What ends a connection."""


def address(url: str) -> str:
    """The address of ``/ws`` on a daemon whose pages are at ``url``, or whose ``/ws`` that is. Raises BadValue."""
    wrong = errors.BadValue("url", f"{url!r} is not an address like http://127.0.0.1:3001")
    try:
        parts = urllib.parse.urlsplit(url)
        scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}[parts.scheme]
        usable = parts.hostname and parts.port != 0 and not parts.query and not parts.fragment
    except (KeyError, ValueError):
        raise wrong from None
    if not usable:
        raise wrong
    path = parts.path.rstrip("/").removesuffix("/ws")
    return f"{scheme}://{parts.netloc}{path}/ws"


def shown(address: str) -> str:
    """The address without a password."""
    return re.sub(r"//[^/]*@", "//", address)


def frame(text: str | bytes) -> tuple[str, dict[str, Any]]:
    """Name and data of a frame. Raises Broken."""
    try:
        whole = json.loads(text)
        event, data = whole["event"], whole["data"]
    except (ValueError, KeyError, TypeError, RecursionError):
        event = data = None
    if not isinstance(event, str) or not isinstance(data, dict):
        raise Broken(f"not a frame of a daemon: {text[:100]!r}")
    return event, data


def channels(welcome: dict[str, Any]) -> set[str]:
    """The channels that a daemon says it has. Raises Broken."""
    names = welcome.get("channels")
    if not isinstance(names, list):
        raise Broken("a welcome that names no channels")
    return {str(name) for name in names}


def is_event(data: dict[str, Any]) -> bool:
    """Whether the data of a frame is an event of a stream."""
    return "specversion" in data


def final(address: str, error: Exception) -> errors.RegstreamError | None:
    """What to raise after an end of the connection that coming back would not mend; None for every other one."""
    if isinstance(error, websockets.exceptions.InvalidStatus) and error.response.status_code in (401, 403):
        return errors.StartError(shown(address), f"not allowed: {error}")
    if isinstance(error, websockets.exceptions.ConnectionClosed) and error.rcvd is not None:
        code, reason = error.rcvd.code, error.rcvd.reason or f"closed with {error.rcvd.code}"
        if code == UNAUTHORIZED:
            return errors.StartError(shown(address), f"unauthorized: {reason}")
        if code in (BAD_MESSAGE, MESSAGE_TOO_BIG):
            return errors.BadValue("subscription", reason)
    return None


def refusal(data: dict[str, Any]) -> errors.BadValue | errors.UnknownName:
    """The error that the daemon answered with, as it was raised there."""
    message = str(data.get("message", data))
    unknown = re.match(r"unknown (\w+) '(.*?)'(?:,|$)", message)
    if unknown:
        return errors.UnknownName(unknown[1], unknown[2], tuple(map(str, data.get("near", ()))))
    field = re.match(r"([\w.]+): (.*)", message, re.DOTALL)
    return errors.BadValue(field[1], field[2]) if field else errors.BadValue("subscription", message)
