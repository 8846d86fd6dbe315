"""What clients of ``/ws`` say, and how the server answers: validated messages in, frames' texts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
import pydantic
from pydantic import Field

from regstream import errors, hub, model

ACTIONS = ("subscribe", "unsubscribe", "ping")
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

    @property
    def positions(self) -> dict[str, model.Position]:
        """``after`` in the words of the hub."""
        return {stream: model.Position(at.epoch, at.seq) for stream, at in self.after.items()}


class Unsubscribe(_Message):
    """Send no more events of these channels."""

    action: Literal["unsubscribe"]
    channels: Channels


class Ping(_Message):
    """Answer with ``pong``."""

    action: Literal["ping"]


Action = Subscribe | Unsubscribe | Ping
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
        data = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise NotAMessage from None
    if not isinstance(data, dict):
        raise NotAMessage
    action = data.get("action")
    if isinstance(action, str) and action not in ACTIONS:
        raise errors.UnknownName("action", action[:64], errors.near(action[:64], ACTIONS))
    return _checked(data)


def from_query(channels: Sequence[str], rewind: str) -> Subscribe:
    """The query form ``?channel=a&channel=b&rewind=5`` as a message; ``rewind`` may be empty. Raises BadValue."""
    if rewind and not (rewind.isascii() and rewind.isdigit() and len(rewind) < 10):
        raise errors.BadValue("rewind", f"must be a whole number from 0 to {MAX_REWIND}")
    message = _checked({"action": "subscribe", "channels": list(channels), "rewind": int(rewind or 0)})
    assert isinstance(message, Subscribe)  # noqa: S101 - the action says so
    return message


def _checked(data: Mapping[str, Any]) -> Action:
    try:
        return _ACTION.validate_python(data)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # The first part of a place inside an action is the action's own name.
        place = ".".join(str(part)[:64] for part in first["loc"][1:]) or "action"
        raise errors.BadValue(place, first["msg"][:1].lower() + first["msg"][1:]) from None


def error(problem: errors.BadValue | errors.UnknownName) -> bytes:
    """The frame that tells a client what was wrong with its message, which changed nothing."""
    data: dict[str, Any] = {"code": "bad_value", "message": str(problem)}
    if isinstance(problem, errors.UnknownName):
        data["code"] = f"unknown_{problem.kind}"
        data |= {"near": problem.near} if problem.near else {}
    return hub.encode("error", data)


def subscribed(channels: Sequence[str], streams: Mapping[str, hub.Subscribed]) -> bytes:
    """The frame that confirms a subscription, before anything is replayed."""
    return hub.encode("subscribed", {"channels": channels, "streams": {k: v._asdict() for k, v in streams.items()}})
