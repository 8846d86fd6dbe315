"""``streams.yaml`` → entities and streams, each validated by itself, and what must hold between their keys."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from typing import Any

from regstream import calendars, errors, model
from regstream.config import checks, cron, place, remarks, repair, sentences, validate, yaml
from regstream.config import sheet as sheets
from regstream.generate import trial as trials

CONTROL_FRAMES = ("welcome", "subscribed", "unsubscribed", "error", "pong", "lagging", "streaming-update")
CHANNELS = (model.ALL_CHANNEL, model.SYSTEM_CHANNEL, model.ALERT_TYPE)
_INHERITED = tuple(model.Defaults.model_fields)
_STAND_IN = {"streams": {"X": {"name": "X"}}}


@dataclasses.dataclass
class Streams:
    """What a streams file declares. ``names`` holds every stream it names, None when that is unknown; ``streams`` those
    that could be read, and ``faulty`` the names of those in which there is a fault all the same.
    """

    head: model.StreamsFile
    scope: checks.Scope
    streams: dict[str, model.StreamSpec]
    names: frozenset[str] | None
    faulty: frozenset[str] = frozenset()


def read(sheet: sheets.Sheet, templates: checks.Templates, memory: checks.Memory, env: str, now: float) -> Streams:
    """Everything that the sheet declares, as far as it is sound; what is not is reported there.

    Rows and first events are tried as they would be at the time ``now`` in the environment ``env``.
    """
    data = None if sheet.root is None else sheet.root.data
    if not isinstance(data, dict):
        if sheet.root is not None:
            validate.report_no_mapping(sheet, data)
        head = model.StreamsFile.model_validate(_STAND_IN)
        nothing = checks.Entities({}, complete=False)
        trial = _trial(head, templates, env, now, 0)
        return Streams(head, checks.Scope(head.defaults, nothing, templates, trial), {}, None)
    head = _head(sheet, data)
    section = _section(sheet, "streams")
    trial = _trial(head, templates, env, now, len(section or ()))
    entities = _entities(sheet, templates, memory, trial)
    scope = checks.Scope(head.defaults, entities, templates, trial)
    streams: dict[str, model.StreamSpec | None] = {}
    faulty = set()
    for name in section or ():
        before = sheet.count
        streams[name] = _stream(sheet, name, scope, memory)
        if sheet.count > before:
            faulty.add(name)
    sound = {name: _shaped(sheet, name, spec, head.curves) for name, spec in streams.items() if spec is not None}
    if None not in streams.values():
        _check_channels(sheet, sound)
    for name, spec in sound.items():
        _check_follow(sheet, name, entities.known.get(spec.follow or ""))
    remarks.check(sheet, head, sound, env)
    return Streams(head, scope, sound, None if section is None else frozenset(section), frozenset(faulty))


def _trial(head: model.StreamsFile, templates: checks.Templates, env: str, now: float, count: int) -> trials.Trial:
    speed = head.profiles.get(env, model.Profile()).speed
    return trials.Trial(templates.texts, head.seed or 0, now, time.thread_time, speed, count)


def _head(sheet: sheets.Sheet, data: Mapping[str, Any]) -> model.StreamsFile:
    head = {key: value for key, value in data.items() if key not in ("entities", "streams")} | _STAND_IN
    value, findings = validate.check(sheet, (), model.StreamsFile, head)
    if value is None:
        bad = {finding.where[0] for finding in findings}
        value = repair.quietly(model.StreamsFile, {key: one for key, one in head.items() if key not in bad})
    sound: model.StreamsFile = value or model.StreamsFile.model_validate(_STAND_IN)
    _check_zone(sheet, ("defaults", "timezone"))
    return sound


def _section(sheet: sheets.Sheet, key: str) -> dict[str, Any] | None:
    node = sheet.node((key,))
    if node is None:
        if key == "streams":
            sheet.report((key,), "key 'streams' is missing")
        return None
    if not isinstance(node.data, dict):
        sheet.report((key,), f"{key}: {sentences.wanted('a mapping', node.data)}")
        return None
    if not node.data and key == "streams":
        sheet.report((key,), f"{key}: must not be empty")
    return node.data


def _entities(
    sheet: sheets.Sheet, templates: checks.Templates, memory: checks.Memory, trial: trials.Trial
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
    sheet: sheets.Sheet, where: yaml.Where, before: checks.Entities, templates: checks.Templates, trial: trials.Trial
) -> checks.Entities:
    """The entities before it, and the one that is declared at ``where``."""
    count = sheet.count
    value = _member(sheet, where, model.EntitySpec)
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


def _member(sheet: sheets.Sheet, where: yaml.Where, spec: place.Spec) -> Any:
    """The spec declared at ``where``, mended where it is wrong; None when it cannot be."""
    raw = sheet.value(where)
    if not isinstance(raw, dict):
        sheet.report(where, f"{where[-1]}: {sentences.wanted('a mapping', raw)}")
        return None
    for key in place.INTERNAL & raw.keys():
        sheet.report((*where, key), *sentences.unknown_key(spec, key), key=True)
    data = {key: value for key, value in raw.items() if key not in place.INTERNAL} | {"name": where[-1]}
    derived = frozenset({"topic", "event"} - raw.keys())
    value, findings = validate.check(sheet, where, spec, data, derived)
    if value is None:
        return repair.mended(spec, data, findings, derived)
    return value


def _check_entity_key(sheet: sheets.Sheet, where: yaml.Where) -> None:
    key, fields = sheet.value((*where, "key")), sheet.value((*where, "fields"))
    if isinstance(key, str) and isinstance(fields, dict) and fields and key not in fields:
        sheet.report((*where, "key"), f"key: '{key}' is not one of the fields", errors.did_you_mean(key, fields))


def _check_states(sheet: sheets.Sheet, where: yaml.Where, spec: model.EntitySpec) -> None:
    found = model.problem_of_states(spec.states)
    if found:
        sheet.report((*where, "states", *found[0]), found[1])
    for name in {"state", "since"} & spec.fields.keys() if spec.states else ():
        sheet.report(
            (*where, "fields", name), f"fields: {name!r} is what the states say", "choose another name", key=True
        )


def _check_channels(sheet: sheets.Sheet, known: Mapping[str, model.StreamSpec]) -> None:
    """Each key of ``channels`` has to be one that events come by; that is known only when every stream is sound."""
    section = sheet.value(("channels",))
    events = dict.fromkeys(spec.event for spec in known.values())
    names = (model.ALL_CHANNEL, model.ALERT_TYPE, model.ALERTS, *known, *events)
    for name in section if isinstance(section, dict) else ():
        if name not in names:
            hint = errors.did_you_mean(str(name), names) or "write dashboard-updates, a stream's name or an event's"
            sheet.report(("channels", name), f"unknown channel '{name}'", hint, key=True)


def _stream(sheet: sheets.Sheet, name: str, scope: checks.Scope, memory: checks.Memory) -> model.StreamSpec | None:
    where = ("streams", name)
    raw = sheet.value(where)
    known: model.StreamSpec | None = memory.recall(where, raw, scope.key)
    if known is not None:
        return known
    count, before = sheet.count, sheet.remarks
    spec = _member(sheet, where, model.StreamSpec)
    if isinstance(raw, dict):
        _check_keys(sheet, where, raw)
        _check_names(sheet, where, raw)
    if spec is None:
        return None
    spec = spec.model_copy(update=_inherited(spec, scope.defaults) | {"files": scope.templates.files(spec)})
    checks.stream(sheet, where, spec, scope, tried=sheet.count == count and scope.templates.sound(spec))
    # What has warnings is read again each time, so that they are given each time
    if sheet.remarks == before:
        memory.keep(where, raw, scope.key, spec)
    checked: model.StreamSpec = spec
    return checked


def _shaped(
    sheet: sheets.Sheet, name: str, spec: model.StreamSpec, own: Mapping[str, model.CurveSpec]
) -> model.StreamSpec:
    """With the curve that its rate names, which this file may declare; memory knows of no other part of the file."""
    rate = spec.rate
    if rate is None:
        return spec
    section = sheet.value(("curves",))
    names = [*(section if isinstance(section, dict) else ()), *model.CURVES]
    if rate.curve not in names:
        hint = errors.did_you_mean(rate.curve, names) or f"there are {', '.join(names)}"
        sheet.report(("streams", name, "rate", "curve"), f"curve: there is no {rate.curve!r}", hint)
    try:
        calendars.holidays_of(rate.calendar)
    except errors.BadValue as error:
        sheet.report(("streams", name, "rate", "calendar"), str(error))
    # One that is wrong is reported where it is declared
    shape = own.get(rate.curve) or model.CURVES.get(rate.curve) or model.CURVES["flat"]
    return spec.model_copy(update={"rate": rate.model_copy(update={"shape": shape})})


def _check_follow(sheet: sheets.Sheet, name: str, entity: model.EntitySpec | None) -> None:
    first = next(iter(entity.states.values()), None) if entity is not None else None
    # One that something follows and that has no time is a problem of the entity
    if entity is not None and first is not None and first.lasts is None and not first.then:
        message = f"follow: rows of {entity.name!r} never leave their first state, so that there is never an event"
        sheet.report(("streams", name, "follow"), message, "say how long it lasts, and what follows it")


def _inherited(spec: model.StreamSpec, defaults: model.Defaults) -> dict[str, Any]:
    return {key: getattr(defaults, key) for key in _INHERITED if key not in spec.model_fields_set}


def _check_keys(sheet: sheets.Sheet, where: yaml.Where, raw: Mapping[str, Any]) -> None:
    for ways in (("interval", "schedule", "rate"), ("fields", "template")):
        given = [way for way in ways if raw.get(way) is not None]
        if len(given) > 1:
            sheet.report((*where, given[1]), f"{given[0]} and {given[1]} are both given", "leave one out", key=True)
        elif not any(key in raw or place.misspelt(model.StreamSpec, key, raw) for key in ways):
            *first, last = ways
            sheet.report(where, f"neither {', '.join(first)} nor {last} is given", key=True)
    for other in ("rate", "batch_size", "batchSize") if raw.get("follow") is not None else ():
        if raw.get(other) is not None:
            message = f"follow and {other} are both given: what there is to tell says how many events there are"
            sheet.report((*where, other), message, "leave it out; interval says how often to look", key=True)
    schedule = raw.get("schedule")
    found = cron.problem(schedule) if isinstance(schedule, str) else None
    if found:
        sheet.report((*where, "schedule"), f"schedule: {found[0]}", found[1])
    _check_zone(sheet, (*where, "timezone"))


def _check_zone(sheet: sheets.Sheet, where: yaml.Where) -> None:
    zone = sheet.value(where)
    found = cron.zone_problem(zone) if isinstance(zone, str) else None
    if found:
        sheet.report(where, f"timezone: {found[0]}", found[1])


def _check_names(sheet: sheets.Sheet, where: yaml.Where, raw: Mapping[str, Any]) -> None:
    if where[-1] == model.ALERTS:
        sheet.report(where, f"name '{model.ALERTS}' is taken by the built-in stream", "choose another name", key=True)
    if where[-1] in CHANNELS:
        sheet.report(where, f"name '{where[-1]}' is taken by a built-in channel", "choose another name", key=True)
    event = raw.get("event")
    if event in (*CHANNELS, *CONTROL_FRAMES):
        kind = "channel" if event in CHANNELS else "message"
        sheet.report((*where, "event"), f"event: '{event}' is taken by a built-in {kind}", "choose another name")
