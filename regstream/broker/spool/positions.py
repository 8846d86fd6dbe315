"""Where each stream stood when its newest event was written down: it outlives the files that the events were in.

A daemon that starts while the broker is away can so go on with every numbering, and none of its numbers is used twice.
"""

from __future__ import annotations

import json
import pathlib

from regstream import model


class Positions:
    """The newest position of each stream, kept in file ``positions`` of a folder whenever ``keep`` is called."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._path = folder / "positions"
        self._kept: dict[str, model.Position] = {}
        self.newest: dict[str, model.Position] = {}

    def note(self, stream: str, position: model.Position) -> None:
        """Take a position in; an older one than before changes nothing."""
        if position > self.newest.get(stream, ("", 0)):
            self.newest[stream] = position

    def recall(self) -> None:
        """Take in what was kept, as far as it can be believed; raises OSError."""
        try:
            for stream, (epoch, seq) in json.loads(self._path.read_bytes()).items():
                self.note(str(stream), model.Position(str(epoch), int(seq)))
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
