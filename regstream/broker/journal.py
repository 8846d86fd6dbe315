"""What streams go on with after a restart where there is no database: rows and the seed, in a folder of their own.

Meets ``engine.memory.Memory``. Each change is appended to a spool, so that it outlives the process; when the changes
take several times the space of all rows, all rows are appended and what stands before them goes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from regstream import model
from regstream.broker import spool
from regstream.generate import remembered

Rows = Mapping[str, Mapping[str, Any]]
LEAST = 1024 * 1024
"""With fewer bytes of changes rows are not written down again."""
FACTOR = 4
CHUNK = 1_000
"""Rows of one note."""
_STREAM, _SEED = "/journal", "/seed"
_log = logging.getLogger("regstream.journal")


class Journal:
    """Rows by entity and the text of their key; ``epoch`` names the notes of this run, ``now`` gives epoch seconds."""

    def __init__(self, kept: spool.Spool, epoch: str, now: Callable[[], float]) -> None:
        self._spool, self._epoch, self._now = kept, epoch, now
        self._rows = remembered.Remembered(_log)
        self._seq = self._written = self._whole = 0
        self._is_lossy = False

    def open(self) -> None:
        """Take in what an earlier run left. Raises StartError when the folder cannot be used."""
        self._spool.open()
        for chunk in self._spool.unacknowledged():
            for event in chunk.events:
                self._rows.read(event.value)
                self._written += len(event.value)

    def close(self) -> None:
        """Leave the folder to others; may be called twice."""
        self._spool.close()

    # What the engine asks

    def position(self, stream: str) -> model.Position | None:
        """None: the broker knows."""

    def past(self, stream: str) -> list[model.Event]:
        """None of them: the broker has them."""
        return []

    def seed(self, chosen: int) -> int:
        """That of the first start; it is ``chosen`` now, if there was none."""
        if not self._rows.rows(_SEED):
            self.keep({_SEED: {"": {"seed": chosen}}})
        return int(self._rows.rows(_SEED)[""]["seed"])

    def rows(self, entity: str) -> Rows:
        """By key what events had changed of its rows."""
        return self._rows.rows(entity)

    def keep(self, changes: Mapping[str, Rows]) -> None:
        """Remember rows as they are now; one that cannot be kept goes on from what it was before that."""
        self._append(changes)
        if self._written > max(LEAST, FACTOR * self._whole):
            self._write_all()

    def _append(self, changes: Mapping[str, Rows]) -> None:
        value = self._rows.keep(changes)
        self._seq += 1
        head = model.Head(_STREAM, self._epoch, _STREAM, "", model.Priority.CRITICAL, model.rfc3339(self._now()), "")
        kept = self._spool.append([model.Event(head, self._seq, None, value)])
        if kept.lost and not self._is_lossy:
            _log.error("rows will not be what they are after a restart: %s", self._spool.error or "the spool is full")
            self._is_lossy = True
        self._written += len(value)

    def _write_all(self) -> None:
        upto, self._written = self._spool.last, 0
        for changes in self._parts():
            self._append(changes)
        self._whole, self._written = self._written, 0
        # Should the process die before this, the rows are there twice, and the same
        self._spool.acknowledge(upto)

    def _parts(self) -> Iterator[Mapping[str, Rows]]:
        for entity, states in self._rows.all.items():
            keys = list(states)
            for first in range(0, len(keys), CHUNK):
                yield {entity: {key: states[key] for key in keys[first : first + CHUNK]}}
