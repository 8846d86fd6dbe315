"""``regstream tail``: a running daemon, one line an event, over lost connections too."""

from __future__ import annotations

import json
import time
from typing import Any

import typer
import websockets.exceptions
import websockets.sync.client

from regstream import errors

RETRY_SECONDS = 1.0
MAX_FIELDS = 6
_NEWS = {
    "scenario-started": ("scenario", "runId"),
    "scenario-step": ("scenario", "path", "text"),
    "scenario-ended": ("scenario", "state", "error"),
}
_COLOURS = {"CRITICAL": "red", "HIGH": "yellow", "NORMAL": None, "LOW": "bright_black"}


def socket_url(url: str) -> str:
    """The address of ``/ws`` on a daemon whose pages are at ``url``. Raises BadValue."""
    scheme, mark, rest = url.partition("://")
    if scheme not in ("http", "https", "ws", "wss") or not mark or not rest:
        raise errors.BadValue("--url", f"{url!r} is not an address like http://127.0.0.1:3001")
    return f"{scheme.replace('http', 'ws')}://{rest.rstrip('/')}/ws"


def follow(url: str, channels: list[str], rewind: int, count: int, as_json: bool) -> None:
    """Print what arrives until ``count`` events have (0: for ever); a lost connection is taken up where it broke.

    Raises StartError when the first connection fails, UnknownName for a channel that does not exist.
    """
    follower = _Follower(channels, rewind, count, as_json)
    address, first = socket_url(url), True
    while True:
        try:
            with websockets.sync.client.connect(address, open_timeout=5, compression=None) as socket:
                first = False
                follower.subscribe(socket)
                if follower.read(socket):
                    return
        except (OSError, websockets.exceptions.WebSocketException) as error:
            if first:
                raise errors.StartError(address, f"{error}; is the daemon running? start it: regstream run") from error
            _note(f"connection lost ({error}), trying again")
            time.sleep(RETRY_SECONDS)


class _Follower:
    """What has been seen, and how it is shown."""

    def __init__(self, channels: list[str], rewind: int, count: int, as_json: bool) -> None:
        self._channels = channels
        self._rewind = rewind
        self._left = count
        self._as_json = as_json
        self._after: dict[str, dict[str, Any]] = {}

    def subscribe(self, socket: websockets.sync.client.ClientConnection) -> None:
        message: dict[str, Any] = {"action": "subscribe", "channels": self._channels}
        message["after" if self._after else "rewind"] = self._after or self._rewind
        socket.send(json.dumps(message))

    def read(self, socket: websockets.sync.client.ClientConnection) -> bool:
        """Show what comes; true when enough has come."""
        for text in socket:
            frame = json.loads(text)
            if self._show(frame, text if isinstance(text, str) else text.decode()) and self._left:
                self._left -= 1
                if not self._left:
                    return True
        return False

    def _show(self, frame: dict[str, Any], text: str) -> bool:
        data = frame["data"]
        is_event = "specversion" in data
        if frame["event"] == "error":
            raise errors.BadValue("channel", str(data.get("message", data)))
        if is_event:
            self._after[data["subject"]] = {"epoch": data["epoch"], "seq": data["seq"]}
        if frame["event"] == "subscribed" and not self._as_json:
            self._tell_gaps(data.get("streams", {}))
        elif self._as_json or is_event or frame["event"] == "system":
            typer.echo(text if self._as_json else _line(frame["event"], data, is_event))
        return is_event

    def _tell_gaps(self, streams: dict[str, Any]) -> None:
        lost = [name for name, one in streams.items() if name in self._after and not one["recovered"]]
        if lost:
            _note(f"some events were missed: {', '.join(lost)}")


def _line(event: str, data: dict[str, Any], is_event: bool) -> str:
    if not is_event:
        return typer.style(f"{str(data.get('time', ''))[11:23]:<12} * {data.get('kind')} {_news(data)}", fg="cyan")
    alert = event == "immediate-alert"
    line = f"{data['time'][11:23]} {data['subject']} #{data['seq']} {(_alert if alert else _short)(data['data'])}"
    return typer.style(line, fg=_COLOURS.get(data["priority"]), bold=alert)


def _news(data: dict[str, Any]) -> str:
    keys = _NEWS.get(str(data.get("kind")))
    if keys is None:
        return _short({key: value for key, value in data.items() if key not in ("kind", "time")})
    return " ".join(str(data[key]) for key in keys if data.get(key) is not None)


def _alert(data: dict[str, Any]) -> str:
    cause = f" ({data['stream']} #{data.get('causeSeq')})" if data.get("stream") else ""
    return f"{data.get('severity')} {data.get('message')}{cause}"


def _short(data: Any) -> str:
    if not isinstance(data, dict):
        return str(data)
    shown = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in list(data.items())[:MAX_FIELDS]]
    return " ".join(shown) + (" …" if len(data) > MAX_FIELDS else "")


def _note(text: str) -> None:
    typer.echo(typer.style(text, fg="yellow"), err=True)
