"""Control calls as they are kept: who asked for what, what it changed, and how it was answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from regstream import errors
from regstream.server import decoding, problems

if TYPE_CHECKING:
    from sanic.response import HTTPResponse

    from regstream.server.router import Request
    from regstream.server.services import Services

LARGEST, BEGINNING = 16 * 1024, 1_000
Concerns = Callable[["Services", Mapping[str, str]], Any]
"""What an operation may change, as it is now: JSON, or None where there is nothing of that name."""


async def kept(
    services: Services,
    request: Request,
    actor: str,
    action: str,
    state: Callable[[], Any],
    operate: Callable[[], Awaitable[HTTPResponse | None]],
) -> HTTPResponse | None:
    """What ``operate`` answers; the call of ``actor`` is kept whether it succeeds or not."""
    keeper = services.store
    if keeper is None:
        return await operate()
    from regstream.store import audit

    at, before, status = services.now(), _state(state), 500
    try:
        answer = await operate()
        status = answer.status if answer is not None else 200
        return answer
    except Exception as error:
        status = problems.status(error)
        raise
    finally:
        target = f"{request.path}?{request.query_string}" if request.query_string else request.path
        known = (actor, str(request.client_ip), action, target, _body(request.body), status)
        keeper.note(audit.Control(at, *known, before, _state(state)))


def _state(state: Callable[[], Any]) -> Any:
    try:
        return state()
    except errors.UnknownName:
        return None


def _body(content: bytes) -> Any:
    """The body as JSON, or as text where it is none; of what is too much, that and the beginning."""
    if len(content) > LARGEST:
        return _beginning(content, f"longer than {LARGEST} bytes")
    try:
        return decoding.loads(content) if content else None
    except decoding.TooDeep:
        return _beginning(content, f"nested deeper than {decoding.MAX_DEPTH} levels")
    except ValueError:
        return content.decode("utf-8", "replace")


def _beginning(content: bytes, reason: str) -> dict[str, Any]:
    return {"truncated": reason, "bytes": len(content), "text": content[:BEGINNING].decode("utf-8", "replace")}


# What operations concern


def streaming(services: Services, _: Mapping[str, str]) -> Any:
    """Start and stop: whether streaming is on, and each stream's state."""
    engine = services.engine
    return {"isStreaming": engine.streaming, "streams": {one.name: one.state for one in engine.streams()}}


def stream(services: Services, names: Mapping[str, str]) -> Any:
    """What operators may change of one stream."""
    one = services.engine.stream(names["name"])
    changed = {"interval": one.interval, "batchSize": one.batch_size, "priority": one.priority}
    return {**changed, "enabled": one.enabled, "paused": one.paused, "state": one.state}


def positions(services: Services, _: Mapping[str, str]) -> Any:
    """Bursts: where the streams stand."""
    return {one.name: {"epoch": one.epoch, "seq": one.seq} for one in services.engine.streams()}


def runs(services: Services, _: Mapping[str, str]) -> Any:
    """Which scenarios run."""
    return {one.run_id: one.scenario for one in services.engine.runs() if one.state == "running"}


def run(services: Services, names: Mapping[str, str]) -> Any:
    """How one run is."""
    one = services.engine.run(names["runId"])
    return {"scenario": one.scenario, "state": one.state}


def files(services: Services, _: Mapping[str, str]) -> Any:
    """Which files are in force."""
    return {"generation": services.door.receipt.generation, "digest": services.engine.catalog.digest}
