"""Rates: curves are continuous and integrate to what they promise, arrivals are Poisson's and of the date alone."""

from __future__ import annotations

import datetime
import itertools
import math
import statistics
import zoneinfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from regstream import errors, schedule, spec
from regstream.schedule import cron
from tests import profiles

UTC = datetime.UTC
HOUR, DAY = 3600.0, 86_400.0
T = datetime.datetime(2026, 3, 3, tzinfo=UTC).timestamp()
ZONES = ["UTC", "America/Sao_Paulo", "Europe/Madrid", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Santiago"]
WEIGHTS = some.lists(some.floats(0, 20), min_size=24, max_size=24).filter(lambda found: sum(found) > 1)


def zone(name: str) -> datetime.tzinfo:
    return zoneinfo.ZoneInfo(name)


def curve(declaration: spec.CurveSpec | str = "bank-day", where: str = "UTC", place: str = "") -> schedule.Curve:
    return schedule.Curve(spec.CURVES[declaration] if isinstance(declaration, str) else declaration, zone(where), place)


def arrivals(
    base: float = 5.0, shape: str = "bank-day", seed: int = 7, name: str = "S", **rest: object
) -> schedule.Arrivals:
    return schedule.Arrivals(curve(shape), base, seed=seed, name=name, **rest)  # type: ignore[arg-type]


# Curves


@settings(max_examples=profiles.examples(40))
@given(WEIGHTS, some.sampled_from(ZONES), some.floats(0, 366 * DAY))
def test_a_curve_has_no_step_and_its_integral_is_the_area_below_it(hours, where, after):
    one = curve(spec.CurveSpec(hour=tuple(hours), weekday=(1, 2, 1, 1, 3, 0.3, 0), month=(*range(1, 13),)), where)
    start = T + after
    area = 0.0
    for step in range(0, 48 * 3600, 300):
        left, right = start + step, start + step + 300
        assert abs(one.value(right) - one.value(left)) <= 20 * 12 * 3 * 2 * 300 / 1800 + 1e-6
        middle = one.value((left + right) / 2)
        area += (one.value(left) + 4 * middle + one.value(right)) / 6 * 300
    # Simpson's rule is exact but where a knot lies within a step
    assert one.integral(start, start + 48 * HOUR) == pytest.approx(area, rel=0.01, abs=1)


@settings(max_examples=profiles.examples(60))
@given(WEIGHTS, some.sampled_from(ZONES), some.integers(0, 500), some.floats(0, 1), some.lists(some.floats(0, 1)))
def test_the_integral_is_turned_round(hours, where, days, part, parts):
    one = curve(spec.CurveSpec(hour=tuple(hours)), where)
    day = one.day(datetime.date(2026, 1, 1) + datetime.timedelta(days))
    assert day.end - day.start in (23 * HOUR, 23.5 * HOUR, 24 * HOUR, 24.5 * HOUR, 25 * HOUR)
    (time,) = day.reach([day.total * part])
    assert day.start <= time <= day.end
    assert day.upto(time) == pytest.approx(day.total * part, abs=1e-3 * max(1.0, max(hours)))
    assert day.upto(day.start) == 0 and day.upto(day.end) == day.total
    areas = sorted(day.total * part for part in parts)
    assert list(day.reach(areas)) == [time for area in areas for time in day.reach([area])]


def test_at_full_hours_of_the_wall_clock_it_is_what_was_declared():
    hours = tuple(float(number * number % 17) for number in range(24))
    # 29 March 2026 has no 2:00 in Madrid, 25 October has it twice
    for month, day in ((3, 28), (3, 29), (10, 25), (7, 1)):
        one = curve(spec.CurveSpec(hour=hours), "Europe/Madrid")
        for hour in range(24):
            moment = datetime.datetime(2026, month, day, hour, tzinfo=zone("Europe/Madrid"))
            shown = datetime.datetime.fromtimestamp(moment.timestamp(), zone("Europe/Madrid")).hour
            assert one.value(moment.timestamp()) == pytest.approx(hours[shown])


def test_the_mean_of_a_working_day_of_the_bank_is_one_and_nights_and_weekends_are_quiet():
    one = curve(spec.CURVES["bank-day"].model_copy(update={"month": (1.0,) * 12}))
    assert one.integral(T, T + DAY) / DAY == pytest.approx(1, rel=0.01)
    saturday = T + 4 * DAY
    assert one.integral(saturday, saturday + DAY) < 0.3 * DAY
    assert one.value(T + 3 * HOUR) < 0.1 < 2 < one.value(T + 10 * HOUR)


def test_days_of_a_calendar():
    declaration = spec.CurveSpec(weekday=(1, 1, 1, 1, 1, 0.5, 0.25), holiday=0.125, month_end=2, quarter_end=3)
    one = curve(declaration, "America/Sao_Paulo", "BR-SP")

    def noon(*date: int) -> float:
        return one.value(datetime.datetime(*date, 12, tzinfo=zone("America/Sao_Paulo")).timestamp())  # type: ignore[misc,arg-type]

    assert noon(2026, 9, 7) == 0.125  # Independence day, a Monday
    assert noon(2026, 7, 9) == 0.125  # Of the state alone
    assert (noon(2026, 9, 8), noon(2026, 9, 12), noon(2026, 9, 13)) == (1, 0.5, 0.25)
    assert noon(2026, 7, 31) == 2  # The last working day of July
    assert noon(2026, 10, 30) == 2  # A Friday; the 31st is a Saturday
    assert noon(2026, 6, 30) == 3
    assert curve(declaration, "UTC", "BR").value(datetime.datetime(2026, 7, 9, 12, tzinfo=UTC).timestamp()) == 1


@pytest.mark.parametrize(("place", "said"), [("XX", "there is no country 'XX'"), ("BR-XX", "BR has no part 'XX'")])
def test_a_place_that_is_not_there(place, said):
    with pytest.raises(errors.BadValue, match=said):
        cron.holidays_of(place)


# Arrivals


def test_a_day_has_what_is_expected_of_it_within_a_hundredth():
    for shape, is_even in itertools.product(("flat", "bank-day"), (False, True)):
        one = arrivals(5.0, shape, even=is_even)
        expected = one.expected(T, T + DAY)
        found = one.between(T, T + DAY)
        assert abs(len(found) / expected - 1) < (0.01 if not is_even else 1e-4)
        assert found == sorted(set(found))
        for hour in range(24):
            start, end = T + hour * HOUR, T + (hour + 1) * HOUR
            wanted = one.expected(start, end)
            count = sum(start <= point < end for point in found)
            assert abs(count - wanted) < (1.5 if is_even else 5 * math.sqrt(wanted) + 1)


def test_counts_and_gaps_are_poissons():
    found = arrivals(0.2, "flat").between(T, T + 5 * DAY)
    gaps = [after - before for before, after in itertools.pairwise(found)]
    # Kolmogorov and Smirnov: the distance to the exponential distribution, at a level of one in a thousand
    ordered = sorted(gaps)
    distance = max(
        max(
            abs(1 - math.exp(-0.2 * gap) - number / len(gaps)), abs(1 - math.exp(-0.2 * gap) - (number + 1) / len(gaps))
        )
        for number, gap in enumerate(ordered)
    )
    assert distance < 1.95 / math.sqrt(len(gaps))
    counts = [0] * (5 * 24 * 6)
    for point in found:
        counts[int((point - T) // 600)] += 1
    mean = statistics.fmean(counts)
    assert mean == pytest.approx(120, rel=0.02)
    assert statistics.variance(counts) / mean == pytest.approx(1, abs=0.2)


@settings(max_examples=profiles.examples(25))
@given(
    some.floats(0, 3 * DAY), some.floats(0, 4 * HOUR), some.sampled_from([1, 2, 7, 100]), some.booleans(),
    some.sampled_from([0.001, 0.3]),
)  # fmt: skip
def test_points_are_the_same_however_they_are_asked_for(begin, length, size, is_even, base):
    one, other = (arrivals(base, size=size, even=is_even) for _ in range(2))
    start, end = T + begin, T + begin + length
    points = one.between(start, end)
    assert points == sorted(set(points))
    middle = start + length / 3
    assert other.between(start, middle) + other.between(middle, end) == points
    due, found = other.first(start), []
    while due is not None and due < end and len(found) < 300:
        found.append(due)
        due, skipped = other.after(due, due)
        assert skipped == 0
    assert found == points[:300]
    if len(points) > 5:
        assert other.after(points[0], points[4]) == (points[5], 4)


@settings(max_examples=profiles.examples(15))
@given(some.sampled_from([2, 5, 64]), some.integers(0, 6))
def test_the_size_of_ticks_does_not_change_when_events_arrive(size, day):
    start = T + day * DAY
    alone, together = arrivals(0.2), arrivals(0.2, size=size)
    ticks = together.between(start, start + DAY)
    moments = [together.moments(due) for due in ticks]
    assert all(1 <= len(some_) <= size and some_[-1] == due for some_, due in zip(moments, ticks, strict=True))
    assert [moment for some_ in moments for moment in some_] == alone.between(start, start + DAY)
    assert alone.moments(ticks[0]) is None
    # Asked in another order, and of one that has made nothing before
    other = arrivals(0.2, size=size)
    assert [other.moments(due) for due in reversed(ticks)] == moments[::-1]


def test_other_seeds_and_names_have_other_arrivals():
    found = [arrivals(seed=seed, name=name).first(T) for seed, name in ((7, "S"), (8, "S"), (7, "T"))]
    assert len(set(found)) == 3


def test_where_there_is_nothing_there_is_no_point():
    never = schedule.Arrivals(curve(spec.CurveSpec(hour=(0.0,) * 24)), 5.0)
    assert never.first(T) is None
    assert never.after(T, T + DAY) == (None, 0)
    assert never.between(T, T + 9 * DAY) == []
    sundays = schedule.Arrivals(curve(spec.CurveSpec(weekday=(0, 0, 0, 0, 0, 0, 1))), 1.0)
    first = sundays.first(T)
    assert first is not None and datetime.datetime.fromtimestamp(first, UTC).weekday() in (5, 6)
