"""Declarations read for what they can give: the rows of entities, and the data of streams.

Rows are what they were made as and what events then made of them, which may hang on rows in turn; so the streams are
read again and again until nothing new comes up. What still grows after a few rounds loses its bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from regstream import model
from regstream.generate.shapes import numbers, reading, texts
from regstream.generate.shapes import shape as shapes
from regstream.generate.shapes.shape import ANY, NOTHING, Object, Shape

Rows = dict[str, dict[str, Shape]]
_EXACT_ROUNDS, _LOOSE_ROUNDS = 4, 12


class Declared:
    """The shapes of one catalog; reading them waits for nothing and takes about a millisecond a stream."""

    def __init__(self, catalog: model.Catalog) -> None:
        self._catalog = catalog
        self._overlays = _overlays(catalog)
        self._rows: Rows = {name: dict.fromkeys(spec.names, NOTHING) for name, spec in catalog.entities.items()}
        self._reader = reading.Reader(catalog.templates, {})
        self._settle()

    def data(self, name: str) -> Shape:
        """The shape of a stream's ``data``. Raises KeyError for a name that is none."""
        return self._data(self._catalog.streams[name], self._scope(self._catalog.streams[name]))

    def key(self, name: str) -> Shape:
        """The shape of the keys that a stream's events have, null among them. Raises KeyError."""
        stream = self._catalog.streams[name]
        scope = self._scope(stream)
        self._data(stream, scope)
        made = self._reader.value(stream.key, scope) if stream.key else shapes.constants([None])
        known = Shape(tuple(one for one in made.values if one is not None), made.parts)
        without = shapes.constants([None]) if known != made or made == ANY else NOTHING
        return shapes.join((texts.joined([known]), without))

    def _settle(self) -> None:
        turn, changing = 0, True
        while changing:
            self._reader.rows = {name: shapes.mapping(row, entity=name) for name, row in self._rows.items()}
            grown = [self._grow(entity, field, one, turn) for entity, field, one in self._changes()]
            changing = any(grown)
            turn += 1

    def _grow(self, entity: str, field: str, one: Shape, turn: int) -> bool:
        """Take up what a field can be too; false when that is nothing new."""
        before = self._rows[entity][field]
        after = shapes.join((before, one))
        if repr(after) == repr(before):
            return False
        if turn >= _EXACT_ROUNDS:
            after = ANY if turn >= _LOOSE_ROUNDS else shapes.widened(after)
        self._rows[entity][field] = after
        return True

    def _changes(self) -> Iterable[tuple[str, str, Shape]]:
        for entity in self._catalog.entities.values():
            for field, one in self._made(entity).items():
                yield entity.name, field, one
        for stream in self._catalog.streams.values():
            if stream.update:
                yield from self._updates(stream)

    def _made(self, entity: model.EntitySpec) -> Mapping[str, Shape]:
        # Where rows come and go their numbers go on
        index = shapes.COUNT if entity.states else numbers.shape(0, entity.count - 1, whole=True)
        seq = numbers.shape(1, shapes.INFINITY if entity.states else entity.count, whole=True)
        made = self._reader.mapping(entity.fields, _builtins(entity.name, index, seq))
        return {**made, "state": shapes.constants(entity.states), "since": shapes.TIME} if entity.states else made

    def _updates(self, stream: model.StreamSpec) -> Iterable[tuple[str, str, Shape]]:
        scope = self._scope(stream)
        bound = {name: scope[name] for name in (*stream.with_, *(("row",) if stream.follow else ()))}
        self._data(stream, scope)
        for target, value in stream.update.items():
            name, _, field = target.partition(".")
            made = self._reader.value(value, scope)
            for entity in self._owners(bound[name]):
                if field in self._rows[entity]:
                    yield entity, field, made

    def _owners(self, row: Shape) -> Iterable[str]:
        """The entities that a row may be one of: all of them where it is not known of which it is."""
        known = [part.entity for part in row.parts if isinstance(part, Object) and part.entity]
        return known or self._rows

    def _scope(self, stream: model.StreamSpec) -> dict[str, Shape]:
        scope = _builtins(stream.name, shapes.COUNT, numbers.shape(1, shapes.INFINITY, whole=True))
        followed = self._catalog.entities.get(stream.follow or "")
        if followed is not None:
            scope["row"] = self._reader.rows[followed.name]
            scope["state"] = shapes.constants(followed.states)
            scope["was"] = shapes.constants([None, *followed.states])
        for name, value in stream.with_.items():
            scope[name] = self._reader.value(value, scope)
        return scope

    def _data(self, stream: model.StreamSpec, scope: dict[str, Shape]) -> Shape:
        """The shape of ``data``, whatever overlays are in force; its fields are added to ``scope``."""
        declared = stream.fields or {}
        overlays = self._overlays.get(stream.name, [])
        if stream.template is not None:
            scope["data"] = ANY
        names = dict.fromkeys([*declared, *(name for one in overlays for name in one)])
        fields = {name: self._field(name, declared, overlays, scope) for name in names}
        found = Object(fields, frozenset(declared), is_open=stream.template is not None)
        return Shape(parts=(found,))

    def _field(
        self, name: str, declared: Mapping[str, Any], overlays: list[Mapping[str, Any]], scope: dict[str, Shape]
    ) -> Shape:
        every = [one[name] for one in (declared, *overlays) if name in one]
        made = shapes.join(self._reader.value(one, scope) for one in every)
        # Where no overlay brings it the name stands for what it stood for before
        scope[name] = made if name in declared else shapes.join((made, scope.get(name, NOTHING)))
        return made


def _builtins(stream: str, index: Shape, seq: Shape) -> dict[str, Shape]:
    return {"now": shapes.TIME, "seq": seq, "index": index, "stream": shapes.constants([stream])}


def _overlays(catalog: model.Catalog) -> dict[str, list[Mapping[str, Any]]]:
    """By stream, the fields that a scenario may lay over it."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for scenario in catalog.scenarios.values():
        for step in model.walk(scenario.steps):
            one = getattr(step, "burst", None) or getattr(step, "set", None)
            if one is not None and one.fields:
                found.setdefault(one.stream, []).append(one.fields)
    return found
