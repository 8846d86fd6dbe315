"""Declarations that can hardly be meant: conditions that are always true, texts without their braces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import nodes

from regstream import spec
from regstream.functions import registry
from regstream.templates import parse
from regstream.templates.program import Builder, Fault, Path

_SINGLE = re.compile(r"\$?\{\s*([A-Za-z_]\w*)(?:\.\w+)*\s*\}")
_LONGEST = 200
_OPERATIONS = (nodes.BinExpr, nodes.Compare, nodes.Filter, nodes.Getattr, nodes.CondExpr, nodes.And, nodes.Or)


def check_stream(builder: Builder, spec: spec.StreamSpec) -> Iterator[Fault]:
    """What is odd in a stream that was compiled with the builder."""
    if spec.alert is not None:
        yield from _condition(spec.alert.when)
    names = {*builder.scope} if spec.template is None else {*builder.scope, "data"}
    yield from _whole_row(builder, spec)
    for path, value in (*_texts(spec.fields, ("fields",)), *_texts(spec.with_, ("with",))):
        yield from _bare(builder, path, value, names, lone=False)
    for path, value in (*_texts(spec.update, ("update",)), (("key",), spec.key)):
        yield from _bare(builder, path, value, names, lone=True)
    if spec.alert is not None:
        yield from _bare(builder, ("alert", "message"), spec.alert.message, names, lone=False)


def check_entity(builder: Builder, spec: spec.EntitySpec) -> Iterator[Fault]:
    """What is odd in an entity that was compiled with the builder."""
    for path, value in _texts(spec.fields, ("fields",)):
        yield from _bare(builder, path, value, {*builder.scope}, lone=False)


def _condition(source: str) -> Iterator[Fault]:
    path = ("alert", "when")
    if not source.strip():
        yield Fault(path, 1, "when: an empty text is never true", 'write "{{ amount > 5 }}"')
    elif not parse.is_template(source):
        yield Fault(path, 1, "when: a text without {{ }} is always true", f'write "{{{{ {source.strip()} }}}}"')
    elif parse.surrounded(source):
        hint = "put the whole condition between one {{ and }}"
        yield Fault(path, 1, "when: with text around {{ }} it is a text, which is always true", hint)


def _whole_row(builder: Builder, spec: spec.StreamSpec) -> Iterator[Fault]:
    tree = parse.expression_of(spec.key) if parse.is_template(spec.key) else None
    if isinstance(tree, nodes.Name) and tree.name in builder.rows:
        row = builder.scope.get(tree.name, builder.rows[tree.name])
        if row.kind.startswith("row:"):
            key = builder.site.entities[row.kind[4:]].key
            message = "key: all of the row is the key, which is another one after each update"
            yield Fault(("key",), 1, message, f"write {{{{ {tree.name}.{key} }}}}", "warning")


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping | list):
        for key, one in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _texts(one, (*path, str(key)))


def _bare(builder: Builder, path: Path, value: str, names: set[str], *, lone: bool) -> Iterator[Fault]:
    """A text that reads like an expression over names that there are; a ``lone`` name is one too."""
    if len(value) > _LONGEST or parse.is_template(value):
        return
    single = _SINGLE.search(value)
    if single is not None and single[1] in names:
        inner = single[0].strip("${ }")
        hint = f"write {{{{ {inner} }}}}"
        yield Fault(path, 1, f"{path[-1]}: {single[0]} stays as it is, braces are doubled here", hint, "warning")
    elif _reads_as_expression(value, names, lone):
        hint = f'write "{{{{ {value} }}}}" if that is meant'
        yield Fault(path, 1, f"{path[-1]}: the text {value!r} stays as it is, without {{{{ }}}}", hint, "warning")


def _reads_as_expression(value: str, names: set[str], lone: bool) -> bool:
    # Most texts are none, and parsing takes long
    first = re.match(r"\s*\(?([A-Za-z_]\w*)\s*(.?)", value)
    if first is None or (first[1] not in names and not (first[1] in registry.FUNCTIONS and first[2] == "(")):
        return False
    try:
        tree = parse.expression_of(f"{{{{ {value} }}}}")
    except jinja2.TemplateError:
        return False
    if tree is None:
        return False
    if isinstance(tree, nodes.Name):
        return lone and tree.name in names
    calls = {id(one.node) for one in (tree, *tree.find_all(nodes.Call)) if isinstance(one, nodes.Call)}
    used = list(tree.find_all(nodes.Name))
    known = all((one.name in registry.FUNCTIONS) if id(one) in calls else (one.name in names) for one in used)
    return known and isinstance(tree, (*_OPERATIONS, nodes.Call))
