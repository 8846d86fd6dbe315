"""Where Apache Kafka comes from: its published artefacts, resolved once by Maven into the user's cache folder."""

from __future__ import annotations

import functools
import os
import pathlib
import re
import selectors
import shutil
import subprocess
import tempfile
import time

VERSION = "4.1.1"
SCALA = "2.13"
JAVA = 17
SILENCE = 15.0
"""Seconds without a sign of progress after which the registry counts as one that does not answer."""
LONGEST = 300.0

# slf4j-simple carries what Kafka has to say to stderr; without a binding a broker that cannot start would not say why.
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_{SCALA}</artifactId><version>{VERSION}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
"""


class Unavailable(Exception):
    """Kafka cannot be had on this machine; the text says why."""


def folder() -> pathlib.Path:
    """Where the jars are, or will be."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "regstream" / f"kafka-{VERSION}"


@functools.cache
def available() -> str | None:
    """None when Kafka can be run here, else the reason; decided once, and resolves the artefacts on the way."""
    try:
        java()
        resolve()
    except Unavailable as error:
        return str(error)
    return None


@functools.cache
def java() -> str:
    """The path of a Java that is new enough; raises Unavailable."""
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=f"{home}/bin") if home else None
    path = path or shutil.which("java")
    if path is None:
        raise Unavailable(f"no java: install Java {JAVA} or newer")
    try:
        said = subprocess.run([path, "-version"], check=False, capture_output=True, text=True, timeout=SILENCE).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"java does not answer: {error}") from error
    match = re.search(r'version "(\d+)', said)
    if match is None or int(match[1]) < JAVA:
        raise Unavailable(f"java is too old ({said.splitlines()[:1]}): install Java {JAVA} or newer")
    return path


def resolve() -> pathlib.Path:
    """The folder of the jars, fetched when it is not there yet; raises Unavailable."""
    target = folder()
    if target.is_dir():
        return target
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable("no mvn: install Maven")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="resolving-", dir=target.parent) as temporary:
        work = pathlib.Path(temporary)
        (work / "pom.xml").write_text(POM, encoding="utf-8")
        _fetch(maven, work)
        try:
            (work / "jars").rename(target)
        except OSError:
            # Another process was first: its folder is as good, and complete, since it came by a rename too.
            if not target.is_dir():
                raise
    return target


def _fetch(maven: str, work: pathlib.Path) -> None:
    command = [maven, "-B", "-U", "dependency:copy-dependencies", f"-DoutputDirectory={work / 'jars'}"]
    with subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            said = _listen(process)
        finally:
            process.kill()
    if process.returncode or not list((work / "jars").glob(f"kafka_{SCALA}-*.jar")):
        reasons = [line for line in said.splitlines() if line.startswith("[ERROR]")] or said.splitlines()[-1:]
        raise Unavailable("Maven could not fetch Kafka: " + (_plain(reasons[0]) if reasons else "it said nothing"))


def _listen(process: subprocess.Popen[bytes]) -> str:
    """All that the process says until it ends; raises Unavailable when it falls silent or takes too long."""
    assert process.stdout is not None
    said, end = bytearray(), time.monotonic() + LONGEST
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < end:
            if not selector.select(SILENCE):
                raise Unavailable(f"the Maven registry does not answer (nothing for {SILENCE:g} s)")
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                process.wait(SILENCE)
                return said.decode(errors="replace")
            said += chunk
    raise Unavailable(f"Maven took longer than {LONGEST:g} s")


def _plain(line: str) -> str:
    return re.sub(r"\w+://\S+", "the registry", line.removeprefix("[ERROR]").strip())[:300]
