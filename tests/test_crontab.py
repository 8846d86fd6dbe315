import zoneinfo

import hypothesis
import pytest
from hypothesis import strategies as st

from regstream import errors, schedule
from regstream.config import streams
from regstream.schedule import cron as schedule_cron


def fault(expression: str, zone: str = "UTC") -> str | None:
    """Why an expression or its zone is bad, None when both are good."""
    try:
        table = schedule_cron.parse(expression)
        schedule_cron.zone(zone)
    except errors.BadValue as error:
        return str(error)
    return None if table.possible else "schedule: never fires"


def test_an_expression_is_five_sets():
    found = schedule_cron.parse("*/20 8-18/5,20 1,15 JAN-mar MON-FRI")
    assert found == schedule_cron.Crontab(
        frozenset({0, 20, 40}),
        frozenset({8, 13, 18, 20}),
        frozenset({1, 15}),
        frozenset({1, 2, 3}),
        frozenset({1, 2, 3, 4, 5}),
        either=True,
    )


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("0", {0}),
        ("7", {0}),
        ("SUN", {0}),
        ("1-5", {1, 2, 3, 4, 5}),
        ("5-7", {5, 6, 0}),
        ("SAT-SUN", {6, 0}),
        ("SUN-TUE", {0, 1, 2}),
        ("0-7", set(range(7))),
        ("*", set(range(7))),
        ("sat", {6}),
    ],
)
def test_weekdays_count_from_sunday_which_is_also_seven(text: str, days: set[int]):
    assert schedule_cron.parse(f"0 0 * * {text}").weekdays == days


@pytest.mark.parametrize(
    ("expression", "either"),
    [("0 0 1 * 1", True), ("0 0 1 * *", False), ("0 0 * * 1", False), ("0 0 */2 * 1", False), ("0 0 1 * */2", False)],
)
def test_either_day_counts_unless_one_begins_with_a_star(expression: str, either: bool):
    assert schedule_cron.parse(expression).either is either


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "schedule: a schedule has 5 parts, not 0"),
        ("* * * *", "schedule: a schedule has 5 parts, not 4"),
        ("@hourly", "schedule: a schedule has 5 parts, not 1"),
        ("0 0 * * * *", "schedule: a schedule has 5 parts, not 6"),
        ("60 * * * *", "minute: 60 is not from 0 to 59"),
        ("* 24 * * *", "hour: 24 is not from 0 to 23"),
        ("* * 0 * *", "day: 0 is not from 1 to 31"),
        ("* * * 13 *", "month: 13 is not from 1 to 12"),
        ("* * * * 8", "weekday: 8 is not from 0 to 7"),
        ("* * * * MOON", "weekday: 'MOON' is not a number from 0 to 7"),
        ("* * MON * *", "day: 'MON' is not a number from 1 to 31"),
        ("5-1 * * * *", "minute: the range '5-1' ends before it begins"),
        ("* * * * FRI-MON", "weekday: the range 'FRI-MON' ends before it begins"),
        ("* * * * 5-0", "weekday: the range '5-0' ends before it begins"),
        ("*/0 * * * *", "minute: a step is at least 1"),
        ("5/15 * * * *", "minute: a step follows '*' or a range, not '5'"),
        ("1,, * * * *", "minute: '' is not"),
        ("-1 * * * *", "minute: '-1' is not"),
        ("* * L * *", "day: 'L' is not"),
        ("* * ? * *", "day: '?' is not"),
        ("* * * * MON#2", "weekday: 'MON#2' is not"),
        ("٣ * * * *", "minute: '٣' is not"),
        ("99999999999999999999 * * * *", "minute: '99999999999999999999' is not"),
        ("0 0 31 2 *", "schedule: never fires"),
        ("0 0 30 FEB *", "schedule: never fires"),
        ("0 0 31 4,6,9,11 *", "schedule: never fires"),
        ("0 0 31 2 */2", "schedule: never fires"),
    ],
)
def test_a_bad_expression_is_told_with_its_reason(expression: str, reason: str):
    assert (fault(expression) or "").startswith(reason)


@pytest.mark.parametrize(
    "expression", ["*/5 8-18 * * MON-FRI", "0 0 29 2 *", "0 0 31 2 1", "*/45 * * * *", "0 0 31 2,3 *", " 1  2 3 4 5 "]
)
def test_a_good_expression_is_good(expression: str):
    assert fault(expression, "America/Mexico_City") is None


@pytest.mark.parametrize("zone", ["Amerika/Santiago", "America", "/etc/passwd", "../x", "", "a\0b"])
def test_a_zone_that_is_not_known_is_told(zone: str):
    assert (fault("* * * * *", zone) or "").startswith("timezone: unknown time zone")


def test_a_near_zone_is_named():
    assert "did you mean America/Santiago" in (fault("* * * * *", "america/santiago") or "")


def test_utc_needs_no_files(monkeypatch: pytest.MonkeyPatch):
    def missing(key: str) -> None:
        raise zoneinfo.ZoneInfoNotFoundError(key)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", missing)
    assert fault("* * * * *", "UTC") is None


@hypothesis.given(
    st.text() | st.lists(st.text("0123456789*/-,MONJA", max_size=8), min_size=5, max_size=5).map(" ".join)
)
def test_any_text_is_good_or_has_a_reason(text: str):
    reason = fault(text)
    if reason is None:
        assert schedule.Schedule.cron(text, "UTC").first(1_700_000_000.0) is not None
    elif reason.startswith("schedule: never"):
        assert schedule.Schedule.cron(text, "UTC").first(1_700_000_000.0) is None
    else:
        with pytest.raises(errors.BadValue):
            schedule.Schedule.cron(text, "UTC")


@pytest.mark.parametrize(
    ("expression", "part", "most"),
    [
        ("*/90 * * * *", "minute", 60), ("*/61 * * * *", "minute", 60), ("0 */25 * * *", "hour", 24),
        ("0 0 */32 * *", "day", 31), ("0 0 1 */13 *", "month", 12), ("0 0 * * */8", "weekday", 7),
        ("10-20/12 * * * *", "minute", 11), ("0 8-18/12 * * *", "hour", 11), ("0 0 * * MON-FRI/6", "weekday", 5),
        ("0,*/9999 * * * *", "minute", 60),
    ],
)  # fmt: skip
def test_a_step_that_is_larger_than_its_range_is_told_with_the_cure(expression: str, part: str, most: int):
    said = fault(expression) or ""
    assert said.startswith(f"{part}: a step of ") and f"at most {most}" in said


@pytest.mark.parametrize(
    "expression", ["*/60 * * * *", "0 */24 * * *", "0 0 1 */12 *", "0 0 * * */7", "10-20/11 * * * *", "5-5/1 * * * *"]
)
def test_a_step_as_large_as_its_range_is_good(expression: str):
    assert fault(expression) is None


@pytest.mark.parametrize("name", ["America/Santiago", "Europe/Madrid", "Nowhere/X"])
def test_missing_zone_data_is_not_called_an_unknown_zone(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setattr(zoneinfo, "ZoneInfo", _no_zone)
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    monkeypatch.setattr(zoneinfo, "TZPATH", ("/nonexistent",))
    assert fault("* * * * *", "UTC") is None
    said = fault("* * * * *", name) or ""
    assert "no time zone data" in said and "/nonexistent" in said and "tzdata" in said and "unknown" not in said
    message, _ = streams.zone_problem(name) or ("", "")
    assert message in said and message


def _no_zone(key: str) -> None:
    raise zoneinfo.ZoneInfoNotFoundError(key)
