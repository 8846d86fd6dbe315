import datetime
import itertools
import math
import zoneinfo
from collections.abc import Iterator

import hypothesis
import pytest
from apscheduler.triggers.interval import IntervalTrigger
from hypothesis import strategies as st

from regstream import schedule, spec
from regstream.schedule import cron
from regstream.schedule import schedule as schedule_schedule
from tests import profiles

T = 1_700_000_000.0
DAY = 86_400


def interval(
    ms: float = 1000, start: float = T, jitter: float = 0.0, seed: int = 7, name: str = "A"
) -> schedule.Schedule:
    return schedule.Schedule.interval(ms, start, jitter, seed, name)


def points(points_of: schedule.Schedule, since: float) -> Iterator[float]:
    """The points from ``since`` on, each asked for when the last was served on time."""
    due = points_of.first(since)
    while due is not None:
        yield due
        due, skipped = points_of.after(due, due)
        assert skipped == 0


def take(count: int, points_of: schedule.Schedule, since: float = T) -> list[float]:
    return list(itertools.islice(points(points_of, since), count))


def when(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(zone), fold=fold).timestamp()


def shown(times: list[float], zone: str = "UTC") -> list[str]:
    here = zoneinfo.ZoneInfo(zone)
    return [datetime.datetime.fromtimestamp(time, here).isoformat(" ", "minutes") for time in times]


def test_an_interval_begins_at_its_start_and_not_before():
    assert interval().first(T - 1000) == T
    assert interval().first(T) == T
    assert interval().first(T + 0.001) == T + 1
    assert interval().first(T + 1) == T + 1


def test_a_late_tick_does_not_move_the_next_and_what_passed_is_counted():
    assert interval().after(T, T) == (T + 1, 0)
    assert interval().after(T, T + 0.9) == (T + 1, 0)
    assert interval().after(T, T + 1) == (T + 2, 1)
    assert interval().after(T, T + 5.5) == (T + 6, 5)
    assert interval().after(T + 3, T) == (T + 4, 0)


@pytest.mark.parametrize("ms", [1, 3, 7, 1000 / 3, 50, 0.1, spec.MAX_DURATION])
def test_a_million_ticks_later_nothing_has_drifted(ms: float):
    for number in (1, 999_999, 1_000_000):
        due = T + number * ms / 1000
        assert interval(ms).first(due) == due
        assert interval(ms).after(due, due) == (T + (number + 1) * ms / 1000, 0)


def test_a_schedule_made_again_goes_on_in_phase():
    assert interval(5000).first(T + 12) == interval(5000, start=T + 5 * 123_456).first(T + 5 * 123_456 - 1) - (
        5 * 123_456 - 15
    )
    assert take(5, interval(jitter=0.5), T + 3) == take(8, interval(jitter=0.5))[3:]


@hypothesis.given(
    st.sampled_from([0.5, 1, 3, 7, 250, 1000, 1000 / 7, 86_400_000]),
    st.floats(0, 1e6),
    st.floats(0, 1e4),
    st.sampled_from([0.0, 0.1, 1.0]),
)
@hypothesis.settings(deadline=None)
def test_no_point_is_lost_or_served_twice(ms: float, begin: float, late: float, jitter: float):
    """However late ticks are served, served and skipped together are all points."""
    found = interval(ms, jitter=jitter)
    due = found.first(T + begin)
    assert due is not None and due >= T + begin
    served = due + min(late, 20 * ms / 1000)
    following, skipped = found.after(due, served)
    between = list(itertools.takewhile(lambda point: point <= served, points(found, due)))
    assert skipped == len(between) - 1
    assert following == found.first(math.nextafter(served, math.inf))
    assert following > served


@hypothesis.given(
    st.sampled_from([0.5, 3, 250, 1000 / 7, 86_400_000]),
    st.floats(0, 1e5),
    st.floats(0, 5e4),
    st.sampled_from([0, 0.7]),
)
@hypothesis.settings(deadline=None)
def test_all_points_of_a_span_are_those_that_come_one_by_one(ms: float, begin: float, length: float, jitter: float):
    found = interval(ms, jitter=jitter)
    end = T + begin + min(length, 20 * ms / 1000)
    one_by_one = itertools.takewhile(lambda point: point < end, points(found, found.first(T + begin)))
    assert found.between(T + begin, end) == list(one_by_one)


@hypothesis.given(st.integers(1, 10_000), st.integers(0, 10**12))
def test_an_interval_agrees_with_apscheduler(ms: int, microseconds: int):
    # On a point itself, its division may round up to the next one
    hypothesis.assume(microseconds % (ms * 1000))
    start = datetime.datetime.fromtimestamp(T, datetime.UTC)
    theirs = IntervalTrigger(seconds=ms / 1000, start_date=start, timezone=datetime.UTC)
    now = start + datetime.timedelta(microseconds=microseconds)
    found = interval(ms).first(now.timestamp())
    assert found == pytest.approx(theirs.get_next_fire_time(None, now).timestamp(), abs=1e-6)


def test_jitter_stays_in_its_gap_and_does_not_add_up():
    found = take(2000, interval(1000, jitter=0.3))
    offsets = [due - (T + number) for number, due in enumerate(found)]
    assert all(0 <= offset < 0.3 for offset in offsets)
    assert 0.14 < sum(offsets) / len(offsets) < 0.16


def test_jitter_comes_from_seed_name_and_place_alone():
    assert take(9, interval(jitter=1)) == take(9, interval(jitter=1))
    assert take(9, interval(jitter=1)) != take(9, interval(jitter=1, seed=8))
    assert take(9, interval(jitter=1)) != take(9, interval(jitter=1, name="B"))
    assert take(9, interval(jitter=1), T + 4.999)[1:] == take(14, interval(jitter=1))[-8:]


@pytest.mark.parametrize("ms", [0.001, 1, 1000])
def test_full_jitter_keeps_the_order(ms: float):
    found = take(2000, interval(ms, jitter=1))
    assert found == sorted(found)


def test_a_moved_interval_keeps_its_distances():
    assert take(5, interval(jitter=0.5).moved(-3600), T - 3600) == pytest.approx(
        [due - 3600 for due in take(5, interval(jitter=0.5))]
    )
    cron = schedule.Schedule.cron("* * * * *", "UTC")
    assert cron.moved(5) is cron


def test_cron_fires_when_the_wall_clock_matches():
    found = schedule.Schedule.cron("*/30 8-9 * * MON-FRI", "America/Mexico_City")
    friday = when("2026-11-20 09:10", "America/Mexico_City")
    assert shown(take(3, found, friday), "America/Mexico_City") == [
        "2026-11-20 09:30-06:00",
        "2026-11-23 08:00-06:00",
        "2026-11-23 08:30-06:00",
    ]


def test_cron_takes_the_present_minute_and_goes_on_after_it():
    found = schedule.Schedule.cron("* * * * *", "UTC")
    minute = when("2026-11-23 12:00")
    assert found.first(minute) == minute
    assert found.first(minute + 0.001) == minute + 60
    assert found.after(minute, minute + 0.4) == (minute + 60, 0)
    assert found.after(minute, minute + 60) == (minute + 120, 1)
    assert found.after(minute, minute + 200) == (minute + 240, 3)


def test_either_the_date_or_the_weekday_is_enough():
    found = schedule.Schedule.cron("0 12 13 * 5", "UTC")
    assert shown(take(5, found, when("2026-11-10 00:00"))) == [f"2026-11-{day} 12:00+00:00" for day in (13, 20, 27)] + [
        "2026-12-04 12:00+00:00",
        "2026-12-11 12:00+00:00",
    ]


def test_leap_days_are_found_and_the_thirty_first_of_february_is_not():
    found = schedule.Schedule.cron("0 0 29 2 *", "UTC")
    assert shown(take(2, found, when("2097-01-01 00:00"))) == ["2104-02-29 00:00+00:00", "2108-02-29 00:00+00:00"]
    never = schedule.Schedule.cron("0 0 31 2 *", "UTC")
    assert never.first(T) is None
    assert never.after(T, T + 1) == (None, 0)


def test_midnight_after_a_change_to_summer_time_is_not_lost():
    found = schedule.Schedule.cron("0 0 * * *", "America/New_York")
    assert shown(take(3, found, when("2026-03-08 00:00", "America/New_York")), "America/New_York") == [
        "2026-03-08 00:00-05:00",
        "2026-03-09 00:00-04:00",
        "2026-03-10 00:00-04:00",
    ]


def test_a_midnight_that_is_skipped_comes_an_hour_later():
    found = schedule.Schedule.cron("0 0 * * *", "America/Santiago")
    assert shown(take(3, found, when("2026-09-05 00:00", "America/Santiago")), "America/Santiago") == [
        "2026-09-05 00:00-04:00",
        "2026-09-06 01:00-03:00",
        "2026-09-07 00:00-03:00",
    ]


def test_an_hour_that_is_repeated_counts_once_unless_every_hour_does():
    zone = "America/New_York"
    day = when("2026-11-01 00:45", zone)
    once = schedule.Schedule.cron("30 1 * * *", zone)
    assert shown(take(2, once, day), zone) == ["2026-11-01 01:30-04:00", "2026-11-02 01:30-05:00"]
    assert take(1, once, when("2026-11-01 01:10", zone, fold=1)) == [when("2026-11-02 01:30", zone)]
    always = schedule.Schedule.cron("*/30 * * * *", zone)
    assert take(6, always, day) == [when("2026-11-01 01:00", zone) + 1800 * number for number in range(6)]


def test_every_minute_goes_on_through_a_skipped_hour():
    always = schedule.Schedule.cron("*/30 * * * *", "America/New_York")
    begin = when("2026-03-08 01:00", "America/New_York")
    assert take(6, always, begin) == [begin + 1800 * number for number in range(6)]


PART = {
    part: st.one_of(
        st.just("*"),
        st.integers(2, min(9, high)).map("*/{}".format),
        st.lists(st.integers(low, high), min_size=1, max_size=3).map(lambda values: ",".join(map(str, values))),
        st.tuples(st.integers(low, high), st.integers(low, high)).map(sorted).map(lambda ends: f"{ends[0]}-{ends[1]}"),
    )
    for part, low, high in (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 28), ("month", 1, 12), ("weekday", 0, 7))
}
CHANGES = [
    ("America/New_York", "2026-03-08 03:00"),
    ("America/New_York", "2026-11-01 01:00"),
    ("America/Santiago", "2026-09-06 01:00"),
    ("America/Santiago", "2026-04-04 23:00"),
    ("Africa/Casablanca", "2026-02-15 02:00"),
    ("America/Sao_Paulo", "2018-11-04 01:00"),
    ("UTC", "2026-02-28 00:00"),
]


def matching(table: cron.Crontab, zone: str, begin: float, end: float) -> list[float]:
    """By brute force, every reading of the wall clock, a minute at a time."""
    found = set()
    here = zoneinfo.ZoneInfo(zone)
    wall = datetime.datetime.fromtimestamp(begin - DAY, datetime.UTC).replace(tzinfo=None, second=0)
    while wall < datetime.datetime.fromtimestamp(end + DAY, datetime.UTC).replace(tzinfo=None):
        date, weekday = wall.day in table.days, (wall.weekday() + 1) % 7 in table.weekdays
        if wall.minute in table.minutes and wall.hour in table.hours and wall.month in table.months:
            once, again = (wall.replace(tzinfo=here, fold=fold).timestamp() for fold in (0, 1))
            if (date or weekday) if table.either else (date and weekday):
                found |= ({once, again} if again >= once else set()) if table.hourly else {once}
        wall += datetime.timedelta(minutes=1)
    return sorted(moment for moment in found if begin <= moment < end)


@hypothesis.given(st.tuples(*PART.values()).map(" ".join), st.sampled_from(CHANGES), st.integers(0, 2 * 1440))
@hypothesis.settings(max_examples=profiles.examples(150))
def test_cron_agrees_with_a_look_at_every_minute(expression: str, change: tuple[str, str], before: int):
    zone, moment = change
    begin = when(moment, zone) - before * 60
    end = begin + 3 * DAY
    found = schedule.Schedule.cron(expression, zone)
    got = list(itertools.takewhile(lambda point: point < end, points(found, begin)))
    assert got == matching(cron.parse(expression), zone, begin, end)


@hypothesis.given(st.tuples(*PART.values()).map(" ".join), st.integers(0, 400 * DAY), st.sampled_from([0.0, 0.2, 1.0]))
@hypothesis.settings(max_examples=profiles.examples(100))
def test_a_cron_schedule_gives_the_same_points_from_anywhere(expression: str, begin: int, jitter: float):
    def fresh() -> schedule.Schedule:
        return schedule.Schedule.cron(expression, "America/Santiago", jitter, 7, "A")

    known = take(4, fresh(), T + begin)
    hypothesis.assume(len(known) == 4)
    assert known == sorted(set(known))
    assert fresh().first(known[2]) == known[2]
    assert fresh().first(math.nextafter(known[2], math.inf)) == known[3]
    assert fresh().after(known[0], known[2]) == (known[3], 2)


def test_cron_jitter_is_a_part_of_the_gap():
    found = take(300, schedule.Schedule.cron("*/5 * * * *", "UTC", 0.5, 7, "A"), T)
    offsets = [due % 300 for due in found]
    assert all(offset < 150 for offset in offsets)
    assert 60 < sum(offsets) / len(offsets) < 90


def test_skipped_points_of_a_year_are_counted_up_to_a_bound():
    found = schedule.Schedule.cron("* * * * *", "UTC")
    following, skipped = found.after(when("2025-01-01 00:00"), when("2026-01-01 00:00"))
    assert (following, skipped) == (when("2026-01-01 00:01"), schedule_schedule.MAX_COUNTED)
