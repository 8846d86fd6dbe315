"""What events look like, before there are any: JSON Schema of each stream's ``data`` and of its CloudEvents.

It is proved from the declarations, so it holds for every event that they can make, under whatever overlay of a declared
scenario; what cannot be proved is left open. Rows that were kept from other declarations, by a reload or a database,
may still hold what those said.
"""

from __future__ import annotations

from typing import Any

from regstream import model
from regstream.generate.shapes import declared, written

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_ALERT = {
    "severity": {"type": "string", "enum": [str(one) for one in model.Severity]},
    "message": {**_TEXT, "description": "What people read."},
    "stream": {**_TEXT_OR_NULL, "description": "The stream whose event raised it; null: a scenario did."},
    "causeSeq": {"type": ["integer", "null"], "minimum": 1, "description": "The number of that event."},
    "scenario": {**_TEXT_OR_NULL, "description": "The scenario that raised it, or whose run the event was of."},
    "runId": {**_TEXT_OR_NULL, "description": "The run of that scenario."},
}
_EPOCH = "[^/]+"
_OPTIONAL = ("recordedtime", "traceparent", "replay")


class Schemas:
    """The schemas of one catalog's streams and of ``ALERTS``; made when they are asked for, and then kept."""

    def __init__(self, catalog: model.Catalog) -> None:
        self._catalog = catalog
        self._declared = declared.Declared(catalog)
        self._made: dict[str, dict[str, Any]] = {}

    @property
    def names(self) -> list[str]:
        """The streams in the order of the files, and ``ALERTS``."""
        return [*self._catalog.streams, model.ALERTS]

    def data(self, name: str) -> dict[str, Any]:
        """The schema of a stream's ``data``, to stand in another document. Raises KeyError."""
        if name not in self._made:
            self._made[name] = self._data(name)
        return self._made[name]

    def _data(self, name: str) -> dict[str, Any]:
        if name == model.ALERTS:
            closed = {"type": "object", "properties": _ALERT, "required": list(_ALERT), "additionalProperties": False}
            return {"title": f"data of {name}", "description": "Something that people see at once", **closed}
        said = self._catalog.streams[name].description
        described = {"description": said} if said else {}
        return {"title": f"data of {name}", **described, **written.schema(self._declared.data(name))}

    def unsafe(self, name: str) -> list[tuple[str, ...]]:
        """The fields of a stream's ``data`` whose whole numbers are known to go beyond 2**53 - 1. Raises KeyError."""
        return list(dict.fromkeys(written.unsafe(self.data(name))))

    def key(self, name: str) -> dict[str, Any] | None:
        """The schema of the keys of a stream's events, None where they have none. Raises KeyError."""
        if name == model.ALERTS:
            return dict(_TEXT)
        found = self._declared.key(name) if self._catalog.streams[name].key else None
        return None if found is None else written.schema(found)

    def event(self, name: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
        """The schema of a stream's CloudEvents; ``data`` stands for that of their data. Raises KeyError."""
        spec = self._catalog.streams.get(name)
        kind = spec.event if spec is not None else model.ALERT_TYPE
        held = self.data(name) if data is None else data
        replay = {"const": True, "description": "It was stored and is sent to dashboards again."}
        properties = {**_envelope(name, kind), "data": held, "replay": replay}
        required = [key for key in properties if key not in _OPTIONAL]
        closed = {"properties": properties, "required": required, "additionalProperties": False}
        return {"title": f"event of {name}", "type": "object", **closed}

    def document(self, name: str, whole: bool = False) -> dict[str, Any]:
        """A document of its own: of ``data``, or of the ``whole`` CloudEvent. Raises KeyError."""
        what = "event" if whole else "data"
        made = self.event(name) if whole else self.data(name)
        return {"$schema": DIALECT, "$id": f"urn:regstream:{name}:{what}", **made}


def _envelope(name: str, kind: str) -> dict[str, Any]:
    """The context attributes of CloudEvents 1.0.2 and the extensions, as ``stream.envelope`` writes them."""
    return {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "pattern": f"^{name}/{_EPOCH}/[1-9][0-9]*$"},
        "source": {"type": "string", "format": "uri-reference", "minLength": 1},
        "type": {"const": kind},
        "subject": {"const": name},
        "time": {"type": "string", "format": "date-time"},
        "recordedtime": {"type": "string", "format": "date-time"},
        "datacontenttype": {"const": "application/json"},
        "epoch": {"type": "string", "pattern": f"^{_EPOCH}$"},
        "seq": {"type": "integer", "minimum": 1},
        "priority": {"type": "string", "enum": [str(one) for one in model.Priority]},
        "region": _TEXT,
        "traceparent": {"type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
    }
