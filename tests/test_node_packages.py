"""The packages of npm: pinned as exactly as those of pip, and missed aloud."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator

import pytest

from tests import node_packages

LOCK = (node_packages.FOLDER / "package-lock.json").read_text(encoding="utf-8")


@pytest.fixture
def nothing_there(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[None]:
    node_packages.unavailable.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(node_packages, "missing", {})
    yield
    node_packages.unavailable.cache_clear()


def test_every_package_is_pinned_with_its_hash_and_no_host_is_named():
    packages = {name: one for name, one in json.loads(LOCK)["packages"].items() if name}
    assert all(one["integrity"].startswith("sha512-") for one in packages.values())
    asked = json.loads((node_packages.FOLDER / "package.json").read_text())["devDependencies"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in asked} == asked
    assert not re.search(r"://|resolved", LOCK)


@pytest.mark.parametrize("ci", ["", "0", "false"])
def test_without_them_a_test_is_skipped_and_reported(nothing_there, monkeypatch, ci):
    monkeypatch.setenv("CI", ci)
    assert node_packages.report() is None
    with pytest.raises(pytest.skip.Exception, match=r"no Node\.js"):
        node_packages.need("tests/a.py::test_x")
    said = node_packages.report()
    assert said is not None and "1 tests" in said and "tests/a.py" in said and "apt-get install" in said


def test_without_them_a_test_fails_in_ci(nothing_there, monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"no Node\.js"):
        node_packages.need("tests/a.py::test_x")
    assert node_packages.report() is None


def test_a_missing_browser_is_only_missed_by_those_who_need_one(monkeypatch):
    monkeypatch.setattr(node_packages, "unavailable", lambda: None)
    monkeypatch.setattr(node_packages, "chromium", lambda: None)
    monkeypatch.setattr(node_packages, "missing", {})
    monkeypatch.delenv("CI", raising=False)
    node_packages.need("tests/a.py::test_x")
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        node_packages.need("tests/a.py::test_x", browser=True)


def test_what_npm_says_is_the_reason(monkeypatch, tmp_path):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code ECONNREFUSED' >&2\nexit 1\n")
    npm.chmod(0o755)
    assert node_packages._install(str(npm)) == "npm cannot install: npm error code ECONNREFUSED"
