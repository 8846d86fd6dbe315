"""What RETENTION drops: what is old by every clock, and after it was said."""

from __future__ import annotations

import datetime
import logging
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstream.store import recorder, schema
from tests.store import making
from tests.store.making import Rig, events, kept, records, until

DAY = 86_400.0
KEEP = 30 * DAY
NOW = making.SECOND
Span = schema.RetentionSpan


def days(*back: float, length: float = DAY - 1) -> list[Span]:
    """Days that began so many days ago."""
    return [Span(NOW - one * DAY, NOW - one * DAY + length) for one in back]


class TestTheLimit:
    def test_is_what_is_kept_back_from_now_where_there_is_no_hole(self) -> None:
        assert schema.limit(days(*range(1, 60)), NOW, KEEP).time == pytest.approx(NOW - KEEP, abs=2 * 60)

    def test_a_hole_counts_as_a_day_at_most(self) -> None:
        found = schema.limit(days(*range(400, 460)), NOW, KEEP)
        assert found.time == pytest.approx(NOW - (399 + 29) * DAY, abs=60)
        assert found.hole == Span(NOW - 399 * DAY - 1, NOW)

    def test_a_clock_that_jumped_is_seen_after_it_has_made_events_and_after_many_restarts(self) -> None:
        recent = [Span(NOW - 100 * number, NOW - 100 * number) for number in range(1, 20)]
        found = schema.limit([*days(*range(400, 420)), *recent], NOW, KEEP)
        assert found.time == -math.inf and found.hole.newest == NOW - 1900

    def test_what_is_kept_for_hours_is_not_gone_by_a_jump_either(self) -> None:
        assert schema.limit(days(400, length=5 * 3600), NOW, 12 * 3600).time < NOW - 400 * DAY

    def test_what_is_of_the_future_counts_as_nothing(self) -> None:
        some = days(*range(1, 60))
        assert schema.limit([*some, Span(NOW + 900 * DAY, NOW + 901 * DAY)], NOW, KEEP) == schema.limit(some, NOW, KEEP)

    def test_events_once_a_day_count_whole(self) -> None:
        assert schema.limit(days(*range(60), length=0), NOW, KEEP).time == NOW - KEEP

    def test_of_no_events_nothing_is_old(self) -> None:
        assert schema.limit([], NOW, KEEP).time == -math.inf

    @given(
        st.dictionaries(st.integers(0, 10_000), st.integers(0, 3_599), max_size=30),
        st.integers(0, 5_000),
        st.sampled_from([12 * 3600, 2 * DAY, KEEP]),
    )
    def test_a_jump_costs_half_of_what_is_kept_at_most_and_never_more_than_a_day(
        self, at: dict[int, int], jump: int, keep: float
    ) -> None:
        some = [Span(NOW - begin * 3600 - length, NOW - begin * 3600) for begin, length in at.items()]
        right, wrong = (schema.limit(some, now, keep).time for now in (NOW, NOW + jump * DAY))
        assert right <= NOW - keep and right <= wrong
        lost = sum(max(0.0, min(one.newest, wrong) - max(one.oldest, right)) for one in some)
        assert lost <= min(DAY, keep / 2) + 1


@pytest.fixture
def today(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Its clock is right, at noon or so; it looks after days all the time."""
    monkeypatch.setattr(recorder, "DAYS_SECONDS", 0.05)
    monkeypatch.setattr(schema, "NOTICE_SECONDS", 0.0)
    rig.now = time.time()
    return rig


async def fill(rig: Rig, *back: int) -> None:
    """An event of each day that is so many days ago, with the number of days as its own."""
    one = await rig.open()
    for number in back:
        one.record(records(events(1, first=1 + number, at=rig.now - making.SECOND - number * DAY)))
    await kept(one)
    await one.close()


def tables(rig: Rig) -> list[str]:
    return [name for (name,) in rig.rows("SELECT relname FROM pg_class WHERE relname ~ '^events_2' AND relkind = 'r'")]


def name(rig: Rig, back: int) -> str:
    return f"{datetime.datetime.fromtimestamp(rig.now - back * DAY, datetime.UTC):events_%Y%m%d}"


class TestDays:
    async def test_those_that_are_old_go_and_those_to_come_are_there(
        self, today: Rig, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "regstream.store")
        await fill(today, 0, 1, 2, 3, 4)
        await today.open(keep=2 * DAY)
        await until(lambda: len([one for one in caplog.messages if "are dropped" in one]) == 2)
        assert sorted(tables(today)) == [name(today, back) for back in range(2, -3, -1)]
        assert today.numbers() == [1, 2, 3]
        # Each was said before it went: the table, its rows, their times, and how not to lose them
        said = [one for one in caplog.messages if "will be dropped" in one]
        assert len(said) == 2
        assert f"table regstream.{name(today, 4)}, 1 row, from " in said[0] and "to keep them" in said[0]
        gone = next(number for number, one in enumerate(caplog.messages) if "are dropped" in one)
        assert all(caplog.messages.index(one) < gone for one in said)

    async def test_what_was_said_stays_for_the_notice(
        self, today: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "regstream.store")
        monkeypatch.setattr(schema, "NOTICE_SECONDS", 3600.0)
        await fill(today, 0, 1, 2, 3)
        one = await today.open(keep=2 * DAY)
        await until(lambda: any("will be dropped in 60 min" in one for one in caplog.messages))
        for seq in (100, 101, 102):
            one.record(records(events(1, first=seq, at=today.now - making.SECOND)))
            await kept(one)
        assert today.numbers() == [1, 2, 3, 4, 100, 101, 102]
        assert len([one for one in caplog.messages if "will be dropped" in one]) == 1

    @pytest.mark.parametrize("wrong", [400 * DAY, -400 * DAY, 360.0])
    async def test_nothing_goes_while_machine_and_database_tell_different_times(
        self, today: Rig, caplog: pytest.LogCaptureFixture, wrong: float
    ) -> None:
        await fill(today, 0, 1, 2, 3, 4)
        right = today.now
        today.now += wrong
        one = await today.open(keep=2 * DAY)
        await until(lambda: any("no event is dropped" in one for one in caplog.messages))
        one.record(records(events(1, first=100, at=today.now - making.SECOND)))
        await kept(one)
        assert len(today.numbers()) == 6
        (warning,) = [one for one in caplog.records if "no event is dropped" in one.message]
        assert warning.levelno == logging.WARNING
        for clock in (today.now, right):
            # To the day, for the second may have gone by
            assert f"{datetime.datetime.fromtimestamp(clock, datetime.UTC):%Y-%m-%dT}" in warning.message
        # Set right it goes on
        today.now = right
        await until(lambda: today.numbers()[:3] == [1, 2, 3] and 4 not in today.numbers())

    async def test_nor_when_both_are_wrong_in_the_same_way(self, today: Rig, caplog: pytest.LogCaptureFixture) -> None:
        # To the table it is as if both clocks had gone 40 days ahead
        await fill(today, *range(40, 46))
        for _ in range(2):
            caplog.clear()
            one = await today.open(keep=30 * DAY)
            await until(lambda: any("not dropped" in one for one in caplog.messages))
            one.record(records(events(1, first=one.status.recorded + 1, at=today.now - making.SECOND)))
            await kept(one)
            await one.close()
            assert [seq for seq in today.numbers() if seq > 40] == list(range(41, 47))
            (warning,) = [one for one in caplog.messages if "not dropped" in one]
            for back in (0, 40):
                assert f"{datetime.datetime.fromtimestamp(today.now - back * DAY, datetime.UTC):%Y-%m-%dT}" in warning
            assert f"DROP TABLE regstream.{name(today, 45)}, regstream." in warning

    async def test_a_table_without_a_row_goes_at_once(self, today: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(schema, "NOTICE_SECONDS", 3600.0)
        await fill(today, 5)
        today.rows("TRUNCATE regstream.events")
        await today.open(keep=2 * DAY)
        await until(lambda: name(today, 5) not in tables(today))
