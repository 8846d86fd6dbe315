"""Declarations become programs: what a stream, an entity or a single text is made of, as a batch function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from regstream import errors, spec
from regstream.functions import limits
from regstream.templates import context, parse, sandbox
from regstream.templates.context import TypedExpr
from regstream.templates.program import Builder, Fault, Program


def stream_program(builder: Builder, spec: spec.StreamSpec) -> Program | None:
    """The program of a stream: values, keys, alerts and changed rows are appended to the lists that it is given."""
    _follow(builder, spec.follow)
    _arrival(builder, spec.arrival)
    _bindings(builder, spec)
    _encode(builder, _data(builder, spec))
    key = builder.bind(builder.compiled(spec.key, ("key",)), ("key",)) if spec.key else "None"
    if spec.key:
        key = builder.bind(
            TypedExpr(f"{key} if {key}.__class__ is STR and {key}.isascii() else TEXT_OR_NONE({key})"), ("key",)
        )
    updates = _updates(builder, spec)
    alert = _alert(builder, spec.alert)
    # Nothing below can fail: an event is made whole or not at all
    builder.line('number = b"%d" % seq')
    builder.line('add(b"".join((before, number, between, number, after, made, b"}")))')
    builder.line(f"add_key({key})")
    if builder.moves:
        builder.line(f"arriving.note(now_text, made, {key}, at)")
    for line in (*updates, *alert):
        builder.line(line)
    signature = "records, moments, seq, before, after, POOLS, values, keys, alerts, touched, arriving"
    return builder.finish(
        spec.name, signature, ("add, add_key = values.append, keys.append",), "base, now, now_text, between"
    )


def _encode(builder: Builder, data: TypedExpr) -> None:
    builder.line(f"made = DUMPS({data.text}, DEFAULT, OPTIONS)", ("fields",))
    if builder.unbounded:
        # The encoder writes NaN and infinity as null; where there is any null, it may be the text of another
        builder.line(f'if b"null" in made: FINITE({data.text})', ("fields",))
    if data.extent * 6 > limits.MAX_EVENT:
        builder.line(f"if len(made) > {limits.MAX_EVENT}: TOO_LARGE(made)", ("fields",))


def _arrival(builder: Builder, declared: spec.Arrival | None) -> None:
    """The time of an event, where it is not that of its tick; one that is the one before again is done with here."""
    builder.line("index = seq - base")
    if declared is None:
        return
    builder.moves = True
    site, path = builder.site, ("arrival", "late")
    if declared.duplicates:
        again = f"{site.double()} < {1 + declared.duplicates!r} and arriving.last"
        builder.line(f"if {again}: arriving.again(seq, before, now, between, after, add, add_key); continue")
    # It says what the time is, so it cannot ask for it, nor for what is drawn after it
    scope = {name: builder.scope[name] for name in ("seq", "index", "stream")}
    late = builder.compiled(declared.late, path, scope).text
    if declared.late_share < 1:
        late = f"({late}) if {site.double()} < {1 + declared.late_share!r} else 0"
    builder.line(f"now, now_text, between, at = MOVED(now, between, {late})", path)


def _follow(builder: Builder, entity: str | None) -> None:
    """The row that came into a state, where events tell of that."""
    if entity is None:
        return
    declared = builder.site.entities.get(entity)
    if declared is None or not declared.states:
        known = [name for name, one in builder.site.entities.items() if one.states]
        hint = errors.did_you_mean(entity, known) or "declare its states under entities"
        builder.faults.append(Fault(("follow",), 1, f"no entity {entity!r} with states", hint))
        return
    builder.followed = entity
    builder.site.reads.add(entity)
    builder.rows["row"] = TypedExpr("row", f"row:{entity}")
    builder.scope |= {
        "row": builder.rows["row"],
        "state": TypedExpr("state", "str", limits.SMALL),
        "was": TypedExpr("was"),
    }


def _bindings(builder: Builder, spec: spec.StreamSpec) -> None:
    fields = context.Later(spec.fields or {}, None, "fields come after with: make it a field, or bind it with")
    for name, value in spec.with_.items():
        builder.site.later = context.Later(spec.with_, name, "name", fields)
        code = builder.compiled(value, ("with", name))
        builder.scope[name] = builder.rows[name] = TypedExpr(builder.bind(code, ("with", name)), code.kind)
    builder.site.later = None


def _data(builder: Builder, spec: spec.StreamSpec) -> TypedExpr:
    if spec.template is None:
        return builder.fields(spec.fields or {})
    source = builder.site.box.source(spec.template)
    if source is None:
        hint = errors.did_you_mean(spec.template, builder.site.box.files())
        builder.faults.append(Fault(("template",), 1, f"no template file {spec.template!r}", hint))
        return TypedExpr("None", "broken")
    code = parse.compiled(builder.site, source, builder.scope, builder.key)
    builder.take_notes(("templates", spec.template))
    builder.line(f"data = LOADED({code.text})", ("template",))
    builder.unbounded = True
    builder.scope["data"] = TypedExpr("data")
    if spec.fields:
        builder.line(f"data.update({builder.fields(spec.fields).text})", ("fields",))
    return TypedExpr("data")


def _updates(builder: Builder, spec: spec.StreamSpec) -> list[str]:
    """The lines that change entity rows, once all values are known."""
    lines = []
    touched: dict[str, str] = {}
    for target, value in spec.update.items():
        path = ("update", target)
        fault = _target_fault(builder, target)
        if fault is not None:
            builder.faults.append(Fault(path, 1, *fault))
            continue
        name, _, field = target.partition(".")
        # A row's value is at most as large as any other, so that no row grows with each event
        code = builder.site.fitting(builder.compiled(value, path), limits.LIMIT)
        row = builder.rows[name]
        lines.append(f"{row.text}[{field!r}] = {builder.bind(code, path)}")
        touched[row.text] = row.kind[4:]
        builder.site.changes.add(row.kind[4:])
    # First, so that whoever is given the rows can still see what they held
    return [*(f"touched.append(({entity!r}, {row}))" for row, entity in touched.items()), *lines]


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
    if field in entity.names and field not in entity.fields:
        return f"{target!r} is what the states of entity {entity.name!r} say", "events cannot change it"
    if field not in entity.fields:
        return f"entity {entity.name!r} has no field {field!r}", errors.did_you_mean(field, entity.fields)
    return None


def _alert(builder: Builder, rule: spec.AlertRule | None) -> list[str]:
    if rule is None:
        return []
    when = builder.bind(builder.compiled(rule.when, ("alert", "when")), ("alert", "when"))
    message = builder.site.fitting(builder.compiled(rule.message, ("alert", "message")), limits.LIMIT)
    builder.line(f"alert = TEXT({message.text}) if {when} else None", ("alert", "message"))
    return [f"if alert is not None: alerts.append((seq, {str(rule.severity)!r}, alert))"]


def entity_program(builder: Builder, spec: spec.EntitySpec) -> Program | None:
    """The program of an entity: its rows are appended to the list that it is given."""
    builder.line("index = seq - 1")
    row = builder.site.fitting(builder.fields(spec.fields), limits.LIMIT)
    builder.line(f"rows.append({row.text})", ("fields",))
    _lasting(builder, spec)
    return builder.finish(spec.name, "records, seq, now, now_text, POOLS, rows", ())


def _lasting(builder: Builder, spec: spec.EntitySpec) -> None:
    """Refuse rows that would outlive what they refer to."""
    if spec.states:
        return
    for name in sorted(builder.site.reads):
        if builder.site.entities[name].states:
            message = f"rows of {name!r} come and go, and rows of {spec.name!r} that refer to them do not"
            builder.faults.append(Fault(("fields",), 1, message, f"give {spec.name!r} states too"))


def changed(
    box: sandbox.Sandbox, streams: Iterable[spec.StreamSpec], entities: Mapping[str, spec.EntitySpec]
) -> frozenset[tuple[str, str]]:
    """The (entity, field) pairs that events of these streams change."""
    found = set()
    for declaration in streams:
        builder = Builder(box, entities, b"")
        if declaration.update:
            _follow(builder, declaration.follow)
            _bindings(builder, declaration)
        for name, _, field in (target.partition(".") for target in declaration.update):
            if name in builder.rows and builder.rows[name].kind.startswith("row:"):
                found.add((builder.rows[name].kind[4:], field))
    return frozenset(found)


def stream(box: sandbox.Sandbox, spec: spec.StreamSpec, entities: Mapping[str, spec.EntitySpec], key: bytes) -> Program:
    """The program of a stream that was checked before. Raises ValueError when it was not and has faults."""
    builder = Builder(box, entities, key)
    return _sound(stream_program(builder, spec), builder)


def entity(box: sandbox.Sandbox, spec: spec.EntitySpec, entities: Mapping[str, spec.EntitySpec], key: bytes) -> Program:
    """The program that makes the rows of an entity. Raises ValueError when it has faults."""
    builder = Builder(box, entities, key)
    return _sound(entity_program(builder, spec), builder)


def message(box: sandbox.Sandbox, source: str, key: bytes) -> Program:
    """The program of a single text: ``rows`` receives one mapping with the key ``message``."""
    builder = Builder(box, {}, key)
    return _sound(entity_program(builder, message_spec(source)), builder)


def message_spec(source: str) -> spec.EntitySpec:
    """A single text, declared as the only field of a row."""
    return spec.EntitySpec(name=spec.ALERTS, count=1, key="message", fields={"message": source})


def _sound(program: Program | None, builder: Builder) -> Program:
    if program is None:
        raise ValueError("; ".join(f"{'.'.join(fault.path)}: {fault.message}" for fault in builder.faults))
    return program
