"""docs/configuration.md is what the declarations make of it, and its examples load."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import types

import pytest

from regstream import config, settings, spec
from tests.support import ROOT

PAGE = ROOT / "docs" / "configuration.md"
EXAMPLES = re.findall(r"^```yaml streams\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def script() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("configuration_page", ROOT / "scripts" / "configuration_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == script().page(), "run: make docs"


def test_the_example_of_an_environment_is_up_to_date() -> None:
    text = (ROOT / "systemd" / "regstream.env.example").read_text(encoding="utf-8")
    assert text == script().example(), "run: make docs"


def test_the_example_of_an_environment_holds_the_defaults() -> None:
    text = (ROOT / "systemd" / "regstream.env.example").read_text(encoding="utf-8")
    given = dict(line[1:].split("=", 1) for line in text.splitlines() if re.match(r"#[A-Z_]+=", line))
    assert set(given) == {one.name for one in settings.VARIABLES}
    assert settings.load(given) == settings.load({})


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.partition(":")[0])
def test_an_example_loads(text: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "streams.yaml").write_text(text, encoding="utf-8")
    assert config.load(tmp_path / "streams.yaml", tmp_path / "none", tmp_path / "none", "production").streams


@pytest.mark.parametrize(
    "declaration",
    [
        spec.StreamsFile, spec.StreamSpec, spec.EntitySpec, spec.AlertRule, spec.Defaults, spec.Profile,
        spec.KafkaProfile, spec.ScenarioSpec, spec.Burst, spec.Overlay, spec.Alert, spec.Repeat,
    ],
)  # fmt: skip
def test_every_key_has_a_row(declaration: type[spec.Spec]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in set(declaration.model_fields) - ({"name", "files"} if declaration is not spec.ScenarioSpec else set()):
        assert f"\n| `{name.rstrip('_')}`" in page


def test_every_variable_and_every_step_has_a_row() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in (*(one.name for one in settings.VARIABLES), *spec.STEP_KINDS):
        assert f"\n| `{name}` |" in page
