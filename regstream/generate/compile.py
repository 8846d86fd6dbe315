"""Declarations become programs: one straight-line Python function that makes a whole batch.

The function is written from the declaration's templates, compiled once and run for each tick. Draws, entity rows and
the constant parts of the envelope are locals; nothing is looked up or parsed while events are made.
"""

from __future__ import annotations

import bisect
import functools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jinja2
import jinja2.meta
import orjson
from jinja2 import nodes

from regstream import errors, model
from regstream.generate import draws, sandbox, text, vocabulary
from regstream.generate.site import Code, Site

Pools = Mapping[str, list[dict[str, Any]]]
_OPTIONS = orjson.OPT_UTC_Z
_NO_KEY = bytes(32)


class Fault(NamedTuple):
    """A fault inside a template, before it is placed in a file.

    ``path`` leads to the text within its declaration (``("fields", "address", "city")``), or is ``("templates",
    NAME)`` for a template file; ``line`` counts from 1 within that text.
    """

    path: tuple[str, ...]
    line: int
    message: str
    hint: str = ""


class Program(NamedTuple):
    """A compiled batch function, the draws it needs, and which declared text each of its lines came from."""

    function: Callable[..., None]
    layout: draws.Layout
    places: tuple[tuple[str, ...], ...]

    def place(self, error: BaseException) -> str:
        """The dotted place of the template in which ``error`` was raised."""
        trace, line = error.__traceback__, 0
        while trace is not None:
            if trace.tb_frame.f_code is self.function.__code__:
                line = trace.tb_lineno
            trace = trace.tb_next
        return ".".join(self.places[line - 1]) if 0 < line <= len(self.places) else ""


def _default(value: Any) -> Any:
    """What orjson cannot write by itself, as JSON would show it; undefined values raise UndefinedError."""
    if isinstance(value, vocabulary.Instant):
        return str(value)
    if isinstance(value, jinja2.Undefined):
        return str(value)
    if isinstance(value, types.GeneratorType | range | set | frozenset):
        return sandbox.bounded([one for _, one in zip(range(sandbox.MAX_TEXT + 1), value, strict=False)])
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


def _loaded(value: str) -> dict[str, Any]:
    data = orjson.loads(value)
    if not isinstance(data, dict):
        raise ValueError("the template must render a JSON object")
    return data


class Builder:
    """Writes the body of one program line by line and remembers where each line came from."""

    def __init__(self, box: sandbox.Sandbox, entities: Mapping[str, model.EntitySpec], key: bytes) -> None:
        self.site = Site(box, entities)
        self.faults: list[Fault] = []
        self.scope = {
            "now": Code("now", "now"),
            "seq": Code("seq", "int"),
            "index": Code("index", "int"),
            "stream": Code("STREAM", "str"),
        }
        self.rows: dict[str, Code] = {}
        self.key = key
        self._lines: list[tuple[str, tuple[str, ...]]] = []

    def line(self, source: str, path: tuple[str, ...] = ()) -> None:
        """Add one line of the loop's body."""
        self._lines.append((source, path))

    def compiled(self, value: Any, path: tuple[str, ...], scope: Mapping[str, Code] | None = None) -> Code:
        """The code of one declared value; nested mappings and lists are written out, their faults kept."""
        scope = self.scope if scope is None else scope
        if isinstance(value, dict):
            return self._mapping(value, path, dict(scope))
        if isinstance(value, list):
            parts = [self.shown(self.compiled(one, (*path, str(n)), scope)) for n, one in enumerate(value)]
            return Code(f"[{', '.join(parts)}]", "list")
        if not isinstance(value, str):
            return Code(self.site.constant(value), type(value).__name__ if value is not None else "none")
        code = text.compiled(self.site, value, scope, self.key)
        self.faults += [Fault(path, *note) for note in self.site.notes]
        self.site.notes.clear()
        return code

    def _mapping(self, value: dict[str, Any], path: tuple[str, ...], scope: dict[str, Code]) -> Code:
        parts = []
        for key, one in value.items():
            code = self.compiled(one, (*path, key), scope)
            name = self.bind(code, (*path, key))
            scope[key] = Code(name, code.kind)
            parts.append(f"{key!r}: {self.shown(scope[key])}")
        return Code(f"{{{', '.join(parts)}}}", "dict")

    def bind(self, code: Code, path: tuple[str, ...]) -> str:
        """Give a value a local name of its own."""
        name = f"v{len(self._lines)}"
        self.line(f"{name} = {code.text}", path)
        return name

    @staticmethod
    def shown(code: Code) -> str:
        """A value as it stands in data: the present time as text, which is made once a batch."""
        return "now_text" if code.kind == "now" else code.text

    def fields(self, fields: Mapping[str, Any], path: tuple[str, ...] = ("fields",)) -> list[str]:
        """The lines of all fields, each of which later ones may name; gives the parts of the data mapping."""
        parts = []
        for key, value in fields.items():
            code = self.compiled(value, (*path, key))
            name = self.bind(code, (*path, key))
            self.scope[key] = Code(name, code.kind)
            parts.append(f"{key!r}: {self.shown(self.scope[key])}")
        return parts

    def finish(self, name: str, signature: str, prologue: Iterable[str]) -> Program | None:
        """The program, or None when there are faults."""
        if self.faults:
            return None
        site = self.site
        head = [f"def batch({signature}):", *(f"    {one}" for one in prologue)]
        head += [f"    {local} = POOLS[{entity!r}]" for entity, local in site.pools.items()]
        names = [f"d{n}" for n in range(site.doubles)] + [f"b{n}" for n in range(site.raws)]
        head.append(f"    for {'(' + ', '.join(names) + ',)' if names else '_'} in records:")
        head.append("        seq += 1")
        source = "\n".join([*head, *(f"        {line}" for line, _ in self._lines)])
        places = (((),) * len(head)) + tuple(path for _, path in self._lines)
        code = self._code(source, name)
        if code is None:
            return None
        space: dict[str, Any] = {**_SPACE, **_guards(site.box), **site.constants, "STREAM": name}
        exec(code, space)  # noqa: S102 - the source is written here, from parsed templates
        return Program(space["batch"], draws.Layout(site.doubles, site.raws), places)

    def _code(self, source: str, name: str) -> types.CodeType | None:
        try:
            return compile(source, f"<stream {name}>", "exec")
        except (SyntaxError, RecursionError, MemoryError, OverflowError) as error:
            self.faults.append(Fault(("fields",), 1, f"the templates are too large or nested too deeply: {error}"))
            return None


_SPACE: dict[str, Any] = {
    "__builtins__": {
        "len": len, "int": int, "round": round, "slice": slice, "dict": dict, "range": range, "isinstance": isinstance,
    },
    "BISECT": bisect.bisect_right,
    "VARIANT": "89ab",
    "TIMES": sandbox.times,
    "POWER": sandbox.power,
    "MODULO": sandbox.modulo,
    "PLUS": sandbox.plus,
    "JOINED": sandbox.joined,
    "BOUNDED": sandbox.bounded,
    "RANGE": sandbox.safe_range,
    "DUMPS": orjson.dumps,
    "STR": str,
    "LOADED": _loaded,
    "TEXT_OR_NONE": lambda value: None if value is None else str(value),
    "DEFAULT": _default,
    "OPTIONS": _OPTIONS,
}  # fmt: skip


def _guards(box: sandbox.Sandbox) -> dict[str, Any]:
    return {"ATTR": box.getattr, "ITEM": box.getitem, "CALL": box.apply, "UNDEFINED": box.undefined}


def _stream(builder: Builder, spec: model.StreamSpec) -> Program | None:
    """The program of a stream: values, keys and alerts of a batch are appended to the lists that it is given."""
    _bindings(builder, spec)
    parts = _data(builder, spec)
    key = builder.bind(builder.compiled(spec.key, ("key",)), ("key",)) if spec.key else "None"
    updates = _updates(builder, spec)
    alert = _alert(builder, spec.alert)
    if spec.key:
        key = builder.bind(Code(f"{key} if {key}.__class__ is STR else TEXT_OR_NONE({key})"), ("key",))
    builder.line(f"made = DUMPS({parts}, DEFAULT, OPTIONS)", ("fields",))
    builder.line('number = b"%d" % seq')
    builder.line('add(b"".join((before, number, between, number, after, made, b"}")))')
    builder.line(f"add_key({key})")
    for line in (*updates, *alert):
        builder.line(line)
    signature = "records, seq, base, now, now_text, before, between, after, POOLS, values, keys, alerts"
    return builder.finish(spec.name, signature, ("add, add_key = values.append, keys.append",))


def _bindings(builder: Builder, spec: model.StreamSpec) -> None:
    builder.line("index = seq - base")
    for name, value in spec.with_.items():
        code = builder.compiled(value, ("with", name))
        builder.scope[name] = builder.rows[name] = Code(builder.bind(code, ("with", name)), code.kind)


def _data(builder: Builder, spec: model.StreamSpec) -> str:
    if spec.template is None:
        return f"{{{', '.join(builder.fields(spec.fields or {}))}}}"
    source = builder.site.box.source(spec.template)
    if source is None:
        known = builder.site.box.files()
        hint = errors.did_you_mean(spec.template, known)
        builder.faults.append(Fault(("template",), 1, f"no template file {spec.template!r}", hint))
        return "{}"
    code = text.compiled(builder.site, source, builder.scope, builder.key)
    builder.faults += [Fault(("templates", spec.template), *note) for note in builder.site.notes]
    builder.site.notes.clear()
    builder.line(f"data = LOADED({code.text})", ("template",))
    builder.scope["data"] = Code("data", "any")
    if spec.fields:
        builder.line(f"data.update({{{', '.join(builder.fields(spec.fields))}}})", ("fields",))
    return "data"


def _updates(builder: Builder, spec: model.StreamSpec) -> list[str]:
    """The lines that change entity rows; they stand behind all that may fail."""
    lines = []
    for target, value in spec.update.items():
        path = ("update", target)
        fault = _target_fault(builder, target)
        if fault is not None:
            builder.faults.append(Fault(path, 1, *fault))
            continue
        name, _, field = target.partition(".")
        code = builder.compiled(value, path)
        lines.append(f"{builder.rows[name].text}[{field!r}] = {builder.bind(code, path)}")
    return lines


def _target_fault(builder: Builder, target: str) -> tuple[str, str] | None:
    name, dot, field = target.partition(".")
    row = builder.rows.get(name)
    if not dot or row is None:
        return f"{target!r} is not a field of a bound row", f"write NAME.FIELD with one of {', '.join(builder.rows)}"
    if not row.kind.startswith("row:"):
        return f"{name!r} is not an entity row", f"bind it with pick: with: {{{name}: \"{{{{ pick('…') }}}}\"}}"
    entity = builder.site.entities[row.kind[4:]]
    if field == entity.key:
        return f"{target!r} is the key of entity {entity.name!r} and cannot change", ""
    if field not in entity.fields:
        return f"entity {entity.name!r} has no field {field!r}", errors.did_you_mean(field, entity.fields)
    return None


def _alert(builder: Builder, rule: model.AlertRule | None) -> list[str]:
    if rule is None:
        return []
    when = builder.compiled(rule.when, ("alert", "when"))
    message = builder.compiled(rule.message, ("alert", "message"))
    builder.line(f"alert = STR({message.text}) if {when.text} else None", ("alert",))
    return [f"if alert is not None: alerts.append((seq, {str(rule.severity)!r}, alert))"]


def _rows(builder: Builder, spec: model.EntitySpec) -> Program | None:
    """The program of an entity: its rows are appended to the list that it is given."""
    builder.line("index = seq - 1")
    parts = builder.fields(spec.fields)
    builder.line(f"rows.append({{{', '.join(parts)}}})")
    return builder.finish(spec.name, "records, seq, now, now_text, POOLS, rows", ())


def stream(
    box: sandbox.Sandbox, spec: model.StreamSpec, entities: Mapping[str, model.EntitySpec], key: bytes
) -> Program:
    """The program of a stream that was checked before. Raises ValueError when it was not and has faults."""
    builder = Builder(box, entities, key)
    return _sound(_stream(builder, spec), builder)


def entity(
    box: sandbox.Sandbox, spec: model.EntitySpec, entities: Mapping[str, model.EntitySpec], key: bytes
) -> Program:
    """The program that makes the rows of an entity. Raises ValueError when it has faults."""
    builder = Builder(box, entities, key)
    return _sound(_rows(builder, spec), builder)


def message(box: sandbox.Sandbox, source: str, key: bytes) -> Program:
    """The program of a single text: ``rows`` receives one mapping with the key ``message``."""
    builder = Builder(box, {}, key)
    return _sound(_rows(builder, _message_spec(source)), builder)


def _message_spec(source: str) -> model.EntitySpec:
    return model.EntitySpec(name=model.ALERTS, count=1, key="message", fields={"message": source})


def _sound(program: Program | None, builder: Builder) -> Program:
    if program is None:
        raise ValueError("; ".join(f"{'.'.join(fault.path)}: {fault.message}" for fault in builder.faults))
    return program


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
    _stream(builder, spec)
    return builder.faults


def check_entity(
    spec: model.EntitySpec, templates: Mapping[str, str], entities: Mapping[str, model.EntitySpec] | None = None
) -> list[Fault]:
    """All faults in the templates of an entity; ``entities`` are those declared before it, which it may pick from."""
    builder = _checker(entities or {}, templates)
    _rows(builder, spec)
    return builder.faults


def check_text(source: str, templates: Mapping[str, str]) -> list[Fault]:
    """All faults in the text of a scenario's alert."""
    builder = _checker({}, templates)
    _rows(builder, _message_spec(source))
    return [fault._replace(path=("message",)) for fault in builder.faults]


def check_templates(templates: Mapping[str, str]) -> list[Fault]:
    """All faults in the template files; the path of each is the name of its file."""
    return [fault for name in sorted(templates) for fault in _check_file(name, templates)]


def _check_file(name: str, templates: Mapping[str, str]) -> Iterator[Fault]:
    site = _checker({}, templates).site
    tree = text.parse(site, templates[name])
    if tree is not None:
        text.check_tree(site, tree, None)
        for macro in tree.find_all(nodes.Macro):
            text.check_macro(site, tree, macro)
    return (Fault((name,), *note) for note in site.notes)


def references(texts: Iterable[str], templates: Mapping[str, str]) -> frozenset[str]:
    """The template files that the texts import or include, and those that these import in turn."""
    found: set[str] = set()
    waiting = [one for one in texts if text.is_template(one)]
    while waiting:
        new = text.imported(_checker({}, templates).site, waiting.pop()) - found
        found |= new
        waiting += [templates[name] for name in new if name in templates]
    return frozenset(found)
