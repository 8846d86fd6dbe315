"""The spool: an outbox on disk for events that wait for a broker."""

from __future__ import annotations

import collections
import errno
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from regstream import errors, spec
from regstream.broker.spool import block, directory, segment
from regstream.event import Event, Position

Loss = segment.Loss
LIMIT = 256 * 1024 * 1024
SEGMENT = 8 * 1024 * 1024
LEAST = 64 * 1024
WORTH_DELETING = 1024 * 1024
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

_Lane = collections.deque[segment.Segment]
_Block = tuple[int, Sequence[Event], tuple[bytes, bytes]]


class Appended(NamedTuple):
    """Mark of the last event that was given, and what was lost: of these events, or of older ones that made room."""

    last: int
    lost: tuple[Loss, ...]


class Chunk(NamedTuple):
    """Events that wait, in order: all there are up to the mark ``upto``."""

    upto: int
    events: list[Event]


class SpoolStatus(NamedTuple):
    """How the spool is.

    ``waiting`` events in ``waiting_bytes`` are not acknowledged, the oldest has the time ``oldest`` (empty: none);
    ``size`` of at most ``limit`` bytes are on disk. ``lost`` counts events by stream since the folder was opened;
    ``damaged`` places in files could not be read, ``torn`` files had an end that was not written whole. ``error`` says
    why the last write failed, empty when it did not.
    """

    waiting: int
    waiting_bytes: int
    oldest: str
    size: int
    limit: int
    lost: Mapping[str, int]
    damaged: int
    torn: int
    error: str


class Spool:
    """See the module. ``limit`` and ``segment_size`` are bytes."""

    def __init__(self, folder: pathlib.Path, limit: int = LIMIT, segment_size: int = SEGMENT) -> None:
        self._folder = directory.Directory(folder)
        self._limit, self._segment_size = limit, min(segment_size, max(LEAST, limit // 16))
        self._empty()

    def _empty(self) -> None:
        self._lanes: list[_Lane] = [collections.deque() for _ in spec.Priority]
        self._active: list[segment.Segment | None] = [None for _ in spec.Priority]
        self._positions = directory.Positions(self._folder.path)
        self._next = 1
        self._acknowledged = self._held = self._size = self._damaged = self._torn = 0
        self._lost: collections.Counter[str] = collections.Counter()
        # Blocks that are in the caller's memory alone: mark of the last event, and what is lost if it lets go of them
        self._unpersisted: list[tuple[int, Loss]] = []
        self._error = "the spool is not open"

    def open(self) -> None:
        """Take the folder, make it if it is not there, and find what waits in it.

        Raises StartError when another process has it (which is named) or it cannot be used.
        """
        self._empty()
        try:
            self._load()
        except OSError as error:
            self._folder.close()
            raise errors.StartError("the spool cannot be used", self._reason(error)) from error
        self._error = ""

    def close(self) -> None:
        """Flush what waits to the disk itself and leave the folder to others; may be called twice."""
        if not self._folder.is_open:
            return
        self._reclaim(0)
        self._try(self._positions.keep)
        for lane in self._lanes:
            for one in lane:
                self._try(one.sync)
                one.close()
        self._try(self._folder.sync)
        self._folder.close()
        self._empty()

    @property
    def is_open(self) -> bool:
        """Whether this process has the folder."""
        return self._folder.is_open

    @property
    def last(self) -> int:
        """Mark of the last event that was appended, 0 before the first."""
        return self._next - 1

    @property
    def acknowledged(self) -> int:
        """The mark up to which everything is done with."""
        return self._acknowledged

    @property
    def waiting(self) -> int:
        """How many events are not acknowledged."""
        return sum(count for count, _ in self._waiting())

    @property
    def waiting_bytes(self) -> int:
        """How many bytes those take on disk."""
        return sum(size for _, size in self._waiting())

    def _waiting(self) -> Iterator[tuple[int, int]]:
        return (one.waiting(self._acknowledged) for lane in self._lanes for one in lane)

    @property
    def error(self) -> str:
        """Why the last write failed, empty when it did not."""
        return self._error

    @property
    def positions(self) -> Mapping[str, Position]:
        """The newest position of each stream that was ever appended, acknowledged, lost or not."""
        return self._positions.newest

    @property
    def status(self) -> SpoolStatus:
        """See there; reads the first event that waits."""
        first = self.read(self._acknowledged, 1)
        return SpoolStatus(
            self.waiting,
            self.waiting_bytes,
            first.events[0].head.time if first else "",
            self._size,
            self._limit,
            dict(self._lost),
            self._damaged,
            self._torn,
            self._error,
        )

    def append(self, events: Sequence[Event], held: bool = False) -> Appended:
        """Write events down, in order, behind all others; one write for events of one priority. Never raises.

        Those that are lost have marks too, so what is acknowledged needs no account of them. ``held``: as ``hold`` up
        to the last of them.
        """
        lost = segment.Tally()
        if held:
            self.hold(self.last + len(events))
        for rank, blocks, size in self._packed(events):
            if not self._write(rank, blocks, size, lost):
                self._lose(((first + len(part) - 1, segment.loss(part)) for first, part, _ in blocks), lost)
        return Appended(self._next - 1, self._count(lost.losses()) if lost else ())

    def acknowledge(self, upto: int) -> None:
        """Everything up to the mark ``upto`` is done with; an older mark than before changes nothing. Never raises."""
        if not self._folder.is_open or min(upto, self.last) <= self._acknowledged:
            return
        self._acknowledged = min(upto, self.last)
        if self._unpersisted:
            self._unpersisted = [one for one in self._unpersisted if one[0] > self._acknowledged]
        self._try(lambda: self._folder.remember(self._acknowledged))
        self._reclaim(WORTH_DELETING)

    def hold(self, upto: int) -> None:
        """The caller has events up to the mark ``upto`` in memory, to send them, until ``release``."""
        self._held = max(self._held, upto)

    def release(self) -> tuple[Loss, ...]:
        """What was not acknowledged is in the caller's memory no more; what is lost by that."""
        lost = segment.Tally()
        lost.add_losses(loss for _, loss in self._unpersisted)
        self._held = 0
        self._unpersisted.clear()
        return self._count(lost.losses())

    def read(self, after: int, count: int = 500) -> Chunk | None:
        """About ``count`` events behind the mark ``after``, a few more or fewer; None when nothing waits there.

        What is acknowledged is not given out. Never raises; what cannot be read is passed over and counted.
        """
        upto = max(after, self._acknowledged)
        events: list[Event] = []
        while len(events) < count and (turn := self._turn(upto)):
            one, before = turn
            try:
                found, upto, bad = one.read(upto, before, count - len(events))
            except OSError as error:
                self._error = self._reason(error)
                self._damaged += 1
                lost = segment.Tally()
                self._drop(one, lost)
                self._count(lost.losses())
            else:
                events += found
                self._damaged += bad
        return Chunk(upto, events) if events else None

    def unacknowledged(self, count: int = 500) -> Iterator[Chunk]:
        """All that waits, in order, about ``count`` events at a time; what is appended meanwhile comes as well."""
        after = self._acknowledged
        while chunk := self.read(after, count):
            after = chunk.upto
            yield chunk

    def _packed(self, events: Sequence[Event]) -> Iterator[tuple[int, list[_Block], int]]:
        """The events as blocks, with rank of their priority and bytes; as many together as one write may take."""
        ranks: dict[int, tuple[list[_Block], int]] = {}
        for part in block.split(events):
            rank, both = part[0].head.priority.rank, block.pack(part, self._next)
            self._positions.note(part[-1].head.stream, part[-1].position)
            more = len(both[0]) + len(both[1])
            blocks, size = ranks.pop(rank, ([], 0))
            if blocks and size + more > self._segment_size:
                yield rank, blocks, size
                blocks, size = [], 0
            blocks.append((self._next, part, both))
            ranks[rank] = blocks, size + more
            self._next += len(part)
        for rank, (blocks, size) in ranks.items():
            yield rank, blocks, size

    def _write(self, rank: int, blocks: list[_Block], size: int, lost: segment.Tally) -> bool:
        if not self._folder.is_open or not self._make_room(rank, size, lost):
            return False
        victims: list[segment.Segment] | None = None
        while True:
            try:
                self._writable(rank, blocks[0][0]).write(blocks)
            except OSError as error:
                self._error = self._reason(error)
                active = self._active[rank]
                self._abandon(rank)
                if error.errno == errno.EFBIG and active is not None and active.count:
                    # This file may not grow any more, the next one may
                    active.close()
                    self._active[rank] = None
                    continue
                if error.errno not in _NO_ROOM:
                    return False
                if victims is None:
                    self._reclaim(0)
                    victims = list(self._from_the_least_urgent(rank + 1))
                elif not victims:
                    return False
                else:
                    self._drop(victims.pop(0), lost)
            else:
                self._size += size
                self._error = ""
                return True

    def _writable(self, rank: int, mark: int) -> segment.Segment:
        active = self._active[rank]
        if active is not None and active.size < active.most:
            return active
        if active is not None:
            active.close()
        made = segment.Segment(self._folder.path / f"{rank}-{mark:020d}.spool", rank, self._most())
        made.open()
        self._lanes[rank].append(made)
        self._active[rank] = made
        return made

    def _most(self) -> int:
        """How large the next file may become: on a small disk too it is a small part of what waits."""
        found = os.statvfs(self._folder.path)
        room = self._size + found.f_bavail * found.f_frsize
        return min(self._segment_size, max(LEAST, room // 16))

    def _abandon(self, rank: int) -> None:
        """After a failed write: no file stays that has nothing in it, and none is written to that may end torn."""
        active = self._active[rank]
        if active is not None and not active.count:
            self._lanes[rank].remove(active)
            self._forget(active)
        elif active is not None and not active.is_writable:
            self._active[rank] = None

    def _make_room(self, rank: int, size: int, lost: segment.Tally) -> bool:
        if self._size + size <= self._limit:
            return True
        self._reclaim(0)
        victims, missing = [], self._size + size - self._limit
        for one in self._from_the_least_urgent(rank):
            if missing <= 0:
                break
            victims.append(one)
            missing -= one.size
        if missing > 0:
            return False
        for one in victims:
            self._drop(one, lost)
        return True

    def _from_the_least_urgent(self, rank: int) -> Iterator[segment.Segment]:
        """The files of ``rank`` and of what is less urgent, in the order in which they go."""
        return itertools.chain.from_iterable(reversed(self._lanes[rank:]))

    def _drop(self, one: segment.Segment, lost: segment.Tally) -> None:
        if (one.next(0) or 0) > max(self._acknowledged, self._held):
            lost.add_losses(one.tally.losses())
        else:
            try:
                self._lose(one.since(self._acknowledged), lost)
            except OSError:
                lost.add_losses(one.tally.losses())
        self._lanes[one.rank].remove(one)
        self._forget(one)

    def _lose(self, blocks: Iterable[tuple[int, Loss]], lost: segment.Tally) -> None:
        """Blocks, by the mark of their last event, are not on disk, or not any more."""
        for last, loss in blocks:
            if last <= self._held:
                self._unpersisted.append((last, loss))
            else:
                lost.add_losses((loss,))

    def _reclaim(self, least: int) -> None:
        """Delete files in which nothing waits; one that is still written to only if it is as large as ``least``."""
        for lane in self._lanes:
            while lane and lane[0].last <= self._acknowledged:
                if lane[0] is self._active[lane[0].rank] and lane[0].size < least:
                    break
                self._forget(lane.popleft())

    def _forget(self, one: segment.Segment) -> None:
        if self._active[one.rank] is one:
            self._active[one.rank] = None
        self._size -= one.size
        # First, because afterwards nothing may say that these numbers are used
        self._try(self._positions.keep)
        self._try(one.delete)
        # A disk that was full has room for it now; it does nothing when it was kept before
        self._try(self._positions.keep)

    def _turn(self, after: int) -> tuple[segment.Segment, int] | None:
        """The file with the first event behind ``after``, and the mark at which it is the turn of another one."""
        firsts: list[tuple[int, int, segment.Segment]] = []
        for rank, lane in enumerate(self._lanes):
            one = next((one for one in lane if one.last > after), None)
            if one is not None:
                firsts.append((one.next(after) or 0, rank, one))
        if not firsts:
            return None
        (_, _, one), *others = sorted(firsts)
        return one, others[0][0] if others else self._next

    def _count(self, losses: tuple[Loss, ...]) -> tuple[Loss, ...]:
        for loss in losses:
            self._lost[loss.stream] += loss.events
        return losses

    def _load(self) -> None:
        self._acknowledged = self._folder.open()
        self._positions.recall()
        for path in sorted(self._folder.path.glob("[0-3]-*.spool")):
            one = segment.Segment(path, int(path.name[0]))
            damaged, torn = one.load()
            self._damaged += damaged
            self._torn += torn
            for loss in one.tally.losses():
                self._positions.note(loss.stream, Position(loss.epoch, loss.last))
            if one.count:
                self._size += one.size
                self._lanes[one.rank].append(one)
            else:
                one.delete()
        last = max((one.last for lane in self._lanes for one in lane), default=0)
        self._next = max(last, self._acknowledged) + 1
        self._reclaim(0)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            self._error = self._reason(error)

    def _reason(self, error: OSError) -> str:
        return errors.of_file(error, self._folder.path)
