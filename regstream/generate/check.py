"""Everything that is wrong in the templates of a declaration or in template files, found before anything runs."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping

from jinja2 import nodes

from regstream import model
from regstream.generate import compile, sandbox, statements, tables, text
from regstream.generate.program import Builder
from regstream.generate.program import Fault as Fault

_NO_KEY = bytes(32)


@functools.lru_cache(4)
def _box(templates: tuple[tuple[str, str], ...]) -> sandbox.Sandbox:
    return sandbox.Sandbox(dict(templates))


def _checker(entities: Mapping[str, model.EntitySpec], templates: Mapping[str, str]) -> Builder:
    return Builder(_box(tuple(sorted(templates.items()))), entities, _NO_KEY)


def check_stream(
    spec: model.StreamSpec, entities: Mapping[str, model.EntitySpec], templates: Mapping[str, str]
) -> list[Fault]:
    """All faults in the templates of a stream."""
    builder = _checker(entities, templates)
    compile.stream_program(builder, spec)
    return builder.faults


def check_entity(
    spec: model.EntitySpec, templates: Mapping[str, str], entities: Mapping[str, model.EntitySpec] | None = None
) -> list[Fault]:
    """All faults in the templates of an entity; ``entities`` are those declared before it, which it may pick from."""
    builder = _checker(entities or {}, templates)
    compile.entity_program(builder, spec)
    return builder.faults


def check_text(source: str, templates: Mapping[str, str]) -> list[Fault]:
    """All faults in the text of a scenario's alert."""
    builder = _checker({}, templates)
    compile.entity_program(builder, compile.message_spec(source))
    return [fault._replace(path=("message",)) for fault in builder.faults]


def check_templates(templates: Mapping[str, str]) -> list[Fault]:
    """All faults in the files under ``templates/``; the path of each is the name of its file."""
    return [fault for name in sorted(templates) for fault in _check_file(name, templates)]


def _check_file(name: str, templates: Mapping[str, str]) -> Iterator[Fault]:
    return _check_table(name, templates[name]) if tables.is_table(name) else _check_template(name, templates)


def _check_table(name: str, text: str) -> Iterator[Fault]:
    try:
        tables.csv_of(text).table  # noqa: B018 - reading it tells
    except tables.TableError as error:
        yield Fault((name,), error.line, error.message, error.hint)


def _check_template(name: str, templates: Mapping[str, str]) -> Iterator[Fault]:
    site = _checker({}, templates).site
    tree = text.parse(site, templates[name])
    if tree is not None:
        statements.check_tree(site, tree, None)
        for macro in tree.find_all(nodes.Macro):
            statements.check_macro(site, tree, macro)
        if not site.notes:
            text.check_compiled(site, name)
    return (Fault((name,), *note) for note in site.notes)


def references(texts: Iterable[str], templates: Mapping[str, str]) -> frozenset[str]:
    """The files that the texts import, include or draw from, and those that these do in turn."""
    found: set[str] = set()
    waiting = [one for one in texts if text.is_template(one)]
    while waiting:
        new = text.imported(_checker({}, templates).site, waiting.pop()) - found
        found |= new
        waiting += [templates[name] for name in new if name in templates and not tables.is_table(name)]
    return frozenset(found)
