"""The folder of a spool: who has it, and up to where its events are done with."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import struct
import zlib

from regstream import errors
from regstream.event import Position

_MARK = struct.Struct("=Q")
_CRC = struct.Struct("=I")


class Directory:
    """Files ``lock`` and ``acknowledged`` of a folder. The lock ends with the process, however that ends."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._lock = self._mark = -1

    @property
    def is_open(self) -> bool:
        """Whether this process has the folder."""
        return self._lock >= 0

    def open(self) -> int:
        """Take the folder, which is made if it is not there; the mark that was kept, 0 when there is none.

        Raises StartError when another process has it, and OSError.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = self._file("lock")
            self._take()
            self._mark = self._file("acknowledged")
            mark = self._recall()
            self.remember(mark)
        except BaseException:
            self.close()
            raise
        return mark

    def remember(self, mark: int) -> None:
        """Keep a mark; raises OSError."""
        data = _MARK.pack(mark)
        os.pwrite(self._mark, data + _CRC.pack(zlib.crc32(data)), 0)

    def sync(self) -> None:
        """Have the disk itself hold the mark and the names of the files; raises OSError."""
        os.fsync(self._mark)
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Leave the folder to others; may be called twice."""
        for fd in (self._mark, self._lock):
            if fd >= 0:
                os.close(fd)
        self._lock = self._mark = -1

    def _file(self, name: str) -> int:
        return os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock, 20, 0).decode(errors="replace").strip()
            raise errors.StartError(f"spool {self.path}", f"in use by process {owner or 'unknown'}") from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _recall(self) -> int:
        data = os.pread(self._mark, _MARK.size + _CRC.size, 0)
        mark, crc = data[: _MARK.size], data[_MARK.size :]
        # One that cannot be believed is as good as none: what was sent may be sent again, nothing is lost.
        if len(data) < _MARK.size + _CRC.size or crc != _CRC.pack(zlib.crc32(mark)):
            return 0
        return int(_MARK.unpack(mark)[0])


class Positions:
    """The newest position of each stream, kept in file ``positions`` of a folder whenever ``keep`` is called."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._path = folder / "positions"
        self._kept: dict[str, Position] = {}
        self.newest: dict[str, Position] = {}

    def note(self, stream: str, position: Position) -> None:
        """Take a position in; an older one than before changes nothing."""
        if position > self.newest.get(stream, ("", 0)):
            self.newest[stream] = position

    def recall(self) -> None:
        """Take in what was kept, as far as it can be believed; raises OSError."""
        try:
            for stream, (epoch, seq) in json.loads(self._path.read_bytes()).items():
                self.note(str(stream), Position(str(epoch), int(seq)))
        except FileNotFoundError:
            return
        except (ValueError, TypeError, AttributeError):
            # What the files of events say stands, and the broker knows the rest
            return

    def keep(self) -> None:
        """Write down what is newer than what is there; raises OSError."""
        if self.newest == self._kept:
            return
        new = self._path.with_suffix(".new")
        try:
            new.write_text(json.dumps(self.newest))
        except OSError:
            # On a full disk a part of it would take the room that all of it needs
            new.unlink(missing_ok=True)
            raise
        # At once or not at all, whenever the process is killed
        new.replace(self._path)
        self._kept = dict(self.newest)
