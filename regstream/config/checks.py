"""Jinja texts checked where they stand, and the memory of what has been checked already."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from regstream import model
from regstream.config import sheet as sheets
from regstream.config import yaml


class Templates:
    """The files under ``templates/``: their texts by name."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts
        self.hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}

    def files(self, spec: model.StreamSpec) -> tuple[tuple[str, str], ...]:
        """Name and hash of every file that the texts of a stream refer to, by name."""
        return ()


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


def files(sheet_list: list[sheets.Sheet], templates: Templates) -> None:
    """Reports every fault of the template files themselves."""


def stream(sheet: sheets.Sheet, where: yaml.Where, spec: model.StreamSpec, scope: Scope) -> None:
    """Reports every fault in the templates of a stream."""


def entity(sheet: sheets.Sheet, where: yaml.Where, spec: model.EntitySpec, templates: Templates) -> None:
    """Reports every fault in the templates of an entity."""
