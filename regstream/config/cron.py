"""Schedules and time zones of a configuration, as message and hint."""

from __future__ import annotations

from regstream import crontab, errors

_FORM = "write minute hour day month weekday, as in '*/5 8-18 * * MON-FRI'"


def problem(expression: str) -> tuple[str, str] | None:
    """Message and hint for a bad expression, None for a good one."""
    try:
        table = crontab.parse(expression)
    except errors.BadValue as error:
        whole = error.field == "schedule"
        return (error.reason, _FORM) if whole else (str(error), "")
    if table.possible:
        return None
    return "no month of this schedule has such a day", "write another day or month: it would never fire"


def zone_problem(name: str) -> tuple[str, str] | None:
    """Message and hint for a name that is no time zone, None for one that is."""
    try:
        crontab.zone(name)
    except errors.BadValue:
        if missing := crontab.zone_data_missing():
            return missing, ""
        return f"unknown time zone '{name}'", crontab.zone_hint(name)
    return None
