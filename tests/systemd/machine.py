"""A booted systemd of one's own: a container on a throw-away copy of this system, with no network but its loopback.

Everything that is written in it goes to memory, and is gone when it is. It is systemd-nspawn on a bind mount of ``/``,
so that this system's Python and libraries are there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping

from tests import needs
from tests.support import ROOT

CURE = "they need root, and the program systemd-nspawn: apt-get install systemd-container dbus"
SECONDS = 90.0
PYTHON = "/usr/bin/python3"
CLEAN = ("env", "-i", "-C", "/", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "SYSTEMD_PAGER=")
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "regstream"
missing: dict[str, str] = {}
"""The tests that did not run, and why."""


def need(test: str) -> None:
    """Skip the test, or in CI let it fail, where no systemd can be booted."""
    reason = why_not()
    needs.unless(reason, test, missing, reason or "")


def why_not() -> str | None:
    """Why no systemd can be booted here; None when one can."""
    if os.getuid():
        return "only root can boot a container"
    absent = [one for one in ("systemd-nspawn", "nsenter", "mount") if shutil.which(one) is None]
    if absent or not pathlib.Path("/lib/systemd/systemd").exists():
        return f"there is no {(absent or ['systemd'])[0]} on this machine"
    able = [PYTHON, "-c", "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))"]
    if not pathlib.Path(PYTHON).exists() or subprocess.run(able, capture_output=True, check=False).returncode:
        return f"{PYTHON} is not 3.11 or newer with venv: apt-get install python3-venv"
    return _kernel()


def _kernel() -> str | None:
    """Some machines, containers mostly, do not let root mount and make namespaces."""
    done = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "true"], capture_output=True, check=False)
    return None if done.returncode == 0 else f"the kernel refuses: {done.stderr.decode().strip()}"


def wheels() -> pathlib.Path:
    """A folder with everything that the daemon needs, as the installer takes it where there is no internet."""
    pins = ROOT / "constraints-traces.txt"
    folder = CACHE / f"wheels-{hashlib.sha256(pins.read_bytes()).hexdigest()[:16]}"
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        work = pathlib.Path(name)
        subprocess.run([PYTHON, "-m", "venv", work / "venv"], check=True)
        pip = [work / "venv/bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
        subprocess.run([*pip, "--require-hashes", "-r", pins, "-d", work / "wheels"], check=True)
        with contextlib.suppress(OSError):
            (work / "wheels").rename(folder)
    return folder


class Machine:
    """A booted container; what is done in it is done as root."""

    def __init__(self, leader: int) -> None:
        self._enter = ["nsenter", "-t", str(leader), "-m", "-u", "-i", "-n", "-p", "--"]

    def run(self, *command: str, code: int | None = 0, seconds: float = SECONDS) -> str:
        """What a command says, on both of its outputs; it must end with ``code``, unless that is None."""
        done = subprocess.run(
            [*self._enter, *CLEAN, *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds,
            check=False,
        )  # fmt: skip
        assert code is None or done.returncode == code, f"{command} ended with {done.returncode}: {done.stdout}"
        return done.stdout

    def show(self, name: str, unit: str = "regstream") -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).strip()

    def until(self, name: str, value: str) -> None:
        """Return when a property of the service is that."""
        deadline = time.monotonic() + SECONDS
        while (found := self.show(name)) != value:
            assert time.monotonic() < deadline, f"{name} is {found}, not {value}: {self.journal()}"
            time.sleep(0.1)

    def tells(self, part: str) -> None:
        """Return when the service's line of state has that in it."""
        deadline = time.monotonic() + SECONDS
        while part not in (found := self.show("StatusText")):
            assert time.monotonic() < deadline, f"it tells {found!r}, not {part!r}: {self.journal()}"
            time.sleep(0.1)

    def journal(self) -> str:
        """What the service logged."""
        return self.run("journalctl", "--no-pager", "-o", "short-monotonic", "-u", "regstream", code=None)

    def read(self, path: str) -> str:
        return self.run("cat", path)

    def write(self, path: str, text: str) -> None:
        self.run("sh", "-c", 'printf %s "$2" > "$1"', "sh", path, text)

    def ask(self, path: str, token: str = "", code: int = 0) -> str:
        """The answer of the daemon in there; with ``code`` 1 what is said of an answer that is an error."""
        program = (
            "import sys, urllib.request as u; path, token = sys.argv[1:]; "
            "h = {'authorization': 'Bearer ' + token} if token else {}; "
            "print(u.urlopen(u.Request('http://127.0.0.1:3001' + path, headers=h), timeout=10)"
            ".read().decode())"
        )
        return self.run(PYTHON, "-c", program, path, token, code=code)


@contextlib.contextmanager
def booted(shared: Mapping[str, pathlib.Path]) -> Iterator[Machine]:
    """A machine that sees the folders ``shared``, by where it sees them, and cannot change them."""
    with tempfile.TemporaryDirectory(prefix="regstream-machine-") as name, contextlib.ExitStack() as stack:
        root = pathlib.Path(name) / "root"
        root.mkdir()
        subprocess.run(["mount", "--bind", "/", root], check=True)
        stack.callback(subprocess.run, ["umount", "--lazy", root], check=False)
        log = stack.enter_context((pathlib.Path(name) / "log").open("w+"))
        binds = [f"--bind-ro={path}:{where}" for where, path in shared.items()]
        command = [
            "systemd-nspawn", "-q", "-D", str(root), "--volatile=overlay", "--register=no", "--keep-unit",
            "--private-network", "--link-journal=no", f"--machine=regstream-{os.getpid()}", "--console=pipe", *binds,
            # Nothing of this system's own services
            "-b", "systemd.unit=basic.target",
        ]  # fmt: skip
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        stack.callback(_end, child)
        yield _wait(child, pathlib.Path(log.name))


def _wait(child: subprocess.Popen[bytes], log: pathlib.Path) -> Machine:
    deadline = time.monotonic() + SECONDS
    while True:
        assert child.poll() is None and time.monotonic() < deadline, f"it did not boot: {log.read_text()[-2000:]}"
        inside = pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        if inside:
            machine = Machine(int(inside[0]))
            state = machine.run("systemctl", "is-system-running", code=None)
            if state.strip() in ("running", "degraded"):
                return machine
        time.sleep(0.2)


def _end(child: subprocess.Popen[bytes]) -> None:
    inside = pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children")
    with contextlib.suppress(OSError, subprocess.TimeoutExpired, IndexError, AssertionError):
        Machine(int(inside.read_text().split()[0])).run("systemctl", "poweroff", code=None, seconds=10)
        child.wait(20)
    child.kill()
    child.wait()
