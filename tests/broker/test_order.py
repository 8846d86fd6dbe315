"""Streams in the order of their numbers, from whatever order partitions bring them in."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstream import spec
from regstream.broker import resequencer
from regstream.event import Event, Head, Position


def event(seq: int, epoch: str = "E1", stream: str = "ONE") -> Event:
    head = Head(stream, epoch, "one", "t", spec.Priority.NORMAL, "2026-11-23T12:00:00.000Z", "LATAM")
    return Event(head, seq, None, b"{}")


def seqs(events: list[Event]) -> list[int]:
    return [one.seq for one in events]


def offered(line: resequencer.Resequencer, events: list[Event], now: float = 0.0) -> list[Event]:
    return [out for one in events for out in line.offer(one, now)]


@st.composite
def interleaved(draw: st.DrawFn) -> tuple[int, list[int]]:
    """Numbers from 1 on, spread over partitions that keep their order, read in any way."""
    count, partitions = draw(st.integers(1, 60)), draw(st.integers(1, 6))
    places = draw(st.lists(st.integers(0, partitions - 1), min_size=count, max_size=count))
    queues = [[seq for seq, place in enumerate(places, 1) if place == one] for one in range(partitions)]
    read: list[int] = []
    while any(queues):
        queue = draw(st.sampled_from([one for one in queues if one]))
        read.append(queue.pop(0))
    return count, read


class TestOrder:
    @given(interleaved())
    def test_any_interleaving_of_partitions_comes_out_once_and_in_order(self, drawn: tuple[int, list[int]]) -> None:
        count, read = drawn
        line = resequencer.Resequencer()
        assert seqs(offered(line, [event(seq) for seq in read])) == list(range(1, count + 1))
        assert (line.skipped, line.doubled) == (0, 0)
        assert line.position("ONE") == ("E1", count)

    @given(interleaved(), st.data())
    def test_what_comes_again_is_shown_once(self, drawn: tuple[int, list[int]], data: st.DataObject) -> None:
        count, read = drawn
        again = data.draw(st.lists(st.sampled_from(read), max_size=20))
        mixed = list(read)
        for seq in again:
            mixed.insert(data.draw(st.integers(mixed.index(seq) + 1, len(mixed))), seq)
        line = resequencer.Resequencer()
        assert seqs(offered(line, [event(seq) for seq in mixed])) == list(range(1, count + 1))
        assert line.doubled == len(again)

    @given(st.sets(st.integers(1, 40), min_size=1), st.randoms(use_true_random=False))
    def test_gaps_are_given_up_after_a_while_and_counted(self, numbers: set[int], chance: random.Random) -> None:
        read = sorted(numbers)
        chance.shuffle(read)
        line = resequencer.Resequencer()
        out = offered(line, [event(seq) for seq in read])
        now = 0.0
        while line.position("ONE") != ("E1", max(numbers)):
            assert line.expire(now + resequencer.PATIENCE - 0.1) == []
            now += resequencer.PATIENCE
            out += line.expire(now)
        assert seqs(out) == sorted(numbers)
        assert line.skipped == max(numbers) - len(numbers)

    def test_what_comes_after_its_gap_was_given_up_is_not_shown(self) -> None:
        line = resequencer.Resequencer()
        line.begin("ONE", Position("E1", 4))
        assert offered(line, [event(6)]) == []
        assert seqs(line.expire(resequencer.PATIENCE)) == [6]
        assert offered(line, [event(5)]) == []
        assert (line.skipped, line.doubled) == (1, 1)

    def test_patience_begins_again_when_something_came(self) -> None:
        line = resequencer.Resequencer()
        assert offered(line, [event(2), event(4)]) == []
        assert seqs(line.offer(event(1), resequencer.PATIENCE - 1)) == [1, 2]
        assert line.expire(resequencer.PATIENCE + 1) == []
        assert seqs(line.expire(2 * resequencer.PATIENCE)) == [4]

    def test_what_is_held_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resequencer, "MAX_HELD", 10)
        line = resequencer.Resequencer()
        out = offered(line, [event(seq) for seq in range(2, 200, 2)])
        assert len(out) >= 99 - 10
        assert seqs(out) == sorted(seqs(out))
        assert line.skipped >= len(out)

    def test_streams_do_not_wait_for_each_other(self) -> None:
        line = resequencer.Resequencer()
        assert offered(line, [event(2)]) == []
        assert seqs(offered(line, [event(1, stream="TWO"), event(2, stream="TWO")])) == [1, 2]

    def test_a_newer_numbering_takes_over_and_an_older_one_is_past(self) -> None:
        line = resequencer.Resequencer()
        assert seqs(offered(line, [event(1), event(3), event(1, "E2"), event(2, "E1"), event(2, "E2")])) == [1, 1, 2]
        assert line.position("ONE") == ("E2", 2)
        # Number 3 of the old one was held and is shown no more
        assert line.skipped == 1

    def test_begin_changes_nothing_that_is_known(self) -> None:
        line = resequencer.Resequencer()
        offered(line, [event(1)])
        line.begin("ONE", Position("E9", 9))
        assert line.position("ONE") == ("E1", 1)
        assert line.position("TWO") is None


class TestSuffix:
    @given(st.lists(st.tuples(st.sampled_from(["E1", "E2"]), st.integers(1, 15)), max_size=40))
    def test_the_newest_events_without_a_gap(self, drawn: list[tuple[str, int]]) -> None:
        whole = resequencer.whole_suffix(event(seq, epoch) for epoch, seq in drawn)
        if not drawn:
            assert whole == []
            return
        epoch, last = max(drawn)
        numbers = seqs(whole)
        assert {one.head.epoch for one in whole} == {epoch}
        assert numbers == list(range(numbers[0], last + 1))
        assert (epoch, numbers[0] - 1) not in drawn
