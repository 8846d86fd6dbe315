"""2,000 events a second in, the newest of each key every two seconds out: exactly, and at nobody else's expense."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from benchmarks import crowd, fanout_rig, rig, table

STREAMS, INTERVAL = 100, "50ms"
PLAIN, CONFLATING = 10, 10
PERIOD = 2.0
TARGET = f"{crowd.ALL}&policy=conflate&maxRate={1 / PERIOD}"
# Between the frames of a round there is less, between two rounds more
PAUSE = PERIOD / 4

Round = list[fanout_rig.Made]


def measure(tiny: bool = False) -> list[table.Row]:
    """A whole daemon, judged by what came: a client that has everything knows what the others should have had."""
    seconds = 3.0 if tiny else 15.0
    alone, _, _ = _played(0, seconds)
    beside, everything, rounds = _played(CONFLATING, seconds)
    wrong, right = differing(everything, rounds)
    gaps = missing(everything)
    kept = 100 * right / (right + wrong + gaps)
    told = "exact" if wrong + gaps == 0 else f"{wrong} differ, {gaps} missing for who has everything"
    sizes = sorted({len(one) for found in rounds for one in found})
    note = (
        f"{told}: {len(everything):,} events in, {right:,} out in {sum(map(len, rounds))} rounds of {sizes[0]} to "
        f"{sizes[-1]} to {CONFLATING} clients\np99 of {PLAIN} others {beside:.2f} ms, without the conflated {alone:.2f}"
    )
    return [table.Row("newest per key every 2 s: exact", kept, "%", 100, 100, rising=True, note=note)]


def _played(conflating: int, seconds: float) -> tuple[float, Round, list[list[Round]]]:
    """p99 of the plain clients in ms, what they got, and the rounds of each of the others."""
    with fanout_rig.making(STREAMS, INTERVAL) as (_, port), crowd.Crowd(port, PLAIN, logs=True) as people:
        plain, others = tuple(people.readers), people.add(port, conflating, TARGET)
        people.rest()
        people.forget()
        fanout_rig.command(port, "start")
        people.read(fanout_rig.after(seconds), seconds + 5)
        fanout_rig.command(port, "stop")
        people.read(fanout_rig.after(1.25 * PERIOD if conflating else 0.5), 4 * PERIOD)
    events, ends = fanout_rig.made(plain[0])
    if any(one.taken != plain[0].taken for one in plain):
        raise RuntimeError("not everybody got the same")
    # What is first belongs to the start
    delays = crowd.delays(plain, ends, [one.at for one in events])[len(events) // 10 :]
    p99 = rig.percentile([delay for found in delays for delay in found], 0.99) * 1000
    return p99, events, [list(_rounds(one)) for one in others]


def _rounds(one: crowd.Reader) -> Iterator[Round]:
    events, ends = fanout_rig.made(one)
    found: Round = []
    before = 0.0
    for (_, at), event in zip(crowd.arrivals(one, ends), events, strict=True):
        if found and at - before > PAUSE:
            yield found
            found = []
        found.append(event)
        before = at
    yield found


def differing(everything: Round, clients: Sequence[Sequence[Round]]) -> tuple[int, int]:
    """How many events came that should not have, or the other way round, and how many were right.

    The newest event of all is the newest of its key. So the last one of a round says up to where it reaches.
    """
    order = {event[:3]: number for number, event in enumerate(everything)}
    wrong = right = 0
    for rounds in clients:
        reached = 0
        for found in rounds:
            came = [order[event[:3]] for event in found]
            upto = max(came) + 1
            newest = {(everything[n].stream, everything[n].key): n for n in range(reached, upto)}
            should = sorted(newest.values())
            same = len(set(came).intersection(should)) if came == sorted(came) else 0
            wrong += len(came) + len(should) - 2 * same
            right += same
            reached = upto
        # Behind the last round nothing may be left
        wrong += len(everything) - reached
    return wrong, right


def missing(everything: Round) -> int:
    """How often the next event of a stream is not the one with the next number."""
    streams: dict[str, list[int]] = {}
    for event in everything:
        streams.setdefault(event.stream, []).append(event.seq)
    return sum(b != a + 1 for seqs in streams.values() for a, b in itertools.pairwise(seqs))
