"""What clients say, on whatever way, and how they are answered: validated messages in, the data of replies out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from regstream import errors, hub, spec
from regstream.event import Position
from regstream.server import decoding

ACTIONS = ("auth", "subscribe", "unsubscribe", "ping")
MAX_REWIND = 1000

Channel = Annotated[str, Field(min_length=1, max_length=128)]
Channels = Annotated[list[Channel], Field(min_length=1, max_length=100)]


class _Message(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)


class At(_Message):
    """A position: the last event that the client has."""

    epoch: Annotated[str, Field(max_length=64)]
    """The numbering it belongs to."""
    seq: Annotated[int, Field(ge=0)]
    """Its number; 0 stands before the first."""


class Subscribe(_Message):
    """Send the events of these channels from now on."""

    action: Literal["subscribe"]
    channels: Channels
    """All of them, or with an error none."""
    after: Annotated[dict[str, At], Field(max_length=1000)] = {}
    """For streams, by name: replay what came behind this position, whole or not at all."""
    rewind: Annotated[int, Field(ge=0, le=MAX_REWIND)] = 0
    """For the other streams: replay so many of the newest events of each channel."""

    snapshot: bool = False
    """For streams that are not recovered by ``after``: bring the newest event of each key before live."""
    policy: Annotated[spec.Policy | None, Field(strict=False)] = None
    """What happens when the client reads too slowly; left out: what is declared for the channel."""
    max_rate: Annotated[float | None, Field(gt=0, le=spec.MAX_RATE, alias="maxRate")] = None
    """How many events a second at most; with ``conflate``, how often a second the newest of a key."""

    @property
    def request(self) -> hub.SubscriptionRequest:
        """All of it in the words of the hub."""
        after = {stream: Position(at.epoch, at.seq) for stream, at in self.after.items()}
        return hub.SubscriptionRequest(
            self.channels, after, self.rewind, self.snapshot, hub.DeliveryOptions(self.policy, self.max_rate)
        )


class Unsubscribe(_Message):
    """Send no more events of these channels."""

    action: Literal["unsubscribe"]
    channels: Channels


class Auth(_Message):
    """Say who this is; it is answered with ``welcome``."""

    action: Literal["auth"]
    token: Annotated[str, Field(max_length=512)]
    """One of the daemon's; where it has none, any will do."""


class Ping(_Message):
    """Answer with ``pong``."""

    action: Literal["ping"]


Action = Auth | Subscribe | Unsubscribe | Ping
_ACTION: pydantic.TypeAdapter[Action] = pydantic.TypeAdapter(Annotated[Action, Field(discriminator="action")])


class NotAMessage(errors.RegstreamError):
    """What came is beyond an answer: the connection has to be closed."""

    def __str__(self) -> str:
        return "not a JSON object in a text frame"


def parse(text: bytes) -> Action:
    """The message in ``text``.

    Raises NotAMessage for what is no JSON object, UnknownName for an action that does not exist, and BadValue for
    anything else that is not as it should be.
    """
    try:
        data = decoding.loads(text)
    except decoding.TooDeep as error:
        raise errors.BadValue("message", str(error)) from None
    except ValueError:
        raise NotAMessage from None
    if not isinstance(data, dict):
        raise NotAMessage
    action = data.get("action")
    if isinstance(action, str) and action not in ACTIONS:
        raise errors.UnknownName("action", action[:64], errors.near(action[:64], ACTIONS))
    return _checked(data)


def subscription(channels: object, options: Mapping[str, Any]) -> Subscribe:
    """A subscription whose options came beside its channels. Raises BadValue."""
    message = _checked({**options, "action": "subscribe", "channels": channels})
    assert isinstance(message, Subscribe)  # noqa: S101 - the action says so
    return message


def unsubscription(channels: object) -> Unsubscribe:
    """The end of a subscription. Raises BadValue."""
    message = _checked({"action": "unsubscribe", "channels": channels})
    assert isinstance(message, Unsubscribe)  # noqa: S101 - the action says so
    return message


def from_query(query: Mapping[str, Sequence[str]]) -> Subscribe:
    """The query form as a message: ``?channel=a&channel=b&rewind=5&snapshot=true``. Raises BadValue.

    Of what stands there several times, but for channels, the first counts; what is empty, or no option, means nothing.
    """
    given = {key: query[key][0] for key in _QUERY if query.get(key) and query[key][0]}
    options = {key: _QUERY[key](key, text) for key, text in given.items()}
    return subscription(list(query.get("channel", ())), options)


def _number(key: str, text: str) -> int | float:
    try:
        number = float(text) if len(text) < 20 else float("nan")
    except ValueError:
        number = float("nan")
    if not math.isfinite(number):
        raise errors.BadValue(key, "must be a number")
    return int(number) if number == int(number) else number


def _switch(key: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise errors.BadValue(key, "must be true or false")
    return text.lower() == "true"


def read_json(key: str, text: str) -> Any:
    """The value of a parameter that is JSON. Raises BadValue."""
    try:
        return decoding.loads(text)
    except decoding.TooDeep as error:
        raise errors.BadValue(key, str(error)) from None
    except ValueError:
        raise errors.BadValue(key, "must be JSON") from None


_QUERY: dict[str, Callable[[str, str], Any]] = {
    "rewind": _number,
    "snapshot": _switch,
    "policy": lambda _, text: text,
    "maxRate": _number,
    "after": read_json,
}


def _checked(data: Mapping[str, Any]) -> Action:
    try:
        return _ACTION.validate_python(data)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # The first part of a place inside an action is the action's own name.
        place = ".".join(str(part)[:64] for part in first["loc"][1:]) or "action"
        raise errors.BadValue(place, first["msg"][:1].lower() + first["msg"][1:]) from None


def error(problem: errors.BadValue | errors.UnknownName) -> dict[str, Any]:
    """What a client is told that was wrong with its message, which changed nothing."""
    data: dict[str, Any] = {"code": "bad_value", "message": str(problem)}
    if isinstance(problem, errors.UnknownName):
        data["code"] = f"unknown_{problem.kind}"
        data |= {"near": problem.near} if problem.near else {}
    return data


def subscribed(channels: Sequence[str], streams: Mapping[str, hub.Subscribed]) -> dict[str, Any]:
    """What confirms a subscription, before anything is replayed."""
    return {"channels": channels, "streams": {name: _answer(one) for name, one in streams.items()}}


def _answer(one: hub.Subscribed) -> dict[str, Any]:
    return {key: value for key, value in one._asdict().items() if value is not None}
