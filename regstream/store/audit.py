"""Control calls, as they are kept: who asked for what, and what it changed."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from psycopg.types import json

from regstream.store import pool, rows

_repr = reprlib.Repr()
_repr.maxother = _repr.maxstring = 1_000


class Control(NamedTuple):
    """One control call.

    ``at`` is in seconds since 1970, ``action`` the name of the operation and ``target`` its path; ``request`` is the
    body, ``before`` and ``after`` the state of what it concerns, each as JSON has them or None.
    """

    at: float
    actor: str
    address: str
    action: str
    target: str
    request: Any
    status: int
    before: Any
    after: Any


def pack(control: Control) -> bytes:
    """As bytes for the spool. Whatever it holds: what JSON has no place for is said as text, in part."""
    return orjson.dumps([_plain(part) for part in control])


def _plain(part: Any) -> Any:
    if isinstance(part, str):
        return rows.clean(part)
    try:
        return orjson.Fragment(orjson.dumps(part))
    except TypeError as error:
        return {"truncated": str(error), "text": rows.clean(_repr.repr(part))}


def unpack(value: bytes) -> Control:
    """From those bytes."""
    return Control(*orjson.loads(value))


async def write(connection: pool.Connection, controls: Sequence[tuple[str, Control]]) -> None:
    """Write calls with their ids; those that are there already stay as they are. Raises psycopg's errors."""
    found = [
        {
            "id": name,
            "at": control.at,
            "status": control.status,
            **{part: rows.clean(getattr(control, part)) for part in ("actor", "address", "action", "target")},
            **{part: _json(getattr(control, part)) for part in ("request", "before", "after")},
        }
        for name, control in controls
    ]
    await connection.cursor().executemany(pool.named("keep_control"), found)


def _json(value: Any) -> json.Jsonb | None:
    return None if value is None else rows.jsonb(value)
