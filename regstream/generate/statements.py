"""Texts with statements, which Jinja renders itself: what can be wrong with them beyond their syntax."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jinja2
import jinja2.meta
from jinja2 import nodes

from regstream import errors
from regstream.generate import calls, cost, expression, sandbox, vocabulary
from regstream.generate.site import UNKNOWN, Code, Site, constant_of

_FUNCTIONS = {*vocabulary.FUNCTIONS, *sandbox.GLOBALS}


def given(tree: nodes.Template, scope: Mapping[str, Code]) -> list[str]:
    """The names of the scope that a text uses; a function that it calls is never one of them."""
    calls = {node.node.name for node in tree.find_all(nodes.Call) if isinstance(node.node, nodes.Name)}
    used = {node.name for node in tree.find_all(nodes.Name)}
    return sorted(used & set(scope) - (calls & _FUNCTIONS))


def picks(tree: nodes.Template) -> set[str] | None:
    """The names of the entities whose rows a text may take by itself; None when that may be any."""
    calls = [node for node in tree.find_all(nodes.Call) if isinstance(node.node, nodes.Name)]
    taking = [node for node in calls if node.node.name in vocabulary.ROWS]  # type: ignore[attr-defined]
    if len(taking) < sum(node.name in vocabulary.ROWS for node in tree.find_all(nodes.Name)):
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


def check_tree(site: Site, tree: nodes.Template, scope: Mapping[str, Code] | None) -> None:
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


def _check_node(site: Site, node: nodes.Node) -> None:
    problem = expression.unknown_filter(node, site.box) if isinstance(node, nodes.Filter | nodes.Test) else None
    if problem:
        site.note(node, *problem)
    private = node.attr if isinstance(node, nodes.Getattr) else ""
    if isinstance(node, nodes.Getitem):
        private = str(constant_of(node.arg))
    if private.startswith("_"):
        site.note(node, f"{private!r} is not allowed in a template", "private names are out of reach")


def _check_names(site: Site, tree: nodes.Template, scope: Mapping[str, Code]) -> None:
    known = {*scope, *_FUNCTIONS}
    for name in sorted(undeclared(tree) - known):
        site.note(_line_of(tree, name), f"{name!r} is undefined", site.undefined(name, known))


def _check_functions(site: Site, tree: nodes.Template, names: set[str]) -> None:
    """Functions are called by their names, never handed on: what they print would be another text at every start."""
    callees = {id(call.node) for call in tree.find_all(nodes.Call)}
    for node in tree.find_all(nodes.Name):
        if node.name == "self":
            site.note(node, "'self' is not available in a template")
        elif node.name in names and id(node) not in callees:
            site.note(node, f"{node.name} is a function", f"write {node.name}(…)")


def _check_members(site: Site, tree: nodes.Template, rows: Mapping[str, Code]) -> None:
    for node in tree.find_all(nodes.Getattr):
        row = rows.get(node.node.name) if isinstance(node.node, nodes.Name) else None
        if row is not None and row.kind.startswith("row:"):
            expression.Translator(site, rows).visit(node)


def _check_call(site: Site, call: nodes.Call, name: str, scope: Mapping[str, Code] | None) -> None:
    if name == "range":
        _check_range(site, call)
    if name not in vocabulary.FUNCTIONS:
        return
    problem, hint = calls.fault(name, call), ""
    if name in vocabulary.ROWS and not problem and scope is not None and call.args:
        entity = constant_of(call.args[0])
        problem, hint = calls.unknown_entity(entity, site.entities) if entity is not UNKNOWN else ("", "")
        if isinstance(entity, str) and not problem:
            problem, hint = calls.unknown_state(call, site.entities[entity])
    if name in vocabulary.TABLES and not problem:
        problem, hint = calls.missing(call, site.box)
    if problem:
        site.note(call, problem, hint)


def tables_of(tree: nodes.Template) -> set[str]:
    """The CSV files that a text draws from."""
    found: set[Any] = set()
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name in vocabulary.TABLES and call.args:
            found.add(constant_of(call.args[0]))
    return {name for name in found if isinstance(name, str)}


def _check_import(site: Site, node: Any) -> None:
    name = constant_of(node.template)
    files = site.box.files()
    if not isinstance(name, str):
        site.note(node, "the name of an imported template must be a text")
    elif name not in files:
        site.note(node, f"no template file {name!r}", errors.did_you_mean(name, files))
    elif isinstance(node, nodes.Import | nodes.FromImport):
        _check_exports(site, node, name)


def _check_exports(site: Site, node: nodes.Import | nodes.FromImport, name: str) -> None:
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


def check_macro(site: Site, tree: nodes.Template, macro: nodes.Macro) -> None:
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


def _check_range(site: Site, call: nodes.Call) -> None:
    arguments = [_power(one) if isinstance(one, nodes.Pow) else constant_of(one) for one in call.args]
    if all(isinstance(one, int) for one in arguments) and 1 <= len(arguments) <= 3:
        try:
            cost.safe_range(*arguments)
        except (cost.CostError, ValueError) as error:
            site.note(call, str(error))


def _power(node: nodes.Pow) -> Any:
    left, right = constant_of(node.left), constant_of(node.right)
    if not isinstance(left, int) or not isinstance(right, int):
        return UNKNOWN
    try:
        return cost.power(left, right)
    except cost.CostError:
        return UNKNOWN


def _line_of(tree: nodes.Node, name: str) -> int:
    return next((node.lineno for node in tree.find_all(nodes.Name) if node.name == name and node.ctx == "load"), 1)
