"""What streams go on with after a restart, as whoever keeps it gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from regstream import model


class Memory(Protocol):
    """Numbers, rows and the seed of an earlier run of the same streams; no call waits or fails."""

    def position(self, stream: str) -> model.Position | None:
        """Where a stream stood; None when that is not known here."""

    def past(self, stream: str) -> list[model.Event]:
        """Its newest events up to there, without a gap, in order; given out once."""

    def seed(self, chosen: int) -> int:
        """The seed of the first run, which from now on is ``chosen`` if there was none."""

    def rows(self, entity: str) -> Mapping[str, Mapping[str, Any]]:
        """By the text of its key, the fields that events had changed of each row."""

    def keep(self, changes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        """Remember rows, by entity and the text of their key, as they are now."""
