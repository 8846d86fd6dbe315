"""Everything that is wrong in the templates of a declaration or in template files, found before anything runs."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import nodes

from regstream import errors, spec
from regstream.functions import csv
from regstream.generator import trial as trials
from regstream.templates import compile, lint, parse, sandbox
from regstream.templates.program import Builder
from regstream.templates.program import Fault as Fault

_NO_KEY = bytes(32)


@functools.lru_cache(4)
def _box(templates: tuple[tuple[str, str], ...]) -> sandbox.Sandbox:
    return sandbox.Sandbox(dict(templates))


def _checker(entities: Mapping[str, spec.EntitySpec], templates: Mapping[str, str]) -> Builder:
    return Builder(_box(tuple(sorted(templates.items()))), entities, _NO_KEY)


def _tried(trial: trials.Trial, name: str) -> Builder:
    return Builder(trial.box, trial.entities, trial.key(name))


def check_stream(
    spec: spec.StreamSpec,
    entities: Mapping[str, spec.EntitySpec],
    templates: Mapping[str, str],
    trial: trials.Trial | None = None,
) -> list[Fault]:
    """All faults in the templates of a stream; with a ``trial`` also those of its first events.

    A trial has to know of the entities and templates, and compiles with its own.
    """
    builder = _checker(entities, templates) if trial is None else _tried(trial, spec.name)
    program = compile.stream_program(builder, spec)
    if program is not None:
        builder.faults += lint.check_stream(builder, spec)
    if program is not None and trial is not None:
        builder.faults += trial.events(spec, program)
    return builder.faults


def check_overlay(spec: spec.StreamSpec, fields: Mapping[str, Any], trial: trials.Trial) -> list[Fault]:
    """All faults of fields that stand in for some of those of a stream in which there is none, and what they make fail.

    What is not in one of these fields has the path ``("fields",)``.
    """
    builder = _tried(trial, spec.name)
    unknown = _unknown(spec, fields, trial) if spec.template is not None else []
    changed = spec.model_copy(update={"fields": {**(spec.fields or {}), **fields}})
    program = compile.stream_program(builder, changed)
    if program is not None:
        builder.faults += trial.overlaid(changed, program)
    return [*unknown, *(_laid(fault, fields) for fault in builder.faults)]


def _unknown(spec: spec.StreamSpec, fields: Mapping[str, Any], trial: trials.Trial) -> list[Fault]:
    """Fields that the first events of a stream with a template file do not have; later ones may."""
    known = trial.fields(spec)
    return [
        Fault(
            ("fields", name),
            1,
            f"the first events of stream '{spec.name}' have no field '{name}'",
            errors.did_you_mean(name, known) or f"they have {', '.join(sorted(known))}",
            "warning",
        )
        for name in fields
        if known and name not in known
    ]


def _laid(fault: Fault, fields: Mapping[str, Any]) -> Fault:
    if fault.path[:1] == ("fields",) and fault.path[1:2] and fault.path[1] in fields:
        return fault
    message = f"{fault.message}, in {'.'.join(fault.path)} of the stream"
    return Fault(("fields",), 1, message, fault.hint, fault.severity)


def check_entity(
    spec: spec.EntitySpec,
    templates: Mapping[str, str],
    entities: Mapping[str, spec.EntitySpec] | None = None,
    trial: trials.Trial | None = None,
) -> list[Fault]:
    """All faults in the templates of an entity; ``entities`` are those declared before it, which it may pick from.

    With a ``trial`` also those of its rows, which the trial keeps for what is declared later.
    """
    builder = _checker(entities or {}, templates) if trial is None else _tried(trial, f"entity {spec.name}")
    program = compile.entity_program(builder, spec)
    if program is not None:
        builder.faults += lint.check_entity(builder, spec)
    if program is not None and trial is not None:
        builder.faults += trial.rows(spec, program)
    return builder.faults


def check_text(source: str, templates: Mapping[str, str], trial: trials.Trial | None = None) -> list[Fault]:
    """All faults in the text of a scenario's alert; with a ``trial`` also those of what it gives."""
    builder = _checker({}, templates) if trial is None else Builder(trial.box, {}, _NO_KEY)
    program = compile.entity_program(builder, compile.message_spec(source))
    if program is not None and trial is not None:
        builder.faults += trial.text(program)
    return [fault._replace(path=("message",)) for fault in builder.faults]


def check_templates(templates: Mapping[str, str]) -> list[Fault]:
    """All faults in the files under ``templates/``; the path of each is the name of its file."""
    return [fault for name in sorted(templates) for fault in _check_file(name, templates)]


def _check_file(name: str, templates: Mapping[str, str]) -> Iterator[Fault]:
    return _check_table(name, templates[name]) if csv.is_table(name) else _check_template(name, templates)


def _check_table(name: str, text: str) -> Iterator[Fault]:
    try:
        csv.csv_of(text).table  # noqa: B018 - reading it tells
    except csv.TableError as error:
        yield Fault((name,), error.line, error.message, error.hint)


def _check_template(name: str, templates: Mapping[str, str]) -> Iterator[Fault]:
    site = _checker({}, templates).site
    tree = parse.parse(site, templates[name])
    if tree is not None:
        parse.check_tree(site, tree, None)
        for macro in tree.find_all(nodes.Macro):
            parse.check_macro(site, tree, macro)
        if not site.notes:
            parse.check_compiled(site, name)
    return (Fault((name,), *note) for note in site.notes)


def references(texts: Iterable[str], templates: Mapping[str, str]) -> frozenset[str]:
    """The files that the texts import, include or draw from, and those that these do in turn."""
    found: set[str] = set()
    waiting = [one for one in texts if parse.is_template(one)]
    while waiting:
        new = parse.imported(_checker({}, templates).site, waiting.pop()) - found
        found |= new
        waiting += [templates[name] for name in new if name in templates and not csv.is_table(name)]
    return frozenset(found)
