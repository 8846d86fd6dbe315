"""What holds between the parts of a streams file that are sound each: what would fail at the broker, or stay silent."""

from __future__ import annotations

from collections.abc import Mapping

from regstream import errors, model
from regstream.config import sheet as sheets

_USUAL = "development"
"""The environment of those who name none."""


def check(sheet: sheets.Sheet, head: model.StreamsFile, streams: Mapping[str, model.StreamSpec], env: str) -> None:
    """Reports all of it."""
    _check_profile(sheet, head, env)
    _check_curves(sheet, head)
    _check_topics(sheet, streams)


def _check_profile(sheet: sheets.Sheet, head: model.StreamsFile, env: str) -> None:
    if not head.profiles or env in head.profiles or env == _USUAL or not sheet.whole(("profiles",)):
        return
    hint = errors.did_you_mean(env, head.profiles) or f"there are {', '.join(head.profiles)}"
    message = f"profiles: none has the name '{env}' that REGSTREAM_ENV gives, so that all is as without a profile"
    sheet.warn(("profiles",), message, hint, key=True)


def _check_curves(sheet: sheets.Sheet, head: model.StreamsFile) -> None:
    for name, curve in head.curves.items():
        for part in ("hour", "weekday", "month"):
            if not any(getattr(curve, part)):
                message = f"{part}: no value is above 0, so that there is never an event"
                sheet.report(("curves", name, part), message, "give one of them a value above 0")


def _check_topics(sheet: sheets.Sheet, streams: Mapping[str, model.StreamSpec]) -> None:
    # Kafka names the metrics of topics by these, and refuses to create the second one
    taken = {model.ALERT_TOPIC.replace(".", "_"): (model.ALERT_TOPIC, model.ALERTS)}
    for name, spec in streams.items():
        topic, other = taken.setdefault(spec.topic.replace(".", "_"), (spec.topic, name))
        if topic != spec.topic:
            message = f"topic: '{spec.topic}' and '{topic}' of {other} differ in '.' and '_' only"
            sheet.report(("streams", name, "topic"), message, "Kafka takes them for the same, choose another name")
