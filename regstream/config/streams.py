"""``streams.yaml`` → entities and streams, each validated by itself, and what must hold between their keys."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from typing import Any

from regstream import errors, spec
from regstream.config import checks, document, locate, messages, recover, validate, yaml
from regstream.generator import trial as trials
from regstream.schedule import cron

_FORM = "write minute hour day month weekday, as in '*/5 8-18 * * MON-FRI'"


def problem(expression: str) -> tuple[str, str] | None:
    """Message and hint for a bad expression, None for a good one."""
    try:
        table = cron.parse(expression)
    except errors.BadValue as error:
        whole = error.field == "schedule"
        return (error.reason, _FORM) if whole else (str(error), "")
    if table.possible:
        return None
    return "no month of this schedule has such a day", "write another day or month: it would never fire"


def zone_problem(name: str) -> tuple[str, str] | None:
    """Message and hint for a name that is no time zone, None for one that is."""
    try:
        cron.zone(name)
    except errors.BadValue:
        if missing := cron.zone_data_missing():
            return missing, ""
        return f"unknown time zone '{name}'", cron.zone_hint(name)
    return None


_USUAL = "development"
"""The environment of those who name none."""


def check(sheet: document.Document, head: spec.StreamsFile, streams: Mapping[str, spec.StreamSpec], env: str) -> None:
    """Reports all of it."""
    _check_profile(sheet, head, env)
    _check_curves(sheet, head)
    _check_topics(sheet, streams)


def _check_profile(sheet: document.Document, head: spec.StreamsFile, env: str) -> None:
    if not head.profiles or env in head.profiles or env == _USUAL or not sheet.whole(("profiles",)):
        return
    hint = errors.did_you_mean(env, head.profiles) or f"there are {', '.join(head.profiles)}"
    message = f"profiles: none has the name '{env}' that REGSTREAM_ENV gives, so that all is as without a profile"
    sheet.warn(("profiles",), message, hint, key=True)


def _check_curves(sheet: document.Document, head: spec.StreamsFile) -> None:
    for name, curve in head.curves.items():
        for part in ("hour", "weekday", "month"):
            if not any(getattr(curve, part)):
                message = f"{part}: no value is above 0, so that there is never an event"
                sheet.report(("curves", name, part), message, "give one of them a value above 0")


def _check_topics(sheet: document.Document, streams: Mapping[str, spec.StreamSpec]) -> None:
    # Kafka names the metrics of topics by these, and refuses to create the second one
    taken = {spec.ALERT_TOPIC.replace(".", "_"): (spec.ALERT_TOPIC, spec.ALERTS)}
    for name, declaration in streams.items():
        topic, other = taken.setdefault(declaration.topic.replace(".", "_"), (declaration.topic, name))
        if topic != declaration.topic:
            message = f"topic: '{declaration.topic}' and '{topic}' of {other} differ in '.' and '_' only"
            sheet.report(("streams", name, "topic"), message, "Kafka takes them for the same, choose another name")


CONTROL_FRAMES = ("welcome", "subscribed", "unsubscribed", "error", "pong", "lagging", "streaming-update")
CHANNELS = (spec.ALL_CHANNEL, spec.SYSTEM_CHANNEL, spec.ALERT_TYPE)
_INHERITED = tuple(spec.Defaults.model_fields)
_STAND_IN = {"streams": {"X": {"name": "X"}}}


@dataclasses.dataclass
class StreamsDocument:
    """What a streams file declares. ``names`` holds every stream it names, None when that is unknown; ``streams`` those
    that could be read, and ``faulty`` the names of those in which there is a fault all the same.
    """

    head: spec.StreamsFile
    scope: checks.CheckScope
    streams: dict[str, spec.StreamSpec]
    names: frozenset[str] | None
    faulty: frozenset[str] = frozenset()


def read(
    sheet: document.Document, templates: checks.Templates, memory: checks.CheckCache, env: str, now: float
) -> StreamsDocument:
    """Everything that the sheet declares, as far as it is sound; what is not is reported there.

    Rows and first events are tried as they would be at the time ``now`` in the environment ``env``.
    """
    data = None if sheet.root is None else sheet.root.data
    if not isinstance(data, dict):
        if sheet.root is not None:
            validate.report_no_mapping(sheet, data)
        head = spec.StreamsFile.model_validate(_STAND_IN)
        nothing = checks.Entities({}, complete=False)
        trial = _trial(head, templates, env, now, 0)
        return StreamsDocument(head, checks.CheckScope(head.defaults, nothing, templates, trial), {}, None)
    head = _head(sheet, data)
    section = _section(sheet, "streams")
    trial = _trial(head, templates, env, now, len(section or ()))
    entities = _entities(sheet, templates, memory, trial)
    scope = checks.CheckScope(head.defaults, entities, templates, trial)
    stream_specs: dict[str, spec.StreamSpec | None] = {}
    faulty = set()
    for name in section or ():
        before = sheet.count
        stream_specs[name] = _stream(sheet, name, scope, memory)
        if sheet.count > before:
            faulty.add(name)
    sound = {name: _shaped(sheet, name, spec, head.curves) for name, spec in stream_specs.items() if spec is not None}
    if None not in stream_specs.values():
        _check_channels(sheet, sound)
    for name, declaration in sound.items():
        _check_follow(sheet, name, entities.known.get(declaration.follow or ""))
    check(sheet, head, sound, env)
    return StreamsDocument(head, scope, sound, None if section is None else frozenset(section), frozenset(faulty))


def _trial(head: spec.StreamsFile, templates: checks.Templates, env: str, now: float, count: int) -> trials.Trial:
    speed = head.profiles.get(env, spec.Profile()).speed
    return trials.Trial(templates.texts, head.seed or 0, now, time.thread_time, speed, count)


def _head(sheet: document.Document, data: Mapping[str, Any]) -> spec.StreamsFile:
    head = {key: value for key, value in data.items() if key not in ("entities", "streams")} | _STAND_IN
    value, findings = validate.check(sheet, (), spec.StreamsFile, head)
    if value is None:
        bad = {finding.where[0] for finding in findings}
        value = recover.quietly(spec.StreamsFile, {key: one for key, one in head.items() if key not in bad})
    sound: spec.StreamsFile = value or spec.StreamsFile.model_validate(_STAND_IN)
    _check_zone(sheet, ("defaults", "timezone"))
    return sound


def _section(sheet: document.Document, key: str) -> dict[str, Any] | None:
    node = sheet.node((key,))
    if node is None:
        if key == "streams":
            sheet.report((key,), "key 'streams' is missing")
        return None
    if not isinstance(node.data, dict):
        sheet.report((key,), f"{key}: {messages.wanted('a mapping', node.data)}")
        return None
    if not node.data and key == "streams":
        sheet.report((key,), f"{key}: must not be empty")
    return node.data


def _entities(
    sheet: document.Document, templates: checks.Templates, memory: checks.CheckCache, trial: trials.Trial
) -> checks.Entities:
    found = checks.Entities({}, complete=True)
    # What stands before an entity is part of what its checks depend on, and so on
    key = repr((trial.origin, templates.hashes))
    for name in _section(sheet, "entities") or {}:
        where = ("entities", name)
        raw, before = sheet.value(where), sheet.remarks
        known = memory.recall(where, raw, key)
        if known is not None:
            trial.later(known)
            found.known[name] = known
        else:
            found = _entity(sheet, where, found, templates, trial)
            if sheet.remarks == before and name in found.known:
                memory.keep(where, raw, key, found.known[name])
        key = hashlib.sha256(f"{key} {name} {raw!r}".encode()).hexdigest()
    return found


def _entity(
    sheet: document.Document,
    where: yaml.Where,
    before: checks.Entities,
    templates: checks.Templates,
    trial: trials.Trial,
) -> checks.Entities:
    """The entities before it, and the one that is declared at ``where``."""
    count = sheet.count
    value = _member(sheet, where, spec.EntitySpec)
    _check_entity_key(sheet, where)
    if value is None:
        return before._replace(complete=False)
    value = value.model_copy(update={"files": templates.files(value)})
    _check_states(sheet, where, value)
    tried = sheet.count == count and templates.sound(value)
    checks.entity(sheet, where, value, before, templates, trial if tried else None)
    trial.entities.setdefault(value.name, value)
    before.known[str(where[-1])] = value
    # Wrong and left out, so that nothing is known of who follows them
    lacking = sheet.value((*where, "states")) and not value.states
    return before._replace(complete=False) if lacking else before


def _member(sheet: document.Document, where: yaml.Where, spec: locate.Spec) -> Any:
    """The spec declared at ``where``, mended where it is wrong; None when it cannot be."""
    raw = sheet.value(where)
    if not isinstance(raw, dict):
        sheet.report(where, f"{where[-1]}: {messages.wanted('a mapping', raw)}")
        return None
    for key in locate.INTERNAL & raw.keys():
        sheet.report((*where, key), *messages.unknown_key(spec, key), key=True)
    data = {key: value for key, value in raw.items() if key not in locate.INTERNAL} | {"name": where[-1]}
    derived = frozenset({"topic", "event"} - raw.keys())
    value, findings = validate.check(sheet, where, spec, data, derived)
    if value is None:
        return recover.mended(spec, data, findings, derived)
    return value


def _check_entity_key(sheet: document.Document, where: yaml.Where) -> None:
    key, fields = sheet.value((*where, "key")), sheet.value((*where, "fields"))
    if isinstance(key, str) and isinstance(fields, dict) and fields and key not in fields:
        sheet.report((*where, "key"), f"key: '{key}' is not one of the fields", errors.did_you_mean(key, fields))


def _check_states(sheet: document.Document, where: yaml.Where, declaration: spec.EntitySpec) -> None:
    found = spec.problem_of_states(declaration.states)
    if found:
        sheet.report((*where, "states", *found[0]), found[1])
    for name in {"state", "since"} & declaration.fields.keys() if declaration.states else ():
        sheet.report(
            (*where, "fields", name), f"fields: {name!r} is what the states say", "choose another name", key=True
        )


def _check_channels(sheet: document.Document, known: Mapping[str, spec.StreamSpec]) -> None:
    """Each key of ``channels`` has to be one that events come by; that is known only when every stream is sound."""
    section = sheet.value(("channels",))
    events = dict.fromkeys(spec.event for spec in known.values())
    names = (spec.ALL_CHANNEL, spec.ALERT_TYPE, spec.ALERTS, *known, *events)
    for name in section if isinstance(section, dict) else ():
        if name not in names:
            hint = errors.did_you_mean(str(name), names) or "write dashboard-updates, a stream's name or an event's"
            sheet.report(("channels", name), f"unknown channel '{name}'", hint, key=True)


def _stream(
    sheet: document.Document, name: str, scope: checks.CheckScope, memory: checks.CheckCache
) -> spec.StreamSpec | None:
    where = ("streams", name)
    raw = sheet.value(where)
    known: spec.StreamSpec | None = memory.recall(where, raw, scope.key)
    if known is not None:
        return known
    count, before = sheet.count, sheet.remarks
    declaration = _member(sheet, where, spec.StreamSpec)
    if isinstance(raw, dict):
        _check_keys(sheet, where, raw)
        _check_names(sheet, where, raw)
    if declaration is None:
        return None
    declaration = declaration.model_copy(
        update=_inherited(declaration, scope.defaults) | {"files": scope.templates.files(declaration)}
    )
    checks.stream(sheet, where, declaration, scope, tried=sheet.count == count and scope.templates.sound(declaration))
    # What has warnings is read again each time, so that they are given each time
    if sheet.remarks == before:
        memory.keep(where, raw, scope.key, declaration)
    checked: spec.StreamSpec = declaration
    return checked


def _shaped(
    sheet: document.Document, name: str, declaration: spec.StreamSpec, own: Mapping[str, spec.CurveSpec]
) -> spec.StreamSpec:
    """With the curve that its rate names, which this file may declare; memory knows of no other part of the file."""
    rate = declaration.rate
    if rate is None:
        return declaration
    section = sheet.value(("curves",))
    names = [*(section if isinstance(section, dict) else ()), *spec.CURVES]
    if rate.curve not in names:
        hint = errors.did_you_mean(rate.curve, names) or f"there are {', '.join(names)}"
        sheet.report(("streams", name, "rate", "curve"), f"curve: there is no {rate.curve!r}", hint)
    try:
        cron.holidays_of(rate.calendar)
    except errors.BadValue as error:
        sheet.report(("streams", name, "rate", "calendar"), str(error))
    # One that is wrong is reported where it is declared
    shape = own.get(rate.curve) or spec.CURVES.get(rate.curve) or spec.CURVES["flat"]
    return declaration.model_copy(update={"rate": rate.model_copy(update={"shape": shape})})


def _check_follow(sheet: document.Document, name: str, entity: spec.EntitySpec | None) -> None:
    first = next(iter(entity.states.values()), None) if entity is not None else None
    # One that something follows and that has no time is a problem of the entity
    if entity is not None and first is not None and first.lasts is None and not first.then:
        message = f"follow: rows of {entity.name!r} never leave their first state, so that there is never an event"
        sheet.report(("streams", name, "follow"), message, "say how long it lasts, and what follows it")


def _inherited(spec: spec.StreamSpec, defaults: spec.Defaults) -> dict[str, Any]:
    return {key: getattr(defaults, key) for key in _INHERITED if key not in spec.model_fields_set}


def _check_keys(sheet: document.Document, where: yaml.Where, raw: Mapping[str, Any]) -> None:
    for ways in (("interval", "schedule", "rate"), ("fields", "template")):
        given = [way for way in ways if raw.get(way) is not None]
        if len(given) > 1:
            sheet.report((*where, given[1]), f"{given[0]} and {given[1]} are both given", "leave one out", key=True)
        elif not any(key in raw or locate.misspelt(spec.StreamSpec, key, raw) for key in ways):
            *first, last = ways
            sheet.report(where, f"neither {', '.join(first)} nor {last} is given", key=True)
    for other in ("rate", "batch_size", "batchSize") if raw.get("follow") is not None else ():
        if raw.get(other) is not None:
            message = f"follow and {other} are both given: what there is to tell says how many events there are"
            sheet.report((*where, other), message, "leave it out; interval says how often to look", key=True)
    schedule = raw.get("schedule")
    found = problem(schedule) if isinstance(schedule, str) else None
    if found:
        sheet.report((*where, "schedule"), f"schedule: {found[0]}", found[1])
    _check_zone(sheet, (*where, "timezone"))


def _check_zone(sheet: document.Document, where: yaml.Where) -> None:
    zone = sheet.value(where)
    found = zone_problem(zone) if isinstance(zone, str) else None
    if found:
        sheet.report(where, f"timezone: {found[0]}", found[1])


def _check_names(sheet: document.Document, where: yaml.Where, raw: Mapping[str, Any]) -> None:
    if where[-1] == spec.ALERTS:
        sheet.report(where, f"name '{spec.ALERTS}' is taken by the built-in stream", "choose another name", key=True)
    if where[-1] in CHANNELS:
        sheet.report(where, f"name '{where[-1]}' is taken by a built-in channel", "choose another name", key=True)
    event = raw.get("event")
    if event in (*CHANNELS, *CONTROL_FRAMES):
        kind = "channel" if event in CHANNELS else "message"
        sheet.report((*where, "event"), f"event: '{event}' is taken by a built-in {kind}", "choose another name")
