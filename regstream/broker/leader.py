"""Which daemon may generate: the rule by which records on one ordered log decide between those that want to.

Each daemon appends claims for its topics, and repeats the one that holds. All read the same log, and its own timestamps
are the only clock, so all come to the same result.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping

from regstream.event import Position

LEASE_SECONDS = 12.0
"""A claim that is not repeated for that long holds no more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """What one daemon says of itself: its ``instance`` outlives a restart, ``since`` is when it began (RFC 3339).

    One that is ``released`` ends what held; ``positions`` are then where its streams stand.
    """

    instance: str
    server: str
    since: str
    topics: frozenset[str]
    released: bool = False
    positions: Mapping[str, Position] = dataclasses.field(default_factory=dict, compare=False)

    def pack(self) -> bytes:
        """As it stands on the log."""
        return json.dumps({**dataclasses.asdict(self), "topics": sorted(self.topics)}).encode()

    @classmethod
    def unpack(cls, value: bytes | None) -> Claim | None:
        """The reverse; None for what is no claim."""
        try:
            read = json.loads(value or b"")
            positions = {name: Position(str(one[0]), int(one[1])) for name, one in read["positions"].items()}
            topics = frozenset(map(str, read["topics"]))
            instance, server, since = (str(read[name]) for name in ("instance", "server", "since"))
            return cls(instance, server, since, topics, bool(read["released"]), positions)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return None

    def __str__(self) -> str:
        return f"daemon {self.server} (instance {self.instance}), which generates since {self.since}"


class ClaimLog:
    """The claims that hold, from the records of the log in their order."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Claim, float]] = {}
        self.left: dict[str, Claim] = {}
        """By instance, the claims that were released and that nobody took over yet."""

    def take(self, claim: Claim, at: float) -> bool:
        """The next record, appended ``at`` seconds of the log's clock; gives whether it took effect."""
        if claim.released:
            if self._held.pop(claim.instance, None) is not None:
                self.left[claim.instance] = claim
            return True
        if self.rivals(claim, at):
            return False
        for name in [name for name, (one, _) in self._held.items() if one.topics & claim.topics]:
            del self._held[name]
        self._held[claim.instance] = claim, at
        return True

    def holds(self, claim: Claim) -> bool:
        """Whether the daemon of this claim may generate."""
        return claim.instance in self._held

    def rivals(self, claim: Claim, at: float) -> dict[Claim, float]:
        """The other daemons whose claims on any of the topics hold, and until when they do unless repeated."""
        return {
            one: since + LEASE_SECONDS
            for one, since in self._held.values()
            if one.instance != claim.instance and one.topics & claim.topics and at < since + LEASE_SECONDS
        }

    def behind(self, claim: Claim, known: Mapping[str, Position]) -> bool:
        """Whether one that left the same topics got further than is known."""
        nothing = Position("", 0)
        return any(
            known.get(name, nothing) < position
            for one in self.left.values()
            if one.topics & claim.topics and one.instance != claim.instance
            for name, position in one.positions.items()
            if name in known
        )


def overlap(mine: Claim, others: Iterable[Claim]) -> str:
    """Why ``mine`` does not hold, with the cure; empty when nothing speaks against it."""
    for other in sorted(others, key=lambda one: one.instance):
        shared = sorted(mine.topics & other.topics)
        more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
        return (
            f"another daemon generates onto topic {shared[0]}{more}: {other}; this one only reads until that one ends:"
            " stop one of them, or set ENABLE_STREAMING=false or other topics here"
        )
    return ""
