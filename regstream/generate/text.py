"""One template text of a declaration as Python: a lone expression, text around expressions, or statements."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import jinja2.meta
from jinja2 import nodes

from regstream import errors
from regstream.generate import draws, expression, sandbox, vocabulary
from regstream.generate.site import NUMBERS, UNKNOWN, Code, Site, constant_of

_MARKS = ("{{", "{%", "{#")
_MAX_SIZE = 100_000


def is_template(value: object) -> bool:
    """Whether a value of the files is a text that Jinja has to read."""
    return isinstance(value, str) and any(mark in value for mark in _MARKS)


def parse(site: Site, text: str) -> nodes.Template | None:
    """The tree of a text; a syntax error is noted at the site and gives None."""
    if len(text) > _MAX_SIZE:
        site.note(1, f"the template has {len(text)} characters, the limit is {_MAX_SIZE}")
        return None
    try:
        return _tree(text)
    except jinja2.TemplateSyntaxError as error:
        site.note(error.lineno, (error.message or "syntax error").rstrip("."))
    except RecursionError:
        site.note(1, "the template is nested too deeply")
    return None


@functools.lru_cache(1024)
def _tree(text: str) -> nodes.Template:
    # Checks of scenario steps, and then compilation, read the same texts again; nobody changes a tree
    return _reader().parse(text)


@functools.lru_cache(1)
def _reader() -> sandbox.Sandbox:
    return sandbox.Sandbox({})


def compiled(site: Site, text: str, scope: Mapping[str, Code], key: bytes) -> Code:
    """The code of one text: its type is kept if it is one expression, else it is a ``str``."""
    if not is_template(text):
        return Code(repr(text), "str")
    tree = parse(site, text)
    if tree is None:
        return Code("None", "broken")
    if all(isinstance(node, nodes.Output) for node in tree.body):
        return _output(site, [part for node in tree.body for part in node.nodes], scope)  # type: ignore[attr-defined]
    return _statements(site, tree, text, scope, key)


def _output(site: Site, parts: list[nodes.Node], scope: Mapping[str, Code]) -> Code:
    translator = expression.Translator(site, scope)
    real = [part for part in parts if not (isinstance(part, nodes.TemplateData) and not part.data.strip())]
    if len(real) == 1 and not isinstance(real[0], nodes.TemplateData):
        return translator.visit(real[0])
    codes = [(part, translator.visit(part)) for part in parts]
    if any(_awkward(code.text) for part, code in codes if not isinstance(part, nodes.TemplateData)):
        return Code(f"JOINED(({', '.join(code.text for _, code in codes)},))", "str")
    text = f'f"""{"".join(_piece(part, code) for part, code in codes)}"""'
    # Two texts in one could double a value with each field, so what they make is measured; one only adds to it
    if sum(code.kind not in NUMBERS for part, code in codes if not isinstance(part, nodes.TemplateData)) < 2:
        return Code(text, "str")
    name = site.temporary()
    return Code(f"({name} if len({name} := {text}) < {sandbox.MAX_TEXT} else BOUNDED({name}))", "str")


def _awkward(code: str) -> bool:
    # What Python 3.11 does not allow between the braces of an f-string
    return "\\" in code or "#" in code or '"""' in code


def _piece(part: nodes.Node, code: Code) -> str:
    if not isinstance(part, nodes.TemplateData):
        return f"{{{code.text}}}" if code.text[0] not in "{" else f"{{ {code.text} }}"
    escaped = part.data.encode("unicode_escape").decode().replace('"', '\\"')
    return escaped.replace("{", "{{").replace("}", "}}")


def _statements(site: Site, tree: nodes.Template, text: str, scope: Mapping[str, Code], key: bytes) -> Code:
    check_tree(site, tree, scope)
    if site.notes:
        return Code("None", "broken")
    called = {node.node.name for node in tree.find_all(nodes.Call) if isinstance(node.node, nodes.Name)}
    wanted = (jinja2.meta.find_undeclared_variables(tree) & set(scope)) - (called & set(_FUNCTIONS))
    names = sorted(wanted | {"now", "seq"})
    given = ", ".join(f"{name!r}: {scope[name].text}" for name in names)
    renderer = site.constant(_renderer(site.box, text, key, len(site.constants)))
    return Code(f"{renderer}(seq, {{{given}}}, POOLS)", "str")


def _renderer(box: sandbox.Sandbox, text: str, key: bytes, number: int) -> Callable[..., str]:
    template = box.from_string(text)

    def render(seq: int, scope: dict[str, Any], pools: Mapping[str, Any]) -> str:
        box.begin(draws.Loose(key, number, seq), scope, pools)
        return template.render(scope)

    return render


_FUNCTIONS = {*vocabulary.FUNCTIONS, *sandbox.GLOBALS}


def check_tree(site: Site, tree: nodes.Template, scope: Mapping[str, Code] | None) -> None:
    """Note what is wrong in a text with statements: filters, tests, private names, imports and, with a scope, names."""
    for part in tree.find_all((nodes.Filter, nodes.Test, nodes.Getattr, nodes.Getitem)):
        _check_node(site, part)
    for statement in tree.find_all((nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends)):
        _check_import(site, statement)
    if scope is not None:
        known = {*scope, *_FUNCTIONS}
        for name in sorted(jinja2.meta.find_undeclared_variables(tree) - known):
            site.note(_line_of(tree, name), f"{name!r} is undefined", errors.did_you_mean(name, known))
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == "range":
            _check_range(site, call)


def _check_node(site: Site, node: nodes.Node) -> None:
    tables: tuple[tuple[Any, Any], ...] = ((nodes.Filter, site.box.filters), (nodes.Test, site.box.tests))
    for kind, table in tables:
        if isinstance(node, kind) and node.name not in table:
            what = "filter" if kind is nodes.Filter else "test"
            site.note(node, f"no {what} named {node.name!r}", errors.did_you_mean(node.name, table))
    if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
        site.note(node, f"{node.attr!r} is not allowed in a template", "private names are out of reach")
    if isinstance(node, nodes.Getitem) and str(constant_of(node.arg)).startswith("_"):
        site.note(node, f"{constant_of(node.arg)!r} is not allowed in a template", "private names are out of reach")


def _check_import(site: Site, node: Any) -> None:
    name = constant_of(node.template)
    if not isinstance(name, str):
        site.note(node, "the name of an imported template must be a text")
        return
    files = site.box.files()
    if name not in files:
        site.note(node, f"no template file {name!r}", errors.did_you_mean(name, files))
    elif isinstance(node, nodes.FromImport):
        made = exported(site.box, name)
        for one in node.names:
            wanted = one[0] if isinstance(one, tuple) else one
            if wanted not in made:
                site.note(node, f"{name!r} has no macro {wanted!r}", errors.did_you_mean(wanted, made))


def exported(box: sandbox.Sandbox, name: str) -> set[str]:
    """The names that a template file offers to imports: its macros and what it sets outside of them."""
    try:
        return _top_level(box.parse(box.source(name) or ""))
    except jinja2.TemplateError:
        return set()


def _top_level(tree: nodes.Template) -> set[str]:
    macros = {node.name for node in tree.body if isinstance(node, nodes.Macro)}
    assigns = [node for node in tree.body if isinstance(node, nodes.Assign | nodes.AssignBlock)]
    return macros | {name.name for one in assigns for name in one.find_all(nodes.Name) if name.ctx == "store"}


def imported(site: Site, text: str) -> set[str]:
    """The template files that a text names."""
    tree = parse(site, text)
    if tree is None:
        return set()
    return {one for one in jinja2.meta.find_referenced_templates(tree) if one is not None}


def check_macro(site: Site, tree: nodes.Template, macro: nodes.Macro) -> None:
    """Note names in a macro that nobody defines: it sees its arguments, its file and the vocabulary, no field."""
    alone = nodes.Template([macro], lineno=macro.lineno)
    alone.set_environment(site.box)
    inside = jinja2.meta.find_undeclared_variables(alone)
    imports = {
        one[1] if isinstance(one, tuple) else one for node in tree.find_all(nodes.FromImport) for one in node.names
    } | {node.target for node in tree.find_all(nodes.Import)}
    known = {*_FUNCTIONS, *_top_level(tree), *imports, "caller", "varargs", "kwargs"}
    for name in sorted(inside - known):
        hint = errors.did_you_mean(name, known) or "pass it to the macro as an argument"
        site.note(_line_of(macro, name), f"{name!r} is undefined in macro {macro.name!r}", hint)


def _check_range(site: Site, call: nodes.Call) -> None:
    arguments = [constant_of(one) if not isinstance(one, nodes.Pow) else _power(one) for one in call.args]
    if all(isinstance(one, int) for one in arguments) and 1 <= len(arguments) <= 3:
        try:
            sandbox.safe_range(*arguments)
        except (sandbox.CostError, ValueError) as error:
            site.note(call, str(error))


def _power(node: nodes.Pow) -> Any:
    left, right = constant_of(node.left), constant_of(node.right)
    if not isinstance(left, int) or not isinstance(right, int):
        return UNKNOWN
    try:
        return sandbox.power(left, right)
    except sandbox.CostError:
        return UNKNOWN


def _line_of(tree: nodes.Node, name: str) -> int:
    return next((node.lineno for node in tree.find_all(nodes.Name) if node.name == name and node.ctx == "load"), 1)
