"""A segment: one file of the spool, blocks of one priority behind one another, with an index of them in memory."""

from __future__ import annotations

import array
import bisect
import errno
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from regstream.broker.spool import block
from regstream.event import Event, Head


class Loss(NamedTuple):
    """So many events of a stream will not be sent; the ``seq`` of the first of them and that of the last.

    They follow each other unless there are fewer of them than the two ends say.
    """

    stream: str
    epoch: str
    first: int
    last: int
    events: int


def loss(events: Sequence[Event]) -> Loss:
    """The loss of events that follow each other in their stream, of which there is at least one."""
    first, last = events[0], events[-1]
    return Loss(first.head.stream, first.head.epoch, first.seq, last.seq, len(events))


class Tally:
    """How many events of which streams."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], tuple[int, int, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, head: Head, first: int, last: int, count: int) -> None:
        """Count events, the first and last of which have these numbers in their stream."""
        self._add((head.stream, head.epoch), first, last, count)

    def add_losses(self, losses: Iterable[Loss]) -> None:
        """Count what was counted elsewhere."""
        for loss in losses:
            self._add((loss.stream, loss.epoch), loss.first, loss.last, loss.events)

    def _add(self, key: tuple[str, str], first: int, last: int, count: int) -> None:
        low, high, before = self._counts.get(key, (first, last, 0))
        # The usual case by itself: min and max take as long as all the rest.
        if first > high:
            self._counts[key] = low, last, before + count
        else:
            self._counts[key] = min(low, first), max(high, last), before + count

    def losses(self) -> tuple[Loss, ...]:
        """What was counted, one entry for each numbering."""
        return tuple(Loss(*key, *counted) for key, counted in self._counts.items())


class Segment:
    """A file, and where its blocks lie. Marks rise from block to block, and by one from event to event of a block.

    ``rank`` is the priority of its events (3 is the lowest), ``size`` its bytes, ``count`` its events, ``tally`` of
    which streams they are. ``most`` bytes are written to it, or one write more.
    """

    def __init__(self, path: pathlib.Path, rank: int, most: int = 0) -> None:
        self.path, self.rank, self.most = path, rank, most
        self.size = self.count = 0
        self.tally = Tally()
        self._fd = -1
        self._starts = array.array("Q")
        self._lasts = array.array("Q")
        # Events up to and with each block.
        self._totals = array.array("Q")

    @property
    def last(self) -> int:
        """Mark of the last event, 0 when there is none."""
        return self._lasts[-1] if self._lasts else 0

    def load(self) -> tuple[int, int]:
        """Read what is there and cut off what is behind the last sound block; how many places were damaged or torn.

        Raises OSError.
        """
        data = self.path.read_bytes()
        damaged = 0
        for found in block.search(data, 0):
            damaged += found.start > self.size
            self._index(found.start, found.first, found.events)
            head, first, last = block.head(data, found)
            self.tally.add(head, first, last, found.events)
            self.size = found.end
        torn = self.size < len(data)
        if torn:
            os.truncate(self.path, self.size)
        return damaged, torn

    def open(self) -> None:
        """Begin the file; raises OSError."""
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o640)

    @property
    def is_writable(self) -> bool:
        """Whether the file is open."""
        return self._fd >= 0

    def write(self, blocks: Sequence[tuple[int, Sequence[Event], tuple[bytes, bytes]]]) -> None:
        """Append blocks (mark of the first event, events, bytes) with one write.

        Raises OSError, and then the file is as it was before, or closed if even that cannot be done.
        """
        parts = [part for _, _, both in blocks for part in both]
        total = sum(map(len, parts))
        try:
            # The kernel takes 1,024 parts at most.
            done = os.writev(self._fd, parts) if len(parts) <= 256 else os.write(self._fd, b"".join(parts))
            while done < total:
                # Only the next write says why this one was short: no room on the disk, or none in the file
                more = os.write(self._fd, b"".join(parts)[done:])
                if not more:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                done += more
        except OSError:
            self._undo()
            raise
        for first, events, (front, body) in blocks:
            self._index(self.size, first, len(events))
            self.tally.add(events[0].head, events[0].seq, events[-1].seq, len(events))
            self.size += len(front) + len(body)

    def _undo(self) -> None:
        try:
            os.ftruncate(self._fd, self.size)
        except OSError:
            self.close()

    def _index(self, start: int, first: int, events: int) -> None:
        self.count += events
        self._starts.append(start)
        self._lasts.append(first + events - 1)
        self._totals.append(self.count)

    def _first(self, at: int) -> int:
        count = self._totals[at] - (self._totals[at - 1] if at else 0)
        return self._lasts[at] - count + 1

    def next(self, after: int) -> int | None:
        """Mark of the first event behind ``after``, None when there is none."""
        at = bisect.bisect_right(self._lasts, after)
        return max(self._first(at), after + 1) if at < len(self._lasts) else None

    def waiting(self, after: int) -> tuple[int, int]:
        """How many events have marks behind ``after``, and how many bytes their blocks take."""
        at = bisect.bisect_right(self._lasts, after)
        if at == len(self._lasts):
            return 0, 0
        before = self._totals[at - 1] if at else 0
        return self.count - before - max(0, after - self._first(at) + 1), self.size - self._starts[at]

    def read(self, after: int, before: int, count: int) -> tuple[list[Event], int, int]:
        """Events with marks behind ``after``, of blocks that begin before mark ``before``, until there are ``count``.

        The last block is given whole. With them the mark of the last, and how many blocks could not be read; raises
        OSError.
        """
        begin, stop = self._range(after, before, count)
        events: list[Event] = []
        bad = 0
        for at, data in self._blocks(begin, stop):
            found = block.sound(data, 0)
            if found is None or found.first != self._first(at):
                bad += 1
            else:
                events += block.unpack(data, found)[max(0, after + 1 - found.first) :]
        return events, self._lasts[stop - 1] if stop > begin else after, bad

    def _range(self, after: int, before: int, count: int) -> tuple[int, int]:
        begin = stop = bisect.bisect_right(self._lasts, after)
        enough = (self._totals[begin - 1] if begin else 0) + count
        while stop < len(self._lasts) and self._first(stop) < before:
            stop += 1
            if self._totals[stop - 1] >= enough:
                break
        return begin, stop

    def _blocks(self, begin: int, stop: int) -> Iterator[tuple[int, bytes]]:
        if begin == stop:
            return
        ends = [*self._starts[begin + 1 : stop], self._starts[stop] if stop < len(self._starts) else self.size]
        start = self._starts[begin]
        with self.path.open("rb", buffering=0) as file:
            file.seek(start)
            data = file.read(ends[-1] - start) or b""
        for at, end in enumerate(ends, begin):
            yield at, data[self._starts[at] - start : end - start]

    def since(self, after: int) -> Iterator[tuple[int, Loss]]:
        """What each block has with marks behind ``after``, with the mark of its last event. Raises OSError."""
        for at, data in self._blocks(bisect.bisect_right(self._lasts, after), len(self._lasts)):
            found = block.sound(data, 0)
            if found is not None:
                events = block.unpack(data, found)[max(0, after + 1 - found.first) :]
                yield self._lasts[at], loss(events)

    def sync(self) -> None:
        """Have the disk itself hold what was written; raises OSError."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Write no more; what is there can be read."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def delete(self) -> None:
        """Close and remove the file; raises OSError."""
        self.close()
        self.path.unlink(missing_ok=True)
