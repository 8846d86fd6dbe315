"""What README and the pages say: examples load and render, links lead somewhere, commands exist."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from typing import Any, NamedTuple

import orjson
import pytest

from regstream import config, schema, settings, spec
from regstream.functions import registry
from regstream.generator import stream as generated
from regstream.server import routes
from tests.support import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
NOW = 1_795_435_200.123
COMMANDS = ("run", "validate", "preview", "generate", "plan", "schema", "tail", "check", "replay")
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block: the page, the line it begins on, what stands behind its fence, and its text."""

    page: pathlib.Path
    line: int
    info: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def fenced(page: pathlib.Path) -> list[Block]:
    source = page.read_text(encoding="utf-8")
    return [
        Block(page, source.count("\n", 0, match.start()) + 1, match["info"], match["text"])
        for match in FENCE.finditer(source)
    ]


BLOCKS = [block for page in PAGES for block in fenced(page)]
SHELL = [block.text for block in BLOCKS if block.info == "sh" and block.page.name == "README.md"]


def of(info: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in BLOCKS if block.info == info]


def loaded(folder: pathlib.Path, streams: str, scenarios: pathlib.Path) -> spec.Catalog:
    """The shipped streams with more text behind them, and the CSV files that are shown."""
    path, templates = folder / "streams.yaml", folder / "templates"
    shutil.copytree(ROOT / "templates", templates)
    for block in BLOCKS:
        kind, _, name = block.info.partition(" ")
        if kind == "csv":
            (templates / name).write_text(block.text, encoding="utf-8")
    path.write_text((ROOT / "streams.yaml").read_text(encoding="utf-8") + "\n" + streams, encoding="utf-8")
    return config.load(path, scenarios, templates, "development")


def preview(catalog: spec.Catalog, name: str) -> list[dict[str, Any]]:
    workshop = generated.GenerationContext(catalog, 42, generated.Identity("/test", "LATAM"))
    workshop.fill(NOW)
    batch = generated.Stream(catalog.streams[name], workshop, "E").next_batch(NOW, 20)
    assert batch.error is None
    assert len(batch.events) == 20
    return [orjson.loads(event.value)["data"] for event in batch.events]


@pytest.mark.parametrize("block", of("yaml fields"))
def test_fields_that_are_shown_can_be_previewed(block: Block, tmp_path: pathlib.Path) -> None:
    text = "  EXAMPLE:\n    interval: 1s\n    fields:\n" + textwrap.indent(block.text, "      ")
    events = preview(loaded(tmp_path, text, ROOT / "scenarios"), "EXAMPLE")
    assert all(events)


@pytest.mark.parametrize("block", of("yaml stream"))
def test_streams_that_are_shown_can_be_added_to_those_that_ship(block: Block, tmp_path: pathlib.Path) -> None:
    name = block.text.partition(":")[0].strip()
    catalog = loaded(tmp_path, block.text, ROOT / "scenarios")
    assert name in catalog.streams
    assert preview(catalog, name)


def test_the_schema_that_is_shown_is_the_stream_s(tmp_path: pathlib.Path) -> None:
    page = [block for block in BLOCKS if block.page.name == "formats.md"]
    stream, json_schema = (next(block.text for block in page if block.info == info) for info in ("yaml stream", "json"))
    known = schema.Schemas(loaded(tmp_path, stream, ROOT / "scenarios"))
    assert json.loads(json_schema) == known.document(stream.partition(":")[0].strip())


@pytest.mark.parametrize("block", of("yaml scenario"))
def test_scenarios_that_are_shown_load(block: Block, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "scenarios"
    folder.mkdir()
    (folder / "shown.yaml").write_text(block.text, encoding="utf-8")
    assert len(loaded(tmp_path, "", folder).scenarios) == 1


def test_no_yaml_example_goes_unchecked() -> None:
    unknown = [
        str(block)
        for block in BLOCKS
        if block.info.startswith("yaml")
        and block.info not in {"yaml fields", "yaml stream", "yaml streams", "yaml scenario"}
        and any(line.strip() and not line.startswith("#") for line in block.text.splitlines())
    ]
    assert unknown == []


def test_every_vocabulary_function_has_an_example() -> None:
    page = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8")
    shown = "".join(block.text for block in fenced(ROOT / "docs" / "templates.md") if block.info.startswith("yaml"))
    for name in registry.FUNCTIONS:
        assert f"\n### {name}\n" in page
        assert f"{name}(" in shown
    for name in registry.NAMES:
        assert f"\n| `{name}` |" in page


def test_every_kind_of_step_is_described() -> None:
    page = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
    titles = " ".join(re.findall(r"^### (.*)$", page, re.MULTILINE)).split()
    assert set(spec.STEP_KINDS) <= set(titles)


@pytest.mark.parametrize("block", of("json"))
def test_json_that_is_shown_is_json(block: Block) -> None:
    try:
        json.loads(block.text)
    except json.JSONDecodeError:
        for line in block.text.splitlines():
            json.loads(line)


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors that a page's titles have on the web."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: pathlib.Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.is_relative_to(ROOT), target
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@functools.cache
def usage(*arguments: str) -> str | None:
    """What the program says of itself, None when it has no such command."""
    said = subprocess.run(
        [sys.executable, "-c", "from regstream import cli; cli.main()", *arguments, "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout if said.returncode == 0 else None


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_shows_every_command(command: str) -> None:
    shown = re.search(rf"regstream {command}\b|make {command}\b", "".join(SHELL))
    assert bool(shown) == (usage(command) is not None)


def test_readme_shows_no_option_that_the_program_lacks() -> None:
    calls = re.findall(r"\bregstream ([a-z]+)([^\n|>&]*)", "".join(SHELL))
    assert calls
    for command, arguments in calls:
        for option in re.findall(r"(?<!\S)--?[a-z-]+", arguments):
            assert re.search(rf"(?<!\S){option}(?=[\s,])", usage(command) or ""), (command, option)


CALLS = [
    pytest.param(method or "GET", url, id=f"{block}-{method or 'GET'}-{url}")
    for block in BLOCKS
    if block.info == "sh"
    for method, url in re.findall(r"curl -s(?: -X +([A-Z]+))? +'?localhost:3001(/[^\s']*)", block.text)
]


@pytest.mark.parametrize(("method", "url"), CALLS)
def test_every_request_that_is_shown_has_a_route(method: str, url: str) -> None:
    path = url.partition("?")[0]
    assert any(
        route.method == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route.path), path) for route in routes.TABLE
    )


def test_every_route_is_described() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for route in routes.TABLE:
        last = route.path.rpartition("/")[2]
        assert route.path in page or last in page, route.path


def test_readme_sets_only_variables_that_exist() -> None:
    declared = {variable.name for variable in settings.VARIABLES} | set(settings.COMMANDS)
    used = set(re.findall(r"(?<!\S)([A-Z][A-Z_]+)=", "".join(SHELL)))
    assert "REGSTREAM_ENV" in used
    assert used <= declared


def test_the_drawing_is_well_formed_and_readable_in_the_dark() -> None:
    drawing = (ROOT / "docs" / "flow.svg").read_text(encoding="utf-8")
    ET.fromstring(drawing)
    assert "prefers-color-scheme: dark" in drawing
    assert "<title" in drawing
