"""``regstream check``: a running daemon tried from end to end, one line a step."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import typer

from regstream import client, sanitize
from regstream.cli import common, probes

COUNT = 3
CURE = "is the daemon running? start it: regstream run"
SECONDS = 10.0
FORBIDDEN = 403

Steps = Iterator[tuple[str, Callable[[], str]]]
"""Names of steps, and what carries one out and gives what to say of it; a step that does not pass raises."""


class Failed(Exception):
    """A step did not see what it should; the text says what it saw."""


class Skipped(Exception):
    """A step is not for whoever asks; the text says why."""


class Unreachable(Failed):
    """Nobody answers: no other step can pass."""


class Outcome(NamedTuple):
    """How a step went, in how many seconds, and what there is to say of it."""

    step: str
    state: Literal["pass", "fail", "skip"]
    seconds: float
    detail: str


_MARKS = {"pass": ("pass", "green"), "fail": ("FAIL", "red"), "skip": ("skip", "yellow")}


def run(url: str, wanted: list[str], as_json: bool = False) -> bool:
    """Carry out these of ``GROUPS``; true when none of their steps failed. Raises BadValue."""
    client.address(url)
    base = url.rstrip("/")
    steps = [(f"{group}: {name}", step) for group in wanted for name, step in GROUPS[group](base)]
    done: list[Outcome] = []
    show = _keep if as_json else _show
    try:
        for name, step in steps:
            done.append(_carry_out(name, step))
            show(done[-1])
    except Unreachable as error:
        common.say(str(error), err=True)
        common.say(CURE, err=True)
    counts = {state: sum(one.state == state for one in done) for state in _MARKS}
    counts["fail"] += len(steps) - len(done)
    if as_json:
        typer.echo(json.dumps({"url": base, **counts, "steps": [one._asdict() for one in done]}, indent=2))
    else:
        skipped = f", {counts['skip']} skipped" if counts["skip"] else ""
        typer.echo(f"{counts['pass']} of {len(steps)} steps passed{skipped}")
    return counts["fail"] == 0


def _carry_out(name: str, step: Callable[[], str]) -> Outcome:
    began = time.perf_counter()
    state: Literal["pass", "fail", "skip"] = "pass"
    try:
        told = step()
    except Skipped as error:
        told, state = str(error), "skip"
    except Unreachable:
        raise
    except Failed as error:
        told, state = str(error), "fail"
    except Exception as error:
        told, state = f"{type(error).__name__}: {error}", "fail"
    return Outcome(name, state, round(time.perf_counter() - began, 4), told)


def _keep(_: Outcome) -> None:
    """It is told with all others, at the end."""


def _show(one: Outcome) -> None:
    word, colour = _MARKS[one.state]
    mark = typer.style(word, fg=colour, bold=one.state == "fail")
    typer.echo(
        f"{mark}  {one.step:<24} {one.seconds * 1000:6.0f} ms  {sanitize.printable(sanitize.redact(one.detail))}"
    )


def _call(base: str, path: str, body: Any = None, method: str = "") -> Any:
    try:
        return common.call(base + path, body, method, SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == FORBIDDEN:
            raise Skipped(f"{path}: {json.load(error)['detail']}") from error
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

    def broker() -> str:
        found = _call(base, "/health")["kafka"]
        if found["state"] != "live":
            raise Failed(f"the broker is {found['state']}: {found['reason']}")
        return "simulation" if found["simulationMode"] else "Kafka"

    yield "health", health
    yield "broker", broker


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
        return f"{name} {made['firstSeq']} to {made['lastSeq']}"

    def consumption() -> str:
        before = _call(base, "/api/streaming/status")["kafka"]["messagesConsumed"]
        _call(base, "/api/streaming/burst", {"streamType": _busiest(base), "count": COUNT})
        deadline = time.monotonic() + SECONDS
        while (now := _call(base, "/api/streaming/status")["kafka"]["messagesConsumed"]) < before + COUNT:
            if time.monotonic() > deadline:
                raise Failed(f"of {COUNT} events {now - before} came back from the broker")
            time.sleep(0.05)
        return f"{now - before} events came back from the broker"

    def retrieval() -> str:
        name = _busiest(base)
        made = _call(base, "/api/streaming/burst", {"streamType": name, "count": COUNT})
        _stored(base, name, set(range(made["firstSeq"], made["lastSeq"] + 1)))
        return f"{name} {made['firstSeq']} to {made['lastSeq']} can be read back"

    yield "status", status
    yield "streams", lambda: f"{len(_call(base, '/api/streaming/streams')['streams'])} streams"
    yield "burst", burst
    yield "consumption", consumption
    yield "retrieval", retrieval
    yield "scenario", lambda: _scenario(base)
    yield "dry reload", lambda: f"{len(_call(base, '/api/streaming/reload?dryRun=true', {})['unchanged'])} unchanged"


def _scenario(base: str) -> str:
    """A run that is cancelled at once, so that what it changed is put back."""
    known = _call(base, "/api/streaming/scenarios")["scenarios"]
    if not known:
        raise Skipped("no scenario is declared")
    name = known[0]["name"]
    run = _call(base, "/api/streaming/simulate", {"scenario": name})["runId"]
    ended = _call(base, f"/api/streaming/simulate/{run}", method="DELETE")
    if ended["state"] not in ("cancelled", "completed"):
        raise Failed(f"the run of {name} is {ended['state']}: {ended['error']}")
    return f"{name} began and was {ended['state']}"


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
        client.subscribe(
            base, [name], notice=lambda event, data: said.update({event: data}), token=common.token()
        ) as events,
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
            return probes.check_socketio(base, name, lambda: _call(base, "/api/streaming/burst", body))
        except probes.SocketIOError as error:
            raise Failed(str(error)) from error

    yield "join and burst", exchange


def _shutdown(_: str) -> Steps:
    def stop() -> str:
        try:
            return probes.check_shutdown()
        except probes.ShutdownError as error:
            raise Failed(str(error)) from error

    yield "graceful", stop


GROUPS: dict[str, Callable[[str], Steps]] = {
    "health": _health,
    "api": _api,
    "ws": _ws,
    "socketio": _socketio,
    "shutdown": _shutdown,
}
"""What can be checked, in the order in which it is."""
