"""What compiling makes: the source of one batch function, written line by line, and what it becomes.

The function is straight-line Python. Draws, entity rows and the constant parts of the envelope are locals; nothing is
looked up or parsed while events are made.
"""

from __future__ import annotations

import bisect
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jinja2
import orjson

from regstream import errors, spec
from regstream.functions import delivery_faults, limits, lookup, registry, rng
from regstream.templates import context, parse, sandbox
from regstream.templates.context import UNKNOWN, CompileContext, TypedExpr, total

Path = tuple[str, ...]
_OPTIONS = orjson.OPT_UTC_Z
_NOW = re.compile(r"\bnow\b")


class Fault(NamedTuple):
    """A fault inside a template, before it is placed in a file.

    ``path`` leads to the text within its declaration (``("fields", "address", "city")``), or is ``("templates",
    NAME)`` for a template file; ``line`` counts from 1 within that text.
    """

    path: Path
    line: int
    message: str
    hint: str = ""
    severity: errors.Severity = "error"


class Program(NamedTuple):
    """A compiled batch function and the draws it needs.

    ``places`` holds, for each of its lines, the path of the declared text that it came from; ``shown`` the local name
    and the path of each value in ``data``; ``reads_now`` is false when it needs the present time as text only.
    ``reads`` and ``changes`` name the entities whose rows it may see, and those whose rows it changes. One that
    ``moves`` gives each event a time of its own; one that ``lives`` sees rows that come and go, and is given the time
    of the tick for them. One that ``spends`` does what is counted, of which an event may take long.
    """

    function: Callable[..., None]
    layout: rng.Layout
    places: tuple[Path, ...]
    shown: tuple[tuple[str, Path], ...]
    reads_now: bool
    reads: frozenset[str]
    changes: frozenset[str]
    moves: bool
    lives: bool
    spends: bool

    def place(self, error: BaseException) -> str:
        """The dotted place of the template in which ``error`` was raised."""
        return ".".join(self.path(error))

    def path(self, error: BaseException) -> Path:
        """The path of the template in which ``error`` was raised, empty when it was in none."""
        trace, frame, line = error.__traceback__, None, 0
        while trace is not None:
            if trace.tb_frame.f_code is self.function.__code__:
                frame, line = trace.tb_frame, trace.tb_lineno
            trace = trace.tb_next
        if frame is None:
            return ()
        path = self.places[line - 1]
        return self._culprit(frame.f_locals) or path if path == ("fields",) else path

    def _culprit(self, names: Mapping[str, Any]) -> Path | None:
        """The value that JSON cannot carry, of those that were encoded at once."""
        return next((path for name, path in self.shown if json_fault(names.get(name))), None)


def json_fault(value: Any) -> str:
    """Why JSON cannot carry a value, or the empty string."""
    try:
        check_finite(value)
        orjson.dumps(value, _default, _OPTIONS)
    except (TypeError, ValueError, RecursionError, jinja2.TemplateError) as error:
        return cause(error)
    return ""


def cause(error: BaseException) -> str:
    """What failed, in one line; the encoder's own error says less than the one that it wraps."""
    inner = error.__cause__ if isinstance(error, orjson.JSONEncodeError) and error.__cause__ else error
    return f"{type(inner).__name__}: {inner}"


def cure(error: BaseException) -> str:
    """What to do about a template that failed; empty when there is nothing to say that the error does not."""
    inner = error.__cause__ if isinstance(error, orjson.JSONEncodeError) and error.__cause__ else error
    return next((hint for kind, part, hint in _CURES if isinstance(inner, kind) and part in str(inner)), "")


_CURES: tuple[tuple[type[BaseException], str, str], ...] = (
    (lookup.NoRowError, "", "until a row comes into it there is no event; pick without state takes any row"),
    (ZeroDivisionError, "", "write a / b if b else 0"),
    (jinja2.UndefinedError, "no element", "the list is too short: take its index % (list | length)"),
    (jinja2.UndefinedError, "", "test it first, or write x | default(0)"),
    (TypeError, "64-bit", "an event has whole numbers of 64 bits; larger ones are texts, | string"),
    (TypeError, "function_or_method", "call it, with ()"),
    (TypeError, "as JSON", "an event has texts, numbers, true, false, null, lists and mappings"),
    (TypeError, "", "| int, | float and | string make another type of a value"),
)


def check_finite(value: Any) -> None:
    """Refuse what JSON has no number for, which the encoder would write as null. Raises ValueError."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a number that an event can carry")
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            # Most parts are texts, whole numbers or null
            if part.__class__ not in _PLAIN:
                check_finite(part)


_PLAIN = {str, int, bool, type(None)}


def sayable(value: Any) -> str:
    """The value as a text that can be written down. Raises UnicodeEncodeError for one with half a character in it."""
    made = str(value)
    made.encode()
    return made


def _default(value: Any) -> Any:
    """What orjson cannot write by itself, as JSON would show it; undefined values raise UndefinedError."""
    if isinstance(value, registry.Instant | jinja2.Undefined):
        return str(value)
    if isinstance(value, (range, tuple, *limits.VIEWS)):
        return list(limits.bounded(value))
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


def _known(code: TypedExpr, site: CompileContext) -> Any:
    """The value of a template that is a constant, else UNKNOWN."""
    number = code.text.removeprefix("-")
    return int(code.text) if number.isdigit() else site.constants.get(code.text, UNKNOWN)


def _loaded(value: Any) -> dict[str, Any]:
    data = orjson.loads(value) if isinstance(value, str) else value
    if not isinstance(data, dict):
        raise ValueError("the template must render a JSON object")
    return dict(data)


def _too_large(value: bytes) -> None:
    raise limits.CostError(f"the event has {len(value)} bytes, the limit is {limits.MAX_EVENT}")


_FINITE = {"str", "int", "bool", "none", "now"}
"""Kinds of values in which there is no NaN and no infinity."""


class Builder:
    """Writes the body of one program line by line and remembers where each line came from.

    ``rows`` holds what ``with`` bound; ``unbounded`` says whether a value may be NaN or infinite, or have such a part.
    """

    def __init__(self, box: sandbox.Sandbox, entities: Mapping[str, spec.EntitySpec], key: bytes) -> None:
        self.site = CompileContext(box, entities)
        self.faults: list[Fault] = []
        self.scope = {
            "now": TypedExpr("now", "now"),
            "seq": TypedExpr("seq", "int"),
            "index": TypedExpr("index", "int"),
            "stream": TypedExpr("STREAM", "str", limits.SMALL),
        }
        self.rows: dict[str, TypedExpr] = {}
        self.unbounded = False
        self.moves = False
        self.followed: str | None = None
        self.key = key
        self._lines: list[tuple[str, Path]] = []
        self._shown: list[tuple[str, Path]] = []

    def line(self, source: str, path: Path = ()) -> None:
        """Add one line of the loop's body."""
        self._lines.append((source, path))

    def compiled(self, value: Any, path: Path, scope: Mapping[str, TypedExpr] | None = None) -> TypedExpr:
        """The code of one declared value; nested mappings and lists are written out, their faults kept."""
        scope = self.scope if scope is None else scope
        if isinstance(value, dict):
            return self.mapping(value, path, dict(scope))
        if isinstance(value, list):
            parts = [self.shown(self.compiled(one, (*path, str(n)), scope)) for n, one in enumerate(value)]
            return self.site.fitting(TypedExpr(f"[{', '.join(part.text for part in parts)}]", "list", total(parts)))
        if not parse.is_template(value):
            return self._constant(value, path)
        code = parse.compiled(self.site, value, scope, self.key)
        self.take_notes(path)
        self._check_value(_known(code, self.site), path)
        return code

    def take_notes(self, path: Path) -> None:
        """Make faults at ``path`` of what was noted while its text was compiled."""
        self.faults += [Fault(path, *note) for note in self.site.notes]
        self.site.notes.clear()

    def _constant(self, value: Any, path: Path) -> TypedExpr:
        self._check_value(value, path)
        if isinstance(value, str):
            return TypedExpr(repr(value), "str", len(value))
        return TypedExpr(self.site.constant(value), type(value).__name__ if value is not None else "none")

    def _check_value(self, value: Any, path: Path) -> None:
        problem = json_fault(value) if path[0] == "fields" and value is not UNKNOWN else ""
        if problem:
            self.faults.append(Fault(path, 1, problem))

    def mapping(self, values: Mapping[str, Any], path: Path, scope: dict[str, TypedExpr]) -> TypedExpr:
        """A mapping of declared values, each of which the later ones may name: they are added to ``scope``."""
        parts, outer = [], self.site.later
        for key, value in values.items():
            self.site.later = context.Later(values, key, "field", outer)
            code = self.compiled(value, (*path, key), scope)
            scope[key] = code._replace(text=self.bind(code, (*path, key)))
            self._shown.append((scope[key].text, (*path, key)))
            self.unbounded |= code.kind not in _FINITE
            parts.append((key, self.shown(scope[key])))
        self.site.later = outer
        written = ", ".join(f"{key!r}: {part.text}" for key, part in parts)
        size = total(part for _, part in parts) + sum(len(key) for key, _ in parts)
        return self.site.fitting(TypedExpr(f"{{{written}}}", "dict", size))

    def bind(self, code: TypedExpr, path: Path) -> str:
        """Give a value a local name."""
        if code.text.isidentifier():
            return code.text
        name = f"v{len(self._lines)}"
        self.line(f"{name} = {code.text}", path)
        return name

    @staticmethod
    def shown(code: TypedExpr) -> TypedExpr:
        """A value as it stands in data: the present time as text, which is made once a batch."""
        return code._replace(text="now_text") if code.kind == "now" else code

    def fields(self, fields: Mapping[str, Any]) -> TypedExpr:
        """The mapping of all top fields."""
        return self.mapping(fields, ("fields",), self.scope)

    def finish(self, name: str, signature: str, prologue: Iterable[str], moment: str = "") -> Program | None:
        """The program, or None when there are faults.

        ``moment`` names what each event is given besides its draws; the batch has it in ``moments``.
        """
        if any(fault.severity == "error" for fault in self.faults):
            return None
        site = self.site
        living = sorted(name for name in site.reads if site.entities[name].states) if moment else []
        moment += ", due" * bool(living) + ", row, state, was" * (self.followed is not None)
        head = [f"def batch({signature}):", *(f"    {one}" for one in prologue)]
        head += [f"    lives{number} = POOLS.lives[{name!r}]" for number, name in enumerate(living)]
        head += [f"    {local} = POOLS[{entity!r}]" for entity, local in site.pools.items()]
        names = [f"d{n}" for n in range(site.doubles)] + [f"b{n}" for n in range(site.raws)]
        drawn = f"({', '.join(names)},)" if names else "_"
        head.append(
            f"    for {drawn}, ({moment}) in zip(records, moments):" if moment else f"    for {drawn} in records:"
        )
        head.append("        seq += 1")
        head += [f"        if due >= lives{number}.next: lives{number}.advance(due)" for number in range(len(living))]
        head += ["        RENEW()"] * site.spends
        source = "\n".join([*head, *(f"        {line}" for line, _ in self._lines)])
        places = (((),) * len(head)) + tuple(path for _, path in self._lines)
        code = self._code(source, name)
        if code is None:
            return None
        space: dict[str, Any] = {**_SPACE, **_guards(site.box), **site.constants, "STREAM": name}
        exec(code, space)  # noqa: S102 - the source is written here, from parsed templates
        reads_now = any(_NOW.search(line) for line, _ in self._lines)
        layout = rng.Layout(site.doubles, site.raws)
        shown, reads, changes = tuple(self._shown), frozenset(site.reads), frozenset(site.changes)
        return Program(
            space["batch"], layout, places, shown, reads_now, reads, changes, self.moves, bool(living), site.spends
        )

    def _code(self, source: str, name: str) -> types.CodeType | None:
        try:
            return compile(source, f"<stream {name}>", "exec")
        except (SyntaxError, RecursionError, MemoryError, OverflowError):
            self.faults += list(self._broken()) or [Fault(("fields",), 1, "the templates are too large")]
            return None

    def _broken(self) -> Iterable[Fault]:
        for line, path in self._lines:
            try:
                compile(line, "", "exec")
            except (SyntaxError, RecursionError, MemoryError, OverflowError) as error:
                why = str(getattr(error, "msg", "")) or "nested too deeply"
                yield Fault(path, 1, f"the template cannot be compiled: {why}")


_SPACE: dict[str, Any] = {
    "__builtins__": {
        "zip": zip, "len": len, "int": int, "round": round, "slice": slice, "dict": dict,
    },
    "BISECT": bisect.bisect_right,
    "VARIANT": "89ab",
    "TIMES": limits.times,
    "POWER": limits.power,
    "MODULO": limits.modulo,
    "PLUS": limits.plus,
    "JOINED": limits.joined,
    "BOUNDED": limits.bounded,
    "ROUNDED": limits.rounded,
    "RANGE": limits.safe_range,
    "FINITE": check_finite,
    "MOVED": delivery_faults.moved,
    "TOO_LARGE": _too_large,
    "DUMPS": orjson.dumps,
    "STR": str,
    "FLOAT": float,
    "LOADED": _loaded,
    "TEXT": sayable,
    "TEXT_OR_NONE": lambda value: None if value is None else sayable(value),
    "DEFAULT": _default,
    "OPTIONS": _OPTIONS,
}  # fmt: skip


def _guards(box: sandbox.Sandbox) -> dict[str, Any]:
    return {
        "ATTR": box.value, "METHOD_ATTR": box.getattr, "ITEM": box.item, "METHOD_ITEM": box.getitem,
        "CALL": box.apply, "UNDEFINED": box.undefined, "RENEW": box.renew, "WEIGHED": box.weighed,
    }  # fmt: skip
