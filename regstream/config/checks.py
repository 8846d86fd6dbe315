"""Jinja texts checked where they stand, and the memory of what has been checked already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from regstream import spec
from regstream.config import document, yaml
from regstream.functions import csv, registry
from regstream.generator import check
from regstream.generator import trial as trials


class Templates:
    """The files under ``templates/``, by name."""

    def __init__(self, found: Iterable[document.Document]) -> None:
        self.sheets = {sheet.name: sheet for sheet in found}
        # A table goes on to those who draw from it as it was read here
        self.texts = {
            name: csv.Csv(sheet.text) if csv.is_table(name) else sheet.text for name, sheet in self.sheets.items()
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

    def sound(self, spec: spec.StreamSpec | spec.EntitySpec | None = None) -> bool:
        """Whether there is no fault in the files that a declaration is made with, or in any file."""
        names = self.sheets if spec is None else [name for name, _ in spec.files]
        return not any(self.sheets[name].count for name in names)

    def files(self, declaration: spec.StreamSpec | spec.EntitySpec) -> tuple[tuple[str, str], ...]:
        """Name and hash of every file that a stream or an entity is made with, by name."""
        if not self.texts:
            return ()
        template = declaration.template if isinstance(declaration, spec.StreamSpec) else None
        own = [] if template is None else [template]
        texts = [
            text for text in _texts(declaration.model_dump()) if any(mark in text for mark in ("{%", *registry.TABLES))
        ]
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

    known: dict[str, spec.EntitySpec]
    complete: bool


class CheckScope:
    """What the checks of a stream depend on besides the stream, and what they try it with."""

    def __init__(self, defaults: spec.Defaults, entities: Entities, templates: Templates, trial: trials.Trial) -> None:
        self.defaults, self.entities, self.templates, self.trial = defaults, entities, templates, trial
        self.key = repr((trial.origin, defaults, entities.known, templates.hashes))


class CheckCache:
    """Declarations found sound, by their place: those of the last load are recalled, those of this one kept.

    A declaration is the same when it and ``key``, which stands for all that its checks depend on, are.
    """

    def __init__(self, last: CheckCache | None = None) -> None:
        self._last = last._found if last else {}
        self._found: dict[yaml.Where, tuple[str, str, Any]] = {}

    def closed(self) -> CheckCache:
        """This memory without the one before."""
        self._last = {}
        return self

    def recall(self, where: yaml.Where, raw: Any, key: str) -> Any:
        """The spec of a declaration that is that of the last load, or None."""
        known, text, spec = self._last.get(where, ("", "", None))
        if spec is None or known != key or text != repr(raw):
            return None
        self._found[where] = key, text, spec
        return spec

    def keep(self, where: yaml.Where, raw: Any, key: str, spec: spec.Spec) -> None:
        """Remembers that a declaration is sound."""
        self._found[where] = key, repr(raw), spec


def stream(
    sheet: document.Document, where: yaml.Where, spec: spec.StreamSpec, scope: CheckScope, *, tried: bool = True
) -> None:
    """Reports every fault in the templates of a stream and, if it is ``tried``, of its first events.

    Nothing when an entity is unknown that it may refer to.
    """
    if not scope.entities.complete:
        return
    scope.trial.catch_up()
    trial = scope.trial if tried else None
    for fault in check.check_stream(spec, scope.trial.entities, scope.templates.texts, trial):
        if fault.path[0] == "templates":
            scope.templates.report(fault.path[-1], fault)
        else:
            _report(sheet, where, fault)


def overlay(
    sheet: document.Document, where: yaml.Where, spec: spec.StreamSpec, fields: Mapping[str, Any], scope: CheckScope
) -> None:
    """Reports every fault in fields that stand in for some of those of a sound stream, and what they make fail."""
    if scope.entities.complete:
        scope.trial.catch_up()
        if not scope.templates.sound():
            return
        for fault in check.check_overlay(spec, fields, scope.trial):
            _report(sheet, where, fault)


def entity(
    sheet: document.Document,
    where: yaml.Where,
    spec: spec.EntitySpec,
    before: Entities,
    files: Templates,
    trial: trials.Trial | None,
) -> None:
    """Reports every fault in the templates of an entity, which may refer to those declared before it, and with a
    ``trial`` of its rows.
    """
    if before.complete:
        if trial is not None:
            trial.catch_up()
        for fault in check.check_entity(spec, files.texts, before.known, trial):
            _report(sheet, where, fault)


def text(sheet: document.Document, where: yaml.Where, value: str, scope: CheckScope) -> None:
    """Reports every fault in the text of a scenario's alert."""
    trial = scope.trial if scope.templates.sound() else None
    for fault in check.check_text(value, scope.templates.texts, trial):
        sheet.report_text(where, fault.line, *_worded(fault), fault.severity)


def _report(sheet: document.Document, where: yaml.Where, fault: check.Fault) -> None:
    sheet.report_text((*where, *fault.path), fault.line, *_worded(fault), fault.severity)


def _worded(fault: check.Fault) -> tuple[str, str]:
    """Message and hint in our style: what Jinja adds in further sentences becomes the hint."""
    message, _, rest = fault.message.partition(". ")
    if message[:1].isupper() and not message[1:2].isupper():
        message = message[:1].lower() + message[1:]
    return message, fault.hint or rest
