"""Rows as they are to be after a restart, for whoever writes them down: each value with its type."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson

from regstream.generate import exact

State = Mapping[str, Any]
Changes = Mapping[str, Mapping[str, State]]


class Remembered:
    """By entity and the text of its key what each row was last.

    A row with a value that cannot be kept, or that was written in a way that nobody understands, stays what it was
    before; such are counted in ``refused``, and ``refusal`` says why of the last. ``log`` is told of the first one of
    each entity.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._rows: dict[str, dict[str, State]] = {}
        self._odd: set[str] = set()
        self.refused, self.refusal = 0, ""

    def rows(self, entity: str) -> Mapping[str, State]:
        """Those of one entity, by key."""
        return self._rows.get(entity, {})

    @property
    def all(self) -> Changes:
        """Those of all entities."""
        return self._rows

    def keep(self, changes: Changes) -> bytes:
        """Take in rows as they are now; gives what is to be written down of them, for ``read``."""
        fit: dict[str, dict[str, Any]] = {}
        for entity, states in changes.items():
            kept = self._rows.setdefault(entity, {})
            found = fit[entity] = {}
            for key, state in states.items():
                try:
                    if not exact.plain(key):
                        raise ValueError("a key with such a character cannot be kept")
                    found[key] = exact.encode_fields(state)
                    kept[key] = state
                except (ValueError, RecursionError) as error:
                    self._refuse(entity, key, error)
        # As one, since one part may say what has become of another
        return orjson.dumps(fit)

    def read(self, written: bytes) -> None:
        """Take in what ``keep`` gave."""
        try:
            for entity, states in orjson.loads(written).items():
                for key, state in states.items():
                    self.take(entity, key, state)
        except (ValueError, AttributeError) as error:
            self._refuse("", "", error)

    def take(self, entity: str, key: str, written: Any) -> None:
        """Take in one row of it."""
        try:
            state = {name: exact.decode(value) for name, value in written.items()}
        except (ValueError, AttributeError) as error:
            self._refuse(entity, key, error)
        else:
            self._rows.setdefault(entity, {})[key] = state

    def _refuse(self, entity: str, key: str, error: Exception) -> None:
        self.refused, self.refusal = self.refused + 1, f"row {entity}/{exact.escaped(key)}: {error}"
        if entity not in self._odd:
            self._log.error("rows of %s will not be remembered as they are: %s", entity, self.refusal)
        self._odd.add(entity)
