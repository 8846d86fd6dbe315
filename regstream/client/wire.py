"""What goes over the wire: the daemon's address and its frames, and what an end of the connection means."""

from __future__ import annotations

import itertools
import json
import re
import urllib.parse
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import websockets.exceptions

from regstream import errors, spec
from regstream.event import Position

Event = dict[str, Any]
"""A CloudEvent."""

UNAUTHORIZED, BAD_MESSAGE, MESSAGE_TOO_BIG = 4001, 4009, 1009


class ConnectionBroken(Exception):
    """The peer does not speak as a daemon does."""


LOST = (OSError, websockets.exceptions.WebSocketException, ConnectionBroken)
"""What ends a connection."""


def address(url: str) -> str:
    """The address of ``/ws`` on a daemon whose pages are at ``url``, or whose ``/ws`` that is. Raises BadValue."""
    wrong = errors.BadValue("url", f"{url!r} is not an address like http://127.0.0.1:3001")
    try:
        parts = urllib.parse.urlsplit(url)
        scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}[parts.scheme]
        usable = parts.hostname and parts.port != 0 and not parts.query and not parts.fragment
    except (KeyError, ValueError):
        raise wrong from None
    if not usable:
        raise wrong
    path = parts.path.rstrip("/").removesuffix("/ws")
    return f"{scheme}://{parts.netloc}{path}/ws"


def shown(address: str) -> str:
    """The address without a password."""
    return re.sub(r"//[^/]*@", "//", address)


def frame(text: str | bytes) -> tuple[str, dict[str, Any]]:
    """Name and data of a frame. Raises Broken."""
    try:
        whole = json.loads(text)
        event, data = whole["event"], whole["data"]
    except (ValueError, KeyError, TypeError, RecursionError):
        event = data = None
    if not isinstance(event, str) or not isinstance(data, dict):
        raise ConnectionBroken(f"not a frame of a daemon: {text[:100]!r}")
    return event, data


def channels(welcome: dict[str, Any]) -> set[str]:
    """The channels that a daemon says it has. Raises Broken."""
    names = welcome.get("channels")
    if not isinstance(names, list):
        raise ConnectionBroken("a welcome that names no channels")
    return {str(name) for name in names}


def is_event(data: dict[str, Any]) -> bool:
    """Whether the data of a frame is an event of a stream."""
    return "specversion" in data


def final(address: str, error: Exception) -> errors.RegstreamError | None:
    """What to raise after an end of the connection that coming back would not mend; None for every other one."""
    if isinstance(error, websockets.exceptions.InvalidStatus) and error.response.status_code in (401, 403):
        return errors.StartError(shown(address), f"not allowed: {error}")
    if isinstance(error, websockets.exceptions.ConnectionClosed) and error.rcvd is not None:
        code, reason = error.rcvd.code, error.rcvd.reason or f"closed with {error.rcvd.code}"
        if code == UNAUTHORIZED:
            return errors.StartError(shown(address), f"unauthorized: {reason}")
        if code in (BAD_MESSAGE, MESSAGE_TOO_BIG):
            return errors.BadValue("subscription", reason)
    return None


def refusal(data: dict[str, Any]) -> errors.BadValue | errors.UnknownName:
    """The error that the daemon answered with, as it was raised there."""
    message = str(data.get("message", data))
    unknown = re.match(r"unknown (\w+) '(.*?)'(?:,|$)", message)
    if unknown:
        return errors.UnknownName(unknown[1], unknown[2], tuple(map(str, data.get("near", ()))))
    field = re.match(r"([\w.]+): (.*)", message, re.DOTALL)
    return errors.BadValue(field[1], field[2]) if field else errors.BadValue("subscription", message)


MAX_AFTER = 300
MAX_CHANNELS = 100
MAX_REWIND = 1000
KEPT_EPOCHS = 8


class Following:
    """The channels of a subscription with what was asked for, and its places.

    ``begun`` once a daemon has answered: until then all is asked for as the user said it, then what continues it.
    """

    def __init__(
        self, channels: tuple[str, ...], after: Mapping[str, Position], rewind: int, options: Mapping[str, Any]
    ) -> None:
        self._channels, self._rewind, self._options = channels, rewind, options
        self._places = Places(after)
        self._answered: set[str] = set()
        self.begun = False
        self.unanswered = 0

    @property
    def positions(self) -> dict[str, Position]:
        """Where it stands in each stream."""
        return self._places.positions

    def gone(self, known: Collection[str]) -> list[str]:
        """The channels that a daemon which knows these no longer has; UnknownName when it has none of them."""
        gone = [name for name in self._channels if name not in known] if self.begun else []
        if gone and len(gone) == len(self._channels):
            raise errors.UnknownName("channel", gone[0])
        return gone

    def requests(self, known: Collection[str]) -> list[dict[str, Any]]:
        """The messages that, together, begin or continue it on a new connection to a daemon with these channels."""
        self._answered.clear()
        messages = list(self._continued(known) if self.begun else self._asked(self._channels, known, self._rewind))
        self.unanswered = len(messages)
        return [{"action": "subscribe", **message, **self._options} for message in messages]

    def _continued(self, known: Collection[str]) -> Iterator[dict[str, Any]]:
        channels = [name for name in self._channels if name in known]
        if spec.SYSTEM_CHANNEL in channels:
            # By itself, since it must not be rewound
            channels.remove(spec.SYSTEM_CHANNEL)
            yield {"channels": [spec.SYSTEM_CHANNEL]}
        if channels:
            # Of streams that are new since, `after` cannot speak; their snapshot, or else all of them, is news
            yield from self._asked(channels, known, 0 if "snapshot" in self._options else MAX_REWIND)

    def _asked(self, channels: Collection[str], known: Collection[str], rewind: int) -> Iterator[dict[str, Any]]:
        after = {name: one._asdict() for name, one in self.positions.items()}
        while len(after) > MAX_AFTER and spec.ALL_CHANNEL in channels:
            # A message is bounded; and who follows a stream by its name is not sent it again by another channel
            some = [*itertools.islice((name for name in after if name in known), MAX_CHANNELS)]
            if not some:
                break
            yield {"channels": some, "after": {name: after.pop(name) for name in some}}
        first = sorted(after, key=lambda name: name not in channels)[:MAX_AFTER]
        yield {"channels": list(channels), "rewind": rewind, "after": {name: after[name] for name in first}}

    def answer(self, data: dict[str, Any]) -> dict[str, Any]:
        """Stand where ``subscribed`` says. It is given back without the streams that an earlier answer spoke of.

        Raises Broken.
        """
        try:
            fresh = {name: told for name, told in data["streams"].items() if name not in self._answered}
            for name, told in fresh.items():
                # Of a snapshot nothing is given out yet: that stream is begun again if the connection breaks
                if not told["recovered"] and not told.get("snapshot"):
                    self._places.begin(name, told["epoch"], told["seq"] - told["replayed"])
        except (KeyError, TypeError, AttributeError):
            text = str(data)[:100]
            raise ConnectionBroken(f"an answer that does not say where streams stand: {text}") from None
        self._answered.update(fresh)
        self.begun = True
        self.unanswered -= 1
        return {**data, "streams": fresh}

    def advance(self, event: Event) -> bool:
        """Stand behind ``event``; false when that, or one behind it, was given out already. Raises Broken."""
        stream, epoch, seq = event.get("subject"), event.get("epoch"), event.get("seq")
        if not (isinstance(stream, str) and isinstance(epoch, str) and isinstance(seq, int)):
            raise ConnectionBroken(f"an event without a position: {str(event)[:100]}")
        return self._places.advance(stream, epoch, seq)


class Places:
    """Where a reader stands in each stream, and where it stood in the epochs before.

    A daemon that is behind another one, or that went back, may speak again of an epoch that was left.
    """

    def __init__(self, after: Mapping[str, Position]) -> None:
        self._epochs = {stream: {epoch: seq} for stream, (epoch, seq) in after.items()}

    @property
    def positions(self) -> dict[str, Position]:
        """The position in the present epoch of each stream."""
        return {stream: Position(*next(reversed(one.items()))) for stream, one in self._epochs.items()}

    def begin(self, stream: str, epoch: str, seq: int) -> None:
        """Stand at this position, or further on in its epoch if that was reached before."""
        epochs = self._epochs.setdefault(stream, {})
        epochs[epoch] = max(seq, epochs.pop(epoch, seq))
        if len(epochs) > KEPT_EPOCHS:
            del epochs[next(iter(epochs))]

    def advance(self, stream: str, epoch: str, seq: int) -> bool:
        """Stand behind this event; false when it is at or below the place in its epoch."""
        if seq <= self._epochs.get(stream, {}).get(epoch, seq - 1):
            return False
        self.begin(stream, epoch, seq)
        return True
