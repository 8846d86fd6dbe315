"""Jinja texts checked where they stand, and the memory of what has been checked already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from regstream import model
from regstream.config import sheet as sheets
from regstream.config import yaml
from regstream.generate import check, tables, vocabulary


class Templates:
    """The files under ``templates/``, by name."""

    def __init__(self, found: Iterable[sheets.Sheet]) -> None:
        self.sheets = {sheet.name: sheet for sheet in found}
        # A table goes on to those who draw from it as it was read here
        self.texts = {
            name: tables.Csv(sheet.text) if tables.is_table(name) else sheet.text for name, sheet in self.sheets.items()
        }
        self.hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in self.texts.items()}
        self._report(check.check_templates(self.texts))

    def _report(self, faults: Iterable[check.Fault]) -> None:
        for fault in faults:
            self.report(fault.path[-1], fault)

    def report(self, name: str, fault: check.Fault) -> None:
        """A fault of the file of that name, unless the file could not be read at all."""
        sheet = self.sheets.get(name)
        if sheet is not None and (sheet.text or not sheet.count):
            sheet.report_line(fault.line, *_worded(fault))

    def files(self, spec: model.StreamSpec | model.EntitySpec) -> tuple[tuple[str, str], ...]:
        """Name and hash of every file that a stream or an entity is made with, by name."""
        if not self.texts:
            return ()
        template = spec.template if isinstance(spec, model.StreamSpec) else None
        own = [] if template is None else [template]
        texts = [text for text in _texts(spec.model_dump()) if any(mark in text for mark in ("{%", *vocabulary.TABLES))]
        texts += [self.texts[name] for name in own if name in self.texts]
        names = check.references(texts, self.texts).union(own)
        return tuple((name, self.hashes[name]) for name in sorted(names) if name in self.hashes)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


class Entities(NamedTuple):
    """The entities that could be read; ``complete`` is false when there are others that could not."""

    known: dict[str, model.EntitySpec]
    complete: bool


class Scope:
    """What the checks of a stream depend on besides the stream."""

    def __init__(self, defaults: model.Defaults, entities: Entities, templates: Templates) -> None:
        self.defaults, self.entities, self.templates = defaults, entities, templates
        self.key = repr((defaults, entities.known, templates.hashes))


class Memory:
    """Streams found sound, by name: those of the last load are recalled, those of this one kept."""

    def __init__(self, last: Memory | None = None) -> None:
        self._last = last._found if last else {}
        self._found: dict[str, tuple[str, str, model.StreamSpec]] = {}

    def closed(self) -> Memory:
        """This memory without the one before."""
        self._last = {}
        return self

    def recall(self, name: str, raw: Any, scope: Scope) -> model.StreamSpec | None:
        """The spec of a stream whose declaration and surroundings are those of the last load."""
        scope_key, text, spec = self._last.get(name, ("", "", None))
        if spec is None or scope_key != scope.key or text != repr(raw):
            return None
        self._found[name] = scope.key, text, spec
        return spec

    def keep(self, name: str, raw: Any, scope: Scope, spec: model.StreamSpec) -> None:
        """Remembers that a stream is sound."""
        self._found[name] = scope.key, repr(raw), spec


def stream(sheet: sheets.Sheet, where: yaml.Where, spec: model.StreamSpec, scope: Scope) -> None:
    """Reports every fault in the templates of a stream; nothing when an entity is unknown that it may refer to."""
    if not scope.entities.complete:
        return
    for fault in check.check_stream(spec, scope.entities.known, scope.templates.texts):
        if fault.path[0] == "templates":
            scope.templates.report(fault.path[-1], fault)
        else:
            _report(sheet, where, fault)


def overlay(
    sheet: sheets.Sheet, where: yaml.Where, spec: model.StreamSpec, fields: Mapping[str, Any], scope: Scope
) -> None:
    """Reports every fault in templates that stand in for some of a stream's."""
    if scope.entities.complete:
        changed = spec.model_copy(update={"fields": _up_to(fields, spec.fields), **_NOTHING_ELSE})
        for fault in check.check_stream(changed, scope.entities.known, scope.templates.texts):
            if fault.path[0] == "fields" and fault.path[1:2] and fault.path[1] in fields:
                _report(sheet, where, fault)


_NOTHING_ELSE: dict[str, Any] = {"key": None, "update": {}, "alert": None}


def _up_to(fields: Mapping[str, Any], declared: Mapping[str, Any] | None) -> dict[str, Any]:
    # What stands behind the last of them cannot be named by any, and is checked with the stream
    merged = {**(declared or {}), **fields}
    last = max((number for number, name in enumerate(merged) if name in fields), default=-1)
    return dict(list(merged.items())[: last + 1])


def entity(sheet: sheets.Sheet, where: yaml.Where, spec: model.EntitySpec, before: Entities, files: Templates) -> None:
    """Reports every fault in the templates of an entity, which may refer to those declared before it."""
    if before.complete:
        for fault in check.check_entity(spec, files.texts, before.known):
            _report(sheet, where, fault)


def text(sheet: sheets.Sheet, where: yaml.Where, value: str, files: Templates) -> None:
    """Reports every fault in the text of a scenario's alert."""
    for fault in check.check_text(value, files.texts):
        sheet.report_text(where, fault.line, *_worded(fault))


def _report(sheet: sheets.Sheet, where: yaml.Where, fault: check.Fault) -> None:
    sheet.report_text((*where, *fault.path), fault.line, *_worded(fault))


def _worded(fault: check.Fault) -> tuple[str, str]:
    """Message and hint in our style: what Jinja adds in further sentences becomes the hint."""
    message, _, rest = fault.message.partition(". ")
    if message[:1].isupper() and not message[1:2].isupper():
        message = message[:1].lower() + message[1:]
    return message, fault.hint or rest
