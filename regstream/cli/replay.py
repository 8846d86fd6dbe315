"""``regstream replay``: asks a running daemon to send stored events again, and shows how far it is."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import typer

from regstream import client, errors, sanitize
from regstream.cli import common

SECONDS = 15.0
EVERY = 0.2
STEPS = 1_000
PATH = "/api/streaming/replay"


class ReplayRefusedError(errors.RegstreamError):
    """The daemon does not do what it was asked, or does not answer; the text says why."""


def run(url: str, asked: dict[str, Any]) -> bool:
    """Follow a replay to its end; true when it was completed. Raises BadValue and RefusedError."""
    client.address(url)
    body = {key: value for key, value in asked.items() if value not in (None, [])}
    body["speed"] = _speed(asked["speed"])
    base = url.rstrip("/") + PATH
    state = _ask("POST", base, body)
    where = f"{base}/{state['runId']}"
    try:
        state = _follow(where, state)
    except KeyboardInterrupt:
        with contextlib.suppress(errors.RegstreamError):
            state = _ask("DELETE", where)
    common.say(_outcome(state))
    return bool(state["state"] == "completed")


def _speed(text: str) -> float | str:
    try:
        return text if text == "max" else float(text)
    except ValueError:
        raise errors.BadValue("speed", f"{text!r} is neither a number nor max") from None


def _follow(where: str, state: dict[str, Any]) -> dict[str, Any]:
    with typer.progressbar(length=STEPS, label=_label(state), file=sys.stderr) as bar:
        done = 0
        while state["ended"] is None:
            time.sleep(EVERY)
            state = _ask("GET", where)
            bar.label = _label(state)
            step = int(state["progress"] * STEPS)
            bar.update(step - done)
            done = step
    return state


def _label(state: dict[str, Any]) -> str:
    total = f" of {state['total']}" if state["total"] is not None else ""
    why = "paused" if state["state"] == "paused" else state["reason"]
    return sanitize.printable(f"{state['sent']}{total} events{f' ({why})' if why else ''}")


def _outcome(state: dict[str, Any]) -> str:
    reason = f": {state['reason']}" if state["reason"] else ""
    return f"{state['state']}, {state['sent']} events sent again{reason}"


def _ask(method: str, address: str, body: Any = None) -> dict[str, Any]:
    try:
        found: dict[str, Any] = common.call(address, body, method, SECONDS)
        return found
    except urllib.error.HTTPError as error:
        with error:
            raise ReplayRefusedError(_problem(error)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        text = f"no answer from {address}: {reason}; is the daemon running? start it: regstream run"
        raise ReplayRefusedError(text) from None


def _problem(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"
