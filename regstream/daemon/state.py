"""The state of the daemon in one line, for whoever supervises it."""

from __future__ import annotations

from collections.abc import Sequence

from regstream import model
from regstream.daemon.building import Parts
from regstream.engine import status as statuses

MOST_NAMES = 5


def line(parts: Parts) -> str:
    """What an operator has to mend, the first problem of refused files before all; then what runs on what."""
    streams = parts.engine.streams()
    receipt = parts.door.receipt
    kept_out = [parts.engine.refusal] if parts.engine.refusal else []
    faults = [*kept_out, *_files(parts), *_broker(parts), *_store(parts), *_failing(streams)]
    since = model.rfc3339(receipt.loaded_at)
    return "; ".join([*faults, f"{_running(parts, streams)}, generation {receipt.generation} since {since}"])


def _files(parts: Parts) -> list[str]:
    error = parts.door.error
    if error is None:
        return []
    more = len(error.problems) - 1
    return [f"files refused: {error.problems[0]}{f' (and {more} more)' if more else ''}"]


def _broker(parts: Parts) -> list[str]:
    broker = parts.broker.status
    if broker.kind != "kafka" or (broker.state == "live" and not broker.reason):
        return []
    return [f"Kafka {broker.state}{_why(broker.reason)}, {broker.waiting} events wait for it"]


def _store(parts: Parts) -> list[str]:
    store = parts.store.status if parts.store is not None else None
    if store is None or not store.ailing:
        return []
    return [f"database {store.state}{_why(store.reason)}, {store.waiting} events wait for it"]


def _why(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _failing(streams: Sequence[statuses.StreamStatus]) -> list[str]:
    names = [one.name for one in streams if one.state == "failing"]
    return [f"failing: {', '.join(names[:MOST_NAMES])}{' …' if len(names) > MOST_NAMES else ''}"] if names else []


def _running(parts: Parts, streams: Sequence[statuses.StreamStatus]) -> str:
    if not parts.engine.streaming:
        return "streaming is stopped"
    progress = parts.engine.progress
    if progress is not None:
        return f"history {progress}"
    running = sum(one.state in ("running", "failing") for one in streams)
    return f"{running} streams run {'on Kafka' if parts.broker.status.kind == 'kafka' else 'in simulation'}"
