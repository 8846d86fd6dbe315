"""Other generators side by side with ours: the reference event as JSON lines into a file, each in its own process.

Each peer lives in a virtual environment that is made once (``.cache/peers``, from PyPI), and is driven by a script in
``peers_scripts`` in the fastest way that its documentation offers. What is counted is the processor time of the whole
process, start and end included, which is small beside so many events.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

from benchmarks import generation, rig, table

SCRIPTS = pathlib.Path(__file__).with_name("peers_scripts")
CACHE = rig.ROOT / ".cache" / "peers"
_RATE = 100


class Peer(NamedTuple):
    """Another generator: its project on PyPI with the version that is measured, how it is run and what it is spared."""

    project: str
    version: str
    script: str
    how: str
    events: int = 60_000


PEERS = (
    Peer("khaos-cli", "0.7.1", "use_khaos.py", "its payload generator, no seed, nothing derived, no Kafka"),
    Peer("avalon-generator", "1.1.0", "use_avalon.py", "a template model and its JSON lines, no seed"),
    Peer(
        "desflow", "0.25.0", "desflow.yaml", "a blueprint at factor 0, the event from a Python function, no seed for it"
    ),
    Peer("Faker", "40.63.0", "use_faker.py", "one call a field, seeded, the library's JSON"),
)


def why_not() -> str | None:
    """Why they cannot be measured here; None when they can. Installs those that are missing, which needs PyPI."""
    for peer in PEERS:
        try:
            _python(peer)
        except subprocess.CalledProcessError as error:
            return f"{peer.project} cannot be installed: {(error.stderr or error.stdout).strip().splitlines()[-1]}"
    return None


def _python(peer: Peer) -> pathlib.Path:
    """The Python of a peer's environment, which is made when it is missing. Raises CalledProcessError."""
    folder = CACHE / f"{peer.project}-{peer.version}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"installing {peer.project} {peer.version}", file=sys.stderr, flush=True)
        for command in (
            (sys.executable, "-m", "venv", folder),
            (python, "-m", "pip", "install", "--quiet", f"{peer.project}=={peer.version}"),
        ):
            subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
        (folder / "complete").touch()
    return python


def _installed(peer: Peer) -> str:
    code = f"import importlib.metadata as m; print(m.version({peer.project!r}))"
    return subprocess.run([_python(peer), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def _measured(command: list[str], out: pathlib.Path, folder: pathlib.Path) -> tuple[int, float]:
    """How many lines a process prints into ``out``, and the processor time that it takes, in seconds."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPTS), str(rig.ROOT)])}
    with out.open("wb") as file, (folder / "errors").open("wb") as errors:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{command[0]} failed: {(folder / 'errors').read_text()[-2000:]}")
    with out.open("rb") as file:
        return sum(1 for _ in file), usage.ru_utime + usage.ru_stime


def _theirs(peer: Peer, folder: pathlib.Path, events: int) -> tuple[int, float]:
    python, script = _python(peer), SCRIPTS / peer.script
    if script.suffix == ".yaml":
        blueprint = folder / script.name
        blueprint.write_text(
            script.read_text(encoding="utf-8").replace("SECONDS", str(events / _RATE)), encoding="utf-8"
        )
        command = [str(python.with_name(peer.project)), "run", str(blueprint)]
    else:
        command = [str(python), str(script), str(events)]
    return _measured(command, folder / f"{peer.project}.jsonl", folder)


def _ours(folder: pathlib.Path, events: int) -> tuple[int, float]:
    (folder / "streams.yaml").write_text(generation.REFERENCE.read_text(encoding="utf-8"), encoding="utf-8")
    # The reference stream has a hundred events a second
    span = ("--from", "2026-01-01", "--duration", f"{max(1, events // 100)}s", "--seed", "7")
    command = [sys.executable, "-m", "regstream", "generate", *rig.flags(folder), *span, "--out", "-"]
    return _measured(command, folder / "ours.jsonl", folder)


def measure(tiny: bool = False) -> list[table.Row]:
    """A row for each peer; the figure is ours, measured right before it."""
    rows = []
    for peer in PEERS:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            made, seconds = _ours(folder, 200 if tiny else 300_000)
            ours = made / seconds
            made, seconds = _theirs(peer, folder, 200 if tiny else peer.events)
        note = f"{peer.project} {_installed(peer)}: {made:,} events in {seconds:.1f} s; {peer.how}"
        title = f"peers: generate / {peer.project}"
        rows.append(table.Row(title, ours, "events/CPU s", 1.0, 1.0, made / seconds, True, True, note))
    return rows
