"""``regstream tail``: a running daemon, one line an event, over lost connections too."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

from regstream import client
from regstream.cli import common

LONGEST_PAUSE = 1.0
MAX_FIELDS = 6
_NEWS = {
    "scenario-started": ("scenario", "runId"),
    "scenario-step": ("scenario", "path", "text"),
    "scenario-ended": ("scenario", "state", "error"),
    "replay-started": ("runId", "speed"),
    "replay-ended": ("runId", "state", "sent", "error"),
    "store-changed": ("state", "reason"),
}
_COLOURS = {"CRITICAL": "red", "HIGH": "yellow", "NORMAL": None, "LOW": "bright_black"}


def follow(url: str, channels: list[str], count: int, as_json: bool, **asked: Any) -> None:
    """Print what arrives until ``count`` events have (0: for ever); a lost connection is taken up where it broke.

    ``asked`` are keywords of ``client.subscribe``, and it raises what that does.
    """
    asyncio.run(_follow(url, channels, count, _Printer(as_json), asked))


async def _follow(url: str, channels: list[str], count: int, printer: _Printer, asked: dict[str, Any]) -> None:
    numbers = iter(range(1, count + 1)) if count else itertools.count(1)
    # Someone is looking
    timing = client.Timing(longest=LONGEST_PAUSE)
    token = common.token()
    async with client.subscribe(url, channels, notice=printer.notice, timing=timing, token=token, **asked) as events:
        async for event in events:
            printer.event(event)
            if next(numbers) == count:
                return


class _Printer:
    """How things are shown, and of which streams something was."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._shown: set[str] = set()

    def event(self, data: dict[str, Any]) -> None:
        if not data.get("replay"):
            self._shown.add(data["subject"])
        if self._as_json:
            common.say_json(_frame(data["type"], data))
        else:
            _show(data)

    def notice(self, event: str, data: dict[str, Any]) -> None:
        if event == "lost":
            _note(f"connection lost ({data['reason']}), trying again")
        elif self._as_json:
            common.say_json(_frame(event, data))
        elif event == "subscribed":
            self._tell_gaps(data["streams"])
        elif event == "error":
            _note(str(data.get("message", data)))
        elif event == "lagging":
            _note(f"too slow, some events were left out: {_counted(data.get('dropped'))}")
        elif event == "system":
            common.say(_happened(data), fg="cyan")

    def _tell_gaps(self, streams: dict[str, Any]) -> None:
        lost = [name for name, one in streams.items() if name in self._shown and not one["recovered"]]
        if lost:
            _note(f"some events were missed: {', '.join(lost)}")


def _frame(event: str, data: dict[str, Any]) -> str:
    mark = {"replay": True} if data.get("replay") else {}
    return json.dumps({"event": event, **mark, "data": data}, ensure_ascii=False, separators=(",", ":"))


def _show(data: dict[str, Any]) -> None:
    alert = data["type"] == "immediate-alert"
    line = f"{data['time'][11:23]} {data['subject']} #{data['seq']} {(_alert if alert else _short)(data['data'])}"
    if data.get("replay"):
        common.say(f"replay {line}", fg="bright_black")
    else:
        common.say(line, fg=_COLOURS.get(data["priority"]), bold=alert)


def _happened(data: dict[str, Any]) -> str:
    return f"{str(data.get('time', ''))[11:23]:<12} * {data.get('kind')} {_news(data)}"


def _counted(dropped: Any) -> str:
    return ", ".join(f"{count} of {name}" for name, count in dropped.items()) if isinstance(dropped, dict) else ""


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
    common.say(text, err=True, fg="yellow")
