"""``scenarios/*.yaml`` → scenarios, each of one file, whose steps name streams that exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from regstream import errors, spec
from regstream.config import checks, document, validate, yaml
from regstream.config import streams as streams_file

_EFFECTS = ("interval", "batch_size", "batchSize", "priority", "fields")


class _Step(NamedTuple):
    where: yaml.Where
    kind: str
    body: Any


def read(sheet: document.Document, declared: streams_file.StreamsDocument) -> spec.ScenarioSpec | None:
    """The scenario of a sheet, None when it is not sound; everything wrong with it is reported there."""
    if sheet.root is None:
        return None
    data = sheet.root.data
    if not isinstance(data, dict):
        validate.report_no_mapping(sheet, data)
        return None
    value: spec.ScenarioSpec | None
    value, _ = validate.check(sheet, (), spec.ScenarioSpec, data)
    _check_keeps(sheet, data.get("keeps"), declared.scope.entities)
    steps = list(_steps(data.get("steps"), ("steps",)))
    _check_silent(sheet, steps, declared)
    for step in steps:
        _check_stream_name(sheet, step, declared.names)
        _check_effect(sheet, step)
        _check_texts(sheet, step, declared)
    return value


def _check_keeps(sheet: document.Document, keeps: Any, entities: checks.Entities) -> None:
    for index, one in enumerate(keeps if isinstance(keeps, list) else ()):
        name, _, field = one.partition(".") if isinstance(one, str) else ("", "", "")
        entity = entities.known.get(name)
        if not (name.isidentifier() and field.isidentifier()) or (entity is None and not entities.complete):
            continue
        if entity is None:
            sheet.report(("keeps", index), f"unknown entity '{name}'", errors.did_you_mean(name, entities.known))
        elif field not in entity.fields:
            hint = errors.did_you_mean(field, entity.fields)
            sheet.report(("keeps", index), f"entity '{name}' has no field '{field}'", hint)


def _steps(data: Any, where: yaml.Where) -> Iterator[_Step]:
    """Every step with a known kind, whatever else is wrong with the file."""
    for index, one in enumerate(data if isinstance(data, list) else ()):
        for kind, body in one.items() if isinstance(one, dict) else ():
            yield _Step((*where, index, kind), kind, body)
            if kind == "parallel" and isinstance(body, list):
                for number, branch in enumerate(body):
                    yield from _steps(branch, (*where, index, kind, number))
            elif kind == "repeat" and isinstance(body, dict):
                yield from _steps(body.get("steps"), (*where, index, kind, "steps"))


def _stream_of(step: _Step) -> tuple[yaml.Where, Any]:
    if step.kind in ("pause", "resume"):
        return step.where, step.body
    if step.kind in ("burst", "set") and isinstance(step.body, dict):
        return (*step.where, "stream"), step.body.get("stream")
    return step.where, None


def _check_stream_name(sheet: document.Document, step: _Step, names: frozenset[str] | None) -> None:
    where, name = _stream_of(step)
    if not isinstance(name, str) or names is None or name in names:
        return
    if name == spec.ALERTS:
        sheet.report(where, f"stream '{name}' is built in, steps cannot change it", "use an alert step")
    else:
        sheet.report(where, f"unknown stream '{name}'", errors.did_you_mean(name, names))


def _check_silent(sheet: document.Document, steps: list[_Step], declared: streams_file.StreamsDocument) -> None:
    """What is laid over a stream that makes nothing shows nowhere."""
    resumed = {step.body for step in steps if step.kind == "resume" and isinstance(step.body, str)}
    for step in steps:
        where, name = _stream_of(step)
        spec = declared.streams.get(name) if isinstance(name, str) else None
        if step.kind == "set" and spec is not None and not spec.enabled and name not in resumed:
            message = f"stream '{name}' has enabled: false, so that it makes nothing while this is in force"
            sheet.warn(where, message, "start it first, or make events with a burst")


def _check_effect(sheet: document.Document, step: _Step) -> None:
    if step.kind == "set" and isinstance(step.body, dict) and not any(key in step.body for key in _EFFECTS):
        sheet.report(step.where, "set: it changes nothing", "give interval, batch_size, priority or fields", key=True)


def _check_texts(sheet: document.Document, step: _Step, declared: streams_file.StreamsDocument) -> None:
    body = step.body if isinstance(step.body, dict) else {}
    message, fields, name = body.get("message"), body.get("fields"), body.get("stream")
    if step.kind == "alert" and isinstance(message, str):
        checks.text(sheet, (*step.where, "message"), message, declared.scope)
    elif step.kind in ("burst", "set") and isinstance(fields, dict) and isinstance(name, str):
        spec = declared.streams.get(name)
        if spec is not None and _check_fields(sheet, step, spec, fields) and name not in declared.faulty:
            checks.overlay(sheet, step.where, spec, fields, declared.scope)


def _check_fields(sheet: document.Document, step: _Step, spec: spec.StreamSpec, fields: Mapping[str, Any]) -> bool:
    """Whether the stream has all fields that a step lays over it, as far as that is known."""
    unknown = [name for name in fields if name not in spec.fields] if spec.template is None and spec.fields else []
    for name in unknown:
        hint = errors.did_you_mean(str(name), spec.fields or ()) or f"there are {', '.join(spec.fields or ())}"
        sheet.report((*step.where, "fields", name), f"stream '{spec.name}' has no field '{name}'", hint, key=True)
    return not unknown
