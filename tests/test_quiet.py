"""A library that says the same again and again is heard once a minute."""

import logging

import pytest

from regstream import logs


def record(text: str, when: float, level: int = logging.ERROR, *args: object) -> logging.LogRecord:
    made = logging.LogRecord("lib", level, "file.py", 1, text, args, None)
    made.created = when
    return made


def test_the_same_message_passes_once_a_minute_and_says_how_often_it_was_held() -> None:
    seldom = logs.RateLimitFilter()
    assert seldom.filter(record("lost %s", 1000.0, logging.ERROR, "a"))
    assert not any(seldom.filter(record("lost %s", 1000.0 + n, logging.ERROR, "b")) for n in range(1, 60))
    last = record("lost %s", 1060.0, logging.ERROR, "c")
    assert seldom.filter(last)
    assert last.getMessage() == "lost c (and 59 more like it)"
    again = record("lost %s", 1120.0, logging.ERROR, "d")
    assert seldom.filter(again) and again.getMessage() == "lost d"


def test_other_messages_pass() -> None:
    seldom = logs.RateLimitFilter()
    assert seldom.filter(record("one", 1000.0)) and seldom.filter(record("two", 1000.0))


def test_a_percent_sign_in_what_was_held_is_no_format() -> None:
    seldom = logs.RateLimitFilter()
    for when in (1000.0, 1001.0):
        seldom.filter(record("%s", when, logging.ERROR, "50%d"))
    last = record("%s", 1061.0, logging.ERROR, "50%d")
    assert seldom.filter(last) and last.getMessage() == "50%d (and 1 more like it)"


def test_no_louder_than_allowed() -> None:
    seldom = logs.RateLimitFilter(logging.WARNING)
    loud, soft = record("one", 0.0, logging.CRITICAL), record("two", 0.0, logging.INFO)
    assert seldom.filter(loud) and (loud.levelno, loud.levelname) == (logging.WARNING, "WARNING")
    assert seldom.filter(soft) and (soft.levelno, soft.levelname) == (logging.INFO, "INFO")


def test_what_is_remembered_is_bounded() -> None:
    seldom = logs.RateLimitFilter()
    for number in range(3 * logs.MAX_KNOWN):
        assert seldom.filter(record(f"number {number}", 1000.0))
    assert not seldom.filter(record(f"number {number}", 1001.0))
    assert seldom.filter(record("number 0", 1001.0))


def test_every_logger_of_a_library_once(caplog: pytest.LogCaptureFixture) -> None:
    library, part, other = (logging.getLogger(name) for name in ("quietlib", "quietlib.part", "quietlibrary"))
    for _ in range(2):
        logs.limit_rate("quietlib", logging.WARNING)
    assert [len(one.filters) for one in (library, part, other)] == [1, 1, 0]
    for _ in range(5):
        part.error("lost")
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [("WARNING", "lost")]
