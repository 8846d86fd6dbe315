"""``regstream check``: a running daemon tried from end to end, one line a step."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import typer

from regstream import client
from regstream.cli import calling, check_socketio

COUNT = 3
SECONDS = 10.0

Steps = Iterator[tuple[str, Callable[[], str]]]
"""Names of steps, and what carries one out and gives what to say of it; a step that does not pass raises."""


class Failed(Exception):
    """A step did not see what it should; the text says what it saw."""


class Unreachable(Failed):
    """Nobody answers: no other step can pass."""


def run(url: str, wanted: list[str]) -> bool:
    """Carry out these of ``GROUPS``; true when every step passed. Raises BadValue."""
    client.address(url)
    base = url.rstrip("/")
    steps = [(f"{group}: {name}", step) for group in wanted for name, step in GROUPS[group](base)]
    passed = 0
    try:
        for name, step in steps:
            passed += _step(name, step)
    except Unreachable as error:
        typer.echo(f"{error}\nis the daemon running? start it: regstream run", err=True)
    typer.echo(f"{passed} of {len(steps)} steps passed")
    return passed == len(steps)


def _step(name: str, step: Callable[[], str]) -> bool:
    began = time.perf_counter()
    try:
        told, good = step(), True
    except Unreachable:
        raise
    except Exception as error:
        told, good = f"{type(error).__name__}: {error}" if not isinstance(error, Failed) else str(error), False
    mark = typer.style("pass", fg="green") if good else typer.style("FAIL", fg="red", bold=True)
    typer.echo(f"{mark}  {name:<24} {(time.perf_counter() - began) * 1000:6.0f} ms  {told}")
    return good


def _call(base: str, path: str, body: Any = None, method: str = "") -> Any:
    try:
        return calling.call(base + path, body, method, SECONDS)
    except urllib.error.HTTPError as error:
        raise Failed(f"{path} answered {error.code}: {error.read().decode(errors='replace')[:200]}") from error
    except (urllib.error.URLError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise Unreachable(f"{base}{path}: {why}") from error


def _health(base: str) -> Steps:
    yield "alive", lambda: str(_call(base, "/health/live").get("status", "ok"))
    yield "ready", lambda: str(_call(base, "/health/ready").get("status", "ok"))

    def health() -> str:
        found = _call(base, "/health")
        if found["status"] != "ok":
            raise Failed(f"status {found['status']}, config error {found['config'].get('error')}")
        return f"generation {found['config']['generation']}"

    yield "health", health


def _busiest(base: str) -> str:
    streams = _call(base, "/api/streaming/streams")["streams"]
    return str(next((one["name"] for one in streams if one["state"] == "running"), streams[0]["name"]))


def _api(base: str) -> Steps:
    def status() -> str:
        found = _call(base, "/api/streaming/status")["dataStreamer"]
        if not found["isStreaming"]:
            raise Failed(f"streaming is stopped; start it: curl -X POST {base}/api/streaming/start")
        return f"{found['activeStreams']} active streams, {found['totalMessagesSent']} events"

    def burst() -> str:
        name = _busiest(base)
        made = _call(base, "/api/streaming/burst", {"streamType": name, "count": COUNT})
        if made["lastSeq"] - made["firstSeq"] + 1 != COUNT:
            raise Failed(f"asked for {COUNT} events, got {made}")
        _stored(base, name, set(range(made["firstSeq"], made["lastSeq"] + 1)))
        return f"{name} {made['firstSeq']} to {made['lastSeq']}, and they can be read back"

    yield "status", status
    yield "scenarios", lambda: f"{len(_call(base, '/api/streaming/scenarios')['scenarios'])} scenarios"
    yield "burst", burst
    yield "dry reload", lambda: f"{len(_call(base, '/api/streaming/reload?dryRun=true', {})['unchanged'])} unchanged"


def _stored(base: str, name: str, wanted: set[int]) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        found = {one["seq"] for one in _call(base, f"/api/streaming/events?stream={name}&limit=1000")["events"]}
        if wanted <= found:
            return
        if time.monotonic() > deadline:
            raise Failed(f"events {sorted(wanted - found)} of {name} cannot be read back")
        time.sleep(0.05)


def _ws(base: str) -> Steps:
    yield "subscribe and burst", lambda: asyncio.run(_exchange(base, _busiest(base)))


async def _exchange(base: str, name: str) -> str:
    said: dict[str, dict[str, Any]] = {}
    async with (
        asyncio.timeout(SECONDS),
        client.subscribe(base, [name], notice=lambda event, data: said.update({event: data})) as events,
    ):
        await events.ping()
        body = {"streamType": name, "count": COUNT}
        made = await asyncio.to_thread(_call, base, "/api/streaming/burst", body)
        await _receive(events, made["firstSeq"], made["lastSeq"])
    if "lost" in said or "pong" not in said:
        raise Failed(said.get("lost", {"reason": "no answer to a ping"})["reason"])
    return f"{name} {made['firstSeq']} to {made['lastSeq']} from {said['welcome'].get('server', 'the daemon')}"


async def _receive(events: client.Subscription, first: int, last: int) -> None:
    expected = None
    while expected is None or expected <= last:
        seq = (await anext(events))["seq"]
        if expected is not None and seq != expected:
            raise Failed(f"event {seq} came where {expected} was due")
        if expected is None and seq > first:
            raise Failed(f"the first event was {seq}, later than {first}")
        expected = seq + 1


def _socketio(base: str) -> Steps:
    def exchange() -> str:
        name = _busiest(base)
        body = {"streamType": name, "count": COUNT}
        try:
            return check_socketio.exchange(base, name, lambda: _call(base, "/api/streaming/burst", body))
        except check_socketio.Broken as error:
            raise Failed(str(error)) from error

    yield "join and burst", exchange


GROUPS: dict[str, Callable[[str], Steps]] = {"health": _health, "api": _api, "ws": _ws, "socketio": _socketio}
"""What can be checked, in the order in which it is."""
