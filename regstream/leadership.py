"""Whether this daemon generates, or reads what another one does on the same topics or in the same database."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from regstream import broker, engine, spec
from regstream.event import Position

if TYPE_CHECKING:
    from regstream import store
    from regstream.broker.kafka import leader

LOOK_SECONDS = 0.25
_log = logging.getLogger("regstream.daemon")


class Leadership:
    """``take`` it before the first event is made, ``watch`` it, ``leave`` it to others at the end.

    With Kafka a claim on the topics decides, else who has the lock in the database; without both there is only one.
    """

    def __init__(
        self,
        worker: engine.Engine,
        carrier: broker.Broker,
        keeper: store.Store | None,
        claims: leader.LeaderClaims | None,
    ) -> None:
        self._engine, self._broker, self._store, self._claims = worker, carrier, keeper, claims
        self._may = worker.allowed
        self.renumber = False

    @property
    def _other(self) -> str:
        if self._claims is not None:
            return self._claims.other
        return "" if self._store is None else self._store.other

    async def take(self) -> bool:
        """Claim to generate; false when what was read of the topics is older than what another one left there.

        Raises StartError when this daemon's own folder cannot be used.
        """
        if not self._may:
            return True
        if self._claims is not None:
            await self._claims.start(self._topics())
        self._heed()
        return self._engine.refusal != "" or self._claims is None or not self._claims.behind(self._positions())

    def _heed(self) -> None:
        if (reason := self._other) and reason != self._engine.refusal:
            if not self._engine.refusal:
                _log.error("%s", reason)
            self._engine.refuse(reason)

    async def watch(self) -> None:
        """Stop generating when another daemon does; return when this one may, and did not before."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._may:
                continue
            if self._claims is not None:
                self._claims.follow(self._topics())
            self._heed()
            if self._engine.refusal and not self._other:
                self.renumber = self._claims is None or self._claims.unclean
                _log.warning("no other daemon generates any more: this one takes over, and begins anew for that")
                return

    async def leave(self, clean: bool) -> None:
        """Claim nothing more; ``clean`` says that all which has a number is where others find it."""
        if self._claims is not None:
            await self._claims.close(self._positions() if clean else None)

    def _topics(self) -> set[str]:
        # That of the alerts is everybody's
        return {spec.topic for spec in self._engine.catalog.streams.values()}

    def _positions(self) -> dict[str, Position]:
        found = {name: self._broker.position(name) for name in (*self._engine.catalog.streams, spec.ALERTS)}
        return {name: position for name, position in found.items() if position is not None}
