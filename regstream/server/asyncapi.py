"""``/asyncapi.json``: AsyncAPI 3.0 of everything that is sent and taken, from the catalog in force.

A name of a stream or an event has no colon, so that identifiers with one are free for what is no channel of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson
import pydantic
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from regstream import schema, spec
from regstream.server.transports import messages

CLOUDEVENTS = "application/cloudevents+json"
SERVER, CONTROL, SOCKET_IO = "ws", "ws:control", "socketio:control"
_DESCRIPTION = (
    "Live data that behaves like a bank's. Every event is a CloudEvent 1.0 and has a position, `epoch` and `seq`; "
    "`seq` rises by one an event within an epoch. What controls the daemon is in `/openapi.json`."
)
_REPLIES = {"subscribe": "subscribed", "unsubscribe": "unsubscribed", "ping": "pong", "auth": "welcome"}
_REQUESTS: Mapping[str, type[pydantic.BaseModel]] = {
    "subscribe": messages.Subscribe, "unsubscribe": messages.Unsubscribe, "ping": messages.Ping, "auth": messages.Auth,
}  # fmt: skip
_JOINING = {"join-streaming": "Send the events of a channel from now on", "leave-streaming": "Send them no more"}
_MECHANISMS = {"PLAIN": "plain", "SCRAM-SHA-256": "scramSha256", "SCRAM-SHA-512": "scramSha512"}


class ApiSite(NamedTuple):
    """Where a daemon is found: ``host`` as clients say it, over TLS if ``secure``, and the brokers that it sends to.

    Without tokens it ``is_open``. ``mechanism`` is empty where Kafka asks for no password.
    """

    version: str
    host: str
    secure: bool = False
    is_open: bool = True
    brokers: tuple[str, ...] = ()
    encrypted: bool = False
    mechanism: str = ""


class Formats:
    """Keeps the part of the description that hangs on the catalog alone until there is another one."""

    def __init__(self) -> None:
        self._kept: tuple[spec.Catalog, dict[str, Any]] | None = None

    def document(self, catalog: spec.Catalog, site: ApiSite) -> bytes:
        """The description as JSON; may run in any thread, and takes about a millisecond a stream the first time."""
        if self._kept is None or self._kept[0] is not catalog:
            self._kept = catalog, _described(catalog)
        return orjson.dumps(_placed(self._kept[1], site))


def _placed(described: Mapping[str, Any], site: ApiSite) -> dict[str, Any]:
    """The whole description; where there is no Kafka there are no topics either."""
    servers = {"servers": [_reference("servers", name) for name in _kafka(site)]}
    channels = {name: one | servers if "kafka:" in name else one for name, one in described["channels"].items()}
    whole = {"channels": channels, "operations": described["operations"]}
    if not site.brokers:
        whole = {key: {name: one for name, one in part.items() if "kafka:" not in name} for key, part in whole.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "regstream", "version": site.version, "description": _DESCRIPTION},
        "defaultContentType": "application/json",
        "servers": {**_own(site), **_kafka(site)},
        **whole,
        "components": described["components"],
    }


def _own(site: ApiSite) -> dict[str, Any]:
    bearer = {"type": "http", "scheme": "bearer", "description": "A token with the role read."}
    security = {} if site.is_open else {"security": [bearer]}
    return {
        SERVER: {
            "host": site.host, "pathname": "/ws", "protocol": "wss" if site.secure else "ws", **security,
            "description": "Frames are JSON texts, `{event, data}`; channels are named in a message or in the query.",
        },
        "socketio": {
            "host": site.host, "pathname": "/socket.io/", "protocol": "socketio", "protocolVersion": "5", **security,
            "description": "Socket.IO, by polling or by WebSocket.",
        },
    }  # fmt: skip


def _kafka(site: ApiSite) -> dict[str, Any]:
    said: dict[str, Any] = {"protocol": "kafka-secure" if site.encrypted else "kafka"}
    if site.mechanism in _MECHANISMS:
        said["security"] = [{"type": _MECHANISMS[site.mechanism]}]
    return {f"kafka{number or ''}": {"host": host, **said} for number, host in enumerate(site.brokers)}


def _described(catalog: spec.Catalog) -> dict[str, Any]:
    known = schema.Schemas(catalog)
    channels = {**_channels(catalog), **_control(known), **_topics(catalog)}
    requests, definitions = _requests()
    parts = {
        "schemas": {**definitions, **_schemas(known)},
        "messages": {**requests, **_joining(), **_replies(), **_messages(known, catalog)},
    }
    return {"channels": channels, "operations": _operations(channels), "components": parts}


def _schemas(known: schema.Schemas) -> dict[str, Any]:
    made = {}
    for name in known.names:
        made[f"{name}.data"] = known.data(name)
        made[f"{name}.event"] = known.event(name, _reference("components/schemas", f"{name}.data"))
    return made


def _messages(known: schema.Schemas, catalog: spec.Catalog) -> dict[str, Any]:
    """Of each stream its CloudEvent, and the frame in which the WebSocket brings it."""
    made = {}
    for name in known.names:
        kind, key = _kind(catalog, name), known.key(name)
        event = _reference("components/schemas", f"{name}.event")
        keyed = {} if key is None else {"bindings": {"kafka": {"key": key, "bindingVersion": "0.5.0"}}}
        made[name] = {"name": kind, "title": f"event of {name}", "contentType": CLOUDEVENTS, "payload": event, **keyed}
        made[f"{name}.frame"] = _frame(kind, event, f"frame of {name}", {"replay": {"const": True}})
    return made


def _kind(catalog: spec.Catalog, name: str) -> str:
    return catalog.streams[name].event if name in catalog.streams else spec.ALERT_TYPE


def _frame(event: str, data: Mapping[str, Any], title: str, further: Mapping[str, Any] | None = None) -> dict[str, Any]:
    properties = {"event": {"type": "string", "const": event}, **(further or {}), "data": data}
    payload = {"type": "object", "properties": properties, "required": ["event", "data"], "additionalProperties": False}
    return {"name": event, "title": title, "contentType": "application/json", "payload": payload}


def _replies() -> dict[str, Any]:
    told = {
        "type": "object",
        "properties": {"kind": {"type": "string"}, "time": {"type": "string", "format": "date-time"}},
        "required": ["kind", "time"],
    }
    plain: dict[str, dict[str, Any]] = {name: {"type": "object"} for name in (*_REPLIES.values(), "error", "lagging")}
    return {f"{name}.frame": _frame(name, data, name) for name, data in {**plain, spec.SYSTEM_CHANNEL: told}.items()}


def _requests() -> tuple[dict[str, Any], dict[str, Any]]:
    """What a WebSocket's client may say, and the schemas of it."""
    mode: JsonSchemaMode = "validation"
    wanted = [(one, mode) for one in _REQUESTS.values()]
    payloads, whole = models_json_schema(wanted, ref_template="#/components/schemas/{model}")
    made = {name: {"name": name, "title": name, "payload": payloads[one, mode]} for name, one in _REQUESTS.items()}
    return made, whole["$defs"]


def _joining() -> dict[str, Any]:
    payload = {"type": "string", "minLength": 1, "description": "A channel; `after` and more in a second argument."}
    return {name: {"name": name, "title": text, "payload": payload} for name, text in _JOINING.items()}


def _reference(place: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/{place}/{name}"}


def _channels(catalog: spec.Catalog) -> dict[str, Any]:
    """The channels of the WebSocket, by their own names."""
    streams = {name: spec.event for name, spec in catalog.streams.items()} | {spec.ALERTS: spec.ALERT_TYPE}
    found = {spec.ALL_CHANNEL: ("The events of all streams", list(streams))}
    for name in catalog.streams:
        found[name] = (catalog.streams[name].description or f"The events of {name}", [name])
    for kind in streams.values():
        found[kind] = (f"Every event of type {kind}", [name for name, event in streams.items() if event == kind])
    made = {name: _channel(name, text, names) for name, (text, names) in found.items()}
    told = "Reloads, scenario starts, steps and ends, broker changes"
    return {**made, spec.SYSTEM_CHANNEL: _channel(spec.SYSTEM_CHANNEL, told, [spec.SYSTEM_CHANNEL])}


def _channel(name: str, text: str, senders: Iterable[str]) -> dict[str, Any]:
    query = {"type": "object", "properties": {"channel": {"type": "string", "const": name}}, "required": ["channel"]}
    return {
        "address": name,
        "title": name,
        "description": text,
        "servers": [_reference("servers", SERVER)],
        "messages": {one: _reference("components/messages", f"{one}.frame") for one in senders},
        "bindings": {"ws": {"method": "GET", "query": query, "bindingVersion": "0.1.0"}},
    }


def _control(known: schema.Schemas) -> dict[str, Any]:
    """What clients say and are answered, on a WebSocket; and Socket.IO, where everything is on one connection."""
    replies = [*_REPLIES.values(), "error", "lagging"]
    spoken = {name: _reference("components/messages", name) for name in _REQUESTS}
    spoken |= {name: _reference("components/messages", f"{name}.frame") for name in replies}
    joined = {name: _reference("components/messages", name) for name in (*_JOINING, *known.names)}
    text = "Every event comes as `streaming-update` and by its own name, to whoever has joined a channel of it."
    return {
        CONTROL: {"address": "/ws", "servers": [_reference("servers", SERVER)], "messages": spoken},
        SOCKET_IO: {
            "address": "/socket.io/", "description": text, "servers": [_reference("servers", "socketio")],
            "messages": joined,
        },
    }  # fmt: skip


def _topics(catalog: spec.Catalog) -> dict[str, Any]:
    """The topics of Kafka, each with all the streams that share it."""
    found: dict[str, list[str]] = {}
    for name, topic in [
        *((declared.name, declared.topic) for declared in catalog.streams.values()),
        (spec.ALERTS, spec.ALERT_TOPIC),
    ]:
        found.setdefault(topic, []).append(name)
    return {f"kafka:{topic}": _topic(topic, names, catalog.profile.kafka) for topic, names in found.items()}


def _topic(topic: str, names: Iterable[str], profile: spec.KafkaProfile) -> dict[str, Any]:
    made = {"topic": topic, "partitions": profile.partitions, "replicas": profile.replication}
    return {
        "address": topic,
        "messages": {name: _reference("components/messages", name) for name in names},
        "bindings": {"kafka": {**made, "bindingVersion": "0.5.0"}},
    }


def _operations(channels: Mapping[str, Any]) -> dict[str, Any]:
    made = {f"send:{name}": _operation("send", name) for name in channels if name not in (CONTROL, SOCKET_IO)}
    made |= {f"receive:{name}": _operation("receive", name) for name in channels if name.startswith("kafka:")}
    for asked, answer in _REPLIES.items():
        reply = {"channel": _reference("channels", CONTROL), "messages": _members(CONTROL, [answer, "error"])}
        made[f"receive:{CONTROL}:{asked}"] = _operation("receive", CONTROL, [asked]) | {"reply": reply}
    made[f"send:{CONTROL}:lagging"] = _operation("send", CONTROL, ["lagging"])
    made[f"receive:{SOCKET_IO}"] = _operation("receive", SOCKET_IO, _JOINING)
    events = [name for name in channels[SOCKET_IO]["messages"] if name not in _JOINING]
    return {**made, f"send:{SOCKET_IO}": _operation("send", SOCKET_IO, events)}


def _operation(action: str, channel: str, names: Iterable[str] = ()) -> dict[str, Any]:
    chosen = _members(channel, names)
    return {"action": action, "channel": _reference("channels", channel), **({"messages": chosen} if chosen else {})}


def _members(channel: str, names: Iterable[str]) -> list[dict[str, str]]:
    return [_reference(f"channels/{channel}/messages", name) for name in names]
