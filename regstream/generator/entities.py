"""Entity rows: made once from their templates, changed by events, kept over reloads."""

from __future__ import annotations

from collections.abc import Iterable

from regstream import errors, spec
from regstream.functions import lookup, registry, rng
from regstream.templates import compile, sandbox
from regstream.templates.program import Program, cause

Row = lookup.Row


def make(
    box: sandbox.Sandbox, spec: spec.EntitySpec, catalog: spec.Catalog, pools: lookup.Pools, seed: int, now: float
) -> tuple[lookup.Rows, frozenset[str]]:
    """The rows of one entity, and the entities that they may hold rows of; draws depend on (seed, entity, index) alone.

    Raises RenderError when a template fails or two rows have the same key.
    """
    made, key = program(box, spec, catalog, seed)
    rows = lookup.Rows(key=spec.key)
    instant = registry.Instant.at(now)
    records = rng.Draws(key, made.layout).span(1, spec.count)
    try:
        made.function(records, 0, instant, str(instant), pools, rows)
    except Exception as error:
        raise errors.RenderError(spec.name, made.place(error), cause(error)) from error
    _check_keys(spec, rows)
    return rows, made.reads


def program(box: sandbox.Sandbox, spec: spec.EntitySpec, catalog: spec.Catalog, seed: int) -> tuple[Program, bytes]:
    """What makes the rows of an entity, and what its draws are keyed by."""
    key = rng.key(seed, f"entity {spec.name}")
    return compile.entity(box, spec, catalog.entities, key), key


def doubled(spec: spec.EntitySpec, key: str, first: int, second: int) -> errors.RenderError:
    """That two rows have the same key; they are numbered from 1."""
    return errors.RenderError(spec.name, f"fields.{spec.key}", f"rows {first} and {second} have the same key {key!r}")


def _check_keys(spec: spec.EntitySpec, rows: list[Row]) -> None:
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        text = str(row[spec.key])
        if text in seen:
            raise doubled(spec, text, seen[text], number)
        seen[text] = number


def carry(old: list[Row], new: list[Row], key: str, fields: Iterable[str]) -> None:
    """Give rows that were made again what events had changed in the rows of the same key."""
    # As text, as they are checked for doubles: a key may be a list, which no mapping takes
    by_key = {str(row[key]): row for row in old if key in row}
    for row in new:
        before = by_key.get(str(row[key]))
        if before is not None:
            row.update({field: before[field] for field in fields if field in before and field in row})
