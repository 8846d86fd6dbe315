"""One template text of a declaration as Python: a lone expression, text around expressions, or statements."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import jinja2.meta
from jinja2 import nodes

from regstream.generate import cost, draws, expression, hints, sandbox, statements
from regstream.generate.site import Code, Site

_MARKS = ("{{", "{%", "{#")
_MAX_SIZE = 100_000
# What a text can make Jinja's and Python's compilers raise, besides syntax errors of a template
_UNREADABLE = (jinja2.TemplateError, SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError)


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


def note(site: Site, error: BaseException, source: str = "") -> Code:
    """Note why the text ``source`` could not be read or compiled."""
    if isinstance(error, RecursionError | MemoryError):
        return site.note(1, "the template is nested too deeply")
    line, hint = 1, ""
    if isinstance(error, jinja2.TemplateSyntaxError):
        line, hint = error.lineno, hints.of_syntax(source, error.lineno)
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


def compiled(site: Site, text: str, scope: Mapping[str, Code], key: bytes) -> Code:
    """The code of one text: its type is kept if it is one expression, else it is a ``str``."""
    if not is_template(text):
        return Code(repr(text), "str", len(text))
    tree = parse(site, text)
    if tree is None:
        return Code("None", "broken")
    try:
        if all(isinstance(node, nodes.Output) for node in tree.body):
            return _output(site, [part for node in tree.body for part in node.nodes], scope)  # type: ignore[attr-defined]
        return _statements(site, tree, text, scope, key)
    except _UNREADABLE as error:
        return note(site, error)


def _output(site: Site, parts: list[nodes.Node], scope: Mapping[str, Code]) -> Code:
    translator = expression.Translator(site, scope)
    real = [part for part in parts if not _blank(part)]
    if len(real) == 1 and not isinstance(real[0], nodes.TemplateData):
        return translator.visit(real[0])
    codes = [(part, translator.visit(part)) for part in parts]
    size = sum(code.extent for _, code in codes)
    if size > cost.CEILING or any(_awkward(code) for part, code in codes if not isinstance(part, nodes.TemplateData)):
        return Code(f"JOINED(({', '.join(_shown(code) for _, code in codes)},))", "str")
    return Code(f'f"""{"".join(_piece(part, code) for part, code in codes)}"""', "str", size)


def _awkward(code: Code) -> bool:
    # What Python 3.11 does not allow between the braces of an f-string
    return "\\" in code.text or "#" in code.text or '"""' in code.text


def _shown(code: Code) -> str:
    return "now_text" if code.kind == "now" else code.text


def _piece(part: nodes.Node, code: Code) -> str:
    if not isinstance(part, nodes.TemplateData):
        return f"{{{_shown(code)}}}" if code.text[0] not in "{" else f"{{ {code.text} }}"
    escaped = part.data.encode("unicode_escape").decode().replace('"', '\\"')
    return escaped.replace("{", "{{").replace("}", "}}")


def _statements(site: Site, tree: nodes.Template, text: str, scope: Mapping[str, Code], key: bytes) -> Code:
    before = len(site.notes)
    statements.check_tree(site, tree, scope)
    if len(site.notes) > before:
        return Code("None", "broken")
    given = ", ".join(f"{name!r}: {scope[name].text}" for name in statements.given(tree, scope))
    picked = _picks(site, tree, set())
    site.reads.update(site.entities if picked is None else picked & site.entities.keys())
    renderer = site.constant(_renderer(site.box, text, key, len(site.constants)))
    site.spends = True
    return Code(f"{renderer}(seq, now, {{{given}}}, POOLS)", "str")


def _picks(site: Site, tree: nodes.Template, seen: set[str]) -> set[str] | None:
    """The entities whose rows a text may take, by itself or by what it imports; None when that may be any."""
    found = statements.picks(tree)
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
        box.begin(sandbox.Source(draws.Loose(key, number, seq, box.attempt), now, seq, pools))
        return template.render(scope)

    return render


def imported(site: Site, text: str) -> set[str]:
    """The files under ``templates/`` that a text names."""
    tree = parse(site, text)
    if tree is None:
        return set()
    found = {one for one in jinja2.meta.find_referenced_templates(tree) if one is not None}
    return found | statements.tables_of(tree)


def check_compiled(site: Site, name: str) -> None:
    """Note what only shows when a template file is compiled."""
    site.box.renew()
    try:
        site.box.get_template(name)
    except _UNREADABLE as error:
        note(site, error)
