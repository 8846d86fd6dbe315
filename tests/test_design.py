"""The design, held by the source text itself: who imports whom, what is bounded, who reads the clock, what is said.

Each rule takes one module and gives the ways in which it is broken. It is tried on made-up text first, so that a rule
which can no longer fail is seen.
"""

from __future__ import annotations

import ast
import collections
import dataclasses
import graphlib
import itertools
import re
import sys
from collections.abc import Callable, Iterator

import pytest

from tests import support

# A room imports only rooms that stand before it.
# fmt: off
ORDER = [
    "sanitize", "errors", "spec", "event", "credentials", "settings", "schedule",
    "functions", "templates", "schema", "generator", "config", "plan", "scenario",
    "logs", "tracing", "broker", "store", "hub", "sdnotify",
    "engine", "reloader", "server", "leadership", "wiring", "daemon", "client", "cli", "__main__",
]
# fmt: on
# The rooms, or the modules, in which a third-party library may be imported; what is not here may not be at all.
LIBRARIES = {
    "pydantic": {"spec", "credentials", "settings", "config", "server"},
    "jinja2": {"functions.limits", "templates", "schema", "generator"},
    "faker": {"functions"},
    "orjson": {"templates", "generator", "broker.codec", "broker.recovery", "store", "hub", "server", "logs"},
    "pydantic_core": {"config", "server"},
    "ruamel": {"config"},
    "_ruamel_yaml": {"config"},
    "apscheduler": {"schedule"},
    "holidays": {"schedule.cron"},
    "aiokafka": {"broker.kafka"},
    "psycopg": {"store"},
    "psycopg_pool": {"store"},
    "watchfiles": {"reloader"},
    "sanic": {"server"},
    "limits": {"server.security.auth"},
    "socketio": {"server.transports.socketio.adapter"},
    "engineio": {"server.transports.socketio.adapter", "server.transports.socketio.polling"},
    "prometheus_client": {"server"},
    "typer": {"cli"},
    "opentelemetry": {"tracing"},
    "requests": {"tracing"},
    "websockets": {"server", "client", "cli.probes"},
}
TIMELESS = {
    "functions",
    "templates",
    "schema",
    "generator",
    "plan",
    "scenario",
    "schedule",
    "broker",
    "store",
    "hub",
    "engine",
    "client",
}
CLOCKS = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "localtime", "gmtime", "sleep"},
    "datetime": {"now", "utcnow", "today"},
}
LONGEST = 500


@dataclasses.dataclass(frozen=True)
class Module:
    """One module: its dotted name without the package's, its text, and whether it is a package's ``__init__``."""

    name: str
    text: str
    is_package: bool = False

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


def modules() -> list[Module]:
    found = []
    for path in sorted(support.PACKAGE.rglob("*.py")):
        parts = path.relative_to(support.PACKAGE).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found.append(Module(name, path.read_text(encoding="utf-8"), is_package))
    return found


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that is imported, at any depth; ``from a import b`` is ``a.b``."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    here = ["regstream", *filter(None, module.name.split("."))]
    kept = here[: len(here) - node.level + module.is_package]
    return ".".join([*kept, *filter(None, [node.module])])


def imports_point_upwards(module: Module) -> Iterator[str]:
    for line, name in imports(module):
        package, _, rest = name.partition(".")
        room = rest.partition(".")[0]
        if package != "regstream" or not room or room.startswith("__") or room == module.room:
            continue
        if room not in ORDER:
            yield f"{line}: imports {name}, which has no place in the order of rooms"
        elif module.room not in ORDER or ORDER.index(room) > ORDER.index(module.room):
            yield f"{line}: imports {name}, which does not stand above {module.room or 'the package itself'}"


def private_names_stay_in_their_room(module: Module) -> Iterator[str]:
    for line, name in imports(module):
        package, _, rest = name.partition(".")
        room, last = rest.partition(".")[0], rest.rpartition(".")[2]
        if package == "regstream" and room != module.room and last.startswith("_") and not last.startswith("__"):
            yield f"{line}: imports {name}, which is private"


def libraries_keep_to_their_rooms(module: Module) -> Iterator[str]:
    for line, name in imports(module):
        library = name.partition(".")[0]
        if library == "regstream" or library in sys.stdlib_module_names:
            continue
        # A module that has become a package is still the same place
        places = itertools.accumulate(module.name.split("."), "{}.{}".format)
        if LIBRARIES.get(library, set()).isdisjoint(places):
            yield f"{line}: {library} may not be imported in {module.name}"


def no_module_is_too_long(module: Module) -> Iterator[str]:
    count = len(module.text.splitlines())
    if count > LONGEST:
        yield f"{count} lines, at most {LONGEST}"


def commit_cannot_yield(module: Module) -> Iterator[str]:
    yielding = ast.Await | ast.AsyncFor | ast.AsyncWith | ast.Yield | ast.YieldFrom
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not re.match("_*commit", node.name):
            continue
        inside = [one for one in ast.walk(node) if isinstance(one, yielding)]
        if isinstance(node, ast.AsyncFunctionDef) or inside:
            yield f"{node.lineno}: {node.name} can yield"


def time_and_chance_are_arguments(module: Module) -> Iterator[str]:
    if module.room not in TIMELESS:
        return
    names = _names(module)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            dotted = _dotted(node, names)
            if _is_clock(dotted) or _is_chance(dotted):
                yield f"{node.lineno}: uses {dotted}"


def _names(module: Module) -> dict[str, str]:
    """What each imported name stands for: ``import random as r`` and ``from time import time as t`` too."""
    found = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value, names)):
        return f"{base}.{node.attr}"
    return ""


def _is_clock(dotted: str) -> bool:
    first, _, rest = dotted.partition(".")
    return rest.rpartition(".")[2] in CLOCKS.get(first, ())


def _is_chance(dotted: str) -> bool:
    # A Random with a seed of its own is an argument like any other; the module's own functions share one state.
    return dotted.startswith("random.") and not re.match(r"random\.Random\b", dotted)


def what_is_public_has_a_docstring(module: Module) -> Iterator[str]:
    if not ast.get_docstring(module.tree):
        yield "1: the module has no docstring"
    yield from _undocumented(module.tree)


def _undocumented(parent: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node) and not _is_variant(node):
            yield f"{node.lineno}: {node.name} has no docstring"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented(node)


def _is_variant(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """An overload, a setter, an override: its documentation stands elsewhere."""
    marks = {ast.unparse(one).rpartition(".")[2] for one in node.decorator_list}
    return bool(marks & {"overload", "setter", "deleter", "override"})


def nothing_is_left_for_later(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.text.splitlines(), 1):
        if re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", line):
            yield f"{number}: {line.strip()}"


Rule = Callable[[Module], Iterator[str]]
RULES: list[Rule] = [
    imports_point_upwards,
    private_names_stay_in_their_room,
    libraries_keep_to_their_rooms,
    no_module_is_too_long,
    commit_cannot_yield,
    time_and_chance_are_arguments,
    what_is_public_has_a_docstring,
    nothing_is_left_for_later,
]

BROKEN: list[tuple[Rule, Module]] = [
    (imports_point_upwards, Module("spec", "from regstream import settings")),
    (imports_point_upwards, Module("hub", "import regstream.engine")),
    (imports_point_upwards, Module("templates.compile", "def f():\n    from regstream.config import load")),
    (imports_point_upwards, Module("broker", "from ..engine import Engine", is_package=True)),
    (imports_point_upwards, Module("broker.simulated", "from .. import hub")),
    (imports_point_upwards, Module("plan", "if TYPE_CHECKING:\n    from regstream import engine")),
    (imports_point_upwards, Module("", "from regstream import errors", is_package=True)),
    (imports_point_upwards, Module("cli", "from regstream import helpers")),
    (imports_point_upwards, Module("helpers", "from regstream import errors")),
    (private_names_stay_in_their_room, Module("cli", "from regstream.errors import _near")),
    (private_names_stay_in_their_room, Module("cli", "from .errors import _near")),
    (libraries_keep_to_their_rooms, Module("hub", "import sanic")),
    (libraries_keep_to_their_rooms, Module("engine", "def f():\n    from jinja2.sandbox import SandboxedEnvironment")),
    (libraries_keep_to_their_rooms, Module("cli", "import requests")),
    (libraries_keep_to_their_rooms, Module("server.app", "import ruamel.yaml")),
    (libraries_keep_to_their_rooms, Module("broker", "import aiokafka", is_package=True)),
    (libraries_keep_to_their_rooms, Module("broker.spool", "from aiokafka import errors")),
    (libraries_keep_to_their_rooms, Module("broker.kafkaesque", "import aiokafka")),
    (libraries_keep_to_their_rooms, Module("hub.kafka", "import aiokafka")),
    (no_module_is_too_long, Module("hub", "x = 1\n" * 501)),
    (commit_cannot_yield, Module("engine", "class E:\n    async def commit(self):\n        pass")),
    (commit_cannot_yield, Module("engine", "def commit():\n    async def f():\n        await g()")),
    (commit_cannot_yield, Module("engine", "def _commit_streams():\n    yield 1")),
    (time_and_chance_are_arguments, Module("hub", "import time\ntime.time()")),
    (time_and_chance_are_arguments, Module("hub", "import time\ndef f(now=time.monotonic): pass")),
    (time_and_chance_are_arguments, Module("schedule", "from time import time as t\nt()")),
    (time_and_chance_are_arguments, Module("schedule", "import datetime as d\nd.datetime.now(d.UTC)")),
    (time_and_chance_are_arguments, Module("engine", "from datetime import datetime\ndatetime.utcnow()")),
    (time_and_chance_are_arguments, Module("engine", "import datetime\ndatetime.date.today()")),
    (time_and_chance_are_arguments, Module("generator.stream", "import random\nrandom.choice([1])")),
    (time_and_chance_are_arguments, Module("generator.stream", "from random import randint\nrandint(1, 2)")),
    (time_and_chance_are_arguments, Module("broker.simulated", "import random as r\nr.SystemRandom()")),
    (what_is_public_has_a_docstring, Module("hub", "x = 1")),
    (what_is_public_has_a_docstring, Module("hub", '"""x"""\ndef f(): pass')),
    (what_is_public_has_a_docstring, Module("hub", '"""x"""\nclass C: pass')),
    (what_is_public_has_a_docstring, Module("hub", '"""x"""\nclass C:\n    """x"""\n    async def f(self): pass')),
    (nothing_is_left_for_later, Module("hub", "# TO" + "DO: later")),
    (nothing_is_left_for_later, Module("hub", "raise NotImplemented" + "Error")),
]
KEPT: list[tuple[Rule, Module]] = [
    (imports_point_upwards, Module("cli", "import regstream\nfrom regstream import __version__, daemon, errors")),
    (imports_point_upwards, Module("server.ws", "from regstream.server import app\nfrom . import routes")),
    (
        private_names_stay_in_their_room,
        Module("cli", "import regstream\nfrom regstream import __version__, engine, errors"),
    ),
    (private_names_stay_in_their_room, Module("hub.hub", "from regstream.hub.ring import _Ring")),
    (libraries_keep_to_their_rooms, Module("config", "import json\nimport ruamel.yaml")),
    (libraries_keep_to_their_rooms, Module("broker.kafka", "import aiokafka.errors", is_package=True)),
    (libraries_keep_to_their_rooms, Module("broker.kafka.admin", "import aiokafka.admin")),
    (no_module_is_too_long, Module("hub", "x = 1\n" * 500)),
    (commit_cannot_yield, Module("engine", "def commit(): pass\nasync def prepare():\n    await f()")),
    (time_and_chance_are_arguments, Module("daemon", "import time\ntime.time()")),
    (time_and_chance_are_arguments, Module("hub", "import random\nrandom.Random(7).random()\nnow()\nself.time()")),
    (time_and_chance_are_arguments, Module("schedule", "import datetime as d\nd.datetime.fromtimestamp(1, d.UTC)")),
    (what_is_public_has_a_docstring, Module("hub", '"""x"""\ndef _f(): pass\nclass _C:\n    def g(self): pass')),
    (nothing_is_left_for_later, Module("hub", "x = 1")),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_source_keeps(rule):
    broken = [f"regstream/{module.name.replace('.', '/')}: {one}" for module in modules() for one in rule(module)]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(("rule", "module"), BROKEN, ids=lambda one: getattr(one, "__name__", None))
def test_a_rule_sees_what_breaks_it(rule, module):
    assert list(rule(module))


@pytest.mark.parametrize(("rule", "module"), KEPT, ids=lambda one: getattr(one, "__name__", None))
def test_a_rule_lets_pass_what_keeps_it(rule, module):
    assert list(rule(module)) == []


def test_every_rule_is_tried_both_ways():
    assert {rule for rule, _ in BROKEN} == {rule for rule, _ in KEPT} == set(RULES)


def test_no_module_imports_itself_by_way_of_others():
    """Which of two that import each other can be imported first would depend on who imports them."""
    known = {f"regstream.{module.name}": module for module in modules()}
    graph = {
        name: {
            target
            for node in module.tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for _, full in imports(Module(module.name, ast.unparse(node), module.is_package))
            for target in [full if full in known else full.rpartition(".")[0]]
            if target in known and not known[target].is_package
        }
        for name, module in known.items()
        if not module.is_package
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_few_class_names_stand_for_two_things():
    names = [
        node.name
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert len([name for name, count in collections.Counter(names).items() if count > 1]) <= 5


def test_every_module_is_read():
    names = {module.name for module in modules()}
    assert {"", "errors", "spec", "settings"} <= names
