"""What a reload has to do: the difference between two catalogs, as names. It compares and does nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from regstream import spec
from regstream.functions import csv

_Spec = TypeVar("_Spec", bound=spec.Spec)


class Diff(NamedTuple):
    """Names by what becomes of them, each in exactly one of the four, in the order of the files.

    ``removed`` keeps the order of the old files, the others that of the new ones.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """True when nothing has to be done."""
        return not (self.added or self.changed or self.removed)


class Plan(NamedTuple):
    """The difference between two catalogs; the first start is the plan from ``model.EMPTY``."""

    streams: Diff
    entities: Diff
    scenarios: Diff

    @property
    def empty(self) -> bool:
        """True when the two catalogs behave alike."""
        return self.streams.empty and self.entities.empty and self.scenarios.empty


def plan(old: spec.Catalog, new: spec.Catalog) -> Plan:
    """What has to be added, changed and removed to come from ``old`` to ``new``.

    A stream is changed when its events or its ticks would be others: its declaration, a template file that it uses, the
    seed or, unless it has a schedule, the profile's speed. An entity is changed when its rows would be: with its
    declaration, a template file that it uses, an entity that it refers to, the seed, or where it has states the speed.
    """
    reseeded = old.seed != new.seed
    respeeded = old.profile.speed != new.profile.speed
    return Plan(
        streams=_diff(old.streams, new.streams, lambda spec: reseeded or (respeeded and spec.schedule is None)),
        entities=_entities(old, new, reseeded, respeeded),
        scenarios=_diff(old.scenarios, new.scenarios, lambda _: False),
    )


def _entities(old: spec.Catalog, new: spec.Catalog, reseeded: bool, respeeded: bool) -> Diff:
    # Rows are picked from entities that stand before, so that a difference goes on to those behind
    moved: set[str] = set()
    for name, declaration in new.entities.items():
        same = name in old.entities and _same(old.entities[name], declaration)
        if reseeded or not same or (respeeded and declaration.states) or _mentions(declaration, moved, new.templates):
            moved.add(name)
    return _diff(old.entities, new.entities, lambda spec: spec.name in moved)


def _mentions(spec: spec.EntitySpec, names: set[str], templates: Mapping[str, str]) -> bool:
    texts = (
        spec.model_dump_json(include={"fields"}),
        *(templates.get(file, "") for file, _ in spec.files if not csv.is_table(file)),
    )
    return any(re.search(rf"\b{name}\b", text) for name in names for text in texts)


def _diff(old: Mapping[str, _Spec], new: Mapping[str, _Spec], forced: Callable[[_Spec], bool]) -> Diff:
    both = [name for name in new if name in old]
    same = {name for name in both if not forced(new[name]) and _same(old[name], new[name])}
    return Diff(
        added=tuple(name for name in new if name not in old),
        changed=tuple(name for name in both if name not in same),
        removed=tuple(name for name in old if name not in new),
        unchanged=tuple(name for name in both if name in same),
    )


def _same(old: spec.Spec, new: spec.Spec) -> bool:
    # Not ==: it takes 1, 1.0 and true for the same value, and fields in another order for the same fields.
    return old is new or old.model_dump_json() == new.model_dump_json()
