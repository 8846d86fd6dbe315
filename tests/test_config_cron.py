"""Schedules: what passes is what the clock can use, what does not is said part by part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstream.config import streams


@pytest.mark.parametrize(
    "expression",
    [
        "* * * * *",
        "*/5 8-18 * * MON-FRI",
        "0,15,30,45 0-6/2,22 1-7 1,JUL *",
        "59 23 31 12 7",
        "0 0 * * SAT-SUN",
        "0 0 * * sun,tue-thu",
        "0 0 29 2 *",
        "0 0 31 2 MON",
        "0 0 30,31 FEB,APR *",
        "  5   4 * * 0 ",
    ],
)
def test_a_good_schedule(expression: str) -> None:
    assert streams.problem(expression) is None


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "a schedule has 5 parts, not 0"),
        ("* * * * * *", "a schedule has 5 parts, not 6"),
        ("@daily", "a schedule has 5 parts, not 1"),
        ("60 * * * *", "minute: 60 is not from 0 to 59"),
        ("* 24 * * *", "hour: 24 is not from 0 to 23"),
        ("* * 0 * *", "day: 0 is not from 1 to 31"),
        ("* * * 13 *", "month: 13 is not from 1 to 12"),
        ("* * * * 8", "weekday: 8 is not from 0 to 7"),
        ("* * * MAYO *", "month: 'MAYO' is not a number from 1 to 12 or JAN to DEC"),
        ("* * * * LUN", "weekday: 'LUN' is not a number from 0 to 7 or SUN to SAT"),
        ("a * * * *", "minute: 'a' is not a number from 0 to 59"),
        ("-1 * * * *", "minute: '-1' is not a number from 0 to 59"),
        ("1, * * * *", "minute: '' is not a number from 0 to 59"),
        ("9-3 * * * *", "minute: the range '9-3' ends before it begins"),
        ("5/2 * * * *", "minute: a step follows '*' or a range, not '5'"),
        ("*/0 * * * *", "minute: a step is at least 1, not 0"),
        ("*/-2 * * * *", "minute: '*/-2' is not a number from 0 to 59"),
        ("* * L * *", "day: 'L' is not a number from 1 to 31"),
        ("* * ? * *", "day: '?' is not a number from 1 to 31"),
        ("* * * * MON#2", "weekday: 'MON#2' is not a number from 0 to 7 or SUN to SAT"),
        ("\u0665 * * * *", "minute: '\u0665' is not a number from 0 to 59"),
        ("99999999999999999999 * * * *", "minute: '99999999999999999999' is not a number from 0 to 59"),
        ("0 0 30 2 *", "no month of this schedule has such a day"),
        ("0 0 31 4,6,9,11 *", "no month of this schedule has such a day"),
    ],
)
def test_a_bad_schedule(expression: str, message: str) -> None:
    found = streams.problem(expression)
    assert found is not None
    assert found[0] == message


@given(st.text(alphabet="0123456789*/-, MONJAFESU", max_size=30))
def test_any_text_is_good_or_has_a_reason(text: str) -> None:
    found = streams.problem(text)
    assert found is None or found[0]


@pytest.mark.parametrize("name", ["UTC", "America/Mexico_City", "America/Sao_Paulo", "America/Argentina/Buenos_Aires"])
def test_a_known_zone(name: str) -> None:
    assert streams.zone_problem(name) is None


@pytest.mark.parametrize(
    "name", ["", "Lima", "America", "../../etc/passwd", "/etc/localtime", "a\0b", "X" * 500, "UTC "]
)
def test_an_unknown_zone(name: str) -> None:
    found = streams.zone_problem(name)
    assert found is not None
    assert found[0].startswith("unknown time zone")
