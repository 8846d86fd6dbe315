"""What `make` needs from the repository: pins that say exactly what is installed, and targets that exist."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import tomllib

import pytest

from tests import support

PINNED = ["constraints.txt", "constraints-traces.txt", "constraints-dev.txt"]
PROJECT = tomllib.loads((support.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HASH = r"--hash=sha256:[0-9a-f]{64}"
ENTRY = re.compile(rf"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[0-9][^\s;]*)(?P<marker> ; [^\\]+)?(?: {HASH})+")


def entries(name: str) -> list[str]:
    """Each requirement of a file on one line, continuation lines joined."""
    text = (support.ROOT / name).read_text(encoding="utf-8")
    return re.sub(r"\s*\\\n\s*", " ", text).splitlines()


def pins(name: str) -> dict[str, str]:
    found = [ENTRY.fullmatch(line) for line in entries(name)]
    return {match["name"]: match["version"] for match in found if match}


def plain(requirement: str) -> str:
    """The name of a requirement, as pip compares names."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0].rstrip(".")).lower()


def group(name: str) -> set[str]:
    found: set[str] = set()
    for one in PROJECT["dependency-groups"][name]:
        found |= group(one["include-group"]) if isinstance(one, dict) else {plain(one)}
    return found


@pytest.mark.parametrize("name", PINNED)
def test_every_line_is_one_pin_with_its_hashes(name):
    wrong = [line[:80] for line in entries(name) if not ENTRY.fullmatch(line)]
    assert wrong == []
    assert len(pins(name)) == len(entries(name)) > 10


@pytest.mark.parametrize("name", PINNED)
def test_no_host_is_named(name):
    text = (support.ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"://|@|--(extra-)?index-url|--find-links|--trusted-host|^\s*-", text.replace("--hash", ""))


@pytest.mark.parametrize("line", ["x==1", "x>=1 --hash=sha256:" + "0" * 64, "x @ file:///y", "--index-url y", ""])
def test_a_line_that_pins_nothing_is_seen(line):
    assert not ENTRY.fullmatch(line)


def test_everything_that_is_asked_for_is_pinned():
    runtime = {plain(one) for one in PROJECT["project"]["dependencies"]}
    assert runtime | group("build") <= set(pins("constraints.txt"))
    assert runtime | group("dev") <= set(pins("constraints-dev.txt"))


def test_the_daemon_is_tested_with_the_versions_it_runs_with():
    run, traces, dev = (pins(name) for name in PINNED)
    assert {name: traces.get(name) for name in run} == run
    assert {name: dev.get(name) for name in traces} == traces


def test_what_only_tests_need_is_not_installed_to_run():
    assert not (group("dev") - group("build")) & set(pins("constraints.txt"))


def test_versions_agree():
    from regstream import __version__

    assert PROJECT["project"]["version"] == __version__
    assert f"## [{__version__}]" in (support.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def make(
    *arguments: str, folder: pathlib.Path = support.ROOT, path: str = os.defpath
) -> subprocess.CompletedProcess[str]:
    # A clean environment: these tests themselves may have been started by make, which leaves its flags behind.
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=folder, env={"PATH": path}, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "target",
    [
        "help",
        "run",
        "test",
        "test-unit",
        "test-rest",
        "test-all",
        "nightly",
        "check",
        "format",
        "bench",
        "docs",
        "lock",
        "clean",
    ],
)
def test_make_knows(target):
    done = make("--dry-run", target)
    assert done.returncode == 0, done.stderr


def test_make_alone_says_what_it_can_do():
    done = make()
    for target in ["run", "test", "test-unit", "test-all", "check", "bench", "docs"]:
        assert f"make {target} " in done.stdout


def test_an_old_python_is_refused_with_the_cure(tmp_path: pathlib.Path):
    old = tmp_path / "bin"
    old.mkdir()
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        (old / name).write_text("#!/bin/sh\nexit 1\n")
        (old / name).chmod(0o755)
    done = venv(tmp_path, f"{old}:/usr/bin:/bin")
    assert done.returncode != 0 and "Python 3.11 or newer" in done.stderr


def test_a_python_without_venv_is_refused_with_the_cure(tmp_path: pathlib.Path):
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        (bare / name).write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\n')
        (bare / name).chmod(0o755)
    done = venv(tmp_path, f"{bare}:/usr/bin:/bin")
    assert done.returncode != 0 and "apt-get install python3-venv" in done.stderr


def venv(folder: pathlib.Path, path: str) -> subprocess.CompletedProcess[str]:
    for name in ("constraints.txt", "pyproject.toml"):
        (folder / name).write_text("")
    return make("-f", str(support.ROOT / "Makefile"), ".venv/.run", folder=folder, path=path)


def test_ci_calls_what_people_call():
    script = support.ROOT / ".ci" / "run"
    text = script.read_text(encoding="utf-8")
    assert re.findall(r"^make ([a-z-]+)", text, re.MULTILINE) == ["check", "test", "test-rest"]
    assert "set -euo pipefail" in text
    assert script.stat().st_mode & 0o111
