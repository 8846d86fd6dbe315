"""``Last-Event-ID``: where a reader stands in all streams that it follows, in one short text.

Of Server-Sent Events a browser gives back one id only, that of the last event, however many streams it followed. So
each id holds a mark a stream: eight characters that stand for the stream and its epoch, and the number of the last
event in hexadecimal. A mark whose stream or epoch is gone means nothing.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterable, Mapping

from regstream import hub, model

MOST = 100
"""A reader of more streams gets no ids: they would be longer than its events."""
_LENGTH = 8
_LONGEST = MOST * 32


@functools.lru_cache(maxsize=10_000)
def _name(stream: str, epoch: str) -> bytes:
    digest = hashlib.blake2b(f"{stream}/{epoch}".encode(), digest_size=6).digest()
    return base64.urlsafe_b64encode(digest)


class Marks:
    """The marks of one reader; it begins with what a subscription was answered with.

    A stream that was not recovered has no mark until all that was sent of it before live has gone out: a reader that is
    cut off before that begins with it anew.
    """

    def __init__(self, answer: Mapping[str, hub.Subscribed]) -> None:
        self._marks: dict[str, bytes] = {}
        self._coming: dict[str, int] = {}
        for stream, one in answer.items():
            before = one.replayed + (one.snapshot or 0)
            if one.recovered or not before:
                self._set(stream, one.epoch, one.seq - one.replayed if one.recovered else one.seq)
            else:
                self._coming[stream] = before

    def _set(self, stream: str, epoch: str, seq: int) -> None:
        self._marks[stream] = b"%b%x" % (_name(stream, epoch), seq)

    def after(self, entry: hub.Entry) -> bytes:
        """The id of an event, which is thereby sent; empty when there is none.

        What is no event of a stream has one too: a reader may be cut off before the first event comes. One that was
        stored and is sent again moves nothing.
        """
        if entry.head is not None and not entry.replay:
            self._stand(entry, entry.head.stream)
        return b".".join(self._marks.values()) if len(self._marks) <= MOST else b""

    def _stand(self, entry: hub.Entry, stream: str) -> None:
        left = self._coming.get(stream, 0)
        if left > 1:
            self._coming[stream] = left - 1
        else:
            if left:
                del self._coming[stream]
            self._set(stream, *entry.position)


def positions(text: str, known: Iterable[tuple[str, model.Position]]) -> dict[str, model.Position]:
    """What ``Last-Event-ID`` says of the streams in ``known``, each with the position where it stands now."""
    marks = dict(_mark(one) for one in text.split(".")) if len(text) <= _LONGEST else {}
    found = {}
    for stream, now in known:
        seq = marks.get(_name(stream, now.epoch))
        if seq is not None:
            found[stream] = model.Position(now.epoch, seq)
    return found


def _mark(text: str) -> tuple[bytes, int | None]:
    if not text[_LENGTH:].isalnum():
        # A number may have a sign and more, elsewhere
        return b"", None
    try:
        return text[:_LENGTH].encode("ascii"), int(text[_LENGTH:], 16)
    except ValueError:
        return b"", None
