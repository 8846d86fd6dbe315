"""A PostgreSQL of one's own: a cluster in a folder, made from the machine's binaries, on a free port of loopback.

It is run by an ordinary user when the one who asks is root, because PostgreSQL refuses to run as root.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable

USERS = ("postgres", "nobody")
LEAST = 15
SECONDS = 60.0
# A test's cluster lives for minutes: what makes it safe against a loss of power only makes it slow
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
SETTINGS = ("max_connections=60", "shared_buffers=64MB", "autovacuum_naptime=5s", "log_min_messages=warning")


def binaries() -> pathlib.Path | None:
    """The folder of the newest PostgreSQL's programs on this machine; None where there is none that is new enough."""
    found = {path.parent for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")}
    found |= {path.parent for path in pathlib.Path("/usr").glob("pgsql-*/bin/initdb")}
    if on_path := shutil.which("initdb"):
        found.add(pathlib.Path(on_path).resolve().parent)
    ranked = sorted((version, folder) for folder in found if (version := _version(folder)) >= LEAST)
    return ranked[-1][1] if ranked else None


def _version(folder: pathlib.Path) -> int:
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    digits = "".join(one if one.isdigit() else " " for one in said).split()
    return int(digits[0]) if digits else 0


def find(program: str) -> str:
    """One of PostgreSQL's programs. Raises RuntimeError where there is none."""
    folder = binaries()
    found = shutil.which(program, path=folder) or shutil.which(program)
    if found is None:
        raise RuntimeError(why_not() or f"there is no {program} on this machine")
    return found


def why_not() -> str | None:
    """Why no cluster can be had here; None when one can."""
    if binaries() is None:
        return f"there is no PostgreSQL {LEAST} or newer on this machine"
    return None if os.getuid() or _user() else "PostgreSQL does not run as root, and there is no other user"


def _user() -> str | None:
    for name in USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None


class Cluster:
    """One cluster in ``folder``; ``settings`` are further lines of its configuration. Its port stays over restarts."""

    def __init__(self, folder: pathlib.Path, *, settings: Iterable[str] = ()) -> None:
        self._folder = folder / "data"
        self._home = folder
        self._settings = (*SETTINGS, *FAST, *settings)
        self._as = {} if os.getuid() else {"user": _user(), "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    def url(self, database: str = "postgres") -> str:
        """How a client reaches it."""
        return f"postgresql://regstream@127.0.0.1:{self.port}/{database}"

    def create(self) -> None:
        """Make the cluster; it is not running then."""
        self._home.mkdir(parents=True, exist_ok=True)
        if self._as:
            # Who runs it has to reach the folder, whoever made those above it
            shutil.chown(self._home, self._as["user"])
            for parent in self._home.parents:
                if parent.stat().st_uid == os.getuid() and parent != pathlib.Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o011)
        options = ["-U", "regstream", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--wal-segsize=1"]
        self._run("initdb", "-D", str(self._folder), *options)
        lines = ["listen_addresses='127.0.0.1'", f"unix_socket_directories='{self._home}'", *self._settings]
        with (self._folder / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    def _run(self, program: str, *arguments: str) -> None:
        command = [find(program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False, **self._as)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.strip()}")

    def start(self, largest: int | None = None) -> None:
        """Start it, and return when it takes connections. No file may grow beyond ``largest`` bytes: a full disk."""
        command = [find("postgres"), "-D", str(self._folder), "-p", str(self.port)]
        if largest is not None:
            # In blocks of 512 bytes
            command = ["sh", "-c", f'ulimit -f {largest // 512} && exec "$@"', "sh", *command]
        with (self._home.parent / f"{self._home.name}.log").open("ab") as log:
            # A group of its own: the parts of it get every signal together
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True, **self._as
            )
        deadline = time.monotonic() + SECONDS
        ready = [find("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "regstream"]
        while subprocess.run(ready, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start, see {log.name}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in order, without waiting for its clients."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to all of its processes, at once."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self.thaw()
        with contextlib.suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                self._signal_all(number)
            else:
                self._process.send_signal(number)
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            # Seen once in many hundreds: a backend that does not heed the end holds the server up
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(SECONDS)
        self._process = None

    def freeze(self) -> None:
        """SIGSTOP to all of its processes: connections stay, and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        for pid in [self._process.pid, *_children(self._process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def __enter__(self) -> Cluster:
        self.create()
        self.start()
        return self

    def __exit__(self, *about: object) -> None:
        self.kill()


def _children(parent: int) -> list[int]:
    """Its backends have sessions of their own, so that they cannot be reached as a group."""
    try:
        text = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(one) for one in text.split()]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
