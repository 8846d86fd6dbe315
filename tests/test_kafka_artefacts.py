"""Why Kafka cannot be had is known within seconds, and never by hanging."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from scripts import kafka_artefacts
from tests import support

JAVA_17 = "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2"


@pytest.fixture(autouse=True)
def empty(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without Java, Maven and cache."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path / 'cache'}")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(kafka_artefacts, "SILENCE", 1.0)
    _forget()
    yield
    _forget()


def _forget() -> None:
    kafka_artefacts.java.cache_clear()
    kafka_artefacts.available.cache_clear()


def command(folder: pathlib.Path, name: str, script: str) -> None:
    path = folder / "bin" / name
    path.write_text(f"#!/bin/sh\nPATH={os.defpath}\n{script}\n")
    path.chmod(0o755)


def reason(folder: pathlib.Path) -> str:
    start = time.monotonic()
    found = kafka_artefacts.available()
    assert found is not None
    assert time.monotonic() - start < 10
    assert kafka_artefacts.available() is found
    assert not list((folder / "cache").glob("regstream/*"))
    return found


def test_no_java(tmp_path: pathlib.Path) -> None:
    assert "no java" in reason(tmp_path)


def test_an_old_java(tmp_path: pathlib.Path) -> None:
    command(tmp_path, "java", "echo 'java version \"1.8.0_292\"' >&2")
    assert "too old" in reason(tmp_path)


def test_a_java_that_says_nothing(tmp_path: pathlib.Path) -> None:
    command(tmp_path, "java", "exec sleep 60")
    assert "does not answer" in reason(tmp_path)


def test_no_maven(tmp_path: pathlib.Path) -> None:
    command(tmp_path, "java", JAVA_17)
    assert "no mvn" in reason(tmp_path)


def test_a_registry_that_refuses(tmp_path: pathlib.Path) -> None:
    command(tmp_path, "java", JAVA_17)
    command(tmp_path, "mvn", "echo '[ERROR] Could not transfer https://a.b/c: refused'; exit 1")
    said = reason(tmp_path)
    assert said == "Maven could not fetch Kafka: Could not transfer the registry refused"


def test_a_registry_that_says_nothing(tmp_path: pathlib.Path) -> None:
    command(tmp_path, "java", JAVA_17)
    command(tmp_path, "mvn", "echo Downloading; exec sleep 60")
    assert "does not answer" in reason(tmp_path)


def test_a_maven_that_brings_nothing(tmp_path: pathlib.Path) -> None:
    command(tmp_path, "java", JAVA_17)
    command(tmp_path, "mvn", "echo BUILD SUCCESS")
    assert "could not fetch" in reason(tmp_path)


def test_fetched_once(tmp_path: pathlib.Path) -> None:
    command(tmp_path, "java", JAVA_17)
    command(tmp_path, "mvn", f"mkdir jars; touch jars/kafka_{kafka_artefacts.SCALA}-1.jar; echo x >> {tmp_path}/runs")
    assert kafka_artefacts.available() is None
    _forget()
    assert kafka_artefacts.available() is None
    assert (tmp_path / "runs").read_text() == "x\n"
    assert [path.name for path in (tmp_path / "cache" / "regstream").iterdir()] == [kafka_artefacts.folder().name]


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_the_last_line_says_what_did_not_run_and_what_would_run_it(tmp_path: pathlib.Path, ci: str, code: int) -> None:
    one = "tests/kafka/test_wire.py::TestTopics::test_with_its_replication"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", one]
    done = subprocess.run(command, cwd=support.ROOT, env={**os.environ, "CI": ci}, capture_output=True, text=True)
    assert done.returncode == code, done.stdout
    said = "1 tests with Apache Kafka did not run (no java: install Java 17 or newer); they need Java 17 and Maven"
    assert done.stdout.splitlines()[-1].startswith(said) is not bool(ci)
    assert ("this must run here: no java" in done.stdout) is bool(ci)
