"""The unit as systemd's own tools see it; they need no booted system."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import pytest

from tests.support import ROOT

UNIT = ROOT / "systemd" / "regstream.service"
INSTALLER = ROOT / "systemd" / "install.sh"
EXPOSED = 1.5

analysing = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")


@analysing
def test_its_exposure_is_small() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", UNIT],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found and float(found[1]) <= EXPOSED, done.stdout[-600:]


@analysing
def test_nothing_in_it_is_unknown_to_systemd(tmp_path: pathlib.Path) -> None:
    # The program is not installed here, which alone would be a fault
    copy = tmp_path / "regstream.service"
    copy.write_text(UNIT.read_text().replace("/opt/regstream/current/bin/regstream", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False, timeout=60)
    ours = [line for line in done.stderr.splitlines() if "regstream.service" in line]
    assert (done.returncode, ours) == (0, [])


def test_each_line_of_it_is_explained() -> None:
    page = (ROOT / "docs" / "systemd.md").read_text()
    keys = set(re.findall(r"^([A-Z]\w+)=", UNIT.read_text(), re.MULTILINE))
    assert [key for key in sorted(keys) if f"`{key}=" not in page] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--bogus"], "unknown option --bogus"), (["--purge"], "--purge goes with --uninstall"),
     (["--wheels"], "--wheels needs a value"), (["--python"], "--python needs a value")],
)  # fmt: skip
def test_the_installer_refuses_what_it_does_not_understand(arguments: list[str], said: str) -> None:
    done = subprocess.run([INSTALLER, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and said in done.stderr


def test_the_installer_is_posix_shell() -> None:
    assert subprocess.run(["sh", "-n", INSTALLER], check=False, timeout=60).returncode == 0
    assert subprocess.run([INSTALLER, "--help"], capture_output=True, check=True, timeout=60).stdout
