"""One template text of a declaration as Python: a lone expression, text around expressions, or statements."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jinja2
import jinja2.meta
from jinja2 import nodes

from regstream import errors
from regstream.functions import limits, registry, rng
from regstream.templates import calls, context, expressions, sandbox
from regstream.templates.context import UNKNOWN, CompileContext, TypedExpr, constant_of

_FUNCTIONS = {*registry.FUNCTIONS, *sandbox.GLOBALS}


def given_names(tree: nodes.Template, scope: Mapping[str, TypedExpr]) -> list[str]:
    """The names of the scope that a text uses; a function that it calls is never one of them."""
    calls = {node.node.name for node in tree.find_all(nodes.Call) if isinstance(node.node, nodes.Name)}
    used = {node.name for node in tree.find_all(nodes.Name)}
    return sorted(used & set(scope) - (calls & _FUNCTIONS))


def picks(tree: nodes.Template) -> set[str] | None:
    """The names of the entities whose rows a text may take by itself; None when that may be any."""
    calls = [node for node in tree.find_all(nodes.Call) if isinstance(node.node, nodes.Name)]
    taking = [node for node in calls if node.node.name in registry.ROWS]  # type: ignore[attr-defined]
    if len(taking) < sum(node.name in registry.ROWS for node in tree.find_all(nodes.Name)):
        return None
    names = [constant_of(node.args[0]) if node.args else UNKNOWN for node in taking]
    return None if any(not isinstance(name, str) for name in names) else set(names)


@functools.lru_cache(1024)
def undeclared(tree: nodes.Template) -> frozenset[str]:
    """The names that a text uses and does not set itself; none when Jinja cannot read it further."""
    try:
        return frozenset(jinja2.meta.find_undeclared_variables(tree))
    except jinja2.TemplateError:
        return frozenset()


def check_tree(site: CompileContext, tree: nodes.Template, scope: Mapping[str, TypedExpr] | None) -> None:
    """Note what is wrong in a text: filters, tests, private names, imports, calls and, with a scope, names."""
    for part in tree.find_all((nodes.Filter, nodes.Test, nodes.Getattr, nodes.Getitem)):
        _check_node(site, part)
    for statement in tree.find_all((nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends)):
        _check_import(site, statement)
    outer = (undeclared(tree) | _FUNCTIONS | set(scope or ())) - _stored(tree)
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name in outer:
            _check_call(site, call, call.node.name, scope)
    _check_functions(site, tree, _FUNCTIONS & outer - set(scope or ()))
    if scope is not None:
        _check_names(site, tree, scope)
        _check_members(site, tree, {name: code for name, code in scope.items() if name in outer})


def _stored(tree: nodes.Template) -> set[str]:
    names = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    return names | {macro.name for macro in tree.find_all(nodes.Macro)}


def _check_node(site: CompileContext, node: nodes.Node) -> None:
    problem = expressions.unknown_filter(node, site.box) if isinstance(node, nodes.Filter | nodes.Test) else None
    if problem:
        site.note(node, *problem)
    private = node.attr if isinstance(node, nodes.Getattr) else ""
    if isinstance(node, nodes.Getitem):
        private = str(constant_of(node.arg))
    if private.startswith("_"):
        site.note(node, f"{private!r} is not allowed in a template", "private names are out of reach")


def _check_names(site: CompileContext, tree: nodes.Template, scope: Mapping[str, TypedExpr]) -> None:
    known = {*scope, *_FUNCTIONS}
    for name in sorted(undeclared(tree) - known):
        site.note(_line_of(tree, name), f"{name!r} is undefined", site.undefined(name, known))


def _check_functions(site: CompileContext, tree: nodes.Template, names: set[str]) -> None:
    """Functions are called by their names, never handed on: what they print would be another text at every start."""
    callees = {id(call.node) for call in tree.find_all(nodes.Call)}
    for node in tree.find_all(nodes.Name):
        if node.name == "self":
            site.note(node, "'self' is not available in a template")
        elif node.name in names and id(node) not in callees:
            site.note(node, f"{node.name} is a function", f"write {node.name}(…)")


def _check_members(site: CompileContext, tree: nodes.Template, rows: Mapping[str, TypedExpr]) -> None:
    for node in tree.find_all(nodes.Getattr):
        row = rows.get(node.node.name) if isinstance(node.node, nodes.Name) else None
        if row is not None and row.kind.startswith("row:"):
            expressions.Translator(site, rows).visit(node)


def _check_call(site: CompileContext, call: nodes.Call, name: str, scope: Mapping[str, TypedExpr] | None) -> None:
    if name == "range":
        _check_range(site, call)
    if name not in registry.FUNCTIONS:
        return
    problem, hint = calls.fault(name, call), ""
    if name in registry.ROWS and not problem and scope is not None and call.args:
        entity = constant_of(call.args[0])
        problem, hint = calls.unknown_entity(entity, site.entities) if entity is not UNKNOWN else ("", "")
        if isinstance(entity, str) and not problem:
            problem, hint = calls.unknown_state(call, site.entities[entity])
    if name in registry.TABLES and not problem:
        problem, hint = calls.missing(call, site.box)
    if problem:
        site.note(call, problem, hint)


def tables_of(tree: nodes.Template) -> set[str]:
    """The CSV files that a text draws from."""
    found: set[Any] = set()
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name in registry.TABLES and call.args:
            found.add(constant_of(call.args[0]))
    return {name for name in found if isinstance(name, str)}


def _check_import(site: CompileContext, node: Any) -> None:
    name = constant_of(node.template)
    files = site.box.files()
    if not isinstance(name, str):
        site.note(node, "the name of an imported template must be a text")
    elif name not in files:
        site.note(node, f"no template file {name!r}", errors.did_you_mean(name, files))
    elif isinstance(node, nodes.Import | nodes.FromImport):
        _check_exports(site, node, name)


def _check_exports(site: CompileContext, node: nodes.Import | nodes.FromImport, name: str) -> None:
    try:
        site.box.renew()
        made = set(vars(site.box.get_template(name).module))
    except (jinja2.TemplateSyntaxError, SyntaxError):
        # The file has a fault of its own, which is reported there
        return
    except Exception as error:
        site.note(node, f"{name!r} cannot be imported: {error}")
        return
    for one in node.names if isinstance(node, nodes.FromImport) else ():
        wanted = one[0] if isinstance(one, tuple) else one
        if wanted not in made:
            site.note(node, f"{name!r} has no macro {wanted!r}", errors.did_you_mean(wanted, made))


def check_macro(site: CompileContext, tree: nodes.Template, macro: nodes.Macro) -> None:
    """Note names in a macro that nobody defines: it sees its arguments, its file and the vocabulary, no field."""
    alone = nodes.Template([macro], lineno=macro.lineno)
    alone.set_environment(site.box)
    known = {*_FUNCTIONS, *_top_level(tree.body), *_imported(tree), "caller", "varargs", "kwargs"}
    for name in sorted(undeclared(alone) - known):
        hint = site.undefined(name, known) or "pass it to the macro as an argument"
        site.note(_line_of(macro, name), f"{name!r} is undefined in macro {macro.name!r}", hint)


def _top_level(body: Iterable[nodes.Node]) -> set[str]:
    macros = {node.name for node in body if isinstance(node, nodes.Macro)}
    assigns = [node for node in body if isinstance(node, nodes.Assign | nodes.AssignBlock)]
    return macros | {name.name for one in assigns for name in one.find_all(nodes.Name) if name.ctx == "store"}


def _imported(tree: nodes.Template) -> set[str]:
    names = [one for node in tree.find_all(nodes.FromImport) for one in node.names]
    modules = {node.target for node in tree.find_all(nodes.Import)}
    return modules | {one[1] if isinstance(one, tuple) else one for one in names}


def _check_range(site: CompileContext, call: nodes.Call) -> None:
    arguments = [_power(one) if isinstance(one, nodes.Pow) else constant_of(one) for one in call.args]
    if all(isinstance(one, int) for one in arguments) and 1 <= len(arguments) <= 3:
        try:
            limits.safe_range(*arguments)
        except (limits.CostError, ValueError) as error:
            site.note(call, str(error))


def _power(node: nodes.Pow) -> Any:
    left, right = constant_of(node.left), constant_of(node.right)
    if not isinstance(left, int) or not isinstance(right, int):
        return UNKNOWN
    try:
        return limits.power(left, right)
    except limits.CostError:
        return UNKNOWN


def _line_of(tree: nodes.Node, name: str) -> int:
    return next((node.lineno for node in tree.find_all(nodes.Name) if node.name == name and node.ctx == "load"), 1)


_MARKS = ("{{", "{%", "{#")
_MAX_SIZE = 100_000
# What a text can make Jinja's and Python's compilers raise, besides syntax errors of a template
_UNREADABLE = (jinja2.TemplateError, SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError)


def is_template(value: object) -> bool:
    """Whether a value of the files is a text that Jinja has to read."""
    return isinstance(value, str) and any(mark in value for mark in _MARKS)


def parse(site: CompileContext, text: str) -> nodes.Template | None:
    """The tree of a text; a syntax error is noted at the site and gives None."""
    if len(text) > _MAX_SIZE:
        site.note(1, f"the template has {len(text)} characters, the limit is {_MAX_SIZE}")
        return None
    try:
        return _tree(text)
    except _UNREADABLE as error:
        note(site, error, text)
    return None


def expression_of(text: str) -> nodes.Expr | None:
    """The expression that a text is, with nothing around it but blanks; None when it is none."""
    try:
        body = _tree(text).body
    except _UNREADABLE:
        return None
    parts = [part for node in body for part in getattr(node, "nodes", ()) if not _blank(part)]
    lone = len(parts) == 1 and all(isinstance(node, nodes.Output) for node in body)
    return None if not lone or isinstance(parts[0], nodes.TemplateData) else parts[0]


def surrounded(text: str) -> bool:
    """Whether there is more in a text than one expression or statements, so that it is never empty."""
    try:
        body = _tree(text).body
    except _UNREADABLE:
        return False
    return any(
        isinstance(part, nodes.TemplateData) and not _blank(part)
        for node in body
        if isinstance(node, nodes.Output)
        for part in node.nodes
    )


def _blank(part: nodes.Node) -> bool:
    return isinstance(part, nodes.TemplateData) and not part.data.strip()


def note(site: CompileContext, error: BaseException, source: str = "") -> TypedExpr:
    """Note why the text ``source`` could not be read or compiled."""
    if isinstance(error, RecursionError | MemoryError):
        return site.note(1, "the template is nested too deeply")
    line, hint = 1, ""
    if isinstance(error, jinja2.TemplateSyntaxError):
        line, hint = error.lineno, context.of_syntax(source, error.lineno)
    return site.note(line, (str(getattr(error, "message", None) or error) or "syntax error").rstrip("."), hint)


@functools.lru_cache(1024)
def _tree(text: str) -> nodes.Template:
    # Checks of scenario steps, and then compilation, read the same texts again; nobody changes a tree
    reader = _reader()
    reader.renew()
    return reader.parse(text)


@functools.lru_cache(1)
def _reader() -> sandbox.Sandbox:
    return sandbox.Sandbox({})


def compiled(site: CompileContext, text: str, scope: Mapping[str, TypedExpr], key: bytes) -> TypedExpr:
    """The code of one text: its type is kept if it is one expression, else it is a ``str``."""
    if not is_template(text):
        return TypedExpr(repr(text), "str", len(text))
    tree = parse(site, text)
    if tree is None:
        return TypedExpr("None", "broken")
    try:
        if all(isinstance(node, nodes.Output) for node in tree.body):
            return _output(site, [part for node in tree.body for part in node.nodes], scope)  # type: ignore[attr-defined]
        return _statements(site, tree, text, scope, key)
    except _UNREADABLE as error:
        return note(site, error)


def _output(site: CompileContext, parts: list[nodes.Node], scope: Mapping[str, TypedExpr]) -> TypedExpr:
    translator = expressions.Translator(site, scope)
    real = [part for part in parts if not _blank(part)]
    if len(real) == 1 and not isinstance(real[0], nodes.TemplateData):
        return translator.visit(real[0])
    codes = [(part, translator.visit(part)) for part in parts]
    size = sum(code.extent for _, code in codes)
    if size > limits.CEILING or any(_awkward(code) for part, code in codes if not isinstance(part, nodes.TemplateData)):
        return TypedExpr(f"JOINED(({', '.join(_shown(code) for _, code in codes)},))", "str")
    return TypedExpr(f'f"""{"".join(_piece(part, code) for part, code in codes)}"""', "str", size)


def _awkward(code: TypedExpr) -> bool:
    # What Python 3.11 does not allow between the braces of an f-string
    return "\\" in code.text or "#" in code.text or '"""' in code.text


def _shown(code: TypedExpr) -> str:
    return "now_text" if code.kind == "now" else code.text


def _piece(part: nodes.Node, code: TypedExpr) -> str:
    if not isinstance(part, nodes.TemplateData):
        return f"{{{_shown(code)}}}" if code.text[0] not in "{" else f"{{ {code.text} }}"
    escaped = part.data.encode("unicode_escape").decode().replace('"', '\\"')
    return escaped.replace("{", "{{").replace("}", "}}")


def _statements(
    site: CompileContext, tree: nodes.Template, text: str, scope: Mapping[str, TypedExpr], key: bytes
) -> TypedExpr:
    before = len(site.notes)
    check_tree(site, tree, scope)
    if len(site.notes) > before:
        return TypedExpr("None", "broken")
    given = ", ".join(f"{name!r}: {scope[name].text}" for name in given_names(tree, scope))
    picked = _picks(site, tree, set())
    site.reads.update(site.entities if picked is None else picked & site.entities.keys())
    renderer = site.constant(_renderer(site.box, text, key, len(site.constants)))
    site.spends = True
    return TypedExpr(f"{renderer}(seq, now, {{{given}}}, POOLS)", "str")


def _picks(site: CompileContext, tree: nodes.Template, seen: set[str]) -> set[str] | None:
    """The entities whose rows a text may take, by itself or by what it imports; None when that may be any."""
    found = picks(tree)
    for name in jinja2.meta.find_referenced_templates(tree):
        if found is None or name is None:
            return None
        source = site.box.source(name)
        if name in seen or source is None:
            continue
        seen.add(name)
        further = _picks(site, _tree(source), seen)
        found = None if further is None else found | further
    return found


def _renderer(box: sandbox.Sandbox, text: str, key: bytes, number: int) -> Callable[..., str]:
    box.renew()
    template = box.from_string(text)

    def render(seq: int, now: Any, scope: dict[str, Any], pools: Mapping[str, Any]) -> str:
        box.begin(sandbox.Source(rng.Loose(key, number, seq, box.attempt), now, seq, pools))
        return template.render(scope)

    return render


def imported(site: CompileContext, text: str) -> set[str]:
    """The files under ``templates/`` that a text names."""
    tree = parse(site, text)
    if tree is None:
        return set()
    found = {one for one in jinja2.meta.find_referenced_templates(tree) if one is not None}
    return found | tables_of(tree)


def check_compiled(site: CompileContext, name: str) -> None:
    """Note what only shows when a template file is compiled."""
    site.box.renew()
    try:
        site.box.get_template(name)
    except _UNREADABLE as error:
        note(site, error)
