"""What a client was told and shown, held against each other as it comes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SHOWN = 5
# Memory is judged only when there was time for the rings to become full: the half of such a run
JUDGED, GROWTH = 240.0, 0.1


@dataclasses.dataclass
class Fault:
    """How often something was, and the first of them."""

    count: int = 0
    first: list[str] = dataclasses.field(default_factory=list)

    def add(self, text: str) -> None:
        """Once more."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(text)


class Judge:
    """One client over all its connections. ``last`` is where it stands in each stream.

    ``lost`` and ``twice`` are what must not be; ``untold`` counts streams that it came back to and that were said to
    be not recovered, where the server's memory reached back far enough.
    """

    def __init__(self) -> None:
        self.last: dict[str, tuple[str, int]] = {}
        self.lost, self.twice, self.untold = Fault(), Fault(), Fault()
        self.shown = self.replayed = self.connections = 0
        self._asked: dict[str, tuple[str, int]] = {}

    def ask(self) -> dict[str, dict[str, Any]]:
        """The positions to come back with."""
        self._asked = dict(self.last)
        return {stream: {"epoch": epoch, "seq": seq} for stream, (epoch, seq) in self.last.items()}

    def forget(self) -> None:
        """Come back as somebody else, who knows nothing."""
        self.last = {}

    def told(self, streams: Mapping[str, Any]) -> None:
        """What confirmed the subscription."""
        self.connections += 1
        for stream, told in streams.items():
            self.replayed += told["replayed"]
            if told["recovered"]:
                continue
            if stream in self._asked:
                self.untold.add(f"{stream}: asked for {self._asked[stream]}, told {told}")
            self.last[stream] = (told["epoch"], told["seq"] - told["replayed"])

    def event(self, said: Mapping[str, Any]) -> None:
        """An event was shown."""
        self.shown += 1
        stream, epoch, seq = said["subject"], said["epoch"], said["seq"]
        before = self.last.get(stream)
        if before is None or before[0] != epoch or seq > before[1] + 1:
            self.lost.add(f"{stream}: {epoch}/{seq} behind {before}")
        elif seq <= before[1]:
            self.twice.add(f"{stream}: {epoch}/{seq} behind {before}")
            return
        self.last[stream] = (epoch, seq)

    def behind(self, status: Mapping[str, Any]) -> list[str]:
        """Of which streams it was not shown what the daemon says that it made."""
        return [
            f"{one['name']}: is at {one['epoch']}/{one['seq']}, was shown {last}"
            for one in status["streams"]
            if (last := self.last.get(one["name"])) != (one["epoch"], one["seq"])
        ]


def faults(clients: Mapping[str, Judge], status: Mapping[str, Any], memory: Sequence[float], seconds: float) -> Any:
    """What does not hold, by name, with how often and the first."""
    found: dict[str, Fault] = {}
    for name, one in clients.items():
        found[f"lost by {name}"] = one.lost
        found[f"doubled for {name}"] = one.twice
        found[f"not recovered for {name}"] = one.untold
        found[f"not shown to {name} at the end"] = _fault(one.behind(status))
    found["daemon"] = _fault(_daemon(status))
    found["memory"] = _fault(
        [f"grew by {grown:.1%}"] if (grown := growth(memory)) > GROWTH and seconds >= JUDGED else []
    )
    return {name: dataclasses.asdict(fault) for name, fault in found.items() if fault.count}


def _fault(texts: Iterable[str]) -> Fault:
    fault = Fault()
    for text in texts:
        fault.add(text)
    return fault


def _daemon(status: Mapping[str, Any]) -> list[str]:
    """Where it contradicts itself: alerts are sent too, and belong to none of these streams."""
    made, sent = sum(one["events"] for one in status["streams"]), status["dataStreamer"]["totalMessagesSent"]
    wrong = [] if made <= sent else [f"its streams made {made}, it sent {sent}"]
    return wrong + [
        f"{one['name']} is at {one['seq']} and made {one['events']}"
        for one in status["streams"]
        if one["seq"] != one["events"]
    ]


def growth(memory: Sequence[float]) -> float:
    """By what part memory grew in the second half: the middle of its last fifth over that of its first."""
    half = memory[len(memory) // 2 :]
    fifth = max(1, len(half) // 5)
    first, last = (sorted(part)[len(part) // 2] for part in (half[:fifth], half[-fifth:]))
    return last / first - 1
