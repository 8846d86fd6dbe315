"""What tests borrow that pip cannot bring: packages of npm in ``tests/node``, and a Chromium of the system's.

Where they cannot be had the tests that need them do not run, and the last lines of the report say so and what would
run them; with ``CI`` set they fail.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import pathlib
import shutil
import subprocess

from tests import needs

FOLDER = pathlib.Path(__file__).parent / "node"
MODULES = FOLDER / "node_modules"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 90.0
CURE = "they need Node.js with npm and a registry that answers, and Chromium: apt-get install nodejs npm chromium"
missing: dict[str, str] = {}
"""The tests that did not run, and why."""


def need(test: str, browser: bool = False) -> None:
    """Skip the test, or in CI let it fail, where there are no packages or, if asked for, no ``browser``."""
    reason = unavailable() or ("there is no Chromium" if browser and chromium() is None else None)
    needs.unless(reason, test, missing, reason or "")


def chromium() -> str | None:
    """The program, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@functools.cache
def unavailable() -> str | None:
    """None when the packages are in ``MODULES``, else the reason; decided once a process, and installs them."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return "there is no Node.js with npm"
    with (FOLDER / ".lock").open("w") as lock:
        # Several runs of the tests may begin at once, and npm begins by removing what is there
        fcntl.flock(lock, fcntl.LOCK_EX)
        return None if _installed() else _install(npm)


def _stamp() -> pathlib.Path:
    return MODULES / ".installed"


def _wanted() -> str:
    return hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()


def _installed() -> bool:
    return _stamp().exists() and _stamp().read_text() == _wanted()


def _install(npm: str) -> str | None:
    command = [npm, "ci", "--prefer-offline", "--fetch-retries=1", "--fetch-timeout=20000", "--loglevel=error"]
    try:
        subprocess.run(command, cwd=FOLDER, check=True, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"npm took longer than {SECONDS:g} s"
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if line.strip()]
        return f"npm cannot install: {said[0] if said else error}"
    _stamp().write_text(_wanted())
    return None


def report() -> str | None:
    """The line that says which tests did not run; None when all did."""
    if not missing:
        return None
    reasons = " and ".join(sorted(set(missing.values())))
    files = ", ".join(sorted({test.partition("::")[0] for test in missing}))
    return f"{len(missing)} tests with packages of npm or a browser did not run ({reasons}; {files}): {CURE}"
